//! Stores events, and cares for the store. See `sg-store --help`.

use std::process::ExitCode;

use streamguard::cli::{self, store};

fn main() -> ExitCode {
    cli::main(store::NAME, store::run)
}
