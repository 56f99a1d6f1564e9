//! Anomalies that somebody has decided not to hear of: for a user, an address, a type, for a time,
//! for a reason.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use crate::record::EventView;
use crate::time::parse_time;

/// Silences, each with how often it was used.
#[derive(Debug, Default)]
pub struct Silences(Vec<Silence>);

/// All that is given must match.
#[derive(Debug)]
struct Silence {
    user: Option<String>,
    ip: Option<Network>,
    kind: Option<String>,
    /// Events from then on are heard of again.
    until_ms: Option<i64>,
    reason: String,
    n_used: AtomicU64,
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    n_bits: u8,
}

/// One line of a file of silences.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: Option<String>,
    ip: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    until: Option<String>,
    reason: String,
    /// Who has decided it: kept for whoever reads the file.
    #[serde(rename = "by")]
    _by: Option<String>,
}

impl Silences {
    /// Reads silences, one JSON object a line: `user` and `type` (a `*` at the end stands for
    /// anything), `ip` (an address or network), `until` (a time), `reason`, `by`.
    ///
    /// # Errors
    /// A sentence with the line's number, if one is not a silence.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut silences = Vec::new();
        for (i, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let silence = Silence::read(line);
            silences.push(silence.map_err(|why| format!("line {}: {why}", i + 1))?);
        }
        Ok(Self(silences))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are, and how many of them silence nothing that happens from now on.
    #[must_use]
    pub fn n_expired(&self, now_ms: i64) -> (usize, usize) {
        let is_over = |silence: &&Silence| silence.until_ms.is_some_and(|until| until <= now_ms);
        (self.0.len(), self.0.iter().filter(is_over).count())
    }

    /// Whether nobody wants to hear of an anomaly of this event. It counts as used if the event would
    /// have been raised.
    #[must_use]
    pub fn cover(&self, event: &EventView<'_>, is_raised: bool) -> bool {
        let Some(silence) = self.0.iter().find(|silence| silence.covers(event)) else {
            return false;
        };
        silence
            .n_used
            .fetch_add(u64::from(is_raised), Ordering::Relaxed);
        true
    }

    /// The reasons of those that were used, in the order of the file, each with how often.
    #[must_use]
    pub fn used(&self) -> Vec<(&str, u64)> {
        let used = self.0.iter().map(|silence| {
            let n_used = silence.n_used.load(Ordering::Relaxed);
            (silence.reason.as_str(), n_used)
        });
        used.filter(|(_, n_used)| *n_used > 0).collect()
    }
}

impl Silence {
    fn read(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.user.is_none() && line.ip.is_none() && line.kind.is_none() {
            return Err("it names no user, ip or type, and would silence everything".to_owned());
        }
        if line.reason.trim().is_empty() {
            return Err("it has no reason".to_owned());
        }
        let until_ms = line.until.map(|until| {
            // Spans count back from now, which is no use here.
            parse_time(&until, i64::MIN)
                .ok()
                .filter(|ms| *ms >= 0)
                .ok_or_else(|| format!("until {until:?} is not a time such as 2026-12-31"))
        });
        Ok(Self {
            user: line.user,
            ip: line.ip.as_deref().map(Network::read).transpose()?,
            kind: line.kind,
            until_ms: until_ms.transpose()?,
            reason: line.reason,
            n_used: AtomicU64::new(0),
        })
    }

    fn covers(&self, event: &EventView<'_>) -> bool {
        let is_of = |pattern: &Option<String>, text: &str| {
            pattern
                .as_deref()
                .is_none_or(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => text.starts_with(beginning),
                    None => text == pattern,
                })
        };
        let is_from = |network: Network| {
            let address = event.source_ip.and_then(|ip| ip.parse().ok());
            address.is_some_and(|address| network.holds(address))
        };
        is_of(&self.user, event.user)
            && is_of(&self.kind, event.kind)
            && self.ip.is_none_or(is_from)
            && self
                .until_ms
                .is_none_or(|until_ms| event.timestamp_ms < until_ms)
    }
}

impl Network {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("ip {text:?} is neither an address nor a network");
        let (address, n_bits) = match text.split_once('/') {
            Some((address, n_bits)) => (address, Some(n_bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let n_bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
        let n_bits = match n_bits {
            None => n_bits_max,
            Some(n_bits) => n_bits.parse().map_err(|_| wrong())?,
        };
        if n_bits > n_bits_max {
            return Err(wrong());
        }
        // As addresses of events are compared: `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        match (address.to_canonical(), n_bits.checked_sub(96)) {
            (address @ IpAddr::V4(_), Some(n_bits)) if n_bits_max == 128 => {
                Ok(Self { address, n_bits })
            }
            _ => Ok(Self { address, n_bits }),
        }
    }

    fn holds(self, address: IpAddr) -> bool {
        let (ours, theirs, n_bits_all) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
            _ => return false,
        };
        let n_free = n_bits_all - u32::from(self.n_bits);
        ours.checked_shr(n_free).unwrap_or(0) == theirs.checked_shr(n_free).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let check = |network: &str, address: &str, expected: bool| {
            let network = Network::read(network).expect("a network");
            let address = address.parse().expect("an address");
            assert_eq!(network.holds(address), expected, "{network:?} {address}");
        };
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("::ffff:203.0.113.26", "203.0.113.26", true);
        check("::ffff:203.0.113.26", "::ffff:203.0.113.26", true);
        check("::ffff:203.0.113.26", "203.0.113.27", false);
        check("::FFFF:10.0.0.0/104", "10.255.0.1", true);
        check("::ffff:10.0.0.0/104", "11.0.0.0", false);
        check("2001:0DB8:0::1", "2001:db8::1", true);
        check("0.0.0.0/0", "203.0.113.1", true);
        check("0.0.0.0/0", "2001:db8::", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("2001:db8::/32", "2001:db9::1", false);
        check("::/0", "2001:db9::1", true);
        for wrong in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8"] {
            assert!(Network::read(wrong).is_err(), "{wrong}");
        }
    }
}
