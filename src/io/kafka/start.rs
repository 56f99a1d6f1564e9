//! Where to begin in a partition, as it is typed.

use crate::time::parse_time;

/// Where to begin in partitions of which no position is kept, and where to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message.
    Beginning,
    /// Behind the newest message.
    End,
    /// Where the group has committed, else at the oldest message.
    Stored,
    /// At a message's offset.
    Offset(i64),
    /// So many messages before the end.
    Last(i64),
    /// At the first message of a time or later, in ms; and before the first of another one.
    Time {
        from: Option<i64>,
        until: Option<i64>,
    },
}

impl Start {
    /// Reads `start`, `end`, `stored`, `N`, `-N`, `@TIME`, `@TIME:TIME` or `@:TIME`.
    ///
    /// # Errors
    /// A sentence on what would have been right.
    pub fn parse(text: &str, now_ms: i64) -> Result<Self, String> {
        const EXPECTED: &str = "expected start, end, stored, an offset, -N for the last N, or \
                                @FROM:UNTIL with times such as @2026-11-01:2026-11-02 or @24h";
        match text {
            "start" | "beginning" | "earliest" => return Ok(Self::Beginning),
            "end" | "latest" => return Ok(Self::End),
            "stored" => return Ok(Self::Stored),
            _ => {}
        }
        if let Some(span) = text.strip_prefix('@') {
            return parse_times(span, now_ms).ok_or_else(|| EXPECTED.to_owned());
        }
        match text.parse::<i64>() {
            Ok(offset @ 0..) => Ok(Self::Offset(offset)),
            Ok(n) if n > i64::MIN => Ok(Self::Last(-n)),
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

/// Times have colons of their own: the one between them is the first with a time on each side.
fn parse_times(span: &str, now_ms: i64) -> Option<Start> {
    let time = |text: &str| parse_time(text, now_ms).ok();
    if let Some(from) = time(span) {
        return Some(Start::Time {
            from: Some(from),
            until: None,
        });
    }
    let colons = span.match_indices(':').map(|(at, _)| at);
    colons.into_iter().find_map(|at| {
        let (from, until) = (&span[..at], &span[at + 1..]);
        let from = match from {
            "" => None,
            _ => Some(time(from)?),
        };
        let until = match until {
            "" | "end" => None,
            _ => Some(time(until)?),
        };
        Some(Start::Time { from, until })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_read() {
        let day = |n: i64| Some(n * 86_400_000);
        for (text, expected) in [
            ("start", Some(Start::Beginning)),
            ("end", Some(Start::End)),
            ("stored", Some(Start::Stored)),
            ("0", Some(Start::Offset(0))),
            ("17", Some(Start::Offset(17))),
            ("-17", Some(Start::Last(17))),
            (
                "@1970-01-02:1970-01-03",
                Some(Start::Time {
                    from: day(1),
                    until: day(2),
                }),
            ),
            (
                "@1970-01-02T00:00:00Z:1970-01-03T00:00:00Z",
                Some(Start::Time {
                    from: day(1),
                    until: day(2),
                }),
            ),
            (
                "@1d:end",
                Some(Start::Time {
                    from: day(9),
                    until: None,
                }),
            ),
            (
                "@:1970-01-03",
                Some(Start::Time {
                    from: None,
                    until: day(2),
                }),
            ),
            ("", None),
            ("@", None),
            ("@yesterday", None),
            ("@1970-01-02:soon", None),
            ("1.5", None),
            ("-", None),
            ("-9223372036854775808", None),
        ] {
            let found = Start::parse(text, day(10).expect("a day")).ok();
            assert_eq!(found, expected, "{text}");
        }
    }
}
