//! Points in time as people write them, and back.

use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, date};
use jiff::fmt::strtime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;

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

/// Milliseconds since 1970 of a time as machines write it: `2026-11-24T08:00:00.123Z`, with a blank for the
/// `T`, with any fraction, with or without seconds; the zone is `Z`, `UTC`, `+01:00`, `+0100`, `+01` or, if none is said,
/// UTC. What is less than a millisecond is cut off.
#[must_use]
pub fn parse_iso(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |start: usize, length: usize| -> Option<i64> {
        let digits = bytes.get(start..start + length)?;
        digits.iter().try_fold(0, |sum, digit| match digit {
            b'0'..=b'9' => Some(sum * 10 + i64::from(digit - b'0')),
            _ => None,
        })
    };
    let sign = |at: usize, signs: &[u8]| bytes.get(at).is_some_and(|sign| signs.contains(sign));
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute) = (number(11, 2)?, number(14, 2)?);
    let is_laid_out = sign(4, b"-") && sign(7, b"-") && sign(10, b"Tt ") && sign(13, b":");
    if !is_laid_out || hour > 23 || minute > 59 {
        return None;
    }
    let mut at = 16;
    let mut second = 0;
    if sign(at, b":") {
        second = number(at + 1, 2)?;
        at += 3;
    }
    let mut ms = 0;
    if sign(at, b".,") {
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        let n_digits = digits.count();
        for i in 0..3 {
            let digit = if i < n_digits {
                number(at + 1 + i, 1)?
            } else {
                0
            };
            ms = ms * 10 + digit;
        }
        if n_digits == 0 {
            return None;
        }
        at += 1 + n_digits;
    }
    let offset_s = zone_offset_s(text.get(at..)?.trim_ascii_start())?;
    // A leap second is the one after it.
    let days = days_since_1970(year, month, day)?;
    let seconds = (second <= 60).then_some(((days * 24 + hour) * 60 + minute) * 60 + second)?;
    Some((seconds - offset_s) * 1_000 + ms)
}

/// Seconds by which a zone is ahead of UTC.
fn zone_offset_s(text: &str) -> Option<i64> {
    if matches!(text, "" | "Z" | "z" | "UTC" | "GMT") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "0"),
        4 => digits.split_at_checked(2)?,
        _ => digits
            .split_once(':')
            .filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?,
    };
    if !hours
        .bytes()
        .chain(minutes.bytes())
        .all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_offset = hours < 24 && minutes < 60;
    is_offset.then_some(sign * (i64::from(hours) * 3_600 + i64::from(minutes) * 60))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, if there is one. By Howard Hinnant's
/// `days_from_civil` (<https://howardhinnant.github.io/date_algorithms.html>).
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let n_days = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=n_days).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// Milliseconds since 1970 of a time in a format of `strptime`; UTC if it says no zone.
#[must_use]
pub fn parse_formatted(format: &str, text: &str) -> Option<i64> {
    let parsed = strtime::parse(format, text).ok()?;
    let timestamp = match parsed.to_timestamp() {
        Ok(timestamp) => timestamp,
        Err(_) => TimeZone::UTC
            .to_timestamp(parsed.to_datetime().ok()?)
            .ok()?,
    };
    Some(timestamp.as_millisecond())
}

/// A zone by which times are read that say none.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of a name such as `UTC`, `+01:00` or `Europe/Berlin`, the last by the system's database.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(offset_s) = zone_offset_s(text) {
            let offset = jiff::tz::Offset::from_seconds(offset_s as i32);
            let offset = offset.map_err(|error| error.to_string())?;
            return Ok(Self(TimeZone::fixed(offset)));
        }
        let zone = TimeZone::get(text).map_err(|_| {
            format!("'{text}' is no time zone: expected one such as UTC, +01:00 or Europe/Berlin")
        })?;
        Ok(Self(zone))
    }

    /// Milliseconds since 1970 of a time that says no year, in the latest year in which it is not after
    /// `latest_ms`; none if there is no such day.
    #[must_use]
    pub fn ms_of_some_year(
        &self,
        (month, day): (i8, i8),
        (hour, minute, second): (i8, i8, i8),
        ms: i32,
        latest_ms: i64,
    ) -> Option<i64> {
        let latest = Timestamp::from_millisecond(latest_ms).ok()?;
        let last = self.0.to_datetime(latest).year();
        // A 29th of February comes after eight years at the latest.
        (last - 8..=last).rev().find_map(|year| {
            let time = DateTime::new(year, month, day, hour, minute, second, ms * 1_000_000);
            let timestamp = self.0.to_timestamp(time.ok()?).ok()?;
            (timestamp <= latest).then(|| timestamp.as_millisecond())
        })
    }

    /// The same in a year that is said.
    #[must_use]
    pub fn ms_of(
        &self,
        year: i16,
        (month, day): (i8, i8),
        (hour, minute, second): (i8, i8, i8),
        ms: i32,
    ) -> Option<i64> {
        let time = DateTime::new(year, month, day, hour, minute, second, ms * 1_000_000);
        let timestamp = self.0.to_timestamp(time.ok()?).ok()?;
        Some(timestamp.as_millisecond())
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
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
        let iso = |text: &str, expected: Option<i64>| {
            assert_eq!(parse_iso(text), expected, "for {text}");
        };
        iso("2025-01-01T00:00:00Z", Some(1_735_689_600_000));
        iso("2025-01-01 00:00:00.042", Some(1_735_689_600_042));
        iso("2025-01-01T00:00:00,1 UTC", Some(1_735_689_600_100));
        iso("2025-01-01t01:00:00.1234567+01:00", Some(1_735_689_600_123));
        iso("2024-12-31 18:00:00.000 -0600", Some(1_735_689_600_000));
        iso("2025-01-01T05:30+0530", Some(1_735_689_600_000));
        iso("2016-12-31T23:59:60Z", Some(1_483_228_800_000));
        iso("2000-02-29T00:00:00Z", Some(951_782_400_000));
        iso("0001-01-01T00:00:00Z", Some(-62_135_596_800_000));
        for wrong in [
            "2024-12-17 00:00:00000000",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:61Z",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00+1:00",
            "2025-01-01T00:00:00+1:000",
            "2025-01-01T00:00:00++1:00",
            "2025-01-01T00:00:00Zulu",
            "2025-01-01",
            "2025-13-01T00:00:00Z",
            "20250101T000000Z",
            "",
        ] {
            iso(wrong, None);
        }
        assert_eq!(hour_of_day(1_735_689_600_000 + 5 * 3_600_000), 5);
        // A Wednesday.
        assert_eq!(weekday(1_735_689_600_000), 2);
        assert_eq!(
            [weekday(-1), weekday(0), weekday(4 * 86_400_000)],
            [2, 3, 0]
        );
    }
}
