//! A database that can be asked at any time, whoever writes to it: this program, another one, or nobody.
//! While nobody does it is opened here; as soon as a program wants to write it is let go, and that program
//! is asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::feed::News;
use super::protocol::{Answer, Ask, WriterInfo};
use super::remote::{Borrowed, Lost, Remote, lock, unexpected};
use super::view::{Source, View};
use super::{LOCK_TIMEOUT, PAUSE, Store, Tuning, ensure_is_there, is_written, share};

/// How often a question is put to another program if the one that was asked has gone.
const TRIES: usize = 3;

/// A database that can be asked.
pub struct Live(Place);

enum Place {
    /// We write to it.
    Ours {
        store: Arc<Store>,
        writer: WriterInfo,
    },
    /// Others may.
    Elsewhere(Arc<Elsewhere>),
}

struct Elsewhere {
    path: PathBuf,
    tuning: Tuning,
    /// Opened here, while nobody writes.
    opened: Mutex<Option<Arc<Store>>>,
    idle: Mutex<Vec<Remote>>,
    /// The connection that news come by.
    news: Mutex<Option<Remote>>,
}

impl Live {
    /// A database that this program, which has a name, writes to.
    #[must_use]
    pub fn of(store: Arc<Store>, program: &str) -> Self {
        Self(Place::Ours {
            store,
            writer: WriterInfo {
                program: program.to_owned(),
                pid: std::process::id(),
            },
        })
    }

    /// A database in a folder.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path, tuning: &Tuning) -> anyhow::Result<Self> {
        ensure_is_there(path)?;
        let elsewhere = Arc::new(Elsewhere {
            path: path.to_owned(),
            tuning: tuning.clone(),
            opened: Mutex::default(),
            idle: Mutex::default(),
            news: Mutex::default(),
        });
        let weak = Arc::downgrade(&elsewhere);
        thread::spawn(move || let_go(&weak));
        Ok(Self(Place::Elsewhere(elsewhere)))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Ours { store, .. } => store.path(),
            Place::Elsewhere(elsewhere) => &elsewhere.path,
        }
    }

    /// The database as it is now. It holds up whoever wants to write until it is dropped, unless that
    /// program has it open already.
    ///
    /// # Errors
    /// If it cannot be read, or a program has it open that does not answer.
    pub fn view(&self) -> anyhow::Result<View<'_>> {
        match &self.0 {
            Place::Ours { store, writer } => Ok(View {
                writer: Some(writer.clone()),
                ..store.snapshot()?
            }),
            Place::Elsewhere(elsewhere) => elsewhere.view(),
        }
    }

    /// Puts a question to some databases at once; again, if a program that was asked has come to its end
    /// meanwhile.
    ///
    /// # Errors
    /// If one cannot be read, or as `question` says.
    pub fn ask<T>(
        lives: &[Self],
        mut question: impl FnMut(&[View<'_>]) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut ask = || {
            let views: anyhow::Result<Vec<_>> = lives.iter().map(Self::view).collect();
            question(&views?)
        };
        for _ in 1..TRIES {
            match ask() {
                Err(error) if error.is::<Lost>() => {}
                answer => return answer,
            }
        }
        ask()
    }

    /// What was stored after that number by the program that writes now, and since it has begun if that is
    /// 0. Waits for a while until there is something. [`News::is_over`] says that it is another program
    /// from then on, whose numbers begin at 0.
    #[must_use]
    pub fn news(&self, after: u64, only_anomalies: bool, patience: Duration) -> News {
        self.news_after(Some(after), only_anomalies, patience)
    }

    /// The same; after none, only the number of the last one.
    pub(super) fn news_after(
        &self,
        after: Option<u64>,
        only_anomalies: bool,
        patience: Duration,
    ) -> News {
        match &self.0 {
            Place::Ours { store, .. } => store.feed.after(after, only_anomalies, patience),
            Place::Elsewhere(elsewhere) => elsewhere.news(after, only_anomalies, patience),
        }
    }

    /// The number to ask for news with by whoever wants what comes from now on.
    #[must_use]
    pub fn news_from_now(&self, only_anomalies: bool) -> u64 {
        self.news_after(None, only_anomalies, Duration::ZERO).last
    }

    /// Wakes those who wait for news, and tells them that none come any more.
    pub(super) fn end_news(&self) {
        if let Place::Ours { store, .. } = &self.0 {
            store.feed.end();
        }
    }
}

impl Elsewhere {
    fn view(&self) -> anyhow::Result<View<'_>> {
        let start = Instant::now();
        loop {
            if let Some(view) = self.remote_view()? {
                return Ok(view);
            }
            if let Some(store) = self.opened()? {
                return Ok(View {
                    path: &self.path,
                    as_of_ms: crate::time::now_ms(),
                    writer: None,
                    source: Source::Opened(store),
                });
            }
            ensure!(
                start.elapsed() <= LOCK_TIMEOUT,
                "database {} is in use by another program that does not answer: wait for it, or stop it",
                self.path.display()
            );
            thread::sleep(PAUSE);
        }
    }

    /// The store, if nobody writes to it.
    fn opened(&self) -> anyhow::Result<Option<Arc<Store>>> {
        let mut opened = lock(&self.opened);
        if is_written(&self.path) {
            *opened = None;
            return Ok(None);
        }
        if opened.is_none() {
            let store = Store::open_to_read(&self.path, &self.tuning)?;
            *opened = store.map(Arc::new);
        }
        Ok(opened.clone())
    }

    /// What the program sees that has the database open, if one has.
    fn remote_view(&self) -> anyhow::Result<Option<View<'_>>> {
        loop {
            let idle = lock(&self.idle).pop();
            let is_new = idle.is_none();
            let remote = match idle {
                Some(remote) => remote,
                None => match self.connect()? {
                    None => return Ok(None),
                    Some(remote) => remote,
                },
            };
            let mut remote = remote;
            match remote.ask(&Ask::Look) {
                Ok(Answer::Looking { as_of_ms }) => {
                    return Ok(Some(View {
                        path: &self.path,
                        as_of_ms,
                        writer: Some(remote.writer.clone()),
                        source: Source::Remote(Borrowed::new(remote, &self.idle)),
                    }));
                }
                Ok(_) => return Err(unexpected()),
                // That program has ended; another one may have come.
                Err(error) if error.is::<Lost>() && !is_new => {}
                Err(error) if error.is::<Lost>() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn connect(&self) -> anyhow::Result<Option<Remote>> {
        if !is_written(&self.path) {
            return Ok(None);
        }
        let Some(wire) = share::connect(&self.path) else {
            return Ok(None);
        };
        match Remote::open(wire, self.path.display().to_string()) {
            Ok(remote) => Ok(Some(remote)),
            Err(error) if error.is::<Lost>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn news(&self, after: Option<u64>, only_anomalies: bool, patience: Duration) -> News {
        let mut connection = lock(&self.news);
        let is_new = connection.is_none();
        if is_new {
            *connection = self.connect().ok().flatten();
        }
        let Some(remote) = connection.as_mut() else {
            drop(connection);
            // Nobody writes.
            thread::sleep(patience.min(PAUSE));
            return News {
                last: after.unwrap_or(0),
                ..News::default()
            };
        };
        let wait_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let ask = Ask::News {
            after,
            only_anomalies,
            wait_ms,
        };
        match remote.ask(&ask) {
            Ok(Answer::News(news)) if !news.is_over => news,
            _ => {
                *connection = None;
                News {
                    is_over: true,
                    ..News::default()
                }
            }
        }
    }
}

/// Lets go of a database that another program wants to write to.
fn let_go(elsewhere: &Weak<Elsewhere>) {
    while let Some(elsewhere) = elsewhere.upgrade() {
        let mut opened = lock(&elsewhere.opened);
        if opened.is_some() && is_written(&elsewhere.path) {
            // Closed when the last question to it is answered.
            *opened = None;
        }
        drop(opened);
        drop(elsewhere);
        thread::sleep(PAUSE);
    }
}
