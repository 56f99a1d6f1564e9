//! Programs on a real Apache Kafka, which `scripts/kafka` starts, or the one that `SG_KAFKA_BROKERS`
//! names.

mod alerts;
mod broker;
mod consume;
mod metrics;
mod pipe;
mod run;
mod scale;
mod transactions;
mod trouble;
