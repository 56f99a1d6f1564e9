//! What is said to a language model by those who have no business with it, as a table: code, words, and
//! how far apart they may stand. Words are written plainly; `fold.rs` knows how else they are written.
//!
//! A phrase has to be about a model, its instructions, or its verdict: `ignore` alone is a command of
//! git, `previous/instructions` a folder, and `severity=low` a search.

mod asian;
mod english;
mod european;
mod slavic;

pub(super) const OVERRIDE: &str = "instruction_override";
pub(super) const MARKER: &str = "role_marker";
pub(super) const ROLE: &str = "role_change";
pub(super) const VERDICT: &str = "verdict_request";
pub(super) const EXFILTRATION: &str = "prompt_exfiltration";
pub(super) const ADDRESS: &str = "model_addressed";

/// A phrase: one word of each slot, in this order, with at most `gap` letters (in bytes) between two.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) code: &'static str,
    pub(super) gap: usize,
    /// Each slot is words with commas between; one that ends in `*` may go on.
    pub(super) slots: &'static [&'static str],
}

const fn rule(code: &'static str, gap: usize, slots: &'static [&'static str]) -> Rule {
    Rule { code, gap, slots }
}

/// All phrases.
pub(super) fn rules() -> impl Iterator<Item = &'static Rule> {
    [english::RULES, european::RULES, slavic::RULES, asian::RULES]
        .into_iter()
        .flatten()
}

/// Words that mean nothing here, and need no blank on either side.
pub(super) const FILLERS: &str = "a, all, an, and, any, as, ever, every, for, from, hereby, i, in, into, is, it, its, just, \
    me, my, now, of, on, please, so, that, the, these, this, those, to, us, with, you, your";

/// What is looked for with its punctuation, in lower case and without blanks. Words that mark who
/// speaks are those of the common templates for chats.
pub(super) const SIGNS: &[(&str, &str)] = &[
    (MARKER, "<|im_start|>"),
    (MARKER, "<|im_end|>"),
    (MARKER, "<|im_sep|>"),
    (MARKER, "<|system|>"),
    (MARKER, "<|user|>"),
    (MARKER, "<|assistant|>"),
    (MARKER, "<|end|>"),
    (MARKER, "<|endoftext|>"),
    (MARKER, "<|endofprompt|>"),
    (MARKER, "<|begin_of_text|>"),
    (MARKER, "<|eot_id|>"),
    (MARKER, "<|start_header_id|>"),
    (MARKER, "<|end_header_id|>"),
    (MARKER, "<|start|>"),
    (MARKER, "<|channel|>"),
    (MARKER, "<|message|>"),
    (MARKER, "<start_of_turn>"),
    (MARKER, "<end_of_turn>"),
    (MARKER, "[inst]"),
    (MARKER, "[/inst]"),
    (MARKER, "[system_prompt]"),
    (MARKER, "[/system_prompt]"),
    (MARKER, "<<sys>>"),
    (MARKER, "<</sys>>"),
    (MARKER, "</s><s>"),
    (MARKER, "<tool_result"),
    (MARKER, "</tool_result"),
    (MARKER, "<tool_call"),
    (MARKER, "</tool_call"),
    (MARKER, "<tool_use"),
    (MARKER, "</tool_use"),
    (MARKER, "<function_result"),
    (MARKER, "</function_result"),
    (MARKER, "<function_call"),
    (MARKER, "</function_call"),
    (MARKER, "<system>"),
    (MARKER, "</system>"),
    (MARKER, "<system_prompt>"),
    (MARKER, "</system_prompt>"),
    (MARKER, "<system-reminder>"),
    (MARKER, "</system-reminder>"),
    (MARKER, "<instructions>"),
    (MARKER, "</instructions>"),
    (MARKER, "<assistant>"),
    (MARKER, "</assistant>"),
    (MARKER, "</user_data>"),
    (MARKER, "</untrusted"),
    (MARKER, "###system:"),
    (MARKER, "###instruction"),
    (MARKER, "###response:"),
    (MARKER, "###assistant:"),
    (MARKER, "###human:"),
    (MARKER, "\nhuman:"),
    (MARKER, "\nassistant:"),
    (MARKER, "{\"role\":\"system\""),
    (MARKER, "{\"role\":\"assistant\""),
    (MARKER, "\"role\":\"system\",\"content\""),
    (MARKER, "\"role\":\"assistant\",\"content\""),
    (VERDICT, "\"verdict\":\"benign"),
    (VERDICT, "\"severity\":\"low\",\"confidence\""),
    (VERDICT, "\"severity\":\"info\",\"confidence\""),
    (VERDICT, "\"severity\":\"none\",\"confidence\""),
];
