//! The store's layout: column families, keys and small values. Every program reads and writes
//! through this one module; it names no `rocksdb`.
//!
//! | family | key | value |
//! |---|---|---|
//! | `default` | `{timestamp:015}:{event_id}` | the event as it came, one JSON object |
//! | `anomalies` | the same | the anomaly record, JSON |
//! | `ai_analysis` | the same | the analysis, JSON |
//! | `embeddings` | the same | the embedding, JSON |
//! | `pending` | the same | context of an event that waits for its analysis, JSON |
//! | `by_id` | hash of the event id, timestamp | nothing |
//! | `by_user` | hash of the user, timestamp, event id | severity, see [`severity_byte`] |
//! | `by_severity` | severity, timestamp, event id | anomaly score, f64 |
//! | `baselines` | user, see [`baseline_key`] | what `sg-run`'s detector knows of the user; under no name, what all share |
//! | `meta` | name | schema version, counters, positions |
//! | `meta` | `changelog:` and a task | offset in its changelog up to which all is here, decimal |
//! | `meta` | `restoring:` and a task | nothing: what is here of the task is not whole |
//! | `meta` | `raised` | by how many the counters of anomalies are off, by severity, JSON |
//! | `meta` | `analysis:` and a fingerprint | what a model has said of events that are alike, JSON |
//! | `meta` | `analysis:day` | what was asked and spent that day, JSON |
//! | `meta` | `bulk` | files of a write that the families are to take in, JSON |
//! | `meta` | `pipe` | the last checkpoint of a pipe that goes on where it was, JSON |
//! | `meta` | `pipe:` and a source | how far the pipe had read it then, JSON |
//! | `meta` | `feedback:` and an event's key | an analyst's verdict on the event, JSON |
//! | `meta` | `alert:` and a number | key of an event that some target has not been told of |
//! | `meta` | `alert-target:` and a target | number of the last alert that the target has, decimal |
//! | `meta` | `vectors` | there are sums of all embeddings |
//! | `meta` | `vectors:` and a stretch of time | how many embeddings it has, and a sum of them, see [`stretch_of`] |
//! | `meta` | `stretches` | there is a record of each stretch of time: of so many events in all, decimal |
//! | `meta` | `stretch:` and a stretch of time | how many events, and failures; the highest score of each severity, f64 |
//!
//! Numbers in keys are big-endian, so that keys sort by time. Hashes are SipHash-1-3 with an
//! all-zero key: stable, and without known shortcuts to collisions; a collision costs a
//! comparison, never an error, since the event itself is always compared.

pub mod state;

use siphasher::sip::SipHasher13;

use crate::record::anomaly::Severity;

/// Written to `meta` when a store is made. A change of anything above raises it.
pub const SCHEMA_VERSION: u32 = 1;

pub const EVENTS: &str = "default";
pub const ANOMALIES: &str = "anomalies";
pub const AI_ANALYSIS: &str = "ai_analysis";
pub const EMBEDDINGS: &str = "embeddings";
pub const PENDING: &str = "pending";
pub const BY_ID: &str = "by_id";
pub const BY_USER: &str = "by_user";
pub const BY_SEVERITY: &str = "by_severity";
pub const BASELINES: &str = "baselines";
pub const META: &str = "meta";

/// All families, in the order in which digests and reports list them.
pub const FAMILIES: [&str; 10] = [
    EVENTS,
    ANOMALIES,
    AI_ANALYSIS,
    EMBEDDINGS,
    PENDING,
    BY_ID,
    BY_USER,
    BY_SEVERITY,
    BASELINES,
    META,
];

/// Families that the input determines, whichever programs it went through. The others hold how
/// far the writer has come, which differs between a pipe and `sg-run`.
pub const CONTENT_FAMILIES: [&str; 8] = [
    EVENTS,
    ANOMALIES,
    AI_ANALYSIS,
    EMBEDDINGS,
    PENDING,
    BY_ID,
    BY_USER,
    BY_SEVERITY,
];

/// Names in `meta`.
pub const META_SCHEMA_VERSION: &str = "schema_version";
pub const META_COUNTERS: &str = "counters";
/// The detector whose baselines are kept; `classic` if there are some and this is missing.
pub const META_DETECTOR: &str = "detector";
pub const META_POSITION_PREFIX: &str = "position:";
/// Before the name of a task: how far its changelog was read or written.
pub const META_LOG_END_PREFIX: &str = "changelog:";
/// Before the name of a task of which a part was restored.
pub const META_RESTORING_PREFIX: &str = "restoring:";
/// What analyses have changed of the counters. Older releases pass it over, and count wrongly then.
pub const META_RAISED: &str = "raised";
/// Before the name of a note on analyses. Older releases pass these over.
pub const META_ANALYSIS_PREFIX: &str = "analysis:";
/// There while a write of many events is not complete: older releases pass it over, and miss those.
pub const META_BULK: &str = "bulk";
/// The checkpoint of a pipe that ends here, and how far its sources were read for it.
pub const META_PIPE: &str = "pipe";
pub const META_PIPE_POSITION_PREFIX: &str = "pipe:";
/// Older releases pass such keys over, so they came without a new schema version.
pub const META_FEEDBACK_PREFIX: &str = "feedback:";
/// Before the number of an alert that waits. Older releases pass these over, too.
pub const META_ALERT_PREFIX: &str = "alert:";
/// Before the name of a target of alerts.
pub const META_ALERT_TARGET_PREFIX: &str = "alert-target:";

/// Whether embeddings are summed up. Older releases pass these over; one that writes embeddings beside them
/// makes the sums wrong, which `verify` tells.
pub const META_VECTORS: &str = "vectors";
/// Before the number of a stretch of time.
pub const META_VECTORS_PREFIX: &str = "vectors:";

/// How many events the records of stretches are of. Older releases pass them over; what one of them has
/// written beside them is told by the counters, which then say another number.
pub const META_STRETCHES: &str = "stretches";
/// Before the number of a stretch of time.
pub const META_STRETCH_PREFIX: &str = "stretch:";
/// What sorts behind all names that begin so: `;` comes after `:`.
pub const META_STRETCH_END: &str = "stretch;";

/// The user whose name stands for what all users share. No user has an empty name.
pub const SHARED_BASELINE: &str = "";
/// Before the name of a task and after it: no byte of a UTF-8 text.
const TASK_MARK: u8 = 0xFF;

/// A stretch of time is 2 to the power of so many milliseconds, 17 minutes.
const STRETCH_BITS: u32 = 20;
pub const STRETCH_MS: i64 = 1 << STRETCH_BITS;

/// Digits of a timestamp in an event key.
const TIMESTAMP_DIGITS: usize = 15;

/// Appends the key of an event: `000001735689600000:evt_1`. `timestamp_ms` is one that
/// validation accepts, so 15 digits hold it.
pub fn push_event_key(key: &mut Vec<u8>, timestamp_ms: i64, event_id: &str) {
    push_time_prefix(key, timestamp_ms);
    key.push(b':');
    key.extend_from_slice(event_id.as_bytes());
}

/// The smallest key of events at `timestamp_ms` or later; beyond the keys' range it sorts last.
#[must_use]
pub fn time_prefix(timestamp_ms: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(TIMESTAMP_DIGITS);
    if timestamp_ms > crate::record::TIMESTAMP_MS_MAX {
        key.push(b'9' + 1);
    } else {
        push_time_prefix(&mut key, timestamp_ms);
    }
    key
}

fn push_time_prefix(key: &mut Vec<u8>, timestamp_ms: i64) {
    let mut digits = [b'0'; TIMESTAMP_DIGITS];
    let mut rest = timestamp_ms.max(0) as u64;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key.extend_from_slice(&digits);
}

/// The time and id in an event key, or none if it is not one.
#[must_use]
pub fn split_event_key(key: &[u8]) -> Option<(i64, &str)> {
    let key = std::str::from_utf8(key).ok()?;
    let (timestamp, rest) = key.split_at_checked(TIMESTAMP_DIGITS)?;
    Some((read_digits(timestamp)?, rest.strip_prefix(':')?))
}

/// A number that is written with nothing but digits: a sign can be read as part of one, too.
fn read_digits<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The event id in what [`push_event_key`] has appended; nothing in what is too short for that.
#[must_use]
pub fn event_id_of_key(key: &[u8]) -> &[u8] {
    key.get(TIMESTAMP_DIGITS + 1..).unwrap_or_default()
}

/// Appends the key of `by_id`.
pub fn push_id_key(key: &mut Vec<u8>, event_id: &str, timestamp_ms: i64) {
    push_hashed_id_key(key, hash(event_id), timestamp_ms);
}

/// The same, for an id with that [`hash`].
pub fn push_hashed_id_key(key: &mut Vec<u8>, event_id: u64, timestamp_ms: i64) {
    key.extend_from_slice(&event_id.to_be_bytes());
    key.extend_from_slice(&timestamp_ms.to_be_bytes());
}

/// What all `by_id` keys of an event id begin with.
#[must_use]
pub fn id_prefix(event_id: &str) -> [u8; 8] {
    hash(event_id).to_be_bytes()
}

/// The timestamp in a `by_id` key.
#[must_use]
pub fn split_id_key(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(8..16)?.try_into().ok()?))
}

/// Appends the key of `by_user`.
pub fn push_user_key(key: &mut Vec<u8>, user: &str, timestamp_ms: i64, event_id: &str) {
    push_hashed_user_key(key, hash(user), timestamp_ms, event_id.as_bytes());
}

/// The same, for a user with that [`hash`].
pub fn push_hashed_user_key(key: &mut Vec<u8>, user: u64, timestamp_ms: i64, event_id: &[u8]) {
    key.extend_from_slice(&user.to_be_bytes());
    key.extend_from_slice(&timestamp_ms.to_be_bytes());
    key.extend_from_slice(event_id);
}

/// Appends what the `by_user` keys of a user begin with, from a time on.
pub fn push_user_prefix(key: &mut Vec<u8>, user: &str, timestamp_ms: i64) {
    key.extend_from_slice(&hash(user).to_be_bytes());
    key.extend_from_slice(&timestamp_ms.to_be_bytes());
}

/// What sorts behind all `by_user` or `by_id` keys that begin with a hash: no time's first byte is that high.
#[must_use]
pub fn hash_end(hash: [u8; 8]) -> [u8; 9] {
    let mut end = [0xFF; 9];
    end[..8].copy_from_slice(&hash);
    end
}

/// The time and id in a `by_user` key.
#[must_use]
pub fn split_user_key(key: &[u8]) -> Option<(i64, &str)> {
    let (timestamp, id) = key.get(8..)?.split_first_chunk::<8>()?;
    Some((
        i64::from_be_bytes(*timestamp),
        std::str::from_utf8(id).ok()?,
    ))
}

/// Appends the key of `by_severity`.
pub fn push_severity_key(key: &mut Vec<u8>, severity: Severity, timestamp_ms: i64, event_id: &str) {
    push_severity_prefix(key, severity, timestamp_ms);
    key.extend_from_slice(event_id.as_bytes());
}

/// Appends what the `by_severity` keys of a severity begin with, from a time on.
pub fn push_severity_prefix(key: &mut Vec<u8>, severity: Severity, timestamp_ms: i64) {
    key.push(severity as u8);
    key.extend_from_slice(&timestamp_ms.to_be_bytes());
}

/// The time and id in a `by_severity` key.
#[must_use]
pub fn split_severity_key(key: &[u8]) -> Option<(i64, &str)> {
    let (timestamp, id) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((
        i64::from_be_bytes(*timestamp),
        std::str::from_utf8(id).ok()?,
    ))
}

/// The value in `by_user`: 0 for an event that is no anomaly, else 1 + its severity.
#[must_use]
pub fn severity_byte(severity: Option<Severity>) -> u8 {
    severity.map_or(0, |severity| 1 + severity as u8)
}

/// What [`severity_byte`] stands for.
#[must_use]
pub fn severity_of_byte(byte: u8) -> Option<Severity> {
    Severity::ALL.get((byte as usize).checked_sub(1)?).copied()
}

/// The key in `baselines` of a user in a task. The task of all input that is no partition has no name,
/// and its keys are the users' names.
#[must_use]
pub fn baseline_key(task: &str, user: &str) -> Vec<u8> {
    let mut key = task_prefix(task);
    key.extend_from_slice(user.as_bytes());
    key
}

/// What the `baselines` keys of a task begin with; that of the task without a name begins all keys.
#[must_use]
pub fn task_prefix(task: &str) -> Vec<u8> {
    if task.is_empty() {
        return Vec::new();
    }
    [&[TASK_MARK], task.as_bytes(), &[TASK_MARK]].concat()
}

/// What sorts behind all `baselines` keys of a task.
#[must_use]
pub fn task_end(task: &str) -> Vec<u8> {
    if task.is_empty() {
        return vec![TASK_MARK];
    }
    // The mark is the highest byte, so no user sorts behind two of them.
    [&task_prefix(task)[..], &[TASK_MARK]].concat()
}

/// The task and the user in a `baselines` key, or none if it is not one.
#[must_use]
pub fn split_baseline_key(key: &[u8]) -> Option<(&str, &str)> {
    let (task, user) = match key.split_first() {
        Some((&TASK_MARK, rest)) => {
            let end = rest.iter().position(|byte| *byte == TASK_MARK)?;
            // The task without a name has no marks.
            if end == 0 {
                return None;
            }
            (&rest[..end], &rest[end + 1..])
        }
        _ => (&[][..], key),
    };
    Some((
        std::str::from_utf8(task).ok()?,
        std::str::from_utf8(user).ok()?,
    ))
}

/// The name in `meta` of a source's position.
#[must_use]
pub fn position_key(source: &str) -> String {
    format!("{META_POSITION_PREFIX}{source}")
}

/// The key in `meta` of how far a pipe had read a source at its last checkpoint.
#[must_use]
pub fn pipe_position_key(source: &str) -> String {
    format!("{META_PIPE_POSITION_PREFIX}{source}")
}

/// The name in `meta` of how far the changelog of a task was read or written.
#[must_use]
pub fn log_end_key(task: &str) -> String {
    format!("{META_LOG_END_PREFIX}{task}")
}

/// The name in `meta` that is there while a task is being restored.
#[must_use]
pub fn restoring_key(task: &str) -> String {
    format!("{META_RESTORING_PREFIX}{task}")
}

/// The name in `meta` of the verdict on an event; for what event keys begin with, where the
/// verdicts on events from there on begin.
#[must_use]
pub fn feedback_key(event_key: &[u8]) -> Vec<u8> {
    [META_FEEDBACK_PREFIX.as_bytes(), event_key].concat()
}

/// The event's key in what [`feedback_key`] has made, or none if it is another name.
#[must_use]
pub fn split_feedback_key(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(META_FEEDBACK_PREFIX.as_bytes())
}

/// The name in `meta` of the alert with that number: they sort as they came.
#[must_use]
pub fn alert_key(number: u64) -> String {
    format!("{META_ALERT_PREFIX}{number:020}")
}

/// The number in what [`alert_key`] has made, or none if it is another name.
#[must_use]
pub fn split_alert_key(key: &[u8]) -> Option<u64> {
    let digits = key.strip_prefix(META_ALERT_PREFIX.as_bytes())?;
    read_digits(std::str::from_utf8(digits).ok()?)
}

/// The name in `meta` of a note on analyses.
#[must_use]
pub fn analysis_note_key(name: &str) -> String {
    format!("{META_ANALYSIS_PREFIX}{name}")
}

/// Where such names begin, and what sorts behind all of them: `;` comes after `:`.
#[must_use]
pub fn analysis_note_range() -> (&'static str, &'static str) {
    (META_ANALYSIS_PREFIX, "analysis;")
}

/// The name in `meta` of how far a target of alerts has come.
#[must_use]
pub fn alert_target_key(target: &str) -> String {
    format!("{META_ALERT_TARGET_PREFIX}{target}")
}

/// The number of the stretch of time that an event key falls into.
#[must_use]
pub fn stretch_of(key: &[u8]) -> i64 {
    split_event_key(key).map_or(0, |(timestamp_ms, _)| stretch_at(timestamp_ms))
}

/// The number of the stretch of time that a time falls into.
#[must_use]
pub fn stretch_at(timestamp_ms: i64) -> i64 {
    timestamp_ms >> STRETCH_BITS
}

/// The times in ms at which a stretch begins and the next one does.
#[must_use]
pub fn stretch_ms(stretch: i64) -> (i64, i64) {
    (stretch << STRETCH_BITS, (stretch + 1) << STRETCH_BITS)
}

/// Digits of the number of a stretch.
const STRETCH_DIGITS: usize = 10;

/// The name in `meta` of the sum of a stretch: they sort by time.
#[must_use]
pub fn vector_sum_key(stretch: i64) -> Vec<u8> {
    format!("{META_VECTORS_PREFIX}{stretch:0STRETCH_DIGITS$}").into_bytes()
}

/// The stretch in what [`vector_sum_key`] has made, or none if it is another name.
#[must_use]
pub fn split_vector_sum_key(key: &[u8]) -> Option<i64> {
    read_stretch(key.strip_prefix(META_VECTORS_PREFIX.as_bytes())?)
}

/// More digits would be no time in milliseconds any more.
fn read_stretch(digits: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(digits).ok()?;
    read_digits(digits).filter(|_| digits.len() == STRETCH_DIGITS)
}

/// The name in `meta` of the record of a stretch: they sort by time.
#[must_use]
pub fn stretch_key(stretch: i64) -> Vec<u8> {
    format!("{META_STRETCH_PREFIX}{stretch:0STRETCH_DIGITS$}").into_bytes()
}

/// The stretch in what [`stretch_key`] has made, or none if it is another name.
#[must_use]
pub fn split_stretch_key(key: &[u8]) -> Option<i64> {
    read_stretch(key.strip_prefix(META_STRETCH_PREFIX.as_bytes())?)
}

/// What keys have of an event id or of a user.
#[must_use]
pub fn hash(text: &str) -> u64 {
    SipHasher13::new().hash(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_read_back() {
        let key = |timestamp_ms, id: &str| {
            let mut key = Vec::new();
            push_event_key(&mut key, timestamp_ms, id);
            key
        };
        assert_eq!(key(1_735_689_600_000, "evt:1"), b"001735689600000:evt:1");
        assert_eq!(split_event_key(&key(42, "a:b")), Some((42, "a:b")));
        assert!(key(9, "z") < key(10, "a"));
        assert!(time_prefix(i64::MAX) > key(crate::record::TIMESTAMP_MS_MAX, "\u{10FFFF}"));
        assert!(time_prefix(-5) <= key(0, "a"));
        assert_eq!(split_event_key(b"short"), None);

        let feedback = feedback_key(&key(42, "a:b"));
        assert_eq!(split_feedback_key(&feedback), Some(&key(42, "a:b")[..]));
        assert_eq!(split_feedback_key(META_COUNTERS.as_bytes()), None);
        assert!(alert_key(9) < alert_key(10) && alert_key(10) < alert_key(u64::MAX));
        assert_eq!(split_alert_key(alert_key(10).as_bytes()), Some(10));
        assert_eq!(split_alert_key(alert_target_key("7").as_bytes()), None);
        let event = key(1_735_689_600_000, "evt:1");
        let stretch = stretch_of(&event);
        let (from_ms, end_ms) = stretch_ms(stretch);
        assert!(time_prefix(from_ms) <= event && event < time_prefix(end_ms));
        assert_eq!(
            split_vector_sum_key(&vector_sum_key(stretch)),
            Some(stretch)
        );
        assert_eq!(split_vector_sum_key(META_VECTORS.as_bytes()), None);
        assert!(vector_sum_key(9) < vector_sum_key(10));
        assert_eq!(split_stretch_key(&stretch_key(stretch)), Some(stretch));
        assert_eq!(split_stretch_key(META_STRETCHES.as_bytes()), None);
        assert!(
            stretch_key(9) < stretch_key(10) && stretch_key(10)[..] < *META_STRETCH_END.as_bytes()
        );
        let last = stretch_of(&key(crate::record::TIMESTAMP_MS_MAX, "e"));
        assert!(vector_sum_key(last - 1) < vector_sum_key(last));
        for (task, user) in [
            ("", "alice"),
            ("", ""),
            ("kafka:t/3", "alice"),
            ("kafka:t/3", ""),
        ] {
            let key = baseline_key(task, user);
            assert_eq!(split_baseline_key(&key), Some((task, user)));
            assert!(key.starts_with(&task_prefix(task)) && key < task_end(task));
        }
        assert!(baseline_key("", "\u{10FFFF}") < task_end(""));
        assert!(task_end("") < task_prefix("a") && task_end("a") < task_prefix("b"));
        let mut user = Vec::new();
        push_user_key(&mut user, "alice", 7, "evt");
        assert_eq!(split_user_key(&user), Some((7, "evt")));
        let mut last = Vec::new();
        push_user_key(
            &mut last,
            "alice",
            crate::record::TIMESTAMP_MS_MAX,
            "\u{10FFFF}",
        );
        let alice = *user.first_chunk().expect("a hash comes first");
        assert!(last[..] < hash_end(alice)[..] && hash_end(alice)[..] > user[..]);
        assert_eq!(hash_end(alice)[..8], alice);
        let mut severity = Vec::new();
        push_severity_key(&mut severity, Severity::High, 7, "evt");
        assert_eq!(split_severity_key(&severity), Some((7, "evt")));
        for severity in Severity::ALL {
            assert_eq!(
                severity_of_byte(severity_byte(Some(severity))),
                Some(severity)
            );
        }
        assert_eq!(severity_of_byte(0), None);
    }

    /// Each of these was read as a key once: a sign as a digit, a task without a name, a stretch whose time
    /// no number holds. Whoever walked from the end of that task came to the same key again.
    #[test]
    fn what_is_no_key_of_ours_is_not_read_as_one() {
        assert_eq!(split_event_key(b"+00000000000000:evt"), None);
        assert_eq!(split_event_key(b"-00000000000001:evt"), None);
        assert_eq!(event_id_of_key(b"000000000000001"), b"");
        assert_eq!(split_baseline_key(b"\xFF\xFFalice"), None);
        assert_eq!(split_baseline_key(b"\xFF"), None);
        for digits in ["99999999999", "+000000001", "1", "9223372036854775807"] {
            let vectors = format!("{META_VECTORS_PREFIX}{digits}");
            assert_eq!(split_vector_sum_key(vectors.as_bytes()), None, "{digits}");
            let stretch = format!("{META_STRETCH_PREFIX}{digits}");
            assert_eq!(split_stretch_key(stretch.as_bytes()), None, "{digits}");
        }
        let last = split_stretch_key(&stretch_key(9_999_999_999)).expect("it has ten digits");
        assert!(stretch_ms(last).0 < stretch_ms(last).1);
        assert_eq!(split_alert_key(b"alert:+0000000000000000001"), None);
    }

    #[test]
    fn hashes_never_change() {
        // They are on disk: another value here needs a new SCHEMA_VERSION.
        assert_eq!(id_prefix("evt_1"), hash("evt_1").to_be_bytes());
        assert_eq!(hash(""), 0xd1fb_a762_150c_532c);
    }
}
