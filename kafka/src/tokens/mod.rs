//! Tokens that Kafka clients authenticate with (SASL `OAUTHBEARER`): their origins, and a cache that renews them.
//!
//! A token is a secret: it occurs in no log, error or `Debug` output. Nothing here connects to Kafka.

mod aws_http;
mod cache;
mod client_credentials;
mod file;
mod msk;
mod token;
mod web_identity;

use std::sync::Arc;

pub use aws_http::aws_http_client;
pub use cache::TokenCache;
pub use client_credentials::check_token_endpoint;
pub use msk::msk_token;
pub use token::{FetchToken, Token};
pub use web_identity::web_identity_credentials;

use crate::{ReadError, TokenOrigin};

/// Fetches tokens from their origin.
///
/// # Errors
/// When the settings of the origin are invalid, or it is outside of this crate ([`TokenOrigin::External`]).
pub fn fetcher(origin: &TokenOrigin) -> Result<Arc<dyn FetchToken>, ReadError> {
    Ok(match origin {
        TokenOrigin::ClientCredentials(settings) => {
            Arc::new(client_credentials::TokenEndpoint::new(settings)?)
        }
        TokenOrigin::File(path) => Arc::new(file::TokenFile::new(path.clone())),
        TokenOrigin::AwsMskIam { region } => Arc::new(msk::MskIam::new(region.clone())?),
        TokenOrigin::External { name } => {
            return Err(ReadError::new(format!(
                "the tokens of {name} are not fetched here"
            )));
        }
    })
}
