//! Answers questions about a store. See `sg-query --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, query};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = query::QueryArgs::parse();
    cli::exit(query::NAME, query::run(&args))
}
