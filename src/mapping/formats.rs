//! The mappings that are part of the program.

use anyhow::Context as _;

use super::document::Document;

/// Names, and what stands in the files of those names. The order decides where a record could be of two.
const FORMATS: &[(&str, &str)] = &[];

/// All of them.
///
/// # Errors
/// None, if the tests have passed.
pub(super) fn documents() -> anyhow::Result<Vec<Document>> {
    let read = |(name, text): &(&str, &str)| {
        toml::from_str(text).with_context(|| format!("the mapping {name} cannot be read"))
    };
    FORMATS.iter().map(read).collect()
}

/// One of them as it is written.
///
/// # Errors
/// If there is none of that name.
pub(super) fn table(name: &str) -> anyhow::Result<toml::Table> {
    let found = FORMATS.iter().find(|(known, _)| *known == name);
    let (_, text) = found.with_context(|| format!("there is no format '{name}' to build on"))?;
    Ok(text.parse()?)
}
