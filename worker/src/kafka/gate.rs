//! Collects from all clients whether the brokers accept this process; reports refusals and checks if they persist.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use super::admission::{Accepted, Admission, Due, Refusal};
use super::error::{KAFKA_FIX, dependency, refused_scope};
use crate::telemetry::Holds;

/// Whether the brokers accept this process; clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    admission: Mutex<Admission>,
    holds: Holds,
    /// Notified when the brokers begin to refuse.
    refused: Notify,
}

impl Gate {
    /// For a process that starts now and reports refusals in `holds`.
    pub fn new(holds: Holds) -> Self {
        let shared = Shared {
            admission: Mutex::new(Admission::new(Instant::now())),
            holds,
            refused: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.shared
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a client's error, if it is a refusal.
    pub(super) fn record_error(&self, error: &KafkaError) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        let Some(scope) = refused_scope(code) else {
            return;
        };
        let dependency = dependency(code);
        if self.admission().refused(&dependency, scope, Instant::now()) {
            self.shared.holds.set(&dependency, KAFKA_FIX);
            self.shared.refused.notify_waiters();
        }
    }

    /// Records a successful response.
    pub(super) fn accepted(&self, accepted: Accepted) {
        let ended = self.admission().accepted(accepted);
        if let Some(dependency) = ended {
            self.shared.holds.clear(&dependency);
            tracing::info!(dependency, "Kafka accepts this process again");
        }
    }

    /// Waits until the brokers have refused this process for too long. Calls `ask`, which must not block, every 10 s
    /// while they refuse.
    pub(super) async fn refused_too_long(&self, ask: impl Fn()) -> Refusal {
        loop {
            let refused = self.shared.refused.notified();
            let due_at = self.admission().due_at();
            match due_at {
                Some(due_at) => tokio::time::sleep_until(due_at.into()).await,
                None => refused.await,
            }
            let due = self.admission().due(Instant::now());
            match due {
                Some(Due::Exit(refusal)) => return refusal,
                Some(Due::Check) => ask(),
                None => {}
            }
        }
    }
}
