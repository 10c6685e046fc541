//! Tests with a scripted origin, on a clock that only the test advances.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::advance;

use super::*;

/// The lifetime of each token.
const LIFETIME: Duration = Duration::from_secs(100);

/// The result of one fetch.
#[derive(Debug, Clone, Copy)]
enum Fetched {
    /// A token with this much time left, named after the number of the fetch.
    Token(Duration),
    Failure,
    /// It never ends.
    Stall,
}

#[derive(Debug)]
struct Origin {
    /// The last result is repeated.
    results: &'static [Fetched],
    fetches: AtomicU32,
    started: Instant,
}

impl Origin {
    fn now(started: Instant) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_715_949_296) + started.elapsed()
    }

    fn fetches(&self) -> u32 {
        self.fetches.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl FetchToken for Origin {
    async fn fetch(&self) -> Result<Token, ReadError> {
        let number = self.fetches.fetch_add(1, Ordering::Relaxed);
        let last = self.results.len() - 1;
        match self.results[last.min(number as usize)] {
            Fetched::Token(lifetime) => Ok(Token {
                text: format!("token {number}").into(),
                principal: "vocals".to_owned(),
                expires: Self::now(self.started) + lifetime,
            }),
            Fetched::Failure => Err(ReadError::unreachable(format!("failure {number}"))),
            Fetched::Stall => std::future::pending().await,
        }
    }
}

fn cache(results: &'static [Fetched]) -> (Arc<Origin>, TokenCache) {
    let started = Instant::now();
    let origin = Arc::new(Origin {
        results,
        fetches: AtomicU32::new(0),
        started,
    });
    let now = move || Origin::now(started);
    let cache = TokenCache::with_clock(Arc::clone(&origin) as Arc<dyn FetchToken>, now);
    (origin, cache)
}

fn text(token: Result<Token, ReadError>) -> String {
    token.map_or_else(|why| why.to_string(), |token| token.text.expose().to_owned())
}

async fn current(cache: &TokenCache) -> String {
    text(cache.current().await)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_after_four_fifths_of_its_lifetime() {
    let (_, cache) = cache(&[Fetched::Token(LIFETIME)]);
    assert_eq!(text(cache.cached()), "no token has been fetched yet");
    assert_eq!(current(&cache).await, "token 0");
    advance(seconds(79)).await;
    assert_eq!(current(&cache).await, "token 0");
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "token 1");
    assert_eq!(text(cache.cached()), "token 1");
}

#[tokio::test(start_paused = true)]
async fn simultaneous_callers_share_one_fetch() {
    let (origin, cache) = cache(&[Fetched::Token(LIFETIME)]);
    let tokens = join_all((0..10).map(|_| current(&cache))).await;
    assert_eq!(tokens, ["token 0"; 10]);
    assert_eq!(origin.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_token_until_it_expires() {
    let (_, cache) = cache(&[Fetched::Token(LIFETIME), Fetched::Failure]);
    current(&cache).await;
    advance(seconds(99)).await;
    assert_eq!(current(&cache).await, "token 0");
    assert_eq!(text(cache.cached()), "token 0");
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "failure 2");
    assert_eq!(text(cache.cached()), "failure 2");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_renewal_does_not_withhold_the_token() {
    let (origin, cache) = cache(&[Fetched::Token(LIFETIME), Fetched::Stall]);
    current(&cache).await;
    advance(seconds(80)).await;
    assert_eq!(current(&cache).await, "token 0");
    assert_eq!(origin.fetches(), 2);
    assert!(origin.started.elapsed() < seconds(82));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_fetch_ends_with_an_error() {
    let (_, cache) = cache(&[Fetched::Stall]);
    let why = current(&cache).await;
    assert!(
        why.starts_with("no token was received within 20 s; fix: "),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_its_backoff() {
    let (origin, cache) = cache(&[Fetched::Failure, Fetched::Failure, Fetched::Token(LIFETIME)]);
    assert_eq!(current(&cache).await, "failure 0");
    assert_eq!(current(&cache).await, "failure 0");
    assert_eq!(text(cache.cached()), "failure 0");
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "failure 1");
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "failure 1");
    assert_eq!(origin.fetches(), 2);
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "token 2");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_expired_is_a_failure() {
    let (_, cache) = cache(&[Fetched::Token(Duration::ZERO)]);
    let why = current(&cache).await;
    assert!(
        why.starts_with("the token that was received has expired; fix: "),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_fetched_again_unless_it_is_new_or_replaced() {
    let (origin, cache) = cache(&[
        Fetched::Token(LIFETIME),
        Fetched::Failure,
        Fetched::Token(LIFETIME),
    ]);
    let refused = cache.current().await.unwrap();
    cache.invalidate(&refused);
    assert_eq!(current(&cache).await, "token 0");
    assert_eq!(origin.fetches(), 1);
    advance(NEW_FOR).await;
    // An unexpired token remains, for brokers that accept it, until it is replaced.
    cache.invalidate(&refused);
    assert_eq!(text(cache.cached()), "token 0");
    assert_eq!(current(&cache).await, "token 0");
    assert_eq!(origin.fetches(), 2);
    advance(seconds(1)).await;
    assert_eq!(current(&cache).await, "token 2");
    advance(NEW_FOR).await;
    cache.invalidate(&refused);
    assert_eq!(current(&cache).await, "token 2");
    assert_eq!(origin.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_cached_in_the_background_until_the_last_clone_is_dropped() {
    let (origin, cache) = cache(&[
        Fetched::Token(LIFETIME),
        Fetched::Failure,
        Fetched::Token(LIFETIME),
    ]);
    let kept_fresh = cache.keep_fresh();
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(text(cache.cached()), "token 0");
    // The renewal after 80 s fails, and is repeated a second later.
    tokio::time::sleep(seconds(81)).await;
    assert_eq!(text(cache.cached()), "token 2");
    let refused = cache.cached().unwrap();
    tokio::time::sleep(NEW_FOR).await;
    cache.invalidate(&refused);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(text(cache.cached()), "token 3");
    let clone = cache.clone();
    drop(cache);
    tokio::time::sleep(seconds(80)).await;
    assert_eq!(text(clone.cached()), "token 4");
    drop(clone);
    kept_fresh.await.unwrap();
    assert_eq!(origin.fetches(), 5);
}
