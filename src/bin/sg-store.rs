//! Stores events, and cares for the store. See `sg-store --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, store};

fn main() -> ExitCode {
    let args = store::StoreArgs::parse();
    cli::exit(store::NAME, store::run(&args))
}
