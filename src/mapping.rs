//! Records of other formats become our events. What a format's records mean is data, see `mapping/formats`;
//! this module reads it and knows no vendor. It knows lines and blocks, and nothing of files and threads.

mod address;
mod compile;
mod document;
mod event;
mod explain;
mod expression;
mod format;
mod formats;
mod lines;
mod mapper;
mod memo;
mod names;
mod orders;
mod path;
mod plan;
mod plans;
mod reader;
mod rule;
mod signs;
mod slots;
mod table;
mod time;
mod tree;
mod tsv;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, bail, ensure};

use crate::batch::Block;
use crate::time::Zone;
use compile::{Holders, compile};
use document::{Document, InputKind};
use format::Format;
use memo::Memos;
use orders::Orders;
use plans::Plans;
use signs::SignNames;
use tsv::Headers;

pub use tsv::Ahead;

pub use explain::Explanation;

/// What is to be mapped, and how.
#[derive(Clone, Debug, Default)]
pub struct MappingConfig {
    /// A format's name, or [`AUTO`]; none for what the files say.
    pub format: Option<String>,
    /// Mappings of the user's own, which go before ours.
    pub files: Vec<PathBuf>,
    /// Keep what came under `metadata.raw`.
    pub keeps_raw: bool,
    /// The zone of times that say none, and the latest time of those that say no year (ms since 1970); now,
    /// if it is not set.
    pub zone: Zone,
    pub latest_ms: Option<i64>,
}

/// Each line is of the format that its members tell.
pub const AUTO: &str = "auto";
/// Our own events, as they are.
pub const NATIVE: &str = "streamguard";

/// The mappings of a run.
pub struct Mapping {
    formats: Vec<Lazy>,
    names: SignNames,
    /// Members that hold an array of records, of any format.
    envelopes: Holders,
    /// Members that hold one record, of any format, in objects that are of none.
    wrappers: Holders,
    /// The format of all lines, if it is not to be told from them.
    only: Option<usize>,
    config: MappingConfig,
    headers: Mutex<Headers>,
    /// What threads keep that are not at work.
    kept: Mutex<Vec<Kept>>,
}

/// What one thread has learned of records, and memory that it had: it saves work, and changes nothing.
struct Kept {
    memos: Memos,
    plans: Plans,
    orders: Orders,
    /// How many bytes are written for one that is read.
    growth: f32,
    /// Empty, with the memory of lines that were read.
    lines: Vec<u8>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            memos: Memos::default(),
            plans: Plans::default(),
            orders: Orders::default(),
            growth: 1.0,
            lines: Vec::new(),
        }
    }
}

/// A format that is compiled when the first record may be of it.
struct Lazy {
    document: Document,
    format: OnceLock<Format>,
}

/// Names and titles of the formats that are known without a file, in order of their names.
///
/// # Errors
/// None, if the tests have passed.
pub fn known() -> anyhow::Result<Vec<(String, String, String)>> {
    let documents = formats::documents()?;
    let known = documents
        .into_iter()
        .map(|it| (it.name, it.title, it.source));
    Ok(known.collect())
}

impl Mapping {
    /// # Errors
    /// If a file cannot be read or is no mapping, or there is no such format.
    pub fn new(config: MappingConfig) -> anyhow::Result<Self> {
        let mut documents = Vec::new();
        for path in &config.files {
            let document = read(path)?;
            let is_new = documents
                .iter()
                .all(|it: &Document| it.name != document.name);
            ensure!(is_new, "two mappings are called {}", document.name);
            documents.push(document);
        }
        for document in formats::documents()? {
            if !documents.iter().any(|own| own.name == document.name) {
                documents.push(document);
            }
        }
        let names = SignNames::of(&documents)?;
        let envelopes = Holders::new(true, documents.iter().map(|document| &document.records[..]))
            .context("in 'records'")?;
        let wrappers = Holders::new(
            false,
            documents.iter().map(|document| &document.wrappers[..]),
        )
        .context("in 'wrappers'")?;
        let only = match config.format.as_deref() {
            Some(AUTO) => None,
            Some(name) => {
                let found = documents.iter().position(|document| document.name == name);
                Some(found.with_context(|| unknown(name, &documents))?)
            }
            // One file says what is meant.
            None => {
                let is_one = config.files.len() == 1;
                ensure!(
                    is_one,
                    "--map is given twice: say by --format which one is meant, or auto"
                );
                Some(0)
            }
        };
        for (number, path) in config.files.iter().enumerate() {
            let path = path.display();
            match only {
                Some(only) => ensure!(
                    only == number,
                    "{path} is not used: --format says that all lines are of another format"
                ),
                None => ensure!(
                    !documents[number].detect.is_empty(),
                    "{path} has no [[detect]], by which --format auto would tell its records"
                ),
            }
        }
        let formats = documents.into_iter().map(|document| Lazy {
            document,
            format: OnceLock::new(),
        });
        let mapping = Self {
            formats: formats.collect(),
            names,
            envelopes,
            wrappers,
            only,
            config,
            headers: Mutex::default(),
            kept: Mutex::default(),
        };
        // What is wrong with a user's own is said at once.
        for (number, path) in mapping.config.files.iter().enumerate() {
            let compiled = mapping.compile(number);
            let compiled = compiled.with_context(|| format!("cannot use {}", path.display()))?;
            let _ = mapping.formats[number].format.set(compiled);
        }
        Ok(mapping)
    }

    fn compile(&self, number: usize) -> anyhow::Result<Format> {
        let document = &self.formats[number].document;
        let documents = || self.formats.iter().map(|format| &format.document);
        compile(document, &self.names, &|name| {
            documents().find(|document| document.name == name)
        })
    }

    fn format(&self, number: usize) -> &Format {
        let compile = || {
            self.compile(number)
                .expect("a test compiles all that are built in")
        };
        self.formats[number].format.get_or_init(compile)
    }

    fn take_kept(&self) -> Kept {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn give_back(&self, of_thread: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(of_thread);
    }

    fn takes(&self, number: usize, kind: InputKind) -> bool {
        self.formats[number].document.input.has(kind)
    }

    /// The latest time that a line which says no year can be of: clocks differ, and a zone may be assumed
    /// wrongly.
    fn latest_ms(&self) -> i64 {
        const TOLERANCE_MS: i64 = 86_400_000;
        /// In the year 9999, where calendars end.
        const LATEST_MS_MAX: i64 = 253_402_000_000_000;
        let latest_ms = self.config.latest_ms;
        let latest_ms = latest_ms.unwrap_or_else(|| crate::time::now_ms() + TOLERANCE_MS);
        latest_ms.min(LATEST_MS_MAX)
    }

    /// Looks at what lines say of those that follow, in the order in which they came: to be called with all
    /// blocks before they are parsed.
    #[must_use]
    pub fn look_ahead(&self, blocks: &[Block]) -> Vec<Ahead> {
        // A panic ends the run anyway.
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().map(|block| headers.before(block)).collect()
    }

    /// Maps a block's lines to events and parses those.
    pub fn parse(&self, block: &mut Block, ahead: &Ahead, line_bytes_max: usize) {
        if block.part.is_some() {
            block.parse(line_bytes_max);
            return;
        }
        let mut kept = self.take_kept();
        let output = block.room_for_mapped(std::mem::take(&mut kept.lines));
        let mapped = mapper::map_block(self, &mut kept, block, ahead, line_bytes_max, output);
        kept.lines = block.take_mapped(mapped);
        self.give_back(kept);
    }
}

/// Reads a mapping of the user's own. It may build on a known one, whose parts it replaces.
fn read(path: &Path) -> anyhow::Result<Document> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = || {
        let mut table: toml::Table = text.parse()?;
        let Some(base) = table.remove("extends") else {
            return Ok(table.try_into::<Document>()?);
        };
        let Some(name) = base.as_str() else {
            bail!("'extends' takes a format's name");
        };
        let mut merged = formats::table(name)?;
        for (key, value) in table {
            extend(&mut merged, key, value);
        }
        Ok(merged.try_into::<Document>()?)
    };
    let document: anyhow::Result<Document> = read();
    // One line says it as well as several.
    let document = document.map_err(|error| {
        let text = format!("{error:#}");
        anyhow::anyhow!(text.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    let mut document = document.with_context(|| format!("{} is no mapping", path.display()))?;
    if document.title.is_empty() {
        document.title.clone_from(&document.name);
    }
    let is_name = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_';
    ensure!(
        !document.name.is_empty() && document.name.chars().all(is_name),
        "{}: a name is made of a-z, 0-9 and _",
        path.display()
    );
    ensure!(
        !matches!(&*document.name, AUTO | NATIVE),
        "{}: the name {} means something else",
        path.display(),
        document.name
    );
    Ok(document)
}

/// Puts a part of a mapping into the one that it builds on: members go into tables one by one, and what is tried in
/// turn goes first.
fn extend(base: &mut toml::Table, key: String, value: toml::Value) {
    let goes_first = matches!(&*key, "pattern" | "reject" | "detect");
    match (base.get_mut(&key), value) {
        (Some(toml::Value::Table(known)), toml::Value::Table(own)) => {
            for (name, value) in own {
                // What a field is made of is one thing.
                if matches!(&*key, "fields" | "metadata") {
                    known.insert(name, value);
                } else {
                    extend(known, name, value);
                }
            }
        }
        (Some(toml::Value::Array(known)), toml::Value::Array(mut own)) if goes_first => {
            own.append(known);
            *known = own;
        }
        (_, value) => drop(base.insert(key, value)),
    }
}

fn unknown(name: &str, documents: &[Document]) -> String {
    let mut names: Vec<&str> = documents.iter().map(|document| &*document.name).collect();
    names.extend([AUTO, NATIVE]);
    names.sort_unstable();
    format!(
        "there is no format '{name}': it is one of {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LINE_BYTES_MAX;

    /// What the lines of a block become: the lines of its events, and why it is rejected.
    fn mapped(mapping: &Mapping, lines: &[&str]) -> Vec<String> {
        let mut block = Block::new();
        for line in lines {
            block.lines.extend_from_slice(line.as_bytes());
            block.lines.push(b'\n');
        }
        mapping.parse(&mut block, &Ahead::default(), LINE_BYTES_MAX);
        let events = block.events.iter();
        let events = events.map(|event| String::from_utf8_lossy(block.bytes(event.line)).into());
        let rejects = block.rejects.iter();
        let reasons = rejects.map(|reject| format!("{:?}", reject.reason));
        events.chain(reasons).collect()
    }

    /// A record as it is, in other orders of members, with space, cut off, with one member twice, without each, and with
    /// other values.
    fn variants(line: &str) -> Vec<String> {
        let mut all = vec![line.to_owned()];
        all.extend(line.get(..line.len() / 2).map(str::to_owned));
        let Ok(serde_json::Value::Object(members)) = serde_json::from_str(line) else {
            return all;
        };
        let written = |(name, value): (&String, &serde_json::Value)| {
            format!("{}: {value}", serde_json::Value::from(&**name))
        };
        let mut written: Vec<String> = members.iter().map(written).collect();
        all.push(format!("{{ {} }}", written.join(", ")));
        for without in 0..written.len() {
            let mut written = written.clone();
            written.remove(without);
            all.push(format!("{{{}}}", written.join(",")));
        }
        // Other values: of other kinds, empty ones, and the same with an escape.
        for (i, (name, value)) in members.iter().enumerate() {
            let escaped = value
                .as_str()
                .and_then(|text| text.chars().next().zip(text.get(1..)));
            let escaped = escaped.map(|(first, rest)| format!("\"\\u{:04x}{rest}\"", first as u32));
            let long = format!("\"{}\"", "x".repeat(300));
            let others = [
                "null", "7", "true", "\"-\"", "\"\"", "[]", "{}", "\"ann\"", &long,
            ];
            let others = [others[i % 9], others[(i + all.len()) % 9]];
            for other in others.into_iter().chain(escaped.as_deref()) {
                let mut written = written.clone();
                written[i] = format!("{}:{other}", serde_json::Value::from(&**name));
                all.push(format!("{{{}}}", written.join(",")));
            }
        }
        written.reverse();
        all.push(format!("{{{}}}", written.join(",")));
        written.extend(written.first().cloned());
        all.push(format!("{{{}}}", written.join(",")));
        all
    }

    /// Maps lines each with nothing learned, and all of them one after the other, twice; how many plans there are then.
    fn check(format: &str, lines: &[String]) -> usize {
        let mapping = Mapping::new(MappingConfig {
            format: Some(format.to_owned()),
            latest_ms: Some(1_772_323_200_000),
            ..MappingConfig::default()
        });
        let mapping = mapping.expect("the mappings are built in");
        let alone = lines.iter().map(|line| {
            mapping.kept.lock().expect("nobody panicked").clear();
            mapped(&mapping, &[line])
        });
        let alone: Vec<Vec<String>> = alone.collect();
        // Once while all is new, and once when all of it has been seen.
        for _ in 0..2 {
            for (line, expected) in lines.iter().zip(&alone).rev() {
                let found = mapped(&mapping, &[line]);
                assert_eq!(found, *expected, "{format}: for {line}");
            }
        }
        // And in one block, where the format of one line is remembered for the next: the events, then the rejects. An
        // id that a record does not have is made of its place.
        let without_id = |result: &String| {
            let start = result.find("\"user\":").filter(|_| result.starts_with('{'));
            result[start.unwrap_or(0)..].to_owned()
        };
        let mut all: Vec<(&str, &[String])> = (lines.iter().map(String::as_str))
            .zip(alone.iter().map(Vec::as_slice))
            // What a table's line holds is told by a line before it.
            .filter(|(line, _)| line.starts_with('{'))
            .collect();
        for _ in 0..2 {
            let texts: Vec<&str> = all.iter().map(|(line, _)| *line).collect();
            let results = || all.iter().flat_map(|(_, results)| *results);
            let is_event = |result: &&String| result.starts_with('{');
            let events = results().filter(is_event);
            let rejects = results().filter(|result| !is_event(result));
            let expected: Vec<String> = events.chain(rejects).map(without_id).collect();
            let found = mapped(&mapping, &texts);
            assert_eq!(found.len(), expected.len(), "{format}");
            for (found, expected) in found.iter().map(without_id).zip(expected) {
                assert_eq!(found, expected, "{format}");
            }
            all.reverse();
        }
        let kept = mapping.kept.lock().expect("nobody panicked");
        assert_eq!(kept.len(), 1, "one thread has worked");
        kept[0].plans.n_made
    }

    #[test]
    fn what_was_learned_of_other_records_changes_nothing() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/mapping");
        let (mut all, mut n_formats) = (Vec::new(), 0);
        for file in std::fs::read_dir(folder).expect("samples").flatten() {
            let path = file.path();
            if !matches!(path.extension(), Some(it) if it == "jsonl" || it == "log") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a sample");
            let lines: Vec<String> = text.lines().flat_map(variants).collect();
            let stem = path.file_stem().and_then(std::ffi::OsStr::to_str);
            let format = stem.and_then(|stem| stem.split('.').next());
            check(format.expect("a format's name"), &lines);
            n_formats += 1;
            all.extend(lines);
        }
        assert!(n_formats > 20 && all.len() > 8_000, "{} lines", all.len());
        let n_plans = check(AUTO, &all);
        assert!(n_plans > 2 * plans::PLANS_MAX, "{n_plans} plans");
    }

    /// Plans are found by few texts. Were names and addresses among them, each record would have one of its own.
    #[test]
    fn texts_that_are_others_in_most_records_are_no_part_of_plans() {
        let mapping = Mapping::new(MappingConfig {
            format: Some("cloudtrail".to_owned()),
            ..MappingConfig::default()
        });
        let mapping = mapping.expect("the format is built in");
        let map = |numbers: std::ops::Range<usize>, padding: &str| {
            for i in numbers {
                let name = ["GetObject", "ListUsers", "PutObject"][i % 3];
                let line = format!(
                    r#"{{"eventSource":"s3.amazonaws.com","eventName":"{name}","eventTime":"2026-01-02T03:04:05Z","awsRegion":"eu","userIdentity":{{"type":"IAMUser","arn":"arn:aws:iam::1:user/u{i}{padding}","userName":"u{i}"}},"sourceIPAddress":"10.{}.{}.1","eventID":"e{i}"}}"#,
                    i / 250,
                    i % 250
                );
                let events = mapped(&mapping, &[&line]);
                let wanted = [
                    format!("\"user\":\"u{i}\""),
                    format!("10.{}.{}.1", i / 250, i % 250),
                ];
                assert!(wanted.iter().all(|it| events[0].contains(it)), "{events:?}");
            }
            let kept = mapping.kept.lock().expect("nobody panicked");
            kept[0].plans.n_made
        };
        let n_made = map(0..2_000, "");
        assert!(n_made < 300, "{n_made} plans until it was known");
        assert_eq!(map(2_000..8_000, ""), n_made, "no new one since");
        // Long texts are none either, from the first on.
        mapping.kept.lock().expect("nobody panicked").clear();
        let n_made = map(0..1_000, &"x".repeat(3_000));
        assert!(n_made < 300, "{n_made} plans of long texts");
    }
}
