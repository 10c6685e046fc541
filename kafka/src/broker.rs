//! A broker and its connection, which is opened for the first request and reopened after an error.
//!
//! Connections are opened by separate tasks, which continue when a reading has ended. A broker that failed or stalled
//! is assumed unreachable: each request gives it little time, so that most of the deadline remains for the other
//! brokers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use separation_contract::backoff::Backoff;
use tokio::time::{Instant, timeout};

use crate::address::Address;
use crate::connection::Connection;
use crate::connector::Connector;
use crate::error::no_broker;
use crate::protocol::Request;
use crate::{Deadline, ReadError};

/// Time to open a connection, including TLS and authentication.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits after the second and each further consecutive failure; after the first there is none. The longest is shorter
/// than the two seconds between two readings: the first reading after a broker's return reaches it.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(1),
};

/// A broker whose response is due for this long counts as unreachable.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Time for a broker that seems unreachable: a connection within one data center takes a few milliseconds.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_millis(200);

/// One broker, by its address.
pub(crate) struct Broker {
    address: Address,
    connector: Arc<Connector>,
    state: Mutex<BrokerState>,
}

#[derive(Default)]
struct BrokerState {
    attempt: Option<OpenAttempt>,
    /// Consecutive, without a response between them.
    failures: u32,
    last_failure: Option<OpenFailure>,
    /// Whether the last request timed out.
    timed_out: bool,
}

struct OpenAttempt {
    started: Instant,
    outcome: OpenOutcome,
}

/// Whether a connection was opened for this request.
#[derive(Clone, Copy)]
enum ConnectionAge {
    New,
    Reused,
}

type OpenOutcome = Shared<BoxFuture<'static, Result<Connection, OpenFailure>>>;

#[derive(Debug, Clone)]
struct OpenFailure {
    why: ReadError,
    at: Instant,
}

impl Broker {
    pub(crate) fn new(address: Address, connector: Arc<Connector>) -> Self {
        Self {
            address,
            connector,
            state: Mutex::default(),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request, with half of the remaining time as its timeout so that another broker can be tried; a broker
    /// that seems unreachable gets at most [`UNREACHABLE_TIMEOUT`].
    ///
    /// # Errors
    /// When it is unreachable, stalled or sends a malformed response. The text begins with its address.
    pub(crate) async fn send<Q: Request>(
        &self,
        request: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Response, ReadError> {
        let half = deadline.remaining() / 2;
        let request_timeout = if self.seems_unreachable() {
            half.min(UNREACHABLE_TIMEOUT)
        } else {
            half
        };
        let sent = timeout(request_timeout, self.send_and_reconnect(request, deadline)).await;
        self.lock().timed_out = sent.is_err();
        let response = sent.unwrap_or_else(|_| {
            let why = format!("no response within {} ms", request_timeout.as_millis());
            if self.is_connected() {
                Err(ReadError::timed_out(why))
            } else {
                Err(no_broker(&self.address.host, &why))
            }
        });
        response.map_err(|error| ReadError::with_kind(format!("{}: {error}", self.address), error.kind))
    }

    async fn send_and_reconnect<Q: Request>(
        &self,
        request: &Q,
        deadline: &Deadline,
    ) -> Result<Q::Response, ReadError> {
        self.connector.requests_sent.fetch_add(1, Ordering::Relaxed);
        loop {
            let (connection, age) = self.connection().await?;
            match connection.send(request, deadline).await {
                Err(why) if !connection.is_usable() => match age {
                    ConnectionAge::New => {
                        self.lock().record_failure(OpenFailure {
                            why: why.clone(),
                            at: Instant::now(),
                        });
                        return Err(why);
                    }
                    // Brokers close idle connections. Every request of this client may be repeated.
                    ConnectionAge::Reused => {}
                },
                Err(why) => return Err(why),
                Ok(response) => {
                    self.lock().failures = 0;
                    return Ok(response);
                }
            }
        }
    }

    /// Whether the last request or connection attempt failed, or has been pending for too long.
    pub(crate) fn seems_unreachable(&self) -> bool {
        let mut state = self.lock();
        state.poll_attempt();
        match &state.attempt {
            None => state.failures > 0,
            Some(attempt) => match attempt.outcome.peek() {
                Some(Ok(connection)) => {
                    let due_for = connection.response_due_for();
                    due_for >= STALLED_AFTER || (state.timed_out && !due_for.is_zero())
                }
                _ => state.failures > 0 || state.timed_out || attempt.started.elapsed() >= STALLED_AFTER,
            },
        }
    }

    /// Whether there is a usable connection.
    pub(crate) fn is_connected(&self) -> bool {
        let mut state = self.lock();
        state.poll_attempt();
        let outcome = state.attempt.as_ref().and_then(|attempt| attempt.outcome.peek());
        matches!(outcome, Some(Ok(_)))
    }

    async fn connection(&self) -> Result<(Connection, ConnectionAge), ReadError> {
        let (outcome, age) = {
            let mut state = self.lock();
            state.poll_attempt();
            if let Some(attempt) = &state.attempt {
                (attempt.outcome.clone(), ConnectionAge::Reused)
            } else {
                state.check_backoff()?;
                let outcome = self.open();
                state.attempt = Some(OpenAttempt {
                    started: Instant::now(),
                    outcome: outcome.clone(),
                });
                (outcome, ConnectionAge::New)
            }
        };
        let connection = outcome.await.map_err(|failure| failure.why)?;
        Ok((connection, age))
    }

    fn open(&self) -> OpenOutcome {
        let (address, connector) = (self.address.clone(), Arc::clone(&self.connector));
        connector.connections_opened.fetch_add(1, Ordering::Relaxed);
        let opening = tokio::spawn(async move {
            let opened = timeout(OPEN_TIMEOUT, Connection::open(&address, &connector)).await;
            opened.unwrap_or_else(|_| {
                let cause = format!("the connection was not ready within {} s", OPEN_TIMEOUT.as_secs());
                Err(no_broker(&address.host, &cause))
            })
        });
        let outcome = async {
            let opened = opening
                .await
                .unwrap_or_else(|_| Err(ReadError::unreachable("the process is shutting down")));
            opened.map_err(|why| OpenFailure {
                why,
                at: Instant::now(),
            })
        };
        outcome.boxed().shared()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BrokerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BrokerState {
    /// Records an attempt that ended and a connection that broke, even if the request that used it timed out.
    fn poll_attempt(&mut self) {
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
            Err(failure) => self.record_failure(failure),
        }
    }

    fn record_failure(&mut self, failure: OpenFailure) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(failure);
        self.attempt = None;
    }

    /// Whether the back-off since the last failure is over.
    fn check_backoff(&self) -> Result<(), ReadError> {
        match &self.last_failure {
            Some(last_failure)
                if last_failure.at.elapsed() < BACKOFF.after(self.failures.saturating_sub(1)) =>
            {
                Err(last_failure.why.clone())
            }
            _ => Ok(()),
        }
    }
}
