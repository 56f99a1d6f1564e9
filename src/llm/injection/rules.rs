//! Finds the phrases of `phrases.rs` in a folded text, in one pass over it: which words there are,
//! which of them are whole words, and which follow each other closely enough to be a phrase.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::fold::{Folded, fold};
use super::phrases::{FILLERS, RULES, SIGNS};

/// A phrase: one word of each slot, in this order.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) code: &'static str,
    pub(super) slots: &'static [&'static [&'static str]],
    /// Letters that may stand between two words, in bytes.
    pub(super) gap: usize,
}

/// A word that was found, by its place in the letters.
#[derive(Clone, Copy)]
struct Hit {
    word: usize,
    start: usize,
    end: usize,
}

struct Matcher {
    words: AhoCorasick,
    /// For each word, the rules and slots that ask for it; later slots first, so that one word does not
    /// stand in two slots of a rule.
    uses: Vec<Vec<(usize, usize)>>,
    signs: AhoCorasick,
}

static MATCHER: LazyLock<Matcher> = LazyLock::new(Matcher::build);

/// The code of the first phrase that is complete.
pub(super) fn first(folded: &Folded) -> Option<&'static str> {
    let matcher = &*MATCHER;
    if let Some(found) = matcher.signs.find(&folded.signs) {
        return Some(SIGNS[found.pattern().as_usize()].0);
    }
    let hits = matcher.whole_words(folded);
    // Where each rule's phrase stands: the end of the latest word of each slot.
    let mut ends: Vec<Vec<Option<usize>>> = RULES
        .iter()
        .map(|rule| vec![None; rule.slots.len()])
        .collect();
    for hit in hits {
        for &(rule, slot) in &matcher.uses[hit.word] {
            let follows = slot == 0
                || ends[rule][slot - 1]
                    .is_some_and(|end| hit.start >= end && hit.start - end <= RULES[rule].gap);
            if follows {
                ends[rule][slot] = Some(hit.end);
                if slot + 1 == RULES[rule].slots.len() {
                    return Some(RULES[rule].code);
                }
            }
        }
    }
    None
}

impl Matcher {
    fn build() -> Self {
        let mut words: Vec<String> = Vec::new();
        let mut uses: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut indexes = std::collections::HashMap::new();
        let mut index = |word: &str| {
            let word = fold(word).letters;
            *indexes.entry(word.clone()).or_insert_with(|| {
                words.push(word);
                uses.push(Vec::new());
                words.len() - 1
            })
        };
        let mut asked = Vec::new();
        for (number, rule) in RULES.iter().enumerate() {
            for (slot, choices) in rule.slots.iter().enumerate().rev() {
                asked.extend(choices.iter().map(|word| (index(word), number, slot)));
            }
        }
        for filler in FILLERS {
            index(filler);
        }
        for (word, rule, slot) in asked {
            if !uses[word].contains(&(rule, slot)) {
                uses[word].push((rule, slot));
            }
        }
        let automaton = |patterns: &[String]| {
            AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .build(patterns)
                .expect("the phrases are few and short")
        };
        let signs: Vec<String> = SIGNS.iter().map(|(_, sign)| (*sign).to_owned()).collect();
        Self {
            words: automaton(&words),
            uses,
            signs: automaton(&signs),
        }
    }

    /// The words that begin and end where words do, or where other known words do: nobody's blanks are
    /// needed in `ignoreallpreviousinstructions`, and `signore` does not ignore.
    fn whole_words(&self, folded: &Folded) -> Vec<Hit> {
        let mut begins = folded.edges.clone();
        let mut hits: Vec<Hit> = Vec::new();
        // They come in order of their ends, so whatever ends where a word starts is known by then.
        for found in self.words.find_overlapping_iter(&folded.letters) {
            if begins[found.start()] {
                begins[found.end()] = true;
                hits.push(Hit {
                    word: found.pattern().as_usize(),
                    start: found.start(),
                    end: found.end(),
                });
            }
        }
        let mut ends = folded.edges.clone();
        for hit in hits.iter().rev() {
            if ends[hit.end] {
                ends[hit.start] = true;
            }
        }
        hits.retain(|hit| ends[hit.end]);
        hits
    }
}
