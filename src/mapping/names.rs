//! Finds what is known of a member by its name. Most names of a record are of nobody's interest: that, too, is known
//! after one look.

/// The members of an object that are looked at, by their names.
#[derive(Default)]
pub(super) struct Names {
    entries: Vec<Entry>,
    /// Numbers of entries plus one, at the place that a name's hash says or behind it; 0 ends the search.
    table: Vec<u16>,
    shift: u32,
}

struct Entry {
    name: Box<str>,
    word: u64,
    /// What is known of the name as it is, and of the same in other letters.
    exact: Known,
    folded: Known,
}

/// The place of a member and that of a member by which formats are told, each with whether its name is written so, and
/// not only in other letters.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) place: Option<(u16, bool)>,
    pub(super) sign: Option<(u16, bool)>,
}

impl Names {
    /// Of names with the places of members, and of those by which formats are told. One that is written as a record
    /// writes it goes before the same in other letters, else the first.
    pub(super) fn new(members: &[(&str, u16)], signs: &[(&str, u16)]) -> Self {
        let known = |all: &[(&str, u16)], wanted: &str, is_exact: bool| {
            let is_same = |name: &str| {
                is_exact && name == wanted || !is_exact && name.eq_ignore_ascii_case(wanted)
            };
            let found = all.iter().find(|(name, _)| is_same(name));
            found.map(|&(_, place)| (place, is_exact))
        };
        let mut names: Vec<&str> = members.iter().chain(signs).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let entry = |name: &str| {
            let folded = Known {
                place: known(members, name, false),
                sign: known(signs, name, false),
            };
            Entry {
                name: name.into(),
                word: beginning(name.as_bytes(), 0, name.len()),
                exact: Known {
                    place: known(members, name, true).or(folded.place),
                    sign: known(signs, name, true).or(folded.sign),
                },
                folded,
            }
        };
        let entries: Vec<Entry> = names.into_iter().map(entry).collect();
        if entries.is_empty() {
            return Self::default();
        }
        // At least as much is free as is taken, so that a search is short and ends.
        let n_bits = (entries.len() * 2).next_power_of_two().max(2).ilog2();
        let mut names = Self {
            table: vec![0; 1 << n_bits],
            shift: u64::BITS - n_bits,
            entries,
        };
        for (number, entry) in names.entries.iter().enumerate() {
            let mut at = names.start(entry.word, entry.name.len());
            while names.table[at] != 0 {
                at = (at + 1) % names.table.len();
            }
            names.table[at] = number as u16 + 1;
        }
        names
    }

    /// Where the search for a name begins; letters of either case are the same.
    #[inline]
    fn start(&self, word: u64, length: usize) -> usize {
        /// 2^64 divided by the golden ratio: spreads what differs in few bits (Knuth, TAOCP 3, 6.4).
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let hash = (word | FOLD)
            .wrapping_add(length as u64)
            .wrapping_mul(SPREAD);
        (hash >> self.shift) as usize
    }

    /// What is known of the name that stands in a text.
    #[inline]
    pub(super) fn find(&self, text: &[u8], start: usize, end: usize) -> &Known {
        if self.entries.is_empty() {
            return &NOTHING;
        }
        let name = &text[start..end];
        let word = beginning(text, start, name.len());
        let mut is_folded = false;
        let mut at = self.start(word, name.len());
        while let Some(number) = (self.table[at] as usize).checked_sub(1) {
            let entry = &self.entries[number];
            let other = entry.name.as_bytes();
            if other.len() == name.len() {
                if entry.word == word && (other.len() <= 8 || other[8..] == name[8..]) {
                    return &entry.exact;
                }
                is_folded |= (entry.word ^ word) & !FOLD == 0;
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        if is_folded {
            return self.find_folded(name, self.start(word, name.len()));
        }
        &NOTHING
    }

    #[cold]
    fn find_folded(&self, name: &[u8], start: usize) -> &Known {
        let (before, after) = self.table.split_at(start);
        let numbers = after
            .iter()
            .chain(before)
            .take_while(|number| **number != 0);
        let mut entries = numbers.map(|number| &self.entries[*number as usize - 1]);
        let same = entries.find(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name));
        same.map_or(&NOTHING, |entry| &entry.folded)
    }
}

const NOTHING: Known = Known {
    place: None,
    sign: None,
};

/// The bit in which letters of either case differ, of each byte.
const FOLD: u64 = 0x2020_2020_2020_2020;

/// The first eight bytes of a name.
#[inline]
fn beginning(text: &[u8], start: usize, length: usize) -> u64 {
    match text.get(start..).and_then(<[u8]>::first_chunk::<8>) {
        Some(chunk) if length >= 8 => u64::from_le_bytes(*chunk),
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (length * 8)) - 1),
        None => {
            let bytes = text[start..start + length].iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        let members = [
            "user",
            "userName",
            "User",
            "x",
            "",
            "requestParameters",
            "requestId",
            "Requestid",
            "_type",
        ];
        let signs = ["USER", "eventID"];
        let number = |(i, name): (usize, &'static str)| (name, i as u16);
        let members: Vec<_> = members.into_iter().enumerate().map(number).collect();
        let signs: Vec<_> = signs.into_iter().enumerate().map(number).collect();
        let names = Names::new(&members, &signs);
        let check = |name: &str, place: Option<(u16, bool)>, sign: Option<(u16, bool)>| {
            // As the text's end, and with more behind it.
            for text in [
                name.to_owned(),
                format!("{name}\":\"and more"),
                format!("before{name}"),
            ] {
                let start = if text.starts_with("before") { 6 } else { 0 };
                let found = names.find(text.as_bytes(), start, start + name.len());
                assert_eq!(
                    (found.place, found.sign),
                    (place, sign),
                    "for {name} in {text}"
                );
            }
        };
        check("user", Some((0, true)), Some((0, false)));
        check("User", Some((2, true)), Some((0, false)));
        check("USER", Some((0, false)), Some((0, true)));
        check("x", Some((3, true)), None);
        check("X", Some((3, false)), None);
        check("", Some((4, true)), None);
        check("requestParameters", Some((5, true)), None);
        check("requestParameterz", None, None);
        check("requestid", Some((6, false)), None);
        check("EventId", None, Some((1, false)));
        check("usex", None, None);
        check("users", None, None);
        check("\u{7f}type", None, None);
        let none = Names::new(&[], &[]);
        assert!(none.find(b"user", 0, 4).place.is_none());
    }
}
