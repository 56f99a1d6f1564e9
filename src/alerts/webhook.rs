//! Alerts to a URL, signed by the Standard Webhooks specification: whoever has the secret can tell that
//! a message is ours, that nobody has changed it, and whether it has come before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Alert, Failure, Named, Target, key_of};
use crate::io::http::{Client, Url};
use crate::record::text::push_json_string;
use crate::time::{format_time_ms, now_ms};

/// What names of webhooks begin with.
pub(super) const PREFIX: &str = "webhook:";

/// How long a request may take, from the look-up of the name to the end of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The same close to the end of a run.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// What secrets begin with.
const SECRET_PREFIX: &str = "whsec_";
/// How long a secret may be: the specification's limits.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What messages are signed with. While a secret is replaced there are two, and each signs.
#[derive(Clone)]
pub struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Reads secrets, one a line.
    ///
    /// # Errors
    /// If there is none, or one is not a secret. The words do not repeat it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: anyhow::Result<Vec<_>> = lines.map(parse_secret).collect();
        let secrets = secrets?;
        ensure!(!secrets.is_empty(), "there is no secret in it");
        Ok(Self(secrets))
    }

    /// The value of the header with the signatures.
    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let sign = |secret: &Vec<u8>| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret).expect("a key may be of any length");
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
            format!("v1,{signature}")
        };
        let signatures: Vec<_> = self.0.iter().map(sign).collect();
        signatures.join(" ")
    }
}

fn parse_secret(line: &str) -> anyhow::Result<Vec<u8>> {
    let base64 = line.strip_prefix(SECRET_PREFIX);
    let base64 = base64.with_context(|| format!("a secret begins with {SECRET_PREFIX}"))?;
    let secret = BASE64_STANDARD.decode(base64).ok();
    let secret = secret.with_context(|| format!("what follows {SECRET_PREFIX} is not base64"))?;
    let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    ensure!(
        SECRET_BYTES.contains(&secret.len()),
        "a secret has {min} to {max} bytes, this one {}",
        secret.len()
    );
    Ok(secret)
}

/// Posts to a URL.
pub struct WebhookTarget {
    url: Url,
    secrets: Secrets,
    client: Client,
    body: Vec<u8>,
}

impl WebhookTarget {
    /// For a URL, which is not asked yet.
    ///
    /// # Errors
    /// If there can be no requests.
    pub fn open(url: Url, secrets: Secrets) -> anyhow::Result<Named> {
        let shown = format!("{PREFIX}{url}");
        Ok(Named {
            key: key_of(&shown, url.secret_text()),
            shown,
            kind: "webhook",
            target: Box::new(Self {
                url,
                secrets,
                client: Client::new()?,
                body: Vec::new(),
            }),
        })
    }

    fn write_body(&mut self, alert: &Alert) {
        let body = &mut self.body;
        body.clear();
        body.extend_from_slice(b"{\"type\":\"anomaly\",\"timestamp\":");
        push_json_string(body, &format_time_ms(alert.timestamp_ms));
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(&alert.line);
        body.push(b'}');
    }
}

impl Target for WebhookTarget {
    fn batch_max(&self) -> usize {
        1
    }

    fn send(&mut self, alert: &Alert, deadline: Option<Instant>) -> Result<(), Failure> {
        self.write_body(alert);
        let timestamp = (now_ms() / 1_000).to_string();
        let signature = self.secrets.sign(&alert.id, &timestamp, &self.body);
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", &alert.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(REQUEST_TIMEOUT, |left| {
            left.clamp(REQUEST_TIMEOUT_MIN, REQUEST_TIMEOUT)
        });
        let answer = self.client.post(&self.url, &headers, &self.body, timeout);
        let answer = answer.map_err(|why| Failure::Trouble {
            why,
            retry_after: None,
        })?;
        let why = format!("answered {}", answer.status);
        match answer.status {
            200..=299 => Ok(()),
            // Bad request, content too large, unsupported media type, unprocessable content.
            400 | 413 | 415 | 422 => Err(Failure::Refused { why }),
            300..=399 => Err(Failure::Trouble {
                why: why + ", and redirects are not followed",
                retry_after: answer.retry_after,
            }),
            _ => Err(Failure::Trouble {
                why,
                retry_after: answer.retry_after,
            }),
        }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        for text in ["", "secret", "whsec_", "whsec_?", "whsec_c2hvcnQ="] {
            assert!(Secrets::parse(text).is_err(), "{text}");
        }
    }
}
