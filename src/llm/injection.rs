//! Finds fields in which somebody talks to a language model: nobody's user agent asks to be called
//! benign. It says that somebody does, not whether a model would obey. It looks at text only; what
//! is done about it is up to others.

mod decode;
mod fold;
mod hidden;
mod phrases;
mod rules;

use std::borrow::Cow;

/// How much of a text is looked at: of a longer one as much at either end. An event is shorter unless
/// somebody has raised the limit of a line.
const LOOKED_AT_BYTES_MAX: usize = 1 << 20;
/// Escapes of escapes: a proxy decodes once, what is behind it once more.
const UNESCAPED_TIMES_MAX: usize = 2;

/// What was found in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the text tries: `instruction_override`, `role_marker`, `role_change`, `verdict_request`,
    /// `prompt_exfiltration`, `model_addressed`, or `hidden_text` where nobody sees that there is any.
    pub code: &'static str,
    /// How it is written: `plain` (in whatever letters), `escaped`, `encoded` or `hidden`.
    pub form: &'static str,
}

/// The first attempt in `text`, if there is one. Takes time in proportion to the text, 1 MiB at most.
#[must_use]
pub fn find(text: &str) -> Option<Found> {
    let text = &*both_ends(text, LOOKED_AT_BYTES_MAX);
    let look = |text: &str, form| {
        let code = rules::first(&fold::fold(text))?;
        Some(Found { code, form })
    };
    let look_inside = |text: &str| look(&decode::decoded(text)?, "encoded");
    if let Some(found) = look(text, "plain").or_else(|| look_inside(text)) {
        return Some(found);
    }
    let mut current = Cow::Borrowed(text);
    for _ in 0..UNESCAPED_TIMES_MAX {
        let Some(unescaped) = decode::unescaped(&current) else {
            break;
        };
        let found = look(&unescaped, "escaped").or_else(|| look_inside(&unescaped));
        if found.is_some() {
            return found;
        }
        current = unescaped.into();
    }
    hidden::is_any(&current).then_some(Found {
        code: "hidden_text",
        form: "hidden",
    })
}

/// At most `n_bytes_max` of a text, half of them from its end.
fn both_ends(text: &str, n_bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= n_bytes_max {
        return text.into();
    }
    // A character that is cut becomes a replacement character, which is no letter.
    let bytes = text.as_bytes();
    let first = String::from_utf8_lossy(&bytes[..n_bytes_max / 2]);
    let last = String::from_utf8_lossy(&bytes[bytes.len() - n_bytes_max / 2..]);
    format!("{first} {last}").into()
}

#[cfg(test)]
mod tests;
