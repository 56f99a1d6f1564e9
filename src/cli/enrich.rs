//! Files to look up in what events do not say of their addresses.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::enrich::{Database, DatabaseKind, Enrichment};

/// The files.
#[derive(Args, Debug)]
pub(super) struct EnrichmentArgs {
    /// Take an event without `geo_location` as if it named the place of its `source_ip`: FILE is in
    /// MaxMind's format, such as GeoLite2-City.mmdb
    #[arg(long, value_name = "FILE")]
    geoip: Option<PathBuf>,

    /// Take an event without `metadata.asn` as if it named the provider of its `source_ip`: FILE is
    /// in MaxMind's format, such as GeoLite2-ASN.mmdb
    #[arg(long, value_name = "FILE")]
    asn: Option<PathBuf>,
}

impl EnrichmentArgs {
    /// What can be looked up.
    pub(super) fn open(&self) -> anyhow::Result<Enrichment> {
        let open = |option: &str, path: &Path, kind| {
            let database = Database::open(path, kind);
            database.with_context(|| format!("{option} {} cannot be used", path.display()))
        };
        let (geoip, asn) = (self.geoip.as_deref(), self.asn.as_deref());
        let places = geoip.map(|path| open("--geoip", path, DatabaseKind::Places));
        let providers = asn.map(|path| open("--asn", path, DatabaseKind::Providers));
        Ok(Enrichment {
            places: places.transpose()?,
            providers: providers.transpose()?,
        })
    }
}
