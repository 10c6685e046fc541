//! Tokens for the librdkafka clients of this process.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use separation_kafka::{ReadError, Token, TokenCache};
use tokio::time::timeout;

use crate::settings::KafkaSettings;

/// Time limit for the first token.
const FIRST_TOKEN_LIMIT: Duration = Duration::from_secs(10);

/// The longest lifetime of a token that is reported to librdkafka, which asks for the next one at 80 % of it: a token
/// that replaces a refused one is used this soon.
const LONGEST_REPORTED_LIFETIME: Duration = Duration::from_secs(20);

/// How librdkafka begins the reason of an error when [`for_client`] returned none.
pub(super) const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token: ";

/// Fetches the first token, and renews it while the runtime runs. Without tokens it does nothing. Clients should be
/// created after it, because those that get no token try again only 10 s later.
///
/// # Errors
/// When there is no token after 10 s. It is fetched again later.
pub async fn start_tokens(kafka: &KafkaSettings) -> Result<(), ReadError> {
    let Some(tokens) = &kafka.tokens else {
        return Ok(());
    };
    // It ends with the last clone of the cache.
    drop(tokens.keep_fresh());
    let fetched = timeout(FIRST_TOKEN_LIMIT, tokens.current()).await;
    let late = || {
        ReadError::new(format!(
            "there is no token for Kafka after {} s; fix: check that this worker can reach the service that issues it",
            FIRST_TOKEN_LIMIT.as_secs()
        ))
    };
    fetched.map_err(|_| late())?.map(drop)
}

/// As [`start_tokens`], for services, which keep trying: logs the error.
pub async fn start_tokens_of_service(kafka: &KafkaSettings) {
    if let Err(error) = start_tokens(kafka).await {
        tracing::error!(%error, "This worker has no token for Kafka and keeps trying");
    }
}

/// The current token for a client, which asks while it is polled.
pub(super) fn for_client(tokens: Option<&TokenCache>) -> Result<OAuthToken, Box<dyn Error>> {
    let token = tokens.ok_or("the settings contain no tokens")?.cached()?;
    let reported = reported_expiry(&token, SystemTime::now());
    Ok(OAuthToken {
        token: token.text.expose().to_owned(),
        principal_name: token.principal,
        lifetime_ms: i64::try_from(reported.duration_since(UNIX_EPOCH)?.as_millis())?,
    })
}

/// Has another token fetched if `error` is the brokers' refusal of the current one.
pub(super) fn renew_refused(tokens: Option<&TokenCache>, error: &KafkaError, reason: &str) {
    let refused = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication);
    if let Some(tokens) = tokens.filter(|_| refused && !reason.starts_with(NO_TOKEN))
        && let Ok(token) = tokens.cached()
    {
        tokens.invalidate(&token);
    }
}

/// The expiry of a token as librdkafka gets to know it. It uses it only to choose the time of its next request. That is
/// before the token expires, also if the request after the renewal still gets the old token.
fn reported_expiry(token: &Token, now: SystemTime) -> SystemTime {
    let lifetime = token.expires.duration_since(now).unwrap_or_default();
    now + (lifetime / 2).min(LONGEST_REPORTED_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_asks_for_the_next_token_well_before_this_one_expires() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (lifetime_s, reported_ms) in [(3_600, 20_000), (40, 20_000), (5, 2_500)] {
            let token = Token {
                text: "a.b.c".to_owned().into(),
                principal: "songs".to_owned(),
                expires: now + Duration::from_secs(lifetime_s),
            };
            let reported = reported_expiry(&token, now).duration_since(now).unwrap();
            assert_eq!(reported, Duration::from_millis(reported_ms), "{lifetime_s}");
        }
    }
}
