//! Questions that are asked together, at half the price and within a day: the Message Batches of the
//! Messages API. What was submitted is kept in a file, since another run collects the answers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::service::Service;
use super::{Analysis, Analyst, Answered, UNAVAILABLE, call};
use crate::io::append::{append_whole, json_line, make_room};
use crate::io::http::{Answer, NoAnswer};
use crate::llm::reply::Verdict;
use crate::llm::{MAX_TOKENS, Subject};
use crate::record::analysis::Outcome;
use crate::time::{now_ms, uptime_ms};

const PATH: &str = "/v1/messages/batches";
/// How long it may take to send a batch, and to read its answers.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);
const READ_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Requests, and bytes of them, that go into one batch: well below the service's limits.
const REQUESTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;
/// Bytes of all answers of a batch, and of one.
const ANSWERS_BYTES_MAX: u64 = 4 << 30;
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What is asked in a batch costs half.
const PRICE_DIVISOR: u64 = 2;
/// Longest id of a batch, which becomes part of a path.
const ID_BYTES_MAX: usize = 200;

/// A batch that was submitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Submitted {
    pub id: String,
    pub fingerprints: Vec<String>,
    /// The day whose budget it counts to, and what of it was set aside.
    pub day: i64,
    pub micro_usd: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// The first line, with the version.
    StreamguardBatches(u32),
    Batch(Submitted),
    /// Fingerprints whose answers never came: they may be submitted again.
    Again(Vec<String>),
    /// What a batch has cost is known, and is in the budget.
    Settled(String),
}

const VERSION: u32 = 1;

/// The file.
pub struct BatchFile {
    path: PathBuf,
    file: File,
    pub batches: Vec<Submitted>,
    /// What is on its way or was answered.
    pub submitted: HashSet<String>,
    settled: HashSet<String>,
}

impl BatchFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// If it cannot be used, or is another's file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let file = file.with_context(|| format!("cannot open {shown}"))?;
        let mut batches = Self {
            path: path.to_owned(),
            file,
            batches: Vec::new(),
            submitted: HashSet::new(),
            settled: HashSet::new(),
        };
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        ensure!(
            rustix::fs::flock(&batches.file, lock).is_ok(),
            "{shown} is in use by another program"
        );
        let mut text = String::new();
        let read = batches.file.read_to_string(&mut text);
        read.with_context(|| format!("cannot read {shown}"))?;
        let head = json_line(&Entry::StreamguardBatches(VERSION));
        // Half a line is what a killed program was about to write.
        if head.starts_with(text.as_bytes()) && !text.ends_with('\n') {
            batches.file.set_len(0)?;
            batches.add(&head)?;
            return Ok(batches);
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        ensure!(
            whole > 0,
            "{shown} holds something else than batches: name another file"
        );
        batches.file.set_len(whole as u64)?;
        for (i, line) in text[..whole].lines().enumerate() {
            match (i, serde_json::from_str(line)) {
                (0, Ok(Entry::StreamguardBatches(VERSION))) => {}
                (0, _) => bail!("{shown} holds something else than batches: name another file"),
                (_, Ok(entry)) => batches.take(entry),
                (_, Err(_)) => bail!("{shown}:{}: damaged", i + 1),
            }
        }
        Ok(batches)
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::StreamguardBatches(_) => {}
            Entry::Batch(batch) => {
                self.submitted.extend(batch.fingerprints.iter().cloned());
                self.batches.push(batch);
            }
            Entry::Again(fingerprints) => {
                for fingerprint in &fingerprints {
                    self.submitted.remove(fingerprint);
                }
            }
            Entry::Settled(id) => {
                self.settled.insert(id);
            }
        }
    }

    fn add(&self, line: &[u8]) -> anyhow::Result<()> {
        let written = append_whole(&self.file, line);
        let written = written.and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// Makes sure that a batch can be put there, whatever the service calls it.
    fn make_room(&self, batch: &Submitted) -> anyhow::Result<()> {
        let line = json_line(&Entry::Batch(Submitted {
            id: "x".repeat(ID_BYTES_MAX),
            ..batch.clone()
        }));
        let made = make_room(&self.file, line.len());
        made.with_context(|| format!("cannot write to {}", self.path.display()))
    }

    fn put(&mut self, entry: Entry) -> anyhow::Result<()> {
        self.add(&json_line(&entry))?;
        self.take(entry);
        Ok(())
    }

    /// Fingerprints may be submitted again.
    fn again(&mut self, fingerprints: Vec<String>) -> anyhow::Result<()> {
        if fingerprints.is_empty() {
            return Ok(());
        }
        self.put(Entry::Again(fingerprints))
    }

    /// Whether it was not known until now what a batch has cost.
    fn settle(&mut self, id: &str) -> anyhow::Result<bool> {
        if self.settled.contains(id) {
            return Ok(false);
        }
        self.put(Entry::Settled(id.to_owned()))?;
        Ok(true)
    }
}

/// Gathers requests.
#[derive(Default)]
pub struct Gathered {
    body: Vec<u8>,
    fingerprints: Vec<String>,
    /// The last one's.
    day: i64,
    micro_usd: u64,
}

impl Gathered {
    fn push(&mut self, fingerprint: &str, params: &[u8], day: i64, micro_usd: u64) {
        let before: &[u8] = if self.fingerprints.is_empty() {
            b"{\"requests\":["
        } else {
            b","
        };
        for part in [
            before,
            b"{\"custom_id\":\"",
            fingerprint.as_bytes(),
            b"\",\"params\":",
            params,
            b"}",
        ] {
            self.body.extend_from_slice(part);
        }
        self.fingerprints.push(fingerprint.to_owned());
        self.day = day;
        self.micro_usd = self.micro_usd.saturating_add(micro_usd);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.fingerprints.len() >= REQUESTS_MAX || self.body.len() >= BYTES_MAX
    }
}

/// How far a batch is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub id: String,
    pub processing_status: String,
    pub request_counts: Counts,
}

/// Its requests.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counts {
    pub processing: u64,
    pub succeeded: u64,
    pub errored: u64,
    pub canceled: u64,
    pub expired: u64,
}

impl Status {
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.processing_status == "ended"
    }
}

/// What has come of a request.
#[derive(Debug)]
pub enum Got {
    /// A message, as the service writes it.
    Message(Vec<u8>),
    Not(Outcome),
    /// It was not looked at.
    Expired,
    Canceled,
}

#[derive(Deserialize)]
struct Line {
    custom_id: String,
    result: Come,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Come {
    Succeeded { message: serde_json::Value },
    Errored { error: serde_json::Value },
    Canceled,
    Expired,
}

/// What has come of a batch.
#[derive(Default)]
pub struct Collected {
    /// By fingerprint.
    pub answers: HashMap<String, Got>,
    pub n_expired: u64,
    pub n_canceled: u64,
    pub n_unended: u64,
}

impl Analyst {
    /// Adds the question about an event to those that were gathered; false if limits do not allow it.
    pub fn gather(&self, fingerprint: &str, subject: &Subject, gathered: &mut Gathered) -> bool {
        let model = &self.config().model;
        let at_most = call::cost(&self.shared, subject, model, u64::from(MAX_TOKENS));
        let micro_usd = at_most.div_ceil(PRICE_DIVISOR);
        let state = &mut *self.shared.lock();
        if !state.spending.admits(now_ms(), uptime_ms(), micro_usd) {
            return false;
        }
        call::keep_day(&self.shared, state);
        let day = state.spending.day().day;
        gathered.push(fingerprint, &self.body(subject), day, micro_usd);
        true
    }

    /// Submits what was gathered, and keeps what is needed to collect it.
    ///
    /// # Errors
    /// If the service does not take it, or it cannot be kept.
    pub fn submit_batch(
        &self,
        gathered: Gathered,
        file: &mut BatchFile,
    ) -> anyhow::Result<Submitted> {
        let service = &self.shared.service;
        let Gathered {
            mut body,
            fingerprints,
            day,
            micro_usd,
        } = gathered;
        body.extend_from_slice(b"]}");
        let mut batch = Submitted {
            id: String::new(),
            fingerprints,
            day,
            micro_usd,
        };
        // What was paid for is not forgotten for want of room.
        file.make_room(&batch)?;
        let status: Status = read(service, service.call(PATH, Some(&body), SEND_TIMEOUT))?;
        check_id(&status.id)?;
        batch.id = status.id;
        file.put(Entry::Batch(batch.clone()))?;
        Ok(batch)
    }

    /// Asks how far a batch is.
    ///
    /// # Errors
    /// If there is no answer, or the service does not know it.
    pub fn batch_status(&self, id: &str) -> anyhow::Result<Status> {
        check_id(id)?;
        let service = &self.shared.service;
        let path = format!("{PATH}/{id}");
        read(service, service.call(&path, None, self.config().timeout))
    }

    /// Reads the answers of all batches that have ended.
    ///
    /// # Errors
    /// If the service does not give them.
    pub fn collect_batches(&self, file: &mut BatchFile) -> anyhow::Result<Collected> {
        let mut collected = Collected::default();
        for batch in file.batches.clone() {
            if !self.batch_status(&batch.id)?.has_ended() {
                collected.n_unended += 1;
                continue;
            }
            let answers = self.answers_of(&batch)?;
            let count =
                |wanted: fn(&Got) -> bool| answers.values().filter(|got| wanted(got)).count();
            collected.n_expired += count(|got| matches!(got, Got::Expired)) as u64;
            collected.n_canceled += count(|got| matches!(got, Got::Canceled)) as u64;
            self.settle_batch(&batch, &answers, file)?;
            // Another batch may have been made for what did not come of this one.
            for (fingerprint, got) in answers {
                if matches!(got, Got::Message(_)) || !collected.answers.contains_key(&fingerprint) {
                    collected.answers.insert(fingerprint, got);
                }
            }
        }
        Ok(collected)
    }

    /// What a batch has cost, and what of it may be submitted again, once.
    fn settle_batch(
        &self,
        batch: &Submitted,
        answers: &HashMap<String, Got>,
        file: &mut BatchFile,
    ) -> anyhow::Result<()> {
        if !file.settle(&batch.id)? {
            return Ok(());
        }
        let config = self.config();
        let price = config.prices.of(&config.model);
        let cost = |got: &Got| {
            let Got::Message(message) = got else { return 0 };
            let reply = config.place.provider.read(message);
            let usage = reply.and_then(|reply| reply.usage).unwrap_or_default();
            let usage = usage.within_limits();
            price.map_or(0, |price| price.micro_usd(usage))
        };
        let costs = answers.values().map(cost);
        let micro_usd = costs.fold(0, u64::saturating_add).div_ceil(PRICE_DIVISOR);
        let mut state = self.shared.lock();
        state.spending.settle(batch.day, batch.micro_usd, micro_usd);
        call::keep_day(&self.shared, &mut state);
        drop(state);
        let is_lost = |fingerprint: &&String| match answers.get(*fingerprint) {
            Some(Got::Message(_)) => false,
            Some(Got::Not(outcome)) => !outcome.is_final(),
            Some(Got::Expired | Got::Canceled) | None => true,
        };
        let lost = batch.fingerprints.iter().filter(is_lost).cloned();
        file.again(lost.collect())
    }

    /// The answers of a batch that has ended, in whatever order they come.
    fn answers_of(&self, batch: &Submitted) -> anyhow::Result<HashMap<String, Got>> {
        let id = &batch.id;
        check_id(id)?;
        let service = &self.shared.service;
        // The service names a URL, too; it is this one, and the key goes to no other.
        let path = format!("{PATH}/{id}/results");
        let stream = service.stream(&path, READ_TIMEOUT, ANSWERS_BYTES_MAX);
        let stream = stream.map_err(|none| anyhow::anyhow!("{}", none.words))?;
        ensure!(
            stream.status == 200,
            "{} answers {} for the results of batch {id}",
            service.place.shown(),
            stream.status
        );
        read_answers(BufReader::new(stream.body), batch)
    }

    /// What the answers of batches come to for an event.
    #[must_use]
    pub fn conclude(&self, subject: &Subject, collected: &Collected) -> Analysis {
        let shared = &self.shared;
        let fingerprint = shared.fingerprint(subject);
        let known = shared.lock().cache.get(&fingerprint);
        let got = collected.answers.get(&fingerprint);
        let answered = match (known, got) {
            (Some(verdict), _) => Answered {
                outcome: Outcome::Cached,
                verdict: Some(verdict),
            },
            (None, Some(Got::Message(message))) => {
                let reply = shared.config.place.provider.read(message);
                let verdict = reply
                    .ok_or(Outcome::Invalid)
                    .and_then(|reply| call::verdict_of(&reply, subject, &shared.config.model));
                self.take_verdict(&fingerprint, verdict)
            }
            (None, Some(Got::Not(outcome))) => Answered {
                outcome: *outcome,
                verdict: None,
            },
            (None, Some(Got::Expired | Got::Canceled) | None) => UNAVAILABLE,
        };
        let provider = shared.config.place.provider.name();
        let analysis = super::conclude(subject, &fingerprint, provider, &answered);
        shared.count(subject, &analysis);
        analysis
    }

    fn take_verdict(&self, fingerprint: &str, verdict: Result<Verdict, Outcome>) -> Answered {
        match verdict {
            Ok(verdict) => {
                let verdict = Arc::new(verdict);
                let state = &mut *self.shared.lock();
                let kept = state.cache.put(fingerprint, &verdict);
                self.shared.tell_of_notes(state, kept);
                Answered {
                    outcome: Outcome::Ok,
                    verdict: Some(verdict),
                }
            }
            Err(outcome) => Answered {
                outcome,
                verdict: None,
            },
        }
    }
}

impl From<Come> for Got {
    fn from(result: Come) -> Self {
        match result {
            Come::Succeeded { message } => Self::Message(message.to_string().into_bytes()),
            Come::Errored { error } => {
                // An error of the service comes within one of the batch.
                let kind = error["error"]["type"].as_str().unwrap_or_default();
                let is_ours = matches!(kind, "invalid_request_error" | "request_too_large");
                Self::Not(if is_ours {
                    Outcome::Invalid
                } else {
                    Outcome::Unavailable
                })
            }
            Come::Canceled => Self::Canceled,
            Come::Expired => Self::Expired,
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(
    service: &Service,
    answer: Result<Answer, NoAnswer>,
) -> anyhow::Result<T> {
    let shown = service.place.shown();
    let answer = answer.map_err(|none| anyhow::anyhow!("{shown}: {}", none.words))?;
    if !(200..300).contains(&answer.status) {
        let words = service.place.words_of(&answer.body);
        let words = words.map_or_else(String::new, |words| format!(": {words}"));
        bail!("{shown} answers {}{words}", answer.status);
    }
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("{shown} answers something else than a batch"))
}

/// Reads answers. Those to what is not of the batch are none, however many there are.
fn read_answers(
    mut reader: impl BufRead,
    batch: &Submitted,
) -> anyhow::Result<HashMap<String, Got>> {
    let id = &batch.id;
    let asked: HashSet<&String> = batch.fingerprints.iter().collect();
    let mut found = HashMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n_read = (&mut reader)
            .take(ANSWER_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if n_read.with_context(|| format!("the results of batch {id} break off"))? == 0 {
            return Ok(found);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(&line)
            .with_context(|| format!("the results of batch {id} are not such"))?;
        if asked.contains(&line.custom_id) {
            found.insert(line.custom_id, line.result.into());
        }
    }
}

/// It becomes part of a path.
fn check_id(id: &str) -> anyhow::Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    ensure!(
        !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_plain),
        "the id of a batch is not one"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that sends 4 GiB of others is no reason to hold them.
    #[test]
    fn answers_to_what_nobody_asked_are_dropped() {
        let batch = Submitted {
            id: "b".to_owned(),
            fingerprints: vec!["f1".to_owned(), "f2".to_owned()],
            day: 0,
            micro_usd: 0,
        };
        let lines = ["f1", "other", "f2", "f1 "].map(|custom_id| {
            format!("{{\"custom_id\":\"{custom_id}\",\"result\":{{\"type\":\"expired\"}}}}\n")
        });
        let answers = read_answers(lines.concat().as_bytes(), &batch).expect("they are such");
        let mut found: Vec<&String> = answers.keys().collect();
        found.sort();
        assert_eq!(found, ["f1", "f2"]);
    }
}
