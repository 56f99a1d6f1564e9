//! Answers questions about a store. See `sg-query --help`.

use std::process::ExitCode;

use streamguard::cli::{self, query};

fn main() -> ExitCode {
    cli::main(query::NAME, query::run)
}
