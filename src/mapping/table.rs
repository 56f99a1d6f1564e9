//! Tables from a vendor's words to ours.

use std::collections::{BTreeMap, HashMap};

use super::document::Scalar;

/// Whole keys, and beginnings of keys.
pub(super) struct Table {
    whole: HashMap<String, String, foldhash::fast::RandomState>,
    /// The longest first.
    beginnings: Vec<(String, String)>,
}

impl Table {
    /// Keys that end in `*` stand for all that begins so.
    pub(super) fn new(entries: &BTreeMap<String, Scalar>) -> Self {
        let mut whole = HashMap::default();
        let mut beginnings = Vec::new();
        for (key, value) in entries {
            match key.strip_suffix('*') {
                Some(beginning) => beginnings.push((beginning.to_owned(), value.text())),
                None => drop(whole.insert(key.clone(), value.text())),
            }
        }
        beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Self { whole, beginnings }
    }

    /// What a word stands for.
    pub(super) fn get(&self, word: &str) -> Option<&str> {
        if let Some(value) = self.whole.get(word) {
            return Some(value);
        }
        let begins = |(beginning, _): &&(String, String)| word.starts_with(beginning.as_str());
        self.beginnings
            .iter()
            .find(begins)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_counts() {
        let entries = [
            ("user.session.start", "A"),
            ("user.*", "B"),
            ("user.session.*", "C"),
            ("*", "D"),
        ];
        let entries = entries.map(|(key, value)| (key.to_owned(), Scalar::Text(value.to_owned())));
        let table = Table::new(&BTreeMap::from(entries));
        for (word, expected) in [
            ("user.session.start", "A"),
            ("user.lock", "B"),
            ("user.session.end", "C"),
            ("", "D"),
        ] {
            assert_eq!(table.get(word), Some(expected), "for {word}");
        }
        assert_eq!(Table::new(&BTreeMap::new()).get("x"), None);
    }
}
