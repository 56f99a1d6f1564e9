//! Regular expressions as mappings write them.

use std::ops::Range;

use anyhow::{Context as _, anyhow};
use memchr::memmem::Finder;
use regex::{RegexSet, RegexSetBuilder};
use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use regex_automata::util::primitives::{NonMaxUsize, PatternID};
use regex_syntax::hir::{Hir, Look, literal::Extractor};

/// An expression. Its classes `\d`, `\w`, `\s` and their opposites are those of ASCII: what programs write around their
/// values is, and the automaton is ten times smaller.
pub(super) struct Expression {
    /// Not that of the crate `regex`, which gives groups in memory that is allocated, and not in some on the stack.
    regex: Regex,
    /// What it is compiled from, for those that are tried together.
    written: String,
    /// Every match begins with it: most texts do not hold it, which is found out much faster.
    beginning: Option<Box<Finder<'static>>>,
}

impl Expression {
    /// # Errors
    /// If it is none, or too large.
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        /// A compiled expression is no larger, so that no mapping takes all memory.
        const REGEX_BYTES_MAX: usize = 4 << 20;
        let build = || {
            // As it stands: written out, `[+-\d]` would be a range.
            regex_syntax::parse(text)?;
            let written = in_ascii(text);
            let config = Regex::config().nfa_size_limit(Some(REGEX_BYTES_MAX));
            let regex = Regex::builder().configure(config).build(&written);
            let regex = regex.map_err(|error| match error.size_limit() {
                Some(_) => anyhow!("it takes more than {} MiB, compiled", REGEX_BYTES_MAX >> 20),
                None => error.into(),
            });
            anyhow::Ok(Self {
                regex: regex?,
                beginning: beginning_of(&regex_syntax::parse(&written)?),
                written,
            })
        };
        build().with_context(|| format!("'{text}' is no regular expression"))
    }

    fn may_match(&self, text: &str) -> bool {
        let beginning = self.beginning.as_ref();
        beginning.is_none_or(|beginning| beginning.find(text.as_bytes()).is_some())
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.may_match(text) && self.regex.is_match(text)
    }

    /// Where the first group of the first match stands.
    pub(super) fn first_group(&self, text: &str) -> Option<Range<usize>> {
        // The whole match and the group, each with its two ends.
        let mut ends = [None; 4];
        if !self.may_match(text) {
            return None;
        }
        self.regex.search_slots(&Input::new(text), &mut ends)?;
        let [_, _, start, end] = ends.map(|end| end.map(NonMaxUsize::get));
        Some(start?..end?)
    }

    /// The first match and its groups.
    pub(super) fn captures(&self, text: &str) -> Option<Captures> {
        if !self.may_match(text) {
            return None;
        }
        let mut captures = self.regex.create_captures();
        self.regex.captures(text, &mut captures);
        captures.is_match().then_some(captures)
    }

    /// The names of its groups, the first of which is the whole.
    pub(super) fn group_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.regex.group_info().pattern_names(PatternID::ZERO)
    }
}

/// What every match begins with, wherever in a text it does.
fn beginning_of(parsed: &Hir) -> Option<Box<Finder<'static>>> {
    let properties = parsed.properties();
    if properties.look_set_prefix().contains(Look::Start) {
        return None;
    }
    let beginnings = Extractor::new().extract(parsed);
    let [beginning] = beginnings.literals()? else {
        return None;
    };
    let beginning = beginning.as_bytes();
    (beginning.len() > 1).then(|| Box::new(Finder::new(beginning).into_owned()))
}

/// Expressions that are tried together.
///
/// # Errors
/// If they are too large together.
pub(super) fn regex_set<'r>(all: impl Iterator<Item = &'r Expression>) -> anyhow::Result<RegexSet> {
    /// A set of expressions, compiled, is no larger.
    const SET_BYTES_MAX: usize = 32 << 20;
    let mut builder = RegexSetBuilder::new(all.map(|it| &it.written));
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
            let expression = Expression::new(pattern).expect("an expression");
            assert_eq!(
                expression.is_match(text),
                expected,
                "for {pattern} in {text}"
            );
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
        for wrong in [r"[+-\d]", r"(\d", "\\"] {
            assert!(Expression::new(wrong).is_err(), "for {wrong}");
        }
        let large = Expression::new(r"(?:[a-z]{1000}){1000}").map(drop);
        let error = format!("{:#}", large.expect_err("it is too large"));
        assert!(
            error.ends_with("it takes more than 4 MiB, compiled"),
            "{error}"
        );
    }

    #[test]
    fn what_a_match_begins_with_is_looked_for_first() {
        let check = |pattern: &str, beginning: Option<&str>, text: &str, expected: Option<&str>| {
            let expression = Expression::new(pattern).expect("an expression");
            let found = expression.beginning.as_ref().map(|it| it.needle());
            assert_eq!(found, beginning.map(str::as_bytes), "for {pattern}");
            let group = expression.first_group(text);
            assert_eq!(group.clone().map(|it| &text[it]), expected, "for {pattern}");
            let captures = expression.captures(text);
            let of_captures = captures.and_then(|captures| captures.get_group(1));
            assert_eq!(of_captures.map(|span| span.range()), group);
            assert_eq!(expression.is_match(text), expected.is_some());
        };
        check(":user/(.+)$", Some(":user/"), "arn:user/ann", Some("ann"));
        check(":user/(.+)$", Some(":user/"), "arn:role/ann", None);
        check("/+([a-z]+)", None, "a//b", Some("b"));
        check("//+([a-z]+)", Some("//"), "a///b", Some("b"));
        check("^(a)?(b)", None, "ab", Some("a"));
        let optional = Expression::new("^(a)?(b)").expect("an expression");
        assert!(optional.is_match("b") && optional.first_group("b").is_none());
        // It is no faster where a match stands at the beginning.
        check("^user/(.+)$", None, "user/ann", Some("ann"));
        check("(?i)user/(.+)$", None, "USER/ann", Some("ann"));
        check("(?:user|role)/(.+)$", None, "role/ann", Some("ann"));
        check("(?m)^user/(.+)$", Some("user/"), "a\nuser/ann", Some("ann"));
        // Of the expression that is used, whose classes are those of ASCII.
        check(r"([\u{20ac}\u{e4}--\w]+):", None, "\u{e4}:", Some("\u{e4}"));
        check(r"((?:[\W&&\u{e4}]|ab)c)", None, "\u{e4}c", Some("\u{e4}c"));
    }
}
