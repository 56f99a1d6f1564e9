//! Serving over HTTP, in `sg-query serve` and within `sg-run`, and the keys for it.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};

use super::metrics::MetricsArgs;
use super::output::{Format, print_keys};
use super::query::examples;
use super::{Ended, secret};
use crate::metrics::{Metrics, Plan};
use crate::report::{say, warn};
use crate::serve::keys::{self, Role};
use crate::serve::{Bound, Databases, ServeConfig, Server, TlsFiles};
use crate::shutdown::Shutdown;
use crate::store::{Live, Store};

/// How often it is looked whether a signal has come.
const POLL: Duration = Duration::from_millis(20);

/// Whom to serve, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Serving")]
pub(super) struct ServingArgs {
    /// Serve over TLS, with this certificate and those between it and one that clients trust, in PEM
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Ask for a key that is in this file, which sg-query keys writes. Without it everybody on this
    /// machine may ask
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,

    /// A name of this host that may be asked for, beside the address and localhost
    #[arg(long, value_name = "NAME")]
    host_name: Vec<String>,

    /// Requests a second of each key, or of each address without one
    #[arg(long, value_name = "N", default_value = "100")]
    rate: NonZeroU32,
}

/// `sg-query serve`.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,

    #[command(flatten)]
    serving: ServingArgs,

    #[command(flatten)]
    metrics: MetricsArgs,

    /// No line on standard error for each request
    #[arg(short, long)]
    quiet: bool,
}

/// `sg-query keys`.
#[derive(Subcommand, Debug)]
pub(super) enum KeysCommand {
    /// Make a key and show it, once
    #[command(after_help = examples::KEYS_ADD, after_long_help = examples::KEYS_ADD)]
    Add {
        /// Whose it is, or what for
        #[arg(value_name = "NAME")]
        name: String,
        /// What it is for
        #[arg(long, value_enum, default_value_t = Role::Read)]
        role: Role,
        #[command(flatten)]
        file: KeyFileArgs,
    },
    /// The keys that there are
    #[command(after_help = examples::KEYS_LIST, after_long_help = examples::KEYS_LIST)]
    List(KeyFileArgs),
    /// Make a key worthless, also to a server that is running
    #[command(after_help = examples::KEYS_REVOKE, after_long_help = examples::KEYS_REVOKE)]
    Revoke {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        file: KeyFileArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct KeyFileArgs {
    /// The file of keys; only their hashes are in it
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
}

impl ServingArgs {
    /// Serving beside what this program does, if there is an address. Whatever can be wrong about it is
    /// found before there is a database.
    pub(super) fn beside(
        &self,
        program: &'static str,
        listen: Option<SocketAddr>,
        quiet: bool,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<Option<Bound>> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        self.bind(program, listen, quiet, metrics).map(Some)
    }

    /// Takes an address, without answering yet.
    pub(super) fn bind(
        &self,
        program: &'static str,
        listen: SocketAddr,
        quiet: bool,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<Bound> {
        // A file may name one of them; then it is no choice to do without TLS.
        ensure!(
            self.tls_cert.is_some() == self.tls_key.is_some(),
            "--tls-cert and --tls-key go together: name both"
        );
        if let Some(path) = &self.tls_key {
            secret::check(program, path);
        }
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        if !listen.ip().is_loopback() {
            ensure!(
                self.keys.is_some(),
                "others could ask at {listen} without a key: name a file of them with --keys, or listen \
                 at 127.0.0.1"
            );
            if tls.is_none() {
                warn(
                    program,
                    "keys and answers can be read on their way: serve over TLS with --tls-cert and --tls-key",
                );
            }
        }
        let config = ServeConfig {
            program,
            listen,
            tls,
            keys: self.keys.clone(),
            host_names: self.host_name.clone(),
            rate: self.rate,
            quiet,
            metrics,
        };
        Bound::new(config)
    }
}

/// Starts to answer, and says where.
pub(super) fn start(
    program: &'static str,
    bound: Bound,
    databases: Databases,
) -> anyhow::Result<Server> {
    let server = bound.serve(databases)?;
    say(program, &format!("listening on {}", server.url()));
    Ok(server)
}

/// Starts to answer questions to a store that this program writes to.
pub(super) fn start_beside(
    program: &'static str,
    bound: Bound,
    store: &Arc<Store>,
) -> anyhow::Result<Server> {
    let live = Live::of(Arc::clone(store), program);
    start(program, bound, Databases::of(vec![live]))
}

/// Serves until a signal asks for the end.
pub(super) fn run(
    program: &'static str,
    args: &ServeArgs,
    databases: Databases,
) -> anyhow::Result<Ended> {
    let shutdown = Shutdown::install()?;
    let plan = Plan {
        database: databases.folders().next().is_some(),
        requests: true,
        ..Plan::default()
    };
    let exporter = args.metrics.start(program, &plan, None, &shutdown)?;
    let metrics = exporter.metrics();
    for folder in metrics.iter().flat_map(|_| databases.folders()) {
        if let Some(metrics) = &metrics {
            metrics.watch(folder);
        }
    }
    let bound = (args.serving).bind(program, args.listen, args.quiet, metrics.clone())?;
    let server = start(program, bound, databases)?;
    if let Some(metrics) = &metrics {
        metrics.begin();
    }
    while !shutdown.is_requested() {
        thread::sleep(POLL);
    }
    server.end();
    Ok(Ended::Done)
}

/// Does what is asked of keys.
pub(super) fn run_keys(
    program: &str,
    command: &KeysCommand,
    format: Format,
) -> anyhow::Result<Ended> {
    match command {
        KeysCommand::Add { name, role, file } => {
            let key = keys::add(&file.keys, name, *role)?;
            let role = role.name();
            say(
                program,
                &format!("the {role} key {name}, which is not shown again:"),
            );
            writeln!(io::stdout(), "{key}")?;
            Ok(Ended::Done)
        }
        KeysCommand::List(file) => {
            let keys = keys::list(&file.keys)?;
            print_keys(&keys, format)?;
            Ok(if keys.is_empty() {
                Ended::Partly
            } else {
                Ended::Done
            })
        }
        KeysCommand::Revoke { name, file } => {
            let is_known = keys::revoke(&file.keys, name)?;
            ensure!(
                is_known,
                "there is no key {name} in {}",
                file.keys.display()
            );
            Ok(Ended::Done)
        }
    }
}
