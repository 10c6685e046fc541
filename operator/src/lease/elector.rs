//! The task that asks for the lease, renews it, and gives it back. It decides nothing: [`super::election`] does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::election::{Basis, Election, Step};
use super::record::{claimed, record, released};
use super::{Leadership, Standing, api_error_text};
use crate::settings::LeaseSettings;

/// A client for the lease alone: it is not fenced, and no layer of it repeats a request behind our back.
///
/// # Errors
/// When the configuration cannot be used.
pub fn lease_client(config: &Config) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    config.default_retry = false;
    Client::try_from(config)
}

/// Who leads, and the task that finds out: nothing happens before [`Elector::run`].
pub fn elector(client: Client, settings: LeaseSettings) -> (Leadership, Elector) {
    let (sender, standing) = watch::channel(Standing::default());
    let leases = Api::namespaced(client, &settings.namespace);
    let election = Election::new(settings.identity.as_str().into(), settings.timings);
    let elector = Elector {
        leases,
        settings,
        election,
        lease: None,
        sender,
        trouble: None,
    };
    (Leadership::new(standing), elector)
}

/// The task that asks for the lease, renews it, and gives it back.
#[derive(Debug)]
pub struct Elector {
    leases: Api<Lease>,
    settings: LeaseSettings,
    election: Election,
    /// The object as it was read or written last.
    lease: Option<Lease>,
    sender: watch::Sender<Standing>,
    /// What went wrong last, so that the same is not logged every two seconds.
    trouble: Option<String>,
}

/// Why a request about the lease gave nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("somebody else wrote first")]
    Overtaken,
    #[error("the answer has no resourceVersion")]
    NoVersion,
    #[error(transparent)]
    Refused(kube::Error),
}

impl Elector {
    /// Asks for the lease, again and again, until `stop`; then stops leading and gives it back. Whoever writes must have
    /// finished before: what is under way is cut off.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let asked = Instant::now();
            tokio::select! {
                biased;
                () = &mut stop => break,
                tried = self.attempt() => self.note(tried),
            }
            let now = Instant::now().into_std();
            self.election.expire(now);
            self.publish();
            let next = self.election.next_try(asked.into_std(), now, fastrand::f64());
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

    /// One try: looks where it must, and writes where it may.
    async fn attempt(&mut self) -> Result<(), Trouble> {
        if self.election.must_look() {
            self.look().await?;
            self.publish();
        }
        let basis = match self.election.step(Instant::now().into_std()) {
            Step::Wait => return Ok(()),
            Step::Acquire(basis) | Step::Renew(basis) => basis,
        };
        // Until an answer comes, and when it never does, the lease may be what we wrote.
        self.election.unsure();
        let asked = Instant::now();
        let written = self.write(basis).await?;
        let record = record(&written).ok_or(Trouble::NoVersion)?;
        self.election.wrote(record, asked.into_std());
        self.lease = Some(written);
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Trouble> {
        let found = self.answer(self.leases.get_opt(&self.settings.name)).await?;
        let record = match &found {
            Some(lease) => Some(record(lease).ok_or(Trouble::NoVersion)?),
            None => None,
        };
        self.election.saw(record, Instant::now().into_std());
        self.lease = found;
        Ok(())
    }

    async fn write(&self, basis: Basis) -> Result<Lease, Trouble> {
        let wall = Timestamp::now();
        let params = PostParams::default();
        match basis {
            Basis::Absent => {
                let lease = claimed(None, &self.settings, wall);
                self.answer(self.leases.create(&params, &lease)).await
            }
            Basis::Version(version) => {
                let mut lease = claimed(self.lease.as_ref(), &self.settings, wall);
                lease.metadata.resource_version = Some(version.to_string());
                let name = &self.settings.name;
                match self.answer(self.leases.replace(name, &params, &lease)).await {
                    // Deleted since it was read.
                    Err(Trouble::Refused(kube::Error::Api(status))) if status.code == 404 => {
                        Err(Trouble::Overtaken)
                    }
                    answer => answer,
                }
            }
        }
    }

    async fn answer<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
        let longest = self.settings.timings.request_timeout();
        match timeout(longest, request).await {
            Err(_) => Err(Trouble::NoAnswer(longest)),
            Ok(Ok(answer)) => Ok(answer),
            // Another version stands, or one was made before ours.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Trouble::Overtaken),
            Ok(Err(error)) => Err(Trouble::Refused(error)),
        }
    }

    /// Stops leading, and lets the next one lead at once.
    async fn release(mut self) {
        self.election.resign();
        self.publish();
        // A write that was cut off may have been done, or may still be: the lease is looked at, whoever led, and twice
        // where it changes meanwhile.
        for _ in 0..2 {
            match self.give_back().await {
                Ok(()) => return,
                Err(Trouble::Overtaken) => {}
                Err(trouble) => {
                    tracing::warn!(%trouble, "Could not give the lease back: the others wait until it runs out");
                    return;
                }
            }
        }
    }

    async fn give_back(&mut self) -> Result<(), Trouble> {
        self.look().await?;
        let Some(lease) = &self.lease else { return Ok(()) };
        let holder = record(lease).and_then(|record| record.holder);
        if holder.as_deref() != Some(&self.settings.identity) {
            return Ok(());
        }
        let lease = released(lease, Timestamp::now());
        let params = PostParams::default();
        self.answer(self.leases.replace(&self.settings.name, &params, &lease))
            .await?;
        tracing::info!("Gave the lease back");
        Ok(())
    }

    fn publish(&self) {
        let standing = self.election.standing(Instant::now().into_std());
        self.sender.send_if_modified(|before| {
            if *before == standing {
                return false;
            }
            log_change(before, &standing, &self.settings.identity);
            *before = standing;
            true
        });
    }

    fn note(&mut self, tried: Result<(), Trouble>) {
        let Err(trouble) = tried else {
            if self.trouble.take().is_some() {
                tracing::info!("The lease can be read and written again");
            }
            return;
        };
        let text = match &trouble {
            // Two that ask at once: one of them is the first.
            Trouble::Overtaken => return,
            Trouble::Refused(error) => api_error_text(error),
            other => other.to_string(),
        };
        if self.trouble.as_ref() != Some(&text) {
            let name = format!("{}/{}", self.settings.namespace, self.settings.name);
            tracing::warn!(lease = name, error = text, "Could not read or write the lease");
            self.trouble = Some(text);
        }
    }
}

fn log_change(before: &Standing, after: &Standing, identity: &str) {
    match (before.held, after.held) {
        (None, Some(_)) => tracing::info!(identity, "This replica leads"),
        (Some(_), None) => tracing::info!(identity, "This replica leads no more"),
        _ if before.leader != after.leader && after.held.is_none() => {
            let leader = after.leader.as_ref().map(Arc::as_ref);
            tracing::info!(leader = leader.unwrap_or("nobody"), "Another replica leads");
        }
        _ => {}
    }
}
