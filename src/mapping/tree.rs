//! The places that a mapping looks at, as a tree of the members on the way to them. `walk.rs` goes through it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::names::Names;
use super::path::Step;
use super::slots::{Empty, Slot, Slots, Texts};

/// The root of a record's members.
pub(super) const ROOT: u16 = 0;

/// The place of a member by which formats are told: the same in the tree of each format.
pub(super) fn sign_place(sign: u16) -> u16 {
    sign + 1
}

/// The member that has that place.
pub(super) fn sign_of(place: u16) -> u16 {
    place - 1
}

/// The places that a mapping looks at, as a tree of the members on the way to them. A place is the number of
/// its node, and of its slot.
pub(super) struct Tree {
    /// Another one for each tree.
    pub(super) number: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) folds_case: bool,
    /// Texts that stand for nothing.
    empty: Empty,
    /// Members of the record by which formats are told.
    signs: Vec<Member>,
}

#[derive(Default)]
pub(super) struct Node {
    members: Vec<Member>,
    pub(super) names: Names,
    pub(super) elements: Option<Box<Elements>>,
    /// What the text of a string is, as JSON.
    pub(super) inside: Option<u16>,
    /// The text that an array of bytes is.
    pub(super) bytes: Option<u16>,
}

struct Member {
    name: Box<str>,
    place: u16,
}

/// What is looked at in the elements of an array.
pub(super) struct Elements {
    /// The place of an element.
    pub(super) root: u16,
    /// That and all places below it.
    pub(super) places: Vec<u16>,
    pub(super) picks: Vec<Pick>,
}

/// Which element is meant, and where what is found in it goes.
pub(super) struct Pick {
    pub(super) selector: Selector,
    pub(super) from: u16,
    pub(super) to: u16,
}

#[derive(PartialEq)]
pub(super) enum Selector {
    Index(usize),
    Any,
    Where(u16, String),
}

impl Node {
    /// Whether any of its members is looked at.
    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether it is looked at what its text holds.
    pub(super) fn is_text_of_more(&self) -> bool {
        self.inside.is_some() || self.bytes.is_some()
    }
}

impl Tree {
    pub(super) fn new(folds_case: bool, empty: Empty) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: vec![Node::default()],
            folds_case,
            empty,
            signs: Vec::new(),
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
        members.push(Member {
            name: name.into(),
            place,
        });
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
            self.signs.push(Member {
                name: name.as_str().into(),
                place,
            });
        }
    }

    /// Makes ready to walk; nothing is added afterwards.
    pub(super) fn finish(&mut self) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let signs = if place == usize::from(ROOT) {
                &self.signs[..]
            } else {
                &[]
            };
            node.names = Names::new(&named(&node.members), &named(signs));
        }
        for place in 0..self.nodes.len() {
            let Some(mut elements) = self.nodes[place].elements.take() else {
                continue;
            };
            elements.places = self.below(elements.root);
            self.nodes[place].elements = Some(elements);
        }
    }

    /// Notes what stands at a place. What stands for nothing is there, and no value.
    #[inline]
    pub(super) fn note(&self, slots: &mut Slots, texts: &Texts<'_>, place: u16, slot: Slot) {
        slots.set(place, slot, !self.empty.has(&slot, texts));
    }

    /// A place and all below it, those also that picks fill.
    pub(super) fn below(&self, place: u16) -> Vec<u16> {
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
}

fn named(members: &[Member]) -> Vec<(&str, u16)> {
    let named = members.iter().map(|member| (&*member.name, member.place));
    named.collect()
}
