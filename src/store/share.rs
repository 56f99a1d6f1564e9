//! What a program does for others while it has a database open: it answers their questions at a socket in
//! the database's folder.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::live::Live;
use super::protocol::{Wire, WriterInfo};
use super::remote::lock;
use super::session::{self, Asker, Control};
use super::{PAUSE, Store};
use crate::report::warn;

/// The socket in a database's folder.
const SOCKET: &str = "streamguard.sock";
/// Programs that ask at the same time.
const SESSIONS_MAX: usize = 64;
/// How often it is looked for what a backup has left that was killed.
const CLEARING_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked for small files that can be merged.
const MERGING_INTERVAL: Duration = Duration::from_secs(60);
/// How long questions that are being asked may go on when the program is at its end.
const GRACE: Duration = Duration::from_secs(5);

/// Answers questions as long as it is there.
pub struct Shared {
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
    /// What is done now and then, until its sender has gone.
    chores: Vec<(Sender<()>, JoinHandle<()>)>,
    listener: Arc<UnixListener>,
    path: PathBuf,
}

struct State {
    live: Live,
    writer: WriterInfo,
    is_over: AtomicBool,
    sessions: Mutex<Vec<Session>>,
}

struct Session {
    stream: UnixStream,
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

impl Shared {
    /// Begins to answer questions about a store that `program` has open. Where no socket can be made that
    /// is said, and nobody is answered.
    #[must_use]
    pub fn start(store: &Arc<Store>, program: &str) -> Option<Self> {
        let path = store.path().to_owned();
        if let Err(error) = store.feed.take_over(&path) {
            warn(
                program,
                &format!("those who watch may miss something: {error:#}"),
            );
        }
        let listener = match listen(&path) {
            Ok(listener) => Arc::new(listener),
            Err(error) => {
                let shown = path.display();
                let text = format!("sg-query cannot ask while {shown} is written to: {error:#}");
                warn(program, &text);
                return None;
            }
        };
        let state = Arc::new(State {
            live: Live::of(Arc::clone(store), program),
            writer: WriterInfo {
                program: program.to_owned(),
                pid: std::process::id(),
            },
            is_over: AtomicBool::new(false),
            sessions: Mutex::default(),
        });
        let accepting = {
            let (state, listener) = (Arc::clone(&state), Arc::clone(&listener));
            thread::spawn(move || state.accept(&listener))
        };
        Some(Self {
            state,
            accepting: Some(accepting),
            chores: vec![
                chore(store, CLEARING_INTERVAL, |store, _| {
                    store.clear_checkpoint();
                }),
                chore(store, MERGING_INTERVAL, |store, is_over| {
                    // Whoever writes will be told of what is wrong.
                    let _ = store.merge_neighbours(is_over);
                }),
            ],
            listener,
            path,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (senders, threads): (Vec<_>, Vec<_>) = self.chores.drain(..).unzip();
        drop(senders);
        for thread in threads {
            let _ = thread.join();
        }
        let state = &self.state;
        state.is_over.store(true, Ordering::SeqCst);
        state.live.end_news();
        for session in lock(&state.sessions).iter() {
            session.control.is_ending.store(true, Ordering::SeqCst);
        }
        // Whoever accepts is woken, also if the folder has gone.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let _ = fs::remove_file(self.path.join(SOCKET));
        let start = Instant::now();
        let mut sessions = std::mem::take(&mut *lock(&state.sessions));
        while !sessions.is_empty() {
            let is_late = start.elapsed() > GRACE;
            for session in &sessions {
                session.control.is_ending.store(true, Ordering::SeqCst);
                if is_late || !session.control.is_looking.load(Ordering::SeqCst) {
                    let _ = session.stream.shutdown(Shutdown::Both);
                }
            }
            if is_late {
                break;
            }
            sessions.retain(|session| !session.thread.is_finished());
            thread::sleep(Duration::from_millis(2));
        }
        for session in sessions {
            let _ = session.thread.join();
        }
        // Nobody is told any more but by this; a folder that has gone has nobody who watches.
        state.live.leave_news();
    }
}

impl State {
    fn accept(self: &Arc<Self>, listener: &UnixListener) {
        loop {
            let stream = listener.accept();
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let mut sessions = lock(&self.sessions);
            sessions.retain(|session| !session.thread.is_finished());
            match stream.and_then(|(stream, _)| Ok((stream.try_clone()?, stream))) {
                Ok((other, stream)) if sessions.len() < SESSIONS_MAX => {
                    let control = Arc::new(Control::default());
                    let (state, of_thread) = (Arc::clone(self), Arc::clone(&control));
                    let thread = thread::spawn(move || state.serve(other, &of_thread));
                    sessions.push(Session {
                        stream,
                        control,
                        thread,
                    });
                }
                // It tries again, and finds room or not.
                Ok(_) => {}
                Err(_) => {
                    drop(sessions);
                    // No file handle is left, for instance.
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn serve(&self, mut stream: UnixStream, control: &Control) {
        session::serve(
            &self.live,
            &mut stream,
            self.writer.clone(),
            control,
            Asker::Neighbour,
        );
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Does something again and again; it is told how to find out that it is over.
fn chore(
    store: &Arc<Store>,
    interval: Duration,
    work: impl Fn(&Store, &dyn Fn() -> bool) + Send + 'static,
) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver) = channel::<()>();
    let store = Arc::clone(store);
    let thread = thread::spawn(move || {
        let is_over = || receiver.try_recv() == Err(TryRecvError::Disconnected);
        while receiver.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            work(&store, &is_over);
        }
    });
    (sender, thread)
}

/// Connects to the program that has a database open; none if no program answers there.
pub(super) fn connect(path: &Path) -> Option<Box<dyn Wire>> {
    let folder = File::open(path).ok()?;
    let stream = UnixStream::connect(short(&folder)).ok()?;
    Some(Box::new(stream))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // A program that was killed has left its own.
    match fs::remove_file(path.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let folder = File::open(path)?;
    let listener = UnixListener::bind(short(&folder))?;
    // Whoever may read the files may ask: that takes writing to the socket.
    let may_read = folder.metadata()?.permissions().mode() & 0o444;
    let mode = may_read | may_read >> 1;
    fs::set_permissions(path.join(SOCKET), Permissions::from_mode(mode))?;
    Ok(listener)
}

/// The socket by the handle of its folder: a socket's name has a hundred bytes at the most, a folder's has
/// not.
fn short(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(SOCKET)
}
