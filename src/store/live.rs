//! A database that can be asked at any time, whoever writes to it: this program, another one, or nobody.
//! While nobody does it is opened here; as soon as a program wants to write it is let go, and that program
//! is asked.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};

use super::feed::{News, Stored};
use super::peer::Peer;
use super::protocol::{Answer, Ask, WriterInfo};
use super::remote::{Borrowed, Lost, Remote, lock, unexpected};
use super::view::{Source, View};
use super::{LOCK_TIMEOUT, PAUSE, Store, Tuning, ensure_is_there, is_written, share};

/// How often a question is put to another program if the one that was asked has gone.
pub(super) const TRIES: usize = 3;

/// Stands for numbers that a session counts by itself.
const FOREIGN_EPOCH: u64 = 0;
/// Databases that a server of another machine may have.
const PEER_DATABASES_MAX: usize = 64;

/// A database that can be asked.
pub struct Live(Place);

enum Place {
    /// We write to it.
    Ours {
        store: Arc<Store>,
        writer: WriterInfo,
    },
    /// Others may.
    Elsewhere {
        // First to be dropped.
        _watchman: Watchman,
        elsewhere: Arc<Elsewhere>,
    },
    /// It is on another machine.
    Peer(AtPeer),
}

struct AtPeer {
    peer: Arc<Peer>,
    number: usize,
    /// What stands for the folder.
    path: PathBuf,
    idle: Mutex<Vec<Remote>>,
}

struct Elsewhere {
    path: PathBuf,
    tuning: Tuning,
    /// Opened here, while nobody writes.
    opened: Mutex<Option<Arc<Store>>>,
    idle: Mutex<Vec<Remote>>,
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
        });
        Ok(Self(Place::Elsewhere {
            _watchman: Watchman::start(&elsewhere),
            elsewhere,
        }))
    }

    /// The databases that a server of another machine has.
    ///
    /// # Errors
    /// If it is not there, or refuses.
    pub fn at_peer(peer: Peer) -> anyhow::Result<Vec<Self>> {
        let peer = Arc::new(peer);
        let mut lives = Vec::new();
        for number in 0..PEER_DATABASES_MAX {
            let Some(wire) = peer.begin(number)? else {
                break;
            };
            let shown = peer.shown().to_owned();
            let remote = Remote::open(wire, shown.clone())?;
            lives.push(Self(Place::Peer(AtPeer {
                peer: Arc::clone(&peer),
                number,
                path: shown.into(),
                idle: Mutex::new(vec![remote]),
            })));
        }
        Ok(lives)
    }

    /// The folder, if it is on this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::Ours { .. } | Place::Elsewhere { .. } => Some(self.path()),
            Place::Peer(_) => None,
        }
    }

    /// The folder, or the server.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.0 {
            Place::Peer(at_peer) => &at_peer.path,
            Place::Ours { store, .. } => store.path(),
            Place::Elsewhere { elsewhere, .. } => &elsewhere.path,
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
            Place::Elsewhere { elsewhere, .. } => elsewhere.view(),
            Place::Peer(at_peer) => at_peer.view(),
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

    /// Whoever wants to know of events as they are stored, from now on.
    #[must_use]
    pub fn follow(&self, only_anomalies: bool) -> Follow<'_> {
        let mut follow = Follow {
            live: self,
            only_anomalies,
            told: Told::Unknown,
            remote: None,
            was_told: false,
            left: None,
        };
        follow.next(Duration::ZERO);
        follow
    }

    /// What was stored after that number, if this program writes.
    pub(super) fn news(
        &self,
        after: Option<u64>,
        only_anomalies: bool,
        patience: Duration,
    ) -> Option<News> {
        match &self.0 {
            Place::Ours { store, .. } => Some(store.feed.after(after, only_anomalies, patience)),
            Place::Elsewhere { .. } | Place::Peer(_) => None,
        }
    }

    /// Links the files of the database as they are now, if this program writes.
    ///
    /// # Errors
    /// If others write, or as [`Store::make_checkpoint`] says.
    pub(super) fn lend_checkpoint(&self) -> anyhow::Result<()> {
        let Place::Ours { store, .. } = &self.0 else {
            anyhow::bail!("{} is written to by nobody here", self.path().display());
        };
        anyhow::ensure!(
            store.is_copied()?,
            "nobody makes a backup of {}",
            store.path().display()
        );
        store.make_checkpoint()
    }

    /// Leaves what was stored lately to those who have not heard of it.
    pub(super) fn leave_news(&self) {
        if let Place::Ours { store, .. } = &self.0 {
            // Then they are told that something may be missing.
            let _ = store.feed.leave(store.path());
        }
    }

    /// Whose numbers the news have that we tell; others' are not known here.
    pub(super) fn epoch(&self) -> u64 {
        match &self.0 {
            Place::Ours { store, .. } => store.feed.epoch(),
            Place::Elsewhere { .. } | Place::Peer(_) => FOREIGN_EPOCH,
        }
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
        remote_view(&self.path, &self.idle, || self.connect())
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
}

impl AtPeer {
    fn view(&self) -> anyhow::Result<View<'_>> {
        let view = remote_view(&self.path, &self.idle, || self.connect())?;
        view.with_context(|| format!("{} has ended, or does not answer", self.peer.shown()))
    }

    fn connect(&self) -> anyhow::Result<Option<Remote>> {
        let Some(wire) = self.peer.begin(self.number)? else {
            return Ok(None);
        };
        Remote::open(wire, self.peer.shown().to_owned()).map(Some)
    }
}

/// What somebody sees who is asked for it: whom an earlier question was put to, or somebody new.
fn remote_view<'a>(
    path: &'a Path,
    idle: &'a Mutex<Vec<Remote>>,
    connect: impl Fn() -> anyhow::Result<Option<Remote>>,
) -> anyhow::Result<Option<View<'a>>> {
    loop {
        let known = lock(idle).pop();
        let is_new = known.is_none();
        let remote = match known {
            Some(remote) => Some(remote),
            None => connect()?,
        };
        let Some(mut remote) = remote else {
            return Ok(None);
        };
        match remote.ask(&Ask::Look) {
            Ok(Answer::Looking { as_of_ms }) => {
                return Ok(Some(View {
                    path,
                    as_of_ms,
                    writer: Some(remote.writer.clone()),
                    source: Source::Remote(Borrowed::new(remote, idle)),
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

/// Tells of events as they are stored, by whichever program.
pub struct Follow<'a> {
    live: &'a Live,
    only_anomalies: bool,
    told: Told,
    /// The connection that news come by.
    remote: Option<Remote>,
    /// A program that writes has told something, and has not left it behind yet.
    was_told: bool,
    /// What the last program has left, and what tells it from the next one's.
    left: Option<(Mark, Stored)>,
}

type Mark = (u64, SystemTime);

/// How far somebody who follows has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nobody has said yet where it begins.
    Unknown,
    /// Nobody has written since it has begun.
    Nothing,
    /// Whose numbers these are, and the last one that was told.
    UpTo { epoch: u64, last: u64 },
}

impl Follow<'_> {
    /// Keys of events that were stored since, which can be read now. Waits for a while until there are
    /// some.
    pub fn next(&mut self, patience: Duration) -> News {
        let (epoch, mut news) = match &self.live.0 {
            Place::Ours { store, .. } => {
                let after = self.after(store.feed.epoch());
                let news = store.feed.after(after, self.only_anomalies, patience);
                (store.feed.epoch(), news)
            }
            Place::Elsewhere { elsewhere, .. } => {
                match self.ask(|| elsewhere.connect(), patience) {
                    Some(told) => told,
                    None => match self.left_behind(&elsewhere.path) {
                        Some(left) => left,
                        None => return self.nothing(Some(&elsewhere.path), patience),
                    },
                }
            }
            Place::Peer(at_peer) => match self.ask(|| at_peer.connect(), patience) {
                Some(told) => told,
                None => return self.nothing(None, patience),
            },
        };
        // Of numbers under another epoch nobody has told the last ones.
        news.is_broken = matches!(self.told, Told::UpTo { epoch: before, .. } if before != epoch);
        let last = news.last;
        self.told = Told::UpTo { epoch, last };
        news
    }

    /// Nobody writes, or nobody is there.
    fn nothing(&mut self, folder: Option<&Path>, patience: Duration) -> News {
        let is_killed = |folder: &Path| !is_written(folder) && Stored::mark_in(folder).is_none();
        if self.was_told && folder.is_some_and(is_killed) {
            self.was_told = false;
            self.told = Told::Nothing;
            return News {
                is_broken: true,
                ..News::default()
            };
        }
        thread::sleep(patience.min(PAUSE));
        // Whoever begins to write later is heard of from the start.
        if self.told == Told::Unknown {
            self.told = Told::Nothing;
        }
        News::default()
    }

    /// The number after which news are wanted from whoever counts under that epoch.
    fn after(&self, epoch: u64) -> Option<u64> {
        match self.told {
            Told::Unknown => None,
            Told::UpTo { epoch: known, last } if known == epoch => Some(last),
            Told::UpTo { .. } | Told::Nothing => Some(0),
        }
    }

    /// What the program tells that writes now, if there is one.
    fn ask(
        &mut self,
        connect: impl Fn() -> anyhow::Result<Option<Remote>>,
        patience: Duration,
    ) -> Option<(u64, News)> {
        if self.remote.is_none() {
            self.remote = connect().ok().flatten();
        }
        let epoch = self.remote.as_ref()?.epoch;
        let ask = Ask::News {
            after: self.after(epoch),
            only_anomalies: self.only_anomalies,
            wait_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        match self.remote.as_mut()?.ask(&ask) {
            Ok(Answer::News(news)) if !news.is_over => {
                self.was_told = true;
                Some((epoch, news))
            }
            _ => {
                self.remote = None;
                None
            }
        }
    }

    /// What the program before has left that was not told yet.
    fn left_behind(&mut self, folder: &Path) -> Option<(u64, News)> {
        let mark = Stored::mark_in(folder)?;
        if self.left.as_ref().is_none_or(|(known, _)| *known != mark) {
            self.left = Some((mark, Stored::left_in(folder)?));
        }
        self.was_told = false;
        let (_, stored) = self.left.as_ref()?;
        let news = stored.after(self.after(stored.epoch), self.only_anomalies);
        let is_news = self.told == Told::Unknown || !news.keys.is_empty() || news.n_skipped > 0;
        is_news.then_some((stored.epoch, news))
    }
}

/// A thread that lets go of a database as soon as another program wants to write to it.
struct Watchman {
    /// Ends it when it is dropped.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchman {
    fn start(elsewhere: &Arc<Elsewhere>) -> Self {
        let (stop, is_stopped) = channel();
        let elsewhere = Arc::clone(elsewhere);
        let thread = thread::spawn(move || {
            while is_stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let mut opened = lock(&elsewhere.opened);
                if opened.is_some() && is_written(&elsewhere.path) {
                    // Closed when the last question to it is answered.
                    *opened = None;
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        // Waited for, or it would close the database while the program ends, which RocksDB does not survive.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
