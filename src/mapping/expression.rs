//! Regular expressions as mappings write them.

use anyhow::Context as _;
use regex::{Regex, RegexSet, RegexSetBuilder};

/// An expression. Its classes `\d`, `\w`, `\s` and their opposites are those of ASCII: what programs write around their
/// values is, and the automaton is ten times smaller.
///
/// # Errors
/// If it is none, or too large.
pub(super) fn regex(text: &str) -> anyhow::Result<Regex> {
    /// A compiled expression is no larger, so that no mapping takes all memory.
    const REGEX_BYTES_MAX: usize = 4 << 20;
    let build = || {
        // As it stands: written out, `[+-\d]` would be a range.
        regex_syntax::parse(text)?;
        let mut builder = regex::RegexBuilder::new(&in_ascii(text));
        anyhow::Ok(builder.size_limit(REGEX_BYTES_MAX).build()?)
    };
    build().with_context(|| format!("'{text}' is no regular expression"))
}

/// Expressions that are tried together.
///
/// # Errors
/// If they are too large together.
pub(super) fn regex_set<'r>(all: impl Iterator<Item = &'r Regex>) -> anyhow::Result<RegexSet> {
    /// A set of expressions, compiled, is no larger.
    const SET_BYTES_MAX: usize = 32 << 20;
    let mut builder = RegexSetBuilder::new(all.map(Regex::as_str));
    Ok(builder.size_limit(SET_BYTES_MAX).build()?)
}

/// The same expression with the classes written out.
fn in_ascii(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        let escaped = signs.as_str().chars().next().filter(|_| sign == '\\');
        // Classes can stand in classes.
        let class = match escaped {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('s') => r"[\t-\r\x20]",
            Some('S') => r"[^\t-\r\x20]",
            _ => {
                written.push(sign);
                written.extend(escaped.and_then(|_| signs.next()));
                continue;
            }
        };
        written.push_str(class);
        signs.next();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_ascii() {
        let check = |pattern: &str, text: &str, expected: bool| {
            let regex = regex(pattern).expect("an expression");
            assert_eq!(regex.is_match(text), expected, "for {pattern} in {text}");
        };
        check(r"^\d+$", "0129", true);
        check(r"^\d+$", "\u{661}", false);
        check(r"^\S+$", "name", true);
        check(r"^\S+$", "n\u{e4}me", true);
        for space in [" ", "\t", "\n", "\u{b}", "\r"] {
            check(r"^\S+$", &format!("a{space}b"), false);
            check(r"^[\S]$", space, false);
            check(r"^\s$", space, true);
            check(r"^[^\s:]$", space, false);
        }
        check(r"^[^\s:]+$", "a:b", false);
        check(r"^[\w.-]+$", "a_9.Z-", true);
        check(r"^\w$", "\u{e4}", false);
        check(r"^\\d\[\d\]$", r"\d[7]", true);
        check(r"(?x) ^ \d \s $", "1 ", true);
        check(r"^[\w\W]+$", "j\u{fc}rg", true);
        check(r"^\D\W$", "\u{661}\u{e4}", true);
        check(r"^[+\d-]+$", "+1-2", true);
        assert!(regex(r"[+-\d]").is_err());
        assert!(regex(r"(\d").is_err() && regex("\\").is_err());
    }
}
