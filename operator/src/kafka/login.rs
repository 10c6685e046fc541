//! SASL: who we are, proven to a broker.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use ring::rand::{SecureRandom as _, SystemRandom};
use separation_contract::kafka::SaslMechanism;

use super::connection::Greeting;
use super::protocol::text;
use super::scram::{Client, Hash};
use super::{Sasl, Unread};

/// Logs in, and gives how long the login is good for, where the broker limits it.
pub(super) async fn log_in(greeting: &mut Greeting, sasl: &Sasl) -> Result<Option<Duration>, Unread> {
    let mechanism = sasl.mechanism.name();
    let handshake = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    let answer = greeting.ask(&handshake).await?;
    if answer.error_code != 0 {
        let offered: Vec<_> = answer.mechanisms.iter().map(ToString::to_string).collect();
        return Err(Unread::refused(format!(
            "the broker does not take {mechanism}, but {}; fix: set kafka.sasl.mechanism",
            offered.join(", ")
        )));
    }
    let hash = match sasl.mechanism {
        SaslMechanism::Plain => {
            let message = format!("\0{}\0{}", sasl.username.expose(), sasl.password.expose());
            return Ok(send(greeting, message, mechanism).await?.1);
        }
        SaslMechanism::ScramSha256 => Hash::Sha256,
        SaslMechanism::ScramSha512 => Hash::Sha512,
    };
    let mut nonce = [0; 24];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Unread::new("the machine gives no random numbers"))?;
    let client = Client::new(hash, sasl.username.expose(), sasl.password.expose(), &nonce);
    let (server_first, _) = send(greeting, client.first(), mechanism).await?;
    // Thousands of rounds of hashing: not on a thread that others wait for.
    let proof = tokio::task::spawn_blocking(move || client.prove(&server_first))
        .await
        .map_err(|_| Unread::new("the login was interrupted"))??;
    let (server_final, good_for) = send(greeting, proof.message.clone(), mechanism).await?;
    proof.verify(&server_final)?;
    Ok(good_for)
}

async fn send(
    greeting: &mut Greeting,
    message: String,
    mechanism: &str,
) -> Result<(Bytes, Option<Duration>), Unread> {
    let question = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
    let answer = greeting.ask(&question).await?;
    match ResponseError::try_from_code(answer.error_code) {
        None => {
            let good_for = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
            let good_for = (good_for > 0).then(|| Duration::from_millis(good_for));
            Ok((answer.auth_bytes, good_for))
        }
        Some(ResponseError::SaslAuthenticationFailed) => {
            let why = answer.error_message.as_deref().unwrap_or("no reason given");
            Err(Unread::refused(format!(
                "the broker refuses the login by {mechanism}: {why}; fix: check username and password in the secret"
            )))
        }
        Some(_) => Err(Unread::said(answer.error_code)),
    }
}
