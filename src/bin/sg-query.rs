//! Answers questions about a store. See `sg-query --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, query};

fn main() -> ExitCode {
    let args = query::QueryArgs::parse();
    cli::exit(query::NAME, query::run(&args))
}
