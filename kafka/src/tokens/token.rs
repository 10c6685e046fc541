//! A token, and the interface of its origins.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::{ReadError, SecretText};

/// A bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The token as it is sent to brokers.
    pub text: SecretText,
    /// The name of its bearer, which librdkafka requires; brokers read the one in the token.
    pub principal: String,
    /// Brokers refuse it from this instant on.
    pub expires: SystemTime,
}

/// An origin of tokens.
#[async_trait]
pub trait FetchToken: fmt::Debug + Send + Sync {
    /// Fetches a token. [`crate::TokenCache`] limits its time and the number of calls.
    async fn fetch(&self) -> Result<Token, ReadError>;
}

/// The claims of a JWT that a client needs.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970, possibly with a fraction.
    exp: Option<f64>,
    sub: Option<String>,
}

impl Token {
    /// Reads `exp` and `sub` of a JWT. Its signature is not verified: that is the broker's part.
    ///
    /// # Errors
    /// When it is not a JWT or does not expire. The text contains no part of it.
    pub fn from_jwt(text: SecretText) -> Result<Self, ReadError> {
        let claims = claims(text.expose())
            .ok_or_else(|| ReadError::malformed("the token is not a JWT; fix: use a signed JWT"))?;
        let expires = claims
            .exp
            .and_then(|exp| Duration::try_from_secs_f64(exp).ok())
            .and_then(|exp| UNIX_EPOCH.checked_add(exp))
            .ok_or_else(|| {
                ReadError::malformed(
                    "the token has no valid claim `exp`; fix: let its issuer set when it expires",
                )
            })?;
        Ok(Self {
            text,
            principal: claims.sub.unwrap_or_default(),
            expires,
        })
    }
}

fn claims(jwt: &str) -> Option<Claims> {
    let parts: Vec<_> = jwt.split('.').collect();
    let [_header, claims, _signature] = parts[..] else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claims: &str) -> Result<Token, ReadError> {
        Token::from_jwt(format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims)).into())
    }

    #[test]
    fn expiry_and_subject_of_a_jwt_are_read() {
        let token =
            read(r#"{"sub": "system:serviceaccount:media:vocals", "exp": 1715949296, "aud": ["kafka"]}"#);
        let token = token.unwrap();
        assert_eq!(token.principal, "system:serviceaccount:media:vocals");
        assert_eq!(token.expires, UNIX_EPOCH + Duration::from_secs(1_715_949_296));
        let with_fraction = read(r#"{"exp": 1715949296.5}"#).unwrap();
        assert_eq!(
            with_fraction.expires,
            UNIX_EPOCH + Duration::from_millis(1_715_949_296_500)
        );
    }

    #[test]
    fn malformed_tokens_are_refused_and_not_repeated_in_the_error() {
        let not_jwts = [
            "",
            "opaque",
            "e30.e30",
            "e30.!.e30",
            "e30.e30.e30.e30",
            "e30.bm90IGpzb24.e30",
        ];
        for text in not_jwts {
            let error = Token::from_jwt(text.to_owned().into()).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the token is not a JWT; fix: use a signed JWT",
                "{text}"
            );
        }
        for claims in ["{}", r#"{"exp": null}"#, r#"{"exp": -1}"#, r#"{"exp": 1e300}"#] {
            let error = read(claims).unwrap_err();
            assert!(
                error.to_string().contains("no valid claim `exp`"),
                "{claims}: {error}"
            );
        }
    }

    #[test]
    fn debug_output_does_not_contain_the_token() {
        let token = read(r#"{"sub": "vocals", "exp": 1715949296}"#).unwrap();
        assert!(!format!("{token:?}").contains("c2lnbmF0dXJl"));
    }
}
