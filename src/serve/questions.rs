//! Questions on their way to the databases: a few at once, each for a limited time, none for somebody who
//! has gone.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::time::timeout;

use super::databases::{AsOf, Databases};
use super::problem::Problem;
use crate::query::similar::Indexes;
use crate::query::{Parts, Stop, Stopped};
use crate::report::fail;
use crate::store::WriterInfo;

/// Questions that are answered at once. They wait for the disk more than for a processor.
pub(super) const AT_ONCE: usize = 8;
/// How long a question waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a question may take: a little less than its request may.
const TIME_MAX: Duration = Duration::from_millis(9_500);

/// The databases, and who asks them now.
pub(super) struct Questions {
    program: &'static str,
    databases: Databases,
    turns: Arc<Semaphore>,
    /// What is ready to find similar events in: one question at a time brings it up to date.
    indexes: Arc<Mutex<Indexes>>,
}

/// Ends a question when nobody waits for its answer any more.
struct Ender(Arc<Stop>);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.request();
    }
}

impl Questions {
    pub(super) fn new(program: &'static str, databases: Databases) -> Self {
        Self {
            program,
            databases,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            indexes: Arc::default(),
        }
    }

    /// Which program serves.
    pub(super) fn program(&self) -> &'static str {
        self.program
    }

    /// The databases, for those who do not ask one question.
    pub(super) fn databases(&self) -> &Databases {
        &self.databases
    }

    /// Puts a question, which may be asked again from its beginning. One that fails with a [`Problem`] is
    /// answered by that.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnMut(Parts<'_>) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<(T, AsOf), Problem> {
        self.ask_within(TIME_MAX, question).await
    }

    /// The same within another time.
    pub(super) async fn ask_within<T: Send + 'static>(
        &self,
        time: Duration,
        question: impl FnMut(Parts<'_>) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<(T, AsOf), Problem> {
        let stop = Arc::new(Stop::within(time.min(TIME_MAX)));
        let _ender = Ender(Arc::clone(&stop));
        let ask = move |databases: &Databases| databases.ask(&stop, question);
        self.in_turn(ask).await
    }

    /// Whether the databases can be asked, and who writes to them.
    pub(super) async fn look(&self) -> Result<(AsOf, Option<WriterInfo>), Problem> {
        self.in_turn(Databases::look).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Databases) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(busy());
        };
        let databases = self.databases.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&databases)
        });
        match worked.await {
            Ok(answer) => answer.map_err(|error| self.problem(error)),
            Err(_) => Err(internal()),
        }
    }

    /// What is ready to find similar events in, for one question alone.
    pub(super) async fn indexes(&self) -> Result<OwnedMutexGuard<Indexes>, Problem> {
        let indexes = timeout(WAIT_MAX, Arc::clone(&self.indexes).lock_owned()).await;
        indexes.map_err(|_| busy())
    }

    /// Says what has failed to whoever runs the program: paths are not for whoever asks.
    pub(super) fn tell(&self, error: &anyhow::Error) {
        fail(self.program, &format!("{error:#}"));
    }

    fn problem(&self, error: anyhow::Error) -> Problem {
        if error.downcast_ref::<Stopped>().is_some() {
            let detail = "the answer takes too long: ask for a shorter time, or for less";
            return Problem::unavailable(detail);
        }
        error.downcast::<Problem>().unwrap_or_else(|error| {
            self.tell(&error);
            internal()
        })
    }
}

fn busy() -> Problem {
    Problem::unavailable("too many questions are being answered: ask again")
}

fn internal() -> Problem {
    let detail = "the server has failed, and says why on its standard error";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use axum::response::IntoResponse as _;

    use super::*;
    use crate::query::{Filter, Wanted, search};

    fn questions() -> Questions {
        Questions::new("test", Databases::of(Vec::new()))
    }

    /// A question without an answer. It tells when it is asked, and when it has ended.
    fn endless(
        asked: Sender<()>,
        ended: Sender<()>,
    ) -> impl FnMut(Parts<'_>) -> anyhow::Result<()> + Send + 'static {
        struct Ended(Sender<()>);
        impl Drop for Ended {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let ended = Ended(ended);
        move |parts| {
            let _ended = &ended;
            let _ = asked.send(());
            loop {
                search(parts, Wanted::Events, &Filter::default(), |_| Ok(true))?;
            }
        }
    }

    #[tokio::test]
    async fn a_question_ends_when_nobody_waits_for_its_answer() {
        let (asked, is_asked) = channel();
        let (ended, has_ended) = channel();
        let questions = Arc::new(questions());
        let asking = Arc::clone(&questions);
        let request = tokio::spawn(async move { asking.ask(endless(asked, ended)).await });
        tokio::task::spawn_blocking(move || is_asked.recv())
            .await
            .expect("it runs")
            .expect("it is asked");
        assert!(has_ended.try_recv().is_err());
        request.abort();
        let wait = move || has_ended.recv_timeout(Duration::from_secs(7));
        tokio::task::spawn_blocking(wait)
            .await
            .expect("it runs")
            .expect("it has ended");
        // And leaves its turn to others.
        let all = u32::try_from(AT_ONCE).expect("they are few");
        assert!(questions.turns.acquire_many(all).await.is_ok());
    }

    #[tokio::test]
    async fn a_question_ends_when_its_time_is_over() {
        let (sender, _receiver) = channel();
        let question = endless(sender.clone(), sender);
        let answer = questions()
            .ask_within(Duration::from_millis(1), question)
            .await;
        let response = answer.expect_err("it has no answer").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }

    #[tokio::test]
    async fn a_few_questions_are_answered_at_once() {
        let questions = questions();
        let all = u32::try_from(AT_ONCE).expect("they are few");
        let turns = questions.turns.clone().acquire_many_owned(all).await;
        let refused = questions
            .ask(|_| Ok(()))
            .await
            .expect_err("it is not its turn");
        assert_eq!(
            refused.into_response().status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        drop(turns);
        assert!(questions.ask(|_| Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn what_fails_says_no_more_than_it_should() {
        let questions = questions();
        let failed = questions.ask(|_| -> anyhow::Result<()> { anyhow::bail!("/secret/path") });
        let failed = failed.await.expect_err("it has failed");
        let text = String::from_utf8(failed.json()).expect("text");
        assert!(!text.contains("secret"), "{text}");
        let none = || Problem::not_found("there is none");
        let missing = questions.ask(move |_| -> anyhow::Result<()> { Err(none().into()) });
        let missing = missing.await.expect_err("there is none").into_response();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    }
}
