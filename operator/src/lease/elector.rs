//! The task that acquires, renews and releases the lease. It decides nothing: [`super::election`] does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::election::{Election, ElectionAction, Precondition};
use super::record::{acquired, record, released};
use super::{ElectionState, Leadership, api_error_text};
use crate::settings::LeaseSettings;

/// A client for the lease only: it is not fenced, and no layer of it retries requests.
///
/// # Errors
/// When the configuration cannot be used.
pub fn lease_client(config: &Config) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    config.default_retry = false;
    Client::try_from(config)
}

/// Creates a leadership handle and its election task, which starts with [`Elector::run`].
pub fn elector(client: Client, settings: LeaseSettings) -> (Leadership, Elector) {
    let (sender, state) = watch::channel(ElectionState::default());
    let leases = Api::namespaced(client, &settings.namespace);
    let election = Election::new(settings.identity.as_str().into(), settings.timings);
    let elector = Elector {
        leases,
        settings,
        election,
        lease: None,
        sender,
        last_error: None,
    };
    (Leadership::new(state), elector)
}

/// The task that acquires, renews and releases the lease.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    settings: LeaseSettings,
    election: Election,
    /// The object as last read or written.
    lease: Option<Lease>,
    sender: watch::Sender<ElectionState>,
    /// The last logged error, so that it is not logged again every two seconds.
    last_error: Option<String>,
}

/// Why a request for the lease failed.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("another client changed the lease first")]
    Conflict,
    #[error("the response has no resourceVersion")]
    MissingVersion,
    #[error(transparent)]
    Refused(kube::Error),
}

impl Elector {
    /// Tries to acquire or renew the lease until `stop`, then stops leading and releases it. Other tasks must have
    /// finished their writes before `stop`: requests in flight are canceled.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let started = Instant::now();
            tokio::select! {
                biased;
                () = &mut stop => break,
                result = self.attempt() => self.log_result(result),
            }
            let now = Instant::now().into_std();
            self.election.expire(now);
            self.publish();
            let next = self
                .election
                .next_attempt(started.into_std(), now, fastrand::f64());
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = sleep_until(next.into()) => {}
            }
            self.election.expire(Instant::now().into_std());
            self.publish();
        }
        self.release().await;
    }

    /// One attempt: reads the lease if needed, and writes it if allowed.
    async fn attempt(&mut self) -> Result<(), LeaseError> {
        if self.election.must_read() {
            self.read().await?;
            self.publish();
        }
        let precondition = match self.election.next_action(Instant::now().into_std()) {
            ElectionAction::Wait => return Ok(()),
            ElectionAction::Acquire(precondition) | ElectionAction::Renew(precondition) => precondition,
        };
        // Until a response arrives, and if none does, it is unknown whether the write succeeded.
        self.election.mark_uncertain();
        let started = Instant::now();
        let written = self.write(precondition).await?;
        let record = record(&written).ok_or(LeaseError::MissingVersion)?;
        self.election.record_write(record, started.into_std());
        self.lease = Some(written);
        Ok(())
    }

    async fn read(&mut self) -> Result<(), LeaseError> {
        let found = self.send(self.leases.get_opt(&self.settings.name)).await?;
        let record = match &found {
            Some(lease) => Some(record(lease).ok_or(LeaseError::MissingVersion)?),
            None => None,
        };
        self.election.record_read(record, Instant::now().into_std());
        self.lease = found;
        Ok(())
    }

    async fn write(&self, precondition: Precondition) -> Result<Lease, LeaseError> {
        let wall_clock = Timestamp::now();
        let params = PostParams::default();
        match precondition {
            Precondition::Absent => {
                let lease = acquired(None, &self.settings, wall_clock);
                self.send(self.leases.create(&params, &lease)).await
            }
            Precondition::Version(version) => {
                let mut lease = acquired(self.lease.as_ref(), &self.settings, wall_clock);
                lease.metadata.resource_version = Some(version.to_string());
                let name = &self.settings.name;
                match self.send(self.leases.replace(name, &params, &lease)).await {
                    // The lease was deleted since it was read.
                    Err(LeaseError::Refused(kube::Error::Api(status))) if status.code == 404 => {
                        Err(LeaseError::Conflict)
                    }
                    response => response,
                }
            }
        }
    }

    async fn send<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
        let request_timeout = self.settings.timings.request_timeout();
        match timeout(request_timeout, request).await {
            Err(_) => Err(LeaseError::Timeout(request_timeout)),
            Ok(Ok(response)) => Ok(response),
            // The lease has another version, or another client created it first.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(LeaseError::Conflict),
            Ok(Err(error)) => Err(LeaseError::Refused(error)),
        }
    }

    /// Stops leading, and releases the lease so that a standby can lead immediately.
    async fn release(mut self) {
        self.election.resign();
        self.publish();
        // A canceled write may have been applied, or may still be: the lease is read even if this replica did not lead,
        // and once more if it changes meanwhile.
        for _ in 0..2 {
            match self.release_if_held().await {
                Ok(()) => return,
                Err(LeaseError::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%error, "Could not release the lease: standbys wait until it expires");
                    return;
                }
            }
        }
    }

    async fn release_if_held(&mut self) -> Result<(), LeaseError> {
        self.read().await?;
        let Some(lease) = &self.lease else { return Ok(()) };
        let holder = record(lease).and_then(|record| record.holder);
        if holder.as_deref() != Some(&self.settings.identity) {
            return Ok(());
        }
        let lease = released(lease, Timestamp::now());
        let params = PostParams::default();
        self.send(self.leases.replace(&self.settings.name, &params, &lease))
            .await?;
        tracing::info!("Released the lease");
        Ok(())
    }

    fn publish(&self) {
        let state = self.election.state(Instant::now().into_std());
        self.sender.send_if_modified(|before| {
            if *before == state {
                return false;
            }
            log_change(before, &state, &self.settings.identity);
            *before = state;
            true
        });
    }

    fn log_result(&mut self, result: Result<(), LeaseError>) {
        let Err(error) = result else {
            if self.last_error.take().is_some() {
                tracing::info!("The lease can be read and written again");
            }
            return;
        };
        let text = match &error {
            // Expected when two replicas write concurrently.
            LeaseError::Conflict => return,
            LeaseError::Refused(error) => api_error_text(error),
            other => other.to_string(),
        };
        if self.last_error.as_ref() != Some(&text) {
            let name = format!("{}/{}", self.settings.namespace, self.settings.name);
            tracing::warn!(lease = name, error = text, "Could not read or write the lease");
            self.last_error = Some(text);
        }
    }
}

fn log_change(before: &ElectionState, after: &ElectionState, identity: &str) {
    match (before.held, after.held) {
        (None, Some(_)) => tracing::info!(identity, "This replica leads"),
        (Some(_), None) => tracing::info!(identity, "This replica no longer leads"),
        _ if before.leader != after.leader && after.held.is_none() => {
            let leader = after.leader.as_ref().map(Arc::as_ref);
            tracing::info!(leader = leader.unwrap_or("none"), "The leader has changed");
        }
        _ => {}
    }
}
