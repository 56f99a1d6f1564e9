//! The broker under the tests, and topics on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use tempfile::TempDir;

/// A cluster in a folder of its own.
pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) address: String,
}

fn script(dir: &Path, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let output = Command::new(script)
        .args(args)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "scripts/kafka {args:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

impl Cluster {
    pub(crate) fn up(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = script(folder.path(), &[&["up"], args].concat());
        Self { folder, address }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn stop(&self, args: &[&str]) {
        script(self.folder.path(), &[&["stop"], args].concat());
    }

    pub(crate) fn start(&self, args: &[&str]) {
        script(self.folder.path(), &[&["start"], args].concat());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script(self.folder.path(), &["down"]);
    }
}

/// The address of the broker that all tests share. It is stopped once this process has ended.
pub(crate) fn shared() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        if let Ok(address) = std::env::var("SG_KAFKA_BROKERS") {
            return address;
        }
        let dir = tempfile::tempdir().unwrap().keep();
        let address = script(&dir, &["up"]);
        let root = env!("CARGO_MANIFEST_DIR");
        // In the background of a shell that ends at once.
        let watch = format!(
            "(while kill -0 {}; do sleep 0.5; done; {root}/scripts/kafka down --dir {}) &",
            std::process::id(),
            dir.display()
        );
        let status = Command::new("setsid")
            .args(["sh", "-c", &watch])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        address
    })
}

/// Makes a topic with a name of its own on the broker at an address.
pub(crate) fn topic_at(address: &str, n_partitions: i32, replicas: i32) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("test-{}-{next}", std::process::id());
    make_topic(address, &name, n_partitions, replicas);
    name
}

pub(crate) fn make_topic(address: &str, name: &str, n_partitions: i32, replicas: i32) {
    make_topic_with(
        address,
        name,
        n_partitions,
        replicas,
        ("retention.ms", "-1"),
    );
}

/// The same with a setting of the topic.
pub(crate) fn make_topic_with(
    address: &str,
    name: &str,
    n_partitions: i32,
    replicas: i32,
    (key, value): (&str, &str),
) {
    let topic = NewTopic::new(name, n_partitions, TopicReplication::Fixed(replicas));
    let topic = topic.set(key, value);
    let made = pollster::block_on(admin(address).create_topics([&topic], &options())).unwrap();
    assert_eq!(made, [Ok(name.to_owned())]);
}

pub(crate) fn remove_topic(address: &str, name: &str) {
    let removed = pollster::block_on(admin(address).delete_topics(&[name], &options())).unwrap();
    assert_eq!(removed, [Ok(name.to_owned())]);
}

/// Has the broker delete the messages of a topic's only partition before an offset.
pub(crate) fn delete_before(address: &str, topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 0, Offset::Offset(offset))
        .unwrap();
    // What was asked is answered through it, or never.
    let admin = admin(address);
    pollster::block_on(admin.delete_records(&before, &options())).unwrap();
}

fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).create().unwrap()
}

fn options() -> AdminOptions {
    let timeout = Some(Duration::from_secs(20));
    AdminOptions::new().operation_timeout(timeout)
}

/// Makes a topic on the shared broker.
pub(crate) fn topic(n_partitions: i32) -> String {
    topic_at(shared(), n_partitions, 1)
}

/// Sends lines to a topic of the shared broker, each under its user's name.
pub(crate) fn send(topic: &str, lines: &[u8]) {
    send_to(shared(), topic, lines);
}

pub(crate) fn send_to(address: &str, topic: &str, lines: &[u8]) {
    #[derive(Deserialize)]
    struct Event {
        user: String,
    }
    let lines = lines.split(|byte| *byte == b'\n');
    let messages = lines.filter(|line| !line.is_empty()).map(|line| {
        let user = serde_json::from_slice(line).map_or(String::new(), |event: Event| event.user);
        (user, line)
    });
    send_messages(address, topic, messages);
}

/// Sends messages with their keys.
pub(crate) fn send_messages<'a>(
    address: &str,
    topic: &str,
    messages: impl IntoIterator<Item = (String, &'a [u8])>,
) {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4");
    let producer: BaseProducer = config.create().unwrap();
    for (key, payload) in messages {
        let mut record = BaseRecord::to(topic).key(&key).payload(payload);
        while let Err((error, refused)) = producer.send(record) {
            let code = error.rdkafka_error_code();
            assert_eq!(code, Some(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Waits until something is so that takes brokers and groups some time.
pub(crate) fn wait_long(is_so: impl FnMut() -> bool) -> bool {
    crate::tools::wait_within(Duration::from_secs(60), is_so)
}
