//! The Messages API, version 2023-06-01.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Subject;
use super::prompt::{MAX_TOKENS, SYSTEM, TASK, TOOL};
use super::wire::{End, Reply, Usage};

pub(super) const VERSION: &str = "2023-06-01";

/// Names the call of the tool that has never been one.
const TOOL_USE_ID: &str = "toolu_event";

/// The body of a request: the instructions, which are cached, and the event as what a tool has returned.
/// No temperature and the like, which models refuse, and no beginning of an answer.
pub(super) fn body(subject: &Subject, model: &str) -> Value {
    let returned = [json!({"type": "text", "text": subject.data})];
    json!({
        "model": model,
        "max_tokens": MAX_TOKENS,
        "system": [{
            "type": "text",
            "text": SYSTEM,
            "cache_control": {"type": "ephemeral", "ttl": "5m"}
        }],
        "tools": [{
            "name": TOOL,
            "description": "Returns the event that is to be judged, as data.",
            "input_schema": {"type": "object", "properties": {}, "additionalProperties": false}
        }],
        "tool_choice": {"type": "none"},
        "messages": [
            {"role": "user", "content": TASK},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": TOOL_USE_ID, "name": TOOL, "input": {}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": TOOL_USE_ID, "content": returned}
            ]}
        ],
        "output_config": {"format": {"type": "json_schema", "schema": null}}
    })
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    model: String,
    content: Vec<Part>,
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "input_tokens")]
    input: u64,
    #[serde(rename = "output_tokens")]
    output: u64,
    #[serde(rename = "cache_creation_input_tokens", default)]
    cache_writes: Option<u64>,
    #[serde(rename = "cache_read_input_tokens", default)]
    cache_reads: Option<u64>,
}

pub(super) fn read(body: &[u8]) -> Option<Reply> {
    let message: Message = serde_json::from_slice(body).ok()?;
    if message.kind != "message" {
        return None;
    }
    // What the model has thought before comes in parts of another kind.
    let texts = message.content.into_iter();
    let texts = texts.filter(|part| part.kind == "text");
    let text: String = texts.filter_map(|part| part.text).collect();
    Some(Reply {
        model: message.model,
        end: match message.stop_reason.as_deref() {
            Some("end_turn" | "stop_sequence") => End::Said(text),
            Some("refusal") => End::Refused,
            Some("max_tokens" | "model_context_window_exceeded") => End::Truncated,
            _ => End::Odd,
        },
        usage: message.usage.map(|tokens| Usage {
            input: tokens.input,
            cache_writes: tokens.cache_writes.unwrap_or_default(),
            cache_reads: tokens.cache_reads.unwrap_or_default(),
            output: tokens.output,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let check = |stop_reason: &str, end: End| {
            let body = format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"thinking","thinking":"hm","signature":"s"}},{{"type":"text","text":"a"}},{{"type":"text","text":"b"}}],"stop_reason":"{stop_reason}","usage":{{"input_tokens":1,"output_tokens":2,"cache_creation_input_tokens":null,"cache_read_input_tokens":4}}}}"#
            );
            let usage = Usage {
                input: 1,
                cache_writes: 0,
                cache_reads: 4,
                output: 2,
            };
            let expected = Reply {
                model: "m".to_owned(),
                end,
                usage: Some(usage),
            };
            assert_eq!(read(body.as_bytes()), Some(expected), "{stop_reason}");
        };
        check("end_turn", End::Said("ab".to_owned()));
        check("refusal", End::Refused);
        check("max_tokens", End::Truncated);
        check("model_context_window_exceeded", End::Truncated);
        check("tool_use", End::Odd);
        check("pause_turn", End::Odd);
        assert_eq!(read(br#"{"type":"error","error":{}}"#), None);
        assert_eq!(read(b"<html>"), None);
    }
}
