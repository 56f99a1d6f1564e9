//! Makes metrics and puts them where all are gathered from. Names and labels are written down in this
//! program, so what the library has against some of them would show in the first test.

use prometheus::core::Collector;
use prometheus::{
    Gauge as FloatGauge, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::{Counter, Gauge};

/// Why no metric is refused.
const IS_RIGHT: &str = "its name and labels are as they have to be, and no other has the name";

pub(super) struct Maker<'a>(&'a Registry);

impl<'a> Maker<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self(registry)
    }

    pub(super) fn put(&self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect(IS_RIGHT);
    }

    fn made<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect(IS_RIGHT);
        self.put(collector.clone());
        collector
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Counter {
        self.made(Counter::new(name, help))
    }

    /// A counter for each value of a label, all at zero.
    pub(super) fn counters(
        &self,
        (name, help): (&str, &str),
        label: &str,
        values: &[&str],
    ) -> IntCounterVec {
        let counters = self.made(IntCounterVec::new(Opts::new(name, help), &[label]));
        for value in values {
            counters.with_label_values(&[value]).reset();
        }
        counters
    }

    /// One that counts parts of a thing.
    pub(super) fn float_counter(&self, name: &str, help: &str) -> prometheus::Counter {
        self.made(prometheus::Counter::new(name, help))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.made(Gauge::new(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.made(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn float_gauge(&self, name: &str, help: &str) -> FloatGauge {
        self.made(FloatGauge::new(name, help))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.made(Histogram::with_opts(options))
    }
}
