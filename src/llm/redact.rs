//! Names and addresses that a service is not to see. Within a request each has one stand-in; in the
//! reply the stand-ins become what they stood for.

use std::collections::HashMap;
use std::net::IpAddr;

/// What is not to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// The event's user, wherever the name stands, and its part before an `@` or behind a `\`.
    pub user: bool,
    /// All addresses.
    pub ip: bool,
}

/// The stand-ins of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Pseudonyms {
    redact: Redact,
    /// Names in lower case, the longest first, what they are, and what stands for them.
    names: Vec<(String, String, String)>,
    /// In the order in which they came, which is what their stand-ins count by.
    addresses: Vec<IpAddr>,
    numbers: HashMap<IpAddr, usize>,
}

/// What stand-ins of addresses begin with.
const IP: &str = "ip-";

/// Names that are shorter are hidden where they stand alone only.
const NAME_BYTES_MIN: usize = 3;

impl Pseudonyms {
    pub(super) fn new(redact: Redact, user: &str) -> Self {
        let mut names = Vec::new();
        if redact.user {
            let mut add = |name: &str, stand_in: &str| {
                let lower = name.to_ascii_lowercase();
                if !name.is_empty() && names.iter().all(|(known, _, _)| *known != lower) {
                    names.push((lower, name.to_owned(), stand_in.to_owned()));
                }
            };
            add(user, "user-1");
            let of_address = user.split_once('@').map(|(name, _)| name);
            let of_domain = user.rsplit_once('\\').map(|(_, name)| name);
            for name in [of_address, of_domain].into_iter().flatten() {
                add(name, "user-1-name");
            }
            names.sort_by_key(|(name, _, _)| std::cmp::Reverse(name.len()));
        }
        Self {
            redact,
            names,
            addresses: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// A text in which nothing is left of what is not to be seen.
    pub(super) fn hide(&mut self, text: &str) -> String {
        let text = self.hide_names(text);
        if self.redact.ip {
            self.hide_addresses(&text)
        } else {
            text
        }
    }

    fn hide_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, _, stand_in) in &self.names {
            // Upper and lower case of ASCII have the same length, so places are the same.
            let lower = text.to_ascii_lowercase();
            let mut output = String::with_capacity(text.len());
            let mut from = 0;
            for (at, _) in lower.match_indices(name.as_str()) {
                let end = at + name.len();
                let is_alone = !lower[..at].ends_with(char::is_alphanumeric)
                    && !lower[end..].starts_with(char::is_alphanumeric);
                if is_alone || name.len() >= NAME_BYTES_MIN {
                    output.push_str(&text[from..at]);
                    output.push_str(stand_in);
                    from = end;
                }
            }
            output.push_str(&text[from..]);
            text = output;
        }
        text
    }

    fn hide_addresses(&mut self, text: &str) -> String {
        let is_part = |character: char| character.is_ascii_hexdigit() || ".:".contains(character);
        let mut output = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            self.push_word(word, &mut output);
            let length = after.find(is_part).unwrap_or(after.len());
            output.push_str(&after[..length]);
            rest = &after[length..];
        }
        output
    }

    /// Appends a run of digits, dots and colons, or what stands for the address in it.
    fn push_word(&mut self, word: &str, output: &mut String) {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        // A sentence may end behind an address, and a port may follow one.
        let trimmed = word.trim_end_matches(['.', ':']);
        let without_port = trimmed
            .rsplit_once(':')
            .map_or(trimmed, |(before, _)| before);
        for part in [word, trimmed, without_port] {
            if let Some(address) = address(part) {
                output.push_str(&self.stand_in(address));
                output.push_str(&word[part.len()..]);
                return;
            }
        }
        output.push_str(word);
    }

    fn stand_in(&mut self, address: IpAddr) -> String {
        let number = self.numbers.entry(address).or_insert_with(|| {
            self.addresses.push(address);
            self.addresses.len()
        });
        format!("{IP}{number}")
    }

    /// Addresses that have a stand-in.
    #[cfg(test)]
    pub(super) fn n_addresses(&self) -> usize {
        self.addresses.len()
    }

    /// A text in which stand-ins are what they stand for.
    pub(super) fn show(&self, text: &str) -> String {
        let mut text = self.show_addresses(text);
        // `user-1-name` before `user-1`.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(_, _, stand_in)| std::cmp::Reverse(stand_in.len()));
        for (_, name, stand_in) in names {
            text = text.replace(stand_in, name);
        }
        text
    }

    fn show_addresses(&self, text: &str) -> String {
        let mut output = String::with_capacity(text.len());
        let mut pieces = text.split(IP);
        output.extend(pieces.next());
        for piece in pieces {
            // `ip-12`, if there are so many, and not `ip-1` with a 2 behind it.
            let n_digits_max = piece.bytes().take_while(u8::is_ascii_digit).count().min(9);
            let address = |n_digits: usize| {
                let digits = &piece[..n_digits];
                let number = digits.parse::<usize>().ok();
                let number = number.filter(|_| !digits.starts_with('0'))?;
                Some((n_digits, self.addresses.get(number - 1)?))
            };
            match (1..=n_digits_max).rev().find_map(address) {
                Some((n_digits, address)) => {
                    output.push_str(&address.to_string());
                    output.push_str(&piece[n_digits..]);
                }
                None => {
                    output.push_str(IP);
                    output.push_str(piece);
                }
            }
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_comes_back() {
        let redact = Redact {
            user: true,
            ip: true,
        };
        let check = |user: &str, text: &str, hidden: &str| {
            let mut pseudonyms = Pseudonyms::new(redact, user);
            assert_eq!(pseudonyms.hide(text), hidden);
            assert_eq!(pseudonyms.show(hidden), text);
        };
        check(
            "alice@corp.example",
            "alice@corp.example of /home/alice from 203.0.113.7:22, 2001:db8::1.",
            "user-1 of /home/user-1-name from ip-1:22, ip-2.",
        );
        check("CORP\\bob", "bob CORP\\bob", "user-1-name user-1");
        check("ed", "ed edits as ed.", "user-1 edits as user-1.");
        check("u", "10.0.0.1 10.0.0.1 at 08:30", "ip-1 ip-1 at 08:30");
        let many: Vec<_> = (0..12).map(|i| format!("10.0.0.{i}")).collect();
        let mut pseudonyms = Pseudonyms::new(redact, "u");
        let hidden = pseudonyms.hide(&many.join(" "));
        assert!(!hidden.contains("10.0"), "{hidden}");
        assert_eq!(pseudonyms.show(&hidden), many.join(" "));
        for (text, expected) in [
            ("ip-12ip-123 ip-1", "10.0.0.1110.0.0.113 10.0.0.0"),
            ("ip-13 ip-99", "10.0.0.03 10.0.0.89"),
            ("ip-0 ip-01 ip- ip-x zip-2", "ip-0 ip-01 ip- ip-x z10.0.0.1"),
            ("ip-ip-2", "ip-10.0.0.1"),
            ("ip-99999999999999999999", "10.0.0.89999999999999999999"),
        ] {
            assert_eq!(pseudonyms.show(text), expected, "{text}");
        }
        let mut pseudonyms = Pseudonyms::new(redact, "Alice");
        assert_eq!(pseudonyms.hide("ALICE"), "user-1");
    }
}
