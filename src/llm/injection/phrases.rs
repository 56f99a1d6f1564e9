//! What is said to a language model by those who have no business with it. A table: code, words, and
//! how far apart they may stand. Words are written plainly; `fold.rs` knows how else they are written.

use super::rules::Rule;

const IGNORE: &[&str] = &["ignore", "disregard", "forget"];
const PREVIOUS: &[&str] = &["previous", "prior", "above"];
const INSTRUCTIONS: &[&str] = &["instructions", "instruction", "rules"];

/// Words that need no blank on either side, and mean nothing here.
pub(super) const FILLERS: &[&str] = &["all", "any", "the", "my", "your"];

/// What is looked for in the letters.
pub(super) const RULES: &[Rule] = &[Rule {
    code: "instruction_override",
    slots: &[IGNORE, PREVIOUS, INSTRUCTIONS],
    gap: 24,
}];

/// What is looked for with its punctuation, in lower case and without blanks.
pub(super) const SIGNS: &[(&str, &str)] = &[
    ("role_marker", "<|im_start|>"),
    ("role_marker", "</tool_result>"),
];
