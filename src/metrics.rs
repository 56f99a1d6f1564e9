//! What a program tells of itself to whoever watches it: counters, gauges and histograms by the names
//! that `docs/metrics.md` lists, and whether it takes events. It does not know who reads them, nor
//! where. This module and those below it are the only ones that name `prometheus`.
//!
//! Whoever counts does so once a batch; what would take a look at files, stores or locks is sampled when
//! somebody reads.

mod alerting;
mod answers;
mod database;
mod file;
mod flow;
mod health;
mod make;
mod requests;
mod scores;
mod top;
mod topics;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{Registry, TextEncoder};

pub use alerting::Alerting;
pub use answers::{Answers, Asked};
pub use database::Database;
pub use file::MetricsFile;
pub use flow::{Flow, Leaving, Passed};
pub use requests::Requests;
pub use scores::{Scores, Seen};
pub use topics::{Lag, Topics};

use crate::shutdown::Shutdown;
use health::Health;
use make::Maker;

/// A number that only grows.
pub type Counter = prometheus::IntCounter;
/// A number that comes and goes.
pub type Gauge = prometheus::IntGauge;

/// What the text is, for whoever is sent it.
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

/// Series of single users at the most.
pub const USERS_MAX: usize = 100;

/// What a program has that can be counted.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing that a program has or has not"
)]
#[derive(Debug, Default)]
pub struct Plan {
    /// Stages that events pass, in order; without any, no events pass.
    pub stages: Vec<&'static str>,
    pub scores: bool,
    /// How many of the users with the most anomalies are named.
    pub n_users: usize,
    /// A language model is asked.
    pub answers: bool,
    /// There is a database, or a folder of baselines.
    pub database: bool,
    pub alerts: bool,
    /// Events come from topics.
    pub topics: bool,
    /// Requests are answered.
    pub requests: bool,
}

/// All metrics of a program. What it does not have is none.
pub struct Metrics {
    registry: Registry,
    program: &'static str,
    health: Health,
    samplers: Mutex<Vec<Sampler>>,
    pub flow: Option<Flow>,
    pub scores: Option<Scores>,
    pub answers: Option<Answers>,
    pub database: Option<Database>,
    pub alerting: Option<Alerting>,
    pub topics: Option<Topics>,
    pub requests: Option<Requests>,
}

/// Something that is looked at when somebody reads, but not more often than its interval.
struct Sampler {
    interval: Duration,
    last: Option<Instant>,
    sample: Box<dyn FnMut() + Send>,
}

/// How often folders are looked at.
const FOLDER_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is counted what waits in a store, which takes a walk through all of it.
const WALK_INTERVAL: Duration = Duration::from_secs(15);

impl Metrics {
    /// The metrics of a program, all of them at zero.
    #[must_use]
    pub fn new(program: &'static str, plan: &Plan, shutdown: &Shutdown) -> Arc<Self> {
        let registry = Registry::new();
        let maker = Maker::new(&registry);
        let build = maker.gauges(
            "streamguard_build_info",
            "Which program and version it is; always 1.",
            &["program", "version"],
        );
        build
            .with_label_values(&[program, env!("CARGO_PKG_VERSION")])
            .set(1);
        maker.put(ProcessCollector::for_self());
        let has = |is_there: bool| is_there.then_some(&maker);
        let flow = has(!plan.stages.is_empty()).map(|maker| Flow::new(maker, &plan.stages));
        let metrics = Self {
            flow,
            scores: has(plan.scores).map(|maker| Scores::new(maker, plan.n_users)),
            answers: has(plan.answers).map(Answers::new),
            database: has(plan.database).map(Database::new),
            alerting: has(plan.alerts).map(Alerting::new),
            topics: has(plan.topics).map(Topics::new),
            requests: has(plan.requests).map(Requests::new),
            program,
            health: Health::new(shutdown),
            samplers: Mutex::default(),
            registry,
        };
        Arc::new(metrics)
    }

    /// All of it in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let _alone = self.sample(false);
        encode(&self.registry.gather())
    }

    /// The same for a file that is read among others by a program with metrics of its own: without those
    /// of the process, and each with labels that tell it from what other programs have written.
    fn text_of_file(&self, name: &str, is_last: bool) -> String {
        let _alone = self.sample(is_last);
        let mut families = self.registry.gather();
        families.retain(|family| !family.name().starts_with("process_"));
        for family in &mut families {
            let is_build = family.name() == "streamguard_build_info";
            for metric in family.mut_metric() {
                let mut labels = metric.take_label();
                if !is_build {
                    labels.push(label("program", self.program));
                }
                labels.push(label("file", name));
                labels.sort_by(|a, b| a.name().cmp(b.name()));
                metric.set_label(labels);
            }
        }
        encode(&families)
    }

    /// Events are taken from now on.
    pub fn begin(&self) {
        self.health.begin();
    }

    /// No more are taken.
    pub fn drain(&self) {
        self.health.drain();
    }

    /// The program does nothing any more.
    pub fn end(&self) {
        self.health.end();
    }

    /// Whether the program still works.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.health.is_alive()
    }

    /// Why no events are taken, if so it is.
    #[must_use]
    pub fn hindrance(&self) -> Option<String> {
        self.health.hindrance().or_else(|| {
            let database = self.database.as_ref()?;
            database.hindrance()
        })
    }

    /// Asks this, too, what keeps the program from taking events.
    pub fn ask(&self, hindrance: impl Fn() -> Option<String> + Send + 'static) {
        self.health.ask(Box::new(hindrance));
    }

    /// Tells of the files in a folder from now on, and of the disk that they are on.
    pub fn watch(self: &Arc<Self>, folder: &Path) {
        let Some(database) = &self.database else {
            return;
        };
        database.watch(folder);
        let metrics = Arc::downgrade(self);
        self.add_sampler(FOLDER_INTERVAL, move || {
            let metrics = metrics.upgrade();
            if let Some(database) = metrics.as_ref().and_then(|it| it.database.as_ref()) {
                database.sample();
            }
        });
    }

    /// Looks at this when somebody reads; it is to be quick.
    pub fn look(&self, sample: impl FnMut() + Send + 'static) {
        self.add_sampler(Duration::ZERO, sample);
    }

    /// The same for what takes a while.
    pub fn look_now_and_then(&self, sample: impl FnMut() + Send + 'static) {
        self.add_sampler(WALK_INTERVAL, sample);
    }

    fn add_sampler(&self, interval: Duration, sample: impl FnMut() + Send + 'static) {
        lock(&self.samplers).push(Sampler {
            interval,
            last: None,
            sample: Box::new(sample),
        });
    }

    /// Looks at what is not counted; at all of it with the last reading. Who reads keeps what this returns
    /// meanwhile: users are named anew by the next one.
    fn sample(&self, is_last: bool) -> MutexGuard<'_, Vec<Sampler>> {
        let mut samplers = lock(&self.samplers);
        for sampler in &mut *samplers {
            let is_due = sampler
                .last
                .is_none_or(|last| last.elapsed() >= sampler.interval);
            if is_due || is_last {
                (sampler.sample)();
                sampler.last = Some(Instant::now());
            }
        }
        if let Some(scores) = &self.scores {
            scores.name_users();
        }
        samplers
    }
}

fn encode(families: &[MetricFamily]) -> String {
    let text = TextEncoder::new().encode_to_string(families);
    text.expect("families without samples are not gathered, and memory takes every write")
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

/// A counter becomes what was counted elsewhere.
fn catch_up(counter: &Counter, n: u64) {
    counter.inc_by(n.saturating_sub(counter.get()));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is counted may be wrong by one then, not more.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
