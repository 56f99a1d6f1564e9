//! Metrics of a program: whether, where and of whom they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use clap::Args;

use crate::io::dead_letter::DeadLetters;
use crate::metrics::{Metrics, MetricsFile, Plan, USERS_MAX};
use crate::report::say;
use crate::serve::MetricsServer;
use crate::shutdown::Shutdown;

/// Where metrics are told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub(super) struct MetricsArgs {
    /// Serve metrics for Prometheus at /metrics, and /health and /ready, as long as the program runs; a port
    /// without an address is for this machine alone, port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    metrics_listen: Option<SocketAddr>,

    #[arg(
        long,
        value_name = "FILE",
        help = "Write metrics to FILE every 15 s and at the end, in place of those before; node_exporter reads files that end in .prom"
    )]
    metrics_file: Option<PathBuf>,
}

/// The same for programs that know of whom they tell.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub(super) struct ScoreMetricsArgs {
    #[command(flatten)]
    metrics: MetricsArgs,

    /// Name the K users with the most anomalies in metrics, 100 at the most; others who may read metrics may
    /// read these names
    #[arg(long, value_name = "K",
          value_parser = clap::value_parser!(u16).range(1..=USERS_MAX as i64))]
    metrics_users: Option<u16>,
}

/// Tells metrics as long as it is there.
pub(super) struct Exporter {
    metrics: Option<Arc<Metrics>>,
    // In this order: the file is written once more, and the server is there until then.
    _file: Option<MetricsFile>,
    _server: Option<MetricsServer>,
}

impl MetricsArgs {
    /// Begins to tell, if anybody wants to know, also of the files in a folder if there is one.
    ///
    /// # Errors
    /// If the address is not to be had.
    pub(super) fn start(
        &self,
        program: &'static str,
        plan: &Plan,
        folder: Option<&Path>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Exporter> {
        if self.metrics_listen.is_none() && self.metrics_file.is_none() {
            return Ok(Exporter {
                metrics: None,
                _file: None,
                _server: None,
            });
        }
        let metrics = Metrics::new(program, plan, shutdown);
        if let Some(folder) = folder {
            metrics.watch(folder);
        }
        let serve = |listen| MetricsServer::start(listen, Arc::clone(&metrics));
        let server = self.metrics_listen.map(serve).transpose()?;
        if let Some(server) = &server {
            say(program, &format!("metrics at {}", server.url()));
        }
        let path = self.metrics_file.as_deref();
        let file = path.map(|path| MetricsFile::start(&metrics, path));
        Ok(Exporter {
            _file: file.transpose()?,
            _server: server,
            metrics: Some(metrics),
        })
    }
}

impl ScoreMetricsArgs {
    /// Begins to tell, if anybody wants to know.
    ///
    /// # Errors
    /// If the address is not to be had, or nobody would hear of users.
    pub(super) fn start(
        &self,
        program: &'static str,
        plan: Plan,
        folder: Option<&Path>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Exporter> {
        let is_told = self.metrics.metrics_listen.is_some() || self.metrics.metrics_file.is_some();
        ensure!(
            self.metrics_users.is_none() || is_told,
            "--metrics-users goes with --metrics-listen or --metrics-file"
        );
        let plan = Plan {
            scores: true,
            n_users: self.metrics_users.map_or(0, usize::from),
            ..plan
        };
        self.metrics.start(program, &plan, folder, shutdown)
    }
}

impl Exporter {
    /// What is to be counted, if anything is.
    pub(super) fn metrics(&self) -> Option<Arc<Metrics>> {
        self.metrics.clone()
    }

    /// Counts what becomes dead letters.
    pub(super) fn count_letters(&self, dead_letters: &DeadLetters) {
        let flow = self
            .metrics
            .as_ref()
            .and_then(|metrics| metrics.flow.as_ref());
        if let Some(flow) = flow {
            dead_letters.count(&flow.dead_letters);
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.end();
        }
    }
}

/// `127.0.0.1:8080`, `localhost:8080`, `8080`, `:8080`.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:");
    let port = port.or_else(|| text.strip_prefix(':')).unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let expected = "expected an address and a port, such as 127.0.0.1:8080, or a port";
    text.parse().map_err(|_| expected.to_owned())
}
