//! Settings of the HTTP API v1.

use std::time::Duration;

use url::Url;

/// Settings of the HTTP API v1.
#[derive(Debug, Clone)]
pub struct V1Settings {
    /// URL of the API as its clients reach it, for links; none means that links are paths.
    pub public_url: Option<Url>,
    /// Time after which stems are deleted; none: never.
    pub stems_retention: Option<Duration>,
    /// The longest song, in seconds.
    pub max_input_seconds: u64,
}
