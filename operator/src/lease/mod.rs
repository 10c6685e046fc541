//! Leader election between the operator's replicas with a `Lease`, and the fence that every write must pass.
//!
//! Guarantee: no two replicas write at the same time, whatever their clocks show and wherever one is frozen. Exception:
//! if a user deletes the `Lease` while a replica leads, a replica that starts within the next ten seconds may also
//! lead. This module never reads another process's clock, and never lets a write through after the deadline.
//!
//! Existing crates compare with `renewTime`, another process's clock (kube-lease-manager, which also writes without a
//! resourceVersion), or need another version of kube (kubert, kube-leader-election).
//!
//! Time is [`Instant`], which on Linux advances while the process is stopped, but not while the machine is suspended.
//! Writes of Deployments carry the resourceVersion that they were decided on, which covers that case.

mod election;
mod elector;
mod fence;
mod record;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use elector::{Elector, elector, lease_client};
pub use fence::{Fence, Fenced, fenced};

/// Handle to the election's result: the leader, and this replica's deadline. Cheap to clone and to read.
#[derive(Debug, Clone)]
pub struct Leadership {
    state: watch::Receiver<ElectionState>,
    /// The values at the last return of [`Leadership::changed`].
    last_returned: LastReturned,
    /// Keeps the channel of [`Leadership::always`] open.
    _sender: Option<Arc<watch::Sender<ElectionState>>>,
}

/// The term and the leader, whose changes wake waiters; renewals do not.
type LastReturned = (Option<Term>, Option<Arc<str>>);

/// The leader, and this replica's own term.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ElectionState {
    /// Identity of the leader; `None` if no leader is known.
    pub(crate) leader: Option<Arc<str>>,
    /// This replica's term, if it leads.
    pub(crate) held: Option<Held>,
}

/// This replica's current term and its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The term.
    pub(crate) term: Term,
    /// Writes are refused from this instant unless the lease is renewed first.
    pub(crate) until: Instant,
}

/// A period of uninterrupted leadership; a write that was decided in one term is refused in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

/// The election task has ended: leadership will not change again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leader election has ended")]
pub struct ElectorEnded;

impl Leadership {
    fn new(state: watch::Receiver<ElectionState>) -> Self {
        Self {
            state,
            last_returned: (None, None),
            _sender: None,
        }
    }

    /// For a process without an election: it always leads.
    pub fn always(identity: &str) -> Self {
        // A century: long enough, and far below the range of `Instant`.
        let until = Instant::now() + Duration::from_secs(100 * 365 * 24 * 3_600);
        let (sender, state) = watch::channel(ElectionState {
            leader: Some(identity.into()),
            held: Some(Held { term: Term(1), until }),
        });
        Self {
            _sender: Some(Arc::new(sender)),
            ..Self::new(state)
        }
    }

    /// Whether this replica may write at `now`.
    pub fn is_leading(&self, now: Instant) -> bool {
        self.term(now).is_some()
    }

    /// The term at `now`; `None` if this replica does not lead.
    pub fn term(&self, now: Instant) -> Option<Term> {
        let held = self.state.borrow().held;
        held.filter(|held| now < held.until).map(|held| held.term)
    }

    /// The instant from which writes are refused; `None` if this replica does not lead. Each renewal extends it.
    pub fn deadline(&self) -> Option<Instant> {
        self.state.borrow().held.map(|held| held.until)
    }

    /// The leader's identity, if it is known.
    pub fn leader(&self) -> Option<Arc<str>> {
        self.state.borrow().leader.clone()
    }

    /// Waits until this replica starts or stops leading, or the leader changes. The first call returns immediately if
    /// that has happened since this handle was created. Renewals do not wake it.
    ///
    /// # Errors
    /// When the election task has ended.
    pub async fn changed(&mut self) -> Result<(), ElectorEnded> {
        loop {
            let now = {
                let state = self.state.borrow_and_update();
                (state.held.map(|held| held.term), state.leader.clone())
            };
            if now != self.last_returned {
                self.last_returned = now;
                return Ok(());
            }
            self.state.changed().await.map_err(|_| ElectorEnded)?;
        }
    }

    /// The deadline, if `term` is current and its deadline has not passed.
    fn until(&self, term: Term, now: Instant) -> Option<Instant> {
        let held = self.state.borrow().held;
        held.filter(|held| held.term == term && now < held.until)
            .map(|held| held.until)
    }
}

/// The API server's message and status code; kube's own text contains the message twice.
pub fn api_error_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
