//! Permissions to receive or to fetch songs. Of several clients, none gets all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clients::Clients;

/// Permissions for a number of songs simultaneously; cheap to clone.
#[derive(Clone)]
pub(super) struct Slots(Arc<Shared>);

struct Shared {
    all: Arc<Semaphore>,
    per_client: usize,
    /// By the names of clients.
    of_clients: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Permission for one song, until it is dropped.
pub(super) struct Slot {
    _of_client: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Slots {
    /// `count` permissions. If there are several clients, each gets half of them at most, but at least one.
    pub(super) fn new(count: usize, clients: &Clients) -> Self {
        let per_client = match clients.are_several() {
            true => (count / 2).max(1),
            false => count,
        };
        Self(Arc::new(Shared {
            all: Arc::new(Semaphore::new(count)),
            per_client,
            of_clients: Mutex::default(),
        }))
    }

    /// A permission, if one is left for the client.
    pub(super) fn try_acquire(&self, client: &str) -> Option<Slot> {
        Some(Slot {
            _of_client: self.of_client(client).try_acquire_owned().ok()?,
            _of_all: Arc::clone(&self.0.all).try_acquire_owned().ok()?,
        })
    }

    /// A permission, once one is left for the client.
    pub(super) async fn acquire(&self, client: &str) -> Slot {
        const OPEN: &str = "the semaphores are never closed";
        Slot {
            _of_client: self.of_client(client).acquire_owned().await.expect(OPEN),
            _of_all: Arc::clone(&self.0.all).acquire_owned().await.expect(OPEN),
        }
    }

    fn of_client(&self, client: &str) -> Arc<Semaphore> {
        let mut of_clients = self.0.of_clients.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = of_clients
            .entry(client.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.0.per_client)));
        Arc::clone(slots)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::clients::Client;
    use super::*;

    fn slots(count: usize, names: &[&str]) -> Slots {
        let client = |name: &&str| Client::new(name, [name.as_bytes()[0]; 32]).expect("a name");
        let clients = Clients::new(names.iter().map(client).collect()).expect("different names");
        Slots::new(count, &clients)
    }

    #[test]
    fn one_client_of_several_gets_half_of_the_slots() {
        let slots = slots(4, &["a", "b"]);
        let first = slots.try_acquire("a");
        let second = slots.try_acquire("a");
        assert!(first.is_some() && second.is_some());
        assert!(slots.try_acquire("a").is_none());
        assert!(
            slots.acquire("a").now_or_never().is_none(),
            "it has to wait for its own slots"
        );
        let others = [slots.try_acquire("b"), slots.try_acquire("b")];
        assert!(others.iter().all(Option::is_some));
        drop(first);
        assert!(slots.acquire("a").now_or_never().is_some());
        assert!(slots.try_acquire("a").is_some(), "its slot was returned");
    }

    #[test]
    fn the_only_client_gets_all_slots() {
        let slots = slots(2, &["a"]);
        let all = [slots.try_acquire("a"), slots.try_acquire("a")];
        assert!(all.iter().all(Option::is_some));
        assert!(slots.try_acquire("a").is_none());
    }

    #[test]
    fn one_slot_is_for_any_client() {
        let slots = slots(1, &["a", "b"]);
        let slot = slots.try_acquire("b");
        assert!(slot.is_some());
        assert!(slots.try_acquire("a").is_none());
    }
}
