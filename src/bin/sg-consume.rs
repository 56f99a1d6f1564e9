//! Reads and checks events. See `sg-consume --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, consume};

fn main() -> ExitCode {
    let args = consume::ConsumeArgs::parse();
    cli::exit(consume::NAME, consume::run(&args))
}
