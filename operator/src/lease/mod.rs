//! Which replica of the operator leads: a `Lease` in the cluster, and the fence that every write has to pass.
//!
//! It promises that no two replicas write at a time, whatever their clocks show and wherever one is frozen; deleting the
//! `Lease` by hand while one leads breaks that for a replica that starts in the same ten seconds. It must never read
//! another's clock, and never let a write through after the deadline.
//!
//! Written here, because what there is rests on `renewTime`, the clock of somebody else (kube-lease-manager, which also
//! writes without a resourceVersion), or on another kube (kubert, kube-leader-election).
//!
//! Time is [`Instant`], which on Linux goes on while the process is stopped, though not while the whole machine sleeps;
//! replica writes carry the resourceVersion they were decided on against what is left of that.

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

/// Who leads, and until when we do. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    /// What [`Leadership::changed`] told last.
    told: Told,
    /// Keeps a leadership that nobody can take from us.
    _forever: Option<Arc<watch::Sender<Standing>>>,
}

/// What somebody wants to be woken for: not for renewals.
type Told = (Option<Term>, Option<Arc<str>>);

/// Who leads, and until when we do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Who leads; nobody, as far as we know, when none.
    pub(crate) leader: Option<Arc<str>>,
    /// Our own time.
    pub(crate) held: Option<Held>,
}

/// A time in which we lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Which of our times.
    pub(crate) term: Term,
    /// From here on nothing is written, unless it is put off by then.
    pub(crate) until: Instant,
}

/// A time of leading without interruption; what was decided in one is not written in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

/// The task that keeps the lease has ended: nothing will change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody asks for the lease any more")]
pub struct ElectorEnded;

impl Leadership {
    fn new(standing: watch::Receiver<Standing>) -> Self {
        Self {
            standing,
            told: (None, None),
            _forever: None,
        }
    }

    /// That of a process that is alone: it always leads.
    pub fn alone(identity: &str) -> Self {
        // A century: long enough, and far from what the clock can hold.
        let until = Instant::now() + Duration::from_secs(100 * 365 * 24 * 3_600);
        let (sender, standing) = watch::channel(Standing {
            leader: Some(identity.into()),
            held: Some(Held { term: Term(1), until }),
        });
        Self {
            _forever: Some(Arc::new(sender)),
            ..Self::new(standing)
        }
    }

    /// Whether we may write at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        self.term(now).is_some()
    }

    /// The time of leading that `now` falls into; none when we do not lead.
    pub fn term(&self, now: Instant) -> Option<Term> {
        let held = self.standing.borrow().held;
        held.filter(|held| now < held.until).map(|held| held.term)
    }

    /// From when on we may write no more; none when we do not lead. Each renewal moves it.
    pub fn deadline(&self) -> Option<Instant> {
        self.standing.borrow().held.map(|held| held.until)
    }

    /// Who leads, as far as we know: one of the replicas' identities.
    pub fn leader(&self) -> Option<Arc<str>> {
        self.standing.borrow().leader.clone()
    }

    /// Waits until we begin or cease to lead, or somebody else does; the first call answers at once if one of that has
    /// happened since this handle was made. Renewals wake nobody.
    ///
    /// # Errors
    /// When nobody asks for the lease any more.
    pub async fn changed(&mut self) -> Result<(), ElectorEnded> {
        loop {
            let now = {
                let standing = self.standing.borrow_and_update();
                (standing.held.map(|held| held.term), standing.leader.clone())
            };
            if now != self.told {
                self.told = now;
                return Ok(());
            }
            self.standing.changed().await.map_err(|_| ElectorEnded)?;
        }
    }

    /// Our time, where it is of this term and has not passed.
    fn until(&self, term: Term, now: Instant) -> Option<Instant> {
        let held = self.standing.borrow().held;
        held.filter(|held| held.term == term && now < held.until)
            .map(|held| held.until)
    }
}

/// What the API server says, once: kube's own text says all of it twice.
pub(crate) fn api_error_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
