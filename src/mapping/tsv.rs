//! Logs of Zeek as tables: lines that begin with `#` say what the columns are
//! (<https://docs.zeek.org/en/master/log-formats.html>).

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::batch::{Block, Medium};
use crate::record::text::push_json_string;

/// Columns of a table, at the most, and bytes of what lines say of them.
const COLUMNS_MAX: usize = 1_024;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a name, a kind, a separator, at the most: each row is written with all names.
const WORD_BYTES_MAX: usize = 128;

/// What has been said of the lines of a block before it.
#[derive(Clone, Default)]
pub struct Ahead {
    pub(super) header: Option<Arc<Header>>,
}

impl Ahead {
    /// What holds after a line.
    #[must_use]
    pub fn after(&self, line: &[u8]) -> Self {
        let line = std::str::from_utf8(line).unwrap_or_default();
        let line = line.strip_suffix('\n').unwrap_or(line);
        let header = Header::after(self.header.as_ref(), line);
        Self {
            header: header.or_else(|| self.header.clone()),
        }
    }
}

/// What was said last in each source.
#[derive(Default)]
pub(super) struct Headers {
    headers: HashMap<Arc<str>, Arc<Header>>,
}

/// What lines at the start of a table say. A line that says little of it copies little: each may come as often as
/// its writer likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    separator: String,
    set_separator: String,
    empty: String,
    unset: String,
    path: String,
    /// Of each column.
    names: Arc<[String]>,
    /// Of the first columns; all others hold strings.
    kinds: Arc<[String]>,
}

impl Headers {
    /// What is known before a block, which comes next of its source; what it says is known after it.
    pub(super) fn before(&mut self, block: &Block) -> Ahead {
        let source = &block.origin.source;
        if block.part.is_some() || !block.origins.is_empty() {
            return Ahead::default();
        }
        let known = self.headers.get(source).cloned();
        let known = known.or_else(|| head_of(block));
        let mut after = known.clone();
        // A new file, or one whose name is another file's now.
        if block.origin.offset == 0 {
            after = None;
        }
        let before = after.clone();
        let lines = &block.lines;
        let first = lines.starts_with(b"#").then_some(0);
        let others = memchr::memmem::find_iter(lines, b"\n#").map(|at| at + 1);
        for start in first.into_iter().chain(others) {
            let end = memchr::memchr(b'\n', &lines[start..]).map_or(lines.len(), |n| start + n);
            if let Ok(line) = std::str::from_utf8(&lines[start..end])
                && let Some(header) = Header::after(after.as_ref(), line)
            {
                after = Some(header);
            }
        }
        match after {
            Some(after) => drop(self.headers.insert(Arc::clone(source), after)),
            None => drop(self.headers.remove(source)),
        }
        Ahead { header: before }
    }
}

/// What a file says up to where a run goes on in the middle of it.
fn head_of(block: &Block) -> Option<Arc<Header>> {
    let Medium::File(file) = &block.origin.medium else {
        return None;
    };
    let mut head = [0; 1];
    if block.origin.offset == 0 || file.read_at(&mut head, 0).ok()? == 0 || head != *b"#" {
        return None;
    }
    let mut header = None;
    let mut at = 0;
    let mut line = Vec::new();
    let mut chunk = vec![0; HEADER_BYTES_MAX];
    while at < block.origin.offset {
        let n_left = usize::try_from(block.origin.offset - at).unwrap_or(usize::MAX);
        let wanted = chunk.len().min(n_left);
        let n_read = file.read_at(&mut chunk[..wanted], at).ok()?;
        if n_read == 0 {
            break;
        }
        at += n_read as u64;
        for piece in chunk[..n_read].split_inclusive(|byte| *byte == b'\n') {
            // Rows are looked at no further than their first byte.
            if line.is_empty() || line.starts_with(b"#") && line.len() <= HEADER_BYTES_MAX {
                line.extend_from_slice(if line.is_empty() && !piece.starts_with(b"#") {
                    &piece[..1]
                } else {
                    piece
                });
            }
            if piece.ends_with(b"\n") {
                if let Some(text) = line.strip_suffix(b"\n")
                    && let Ok(text) = std::str::from_utf8(text)
                {
                    header = Header::after(header.as_ref(), text).or(header);
                }
                line.clear();
            }
        }
    }
    header
}

impl Header {
    /// What holds after a line that begins with `#`; none if it says nothing of tables.
    pub(super) fn after(before: Option<&Arc<Self>>, line: &str) -> Option<Arc<Self>> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > HEADER_BYTES_MAX {
            return None;
        }
        if let Some(separator) = line.strip_prefix("#separator ") {
            return Some(Arc::new(Self {
                separator: self::separator(separator)?,
                set_separator: ",".to_owned(),
                empty: "(empty)".to_owned(),
                unset: "-".to_owned(),
                path: String::new(),
                names: Arc::default(),
                kinds: Arc::default(),
            }));
        }
        let before = before?;
        let (what, rest) = line.split_once(&*before.separator)?;
        let is_known = matches!(
            what,
            "#set_separator" | "#empty_field" | "#unset_field" | "#path" | "#fields" | "#types"
        );
        if !is_known {
            return matches!(what, "#open" | "#close").then(|| Arc::clone(before));
        }
        let mut header = Self::clone(before);
        let short = |word: &str| (word.len() <= WORD_BYTES_MAX).then(|| word.to_owned());
        let mut words = rest.split(&*header.separator).map(short);
        match what {
            "#set_separator" => header.set_separator = words.next()??,
            "#empty_field" => header.empty = words.next()??,
            "#unset_field" => header.unset = words.next()??,
            "#path" => header.path = words.next()??,
            "#fields" => {
                header.names = words.take(COLUMNS_MAX).collect::<Option<_>>()?;
                header.kinds = Arc::default();
            }
            _ => header.kinds = words.take(header.names.len()).collect::<Option<_>>()?,
        }
        Some(Arc::new(header))
    }

    /// The object of a line, whose columns are its members; none if the line has other columns.
    pub(super) fn object(&self, line: &str) -> Option<String> {
        if self.names.is_empty() || line.split(&*self.separator).count() != self.names.len() {
            return None;
        }
        let mut json = Vec::with_capacity(line.len() * 2);
        json.extend_from_slice(b"{\"_path\":");
        push_json_string(&mut json, &self.path);
        let kinds = self.kinds.iter().map(String::as_str);
        let kinds = kinds.chain(std::iter::repeat("string"));
        let columns = self.names.iter().zip(kinds);
        for ((name, kind), text) in columns.zip(line.split(&*self.separator)) {
            if text == self.unset {
                continue;
            }
            json.push(b',');
            push_json_string(&mut json, name);
            json.push(b':');
            match kind.split_once('[') {
                Some(("set" | "vector" | "list", kind)) => {
                    let kind = kind.strip_suffix(']').unwrap_or(kind);
                    json.push(b'[');
                    if text != self.empty {
                        for (i, text) in text.split(&*self.set_separator).enumerate() {
                            if i > 0 {
                                json.push(b',');
                            }
                            self.push_value(kind, text, &mut json);
                        }
                    }
                    json.push(b']');
                }
                _ => self.push_value(kind, text, &mut json),
            }
        }
        json.push(b'}');
        String::from_utf8(json).ok()
    }

    fn push_value(&self, kind: &str, text: &str, json: &mut Vec<u8>) {
        let is_number = matches!(
            kind,
            "count" | "int" | "port" | "double" | "time" | "interval"
        );
        if is_number && serde_json::from_str::<serde_json::Number>(text).is_ok() {
            json.extend_from_slice(text.as_bytes());
        } else if kind == "bool" && matches!(text, "T" | "F") {
            json.extend_from_slice(if text == "T" { b"true" } else { b"false" });
        } else {
            let value = if text == self.empty {
                Cow::Borrowed("")
            } else {
                unescape(text)
            };
            // A value that looks like one of those has been written with an escape, which keeps it apart.
            let looks_unset = value == self.unset || value == self.empty;
            push_json_string(json, if looks_unset { text } else { &value });
        }
    }
}

/// What Zeek has written as `\xHH` and `\\`: signs that cannot be printed, separators, backslashes
/// (<https://docs.zeek.org/en/master/log-formats.html>).
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |sign: u8| char::from(sign).to_digit(16);
                match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => ((high * 16 + low) as u8, after),
                    _ => (first, &rest[1..]),
                }
            }
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    // What is no text stays as it is: names that differ must not become one.
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// `\x09` is a tab.
fn separator(text: &str) -> Option<String> {
    let separator = unescape(text);
    let is_one = (1..=WORD_BYTES_MAX).contains(&separator.len()) && separator.is_ascii();
    (is_one && !separator.starts_with("\\x")).then(|| separator.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn header(lines: &[&str]) -> Arc<Header> {
        let mut header = None;
        for line in lines {
            header = Header::after(header.as_ref(), line).or(header);
        }
        header.expect("a header")
    }

    #[test]
    fn a_row_is_an_object() {
        let header = header(&[
            "#separator \\x09",
            "#set_separator\t,",
            "#empty_field\t(empty)",
            "#unset_field\t-",
            "#path\tssh",
            "#open\t2025-01-01-00-00-00",
            "#fields\tts\tuid\tid.orig_h\tid.orig_p\tok\ttags\tnote\tnone\tstrange",
            "#types\ttime\tstring\taddr\tport\tbool\tset[string]\tstring\tcount\tcount",
        ]);
        let object = header.object("1.5\tC1\t192.0.2.1\t22\tT\ta,b\t(empty)\t-\tmany");
        let found: Value = serde_json::from_str(&object.expect("a row")).expect("JSON");
        assert_eq!(
            found,
            json!({"_path": "ssh", "ts": 1.5, "uid": "C1", "id.orig_h": "192.0.2.1", "id.orig_p": 22,
                   "ok": true, "tags": ["a", "b"], "note": "", "strange": "many"})
        );
        assert_eq!(header.object("1.5\tC1"), None);
    }

    #[test]
    fn escapes_are_undone() {
        let check = |text: &str, expected: &str| assert_eq!(unescape(text), expected, "for {text}");
        check("plain", "plain");
        check(r"\\\\host\\share", r"\\host\share");
        check(r"CN=x\x2cOU=y", "CN=x,OU=y");
        check(r"\xc3\xa4", "\u{e4}");
        check(r"\xff", r"\xff");
        check(r"\", r"\");
        check(r"\x4", r"\x4");
        check(r"\xzz\n", r"\xzz\n");
        let header = header(&[
            "#separator \\x09",
            "#set_separator\t,",
            "#path\tldap",
            "#fields\tobjects\tname",
            "#types\tset[string]\tstring",
        ]);
        let object = header.object("a\\x2cb,c\td\\\\e");
        let found: Value = serde_json::from_str(&object.expect("a row")).expect("JSON");
        assert_eq!(
            found,
            json!({"_path": "ldap", "objects": ["a,b", "c"], "name": r"d\e"})
        );
        // Not unset, and not empty.
        let object = header.object("\\x28empty)\t\\x2d");
        let found: Value = serde_json::from_str(&object.expect("a row")).expect("JSON");
        assert_eq!(
            found,
            json!({"_path": "ldap", "objects": [r"\x28empty)"], "name": r"\x2d"})
        );
    }

    /// Each line copied all columns, of which there may be 1,024.
    #[test]
    fn a_line_copies_nothing_that_it_does_not_say() {
        let before = header(&[
            "#separator \\x09",
            "#path\tssh",
            "#fields\tts\tuid\tok",
            "#types\ttime\tstring\tbool",
        ]);
        let after = |line: &str| Header::after(Some(&before), line).expect("it is known");
        for line in ["#open\t2025-01-01-00-00-00", "#close\tx"] {
            assert!(Arc::ptr_eq(&after(line), &before), "{line}");
        }
        let shares = |header: &Header, kinds: bool| {
            Arc::ptr_eq(&header.names, &before.names)
                && Arc::ptr_eq(&header.kinds, &before.kinds) == kinds
        };
        assert!(shares(&after("#path\tdns"), true));
        assert!(shares(&after("#unset_field\t?"), true));
        // Columns of which it says nothing hold strings.
        let types = after("#types\ttime");
        assert!(shares(&types, false));
        let object = types.object("1\t2\tT").expect("a row");
        assert!(
            object.ends_with(r#""ts":1,"uid":"2","ok":"T"}"#),
            "{object}"
        );
        let more = "#types\ttime\tint\tbool\tint\tint";
        assert_eq!(after(more).kinds.len(), 3);
    }

    #[test]
    fn other_comments_say_nothing() {
        assert_eq!(Header::after(None, "#fields\tts"), None);
        assert_eq!(Header::after(None, "# a comment"), None);
        assert_eq!(Header::after(None, "#separator \\xff"), None);
        let header = header(&["#separator \\x09"]);
        assert_eq!(header.object("1.5\tC1"), None);
    }
}
