//! How to connect to the brokers of one cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use super::tls::Encryption;
use super::{ClusterSettings, ReadError, Sasl};

/// How to connect to the brokers of one cluster, with counts of connections and requests.
pub(super) struct Connector {
    pub(super) encryption: Option<Encryption>,
    pub(super) sasl: Option<Sasl>,
    /// Connection attempts so far.
    pub(super) connections_opened: AtomicU64,
    /// Requests sent so far.
    pub(super) requests_sent: AtomicU64,
}

impl Connector {
    pub(super) fn new(settings: &ClusterSettings) -> Result<Self, ReadError> {
        Ok(Self {
            encryption: settings.tls.as_ref().map(Encryption::new).transpose()?,
            sasl: settings.sasl.clone(),
            connections_opened: AtomicU64::new(0),
            requests_sent: AtomicU64::new(0),
        })
    }

    pub(super) fn connections_opened(&self) -> u64 {
        self.connections_opened.load(Ordering::Relaxed)
    }

    pub(super) fn requests_sent(&self) -> u64 {
        self.requests_sent.load(Ordering::Relaxed)
    }
}
