//! Reads and checks events. See `sg-consume --help`.

use std::process::ExitCode;

use streamguard::cli::{self, consume};

fn main() -> ExitCode {
    cli::main(consume::NAME, consume::run)
}
