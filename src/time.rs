//! Points in time as people write them, and back.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::{Time, date};
use jiff::fmt::temporal::Pieces;

/// Milliseconds since 1970 of `2026-11-24T08:00:00Z`, `2026-11-24` (midnight UTC), a number of
/// milliseconds, or a span before `now_ms` such as `90s`, `15m`, `24h`, `7d`, `4w`.
///
/// # Errors
/// A sentence that lists what would be understood.
pub fn parse_time(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Some(span_ms) = parse_span(text) {
        return Ok(now_ms.saturating_sub(span_ms));
    }
    if let Ok(timestamp_ms) = text.parse::<i64>() {
        return Ok(timestamp_ms);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.as_millisecond());
    }
    if let Ok(timestamp) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(timestamp.as_millisecond());
    }
    if let Some(timestamp_ms) = parse_late(text) {
        return Ok(timestamp_ms);
    }
    Err(
        "expected a time such as 2026-11-24, 2026-11-24T08:00:00Z, 1764000000000 (ms), or a span \
         before now such as 24h or 7d"
            .to_owned(),
    )
}

/// The same for the last day of the year 9999, which people mean by "never" and no `Timestamp` reaches.
fn parse_late(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset_s) = match (pieces.time(), pieces.to_numeric_offset()) {
        (None, _) => (Time::midnight(), 0),
        (Some(time), Some(offset)) => (time, offset.seconds()),
        (Some(_), None) => return None,
    };
    let since_1970 = pieces
        .date()
        .to_datetime(time)
        .duration_since(date(1970, 1, 1).at(0, 0, 0, 0));
    i64::try_from(since_1970.as_millis() - i128::from(offset_s) * 1_000).ok()
}

/// Milliseconds of a span such as `90s`, `15m`, `24h`, `7d`, `4w`.
#[must_use]
pub fn parse_span(text: &str) -> Option<i64> {
    let unit_ms = match text.bytes().last()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        b'w' => 604_800_000,
        _ => return None,
    };
    let number = text[..text.len() - 1].parse::<u32>().ok()?;
    i64::from(number).checked_mul(unit_ms)
}

/// RFC 3339 in UTC to the second: `2026-11-24T08:00:00Z`.
#[must_use]
pub fn format_time(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => timestamp_ms.to_string(),
    }
}

/// RFC 3339 in UTC to the millisecond, as far as years have four digits: `2026-11-24T08:00:00.042Z`.
#[must_use]
pub fn format_time_ms(timestamp_ms: i64) -> String {
    match Timestamp::from_millisecond(timestamp_ms) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        Err(_) => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

/// Milliseconds since 1970 of a date as HTTP writes it: `Tue, 24 Nov 2026 08:00:00 GMT`.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<i64> {
    let timestamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    Some(timestamp.ok()?.as_millisecond())
}

/// Hour of the day in UTC, 0..=23.
#[must_use]
pub fn hour_of_day(timestamp_ms: i64) -> usize {
    (timestamp_ms.div_euclid(3_600_000).rem_euclid(24)) as usize
}

/// Day of the week in UTC, 0 for Monday.
#[must_use]
pub fn weekday(timestamp_ms: i64) -> usize {
    // 1970 began on a Thursday.
    (timestamp_ms.div_euclid(86_400_000) + 3).rem_euclid(7) as usize
}

/// Milliseconds since 1970, now.
#[must_use]
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Milliseconds since this was asked first: a clock that nobody sets.
#[must_use]
pub fn uptime_ms() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |text: &str, expected: i64| {
            assert_eq!(
                parse_time(text, 1_000_000_000_000),
                Ok(expected),
                "for {text}"
            );
        };
        check("1764000000000", 1_764_000_000_000);
        check("2025-01-01", 1_735_689_600_000);
        check("2025-01-01T01:00:00+01:00", 1_735_689_600_000);
        check("9999-12-31", 253_402_214_400_000);
        check("9999-12-31T23:59:59.999Z", 253_402_300_799_999);
        check("9999-12-31T23:59:59-01:00", 253_402_304_399_000);
        check("24h", 1_000_000_000_000 - 86_400_000);
        check("2w", 1_000_000_000_000 - 1_209_600_000);
        assert!(parse_time("yesterday", 0).is_err());
        assert!(parse_time("5x", 0).is_err());
        assert!(parse_time("", 0).is_err());
        assert_eq!(format_time(1_735_689_600_000), "2025-01-01T00:00:00Z");
        assert_eq!(
            format_time_ms(1_735_689_600_042),
            "2025-01-01T00:00:00.042Z"
        );
        let http = parse_http_date("Wed, 01 Jan 2025 00:00:00 GMT");
        assert_eq!(http, Some(1_735_689_600_000));
        assert_eq!(parse_http_date("soon"), None);
        assert_eq!(hour_of_day(1_735_689_600_000 + 5 * 3_600_000), 5);
        // A Wednesday.
        assert_eq!(weekday(1_735_689_600_000), 2);
        assert_eq!(
            [weekday(-1), weekday(0), weekday(4 * 86_400_000)],
            [2, 3, 0]
        );
    }
}
