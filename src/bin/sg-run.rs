//! Reads, scores and stores events in one process. See `sg-run --help`.

use std::process::ExitCode;

use streamguard::cli::{self, run};

fn main() -> ExitCode {
    cli::main(run::NAME, run::run)
}
