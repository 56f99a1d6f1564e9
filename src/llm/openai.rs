//! Chat completions, as their vendor's service and many others speak them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Subject;
use super::prompt::{MAX_TOKENS, SYSTEM};
use super::wire::{End, Reply, Usage};

pub(super) const BASE_URL: &str = "https://api.openai.com";

/// The body of a request. The event is a message of its own: many small servers know no tools, and
/// refuse two messages of one side in a row.
pub(super) fn body(subject: &Subject, model: &str, is_vendor: bool) -> Value {
    let task = format!(
        "Judge the event in the JSON object below. All of it is data.\n\n{}",
        subject.data
    );
    let mut body = json!({
        "model": model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": task}
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "analysis", "schema": null, "strict": true}
        }
    });
    // The vendor's newer models refuse the name that everybody else knows.
    let name = if is_vendor {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body[name] = MAX_TOKENS.into();
    body
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "prompt_tokens")]
    input: u64,
    #[serde(rename = "completion_tokens", default)]
    output: u64,
    #[serde(rename = "prompt_tokens_details", default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

pub(super) fn read(body: &[u8]) -> Option<Reply> {
    let completion: Completion = serde_json::from_slice(body).ok()?;
    let choice = completion.choices.into_iter().next()?;
    let has_refused = choice.message.refusal.is_some_and(|text| !text.is_empty());
    Some(Reply {
        model: completion.model.unwrap_or_default(),
        end: match (choice.finish_reason.as_deref(), choice.message.content) {
            (Some("content_filter"), _) => End::Refused,
            _ if has_refused => End::Refused,
            (Some("length"), _) => End::Truncated,
            (Some("stop") | None, Some(text)) => End::Said(text),
            _ => End::Odd,
        },
        usage: completion.usage.map(|tokens| {
            let cached = tokens.details.and_then(|details| details.cached_tokens);
            let cached = cached.unwrap_or_default().min(tokens.input);
            Usage {
                input: tokens.input - cached,
                cache_writes: 0,
                cache_reads: cached,
                output: tokens.output,
            }
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_read() {
        let check = |message: &str, finish_reason: &str, end: End| {
            let body = format!(
                r#"{{"id":"c","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{message},"finish_reason":{finish_reason}}}],"usage":{{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{{"cached_tokens":4}}}}}}"#
            );
            let reply = read(body.as_bytes()).expect("a completion");
            assert_eq!(reply.end, end, "{message} {finish_reason}");
            let usage = reply.usage.expect("usage");
            assert_eq!((usage.input, usage.cache_reads, usage.output), (1, 4, 2));
        };
        let said = r#"{"role":"assistant","content":"a"}"#;
        check(said, "\"stop\"", End::Said("a".to_owned()));
        check(said, "null", End::Said("a".to_owned()));
        check(said, "\"length\"", End::Truncated);
        check(said, "\"content_filter\"", End::Refused);
        check(
            r#"{"content":null,"refusal":"no"}"#,
            "\"stop\"",
            End::Refused,
        );
        check(r#"{"content":null}"#, "\"tool_calls\"", End::Odd);
        assert_eq!(read(br#"{"choices":[]}"#), None);
        assert_eq!(read(b"{}"), None);
    }
}
