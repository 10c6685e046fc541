//! Calls to addresses that strangers give us: links to songs, webhooks.
//!
//! Every host is checked before it is called, after its name is resolved and again whenever it sends us on; the
//! environment's proxies are not used, since behind one nothing could be checked. Every wait and every answer has a
//! limit. Must never print what an address carries besides its host.

mod client;
mod download;
mod error;
mod resolve;
mod rules;

#[cfg(test)]
mod tests;

pub use client::{Client, install_tls};
pub use download::{Download, DownloadLimits};
pub use error::OutboundError;
pub use rules::{Rule, Rules};
