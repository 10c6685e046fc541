//! SASL authentication with a broker.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use ring::rand::{SecureRandom as _, SystemRandom};
use separation_contract::kafka::SaslMechanism;

use crate::handshake::Handshake;
use crate::protocol::text;
use crate::scram::{ScramClient, ScramHash};
use crate::{ReadError, Sasl};

/// Authenticates, and returns the session's lifetime if the broker limits it.
pub(crate) async fn authenticate(
    handshake: &mut Handshake,
    sasl: &Sasl,
) -> Result<Option<Duration>, ReadError> {
    let mechanism = sasl.mechanism.name();
    let handshake_request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    let response = handshake.send(&handshake_request).await?;
    if response.error_code != 0 {
        let offered: Vec<_> = response.mechanisms.iter().map(ToString::to_string).collect();
        return Err(ReadError::unauthorized(format!(
            "the broker does not support {mechanism}, only {}; fix: use one of these",
            offered.join(", ")
        )));
    }
    let hash = match sasl.mechanism {
        SaslMechanism::Plain => {
            let message = format!("\0{}\0{}", sasl.username.expose(), sasl.password.expose());
            return Ok(send(handshake, message, mechanism).await?.1);
        }
        SaslMechanism::ScramSha256 => ScramHash::Sha256,
        SaslMechanism::ScramSha512 => ScramHash::Sha512,
    };
    let mut nonce = [0; 24];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| ReadError::new("the operating system provides no random numbers"))?;
    let client = ScramClient::new(hash, sasl.username.expose(), sasl.password.expose(), &nonce);
    let (server_first, _) = send(handshake, client.client_first_message(), mechanism).await?;
    // Thousands of hash iterations must not block an async thread.
    let proof = tokio::task::spawn_blocking(move || client.prove(&server_first))
        .await
        .map_err(|_| ReadError::new("authentication was interrupted"))??;
    let (server_final, session_lifetime) = send(handshake, proof.message.clone(), mechanism).await?;
    proof.verify(&server_final)?;
    Ok(session_lifetime)
}

async fn send(
    handshake: &mut Handshake,
    message: String,
    mechanism: &str,
) -> Result<(Bytes, Option<Duration>), ReadError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    let response = handshake.send(&request).await?;
    match ResponseError::try_from_code(response.error_code) {
        None => {
            let session_lifetime = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
            let session_lifetime = (session_lifetime > 0).then(|| Duration::from_millis(session_lifetime));
            Ok((response.auth_bytes, session_lifetime))
        }
        Some(ResponseError::SaslAuthenticationFailed) => {
            let why = response.error_message.as_deref().unwrap_or("no reason given");
            Err(ReadError::unauthorized(format!(
                "the broker rejected authentication with {mechanism}: {why}; fix: check username and password"
            )))
        }
        Some(_) => Err(ReadError::from_code(response.error_code)),
    }
}
