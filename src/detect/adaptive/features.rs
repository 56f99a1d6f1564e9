//! What the adaptive detector looks at in an event: keys instead of text, so that states are small
//! and the scoring itself, which runs in input order, touches no strings.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::record::EventView;

/// The kinds of values that are remembered for each user, in the order of their tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    Address,
    Network24,
    Asn,
    Network16,
    City,
    Country,
    UserAgent,
    Family,
    Device,
    Endpoint,
    Folder,
}

pub(super) const N_DIMENSIONS: usize = 11;

/// Stands for an absent value.
pub(super) const ABSENT: u64 = 0;

/// More bytes than any event moves, so that sums of them stay numbers.
const BYTES_MAX: f64 = 1e15;

/// One event, as the detector sees it.
#[derive(Clone, Debug)]
pub struct Features {
    pub(super) timestamp_ms: i64,
    /// A key for each dimension, or [`ABSENT`].
    pub(super) keys: [u64; N_DIMENSIONS],
    pub(super) kind: u64,
    pub(super) bytes: f64,
    pub(super) threat_score: Option<f64>,
    pub(super) is_failure: bool,
    /// The type begins with `LOGIN`.
    pub(super) is_login: bool,
    /// The type begins with `LOGIN` or `MFA`.
    pub(super) is_sign_in: bool,
}

impl Features {
    pub(super) fn of(event: &EventView<'_>) -> Self {
        let mut keys = [ABSENT; N_DIMENSIONS];
        let mut set = |dimension: Dimension, key: u64| keys[dimension as usize] = key;
        if let Some(address) = event.source_ip.and_then(|text| text.parse().ok()) {
            let (host, network24, network16) = networks(address);
            set(Dimension::Address, host);
            set(Dimension::Network24, network24);
            set(Dimension::Network16, network16);
        }
        if let Some(asn) = event.asn {
            set(Dimension::Asn, hash(Dimension::Asn, asn));
        }
        if let Some(place) = event.geo_location {
            set(Dimension::City, hash(Dimension::City, place));
            set(
                Dimension::Country,
                hash(Dimension::Country, country_of(place)),
            );
        }
        if let Some(user_agent) = event.user_agent {
            set(Dimension::UserAgent, hash(Dimension::UserAgent, user_agent));
            set(Dimension::Family, hash_family(user_agent));
        }
        if let Some(device) = event.device {
            set(Dimension::Device, hash(Dimension::Device, device));
        }
        if let Some(endpoint) = event.endpoint {
            set(Dimension::Endpoint, hash(Dimension::Endpoint, endpoint));
            let folder = endpoint
                .rsplit_once('/')
                .map_or(endpoint, |(folder, _)| folder);
            if !folder.is_empty() {
                set(Dimension::Folder, hash(Dimension::Folder, folder));
            }
        }
        Self {
            timestamp_ms: event.timestamp_ms,
            keys,
            kind: hash_text(N_DIMENSIONS as u64, event.kind.as_bytes()),
            bytes: event.bytes.unwrap_or(0.0).min(BYTES_MAX),
            threat_score: event.threat_score,
            is_failure: event.is_failure,
            is_login: event.kind.starts_with("LOGIN"),
            is_sign_in: event.is_sign_in(),
        }
    }

    #[inline]
    pub(super) fn key(&self, dimension: Dimension) -> u64 {
        self.keys[dimension as usize]
    }

    #[inline]
    pub(super) fn has(&self, dimension: Dimension) -> bool {
        self.key(dimension) != ABSENT
    }
}

/// The country in `City, CC`; the whole place if it names none.
pub(super) fn country_of(place: &str) -> &str {
    place
        .rsplit_once(", ")
        .map_or(place, |(_, country)| country)
}

const KIND_BITS: u32 = 40;
const NETWORK24: u64 = 1 << KIND_BITS;
const NETWORK16: u64 = 2 << KIND_BITS;
const HOST: u64 = 3 << KIND_BITS;

/// Keys of an address, of its /24 and its /16. An IPv6 host changes its lower half at will (RFC
/// 8981), so what counts there are the /64, the /48 and the /32. The keys are the numbers
/// themselves; those of IPv4 lie in `::/8`, where no IPv6 network is.
fn networks(address: IpAddr) -> (u64, u64, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let number = u64::from(address.to_bits());
            (
                HOST | number,
                NETWORK24 | number >> 8,
                NETWORK16 | number >> 16,
            )
        }
        IpAddr::V6(address) => {
            let number = (address.to_bits() >> 64) as u64;
            // `::` and its like: there is nothing to tell networks by.
            let number = number.max(1);
            (number, number >> 16, number >> 32)
        }
    }
}

/// The IPv4 address or IPv6 network that a key of [`Dimension::Address`] stands for.
pub(super) fn show_address(key: u64) -> String {
    if key >> KIND_BITS == HOST >> KIND_BITS {
        return std::net::Ipv4Addr::from_bits(key as u32).to_string();
    }
    let network = std::net::Ipv6Addr::from_bits(u128::from(key) << 64);
    format!("{network}/64")
}

fn hash(dimension: Dimension, text: &str) -> u64 {
    hash_text(dimension as u64, text.as_bytes())
}

/// A user agent without its version numbers: digits and points are left out.
fn hash_family(user_agent: &str) -> u64 {
    let mut family = [0_u8; 512];
    let mut n_bytes = 0;
    for byte in user_agent.bytes() {
        if !byte.is_ascii_digit() && byte != b'.' && n_bytes < family.len() {
            family[n_bytes] = byte;
            n_bytes += 1;
        }
    }
    if n_bytes == 0 {
        return ABSENT;
    }
    hash_text(Dimension::Family as u64, &family[..n_bytes])
}

/// Stable, since states are stored. Attackers choose the text, but to pass for a known value they
/// would have to try 2^64 / 96 of them.
fn hash_text(salt: u64, text: &[u8]) -> u64 {
    SipHasher13::new_with_keys(salt, 0).hash(text).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_their_networks() {
        let check = |a: &str, b: &str, equal: [bool; 3]| {
            let (a, b) = (
                networks(a.parse().expect("an address")),
                networks(b.parse().expect("an address")),
            );
            assert_eq!([a.0 == b.0, a.1 == b.1, a.2 == b.2], equal);
        };
        check("192.0.2.1", "192.0.2.1", [true; 3]);
        check("192.0.2.1", "192.0.2.2", [false, true, true]);
        check("192.0.2.1", "192.0.3.1", [false, false, true]);
        check("192.0.2.1", "192.1.2.1", [false; 3]);
        check("192.0.2.1", "::ffff:192.0.2.1", [true; 3]);
        check("2001:db8:1:2::3", "2001:db8:1:2:4::", [true; 3]);
        check("2001:db8:1:2::", "2001:db8:1:3::", [false, true, true]);
        check("2001:db8:1:2::", "2001:db8:2:2::", [false, false, true]);
        check("::1", "0.0.0.1", [false; 3]);
        let show = |text: &str| show_address(networks(text.parse().expect("an address")).0);
        assert_eq!(show("192.0.2.1"), "192.0.2.1");
        assert_eq!(show("2001:db8:1:2::3"), "2001:db8:1:2::/64");
    }

    #[test]
    fn keys_never_change() {
        // They are on disk: other values here need a new record version.
        assert_eq!(hash(Dimension::City, "Oslo, NO"), 0x4720_12a1_539f_6807);
        assert_eq!(hash_family("curl/8.1"), hash_family("curl/7.90"));
        assert_ne!(hash_family("curl/8.1"), hash_family("wget/1.1"));
        assert_eq!(country_of("New York, US"), "US");
        assert_eq!(country_of("Liege, Liege, BE"), "BE");
        assert_eq!(country_of("Singapore"), "Singapore");
    }
}
