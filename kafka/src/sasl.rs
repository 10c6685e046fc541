//! SASL authentication with a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use ring::rand::{SecureRandom as _, SystemRandom};
use separation_contract::kafka::SaslMechanism;
use tokio::time::timeout;

use crate::error::excerpt;
use crate::handshake::Handshake;
use crate::protocol::text;
use crate::scram::{ScramClient, ScramHash};
use crate::{Password, ReadError, Sasl, Token, TokenCache, TokenOrigin, fetcher};

/// Time for a token, less than the time to open a connection, so that the error names the token.
const TOKEN_WAIT: Duration = Duration::from_secs(2);

/// The most of a broker's reason that an error contains.
const MAX_REASON_BYTES: usize = 200;

/// The client's response to an error of `OAUTHBEARER` (RFC 7628, section 3.2.3).
const ERROR_RECEIVED: &str = "\u{1}";

/// How to authenticate.
pub(crate) enum Authentication {
    Password(Password),
    Token(TokenAuthentication),
}

/// Tokens, and what is sent with them.
pub(crate) struct TokenAuthentication {
    tokens: TokenCache,
    extensions: BTreeMap<String, String>,
    /// The fix for a token that a broker rejects.
    fix: &'static str,
}

/// A broker's response to a message that it accepts.
struct Accepted {
    bytes: Bytes,
    session_lifetime: Option<Duration>,
}

impl Authentication {
    /// Without `tokens`, tokens come from their origin in the settings.
    ///
    /// # Errors
    /// When the settings are invalid, or tokens come from outside and there are no `tokens`.
    pub(crate) fn new(sasl: &Sasl, tokens: Option<TokenCache>) -> Result<Self, ReadError> {
        let settings = match sasl {
            Sasl::Password(password) => return Ok(Self::Password(password.clone())),
            Sasl::Token(settings) => settings,
        };
        check_extensions(&settings.extensions)?;
        let tokens = tokens.map_or_else(|| fetcher(&settings.origin).map(TokenCache::new), Ok)?;
        let fix = match settings.origin {
            TokenOrigin::AwsMskIam { .. } => {
                "allow kafka-cluster:Connect on the cluster to the IAM role, and check the region"
            }
            TokenOrigin::ClientCredentials(_) | TokenOrigin::File(_) => {
                "let the brokers accept the token's issuer, audience and subject"
            }
            TokenOrigin::External { .. } => {
                "let the brokers accept the token's issuer, audience and subject; for Amazon MSK, allow \
                 kafka-cluster:Connect to the IAM role, and check the region"
            }
        };
        Ok(Self::Token(TokenAuthentication {
            tokens,
            extensions: settings.extensions.clone(),
            fix,
        }))
    }

    /// The mechanism's name in Kafka's protocol.
    fn mechanism(&self) -> &'static str {
        match self {
            Self::Password(password) => password.mechanism.wire_name(),
            Self::Token(_) => SaslMechanism::OauthBearer.wire_name(),
        }
    }
}

/// Authenticates, and returns the session's lifetime if the broker limits it.
pub(crate) async fn authenticate(
    handshake: &mut Handshake,
    authentication: &Authentication,
) -> Result<Option<Duration>, ReadError> {
    let mechanism = authentication.mechanism();
    let handshake_request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    let response = handshake.send(&handshake_request).await?;
    if response.error_code != 0 {
        let offered: Vec<_> = response.mechanisms.iter().map(ToString::to_string).collect();
        return Err(ReadError::unauthorized(format!(
            "the broker does not support {mechanism}, only {}; fix: use one of these",
            offered.join(", ")
        )));
    }
    match authentication {
        Authentication::Password(password) => with_password(handshake, password).await,
        Authentication::Token(token) => with_token(handshake, token).await,
    }
}

async fn with_password(
    handshake: &mut Handshake,
    password: &Password,
) -> Result<Option<Duration>, ReadError> {
    let mechanism = password.mechanism;
    let (username, secret) = (password.username.expose(), password.password.expose());
    let rejected = |why: String| {
        ReadError::unauthorized(format!(
            "the broker rejected authentication with {}: {why}; fix: check username and password",
            mechanism.name()
        ))
    };
    let hash = match mechanism {
        SaslMechanism::Plain => {
            let accepted = exchange(handshake, format!("\0{username}\0{secret}")).await?;
            return Ok(accepted.map_err(rejected)?.session_lifetime);
        }
        SaslMechanism::ScramSha256 => ScramHash::Sha256,
        SaslMechanism::ScramSha512 => ScramHash::Sha512,
        SaslMechanism::OauthBearer | SaslMechanism::AwsMskIam => {
            let why = format!("{} needs tokens; fix: use no password", mechanism.name());
            return Err(ReadError::new(why));
        }
    };
    let mut nonce = [0; 24];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| ReadError::new("the operating system provides no random numbers"))?;
    let client = ScramClient::new(hash, username, secret, &nonce);
    let server_first = exchange(handshake, client.client_first_message()).await?;
    let server_first = server_first.map_err(rejected)?.bytes;
    // Thousands of hash iterations must not block an async thread.
    let proof = tokio::task::spawn_blocking(move || client.prove(&server_first))
        .await
        .map_err(|_| ReadError::new("authentication was interrupted"))??;
    let server_final = exchange(handshake, proof.message.clone()).await?;
    let server_final = server_final.map_err(rejected)?;
    proof.verify(&server_final.bytes)?;
    Ok(server_final.session_lifetime)
}

async fn with_token(
    handshake: &mut Handshake,
    authentication: &TokenAuthentication,
) -> Result<Option<Duration>, ReadError> {
    let token = timeout(TOKEN_WAIT, authentication.tokens.current()).await;
    let token = token.unwrap_or_else(|_| {
        let limit = TOKEN_WAIT.as_secs();
        let fix = "check that its issuer can be reached";
        Err(ReadError::timed_out(format!(
            "no token was received within {limit} s; fix: {fix}"
        )))
    })?;
    let message = client_response(&token, &authentication.extensions)?;
    let why = match exchange(handshake, message).await? {
        Ok(accepted) if accepted.bytes.is_empty() => return Ok(accepted.session_lifetime),
        Ok(error) => {
            // The broker ends the authentication after it; its response has the same reason.
            let _ = exchange(handshake, ERROR_RECEIVED.to_owned()).await;
            excerpt(&String::from_utf8_lossy(&error.bytes), MAX_REASON_BYTES)
        }
        Err(why) => why,
    };
    authentication.tokens.invalidate(&token);
    Err(ReadError::unauthorized(format!(
        "the broker rejected the token: {why}; fix: {}",
        authentication.fix
    )))
}

/// The client's first message of `OAUTHBEARER` (RFC 7628, section 3.1).
fn client_response(token: &Token, extensions: &BTreeMap<String, String>) -> Result<String, ReadError> {
    let token = token.text.expose();
    // Another character would end the field.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ReadError::new(
            "the token contains a space, a control character or a letter outside of ASCII; fix: use a bearer token",
        ));
    }
    let extensions = extensions
        .iter()
        .map(|(name, value)| format!("{name}={value}\u{1}"));
    Ok(format!(
        "n,,\u{1}auth=Bearer {token}\u{1}{}\u{1}",
        extensions.collect::<String>()
    ))
}

/// Refuses extensions that brokers cannot read.
fn check_extensions(extensions: &BTreeMap<String, String>) -> Result<(), ReadError> {
    for (name, value) in extensions {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_value = !value.is_empty() && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !is_name || !is_value || name == "auth" {
            return Err(ReadError::new(format!(
                "`{name}` is not a valid SASL extension; fix: use letters for the name, not `auth`, and printable \
                 ASCII for the value"
            )));
        }
    }
    Ok(())
}

/// Sends a message. The inner error is the broker's reason to reject it.
async fn exchange(handshake: &mut Handshake, message: String) -> Result<Result<Accepted, String>, ReadError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    let response = handshake.send(&request).await?;
    match ResponseError::try_from_code(response.error_code) {
        None => {
            let session_lifetime = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
            let session_lifetime = (session_lifetime > 0).then(|| Duration::from_millis(session_lifetime));
            Ok(Ok(Accepted {
                bytes: response.auth_bytes,
                session_lifetime,
            }))
        }
        Some(ResponseError::SaslAuthenticationFailed) => {
            let why = response.error_message.as_deref().unwrap_or("no reason given");
            Ok(Err(excerpt(why, MAX_REASON_BYTES)))
        }
        Some(_) => Err(ReadError::from_code(response.error_code)),
    }
}

#[cfg(test)]
mod tests;
