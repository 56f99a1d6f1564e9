//! The databases that are served. Handlers put their questions here, and know nothing else of them.

use std::path::Path;
use std::sync::Arc;

use crate::query::{Parts, Stop};
use crate::store::{Live, View, WriterInfo};
use crate::time::{format_time_ms, now_ms};

/// The databases, which answer as one.
#[derive(Clone)]
pub struct Databases(Arc<Vec<Live>>);

/// What was asked, in ms since 1970: an answer is right for this time, and may lack what came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AsOf(i64);

impl Databases {
    #[must_use]
    pub fn of(lives: Vec<Live>) -> Self {
        Self(Arc::new(lives))
    }

    /// The folders of those that are on this machine.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(Live::folder)
    }

    /// Each of them.
    pub(super) fn lives(&self) -> &Arc<Vec<Live>> {
        &self.0
    }

    /// Puts a question, which may be asked again from its beginning.
    pub(super) fn ask<T>(
        &self,
        stop: &Stop,
        mut question: impl FnMut(Parts<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, AsOf)> {
        Live::ask(&self.0, |views| {
            let answer = question(Parts::of(views).until(stop))?;
            Ok((answer, as_of(views)))
        })
    }

    /// Whether they can be asked, and who writes to the first of them that somebody writes to.
    pub(super) fn look(&self) -> anyhow::Result<(AsOf, Option<WriterInfo>)> {
        Live::ask(&self.0, |views| {
            let writer = views.iter().find_map(|view| view.writer().cloned());
            Ok((as_of(views), writer))
        })
    }
}

/// The time of the oldest of them.
fn as_of(views: &[View<'_>]) -> AsOf {
    let times = views.iter().map(View::as_of_ms);
    AsOf(times.min().unwrap_or_else(now_ms))
}

impl AsOf {
    pub(super) fn text(self) -> String {
        format_time_ms(self.0)
    }
}
