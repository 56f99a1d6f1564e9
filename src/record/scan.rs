//! Walks one JSON text (RFC 8259) forward, checking all of it and copying none of it.
//!
//! Why not a library: the stages need to know where each member begins and ends, so that they
//! can append and replace fields without re-serialising; nesting must be bounded, and so must
//! the stack. `benches/parse.rs` compares the cost with `serde_json` and `sonic-rs`; a property
//! test and JSONTestSuite hold that this accepts exactly what `serde_json` accepts.

use super::{Checked, Code, DEPTH_MAX, Reason};

/// A JSON value as it stands in the text. Offsets, not slices: a line has some 17 of these, and
/// few are ever looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool,
    Number(Span),
    String(Quoted),
    Array,
    Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// The inside of a string literal, escapes and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) span: Span,
    pub(crate) has_escapes: bool,
}

impl Value {
    /// The value that stands from `start` to the end of a text as JSON; an object or array is none. Whether a string has
    /// escapes is left to [`Self::find_escapes`].
    pub(crate) fn at(text: &[u8], start: usize) -> Option<Self> {
        let value = text.get(start..)?;
        let end = text.len();
        match value.first()? {
            b'"' => Some(Self::String(Quoted {
                span: span(start + 1, end - 1),
                has_escapes: false,
            })),
            b'-' | b'0'..=b'9' => Some(Self::Number(span(start, end))),
            b't' | b'f' => Some(Self::Bool),
            b'n' => Some(Self::Null),
            _ => None,
        }
    }

    /// Looks whether a string of the text has escapes.
    pub(crate) fn find_escapes(&mut self, text: &[u8]) {
        if let Self::String(quoted) = self {
            let inside = &text[quoted.span.start as usize..quoted.span.end as usize];
            quoted.has_escapes = memchr::memchr(b'\\', inside).is_some();
        }
    }
}

pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// What a span stands for.
    #[inline]
    pub(crate) fn get(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// Offset of the next unread byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Goes on at an offset at which a value begins.
    pub(crate) fn move_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Skips white space and returns the next byte without reading it.
    #[expect(
        clippy::inline_always,
        reason = "a fifth of the cost of a line, by benches/parse.rs"
    )]
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        // Most events have no white space between their tokens.
        match bytes.get(self.at) {
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.peek_after_space(),
        }
    }

    #[cold]
    fn peek_after_space(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Reads `wanted`, after any white space.
    #[expect(
        clippy::inline_always,
        reason = "a fifth of the cost of a line, by benches/parse.rs"
    )]
    #[inline(always)]
    pub(crate) fn expect(&mut self, wanted: u8, what: &'static str) -> Checked<()> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(what))
    }

    /// Reads `{` and returns false if the object ends at once.
    #[inline]
    pub(crate) fn open_object(&mut self) -> Checked<bool> {
        self.expect(b'{', "'{'")?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads a key and its colon.
    #[expect(
        clippy::inline_always,
        reason = "a fifth of the cost of a line, by benches/parse.rs"
    )]
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Checked<Quoted> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a field name in quotes"));
        }
        let key = self.string()?;
        self.expect(b':', "':'")?;
        Ok(key)
    }

    /// After a member: reads `,` (true: another one follows) or `}` (false).
    #[inline]
    pub(crate) fn next_member(&mut self) -> Checked<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b'}') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.unexpected("',' or '}'")),
        }
    }

    /// Reads `[` and returns false if the array ends at once.
    pub(crate) fn open_array(&mut self) -> Checked<bool> {
        self.expect(b'[', "'['")?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// After an element: reads `,` (true: another one follows) or `]` (false).
    pub(crate) fn next_element(&mut self) -> Checked<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.unexpected("',' or ']'")),
        }
    }

    /// Reads a whole value that stands at `depth` (a member of the event stands at 1).
    #[inline]
    pub(crate) fn value(&mut self, depth: u32) -> Checked<Value> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{' | b'[') => self.container(depth),
            _ => self.scalar(),
        }
    }

    /// Checks that nothing but white space is left.
    pub(crate) fn end(&mut self) -> Checked<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the line")),
        }
    }

    fn scalar(&mut self) -> Checked<Value> {
        let (literal, value) = match self.peek() {
            Some(b't') => ("true", Value::Bool),
            Some(b'f') => ("false", Value::Bool),
            Some(b'n') => ("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => return self.number().map(Value::Number),
            _ => return Err(self.unexpected("a value")),
        };
        if self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            self.at += literal.len();
            return Ok(value);
        }
        Err(self.unexpected("a value"))
    }

    /// Reads an object or array, however nested, without recursion.
    fn container(&mut self, depth: u32) -> Checked<Value> {
        // One bit a level: 1 is an object. DEPTH_MAX levels fit.
        let mut kinds: u64 = 0;
        let mut level = 0;
        let mut first = None;
        loop {
            // A value is due here.
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth + level >= DEPTH_MAX {
                        let message = format!("nested deeper than {DEPTH_MAX} levels");
                        return Err(Reason::of_line(Code::TooDeep, message));
                    }
                    first.get_or_insert(if open == b'{' {
                        Value::Object
                    } else {
                        Value::Array
                    });
                    level += 1;
                    kinds = kinds << 1 | u64::from(open == b'{');
                    self.at += 1;
                    if open == b'{' && self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                    if open == b'[' && self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                _ => {
                    self.scalar()?;
                }
            }
            // A value has ended, or an empty container is about to: close what closes.
            loop {
                let is_in_object = kinds & 1 == 1;
                match self.peek() {
                    Some(b'}') if is_in_object => {}
                    Some(b']') if !is_in_object => {}
                    Some(b',') => {
                        self.at += 1;
                        if is_in_object {
                            self.key()?;
                        }
                        break;
                    }
                    _ if is_in_object => return Err(self.unexpected("',' or '}'")),
                    _ => return Err(self.unexpected("',' or ']'")),
                }
                self.at += 1;
                kinds >>= 1;
                level -= 1;
                if level == 0 {
                    return Ok(first.unwrap_or(Value::Array));
                }
            }
        }
    }

    /// Reads a string; the next byte is its quote.
    #[expect(
        clippy::inline_always,
        reason = "a fifth of the cost of a line, by benches/parse.rs"
    )]
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Checked<Quoted> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut has_escapes = false;
        loop {
            at = skip_plain(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Quoted {
                        span: span(start, at),
                        has_escapes,
                    });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    at = self.escape(at)?;
                }
                Some(_) => {
                    self.at = at;
                    return Err(self.invalid("control character in a string"));
                }
                None => {
                    self.at = at;
                    return Err(self.unexpected("the end of the string"));
                }
            }
        }
    }

    /// Checks the escape at the backslash `at` and returns the offset after it.
    fn escape(&mut self, at: usize) -> Checked<usize> {
        let bytes = self.text.as_bytes();
        match bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(at + 2),
            Some(b'u') => {
                let digits = bytes.get(at + 2..at + 6);
                if digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Ok(at + 6);
                }
            }
            _ => {}
        }
        self.at = at;
        Err(self.invalid("invalid escape in a string"))
    }

    fn number(&mut self) -> Checked<Span> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(span(start, self.at))
    }

    fn digits(&mut self) -> Checked<()> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.unexpected("a digit"))
        } else {
            Ok(())
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn unexpected(&self, wanted: &str) -> Box<Reason> {
        let at = self.at;
        let message = if at < self.text.len() {
            format!("expected {wanted} at byte {at}")
        } else {
            format!("the line ends at byte {at} where {wanted} was expected")
        };
        Reason::of_line(Code::InvalidJson, message)
    }

    #[cold]
    fn invalid(&self, what: &str) -> Box<Reason> {
        Reason::of_line(Code::InvalidJson, format!("{what} at byte {}", self.at))
    }
}

fn span(start: usize, end: usize) -> Span {
    Span {
        start: start as u32,
        end: end as u32,
    }
}

/// Offset of the first byte from `at` on that ends or interrupts a string: a quote, a
/// backslash or a control character. Eight bytes at a time, by carries in one word
/// (Mycroft's test; see "Bit Twiddling Hacks", determine if a word has a byte less than n).
#[inline]
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes were taken"));
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGH;
        if found != 0 {
            // The lowest hit is exact; only bytes above it may be false ones.
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= 0x20)
    {
        at += 1;
    }
    at
}
