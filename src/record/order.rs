//! Which member of an object comes after which, as in the objects before: most programs write them in one order, so a
//! name is compared with the one that is expected before it is looked up. What is guessed is never more than that:
//! a name that is another one is looked up. (Speculative parsing, as in Li et al., "Mison: a fast JSON parser for data
//! analytics", VLDB 2017.)

use super::Checked;
use super::scan::Scanner;

/// Members of objects that are remembered, at the most: all go when there are more.
const LINKS_MAX: usize = 64;
/// If too few were as expected by then, so many are not remembered, then it is tried again.
const SKIPPED: u32 = 4_096;
/// Bytes of a name with its quotes, its colon and the space around it, at the most.
const TEXT_BYTES_MAX: usize = 2 * WORD;
const WORD: usize = size_of::<u128>();
/// Numbers that are no member's: of one that is not known, and of the place before the first one.
const UNKNOWN: u8 = u8::MAX;
const START: u8 = u8::MAX - 1;

/// The members of objects of one kind, in the order in which they came last; `T` is what is known of a name.
pub(crate) struct Order<T> {
    links: Vec<Link<T>>,
    /// The member that came first.
    first: u8,
    /// Members that were as expected since all went.
    n_guessed: u32,
    /// Members that are not to be remembered, since too few were as expected.
    n_skipped: u32,
}

struct Link<T> {
    /// The name with what stands around it, filled up with zeros, and ones where it has bytes.
    text: [u128; 2],
    mask: [u128; 2],
    n_bytes: u8,
    /// The member that came next.
    next: u8,
    known: T,
}

/// Where in an object a walk is.
pub(crate) struct Cursor {
    before: u8,
    expected: u8,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            first: 0,
            n_guessed: 0,
            n_skipped: 0,
        }
    }
}

impl<T: Copy> Order<T> {
    /// Before the first member.
    pub(crate) fn begin(&self) -> Cursor {
        Cursor {
            before: START,
            expected: self.first,
        }
    }

    /// Reads a name and its colon; what is known of it, by `read` if it is not the one that is expected.
    ///
    /// # Errors
    /// Those of `read`.
    #[inline]
    pub(crate) fn key(
        &mut self,
        cursor: &mut Cursor,
        scanner: &mut Scanner<'_>,
        read: impl FnOnce(&mut Scanner<'_>) -> Checked<T>,
    ) -> Checked<T> {
        let (text, start) = (scanner.text().as_bytes(), scanner.at());
        if let Some((known, end)) = self.guess(cursor, text, start) {
            scanner.move_to(end);
            return Ok(known);
        }
        let known = read(scanner)?;
        self.learn(cursor, &text[start..scanner.at()], known);
        Ok(known)
    }

    /// What is known of the name that stands there, and where its value begins, if it is the one that is expected.
    #[inline]
    fn guess(&mut self, cursor: &mut Cursor, text: &[u8], start: usize) -> Option<(T, usize)> {
        let link = self.links.get(cursor.expected as usize)?;
        if words(text.get(start..)?.first_chunk()?, link.mask) != link.text {
            return None;
        }
        self.n_guessed = self.n_guessed.saturating_add(1);
        *cursor = Cursor {
            before: cursor.expected,
            expected: link.next,
        };
        Some((link.known, start + link.n_bytes as usize))
    }

    /// Notes that a name has come with what stands around it.
    fn learn(&mut self, cursor: &mut Cursor, name: &[u8], known: T) {
        let number = self.number_of(name, known);
        match self.links.get_mut(cursor.before as usize) {
            Some(before) => before.next = number,
            None if cursor.before == START => self.first = number,
            None => {}
        }
        let next = self.links.get(number as usize).map(|link| link.next);
        *cursor = Cursor {
            before: number,
            expected: next.unwrap_or(UNKNOWN),
        };
    }

    fn number_of(&mut self, name: &[u8], known: T) -> u8 {
        if self.n_skipped > 0 {
            self.n_skipped -= 1;
            return UNKNOWN;
        }
        if name.len() > TEXT_BYTES_MAX {
            return UNKNOWN;
        }
        let mut bytes = [0; TEXT_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        let mut mask = [0; TEXT_BYTES_MAX];
        mask[..name.len()].fill(u8::MAX);
        let mask = words(&mask, [u128::MAX; 2]);
        let text = words(&bytes, mask);
        let same = |link: &Link<T>| link.text == text && link.n_bytes as usize == name.len();
        if let Some(number) = self.links.iter().position(same) {
            return number as u8;
        }
        if self.links.len() == LINKS_MAX {
            self.forget();
        }
        self.links.push(Link {
            text,
            mask,
            n_bytes: name.len() as u8,
            next: UNKNOWN,
            known,
        });
        (self.links.len() - 1) as u8
    }

    /// Forgets all members. Whoever is within an object goes on with numbers of others, which is no harm: names are
    /// compared.
    #[cold]
    fn forget(&mut self) {
        self.links.clear();
        self.first = 0;
        if (std::mem::take(&mut self.n_guessed) as usize) < LINKS_MAX {
            self.n_skipped = SKIPPED;
        }
    }
}

/// Bytes as words, with what a mask leaves of them.
#[inline]
fn words(bytes: &[u8; TEXT_BYTES_MAX], mask: [u128; 2]) -> [u128; 2] {
    let (first, second) = bytes.split_at(WORD);
    let word = |bytes: &[u8]| {
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        u128::from_le_bytes(bytes)
    };
    [word(first) & mask[0], word(second) & mask[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through the members of an object, each its name and its number; how many were expected.
    fn walk(object: &mut Order<u16>, members: &[(&str, u16)]) -> usize {
        let mut cursor = object.begin();
        let mut n_guessed = 0;
        for &(name, place) in members {
            let text = format!("before{name}1,and more than is compared at once");
            match object.guess(&mut cursor, text.as_bytes(), 6) {
                Some((guessed, end)) => {
                    assert_eq!(guessed, place, "for {name}");
                    assert_eq!(end, 6 + name.len());
                    n_guessed += 1;
                }
                None => object.learn(&mut cursor, name.as_bytes(), place),
            }
        }
        n_guessed
    }

    #[test]
    fn members_that_come_as_before_are_expected() {
        let mut object = Order::default();
        let (a, b, c) = (("\"a\":", 1), ("\"b\":", 2), ("\"c\" : ", 3));
        assert_eq!(walk(&mut object, &[a, b, c]), 0);
        assert_eq!(walk(&mut object, &[a, b, c]), 3);
        // One is missing: the one after it is not expected, but those that follow are.
        assert_eq!(walk(&mut object, &[a, c, b]), 1);
        assert_eq!(walk(&mut object, &[a, c, b, c]), 4);
        // Names that begin as another one, and one that is another's beginning.
        assert_eq!(walk(&mut object, &[("\"ab\":", 4), ("\"a\" :", 1)]), 0);
        // Longer ones are not compared.
        let long = format!("\"{}\":", "x".repeat(40));
        assert_eq!(walk(&mut object, &[a, (&long, 5), c]), 0);
        assert_eq!(walk(&mut object, &[a, (&long, 5), c]), 1);
        // Another one comes first.
        assert_eq!(walk(&mut object, &[b, c]), 1);
        assert_eq!(walk(&mut object, &[b, c]), 2);
    }

    #[test]
    fn what_is_remembered_has_bounds() {
        let mut object = Order::default();
        let (a, b) = (("\"a\":", 1), ("\"b\":", 2));
        let names: Vec<String> = (0..1_000).map(|i| format!("\"n{i}\":")).collect();
        // What comes once is given up for a while.
        for name in &names {
            walk(&mut object, &[(name, 3)]);
            assert!(object.links.len() <= LINKS_MAX);
        }
        assert!(object.n_skipped > 0);
        walk(&mut object, &[a, b]);
        assert_eq!(walk(&mut object, &[a, b]), 0);
        for _ in 0..SKIPPED {
            walk(&mut object, &[a, b]);
        }
        assert_eq!(walk(&mut object, &[a, b]), 2);
        // Where most are as expected, others do not keep them from being so again.
        for name in &names {
            walk(&mut object, &[a, b, a, b, (name, 3)]);
        }
        assert_eq!(object.n_skipped, 0);
        walk(&mut object, &[a, b]);
        assert_eq!(walk(&mut object, &[a, b]), 2);
    }

    #[test]
    fn what_ends_too_soon_is_not_expected() {
        let mut object = Order::default();
        walk(&mut object, &[("\"a\":", 1)]);
        let mut cursor = object.begin();
        assert!(object.guess(&mut cursor, b"\"a\":1}", 0).is_none());
        assert!(object.guess(&mut cursor, b"", 0).is_none());
        assert!(object.guess(&mut cursor, b"\"a\":", 9).is_none());
    }
}
