//! The client of the Kubernetes API: writes pass the lease's fence, failures are counted, and responses are cut where
//! they nest deeper than the decoder accepts.
//!
//! It changes no request and makes no decision.

mod failures;
mod nesting;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::util::MapResponseLayer;

use crate::lease::{Fence, Leadership};
use crate::metrics::Metrics;

pub use failures::CountFailures;
pub(crate) use nesting::bound_nesting;

/// The client for everything except the lease.
///
/// # Errors
/// If the configuration is invalid.
pub fn client(config: &Config, leadership: Leadership, metrics: &Metrics) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    // The caller decides whether a write is retried.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&MapResponseLayer::new(bound_nesting))
        .with_layer(&Fence::layer(leadership))
        .with_layer(&CountFailures::layer(metrics))
        .build())
}

/// A client without the fence, for callers that write nothing that the lease protects.
///
/// # Errors
/// If the configuration is invalid.
pub fn unfenced_client(config: Config) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&MapResponseLayer::new(bound_nesting))
        .build())
}
