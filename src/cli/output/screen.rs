//! What the terminal can show: its width, its characters, colours. Texts are cut and filled up to columns
//! of it, and quantities become bars.

use std::io::{self, IsTerminal as _};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::table_without_header;
use crate::record::anomaly::Severity;
use crate::record::text::printable;

/// Lines that are longer are hard to read.
const WIDTH_MAX: usize = 100;
const WIDTH_MIN: usize = 40;

/// Where an answer is shown.
pub(super) struct Screen {
    /// Columns that lines may take.
    pub(super) width: usize,
    /// More than ASCII.
    is_unicode: bool,
    has_colors: bool,
}

impl Screen {
    /// The one that standard output leads to, or a plain one where it leads elsewhere.
    pub(super) fn of_stdout() -> Self {
        let width = usize::from(table_without_header().width().unwrap_or_default());
        Self {
            width: width.clamp(WIDTH_MIN, WIDTH_MAX),
            is_unicode: is_unicode(),
            has_colors: has_colors(),
        }
    }

    /// Text that is safe to show, in `width` columns at most.
    pub(super) fn text(&self, text: &str, width: usize) -> String {
        let mut shown = printable(text).into_owned();
        if !self.is_unicode && !shown.is_ascii() {
            // A byte of such a character may be a control character there.
            shown = shown.chars().fold(String::new(), |shown, character| {
                if character.is_ascii() {
                    return shown + character.encode_utf8(&mut [0; 4]);
                }
                shown + &format!("<{:04X}>", character as u32)
            });
        }
        if shown.width() <= width {
            return shown;
        }
        let mark = if self.is_unicode { "…" } else { "..." };
        let mut n_columns = mark.width();
        let end = shown.char_indices().find(|(_, character)| {
            n_columns += character.width().unwrap_or(0);
            n_columns > width
        });
        shown.truncate(end.map_or(0, |(end, _)| end));
        shown + mark
    }

    /// The same, filled up with blanks.
    pub(super) fn filled(&self, text: &str, width: usize) -> String {
        let mut shown = self.text(text, width);
        let n_blanks = width.saturating_sub(shown.width());
        shown.extend(std::iter::repeat_n(' ', n_blanks));
        shown
    }

    /// The columns that a text takes.
    pub(super) fn columns(&self, text: &str) -> usize {
        self.text(text, usize::MAX).width()
    }

    /// A lying bar that is `share` (0 to 1) of `width` long, filled up with blanks. Something is never
    /// nothing.
    pub(super) fn bar(&self, share: f64, width: usize) -> String {
        let n_steps = if self.is_unicode { 8 } else { 1 };
        let n_eighths = (share * (width * n_steps) as f64).round() as usize;
        let least = usize::from(share > 0.0);
        let n_eighths = n_eighths.clamp(least, width * n_steps);
        let (n_full, rest) = (n_eighths / n_steps, n_eighths % n_steps);
        let full = if self.is_unicode { "█" } else { "#" };
        let mut bar = full.repeat(n_full);
        if rest > 0 {
            bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][rest - 1]);
        }
        let n_blanks = width - n_full - usize::from(rest > 0);
        bar + &" ".repeat(n_blanks)
    }

    /// The part of a standing bar that lies in one line; of its eight eighths so many are full.
    pub(super) fn standing(&self, n_eighths: usize) -> char {
        let characters = if self.is_unicode {
            [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            [' ', '.', '.', '.', ':', ':', ':', '#', '#']
        };
        characters[n_eighths.min(8)]
    }

    /// A darkness of four, or none.
    pub(super) fn shade(&self, darkness: usize) -> char {
        let characters = if self.is_unicode {
            [' ', '░', '▒', '▓', '█']
        } else {
            [' ', '.', ':', '+', '#']
        };
        characters[darkness.min(4)]
    }

    /// A severity in `width` columns; what has to be looked at is coloured.
    pub(super) fn severity(&self, severity: Severity, width: usize) -> String {
        let code = match severity {
            Severity::Critical => "1;31",
            Severity::High => "31",
            Severity::Medium => "33",
            Severity::Low => "",
        };
        if !self.has_colors || code.is_empty() {
            return format!("{severity:width$}");
        }
        let n_blanks = width.saturating_sub(severity.name().len());
        format!("\u{1b}[{code}m{severity}\u{1b}[0m{:n_blanks$}", "")
    }
}

/// Whether the locale's characters are those of Unicode.
fn is_unicode() -> bool {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let name = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(set);
    let locale = name.and_then(|name| std::env::var(name).ok());
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Whether colours are shown, and welcome (no-color.org).
fn has_colors() -> bool {
    let is_unwelcome = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
    io::stdout().is_terminal() && !is_unwelcome && !is_dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(is_unicode: bool) -> Screen {
        Screen {
            width: 60,
            is_unicode,
            has_colors: false,
        }
    }

    #[test]
    fn texts_are_cut_at_columns() {
        let check = |is_unicode: bool, text: &str, width: usize, expected: &str| {
            assert_eq!(screen(is_unicode).text(text, width), expected, "{text}");
        };
        check(true, "abcdef", 6, "abcdef");
        check(true, "abcdefg", 6, "abcde…");
        check(true, "日本語", 6, "日本語");
        check(true, "日本語", 5, "日本…");
        check(true, "日本語", 4, "日…");
        check(false, "abcdefg", 6, "abc...");
        check(false, "ü", 6, "<00FC>");
        check(true, "\u{1b}[2J", 20, "<001B>[2J");
        assert_eq!(screen(true).filled("日", 4), "日  ");
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        let check = |is_unicode: bool, share: f64, expected: &str| {
            assert_eq!(screen(is_unicode).bar(share, 4), expected, "{share}");
        };
        check(true, 0.0, "    ");
        check(true, 1.0, "████");
        check(true, 0.5, "██  ");
        check(true, 0.6, "██▍ ");
        check(true, 0.000_1, "▏   ");
        check(false, 0.6, "##  ");
        check(false, 0.000_1, "#   ");
        check(true, f64::NAN, "    ");
    }
}
