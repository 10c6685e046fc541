//! Asks a running pool whether its API responds, for the health checks of container engines: an image may have no shell.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Fails unless the API at `address` responds.
///
/// # Errors
/// The error of the request.
pub(super) async fn check(http: &reqwest::Client, address: SocketAddr) -> anyhow::Result<()> {
    let request = http
        .get(format!("http://{address}/health"))
        .timeout(TIMEOUT)
        .send();
    let response = request.await.and_then(reqwest::Response::error_for_status);
    response
        .map(drop)
        .with_context(|| format!("the API at {address} does not respond"))
}
