//! What the services refuse: by the types of the vendor's own SDK, and what its models are known not to
//! take.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Asked, KEY};

pub(super) const MESSAGES: &str = "/v1/messages";
pub(super) const BATCHES: &str = "/v1/messages/batches";
pub(super) const COMPLETIONS: &str = "/v1/chat/completions";

pub(super) enum Route {
    Messages,
    Completions,
    Batches,
}

type Checked<T> = Result<T, (u16, String)>;

fn refuse<T>(why: impl Into<String>) -> Checked<T> {
    Err((400, why.into()))
}

fn ensure(is_so: bool, why: &str) -> Checked<()> {
    if is_so { Ok(()) } else { refuse(why) }
}

/// Where a request goes, if it is one.
pub(super) fn check(asked: &Asked) -> Checked<Route> {
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    if asked.method == "POST" {
        ensure(
            header("content-type") == Some("application/json"),
            "content-type",
        )?;
        ensure(asked.body.is_object(), "the body is not a JSON object")?;
    }
    if asked.path == COMPLETIONS {
        ensure(asked.method == "POST", "method")?;
        let authorization = format!("Bearer {KEY}");
        if header("authorization").is_some_and(|given| given != authorization) {
            return Err((401, "authorization".to_owned()));
        }
        return completion(&asked.body).map(|()| Route::Completions);
    }
    if !asked.path.starts_with(MESSAGES) {
        return Err((404, format!("no such path: {}", asked.path)));
    }
    if header("x-api-key") != Some(KEY) {
        return Err((401, "x-api-key".to_owned()));
    }
    ensure(
        header("anthropic-version") == Some("2023-06-01"),
        "anthropic-version",
    )?;
    if asked.path == MESSAGES {
        ensure(asked.method == "POST", "method")?;
        return message(&asked.body).map(|()| Route::Messages);
    }
    if asked.path == BATCHES && asked.method == "POST" {
        let requests = asked.body["requests"].as_array();
        let requests = requests.filter(|requests| !requests.is_empty());
        let Some(requests) = requests else {
            return refuse("requests");
        };
        let mut ids = BTreeSet::new();
        for request in requests {
            let id = request["custom_id"].as_str().unwrap_or_default();
            ensure(is_word(id, 64), "custom_id")?;
            ensure(ids.insert(id.to_owned()), "custom_id stands twice")?;
            message(&request["params"])?;
        }
        return Ok(Route::Batches);
    }
    if asked.path.starts_with(BATCHES) && asked.method == "GET" {
        ensure(asked.text.is_empty(), "a body")?;
        return Ok(Route::Batches);
    }
    Err((
        404,
        format!("no such path: {} {}", asked.method, asked.path),
    ))
}

fn is_word(text: &str, chars_max: usize) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=chars_max).contains(&text.len()) && text.chars().all(is_plain)
}

fn keys(value: &Value, allowed: &[&str], required: &[&str]) -> Checked<()> {
    let Some(object) = value.as_object() else {
        return refuse(format!("not an object: {value}"));
    };
    for key in object.keys() {
        if !allowed.contains(&key.as_str()) {
            return refuse(format!("{key}: extra inputs are not permitted"));
        }
    }
    for key in required {
        if !object.contains_key(*key) {
            return refuse(format!("{key}: field required"));
        }
    }
    Ok(())
}

fn message(body: &Value) -> Checked<()> {
    // Neither temperature, top_p nor top_k: current models refuse them.
    let allowed = [
        "model",
        "max_tokens",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "output_config",
        "thinking",
        "metadata",
        "stop_sequences",
        "service_tier",
    ];
    keys(body, &allowed, &["model", "max_tokens", "messages"])?;
    ensure(
        body["model"]
            .as_str()
            .is_some_and(|model| !model.is_empty()),
        "model",
    )?;
    ensure(
        body["max_tokens"].as_u64().is_some_and(|n| n >= 1),
        "max_tokens",
    )?;
    for block in body["system"].as_array().unwrap_or(&Vec::new()) {
        keys(block, &["type", "text", "cache_control"], &["type", "text"])?;
        ensure(block["type"] == "text", "system")?;
        if let Some(control) = block.get("cache_control") {
            keys(control, &["type", "ttl"], &["type"])?;
            ensure(control["type"] == "ephemeral", "cache_control")?;
            let ttl = control.get("ttl").and_then(Value::as_str);
            ensure(matches!(ttl, None | Some("5m" | "1h")), "ttl")?;
        }
    }
    let mut tools = BTreeSet::new();
    for tool in body["tools"].as_array().unwrap_or(&Vec::new()) {
        keys(
            tool,
            &["name", "description", "input_schema"],
            &["name", "input_schema"],
        )?;
        let name = tool["name"].as_str().unwrap_or_default();
        ensure(is_word(name, 128), "tools.name")?;
        ensure(
            tool["input_schema"]["type"] == "object",
            "tools.input_schema",
        )?;
        tools.insert(name.to_owned());
    }
    if let Some(choice) = body.get("tool_choice") {
        keys(choice, &["type"], &["type"])?;
        ensure(!tools.is_empty() && choice["type"] == "none", "tool_choice")?;
    }
    turns(&body["messages"], &tools)?;
    keys(&body["output_config"], &["format", "effort"], &["format"])?;
    let format = &body["output_config"]["format"];
    keys(format, &["type", "schema"], &["type", "schema"])?;
    ensure(format["type"] == "json_schema", "output_config.format.type")?;
    schema(&format["schema"])
}

fn turns(messages: &Value, tools: &BTreeSet<String>) -> Checked<()> {
    let Some(messages) = messages.as_array().filter(|messages| !messages.is_empty()) else {
        return refuse("messages");
    };
    let mut called: BTreeSet<String> = BTreeSet::new();
    for (i, turn) in messages.iter().enumerate() {
        keys(turn, &["role", "content"], &["role", "content"])?;
        let role = if i % 2 == 0 { "user" } else { "assistant" };
        ensure(turn["role"] == role, "roles do not take turns")?;
        if turn["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            ensure(called.is_empty(), "tool_use without tool_result")?;
            continue;
        }
        let Some(blocks) = turn["content"]
            .as_array()
            .filter(|blocks| !blocks.is_empty())
        else {
            return refuse("content");
        };
        let mut answered = BTreeSet::new();
        let mut calls = BTreeSet::new();
        for block in blocks {
            match block["type"].as_str().unwrap_or_default() {
                "text" => keys(block, &["type", "text", "cache_control"], &["text"])?,
                "tool_use" => {
                    keys(
                        block,
                        &["type", "id", "name", "input"],
                        &["id", "name", "input"],
                    )?;
                    ensure(role == "assistant", "tool_use of a user")?;
                    let name = block["name"].as_str().unwrap_or_default();
                    ensure(
                        tools.contains(name),
                        "tool_use of a tool that is not defined",
                    )?;
                    let id = block["id"].as_str().unwrap_or_default();
                    ensure(is_word(id, 64), "tool_use.id")?;
                    calls.insert(id.to_owned());
                }
                "tool_result" => {
                    let required = ["tool_use_id", "content"];
                    keys(
                        block,
                        &["type", "tool_use_id", "content", "is_error"],
                        &required,
                    )?;
                    ensure(role == "user", "tool_result of an assistant")?;
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    ensure(called.contains(id), "tool_result without tool_use")?;
                    answered.insert(id.to_owned());
                    for part in block["content"].as_array().unwrap_or(&Vec::new()) {
                        keys(part, &["type", "text"], &["type", "text"])?;
                        ensure(part["type"] == "text", "tool_result.content")?;
                    }
                }
                other => return refuse(format!("a block of type {other}")),
            }
        }
        ensure(answered == called, "tool_use without tool_result")?;
        called = calls;
    }
    // What a model's turn begins with cannot be put into its mouth.
    ensure(
        messages.len() % 2 == 1,
        "the last turn is the assistant's: prefill is not supported",
    )
}

/// A schema as structured output takes it.
fn schema(value: &Value) -> Checked<()> {
    let allowed = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "description",
    ];
    // Neither minimum nor pattern and the like.
    keys(value, &allowed, &["type"])?;
    match value["type"].as_str().unwrap_or_default() {
        "object" => {
            ensure(
                value["additionalProperties"] == false,
                "additionalProperties",
            )?;
            let Some(properties) = value["properties"].as_object() else {
                return refuse("properties");
            };
            let required = value["required"].as_array();
            let required: BTreeSet<_> = required
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let all: BTreeSet<_> = properties.keys().map(String::as_str).collect();
            ensure(required == all, "not every property is required")?;
            properties.values().try_for_each(schema)
        }
        "array" => schema(&value["items"]),
        "string" | "number" | "integer" | "boolean" => Ok(()),
        other => refuse(format!("a schema of type {other}")),
    }
}

fn completion(body: &Value) -> Checked<()> {
    let allowed = [
        "model",
        "messages",
        "response_format",
        "max_tokens",
        "max_completion_tokens",
        "stream",
        "seed",
        "stop",
        "user",
    ];
    keys(body, &allowed, &["model", "messages", "response_format"])?;
    ensure(
        body["model"]
            .as_str()
            .is_some_and(|model| !model.is_empty()),
        "model",
    )?;
    let limits = ["max_tokens", "max_completion_tokens"];
    let limits = limits
        .iter()
        .filter(|name| body[**name].as_u64().is_some_and(|n| n >= 1));
    ensure(limits.count() == 1, "max_tokens")?;
    let Some(messages) = body["messages"]
        .as_array()
        .filter(|messages| !messages.is_empty())
    else {
        return refuse("messages");
    };
    for (i, turn) in messages.iter().enumerate() {
        keys(turn, &["role", "content"], &["role", "content"])?;
        // Templates of small models take no other order.
        let role = match i {
            0 => "system",
            _ if i % 2 == 1 => "user",
            _ => "assistant",
        };
        ensure(turn["role"] == role, "roles do not take turns")?;
        ensure(turn["content"].is_string(), "content")?;
    }
    ensure(messages.len() % 2 == 0, "the last turn is not the user's")?;
    let format = &body["response_format"];
    keys(format, &["type", "json_schema"], &["type", "json_schema"])?;
    ensure(format["type"] == "json_schema", "response_format.type")?;
    let required = ["name", "schema", "strict"];
    keys(
        &format["json_schema"],
        &["name", "schema", "strict", "description"],
        &required,
    )?;
    ensure(
        is_word(
            format["json_schema"]["name"].as_str().unwrap_or_default(),
            64,
        ),
        "name",
    )?;
    ensure(format["json_schema"]["strict"] == true, "strict")?;
    schema(&format["json_schema"]["schema"])
}
