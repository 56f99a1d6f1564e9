//! Scores events. See `sg-score --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, score};

fn main() -> ExitCode {
    let args = score::ScoreArgs::parse();
    cli::exit(score::NAME, score::run(&args))
}
