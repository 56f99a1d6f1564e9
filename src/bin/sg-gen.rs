//! Makes up events. See `sg-gen --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, generate};

fn main() -> ExitCode {
    let args = generate::GenArgs::parse();
    cli::exit(generate::NAME, generate::run(&args))
}
