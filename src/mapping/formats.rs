//! The mappings that are part of the program.

use anyhow::Context as _;

use super::document::Document;

/// Names, and what stands in the files of those names. The order decides where a record could be of two.
const FORMATS: &[(&str, &str)] = &[
    ("cloudtrail", include_str!("formats/cloudtrail.toml")),
    ("gcp", include_str!("formats/gcp.toml")),
    ("okta", include_str!("formats/okta.toml")),
    ("entra", include_str!("formats/entra.toml")),
    ("gws", include_str!("formats/gws.toml")),
    ("o365", include_str!("formats/o365.toml")),
    ("duo", include_str!("formats/duo.toml")),
    ("auth0", include_str!("formats/auth0.toml")),
    ("github", include_str!("formats/github.toml")),
    ("onepassword", include_str!("formats/onepassword.toml")),
    ("slack", include_str!("formats/slack.toml")),
    ("salesforce", include_str!("formats/salesforce.toml")),
    ("snowflake", include_str!("formats/snowflake.toml")),
    ("teleport", include_str!("formats/teleport.toml")),
    ("zoom", include_str!("formats/zoom.toml")),
    ("box", include_str!("formats/box.toml")),
    ("onelogin", include_str!("formats/onelogin.toml")),
    ("windows", include_str!("formats/windows.toml")),
    ("ocsf", include_str!("formats/ocsf.toml")),
    ("sshd", include_str!("formats/sshd.toml")),
    ("cowrie", include_str!("formats/cowrie.toml")),
    ("zeek", include_str!("formats/zeek.toml")),
    ("suricata", include_str!("formats/suricata.toml")),
    ("ecs", include_str!("formats/ecs.toml")),
];

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
