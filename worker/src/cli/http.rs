//! The HTTP client of commands that call this machine.

use std::time::Duration;

use anyhow::Context as _;

use super::failure::Failure;

/// An HTTP client for this machine and for addresses from the command line; not for untrusted links.
pub(super) fn http_client(answer_limit: Duration) -> Result<reqwest::Client, Failure> {
    crate::outbound::install_tls();
    let client = reqwest::Client::builder().timeout(answer_limit).no_proxy();
    Ok(client.build().context("cannot create an HTTP client")?)
}
