//! Has a model judge events. See `sg-analyze --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, analyze};

fn main() -> ExitCode {
    let args = analyze::AnalyzeArgs::parse();
    cli::exit(analyze::NAME, analyze::run(&args))
}
