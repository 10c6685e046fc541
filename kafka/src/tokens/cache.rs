//! A cached token, renewed before it expires.
//!
//! Tokens are fetched by separate tasks, which continue when a caller gives up. At most one fetch runs at a time, and
//! none during the back-off after a failure.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use separation_contract::backoff::Backoff;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::token::{FetchToken, Token};
use crate::ReadError;

/// The share of a token's lifetime after which the next one is fetched.
const LIFETIME_USED: f64 = 0.8;

/// A token with less time left when it arrives counts as expired.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// Time for one fetch. The AWS credential chain makes up to four attempts at some of its sources.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a caller waits for the next token while the current one is valid.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// Waits after consecutive failures.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// A token that is refused this soon after it was fetched is not fetched again: its origin would return an equal one,
/// at the rate at which connections are attempted.
const NEW_FOR: Duration = Duration::from_secs(10);

/// The longest sleep of [`TokenCache::keep_fresh`], because the system clock may be set while it sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

type Fetch = Shared<BoxFuture<'static, Result<Token, ReadError>>>;

/// A token that is fetched on first use and renewed before it expires. Clones share it.
#[derive(Clone)]
pub struct TokenCache {
    inner: Arc<Inner>,
}

struct Inner {
    origin: Arc<dyn FetchToken>,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    state: Mutex<State>,
    /// The token was invalidated, or the last clone dropped.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    fetch: Option<Fetch>,
    /// Consecutive.
    failures: u32,
    last_failure: Option<Failure>,
}

struct Held {
    token: Token,
    fetched: Instant,
    renew_at: SystemTime,
}

struct Failure {
    why: ReadError,
    at: Instant,
}

/// The cached state, for one caller.
enum Lookup {
    /// An unexpired token that needs no renewal yet, or whose renewal failed.
    Token(Token),
    /// An unexpired token that is being renewed.
    Renewing(Token, Fetch),
    Fetching(Fetch),
    /// The last failure, during its back-off.
    Failed(ReadError),
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("origin", &self.inner.origin)
            .finish_non_exhaustive()
    }
}

impl TokenCache {
    /// A cache of tokens from `origin`. Nothing is fetched before the first use.
    pub fn new(origin: Arc<dyn FetchToken>) -> Self {
        Self::with_clock(origin, SystemTime::now)
    }

    fn with_clock(origin: Arc<dyn FetchToken>, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(Inner {
                origin,
                now: Box::new(now),
                state: Mutex::default(),
                changed: Arc::default(),
            }),
        }
    }

    /// An unexpired token; the next one is fetched when 80 % of the lifetime have passed.
    ///
    /// # Errors
    /// When there is no unexpired token and none can be fetched, or the last failure was less than its back-off ago.
    pub async fn current(&self) -> Result<Token, ReadError> {
        match self.look_up() {
            Lookup::Token(token) => Ok(token),
            Lookup::Renewing(token, fetch) => {
                let renewed = timeout(RENEWAL_WAIT, fetch).await;
                Ok(renewed.ok().and_then(Result::ok).unwrap_or(token))
            }
            Lookup::Fetching(fetch) => fetch.await,
            Lookup::Failed(why) => Err(why),
        }
    }

    /// The unexpired token that is cached. Fetches nothing, for callers that cannot wait: see
    /// [`keep_fresh`](Self::keep_fresh).
    ///
    /// # Errors
    /// When there is none: the reason of the last failure.
    pub fn cached(&self) -> Result<Token, ReadError> {
        let state = self.inner.lock();
        if let Some(held) = state.unexpired((self.inner.now)()) {
            return Ok(held.token.clone());
        }
        let why = state.last_failure.as_ref().map(|failure| failure.why.clone());
        Err(why.unwrap_or_else(|| ReadError::new("no token has been fetched yet")))
    }

    /// Lets a token be renewed that a broker refused although it is unexpired, unless another one is cached already or
    /// it was fetched less than ten seconds ago. It remains cached until then: other brokers may accept it.
    pub fn invalidate(&self, refused: &Token) {
        let now = (self.inner.now)();
        if let Some(held) = &mut self.inner.lock().held
            && held.token.text == refused.text
            && held.fetched.elapsed() >= NEW_FOR
        {
            held.renew_at = now;
            self.inner.changed.notify_one();
        }
    }

    /// Fetches a token now and renews it in the background, until the last clone is dropped. Call it once, in a Tokio
    /// runtime.
    pub fn keep_fresh(&self) -> JoinHandle<()> {
        let (inner, changed) = (Arc::downgrade(&self.inner), Arc::clone(&self.inner.changed));
        tokio::spawn(async move {
            while let Some(inner) = inner.upgrade() {
                let wait = Self { inner }.renew().await;
                // Ends early when a token is invalidated, and when the last clone is dropped.
                let _ = timeout(wait, changed.notified()).await;
            }
        })
    }

    /// Fetches a token if one is due, and returns the time until the next one is.
    async fn renew(&self) -> Duration {
        if let Lookup::Renewing(_, fetch) | Lookup::Fetching(fetch) = self.look_up() {
            // Recorded and logged by the task that fetches.
            let _ = fetch.await;
        }
        let state = self.inner.lock();
        let now = (self.inner.now)();
        let until_renewal = state.unexpired(now).map_or(Duration::ZERO, |held| {
            held.renew_at.duration_since(now).unwrap_or_default()
        });
        until_renewal.max(state.backoff()).min(LONGEST_SLEEP)
    }

    /// The cached state. Starts a fetch if one is due and none is running.
    fn look_up(&self) -> Lookup {
        let now = (self.inner.now)();
        let mut state = self.inner.lock();
        let token = match state.unexpired(now) {
            Some(held) if now < held.renew_at => return Lookup::Token(held.token.clone()),
            held => held.map(|held| held.token.clone()),
        };
        match (self.next_fetch(&mut state), token) {
            (Ok(fetch), None) => Lookup::Fetching(fetch),
            (Ok(fetch), Some(token)) => Lookup::Renewing(token, fetch),
            (Err(why), None) => Lookup::Failed(why),
            (Err(_), Some(token)) => Lookup::Token(token),
        }
    }

    /// The fetch that is running, or a new one; the last failure during its back-off.
    fn next_fetch(&self, state: &mut State) -> Result<Fetch, ReadError> {
        if let Some(running) = &state.fetch
            && running.clone().now_or_never().is_none()
        {
            return Ok(running.clone());
        }
        if let Some(failure) = &state.last_failure
            && !state.backoff().is_zero()
        {
            return Err(failure.why.clone());
        }
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let fetched = timeout(FETCH_TIMEOUT, inner.origin.fetch()).await;
            inner.record(fetched.unwrap_or_else(|_| {
                let limit = FETCH_TIMEOUT.as_secs();
                let fix = "check that its issuer can be reached";
                Err(ReadError::timed_out(format!(
                    "no token was received within {limit} s; fix: {fix}"
                )))
            }))
        });
        let outcome = async {
            task.await
                .unwrap_or_else(|_| Err(ReadError::unreachable("the process is shutting down")))
        };
        let fetch = outcome.boxed().shared();
        state.fetch = Some(fetch.clone());
        Ok(fetch)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, fetched: Result<Token, ReadError>) -> Result<Token, ReadError> {
        let now = (self.now)();
        let checked = fetched.and_then(|token| match token.expires.duration_since(now) {
            Ok(lifetime) if lifetime >= MIN_LIFETIME => Ok((token, lifetime)),
            _ => Err(ReadError::new(
                "the token that was received has expired; fix: check this machine's clock, and that the token's origin \
                 renews it",
            )),
        });
        let mut state = self.lock();
        match checked {
            Ok((token, lifetime)) => {
                state.failures = 0;
                state.last_failure = None;
                state.held = Some(Held {
                    token: token.clone(),
                    fetched: Instant::now(),
                    renew_at: now + lifetime.mul_f64(LIFETIME_USED),
                });
                Ok(token)
            }
            Err(why) => {
                if state.failures == 0 {
                    tracing::warn!(error = %why, "Cannot fetch a token for Kafka");
                }
                state.failures = state.failures.saturating_add(1);
                state.last_failure = Some(Failure {
                    why: why.clone(),
                    at: Instant::now(),
                });
                Err(why)
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

impl State {
    fn unexpired(&self, now: SystemTime) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < held.token.expires)
    }

    /// The time until the next fetch is allowed.
    fn backoff(&self) -> Duration {
        let elapsed = self.last_failure.as_ref().map(|failure| failure.at.elapsed());
        elapsed.map_or(Duration::ZERO, |elapsed| {
            BACKOFF.after(self.failures).saturating_sub(elapsed)
        })
    }
}

#[cfg(test)]
mod tests;
