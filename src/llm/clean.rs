//! Prepares a field of an event for a prompt: a model reads what a person would see of it, on one
//! line, and not more than was asked for. What the words mean is `injection.rs`'s business.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` without control characters and without characters that nobody sees, each line break and
/// tab as one blank, and with at most `chars_max` characters of it. Where some were cut off, an
/// ellipsis and their number follow: `GET /a… (1200 more)`.
#[must_use]
pub fn clean(text: &str, chars_max: usize) -> Cow<'_, str> {
    // No field has more characters than bytes, so most need not be counted.
    let is_short = text.len() <= chars_max || text.chars().nth(chars_max).is_none();
    if is_short && !text.chars().any(is_changed) {
        return text.into();
    }
    let mut output = String::with_capacity(text.len().min(chars_max.saturating_mul(4)) + 32);
    let mut n_kept = 0;
    let mut n_cut = 0_usize;
    let mut previous = '\0';
    for character in text.chars() {
        let is_second_half = previous == '\r' && character == '\n';
        previous = character;
        let kept = match character {
            _ if is_second_half => continue,
            _ if is_break(character) => ' ',
            _ if is_hidden(character) => continue,
            _ => character,
        };
        if n_kept < chars_max {
            output.push(kept);
            n_kept += 1;
        } else {
            n_cut += 1;
        }
    }
    if n_cut > 0 {
        write!(output, "… ({n_cut} more)").expect("a string takes every write");
    }
    output.into()
}

fn is_changed(character: char) -> bool {
    is_break(character) || is_hidden(character)
}

/// Whether a line, a page or a column ends here.
pub(super) fn is_break(character: char) -> bool {
    matches!(
        character,
        '\t' | '\n' | '\u{0B}' | '\u{0C}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether a reader sees nothing of it: control characters (Unicode Cc) but line breaks, and
/// what Unicode calls default ignorable: zero-width characters, bidirectional controls and
/// isolates, joiners, fillers, variation selectors and tags, assigned or not. Annotations and
/// shorthand controls too.
pub(super) fn is_hidden(character: char) -> bool {
    if character < '\u{7F}' {
        return character < ' ' && !is_break(character);
    }
    (character.is_control() && !is_break(character))
        || matches!(character,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}'
            | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_gets_what_a_person_sees() {
        let check = |text: &str, expected: &str| assert_eq!(clean(text, 100), expected);
        check("", "");
        check("GET /a?b=c ü 你 🦀", "GET /a?b=c ü 你 🦀");
        check("a\0b\u{1b}[31mc\u{7f}\u{9b}d", "ab[31mcd");
        check("a\nb\r\nc\rd\te\u{2028}f\u{85}g", "a b c d e f g");
        check("a\r\r\n\nb", "a   b");
        check("photo\u{202e}gpj.exe\u{2066}x\u{2069}", "photogpj.exex");
        check("ig\u{200b}no\u{200d}re\u{feff} me\u{ad}", "ignore me");
        check("ok\u{e0001}\u{e0069}\u{e0067}\u{e007f}", "ok");
        check("❤\u{fe0f}a\u{e0100}\u{e01ef}", "❤a");
        check("a\u{3164}\u{115f}\u{34f}\u{180e}b", "ab");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdef", 4), "abcd… (2 more)");
        assert_eq!(clean("äöüß", 4), "äöüß");
        assert_eq!(clean("äöüß", 3), "äöü… (1 more)");
        assert_eq!(clean("abc", 0), "… (3 more)");
        // What is removed takes no room and is not counted.
        assert_eq!(clean("a\u{200b}b\u{200b}c\u{200b}", 3), "abc");
        assert_eq!(clean("a\u{200b}bcd\u{200b}", 3), "abc… (1 more)");
    }

    #[test]
    fn what_does_not_change_is_not_copied() {
        assert!(matches!(clean("GET /ü", 100), Cow::Borrowed(_)));
        assert!(matches!(clean("äöü", 3), Cow::Borrowed(_)));
        assert!(matches!(clean("a\tb", 100), Cow::Owned(_)));
    }
}
