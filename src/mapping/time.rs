//! Times as records write them.

use crate::record::TIMESTAMP_MS_MAX;
use crate::time::{parse_formatted, parse_iso};

/// How a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// RFC 3339 and the like; UTC if no zone is said.
    Iso,
    /// A number of units since 1970, and how many of them make a second.
    Since1970 { units_per_s: i64 },
    /// As strptime takes it.
    Format(String),
}

impl TimeForm {
    /// # Errors
    /// A sentence, if there is no such form.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let units_per_s = match text {
            "iso" => return Ok(Self::Iso),
            "s" => 1,
            "ms" => 1_000,
            "us" => 1_000_000,
            "ns" => 1_000_000_000,
            format if format.contains('%') => return Ok(Self::Format(format.to_owned())),
            _ => {
                return Err(format!(
                    "'{text}' is no form of times: iso, s, ms, us, ns, or one with % as of strptime"
                ));
            }
        };
        Ok(Self::Since1970 { units_per_s })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Iso => "iso",
            Self::Since1970 { units_per_s: 1 } => "s",
            Self::Since1970 { units_per_s: 1_000 } => "ms",
            Self::Since1970 {
                units_per_s: 1_000_000,
            } => "us",
            Self::Since1970 { .. } => "ns",
            Self::Format(format) => format,
        }
    }

    /// Milliseconds since 1970, if the text is such a time. Events are not older.
    pub(super) fn ms_of(&self, text: &str) -> Option<i64> {
        let text = text.trim_ascii();
        let timestamp_ms = match self {
            Self::Iso => parse_iso(text),
            Self::Since1970 { units_per_s } => since_1970(text, *units_per_s),
            Self::Format(format) => parse_formatted(format, text),
        };
        timestamp_ms.filter(|timestamp_ms| (0..=TIMESTAMP_MS_MAX).contains(timestamp_ms))
    }
}

/// Exact, whatever a float would make of it; what is less than a millisecond is cut off.
fn since_1970(text: &str, units_per_s: i64) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = !whole.is_empty()
        && whole.bytes().all(|byte| byte.is_ascii_digit())
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return since_1970_in_powers(text, units_per_s);
    }
    let whole: i128 = whole.parse().ok()?;
    let digits = &fraction.as_bytes()[..fraction.len().min(9)];
    let nanos = digits
        .iter()
        .chain(std::iter::repeat(&b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let units_per_s = i128::from(units_per_s);
    // No time that counts has more digits.
    if whole > i128::from(i64::MAX) {
        return None;
    }
    let ms = (whole * 1_000_000_000 + nanos) * 1_000 / (units_per_s * 1_000_000_000);
    i64::try_from(ms).ok()
}

/// Large numbers that a program has written with a power of ten: `1.7221E12`.
fn since_1970_in_powers(text: &str, units_per_s: i64) -> Option<i64> {
    if !text.contains(['e', 'E']) || !text.starts_with(|sign: char| sign.is_ascii_digit()) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    let ms = number / units_per_s as f64 * 1_000.0;
    (ms.is_finite() && ms <= TIMESTAMP_MS_MAX as f64).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |form: &str, text: &str, expected: Option<i64>| {
            let form = TimeForm::parse(form).expect("a form");
            assert_eq!(form.ms_of(text), expected, "for {text}");
        };
        check("s", "1735689600", Some(1_735_689_600_000));
        check("s", "1055289978.855137", Some(1_055_289_978_855));
        check("s", "1.7356896E9", Some(1_735_689_600_000));
        check("ms", "1735689600042", Some(1_735_689_600_042));
        check("us", "1735689600042999", Some(1_735_689_600_042));
        check("ns", "1735689600042999999", Some(1_735_689_600_042));
        check("iso", "2025-01-01T00:00:00Z", Some(1_735_689_600_000));
        check(
            "%m/%d/%Y %I:%M:%S %p",
            "1/1/2025 1:00:00 AM",
            Some(1_735_693_200_000),
        );
        check(
            "%d/%b/%Y:%H:%M:%S %z",
            "01/Jan/2025:01:00:00 +0100",
            Some(1_735_689_600_000),
        );
        for wrong in [
            "",
            "-1",
            "1x",
            "0x10",
            "99999999999999999999999999999999999999999",
            "1e400",
            "340282366920938465199064208",
            "100000000000000000000000000000",
        ] {
            check("s", wrong, None);
        }
        check("iso", "1969-12-31T23:59:59Z", None);
        assert!(TimeForm::parse("iso8601").is_err());
    }
}
