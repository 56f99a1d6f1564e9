//! Finds the phrases of `phrases.rs` in a folded text, in one pass over it: which words there are,
//! which of them are whole words, and which follow each other closely enough to be a phrase.

use std::collections::HashMap;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::fold::{Edge, Folded, fold};
use super::phrases::{self, FILLERS, SIGNS};

/// Random text is full of words of this length: `a41` is `aai`.
const SHORT_LETTERS_MAX: usize = 4;

/// How many words of a slot are kept in mind.
const ENDS_MAX: usize = 4;

/// A word that was found, by its place in the letters.
#[derive(Clone, Copy)]
struct Hit {
    word: u32,
    start: u32,
    end: u32,
}

struct Matcher {
    words: AhoCorasick,
    /// For each word, the slots that ask for it; later ones first, so that one word does not stand in two
    /// slots of a rule.
    uses: Vec<Vec<Use>>,
    /// Whether more letters may follow: the table has `instruct*`.
    stems: Vec<bool>,
    /// Whether a word may stand beside another without a blank: `allow` is not `AI` and `low`.
    joins: Vec<bool>,
    n_slots: usize,
    signs: AhoCorasick,
}

#[derive(Clone, Copy)]
struct Use {
    code: &'static str,
    gap: usize,
    /// Slots are numbered through all rules.
    slot: usize,
    is_first: bool,
    is_last: bool,
}

static MATCHER: LazyLock<Matcher> = LazyLock::new(Matcher::build);

/// The code of the first phrase that is complete.
pub(super) fn first(folded: &Folded) -> Option<&'static str> {
    let matcher = &*MATCHER;
    if let Some(found) = matcher.signs.find(&folded.signs) {
        return Some(SIGNS[found.pattern().as_usize()].0);
    }
    // Where the latest words of each slot end, if all slots before it are filled. More than one, since
    // the latest may overlap the word that is to follow: `be` in `as benign`.
    let mut ends: Vec<[Option<u32>; ENDS_MAX]> = vec![[None; ENDS_MAX]; matcher.n_slots];
    for hit in matcher.whole_words(folded) {
        for one in &matcher.uses[hit.word as usize] {
            let is_near = |end: &u32| hit.start >= *end && (hit.start - end) as usize <= one.gap;
            let follows = one.is_first || ends[one.slot - 1].iter().flatten().any(is_near);
            if !follows {
                continue;
            }
            if one.is_last {
                return Some(one.code);
            }
            ends[one.slot].rotate_right(1);
            ends[one.slot][0] = Some(hit.end);
        }
    }
    None
}

impl Matcher {
    fn build() -> Self {
        let mut words: Vec<String> = Vec::new();
        let mut stems: Vec<bool> = Vec::new();
        let mut uses: Vec<Vec<Use>> = Vec::new();
        let mut indexes = HashMap::new();
        let mut index = |word: &str, uses: &mut Vec<Vec<Use>>| {
            let is_stem = word.ends_with('*');
            let letters = fold(word.trim_end_matches('*')).letters;
            *indexes
                .entry((letters.clone(), is_stem))
                .or_insert_with(|| {
                    words.push(letters);
                    stems.push(is_stem);
                    uses.push(Vec::new());
                    words.len() - 1
                })
        };
        let mut n_slots = 0;
        for rule in phrases::rules() {
            for (number, choices) in rule.slots.iter().enumerate().rev() {
                for word in choices {
                    let word = index(word, &mut uses);
                    let slot = n_slots + number;
                    // Two spellings of the table may fold to one.
                    if uses[word].last().is_none_or(|last| last.slot != slot) {
                        uses[word].push(Use {
                            code: rule.code,
                            gap: rule.gap,
                            slot,
                            is_first: number == 0,
                            is_last: number + 1 == rule.slots.len(),
                        });
                    }
                }
            }
            n_slots += rule.slots.len();
        }
        let fillers: Vec<usize> = FILLERS
            .split(',')
            .map(|filler| index(filler, &mut uses))
            .collect();
        let mut joins: Vec<bool> = words.iter().map(|word| word.len() > 2).collect();
        for filler in fillers {
            joins[filler] = true;
        }
        let signs: Vec<&str> = SIGNS.iter().map(|(_, sign)| *sign).collect();
        Self {
            words: automaton(&words),
            uses,
            stems,
            joins,
            n_slots,
            signs: automaton(&signs),
        }
    }

    /// The words that begin and end where words do, or where other known words do: no blanks are
    /// needed in `ignoreallpreviousinstructions`, and `signore` does not ignore.
    fn whole_words(&self, folded: &Folded) -> Vec<Hit> {
        let mut begins = vec![false; folded.edges.len()];
        let mut hits: Vec<Hit> = Vec::new();
        // They come in order of their ends, so whatever ends where a word starts is known by then.
        for found in self.words.find_overlapping_iter(&folded.letters) {
            let edge = edge_of_word(found.len());
            let joins = self.joins[found.pattern().as_usize()];
            if folded.edges[found.start()] >= edge || joins && begins[found.start()] {
                begins[found.end()] |= joins;
                hits.push(Hit {
                    word: found.pattern().as_u32(),
                    start: found.start() as u32,
                    end: found.end() as u32,
                });
            }
        }
        let mut ends = vec![false; folded.edges.len()];
        hits.reverse();
        hits.retain(|hit| {
            let end = hit.end as usize;
            let edge = edge_of_word((hit.end - hit.start) as usize);
            let joins = self.joins[hit.word as usize];
            let is_whole =
                folded.edges[end] >= edge || joins && ends[end] || self.stems[hit.word as usize];
            ends[hit.start as usize] |= is_whole && joins;
            is_whole
        });
        hits.reverse();
        hits
    }
}

/// What has to stand on either side of a word.
fn edge_of_word(n_letters: usize) -> Edge {
    if n_letters <= SHORT_LETTERS_MAX {
        Edge::Gap
    } else {
        Edge::Change
    }
}

fn automaton(patterns: &[impl AsRef<[u8]>]) -> AhoCorasick {
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .build(patterns)
        .expect("the phrases are few and short")
}
