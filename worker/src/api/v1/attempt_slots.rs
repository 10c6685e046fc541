//! Limits the attempts at webhooks that are made simultaneously, so that receivers that do not respond delay neither the
//! webhooks of other clients nor, for long, those to other receivers.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use separation_contract::message::TaskId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use url::Url;

/// Attempts made simultaneously.
const MAX_ATTEMPTS: usize = 8;

/// Those for the tasks of one client.
const MAX_OF_CLIENT: usize = 3;

/// Those at one receiver.
const MAX_AT_RECEIVER: usize = 2;

/// Longest wait for a slot.
const WAIT: Duration = Duration::from_secs(2);

/// The same for a receiver that accepted the last webhook: a slot is probably free soon.
const WAIT_FOR_ACCEPTING: Duration = Duration::from_secs(10);

/// Pause of an attempt that got no slot; up to a minute longer, depending on the task.
const PAUSE: Duration = Duration::from_secs(60);

/// The same for a receiver that accepted the last webhook.
const PAUSE_OF_ACCEPTING: Duration = Duration::from_secs(10);

/// Clients, and receivers, that are remembered while no attempt is for them.
const MAX_REMEMBERED: usize = 1_000;

/// The slots of a process.
pub(super) struct AttemptSlots {
    all: Arc<Semaphore>,
    clients: ByName<Semaphore>,
    receivers: ByName<Receiver>,
}

/// Permission for one attempt.
pub(super) struct AttemptSlot {
    receiver: Arc<Receiver>,
    _permits: [OwnedSemaphorePermit; 3],
}

/// There was no slot for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSlot {
    /// Whether the receiver accepted the last webhook.
    is_accepting: bool,
}

struct Receiver {
    slots: Arc<Semaphore>,
    /// Whether it accepted the last webhook.
    is_accepting: AtomicBool,
}

/// Values by name. Once there are many, those not in use are dropped.
struct ByName<T>(Mutex<HashMap<String, Arc<T>>>);

impl AttemptSlots {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_ATTEMPTS)),
            clients: ByName(Mutex::default()),
            receivers: ByName(Mutex::default()),
        }
    }

    /// A slot for an attempt to call `url` for a task of `client`.
    ///
    /// # Errors
    /// When all slots of the client or the receiver are in use for too long.
    pub(super) async fn acquire(&self, client: &str, url: &str) -> Result<AttemptSlot, NoSlot> {
        let receiver = self.receivers.get(&receiver_of(url), || Receiver {
            slots: Arc::new(Semaphore::new(MAX_AT_RECEIVER)),
            is_accepting: AtomicBool::new(false),
        });
        let of_client = self.clients.get(client, || Semaphore::new(MAX_OF_CLIENT));
        let at_receiver = Arc::clone(&receiver.slots);
        // The receiver's first: an attempt that waits for its receiver takes no slot of its client.
        let mut waiting = pin!(async { [permit(at_receiver).await, permit(of_client).await] });
        let began = Instant::now();
        let [at_receiver, of_client] = loop {
            if let Ok(permits) = timeout(WAIT, &mut waiting).await {
                break permits;
            }
            let is_accepting = receiver.is_accepting.load(Ordering::Relaxed);
            if !is_accepting || began.elapsed() >= WAIT_FOR_ACCEPTING {
                return Err(NoSlot { is_accepting });
            }
        };
        // Each of these is in use for no longer than one attempt.
        let of_all = permit(Arc::clone(&self.all)).await;
        Ok(AttemptSlot {
            receiver,
            _permits: [at_receiver, of_client, of_all],
        })
    }
}

impl AttemptSlot {
    /// Records whether the receiver accepted the webhook.
    pub(super) fn record(&self, accepted: bool) {
        self.receiver.is_accepting.store(accepted, Ordering::Relaxed);
    }
}

impl NoSlot {
    /// Time until the attempt for a task is due again: always the same for a task at a receiver in one state.
    pub(super) fn pause(self, task: &TaskId) -> Duration {
        if self.is_accepting {
            return PAUSE_OF_ACCEPTING;
        }
        let spread: u64 = task.as_str().bytes().map(u64::from).sum();
        PAUSE + Duration::from_secs(spread % 60)
    }
}

impl<T> ByName<T> {
    fn get(&self, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= MAX_REMEMBERED {
            values.retain(|_, value| Arc::strong_count(value) > 1);
        }
        let value = values.entry(name.to_owned());
        Arc::clone(value.or_insert_with(|| Arc::new(new())))
    }
}

async fn permit(slots: Arc<Semaphore>) -> OwnedSemaphorePermit {
    slots.acquire_owned().await.expect("the slots are never closed")
}

/// Scheme, host and port of a URL: its receiver.
fn receiver_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all slots that attempts at these URLs get, at most four for each.
    async fn take(slots: &AttemptSlots, client: &str, urls: &[&str]) -> Vec<AttemptSlot> {
        let mut taken = Vec::new();
        for url in urls {
            for _ in 0..4 {
                taken.extend(slots.acquire(client, url).await.ok());
            }
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_has_two_slots_and_a_client_three_of_eight() {
        let slots = AttemptSlots::new();
        let urls = ["http://a/x", "http://b/x", "http://c/x"];
        assert_eq!(take(&slots, "acme", &urls[..1]).await.len(), 2);
        let first = take(&slots, "first", &urls).await;
        assert_eq!(first.len(), 3);
        let second = take(&slots, "second", &["http://d/x", "http://e/x"]).await;
        assert_eq!(second.len(), 3, "those of another client are free");
        drop(first);
        assert_eq!(take(&slots, "first", &urls).await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_waits_longer_for_a_receiver_that_accepted_the_last_webhook() {
        let slots = AttemptSlots::new();
        let taken = take(&slots, "acme", &["http://a/x"]).await;
        let began = Instant::now();
        let refused = slots.acquire("acme", "http://a/y").await.err();
        assert_eq!(refused, Some(NoSlot { is_accepting: false }));
        assert!((WAIT..WAIT_FOR_ACCEPTING).contains(&began.elapsed()));

        taken[0].record(true);
        let release = async {
            tokio::time::sleep(WAIT_FOR_ACCEPTING - Duration::from_secs(1)).await;
            drop(taken);
        };
        let (slot, ()) = tokio::join!(slots.acquire("acme", "http://a/y"), release);
        slot.expect("a slot became free in time");
        let task = TaskId::parse("t1").unwrap();
        let pause = |is_accepting| NoSlot { is_accepting }.pause(&task);
        assert!(pause(true) < PAUSE && pause(false) >= PAUSE);
    }

    #[test]
    fn one_server_is_one_receiver() {
        assert_eq!(
            receiver_of("https://a.example/x?y"),
            receiver_of("https://a.example:443/z")
        );
        assert_ne!(
            receiver_of("https://a.example/x"),
            receiver_of("http://a.example/x")
        );
        assert_ne!(
            receiver_of("https://a.example/x"),
            receiver_of("https://b.example/x")
        );
    }
}
