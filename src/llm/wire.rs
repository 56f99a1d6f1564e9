//! What goes over the wire: requests as a service expects them, its replies and its errors, for each
//! protocol that there is.

use super::prompt::INPUT_TOKENS_MAX;
use super::{MAX_TOKENS, Subject, anthropic, openai, prompt};

/// Whose protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// The Messages API
    Anthropic,
    /// Chat completions, which many servers speak
    Openai,
}

/// A message of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// As the service names it.
    pub model: String,
    pub end: End,
    pub usage: Option<Usage>,
}

/// How a message has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Said(String),
    Refused,
    Truncated,
    /// The model wants something that nobody has offered.
    Odd,
}

/// Tokens that are paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Those of the price list.
    pub input: u64,
    /// Those that were written to a cache, or read from one.
    pub cache_writes: u64,
    pub cache_reads: u64,
    pub output: u64,
}

impl Usage {
    #[must_use]
    pub fn all_input(self) -> u64 {
        self.input
            .saturating_add(self.cache_writes)
            .saturating_add(self.cache_reads)
    }

    /// The same, but no more than an answer to any of our questions can have come to: services may say anything.
    #[must_use]
    pub fn within_limits(self) -> Self {
        Self {
            input: self.input.min(INPUT_TOKENS_MAX),
            cache_writes: self.cache_writes.min(INPUT_TOKENS_MAX),
            cache_reads: self.cache_reads.min(INPUT_TOKENS_MAX),
            output: self.output.min(u64::from(MAX_TOKENS)),
        }
    }
}

/// What an error of a service means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It may go well the next time.
    Passing,
    /// It would be the same for every question: the key, the model's name, an unpaid bill.
    Everybody,
    /// It is about this question.
    ThisOne,
}

impl Provider {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Openai => "openai",
        }
    }

    /// Where the service is if nobody says otherwise.
    #[must_use]
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::Openai => openai::BASE_URL,
        }
    }

    /// What follows the base.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Anthropic => "/v1/messages",
            Self::Openai => "/v1/chat/completions",
        }
    }

    /// Headers of a request; values may be secret.
    #[must_use]
    pub fn headers(self, key: Option<&str>) -> Vec<(&'static str, String)> {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        match self {
            Self::Anthropic => {
                headers.push(("anthropic-version", anthropic::VERSION.to_owned()));
                headers.extend(key.map(|key| ("x-api-key", key.to_owned())));
            }
            Self::Openai => {
                headers.extend(key.map(|key| ("authorization", format!("Bearer {key}"))));
            }
        }
        headers
    }

    /// The body of a request. `is_vendor` tells the vendor's own service from those that are compatible.
    #[must_use]
    pub fn body(self, subject: &Subject, model: &str, is_vendor: bool) -> Vec<u8> {
        let body = match self {
            Self::Anthropic => anthropic::body(subject, model),
            Self::Openai => openai::body(subject, model, is_vendor),
        };
        prompt::with_schema(&body)
    }

    /// Reads a reply; none if it is not one.
    #[must_use]
    pub fn read(self, body: &[u8]) -> Option<Reply> {
        match self {
            Self::Anthropic => anthropic::read(body),
            Self::Openai => openai::read(body),
        }
    }

    /// What a status that is no success means. `should_retry` is what a header says.
    #[must_use]
    pub fn fault(self, status: u16, should_retry: Option<bool>, body: &[u8]) -> Fault {
        let error = error_of(body);
        let is_spent = ["details", "code", "type"].iter().any(|place| {
            let place = &error[*place];
            let code = place["error_code"].as_str().or(place.as_str());
            code.is_some_and(|code| {
                code.ends_with("spend_limit_reached") || code == "insufficient_quota"
            })
        });
        match (status, should_retry) {
            (429, _) if is_spent => Fault::Everybody,
            (_, Some(true)) => Fault::Passing,
            (401..=404, _) => Fault::Everybody,
            (_, Some(false)) => Fault::ThisOne,
            (408 | 409 | 429 | 500.., _) => Fault::Passing,
            // Whoever sends us elsewhere does so with everything, and is not followed.
            (300..=399, _) => Fault::Everybody,
            _ => Fault::ThisOne,
        }
    }
}

/// What a service says of an error, in its own words: anybody's text. Both protocols have it in one place.
#[must_use]
pub fn words_of(body: &[u8]) -> Option<String> {
    let error = error_of(body);
    let words = error["message"].as_str().or(error.as_str())?;
    Some(super::clean::clean(words, 200).into_owned())
}

fn error_of(body: &[u8]) -> serde_json::Value {
    let mut body: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = body.as_mut().and_then(|body| body.get_mut("error"));
    error.map_or(serde_json::Value::Null, serde_json::Value::take)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_no_more_than_there_can_be() {
        let odd = Usage {
            input: u64::MAX,
            cache_writes: u64::MAX,
            cache_reads: 7,
            output: u64::MAX,
        };
        let expected = Usage {
            input: INPUT_TOKENS_MAX,
            cache_writes: INPUT_TOKENS_MAX,
            cache_reads: 7,
            output: u64::from(MAX_TOKENS),
        };
        assert_eq!(odd.within_limits(), expected);
        assert_eq!(expected.within_limits(), expected);
    }

    #[test]
    fn errors_mean_what_the_services_say() {
        let check = |status, should_retry, body: &str, expected| {
            let found = Provider::Anthropic.fault(status, should_retry, body.as_bytes());
            assert_eq!(found, expected, "{status} {should_retry:?} {body}");
        };
        for status in [408, 409, 429, 500, 502, 503, 504, 529] {
            check(status, None, "", Fault::Passing);
            check(status, Some(false), "", Fault::ThisOne);
        }
        for status in [401, 402, 403, 404, 301] {
            check(status, None, "", Fault::Everybody);
        }
        for status in [400, 413, 422] {
            check(status, None, "", Fault::ThisOne);
            check(status, Some(true), "", Fault::Passing);
        }
        let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        check(429, None, spent, Fault::Everybody);
        let spent = r#"{"error":{"code":"insufficient_quota","message":"m"}}"#;
        check(429, None, spent, Fault::Everybody);
        assert_eq!(words_of(spent.as_bytes()).as_deref(), Some("m"));
        assert_eq!(words_of(br#"{"error":"text"}"#).as_deref(), Some("text"));
        assert_eq!(words_of(b"<html>"), None);
        assert_eq!(words_of(b"[1]"), None);
    }
}
