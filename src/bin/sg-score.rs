//! Scores events. See `sg-score --help`.

use std::process::ExitCode;

use streamguard::cli::{self, score};

fn main() -> ExitCode {
    cli::main(score::NAME, score::run)
}
