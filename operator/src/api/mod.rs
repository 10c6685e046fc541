//! The client of the Kubernetes API: writes pass the lease's fence, failures are counted, and answers cannot nest deeper
//! than their decoder can read.
//!
//! It changes no request and decides nothing.

mod failures;
mod nesting;

use kube::client::ClientBuilder;
use kube::{Client, Config};

use crate::lease::{Fence, Leadership};
use crate::metrics::Metrics;

pub use failures::CountFailures;
pub use nesting::{BoundNesting, DEEPEST, TOO_DEEP};

/// The client for everything except the lease.
///
/// # Errors
/// When the configuration cannot be used.
pub fn client(config: &Config, leadership: Leadership, metrics: &Metrics) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    // Whoever decided on a write decides whether it is repeated.
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BoundNesting::layer())
        .with_layer(&Fence::layer(leadership))
        .with_layer(&CountFailures::layer(metrics))
        .build())
}

/// A client without the fence, for whoever writes nothing that the lease protects.
///
/// # Errors
/// When the configuration cannot be used.
pub fn unfenced_client(config: Config) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BoundNesting::layer())
        .build())
}
