//! Has a model judge events. See `sg-analyze --help`.

use std::process::ExitCode;

use streamguard::cli::{self, analyze};

fn main() -> ExitCode {
    cli::main(analyze::NAME, analyze::run)
}
