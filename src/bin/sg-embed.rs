//! Gives events embeddings. See `sg-embed --help`.

use std::process::ExitCode;

use clap::Parser as _;
use streamguard::cli::{self, embed};

fn main() -> ExitCode {
    let args = embed::EmbedArgs::parse();
    cli::exit(embed::NAME, embed::run(&args))
}
