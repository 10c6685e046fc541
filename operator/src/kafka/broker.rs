//! A broker: its connection, made when it is asked and made anew when it broke.
//!
//! Connections are opened by tasks of their own, which go on when a reading has ended. A broker that failed or is silent
//! is believed to be away: it gets a moment at each question, and the others keep the time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout};

use super::connection::{Connection, no_broker};
use super::protocol::Question;
use super::tls::Encryption;
use super::{ClusterSettings, Deadline, Sasl, Unread};

/// How long opening a connection may take, with TLS and login.
const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// The wait after the second failure in a row; it doubles with each, up to the longest. After the first there is none.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);

/// Shorter than the two seconds between two readings: the first one after a broker's return finds it.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// Who owes an answer for so long counts as away.
const SILENCE: Duration = Duration::from_secs(1);

/// What a broker that seems away may take of a reading's time: a connection within one building takes some milliseconds.
const PATIENCE_WITH_THE_ABSENT: Duration = Duration::from_millis(200);

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads `host:port`.
    pub(super) fn of(text: &str) -> Result<Self, Unread> {
        let parts = text.trim().rsplit_once(':');
        let address = parts.and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(Self {
                host: (!host.is_empty()).then(|| host.to_owned())?,
                port: port.parse().ok()?,
            })
        });
        address.ok_or_else(|| {
            Unread::new(format!(
                "`{text}` is not a valid broker address; fix: write host:port, comma separated"
            ))
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How connections of one cluster are made, and what was asked over all of them.
pub(super) struct Connector {
    pub(super) encryption: Option<Encryption>,
    pub(super) sasl: Option<Sasl>,
    opened: AtomicU64,
    asked: AtomicU64,
}

impl Connector {
    pub(super) fn new(settings: &ClusterSettings) -> Result<Self, Unread> {
        Ok(Self {
            encryption: settings.tls.as_ref().map(Encryption::new).transpose()?,
            sasl: settings.sasl.clone(),
            opened: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        })
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// One broker, by its address.
pub(super) struct Broker {
    address: Address,
    connector: Arc<Connector>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    attempt: Option<Attempt>,
    /// In a row, without an answer between them.
    failures: u32,
    last: Option<Failure>,
    /// Whether the last who asked gave up.
    kept_waiting: bool,
}

struct Attempt {
    started: Instant,
    outcome: Outcome,
}

/// Whether a connection was opened for this question.
#[derive(Clone, Copy)]
enum Age {
    New,
    Old,
}

type Outcome = Shared<BoxFuture<'static, Result<Connection, Failure>>>;

#[derive(Debug, Clone)]
struct Failure {
    why: Unread,
    at: Instant,
}

impl Broker {
    pub(super) fn new(address: Address, connector: Arc<Connector>) -> Self {
        Self {
            address,
            connector,
            state: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Asks within half of what is left of the deadline, so that there is time for somebody else; a broker that seems
    /// away gets a moment.
    ///
    /// # Errors
    /// When it is away, silent or talks nonsense, with its address.
    pub(super) async fn ask<Q: Question>(
        &self,
        question: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Answer, Unread> {
        let half = deadline.left() / 2;
        let patience = if self.seems_away() {
            half.min(PATIENCE_WITH_THE_ABSENT)
        } else {
            half
        };
        let asked = timeout(patience, self.ask_patiently(question, deadline)).await;
        self.lock().kept_waiting = asked.is_err();
        let answer = asked.unwrap_or_else(|_| {
            let why = format!("no answer within {} ms", patience.as_millis());
            if self.is_connected() {
                Err(Unread::unreachable(why))
            } else {
                Err(no_broker(&self.address.host, &why))
            }
        });
        answer.map_err(|Unread(why, cause)| Unread::because(format!("{}: {why}", self.address), cause))
    }

    async fn ask_patiently<Q: Question>(
        &self,
        question: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Answer, Unread> {
        self.connector.asked.fetch_add(1, Ordering::Relaxed);
        loop {
            let (connection, age) = self.connection().await?;
            match connection.ask(question, deadline).await {
                Err(why) if !connection.is_usable() => match age {
                    Age::New => {
                        self.lock().note(Failure {
                            why: why.clone(),
                            at: Instant::now(),
                        });
                        return Err(why);
                    }
                    // Brokers close connections that were idle. All that we ask may be asked twice.
                    Age::Old => {}
                },
                Err(why) => return Err(why),
                Ok(answer) => {
                    self.lock().failures = 0;
                    return Ok(answer);
                }
            }
        }
    }

    /// Whether the last thing that was tried failed, or still goes on for too long.
    pub(super) fn seems_away(&self) -> bool {
        let mut state = self.lock();
        state.settle();
        match &state.attempt {
            None => state.failures > 0,
            Some(attempt) => match attempt.outcome.peek() {
                Some(Ok(connection)) => {
                    let silent = connection.silent_for();
                    silent >= SILENCE || (state.kept_waiting && !silent.is_zero())
                }
                _ => state.failures > 0 || state.kept_waiting || attempt.started.elapsed() >= SILENCE,
            },
        }
    }

    /// Whether there is a connection that works.
    pub(super) fn is_connected(&self) -> bool {
        let mut state = self.lock();
        state.settle();
        let outcome = state.attempt.as_ref().and_then(|attempt| attempt.outcome.peek());
        matches!(outcome, Some(Ok(_)))
    }

    async fn connection(&self) -> Result<(Connection, Age), Unread> {
        let (outcome, age) = {
            let mut state = self.lock();
            state.settle();
            if let Some(attempt) = &state.attempt {
                (attempt.outcome.clone(), Age::Old)
            } else {
                state.may_try()?;
                let outcome = self.open();
                state.attempt = Some(Attempt {
                    started: Instant::now(),
                    outcome: outcome.clone(),
                });
                (outcome, Age::New)
            }
        };
        let connection = outcome.await.map_err(|failure| failure.why)?;
        Ok((connection, age))
    }

    fn open(&self) -> Outcome {
        let (address, connector) = (self.address.clone(), Arc::clone(&self.connector));
        connector.opened.fetch_add(1, Ordering::Relaxed);
        let opening = tokio::spawn(async move {
            let opened = timeout(OPEN_WITHIN, Connection::open(&address, &connector)).await;
            opened.unwrap_or_else(|_| {
                let cause = format!("no greeting within {} s", OPEN_WITHIN.as_secs());
                Err(no_broker(&address.host, &cause))
            })
        });
        let outcome = async {
            let opened = opening
                .await
                .unwrap_or_else(|_| Err(Unread::unreachable("the process ends")));
            opened.map_err(|why| Failure {
                why,
                at: Instant::now(),
            })
        };
        outcome.boxed().shared()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes note of an attempt that ended and of a connection that broke, whoever waited for them.
    fn settle(&mut self) {
        let Some(outcome) = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.outcome.clone().now_or_never())
        else {
            return;
        };
        match outcome {
            Ok(connection) if connection.is_usable() => {}
            Ok(_) => self.attempt = None,
            Err(failure) => self.note(failure),
        }
    }

    fn note(&mut self, failure: Failure) {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(failure);
        self.attempt = None;
    }

    /// Whether the wait since the last failure is over.
    fn may_try(&self) -> Result<(), Unread> {
        match &self.last {
            Some(last) if last.at.elapsed() < back_off(self.failures) => Err(last.why.clone()),
            _ => Ok(()),
        }
    }
}

/// The wait after so many failures in a row.
fn back_off(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        // 2^10 times the first is longer than the longest.
        more => FIRST_BACK_OFF
            .saturating_mul(1 << (more - 2).min(10))
            .min(LONGEST_BACK_OFF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_a_second_and_no_further() {
        let waits = [0, 1, 2, 3, 5, 6, 7, u32::MAX].map(|failures| back_off(failures).as_millis());
        assert_eq!(waits, [0, 0, 100, 200, 800, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn addresses_are_read_with_names_and_numbers() {
        let read = |text: &str| Address::of(text).map(|address| (address.host, address.port));
        assert_eq!(read("kafka:9092"), Ok(("kafka".to_owned(), 9092)));
        assert_eq!(read("[::1]:9092"), Ok(("::1".to_owned(), 9092)));
        for text in ["kafka", ":9092", "kafka:", "kafka:99999"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
