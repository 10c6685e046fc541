//! The HTTP client of commands that call this machine.

use std::time::Duration;

use anyhow::Context as _;

use super::failure::Failure;

/// An HTTP client for this machine and for addresses from the command line; not for untrusted links.
pub(super) fn http_client(answer_limit: Duration) -> Result<reqwest::Client, Failure> {
    // Fails only when a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(answer_limit)
        .no_proxy()
        .build()
        .context("cannot create an HTTP client")
        .map_err(Failure::Work)
}
