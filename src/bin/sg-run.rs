//! Reads, scores and stores events in one process. See `sg-run --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, run};

fn main() -> ExitCode {
    let args = run::RunArgs::parse();
    cli::exit(run::NAME, run::run(&args))
}
