//! Text that nobody sees: a model reads it, or somebody has tried. What scripts and emoji need of
//! invisible characters is no such text.

/// As many invisible characters in a row as no script has use for.
const INVISIBLE_RUN_MIN: usize = 4;
/// As many invisible characters between plain Latin letters, where none has a use.
const INVISIBLE_BETWEEN_LETTERS_MIN: usize = 3;
/// Tags that a flag has at most: six and the one that ends it.
const FLAG_TAGS_MAX: usize = 7;
/// What a terminal is told so that it shows nothing of what follows.
const CONCEAL: &str = "\u{1b}[8m";

/// Whether `text` holds any.
pub(super) fn is_any(text: &str) -> bool {
    if text.contains(CONCEAL) {
        return true;
    }
    if text.is_ascii() {
        return false;
    }
    let mut previous = ' ';
    let mut before_run = ' ';
    let mut n_run = 0;
    let mut n_tags = 0;
    let mut n_between_letters = 0;
    for character in text.chars() {
        match character {
            // Tags hide text, or make the flag of a region of a black one.
            '\u{E0000}'..='\u{E007F}' => {
                n_tags += 1;
                if previous != '🏴' && n_tags == 1 || n_tags > FLAG_TAGS_MAX {
                    return true;
                }
            }
            // Nobody selects a variant of a variant.
            _ if is_selector(character) && is_selector(previous) => return true,
            '\u{202D}' | '\u{202E}' | '\u{E0080}'..='\u{E00FF}' | '\u{E01F0}'..='\u{E0FFF}' => {
                return true;
            }
            _ => {}
        }
        if !is_tag(character) {
            n_tags = 0;
        }
        if is_invisible(character) {
            if n_run == 0 {
                before_run = previous;
            }
            n_run += 1;
            if n_run >= INVISIBLE_RUN_MIN {
                return true;
            }
        } else {
            if n_run > 0 && before_run.is_ascii_alphabetic() && character.is_ascii_alphabetic() {
                n_between_letters += 1;
                if n_between_letters >= INVISIBLE_BETWEEN_LETTERS_MIN {
                    return true;
                }
            }
            n_run = 0;
        }
        previous = character;
    }
    false
}

fn is_tag(character: char) -> bool {
    matches!(character, '\u{E0000}'..='\u{E007F}')
}

fn is_selector(character: char) -> bool {
    matches!(character, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{180E}' | '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_told_from_what_scripts_need() {
        let check = |text: &str, expected: bool| assert_eq!(is_any(text), expected, "{text:?}");
        check("", false);
        check("plain, ümlaut, 你好, \u{1b}[31mred", false);
        check("می\u{200c}خواهم नमस्\u{200d}ते", false);
        check("👨\u{200d}👩\u{200d}👧\u{200d}👦 ❤\u{fe0f}", false);
        check(
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            false,
        );
        check("Donau\u{ad}dampf\u{ad}schiff\u{ad}fahrt", false);
        check("葛\u{e0100}城", false);
        check("one\u{200b}time", false);
        check("ok\u{e0068}", true);
        check(
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e0068}\u{e0069}\u{e007f}",
            true,
        );
        check("a\u{fe00}\u{fe01}", true);
        check("a\u{e0110}\u{e0120}", true);
        check("a\u{200b}\u{200c}\u{200b}\u{200c}", true);
        check("h\u{200b}i\u{200b}d\u{200b}e", true);
        check("photo\u{202e}gpj.exe", true);
        check("a\u{1b}[8mb", true);
    }
}
