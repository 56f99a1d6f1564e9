//! Finds what is known of a member by its name. Most names of a record are of nobody's interest: that, too, is known
//! after one look.

/// The members of an object that are looked at, by their names.
#[derive(Default)]
pub(super) struct Names {
    entries: Vec<Entry>,
    /// A name is at the place that its hash says or behind it; an empty cell ends the search.
    table: Box<[Cell]>,
    shift: u32,
}

struct Entry {
    name: Box<str>,
    /// What is known of the name as it is, and of the same in other letters.
    exact: Known,
    folded: Known,
}

/// A name's beginning, its end if it is longer than that, its length, and the number of its entry from 1; 0 if there is
/// none.
#[derive(Clone, Copy, Default)]
struct Cell {
    word: u64,
    last: u64,
    length: u32,
    number: u32,
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

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
        // Three quarters are free, so that a search is short and ends.
        let n_bits = (entries.len() * 4).next_power_of_two().max(2).ilog2();
        let mut names = Self {
            table: vec![Cell::default(); 1 << n_bits].into(),
            shift: u64::BITS - n_bits,
            entries,
        };
        for (number, entry) in names.entries.iter().enumerate() {
            let name = entry.name.as_bytes();
            let cell = Cell {
                number: number as u32 + 1,
                ..Cell::of(name, 0, name.len())
            };
            let mut at = names.start(&cell);
            while names.table[at].number != 0 {
                at = (at + 1) % names.table.len();
            }
            names.table[at] = cell;
        }
        names
    }

    /// Where the search for a name begins; letters of either case are the same.
    #[inline]
    fn start(&self, name: &Cell) -> usize {
        /// 2^64 divided by the golden ratio: spreads what differs in few bits (Knuth, TAOCP 3, 6.4).
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let hash = (name.word | FOLD)
            .wrapping_add(u64::from(name.length))
            .wrapping_mul(SPREAD);
        (hash >> self.shift) as usize
    }

    /// What is known of the name that stands in a text.
    #[inline]
    pub(super) fn find(&self, text: &[u8], start: usize, end: usize) -> &Known {
        let name = Cell::of(text, start, end);
        let mut is_folded = false;
        let mut at = self.start(&name);
        while let Some(cell) = self.table.get(at & self.table.len().wrapping_sub(1)) {
            if cell.number == 0 {
                break;
            }
            if cell.length == name.length && (cell.word ^ name.word) & !FOLD == 0 {
                let entry = &self.entries[cell.number as usize - 1];
                if cell.word == name.word
                    && cell.last == name.last
                    && (end - start <= 2 * WORD
                        || entry.name.as_bytes()[WORD..] == text[start + WORD..end])
                {
                    return &entry.exact;
                }
                is_folded = true;
            }
            at += 1;
        }
        if is_folded {
            return self.find_folded(&text[start..end], self.start(&name));
        }
        &NOTHING
    }

    #[cold]
    fn find_folded(&self, name: &[u8], start: usize) -> &Known {
        let (before, after) = self.table.split_at(start);
        let cells = after.iter().chain(before);
        let cells = cells.take_while(|cell| cell.number != 0);
        let mut entries = cells.map(|cell| &self.entries[cell.number as usize - 1]);
        let same = entries.find(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name));
        same.map_or(&NOTHING, |entry| &entry.folded)
    }
}

impl Cell {
    /// Of a name that stands in a text.
    #[inline]
    fn of(text: &[u8], start: usize, end: usize) -> Self {
        let length = end - start;
        let at = |start: usize| text.get(start..).and_then(<[u8]>::first_chunk::<WORD>);
        let word = match at(start) {
            Some(word) if length >= WORD => u64::from_le_bytes(*word),
            Some(word) => u64::from_le_bytes(*word) & ((1 << (length * 8)) - 1),
            None => {
                let bytes = text[start..end].iter().rev();
                bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        };
        let last = if length > WORD { at(end - WORD) } else { None };
        Self {
            word,
            last: last.map_or(0, |word| u64::from_le_bytes(*word)),
            length: length as u32,
            number: 0,
        }
    }
}

const NOTHING: Known = Known {
    place: None,
    sign: None,
};

/// The bit in which letters of either case differ, of each byte.
const FOLD: u64 = 0x2020_2020_2020_2020;

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
            "address",
            "addresse",
            "addressee",
            "addresses_of_all",
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
        // The one byte that is in neither of two words.
        check("requestPbrameters", None, None);
        check("requestpArameters", Some((5, false)), None);
        for (i, name) in ["address", "addresse", "addressee", "addresses_of_all"]
            .into_iter()
            .enumerate()
        {
            check(name, Some((9 + i as u16, true)), None);
            check(&name.to_uppercase(), Some((9 + i as u16, false)), None);
        }
        check("addresst", None, None);
        check("addresses", None, None);
        check("addresses_of_alk", None, None);
        check("requestid", Some((6, false)), None);
        check("EventId", None, Some((1, false)));
        check("usex", None, None);
        check("users", None, None);
        check("\u{7f}type", None, None);
        let none = Names::new(&[], &[]);
        assert!(none.find(b"user", 0, 4).place.is_none());
    }
}
