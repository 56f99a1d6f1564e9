//! Cities and addresses: where events come from. The addresses are from ranges reserved for
//! documentation, benchmarks and carrier NAT, so that no generated line accuses a real host.

use super::random::{mix, reduce};

/// A city with its distance from UTC. Summer time is left out: habits would shift for one hour,
/// and the generator would need a time zone database.
#[derive(Debug)]
pub(super) struct City {
    pub(super) name: &'static str,
    pub(super) country: &'static str,
    pub(super) utc_offset_hours: i8,
}

const fn city(name: &'static str, country: &'static str, utc_offset_hours: i8) -> City {
    City {
        name,
        country,
        utc_offset_hours,
    }
}

/// All cities: first those where users live, then those they only travel to, then those where
/// nobody of the company is expected.
pub(super) static CITIES: [City; 30] = [
    city("New York", "US", -5),
    city("London", "GB", 0),
    city("Berlin", "DE", 1),
    city("Chicago", "US", -6),
    city("Singapore", "SG", 8),
    city("San Francisco", "US", -8),
    city("Paris", "FR", 1),
    city("Toronto", "CA", -5),
    city("Warsaw", "PL", 1),
    city("Austin", "US", -6),
    city("Tokyo", "JP", 9),
    city("Sydney", "AU", 10),
    city("Sao Paulo", "BR", -3),
    city("Dubai", "AE", 4),
    city("Madrid", "ES", 1),
    city("Amsterdam", "NL", 1),
    city("Denver", "US", -7),
    city("Hong Kong", "HK", 8),
    city("Mexico City", "MX", -6),
    city("Stockholm", "SE", 1),
    city("Moscow", "RU", 3),
    city("Lagos", "NG", 1),
    city("Bucharest", "RO", 2),
    city("Hanoi", "VN", 7),
    city("Minsk", "BY", 3),
    city("Shenzhen", "CN", 8),
    city("Caracas", "VE", -4),
    city("Jakarta", "ID", 7),
    city("Karachi", "PK", 5),
    city("Accra", "GH", 0),
];
pub(super) const N_HOME_CITIES: u32 = 14;
pub(super) const N_TRAVEL_CITIES: u32 = 20;
pub(super) const N_CITIES: u32 = CITIES.len() as u32;

/// The index of a city in `CITIES`; addresses depend on it, so that a network lies in one city.
pub(super) type CityIndex = u8;

/// An address as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address {
    V4([u8; 4]),
    /// `2001:db8:site:subnet::host`, none of them zero, so that this is the canonical form.
    V6 {
        site: u16,
        subnet: u16,
        host: u16,
    },
}

impl Address {
    /// The office of a city: a few addresses that all its users share.
    pub(super) fn office(city: CityIndex, key: u64) -> Self {
        Self::V4([203, 0, 113, city * 8 + 1 + byte_below(key, 3)])
    }

    /// A data centre, where service accounts run.
    pub(super) fn data_center(key: u64) -> Self {
        Self::V4([203, 0, 113, 170 + byte_below(key, 80)])
    }

    /// A home connection with a fixed address.
    pub(super) fn home(city: CityIndex, key: u64) -> Self {
        if key & 1 == 0 {
            Self::V4([198, 18, city * 8 + byte_below(key, 8), host(mix(key, 1))])
        } else {
            let network = byte_below(mix(key, 1), 255);
            Self::V4([
                100,
                64 + city * 2 + byte_below(key, 2),
                network,
                host(mix(key, 2)),
            ])
        }
    }

    /// A home connection with IPv6.
    pub(super) fn home_v6(city: CityIndex, key: u64) -> Self {
        Self::V6 {
            site: 0x100 + u16::from(city),
            subnet: 1 + reduce(key, 0xFFFE) as u16,
            host: 1 + reduce(mix(key, 1), 0xFFFE) as u16,
        }
    }

    /// A home or phone network that hands out another last octet from time to time.
    pub(super) fn dynamic(city: CityIndex, key: u64, lease: u64) -> Self {
        let network = byte_below(key, 255);
        Self::V4([100, 104 + city % 24, network, host(mix(key, lease))])
    }

    /// A hotel or a café. Some share the ranges of the attackers: were each range purely good or
    /// bad, a detector could learn the ranges and nothing else.
    pub(super) fn guest(city: CityIndex, key: u64) -> Self {
        match key % 8 {
            0 => Self::V4([198, 51, 100, host(mix(key, 1))]),
            1 => Self::V4([192, 0, 2, host(mix(key, 1))]),
            _ => Self::V4([198, 19, city * 8 + byte_below(key, 8), host(mix(key, 1))]),
        }
    }

    /// A host that attacks.
    pub(super) fn hostile(city: CityIndex, key: u64) -> Self {
        let host = host(mix(key, 1));
        match key % 8 {
            0..=2 => Self::V4([192, 0, 2, host]),
            3..=5 => Self::V4([198, 51, 100, host]),
            6 => Self::V4([192, 88, 99, host]),
            _ => Self::V4([198, 19, city * 8 + byte_below(key, 8), host]),
        }
    }

    /// The network's number, from the range for private use; a network keeps its number.
    pub(super) fn autonomous_system(self) -> u32 {
        let network = match self {
            Self::V4([first, second, third, _]) => {
                u32::from_be_bytes([0, first, second, third >> 3])
            }
            Self::V6 { site, .. } => u32::from(site),
        };
        64_512 + reduce(mix(0, u64::from(network)), 1000)
    }
}

fn host(number: u64) -> u8 {
    1 + byte_below(number, 254)
}

fn byte_below(number: u64, limit: u8) -> u8 {
    reduce(number, u32::from(limit)) as u8
}
