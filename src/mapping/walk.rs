//! Goes through a record once and notes what stands at the places that a mapping looks at.

use super::names::Known;
use super::slots::{Kind, RECORD, Slot, Slots, Texts};
use super::tree::{Node, ROOT, Selector, Tree, sign_of};
use crate::record::scan::Scanner;
use crate::record::text::unescape;
use crate::record::{Checked, Code, DEPTH_MAX, Order, Reason};

impl Tree {
    /// Walks a whole text, which is an object, from a place on.
    ///
    /// # Errors
    /// If the text is not one JSON object.
    pub(super) fn walk(&self, found: Found<'_, '_>, place: u16) -> Checked<()> {
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
    pub(super) fn walk_made(&self, found: Found<'_, '_>, text: &str) -> Checked<()> {
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
        found: Found<'_, '_>,
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

    /// Reads a name and its colon; what is known of it in the object at a place.
    fn known(&self, scanner: &mut Scanner<'_>, place: u16) -> Checked<Known> {
        let names = &self.nodes[place as usize].names;
        let key = scanner.key()?;
        Ok(if key.has_escapes {
            let name = unescape(scanner.get(key.span)).unwrap_or_default();
            *names.find(name.as_bytes(), 0, name.len())
        } else {
            let (start, end) = (key.span.start as usize, key.span.end as usize);
            *names.find(scanner.text().as_bytes(), start, end)
        })
    }
}

/// What a walk fills.
pub(super) struct Found<'a, 'b> {
    pub(super) slots: &'b mut Slots,
    pub(super) texts: &'b mut Texts<'a>,
    /// By place.
    pub(super) orders: &'b mut [Order<Known>],
}

struct Walker<'t, 'a, 'b> {
    tree: &'t Tree,
    found: Found<'a, 'b>,
    /// The text that is walked.
    text: u16,
}

impl Walker<'_, '_, '_> {
    fn object(&mut self, scanner: &mut Scanner<'_>, place: u16, depth: u32) -> Checked<()> {
        let mut cursor = self.found.orders[place as usize].begin();
        let mut has_next = scanner.open_object()?;
        while has_next {
            let order = &mut self.found.orders[place as usize];
            let known = order.key(&mut cursor, scanner, |scanner| {
                self.tree.known(scanner, place)
            })?;
            self.member(scanner, known, depth + 1)?;
            has_next = scanner.next_member()?;
        }
        Ok(())
    }

    fn member(&mut self, scanner: &mut Scanner<'_>, known: Known, depth: u32) -> Checked<()> {
        let sign = known.sign.filter(|_| self.found.slots.notes_signs);
        let member = known.place;
        let member = member.filter(|(_, is_exact)| *is_exact || self.tree.folds_case);
        let is_null = scanner.peek() == Some(b'n');
        match (member, sign) {
            (Some((member, is_exact)), _) => {
                self.value(scanner, member, is_exact, depth)?;
                if let Some((sign, is_exact)) = sign
                    && self.found.slots.get(sign).kind == Kind::Absent
                {
                    let mut slot = *self.found.slots.get(member);
                    slot.is_exact = is_exact;
                    self.set(sign, slot);
                }
            }
            // The first counts: which format it is must not depend on which one is tried first.
            (None, Some((sign, is_exact))) if self.found.slots.get(sign).kind == Kind::Absent => {
                self.value(scanner, sign, is_exact, depth)?;
            }
            _ => {
                scanner.value(depth)?;
            }
        }
        if let Some((sign, _)) = sign.filter(|_| !is_null) {
            self.found.slots.see(sign_of(sign));
        }
        Ok(())
    }

    #[inline]
    fn set(&mut self, place: u16, slot: Slot) {
        let Found { slots, texts, .. } = &mut self.found;
        self.tree.note(slots, texts, place, slot);
    }

    /// Notes the value that comes next.
    fn value(
        &mut self,
        scanner: &mut Scanner<'_>,
        place: u16,
        is_exact: bool,
        depth: u32,
    ) -> Checked<()> {
        if self.found.slots.get(place).kind != Kind::Absent && !self.replaces(place, is_exact) {
            return scanner.value(depth).map(drop);
        }
        let first = scanner.peek();
        let start = scanner.at();
        let node = &self.tree.nodes[place as usize];
        let (kind, start, end) = match first {
            Some(b'"') => {
                let quoted = scanner.string()?;
                let kind = if quoted.has_escapes {
                    Kind::Escaped
                } else {
                    Kind::Plain
                };
                (kind, quoted.span.start as usize, quoted.span.end as usize)
            }
            Some(b'{') if depth < DEPTH_MAX && (node.has_members() || node.inside.is_some()) => {
                let inside = node.inside.filter(|_| node.has_members());
                if let Some(inside) = inside {
                    // Some paths go to its members, others to what it would hold as text.
                    self.object(scanner, inside, depth)?;
                    scanner.move_to(start);
                }
                let inner = node.inside.filter(|_| inside.is_none()).unwrap_or(place);
                self.object(scanner, inner, depth)?;
                (Kind::Object, start, scanner.at())
            }
            Some(b'[') if depth < DEPTH_MAX && self.has_elements(node) => {
                // Some paths may go to its elements, others to those of what it would hold as text.
                let inside = node.inside.map(|inside| &self.tree.nodes[inside as usize]);
                for array in inside.into_iter().chain([node]) {
                    if array.elements.is_some() {
                        scanner.move_to(start);
                        self.array(scanner, array, depth)?;
                    }
                }
                (Kind::Array, start, scanner.at())
            }
            _ => {
                scanner.value(depth)?;
                let kind = match first {
                    Some(b'{') => Kind::Object,
                    Some(b'[') => Kind::Array,
                    Some(b't' | b'f') => Kind::Bool,
                    Some(b'n') => Kind::Null,
                    _ => Kind::Number,
                };
                (kind, start, scanner.at())
            }
        };
        let mut slot = Slot::new(kind, self.text, start, end);
        slot.is_exact = is_exact;
        self.set(place, slot);
        if node.is_text_of_more() {
            self.more(scanner, node, &slot);
        }
        Ok(())
    }

    /// Whether any path goes to elements of an array that stands there, or to those of one that its text holds.
    fn has_elements(&self, node: &Node) -> bool {
        let inside = node.inside.map(|inside| &self.tree.nodes[inside as usize]);
        node.elements.is_some() || inside.is_some_and(|inside| inside.elements.is_some())
    }

    /// Whether what comes stands for what was found at the place before, which is forgotten then.
    #[cold]
    fn replaces(&mut self, place: u16, is_exact: bool) -> bool {
        let before = *self.found.slots.get(place);
        // The name as the mapping writes it counts, wherever it stands.
        self.found.slots.has_twice |= before.is_exact == is_exact;
        if before.is_exact || !is_exact {
            return false;
        }
        let places = self.tree.below(place);
        self.found.slots.forget(&places);
        true
    }

    /// Looks at what a value holds as text.
    fn more(&mut self, scanner: &Scanner<'_>, node: &Node, slot: &Slot) {
        match node.inside {
            Some(inside) if matches!(slot.kind, Kind::Plain | Kind::Escaped) => {
                self.inside(slot, inside);
            }
            _ => {}
        }
        if let Some(bytes) = node.bytes.filter(|_| slot.kind == Kind::Array) {
            let (start, end) = slot.range();
            self.bytes(&scanner.text()[start..end], bytes);
        }
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
                        self.set(pick.to, slot);
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

    /// Walks the JSON text that a string holds, an object or an array. A string that holds none has no members.
    fn inside(&mut self, slot: &Slot, place: u16) {
        let Some(text) = self.found.texts.get(slot).map(std::borrow::Cow::into_owned) else {
            return;
        };
        let is_array = match text.trim_ascii_start().as_bytes().first() {
            Some(b'{') => false,
            Some(b'[') => true,
            _ => return,
        };
        let node = &self.tree.nodes[place as usize];
        if is_array && node.elements.is_none() || self.found.texts.is_full() {
            return;
        }
        let (number, mut made) = self.found.texts.take();
        made.push_str(&text);
        self.found.texts.put(number, made);
        let outer = std::mem::replace(&mut self.text, number);
        let had_twice = self.found.slots.has_twice;
        let mut scanner = Scanner::new(&text);
        let walked = if is_array {
            self.array(&mut scanner, node, 1)
        } else {
            self.object(&mut scanner, place, 1)
        };
        let walked = walked.and_then(|()| scanner.end());
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
        self.set(place, slot);
    }
}
