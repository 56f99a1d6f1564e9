//! Who has the most, by the space-saving summary of Metwally, Agrawal and El Abbadi: bounded, whatever is
//! sent. Whoever has more than one in [`ENTRIES_MAX`] of all is in it, and what it says of anybody is never
//! too much.

use std::collections::{BTreeSet, HashMap};

/// Names that are counted at the same time: ten for each that can be shown.
const ENTRIES_MAX: usize = 10 * super::USERS_MAX;
/// Bytes of a name that are kept: those whose names are longer and begin alike are one.
const NAME_BYTES_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Top {
    entries: Vec<Entry>,
    by_name: HashMap<Box<str>, usize>,
    /// Counts and whose they are.
    by_count: BTreeSet<(u64, usize)>,
}

struct Entry {
    name: Box<str>,
    count: u64,
    /// How much of it may be others'.
    error: u64,
}

impl Top {
    /// Counts one more of a name.
    pub(super) fn add(&mut self, name: &str) {
        let name = shortened(name);
        let i = match self.by_name.get(name) {
            Some(&i) => i,
            None => self.place_for(name),
        };
        let entry = &mut self.entries[i];
        self.by_count.remove(&(entry.count, i));
        entry.count += 1;
        self.by_count.insert((entry.count, i));
    }

    /// The place of a name that is not there: a new one, or that of whoever has the least, whose count it
    /// takes over.
    fn place_for(&mut self, name: &str) -> usize {
        let i = if self.entries.len() < ENTRIES_MAX {
            self.entries.push(Entry {
                name: name.into(),
                count: 0,
                error: 0,
            });
            self.entries.len() - 1
        } else {
            let &(least, i) = self.by_count.first().expect("there are as many as entries");
            let entry = &mut self.entries[i];
            self.by_name.remove(&entry.name);
            entry.name = name.into();
            entry.error = least;
            i
        };
        self.by_name.insert(name.into(), i);
        i
    }

    /// The names with the most, and how much they have at least.
    pub(super) fn first(&self, n: usize) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.entries.iter();
        let mut counts: Vec<(&str, u64)> = counts
            .map(|entry| (&*entry.name, entry.count - entry.error))
            .collect();
        counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        counts.into_iter().take(n)
    }
}

/// As much of a name as is kept.
fn shortened(name: &str) -> &str {
    let ends = name.char_indices().map(|(i, it)| i + it.len_utf8());
    match name.len() {
        0..=NAME_BYTES_MAX => name,
        _ => {
            &name[..ends
                .take_while(|&end| end <= NAME_BYTES_MAX)
                .last()
                .unwrap_or(0)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_most_stays_in_a_flood_of_others() {
        let mut top = Top::default();
        for i in 0..100_000 {
            top.add(&format!("once{i}"));
            // Two in a hundred, one in two hundred.
            if i % 50 == 0 {
                top.add("often");
            }
            if i % 200 == 0 {
                top.add("now and then");
            }
        }
        assert_eq!(top.entries.len(), ENTRIES_MAX);
        assert_eq!(top.by_name.len(), ENTRIES_MAX);
        assert_eq!(top.by_count.len(), ENTRIES_MAX);
        let first: Vec<_> = top.first(3).collect();
        assert_eq!(first[..2], [("often", 2_000), ("now and then", 500)]);
        assert_eq!(first[2].1, 1, "never too much: {first:?}");
    }

    #[test]
    fn names_are_cut_between_characters() {
        let check = |name: &str, expected: usize| assert_eq!(shortened(name).len(), expected);
        check("alice", 5);
        check(&"a".repeat(128), 128);
        check(&"a".repeat(129), 128);
        check(&"€".repeat(50), 126);
        check(&format!("{}🦀", "a".repeat(126)), 126);
    }
}
