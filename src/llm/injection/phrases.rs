//! What is said to a language model by those who have no business with it: tables beside this file, in
//! plain words. How else they may be written, `fold.rs` knows; how they are found, `rules.rs`.
//!
//! A phrase has to be about a model, its instructions or its verdict: `ignore` alone is a command of
//! git, `previous/instructions` a folder, and `severity=low` a search.
//!
//! A line of a table is `code gap: words | words`: one word of each slot, in this order, with at most
//! `gap` letters (in bytes) between two. A word that ends in `*` may go on; `$NAME` stands for a list that
//! was named before. A line that begins with a blank goes on with the one before it; one
//! that begins with `#` says something about the table.

use std::collections::HashMap;

const TABLES: [&str; 4] = [
    include_str!("phrases/english.txt"),
    include_str!("phrases/european.txt"),
    include_str!("phrases/slavic.txt"),
    include_str!("phrases/asian.txt"),
];

/// A phrase.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) code: &'static str,
    pub(super) gap: usize,
    pub(super) slots: Vec<Vec<&'static str>>,
}

/// All phrases.
pub(super) fn rules() -> Vec<Rule> {
    TABLES.into_iter().flat_map(read).collect()
}

/// Reads a table. Words come with the blanks and line ends around and in them.
fn read(table: &'static str) -> Vec<Rule> {
    let mut lists: HashMap<&str, &'static str> = HashMap::new();
    let mut rules = Vec::new();
    for line in lines(table) {
        if let Some((name, words)) = line.split_once(" = ") {
            lists.insert(name, words);
            continue;
        }
        let (code, slots) = line.split_once(": ").expect("a phrase has a code");
        let (code, gap) = code.split_once(' ').expect("a phrase has a gap");
        let words = |slot: &'static str| {
            let list = slot.starts_with('$').then(|| lists[slot]);
            list.unwrap_or(slot).split(',').collect()
        };
        rules.push(Rule {
            code,
            gap: gap.parse().expect("a gap is a number"),
            slots: slots.split('|').map(str::trim).map(words).collect(),
        });
    }
    rules
}

/// The lines of a table, each with those that go on with it.
fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    let starts: Vec<usize> = table
        .split_inclusive('\n')
        .scan(0, |next, line| {
            let start = *next;
            *next += line.len();
            Some((start, line))
        })
        .filter(|(_, line)| !line.starts_with([' ', '\n']))
        .map(|(start, _)| start)
        .collect();
    let ends = starts.clone().into_iter().skip(1).chain([table.len()]);
    starts
        .into_iter()
        .zip(ends)
        .map(|(start, end)| table[start..end].trim_end())
        .filter(|line| !line.starts_with('#'))
}

/// Words that mean nothing here, and need no blank on either side.
pub(super) const FILLERS: &str = "all, an, and, any, as, as a, ever, every, for, from, hereby, in, \
    into, is, is a, it, its, just, me, my, now, of, on, please, so, that, the, these, this, those, \
    to, us, with, you, your";

/// What is looked for with its punctuation, in lower case and without blanks. Words that mark who
/// speaks are those of the common templates for chats.
pub(super) const SIGNS: &[(&str, &str)] = &[
    ("role_marker", "<|im_start|>"),
    ("role_marker", "<|im_end|>"),
    ("role_marker", "<|im_sep|>"),
    ("role_marker", "<|system|>"),
    ("role_marker", "<|user|>"),
    ("role_marker", "<|assistant|>"),
    ("role_marker", "<|end|>"),
    ("role_marker", "<|endoftext|>"),
    ("role_marker", "<|endofprompt|>"),
    ("role_marker", "<|begin_of_text|>"),
    ("role_marker", "<|eot_id|>"),
    ("role_marker", "<|start_header_id|>"),
    ("role_marker", "<|end_header_id|>"),
    ("role_marker", "<|start|>"),
    ("role_marker", "<|channel|>"),
    ("role_marker", "<|message|>"),
    ("role_marker", "<start_of_turn>"),
    ("role_marker", "<end_of_turn>"),
    ("role_marker", "[inst]"),
    ("role_marker", "[/inst]"),
    ("role_marker", "[system_prompt]"),
    ("role_marker", "[/system_prompt]"),
    ("role_marker", "<<sys>>"),
    ("role_marker", "<</sys>>"),
    ("role_marker", "</s><s>"),
    ("role_marker", "<tool_result"),
    ("role_marker", "</tool_result"),
    ("role_marker", "<tool_call"),
    ("role_marker", "</tool_call"),
    ("role_marker", "<tool_use"),
    ("role_marker", "</tool_use"),
    ("role_marker", "<function_result"),
    ("role_marker", "</function_result"),
    ("role_marker", "<function_call"),
    ("role_marker", "</function_call"),
    ("role_marker", "<system>"),
    ("role_marker", "</system>"),
    ("role_marker", "<system_prompt>"),
    ("role_marker", "</system_prompt>"),
    ("role_marker", "<system-reminder>"),
    ("role_marker", "</system-reminder>"),
    ("role_marker", "<instructions>"),
    ("role_marker", "</instructions>"),
    ("role_marker", "<assistant>"),
    ("role_marker", "</assistant>"),
    ("role_marker", "</user_data>"),
    ("role_marker", "</untrusted"),
    ("role_marker", "###system:"),
    ("role_marker", "###instruction"),
    ("role_marker", "###response:"),
    ("role_marker", "###assistant:"),
    ("role_marker", "###human:"),
    ("role_marker", "\nhuman:"),
    ("role_marker", "\nassistant:"),
    ("role_marker", "{\"role\":\"system\""),
    ("role_marker", "{\"role\":\"assistant\""),
    ("role_marker", "\"role\":\"system\",\"content\""),
    ("role_marker", "\"role\":\"assistant\",\"content\""),
    ("verdict_request", "\"verdict\":\"benign"),
    ("verdict_request", "\"severity\":\"low\",\"confidence\""),
    ("verdict_request", "\"severity\":\"info\",\"confidence\""),
    ("verdict_request", "\"severity\":\"none\",\"confidence\""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::injection::fold::fold;

    #[test]
    fn the_tables_can_be_read() {
        let codes = [
            "instruction_override",
            "model_addressed",
            "prompt_exfiltration",
            "role_change",
            "role_marker",
            "verdict_request",
        ];
        let rules = rules();
        assert!(rules.len() > 100);
        for rule in &rules {
            assert!(codes.contains(&rule.code), "{rule:?}");
            for word in rule.slots.iter().flatten() {
                // A word without letters would be found everywhere.
                let letters = fold(word.trim_end_matches('*')).letters;
                assert!(!letters.is_empty(), "{rule:?}");
            }
        }
        assert!(SIGNS.iter().all(|(code, _)| codes.contains(code)));
    }
}
