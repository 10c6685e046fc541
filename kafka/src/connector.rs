//! How to connect to the brokers of one cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use kafka_protocol::protocol::StrBytes;

use crate::protocol::text;
use crate::sasl::Authentication;
use crate::tls::Encryption;
use crate::{ClusterSettings, ReadError, TokenCache};

/// How to connect to the brokers of one cluster, with counts of connections and requests.
pub(crate) struct Connector {
    pub(crate) client_id: StrBytes,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) sasl: Option<Authentication>,
    /// Connection attempts so far.
    pub(crate) connections_opened: AtomicU64,
    /// Requests sent so far.
    pub(crate) requests_sent: AtomicU64,
}

impl Connector {
    /// Without `tokens`, tokens come from the origin in the settings.
    pub(crate) fn new(settings: &ClusterSettings, tokens: Option<TokenCache>) -> Result<Self, ReadError> {
        let sasl = settings.sasl.as_ref();
        Ok(Self {
            client_id: text(&settings.client_id),
            encryption: settings.tls.as_ref().map(Encryption::new).transpose()?,
            sasl: sasl.map(|sasl| Authentication::new(sasl, tokens)).transpose()?,
            connections_opened: AtomicU64::new(0),
            requests_sent: AtomicU64::new(0),
        })
    }

    pub(crate) fn connections_opened(&self) -> u64 {
        self.connections_opened.load(Ordering::Relaxed)
    }

    pub(crate) fn requests_sent(&self) -> u64 {
        self.requests_sent.load(Ordering::Relaxed)
    }
}
