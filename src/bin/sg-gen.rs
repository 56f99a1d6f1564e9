//! Makes up events. See `sg-gen --help`.

use std::process::ExitCode;

use streamguard::cli::{self, generate};

fn main() -> ExitCode {
    cli::main(generate::NAME, generate::run)
}
