//! Where the address of an event is, and who provides it, by files in MaxMind's format. What an
//! event does not say itself is put beside its line, for scores and reasons; the line stays as it
//! came. This module knows blocks; what is made of a place it does not know.

use std::net::IpAddr;
use std::path::Path;

use maxminddb::Reader;
use serde::Deserialize;

use crate::batch::Block;
use crate::record::{Event, FIELD_BYTES_MAX, Text};

/// Longest name of a city or a country, in bytes: both together make a place.
const NAME_BYTES_MAX: usize = (FIELD_BYTES_MAX - ", ".len()) / 2;

/// What there is to look things up in.
#[derive(Debug, Default)]
pub struct Enrichment {
    pub places: Option<Database>,
    pub providers: Option<Database>,
}

/// One file, read into memory.
#[derive(Debug)]
pub struct Database {
    reader: Reader<Vec<u8>>,
    n_bytes: usize,
}

/// What a file has to know of an address.
#[derive(Clone, Copy, Debug)]
pub enum DatabaseKind {
    Places,
    Providers,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("it cannot be read")]
    Unreadable(#[from] std::io::Error),
    #[error("it is no whole MaxMind database ({0}): get it again")]
    Damaged(String),
    #[error("it is of type {found:?}: give one of type {wanted}")]
    WrongKind { found: String, wanted: &'static str },
}

impl Enrichment {
    /// Bytes of the files, which are held in memory.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        let databases = self.places.iter().chain(&self.providers);
        databases.map(|database| database.n_bytes).sum()
    }

    /// Gives the events of a block the place and the provider of their address, where they say
    /// neither and that is known.
    pub fn fill(&self, block: &mut Block) {
        if let Some(places) = &self.places {
            fill(
                block,
                |event| (&mut event.geo_location, &mut event.looked_up.place),
                |address| places.place(address),
            );
        }
        if let Some(providers) = &self.providers {
            fill(
                block,
                |event| (&mut event.asn, &mut event.looked_up.provider),
                |address| providers.provider(address),
            );
        }
    }
}

/// Fills one field of the events. A block holds 256 KiB of lines and a long one, an event with an
/// address is 80 bytes at least, so the arena grows by a few MiB at worst.
fn fill(
    block: &mut Block,
    field: impl Fn(&mut Event) -> (&mut Text, &mut bool),
    find: impl Fn(IpAddr) -> Option<String>,
) {
    // Events of one address often follow each other.
    let mut last: Option<(IpAddr, Text)> = None;
    for i in 0..block.events.len() {
        let source_ip = block.events[i].source_ip;
        if source_ip.is_none() || !field(&mut block.events[i]).0.is_none() {
            continue;
        }
        let Ok(address) = block.text(source_ip).parse::<IpAddr>() else {
            continue;
        };
        let found = match last {
            Some((of, found)) if of == address => found,
            _ => find(address).map_or(Text::NONE, |text| {
                let start = block.arena.len();
                block.arena.extend_from_slice(text.as_bytes());
                Text::in_arena(start, text.len())
            }),
        };
        last = Some((address, found));
        let (text, is_looked_up) = field(&mut block.events[i]);
        (*text, *is_looked_up) = (found, true);
    }
}

impl Database {
    /// Reads a file of that kind.
    ///
    /// # Errors
    /// If it cannot be read, is no such database, or knows something else.
    pub fn open(path: &Path, kind: DatabaseKind) -> Result<Self, DatabaseError> {
        let bytes = std::fs::read(path)?;
        let n_bytes = bytes.len();
        let reader = Reader::from_source(bytes);
        let reader = reader.map_err(|error| DatabaseError::Damaged(error.to_string()))?;
        let found = &reader.metadata().database_type;
        if !kind.is_named_in(found) {
            return Err(DatabaseError::WrongKind {
                found: found.clone(),
                wanted: kind.wanted(),
            });
        }
        Ok(Self { reader, n_bytes })
    }

    /// `Berlin, DE`, or `DE` if no city is known.
    fn place(&self, address: IpAddr) -> Option<String> {
        let place: PlaceRecord<'_> = self.record(address)?;
        let country = place.country.iso_code.filter(|code| is_name(code))?;
        Some(match place.city.names.en.filter(|name| is_name(name)) {
            Some(city) => format!("{city}, {country}"),
            None => country.to_owned(),
        })
    }

    /// `AS64620`, as events have it.
    fn provider(&self, address: IpAddr) -> Option<String> {
        let provider: ProviderRecord = self.record(address)?;
        Some(format!("AS{}", provider.autonomous_system_number?))
    }

    /// What the file says of an address. A record that cannot be read says nothing: it is one of
    /// millions, and no event's fault.
    fn record<'a, T: Deserialize<'a>>(&'a self, address: IpAddr) -> Option<T> {
        let address = address.to_canonical();
        if is_internal(address) {
            return None;
        }
        self.reader.lookup(address).ok()?.decode().ok()?
    }
}

impl DatabaseKind {
    /// Other makers name theirs after MaxMind's: `DBIP-City-Lite`.
    fn is_named_in(self, database_type: &str) -> bool {
        let names = match self {
            Self::Places => &["City", "Country", "Enterprise"][..],
            Self::Providers => &["ASN", "ISP"],
        };
        names.iter().any(|name| database_type.contains(name))
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Places => "City or Country, such as GeoLite2-City.mmdb",
            Self::Providers => "ASN or ISP, such as GeoLite2-ASN.mmdb",
        }
    }
}

/// The parts of a place's record that are read.
#[derive(Deserialize)]
struct PlaceRecord<'a> {
    #[serde(borrow, default)]
    city: City<'a>,
    #[serde(borrow, default)]
    country: Country<'a>,
}

#[derive(Default, Deserialize)]
struct City<'a> {
    #[serde(borrow, default)]
    names: Names<'a>,
}

#[derive(Default, Deserialize)]
struct Names<'a> {
    en: Option<&'a str>,
}

#[derive(Default, Deserialize)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct ProviderRecord {
    autonomous_system_number: Option<u32>,
}

/// Names go to terminals, and baselines keep them: what an event may not say, a file may not.
fn is_name(text: &str) -> bool {
    let is_short = text.len() <= NAME_BYTES_MAX;
    is_short && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// An address that means another host in every network: no file can know it.
fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}
