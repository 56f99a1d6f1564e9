//! Writes numbers and strings into JSON, always in the same bytes, and reads strings with escapes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;

/// Bytes as text, if they are UTF-8. With the standard library it is 3% of what it takes to map a record, with this half of
/// that.
#[must_use]
pub fn utf8(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

/// Appends `text` as a JSON string with its quotes.
pub fn push_json_string(output: &mut Vec<u8>, text: &str) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        output.push(b'"');
        output.extend_from_slice(text.as_bytes());
        output.push(b'"');
        return;
    }
    serde_json::to_writer(output, text).expect("a string can be written to memory");
}

/// Appends a part of a text. Most are short: so many bytes are copied at once, whatever they are, and what is too much is
/// taken away again, which costs less than to ask for a copy of just so many.
#[inline]
pub fn push_part(output: &mut Vec<u8>, text: &[u8], part: Range<usize>) {
    const BYTES: usize = 32;
    let length = part.end - part.start;
    match text
        .get(part.start..)
        .and_then(<[u8]>::first_chunk::<BYTES>)
    {
        Some(chunk) if length <= BYTES => {
            let end = output.len() + length;
            output.extend_from_slice(chunk);
            output.truncate(end);
        }
        _ => output.extend_from_slice(&text[part]),
    }
}

/// The text of the inside of a JSON string; none for a lone surrogate, which stands for no character.
#[must_use]
pub fn unescape(raw: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{raw}\"")).ok()
}

/// Appends an integer.
pub fn push_integer(output: &mut Vec<u8>, number: impl Into<i128>) {
    let number: i128 = number.into();
    if let Ok(number) = u64::try_from(number) {
        let mut digits = [0_u8; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        output.extend_from_slice(&digits[start..]);
        return;
    }
    write!(output, "{number}").expect("memory takes every write");
}

/// Appends a number with at most 6 significant digits, so that output stays stable where the
/// last bits of a computation would not.
///
/// Numbers below 1e-9 are printed as 0, numbers from 1e6 on without a fraction; what is not
/// finite is printed as null, since JSON has no other word for it.
pub fn push_number(output: &mut Vec<u8>, number: f64) {
    const SCALES: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    if !number.is_finite() {
        output.extend_from_slice(b"null");
        return;
    }
    let magnitude = number.abs();
    if magnitude < 1e-9 {
        output.push(b'0');
        return;
    }
    if number < 0.0 {
        output.push(b'-');
    }
    if magnitude >= 1e6 {
        write!(output, "{magnitude:.0}").expect("memory takes every write");
        return;
    }
    // The number of decimals that leaves six digits before the point of the scaled number.
    let mut decimals = 0;
    while magnitude * SCALES[decimals] < 1e5 && decimals + 1 < SCALES.len() {
        decimals += 1;
    }
    let mut digits = (magnitude * SCALES[decimals]).round() as u64;
    while decimals > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        decimals -= 1;
    }
    let unit = 10_u64.pow(decimals as u32);
    push_integer(output, digits / unit);
    if decimals > 0 {
        output.push(b'.');
        let fraction = digits % unit;
        let mut width = unit / 10;
        while width > fraction && width > 1 {
            output.push(b'0');
            width /= 10;
        }
        push_integer(output, fraction);
    }
}

/// A number as [`push_number`] writes it.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    let mut text = Vec::new();
    push_number(&mut text, number);
    let text = std::str::from_utf8(&text).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(number)
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// `text` with at most `chars_max` characters, and an ellipsis where some were cut off.
#[must_use]
pub fn shorten(text: &str, chars_max: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// `text` as a terminal may show it: characters that control it or reorder or hide text are
/// replaced by their code point in angle brackets.
#[must_use]
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return text.into();
    }
    let mut output = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unprintable(character) {
            write!(output, "<{:04X}>", character as u32).expect("a string takes every write");
        } else {
            output.push(character);
        }
    }
    output.into()
}

/// JSON as a terminal may show it: the same values, but what `printable` would replace is escaped.
#[must_use]
pub fn json_for_terminal(json: &str) -> String {
    let mut output = String::with_capacity(json.len());
    for character in json.chars() {
        let mut units = [0; 2];
        match character {
            '\n' => output.push('\n'),
            // Valid JSON has these between values only.
            '\t' | '\r' => output.push(' '),
            _ if printable(character.encode_utf8(&mut [0; 4])).len() > character.len_utf8() => {
                for unit in character.encode_utf16(&mut units) {
                    write!(output, "\\u{unit:04x}").expect("a string takes every write");
                }
            }
            _ => output.push(character),
        }
    }
    output
}

/// Control characters (Unicode Cc), line and paragraph separators, zero-width characters,
/// bidirectional controls (UAX #9), interlinear and tag characters.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_are_appended() {
        let text: Vec<u8> = (0..80).collect();
        for start in 0..text.len() {
            for end in start..=text.len() {
                let mut output = b"before".to_vec();
                push_part(&mut output, &text, start..end);
                assert_eq!(output[..6], *b"before");
                assert_eq!(output[6..], text[start..end]);
            }
        }
        assert_eq!(utf8(b"\xc3\xa4"), Some("\u{e4}"));
        assert_eq!(utf8(b"\xc3"), None);
    }

    #[test]
    fn numbers_have_six_significant_digits() {
        let check = |number: f64, expected: &str| {
            let mut output = Vec::new();
            push_number(&mut output, number);
            assert_eq!(
                String::from_utf8(output).expect("digits"),
                expected,
                "for {number:?}"
            );
        };
        check(0.0, "0");
        check(1.0, "1");
        check(0.5, "0.5");
        check(0.1 + 0.2, "0.3");
        check(2.0 / 3.0, "0.666667");
        check(-0.812_345_67, "-0.812346");
        check(0.999_999_9, "1");
        check(0.001_234_567_8, "0.00123457");
        check(0.000_000_123_456_78, "0.000000123457");
        check(12.345_678_9, "12.3457");
        check(123_456.78, "123457");
        check(1_234_567.8, "1234568");
        check(0.05, "0.05");
        check(0.000_01, "0.00001");
        check(1e-12, "0");
        check(f64::NAN, "null");
        check(f64::INFINITY, "null");
    }

    #[test]
    fn strings_are_escaped() {
        let check = |text: &str, expected: &str| {
            let mut output = Vec::new();
            push_json_string(&mut output, text);
            assert_eq!(String::from_utf8(output).expect("utf-8"), expected);
        };
        check("plain ü", "\"plain ü\"");
        check("a\"b\\c\n\u{1}", "\"a\\\"b\\\\c\\n\\u0001\"");
    }

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(printable("ok ü 你"), "ok ü 你");
        assert_eq!(printable("\u{1b}[31mred\u{202e}"), "<001B>[31mred<202E>");
        assert_eq!(shorten("abcdef", 3), "abc…");
        assert_eq!(shorten("abc", 3), "abc");
    }
}
