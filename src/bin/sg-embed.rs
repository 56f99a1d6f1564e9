//! Gives events embeddings. See `sg-embed --help`.

use std::process::ExitCode;

use streamguard::cli::{self, embed};

fn main() -> ExitCode {
    cli::main(embed::NAME, embed::run)
}
