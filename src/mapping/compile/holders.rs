//! Members of an object that hold records of formats.

use std::collections::{BTreeMap, HashMap};

use super::super::slots::Empty;
use super::super::tree::Tree;
use super::Compiler;

/// Where records may be in an object around them.
pub(in crate::mapping) struct Holders {
    pub(in crate::mapping) tree: Tree,
    /// In the order of places.
    pub(in crate::mapping) all: Vec<Holder>,
}

/// A place, and the number of a format of which records may be there.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::mapping) struct Holder {
    pub(in crate::mapping) place: u16,
    pub(in crate::mapping) format: usize,
}

impl Holders {
    /// Of the paths that each format has; `folds_case` says that names count in any case of letters.
    ///
    /// # Errors
    /// If a path is none.
    pub(in crate::mapping) fn new<'a>(
        folds_case: bool,
        formats: impl Iterator<Item = &'a [String]>,
    ) -> anyhow::Result<Self> {
        let mut compiler = Compiler {
            document_of: &|_| None,
            tree: Tree::new(folds_case, Empty::default()),
            found: HashMap::new(),
            element: None,
            each: None,
            tables: HashMap::new(),
            aliases: BTreeMap::new(),
        };
        let mut all = Vec::new();
        for (format, paths) in formats.enumerate() {
            let places = compiler.all_members(paths)?.into_iter();
            all.extend(places.map(|place| Holder { place, format }));
        }
        all.sort_unstable();
        compiler.tree.finish();
        Ok(Self {
            tree: compiler.tree,
            all,
        })
    }
}
