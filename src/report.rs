//! Words for people, on standard error. They may quote file names and messages that others chose,
//! so a terminal gets nothing it would obey; and a closed standard error stops nobody's work.

use std::io::{self, Write};

use crate::record::text::printable;

/// Writes one line: the program's name, then the text.
pub fn say(program: &str, text: &str) {
    // There is nobody left to tell that nobody listens.
    let _ = writeln!(io::stderr(), "{program}: {}", printable(text));
}
