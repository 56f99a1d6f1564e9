//! One question, with all its tries: what may be asked, what the answer means, and how long to wait
//! before the next try.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Answered, Shared, State};
use crate::io::http::{Answer, NoAnswer};
use crate::llm::reply::{self, Verdict};
use crate::llm::wire::{End, Fault, Reply, Usage};
use crate::llm::{MAX_TOKENS, Subject};
use crate::record::analysis::Outcome;
use crate::record::anomaly::Severity;
use crate::report::warn;
use crate::time::{now_ms, uptime_ms};

/// Waits between tries, if the service does not say how long: those of the vendor's own clients.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// Share of them that chance may take off.
const BY_CHANCE: f64 = 0.25;
/// Whoever wants to be left alone for longer is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often whoever waits looks whether the end was asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How a question has ended.
enum Ended {
    Answer(Box<Verdict>),
    Not(Outcome),
}

/// How one try has ended.
enum Tried {
    Ended(Ended),
    /// It may go well the next time; how long the service wants to be left alone.
    Failed(Outcome, Option<Duration>),
}

/// What a call may cost, until it is known what it does.
struct SetAside {
    day: i64,
    micro_usd: u64,
    /// If nothing comes back that says what it has cost.
    micro_usd_unknown: u64,
}

/// Asks about an event.
pub(super) fn ask(shared: &Shared, subject: &Subject) -> Answered {
    let config = &shared.config;
    let mut ended = ask_model(shared, subject, &config.model);
    if let (Ended::Answer(first), Some(model)) = (&ended, &config.escalate_model)
        && first.severity >= Severity::High
        && let Ended::Answer(second) = ask_model(shared, subject, model)
    {
        let input_tokens = first.input_tokens.saturating_add(second.input_tokens);
        let output_tokens = first.output_tokens.saturating_add(second.output_tokens);
        ended = Ended::Answer(Box::new(Verdict {
            input_tokens,
            output_tokens,
            ..*second
        }));
    }
    match ended {
        Ended::Answer(verdict) => Answered {
            outcome: Outcome::Ok,
            verdict: Some(Arc::new(*verdict)),
        },
        Ended::Not(outcome) => Answered {
            outcome,
            verdict: None,
        },
    }
}

fn ask_model(shared: &Shared, subject: &Subject, model: &str) -> Ended {
    let place = &shared.service.place;
    let body = place.provider.body(subject, model, place.is_vendor());
    let mut last = None;
    for n_tries in 1..=shared.config.n_retries + 1 {
        let set_aside = match admit(shared, subject, model) {
            Ok(set_aside) => set_aside,
            // What the tries before have come to says more.
            Err(outcome) => return Ended::Not(last.unwrap_or(outcome)),
        };
        let Some(timeout) = time_left(shared) else {
            withdraw(shared, &set_aside);
            return Ended::Not(last.unwrap_or(Outcome::Unavailable));
        };
        let answer = shared
            .service
            .call(place.provider.path(), Some(&body), timeout);
        match judge(shared, subject, model, &set_aside, answer) {
            Tried::Ended(ended) => return ended,
            Tried::Failed(outcome, wanted) => {
                last = Some(outcome);
                let wait = wanted.unwrap_or_else(|| backoff(n_tries));
                if n_tries > shared.config.n_retries || wait > WAIT_MAX || !rest(shared, wait) {
                    break;
                }
            }
        }
    }
    Ended::Not(last.unwrap_or(Outcome::Unavailable))
}

/// Whether a call may be made now. It counts from here on.
fn admit(shared: &Shared, subject: &Subject, model: &str) -> Result<SetAside, Outcome> {
    let at_most = cost(shared, subject, model, u64::from(MAX_TOKENS));
    let unknown = cost(shared, subject, model, 0);
    let state = &mut *shared.lock();
    if !state.breaker.admits(uptime_ms()) {
        return Err(Outcome::BreakerOpen);
    }
    if !state.spending.admits(now_ms(), uptime_ms(), at_most) {
        state.breaker.withdrawn(uptime_ms());
        return Err(Outcome::OverBudget);
    }
    state.tally.n_calls += 1;
    let day = state.spending.day();
    keep_day(shared, state);
    Ok(SetAside {
        day: day.day,
        micro_usd: at_most,
        micro_usd_unknown: unknown,
    })
}

/// What a question costs whose answer is so long, in millionths of a dollar; 0 if prices are not known.
pub(super) fn cost(shared: &Shared, subject: &Subject, model: &str, output: u64) -> u64 {
    // Written to the service's cache at worst.
    let usage = Usage {
        cache_writes: subject.input_tokens(),
        output,
        ..Usage::default()
    };
    let price = shared.config.prices.of(model);
    price.map_or(0, |price| price.micro_usd(usage))
}

/// Before a call, so that a killed program has not spent what nobody knows of.
pub(super) fn keep_day(shared: &Shared, state: &mut State) {
    if shared.config.limits.are_of_days() {
        let kept = state.cache.put_day(state.spending.day());
        shared.tell_of_notes(state, kept);
    }
}

fn settle(shared: &Shared, state: &mut State, set_aside: &SetAside, micro_usd: u64) {
    state
        .spending
        .settle(set_aside.day, set_aside.micro_usd, micro_usd);
    if let Some(sum) = &mut state.tally.micro_usd {
        *sum = sum.saturating_add(micro_usd);
    }
    keep_day(shared, state);
}

fn withdraw(shared: &Shared, set_aside: &SetAside) {
    let state = &mut *shared.lock();
    state.tally.n_calls -= 1;
    state.breaker.withdrawn(uptime_ms());
    settle(shared, state, set_aside, 0);
}

/// How long a call may take; none if it is too late to begin one.
fn time_left(shared: &Shared) -> Option<Duration> {
    let timeout = shared.config.timeout;
    let Some(deadline) = shared.deadline() else {
        return Some(timeout);
    };
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.min(timeout))
}

/// What an answer means, or that there is none.
fn judge(
    shared: &Shared,
    subject: &Subject,
    model: &str,
    set_aside: &SetAside,
    answer: Result<Answer, NoAnswer>,
) -> Tried {
    let answer = match answer {
        Ok(answer) => answer,
        Err(none) => {
            let outcome = if none.is_timeout {
                Outcome::Timeout
            } else {
                Outcome::Unavailable
            };
            let spent = if none.may_have_arrived {
                set_aside.micro_usd_unknown
            } else {
                0
            };
            fail(shared, set_aside, spent, &none.words);
            return Tried::Failed(outcome, None);
        }
    };
    if (200..300).contains(&answer.status) {
        return read(shared, subject, model, set_aside, &answer);
    }
    let provider = shared.service.place.provider;
    let why = shared.service.place.words_of(&answer.body).map_or_else(
        || format!("it answers {}", answer.status),
        |words| format!("it answers {}: {words}", answer.status),
    );
    match provider.fault(answer.status, answer.should_retry, &answer.body) {
        Fault::Passing => {
            fail(shared, set_aside, 0, &why);
            Tried::Failed(Outcome::Unavailable, answer.retry_after)
        }
        Fault::ThisOne => {
            // If it is every one, something else is wrong, and no event should be given up for that.
            fail(shared, set_aside, 0, &why);
            Tried::Ended(Ended::Not(Outcome::Invalid))
        }
        Fault::Everybody => {
            let state = &mut *shared.lock();
            settle(shared, state, set_aside, 0);
            let turned = state.breaker.open(uptime_ms());
            let is_new = !std::mem::replace(&mut state.is_told.refusal, true);
            if is_new {
                let place = shared.service.place.shown();
                let text = format!(
                    "{place} refuses every question, {why}; events pass on without an analysis"
                );
                warn(shared.config.name, &text);
            } else {
                shared.tell_of_breaker(turned, &why);
            }
            Tried::Ended(Ended::Not(Outcome::Unavailable))
        }
    }
}

fn fail(shared: &Shared, set_aside: &SetAside, spent: u64, why: &str) {
    let state = &mut *shared.lock();
    settle(shared, state, set_aside, spent);
    let turned = state.breaker.failed(uptime_ms());
    shared.tell_of_breaker(turned, why);
}

fn read(
    shared: &Shared,
    subject: &Subject,
    model: &str,
    set_aside: &SetAside,
    answer: &Answer,
) -> Tried {
    let Some(mut reply) = shared.service.place.provider.read(&answer.body) else {
        // Whatever has answered, it was no model.
        let why = "what it answers is not a message of a model";
        fail(shared, set_aside, set_aside.micro_usd_unknown, why);
        return Tried::Failed(Outcome::Unavailable, None);
    };
    reply.usage = reply.usage.map(Usage::within_limits);
    let usage = reply.usage.unwrap_or_default();
    let price = shared.config.prices.of(model);
    let spent = match (reply.usage, price) {
        (Some(usage), Some(price)) => price.micro_usd(usage),
        // What it was is not known: the most that it may have been.
        _ => set_aside.micro_usd,
    };
    let state = &mut *shared.lock();
    settle(shared, state, set_aside, spent);
    let tally = &mut state.tally;
    tally.input_tokens = tally.input_tokens.saturating_add(usage.all_input());
    tally.output_tokens = tally.output_tokens.saturating_add(usage.output);
    let turned = state.breaker.succeeded();
    shared.tell_of_breaker(turned, "");
    Tried::Ended(match verdict_of(&reply, subject, model) {
        Ok(verdict) => Ended::Answer(Box::new(verdict)),
        Err(outcome) => Ended::Not(outcome),
    })
}

/// What a message of a model says of an event, or how it has ended.
pub(super) fn verdict_of(
    reply: &Reply,
    subject: &Subject,
    model: &str,
) -> Result<Verdict, Outcome> {
    let text = match &reply.end {
        End::Said(text) => text,
        End::Refused => return Err(Outcome::Refused),
        End::Truncated => return Err(Outcome::Truncated),
        End::Odd => return Err(Outcome::Invalid),
    };
    let verdict = reply::read(text, subject).ok_or(Outcome::Invalid)?;
    let named = if reply.model.is_empty() {
        model
    } else {
        &reply.model
    };
    let usage = reply.usage.unwrap_or_default();
    Ok(verdict.of_model(named, usage.all_input(), usage.output))
}

/// Waits; false if there is no time left.
fn rest(shared: &Shared, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        let end = shared
            .deadline()
            .map_or(until, |deadline| deadline.min(until));
        let now = Instant::now();
        if now >= end {
            return end == until;
        }
        let state = shared.lock();
        let slice = (end - now).min(LOOK_INTERVAL);
        let woken = shared.stopped.wait_timeout(state, slice);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
    }
}

fn backoff(n_tries: u32) -> Duration {
    crate::io::backoff::backoff(n_tries, (BACKOFF_MIN, BACKOFF_MAX), BY_CHANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_the_vendors_clients() {
        for (n_tries, ms) in [(1, 500), (2, 1_000), (3, 2_000), (5, 8_000), (100, 8_000)] {
            let wait = backoff(n_tries).as_millis();
            assert!((ms * 3 / 4..=ms).contains(&wait), "{n_tries}: {wait}");
        }
    }
}
