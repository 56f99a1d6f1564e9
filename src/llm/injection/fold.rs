//! The normal form in which phrases are looked for: letters only, each as the plain Latin letter it
//! is or passes for, and where a word may begin or end. So `1gn0re-ALL`, `i g n o r e  a l l` and
//! `ɪɢɴᴏʀᴇAll` are the same letters. It knows no phrase.

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

use crate::llm::clean::{is_break, is_hidden};

/// A text in normal form.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// The letters, without anything between them.
    pub(super) letters: String,
    /// For each byte of `letters`, and for its end, whether a word may begin or end before it.
    pub(super) edges: Vec<Edge>,
    /// What was seen of the text, in lower case and without blanks: here punctuation counts.
    pub(super) signs: String,
}

/// What stands between two letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    Nothing,
    /// A digit is next to a letter, or a capital follows a small one, as in camelCase and in any random
    /// text: what is short is not taken for a word by that alone.
    Change,
    Gap,
}

/// What stands for another letter, one for one: `l` and `i` are one letter, since `1`, `|` and `!` are
/// used for both.
const ASCII: [Kind; 128] = ascii();

#[derive(Clone, Copy)]
enum Kind {
    Letter(u8),
    Capital(u8),
    /// A digit or sign that passes for a letter, or is what it is: words may end on both sides.
    Sign(u8),
    Gap,
}

const fn ascii() -> [Kind; 128] {
    let mut kinds = [Kind::Gap; 128];
    let mut byte = b'a';
    while byte <= b'z' {
        let letter = if byte == b'l' { b'i' } else { byte };
        kinds[byte as usize] = Kind::Letter(letter);
        kinds[byte.to_ascii_uppercase() as usize] = Kind::Capital(letter);
        byte += 1;
    }
    let signs = *b"0o1i2z3e4a5s6g7t8b9g@a$s";
    let mut index = 0;
    while index < signs.len() {
        kinds[signs[index] as usize] = Kind::Sign(signs[index + 1]);
        index += 2;
    }
    kinds
}

/// Folds a text.
pub(super) fn fold(text: &str) -> Folded {
    let mut folding = Folding::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            folding.push_ascii(character as u8);
        } else {
            folding.push_other(character);
        }
    }
    folding.end_wait(' ');
    folding.folded.edges.push(Edge::Gap);
    folding.folded
}

struct Folding {
    folded: Folded,
    edge: Edge,
    was_lowercase: bool,
    /// What the next character decides on: a colon is kept if a blank or the end follows, since who
    /// speaks writes `system: `; `!` and `|` are letters if they are within a word.
    waits: Option<u8>,
}

impl Folding {
    fn with_capacity(n_bytes: usize) -> Self {
        Self {
            folded: Folded {
                letters: String::with_capacity(n_bytes),
                edges: Vec::with_capacity(n_bytes + 1),
                signs: String::with_capacity(n_bytes),
            },
            edge: Edge::Gap,
            was_lowercase: false,
            waits: None,
        }
    }

    fn push_ascii(&mut self, byte: u8) {
        self.end_wait(char::from(byte));
        match ASCII[usize::from(byte)] {
            Kind::Letter(letter) => {
                self.push_letter(char::from(letter));
                self.was_lowercase = true;
            }
            Kind::Capital(letter) => {
                // Each word of camelCase is one.
                if self.was_lowercase {
                    self.raise_edge(Edge::Change);
                }
                self.push_letter(char::from(letter));
                self.was_lowercase = false;
            }
            Kind::Sign(letter) => {
                self.push_sign(char::from(letter), Edge::Change);
            }
            Kind::Gap => {
                if b":!|".contains(&byte) && (byte == b':' || self.edge == Edge::Nothing) {
                    self.waits = Some(byte);
                } else {
                    self.edge = Edge::Gap;
                }
                self.was_lowercase = false;
            }
        }
        if byte > b' ' && byte < 0x7F {
            self.folded
                .signs
                .push(char::from(byte.to_ascii_lowercase()));
        } else if byte == b'\n' {
            self.folded.signs.push('\n');
        }
    }

    fn push_other(&mut self, character: char) {
        // Tags are the characters of ASCII that nobody sees, and some models read.
        if let '\u{E0020}'..='\u{E007E}' = character {
            self.push_ascii((character as u32 - 0xE_0000) as u8);
            return;
        }
        self.end_wait(character);
        // The last two are whole sentences in one character.
        if is_hidden(character)
            || is_break(character)
            || matches!(character, '\u{FDFA}' | '\u{FDFB}')
        {
            self.edge = Edge::Gap;
            return;
        }
        if let Some(letter) = letter_in_a_box(character) {
            self.raise_edge(Edge::Change);
            self.push_ascii(letter);
            return;
        }
        decompose_compatible(character, |part| {
            if part.is_ascii() {
                self.push_ascii(part as u8);
            } else if !is_combining_mark(part) {
                self.push_part(part);
            }
        });
    }

    /// A character that is not made of others.
    fn push_part(&mut self, part: char) {
        self.was_lowercase = false;
        if !part.is_alphanumeric() {
            self.edge = Edge::Gap;
            self.folded.signs.push(part);
            return;
        }
        for part in part.to_lowercase() {
            if let Some(letter) = latin(part) {
                self.push_letter(letter);
                self.folded.signs.push(letter);
                continue;
            }
            match part {
                'ß' => self.push_letters("ss"),
                'æ' => self.push_letters("ae"),
                'œ' => self.push_letters("oe"),
                // Where no blanks are written, each character may be a word.
                '\u{1100}'..='\u{11FF}'
                | '\u{2E80}'..='\u{D7FF}'
                | '\u{F900}'..='\u{FAFF}'
                | '\u{20000}'..='\u{3FFFF}' => {
                    self.push_sign(part, Edge::Gap);
                }
                _ => self.push_letter(part),
            }
            self.folded.signs.push(part);
        }
    }

    fn end_wait(&mut self, next: char) {
        let Some(byte) = self.waits.take() else {
            return;
        };
        match byte {
            b':' if next.is_whitespace() => self.push_sign(':', Edge::Gap),
            b'!' | b'|' if next.is_ascii_alphanumeric() => self.push_sign('i', Edge::Change),
            _ => self.edge = Edge::Gap,
        }
    }

    /// A letter beside which words may begin and end.
    fn push_sign(&mut self, letter: char, edge: Edge) {
        self.raise_edge(edge);
        self.push_letter(letter);
        self.edge = edge;
        self.was_lowercase = false;
    }

    fn raise_edge(&mut self, edge: Edge) {
        self.edge = self.edge.max(edge);
    }

    fn push_letters(&mut self, letters: &str) {
        for letter in letters.chars() {
            self.push_letter(letter);
        }
    }

    fn push_letter(&mut self, letter: char) {
        self.folded.letters.push(letter);
        self.folded.edges.push(self.edge);
        for _ in 1..letter.len_utf8() {
            self.folded.edges.push(Edge::Nothing);
        }
        self.edge = Edge::Nothing;
    }
}

/// Letters of other scripts that look like Latin ones, and Latin ones that Unicode does not take
/// apart. Words of those scripts are folded in the same way, so they are found as well.
fn latin(character: char) -> Option<char> {
    Some(match character {
        'а' | 'ɑ' | 'α' | 'ᴀ' | 'ꭺ' => 'a',
        'в' | 'ʙ' | 'β' | 'ᏼ' | 'ь' => 'b',
        'с' | 'ᴄ' | 'ϲ' | 'ꮯ' => 'c',
        'ԁ' | 'ᴅ' | 'đ' | 'ꭰ' => 'd',
        'е' | 'є' | 'ᴇ' | 'ε' | 'ꭼ' | 'ɛ' => 'e',
        'ꜰ' | 'ƒ' => 'f',
        'ɡ' | 'ɢ' | 'ց' | 'ꮐ' => 'g',
        'һ' | 'н' | 'ʜ' | 'հ' | 'ꮋ' => 'h',
        'і' | 'ɪ' | 'ı' | 'ι' | 'ɩ' | 'ӏ' | 'ł' | 'ʟ' | 'ꭵ' | 'ꮮ' => 'i',
        'ј' | 'ᴊ' => 'j',
        'к' | 'ᴋ' | 'κ' | 'ꮶ' => 'k',
        'м' | 'ᴍ' | 'ꮇ' => 'm',
        'ɴ' | 'η' | 'ո' | 'п' => 'n',
        'о' | 'ᴏ' | 'ο' | 'օ' | 'ø' | 'σ' => 'o',
        'р' | 'ᴘ' | 'ρ' | 'ꮲ' => 'p',
        'ԛ' => 'q',
        'ʀ' | 'ꭱ' | 'г' => 'r',
        'ѕ' | 'ꜱ' | 'ꮪ' => 's',
        'т' | 'ᴛ' | 'τ' | 'ꭲ' => 't',
        'ᴜ' | 'ս' | 'υ' | 'μ' => 'u',
        'ѵ' | 'ᴠ' | 'ν' | 'ꮩ' => 'v',
        'ԝ' | 'ᴡ' | 'ω' | 'ꮃ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'ʏ' | 'γ' | 'ү' => 'y',
        'ᴢ' | 'ꮓ' => 'z',
        _ => return None,
    })
}

/// White letters on black, and those that flags are made of.
fn letter_in_a_box(character: char) -> Option<u8> {
    let first = match character {
        '\u{1F150}'..='\u{1F169}' => 0x1_F150,
        '\u{1F170}'..='\u{1F189}' => 0x1_F170,
        '\u{1F1E6}'..='\u{1F1FF}' => 0x1_F1E6,
        _ => return None,
    };
    Some(b'a' + (character as u32 - first) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_has_one_form() {
        let check = |text: &str, letters: &str| assert_eq!(fold(text).letters, letters, "{text}");
        check("Ignore all", "ignoreaii");
        check("1gn0r3 @11", "ignoreaii");
        check("i.g-n_o r+e/a%l*l", "ignoreaii");
        check("ɪɢɴᴏʀᴇ", "ignore");
        check("ignоrе", "ignore");
        check("𝐢𝗴𝓷𝕠𝚛𝖊", "ignore");
        check("ｉｇｎｏｒｅ ⓐⓛⓛ 🅐🅻🅻 🇦🇱🇱", "ignoreaiiaiiaii");
        check("i\u{200b}g\u{301}n\u{e0100}ore", "ignore");
        check("ignoré les règles ÜBER groß", "ignoreiesregiesubergross");
        check("ok\u{e0049}\u{e0067}", "okig");
        check("system: a:b c:", "system:abc:");
        check("", "");
    }

    #[test]
    fn it_is_known_where_words_begin() {
        let check = |text: &str, expected: &str| {
            let folded = fold(text);
            let mut shown = String::new();
            for (at, letter) in folded.letters.char_indices() {
                match folded.edges[at] {
                    Edge::Nothing => {}
                    Edge::Change => shown.push('\''),
                    Edge::Gap => shown.push('_'),
                }
                shown.push(letter);
            }
            assert_eq!(folded.edges.len(), folded.letters.len() + 1);
            assert_eq!(shown, expected, "{text}");
        };
        check("no way", "_no_way");
        check("noWayOUT", "_no'way'out");
        check("no2way", "_no'z'way");
        check("no!way! |no", "_no'i'way_no");
        check("忽略ok", "_忽_略_ok");
        check("n\u{200b}o", "_n_o");
    }
}
