//! Calls to addresses that clients and settings supply: links to songs, webhooks, models.
//!
//! Every host is checked before it is called: as written, after its name is resolved, and again on each redirect. The
//! environment's proxies are used only for addresses in settings, because the address behind a proxy cannot be checked
//! after its name is resolved. Every wait and every response has a limit. Must never print more of an address than its
//! host.

mod client;
mod download;
mod error;
mod resolve;
mod rules;

#[cfg(test)]
mod tests;

pub use client::{Client, PostResponse, install_tls};
pub use download::{Download, DownloadLimits, ResumeFrom};
pub use error::OutboundError;
pub use rules::{Rule, Rules};
