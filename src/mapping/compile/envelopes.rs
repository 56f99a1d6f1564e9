//! Where records may be in an object around them.

use std::collections::{BTreeMap, HashMap};

use super::super::slots::Empty;
use super::super::tree::Tree;
use super::Compiler;

/// Where records of any format may be in an object around them.
pub(in crate::mapping) struct Envelopes {
    pub(in crate::mapping) tree: Tree,
    /// Places in order, each with the number of a format of which records may be there.
    pub(in crate::mapping) places: Vec<(u16, usize)>,
}

impl Envelopes {
    /// Of the paths that each format has.
    ///
    /// # Errors
    /// If a path is none.
    pub(in crate::mapping) fn new<'a>(
        formats: impl Iterator<Item = &'a [String]>,
    ) -> anyhow::Result<Self> {
        let mut compiler = Compiler {
            document_of: &|_| None,
            // Names are written in several ways.
            tree: Tree::new(true, Empty::default()),
            found: HashMap::new(),
            element: None,
            each: None,
            tables: HashMap::new(),
            aliases: BTreeMap::new(),
        };
        let mut places = Vec::new();
        for (number, paths) in formats.enumerate() {
            let of_format = compiler.all_members(paths)?.into_iter();
            places.extend(of_format.map(|place| (place, number)));
        }
        places.sort_unstable();
        compiler.tree.finish();
        Ok(Self {
            tree: compiler.tree,
            places,
        })
    }
}
