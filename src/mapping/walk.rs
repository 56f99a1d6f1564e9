//! Goes through a record once and notes what stands at the places that a mapping looks at.

use super::path::Step;
use super::slots::{Kind, RECORD, Slot, Slots, Texts, unescape};
use crate::record::scan::{Scanner, Value};
use crate::record::{Checked, Code, DEPTH_MAX, Reason};

/// The root of a record's members.
pub(super) const ROOT: u16 = 0;

/// The place of a member by which formats are told: the same in the tree of each format.
pub(super) fn sign_place(sign: u16) -> u16 {
    sign + 1
}

/// The member that has that place.
fn sign_of(place: u16) -> u16 {
    place - 1
}

/// The places that a mapping looks at, as a tree of the members on the way to them. A place is the number of
/// its node, and of its slot.
pub(super) struct Tree {
    nodes: Vec<Node>,
    folds_case: bool,
    /// Members of the record by which formats are told, and where those of each length begin.
    signs: Vec<Member>,
    sign_starts: Vec<u16>,
}

#[derive(Default)]
struct Node {
    /// Sorted by length; of equal length in the order in which they were added.
    members: Vec<Member>,
    /// Where members of each length begin, up to one more than the greatest.
    starts: Vec<u16>,
    elements: Option<Box<Elements>>,
    /// What the text of a string is, as JSON.
    inside: Option<u16>,
    /// The text that an array of bytes is.
    bytes: Option<u16>,
}

struct Member {
    /// How it begins, see [`beginning`].
    beginning: u64,
    name: Box<str>,
    place: u16,
}

/// What is looked at in the elements of an array.
struct Elements {
    /// The place of an element.
    root: u16,
    /// That and all places below it.
    places: Vec<u16>,
    picks: Vec<Pick>,
}

/// Which element is meant, and where what is found in it goes.
struct Pick {
    selector: Selector,
    from: u16,
    to: u16,
}

#[derive(PartialEq)]
enum Selector {
    Index(usize),
    Any,
    Where(u16, String),
}

impl Tree {
    pub(super) fn new(folds_case: bool) -> Self {
        Self {
            nodes: vec![Node::default()],
            folds_case,
            signs: Vec::new(),
            sign_starts: Vec::new(),
        }
    }

    pub(super) fn n_places(&self) -> usize {
        self.nodes.len()
    }

    /// A place that no walk comes to.
    pub(super) fn add_place(&mut self) -> u16 {
        self.nodes.push(Node::default());
        (self.nodes.len() - 1) as u16
    }

    /// The place at the end of the steps from another one.
    pub(super) fn add(&mut self, from: u16, steps: &[Step]) -> u16 {
        let Some((step, rest)) = steps.split_first() else {
            return from;
        };
        match step {
            Step::Member(name) => {
                let place = self.member(from, name);
                self.add(place, rest)
            }
            Step::Json => {
                let inside = match self.nodes[from as usize].inside {
                    Some(inside) => inside,
                    None => self.add_place(),
                };
                self.nodes[from as usize].inside = Some(inside);
                self.add(inside, rest)
            }
            Step::Bytes => {
                let bytes = match self.nodes[from as usize].bytes {
                    Some(bytes) => bytes,
                    None => self.add_place(),
                };
                self.nodes[from as usize].bytes = Some(bytes);
                bytes
            }
            Step::Index(index) => self.pick(from, |_, _| Selector::Index(*index), rest),
            Step::Any => self.pick(from, |_, _| Selector::Any, rest),
            Step::Where(name, text) => {
                let select =
                    |tree: &mut Self, root| Selector::Where(tree.member(root, name), text.clone());
                self.pick(from, select, rest)
            }
        }
    }

    /// The place of an array's elements, for whoever goes through them one by one.
    pub(super) fn element_of(&mut self, array: u16) -> u16 {
        if self.nodes[array as usize].elements.is_none() {
            let root = self.add_place();
            self.nodes[array as usize].elements = Some(Box::new(Elements {
                root,
                places: Vec::new(),
                picks: Vec::new(),
            }));
        }
        let elements = self.nodes[array as usize].elements.as_ref();
        elements.expect("it was just put there").root
    }

    fn pick(
        &mut self,
        array: u16,
        select: impl FnOnce(&mut Self, u16) -> Selector,
        rest: &[Step],
    ) -> u16 {
        let root = self.element_of(array);
        let selector = select(self, root);
        let from = self.add(root, rest);
        let elements = self.nodes[array as usize].elements.as_ref();
        let picks = &elements.expect("element_of has put it there").picks;
        if let Some(same) = picks
            .iter()
            .find(|pick| pick.from == from && pick.selector == selector)
        {
            return same.to;
        }
        let to = self.add_place();
        let pick = Pick { selector, from, to };
        let elements = self.nodes[array as usize].elements.as_mut();
        elements
            .expect("element_of has put it there")
            .picks
            .push(pick);
        to
    }

    fn member(&mut self, from: u16, name: &str) -> u16 {
        if let Some(member) = self.nodes[from as usize]
            .members
            .iter()
            .find(|member| self.is_same(&member.name, name))
        {
            return member.place;
        }
        let place = self.add_place();
        let members = &mut self.nodes[from as usize].members;
        let at = members.partition_point(|member| member.name.len() <= name.len());
        members.insert(
            at,
            Member {
                beginning: beginning(name),
                name: name.into(),
                place,
            },
        );
        place
    }

    fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.folds_case && one.eq_ignore_ascii_case(other)
    }

    /// Adds the members of a record by which formats are told, before anything else: each has a place of its
    /// own, and is found in any case of letters.
    pub(super) fn add_signs(&mut self, names: &[String]) {
        for (sign, name) in names.iter().enumerate() {
            let place = self.add_place();
            debug_assert_eq!(place, sign_place(sign as u16), "signs come first");
            let at = self
                .signs
                .partition_point(|member| member.name.len() <= name.len());
            let member = Member {
                beginning: beginning(name),
                name: name.as_str().into(),
                place,
            };
            self.signs.insert(at, member);
        }
    }

    /// Makes ready to walk; nothing is added afterwards.
    pub(super) fn finish(&mut self) {
        self.sign_starts = starts(&self.signs);
        for node in &mut self.nodes {
            node.starts = starts(&node.members);
        }
        for place in 0..self.nodes.len() {
            let Some(mut elements) = self.nodes[place].elements.take() else {
                continue;
            };
            elements.places = self.below(elements.root);
            self.nodes[place].elements = Some(elements);
        }
    }

    /// A place and all below it, those also that picks fill.
    fn below(&self, place: u16) -> Vec<u16> {
        let mut places = vec![place];
        let mut n_seen = 0;
        while n_seen < places.len() {
            let node = &self.nodes[places[n_seen] as usize];
            n_seen += 1;
            places.extend(node.members.iter().map(|member| member.place));
            places.extend(node.inside);
            places.extend(node.bytes);
            if let Some(elements) = &node.elements {
                places.push(elements.root);
                places.extend(elements.picks.iter().map(|pick| pick.to));
            }
        }
        places
    }

    /// Walks a whole text, which is an object, from a place on.
    ///
    /// # Errors
    /// If the text is not one JSON object.
    pub(super) fn walk(&self, found: &mut Found<'_, '_>, place: u16) -> Checked<()> {
        let record = found.texts.record;
        let mut scanner = Scanner::new(record);
        if scanner.peek() != Some(b'{') {
            scanner.value(0)?;
            scanner.end()?;
            return Err(Reason::of_line(
                Code::NotAnObject,
                "the record is not a JSON object",
            ));
        }
        let mut walker = Walker {
            tree: self,
            found,
            text: RECORD,
        };
        walker.object(&mut scanner, place, 0)?;
        scanner.end()
    }

    /// Walks a text that is not the record's own.
    ///
    /// # Errors
    /// As [`Self::walk`].
    pub(super) fn walk_made(&self, found: &mut Found<'_, '_>, text: &str) -> Checked<()> {
        let (number, mut made) = found.texts.take();
        made.push_str(text);
        found.texts.put(number, made);
        let mut walker = Walker {
            tree: self,
            found,
            text: number,
        };
        let mut scanner = Scanner::new(text);
        walker.object(&mut scanner, ROOT, 0)?;
        scanner.end()
    }

    /// Walks one element of an array, which comes next in the record's text; what was found in another one is
    /// forgotten.
    ///
    /// # Errors
    /// As [`Self::walk`].
    pub(super) fn walk_element(
        &self,
        found: &mut Found<'_, '_>,
        array: u16,
        scanner: &mut Scanner<'_>,
    ) -> Checked<()> {
        let Some(elements) = &self.nodes[array as usize].elements else {
            return scanner.value(1).map(drop);
        };
        found.slots.forget(&elements.places);
        let mut walker = Walker {
            tree: self,
            found,
            text: RECORD,
        };
        walker.value(scanner, elements.root, true, 2)
    }
}

/// What a walk fills.
pub(super) struct Found<'a, 'b> {
    pub(super) slots: &'b mut Slots,
    pub(super) texts: &'b mut Texts<'a>,
}

struct Walker<'t, 'a, 'b, 'c> {
    tree: &'t Tree,
    found: &'c mut Found<'a, 'b>,
    /// The text that is walked.
    text: u16,
}

impl Walker<'_, '_, '_, '_> {
    fn object(&mut self, scanner: &mut Scanner<'_>, place: u16, depth: u32) -> Checked<()> {
        let node = &self.tree.nodes[place as usize];
        let mut has_next = scanner.open_object()?;
        while has_next {
            let key = scanner.key()?;
            let raw = scanner.get(key.span);
            let unescaped;
            let name = if key.has_escapes {
                unescaped = unescape(raw).unwrap_or_default();
                &unescaped
            } else {
                raw
            };
            let member = find(&node.members, &node.starts, name);
            let member = member.filter(|(_, is_exact)| *is_exact || self.tree.folds_case);
            let sign = if place == ROOT {
                find(&self.tree.signs, &self.tree.sign_starts, name)
                    .map(|(sign, is_exact)| (sign.place, is_exact))
            } else {
                None
            };
            let is_null = scanner.peek() == Some(b'n');
            match (member, sign) {
                (Some((member, is_exact)), _) => {
                    self.value(scanner, member.place, is_exact, depth + 1)?;
                    if let Some((sign, is_exact)) = sign
                        && self.found.slots.get(sign).kind == Kind::Absent
                    {
                        let mut slot = *self.found.slots.get(member.place);
                        slot.is_exact = is_exact;
                        self.found.slots.set(sign, slot);
                    }
                }
                // The first counts: which format it is must not depend on which one is tried first.
                (None, Some((sign, is_exact)))
                    if self.found.slots.get(sign).kind == Kind::Absent =>
                {
                    self.value(scanner, sign, is_exact, depth + 1)?;
                }
                _ => {
                    scanner.value(depth + 1)?;
                }
            }
            if let Some((sign, _)) = sign.filter(|_| !is_null) {
                self.found.slots.see(sign_of(sign));
            }
            has_next = scanner.next_member()?;
        }
        Ok(())
    }

    /// Notes the value that comes next.
    fn value(
        &mut self,
        scanner: &mut Scanner<'_>,
        place: u16,
        is_exact: bool,
        depth: u32,
    ) -> Checked<()> {
        let first = scanner.peek();
        let start = scanner.at();
        let before = *self.found.slots.get(place);
        if before.kind != Kind::Absent {
            // The name as the mapping writes it counts, wherever it stands.
            self.found.slots.has_twice |= before.is_exact == is_exact;
            if before.is_exact || !is_exact {
                return scanner.value(depth).map(drop);
            }
            let places = self.tree.below(place);
            self.found.slots.forget(&places);
        }
        let node = &self.tree.nodes[place as usize];
        let mut slot = match first {
            Some(b'{')
                if depth < DEPTH_MAX && (!node.members.is_empty() || node.inside.is_some()) =>
            {
                let inside = node.inside.filter(|_| !node.members.is_empty());
                if let Some(inside) = inside {
                    // Some paths go to its members, others to what it would hold as text.
                    self.object(scanner, inside, depth)?;
                    scanner.move_to(start);
                }
                let inner = node.inside.filter(|_| inside.is_none()).unwrap_or(place);
                self.object(scanner, inner, depth)?;
                Slot::new(Kind::Object, self.text, start, scanner.at())
            }
            Some(b'[') if depth < DEPTH_MAX && node.elements.is_some() => {
                self.array(scanner, node, depth)?;
                Slot::new(Kind::Array, self.text, start, scanner.at())
            }
            _ => {
                let value = scanner.value(depth)?;
                let (kind, start, end) = match value {
                    Value::String(quoted) if quoted.has_escapes => (
                        Kind::Escaped,
                        quoted.span.start as usize,
                        quoted.span.end as usize,
                    ),
                    Value::String(quoted) => (
                        Kind::Plain,
                        quoted.span.start as usize,
                        quoted.span.end as usize,
                    ),
                    Value::Number(_) => (Kind::Number, start, scanner.at()),
                    Value::Bool => (Kind::Bool, start, scanner.at()),
                    Value::Null => (Kind::Null, start, scanner.at()),
                    Value::Array => (Kind::Array, start, scanner.at()),
                    Value::Object => (Kind::Object, start, scanner.at()),
                };
                Slot::new(kind, self.text, start, end)
            }
        };
        slot.is_exact = is_exact;
        self.found.slots.set(place, slot);
        match node.inside {
            Some(inside) if matches!(slot.kind, Kind::Plain | Kind::Escaped) => {
                self.inside(&slot, inside);
            }
            _ => {}
        }
        if let Some(bytes) = node.bytes.filter(|_| slot.kind == Kind::Array) {
            let (start, end) = slot.range();
            self.bytes(&scanner.text()[start..end], bytes);
        }
        Ok(())
    }

    fn array(&mut self, scanner: &mut Scanner<'_>, node: &Node, depth: u32) -> Checked<()> {
        let Some(elements) = &node.elements else {
            return scanner.value(depth).map(drop);
        };
        let mut has_next = scanner.open_array()?;
        let mut index = 0;
        while has_next {
            self.found.slots.forget(&elements.places);
            self.value(scanner, elements.root, true, depth + 1)?;
            for pick in &elements.picks {
                if self.is_meant(&pick.selector, index)
                    && self.found.slots.get(pick.to).kind == Kind::Absent
                {
                    let slot = *self.found.slots.get(pick.from);
                    if slot.is_scalar() {
                        self.found.slots.set(pick.to, slot);
                    }
                }
            }
            index += 1;
            has_next = scanner.next_element()?;
        }
        Ok(())
    }

    fn is_meant(&self, selector: &Selector, index: usize) -> bool {
        match selector {
            Selector::Index(wanted) => index == *wanted,
            Selector::Any => true,
            Selector::Where(place, text) => {
                let slot = self.found.slots.get(*place);
                let found = slot.is_scalar().then(|| self.found.texts.get(slot));
                found.flatten().is_some_and(|found| found == *text)
            }
        }
    }

    /// Walks the JSON text that a string holds. A string that holds none has no members.
    fn inside(&mut self, slot: &Slot, place: u16) {
        let Some(text) = self.found.texts.get(slot).map(std::borrow::Cow::into_owned) else {
            return;
        };
        if !text.trim_ascii_start().starts_with('{') || self.found.texts.is_full() {
            return;
        }
        let (number, mut made) = self.found.texts.take();
        made.push_str(&text);
        self.found.texts.put(number, made);
        let outer = std::mem::replace(&mut self.text, number);
        let had_twice = self.found.slots.has_twice;
        let mut scanner = Scanner::new(&text);
        let walked = self
            .object(&mut scanner, place, 1)
            .and_then(|()| scanner.end());
        self.text = outer;
        if walked.is_err() {
            // What was found before it breaks off would be half of it.
            let places = self.tree.below(place);
            self.found.slots.forget(&places);
            self.found.slots.has_twice = had_twice;
        }
    }

    /// Notes the text that an array of bytes is, as the journal of systemd writes what is not all printable.
    fn bytes(&mut self, array: &str, place: u16) {
        let Ok(bytes) = serde_json::from_str::<Vec<u8>>(array) else {
            return;
        };
        if self.found.texts.is_full() {
            return;
        }
        let (number, mut made) = self.found.texts.take();
        made.push_str(&String::from_utf8_lossy(&bytes));
        let slot = Slot::new(Kind::Raw, number, 0, made.len());
        self.found.texts.put(number, made);
        self.found.slots.set(place, slot);
    }
}

/// Where members of each length begin, up to one more than the greatest.
fn starts(members: &[Member]) -> Vec<u16> {
    let length_max = members.last().map_or(0, |member| member.name.len());
    (0..=length_max + 1)
        .map(|length| members.partition_point(|it| it.name.len() < length) as u16)
        .collect()
}

/// The member of that name, and whether it is written so or in other letters.
#[inline]
fn find<'n>(members: &'n [Member], starts: &[u16], name: &str) -> Option<(&'n Member, bool)> {
    let length = name.len();
    let &[start, end] = starts.get(length..length + 2)? else {
        return None;
    };
    let members = &members[start as usize..end as usize];
    let wanted = beginning(name);
    let exact = |member: &&Member| member.beginning == wanted && *member.name == *name;
    if let Some(member) = members.iter().find(exact) {
        return Some((member, true));
    }
    let folded =
        |member: &&Member| member.beginning == wanted && member.name.eq_ignore_ascii_case(name);
    members.iter().find(folded).map(|member| (member, false))
}

/// The first eight bytes of a name, in which letters of either case are the same: what tells most names apart.
#[inline]
fn beginning(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let word = match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    word | 0x2020_2020_2020_2020
}
