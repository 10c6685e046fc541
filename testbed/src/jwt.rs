//! Signed JSON Web Tokens (ES256) and the sets of public keys (JWKS) that verify them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

const ALGORITHM: &str = "ES256";
/// First byte of an elliptic curve point in its uncompressed form; its coordinates follow.
const UNCOMPRESSED: u8 = 4;
const COORDINATE_BYTES: usize = 32;

/// A private key that signs tokens, with an id of its own.
#[derive(Debug)]
pub(crate) struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    pub(crate) fn generate() -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .map_err(|_| anyhow!("cannot generate a private key"))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .map_err(|error| anyhow!("a generated private key is unusable: {error}"))?;
        Ok(Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            pair,
        })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": ALGORITHM, "typ": "JWT", "kid": self.id});
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| anyhow!("cannot sign a token"))?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// Its public key, as an element of a JWKS.
    pub(crate) fn public_key(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(COORDINATE_BYTES);
        json!({
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": ALGORITHM,
            "kid": self.id,
            "x": BASE64URL.encode(x),
            "y": BASE64URL.encode(y),
        })
    }
}

/// The claims of an unexpired token that a key of `jwks` signed for `audience`.
pub(crate) fn verify(token: &str, jwks: &Value, audience: &str) -> Result<Value> {
    let (signed, signature) = token.rsplit_once('.').context("the token has no signature")?;
    let (header, claims) = signed.split_once('.').context("the token has no claims")?;
    let (header, claims) = (decode(header)?, decode(claims)?);
    let keys = jwks["keys"].as_array().context("the JWKS has no keys")?;
    let key = keys
        .iter()
        .find(|key| key["kid"] == header["kid"])
        .with_context(|| format!("no key has the id {}", header["kid"]))?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(key)?)
        .verify(signed.as_bytes(), &bytes(signature)?)
        .map_err(|_| anyhow!("the signature is invalid"))?;
    let is_for = |found: &Value| found == audience;
    let is_for_audience = match &claims["aud"] {
        Value::Array(several) => several.iter().any(is_for),
        one => is_for(one),
    };
    ensure!(
        is_for_audience,
        "the audience is {}, not {audience}",
        claims["aud"]
    );
    let expires = claims["exp"].as_u64().context("the token does not expire")?;
    ensure!(expires > seconds(SystemTime::now()), "the token has expired");
    Ok(claims)
}

/// Seconds since 1970, as in the claims of a token.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn point(key: &Value) -> Result<Vec<u8>> {
    let coordinate = |name: &str| bytes(key[name].as_str().unwrap_or_default());
    let mut point = vec![UNCOMPRESSED];
    point.extend(coordinate("x")?);
    point.extend(coordinate("y")?);
    Ok(point)
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

fn decode(text: &str) -> Result<Value> {
    serde_json::from_slice(&bytes(text)?).context("a part of the token is not JSON")
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    BASE64URL.decode(text).context("a part is not base64url")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unexpired_token_of_a_listed_key_for_the_audience_is_accepted() {
        let [key, other] = [(); 2].map(|()| SigningKey::generate().unwrap());
        let jwks = json!({"keys": [other.public_key(), key.public_key()]});
        let now = seconds(SystemTime::now());
        let claims = |expires: u64| json!({"sub": "worker", "aud": ["kafka", "sts"], "exp": expires});
        let token = key.sign(&claims(now + 60)).unwrap();
        assert_eq!(verify(&token, &jwks, "sts").unwrap()["sub"], "worker");
        let refused = |token: &str, jwks: &Value, audience: &str| {
            verify(token, jwks, audience).unwrap_err().to_string()
        };
        assert_eq!(
            refused(&token, &jwks, "s3"),
            r#"the audience is ["kafka","sts"], not s3"#
        );
        let expired = key.sign(&claims(now - 1)).unwrap();
        assert_eq!(refused(&expired, &jwks, "sts"), "the token has expired");
        let (signed, _) = token.rsplit_once('.').unwrap();
        let (_, signature) = expired.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{signature}");
        assert_eq!(refused(&forged, &jwks, "sts"), "the signature is invalid");
        let unlisted = refused(&token, &json!({"keys": [other.public_key()]}), "sts");
        assert!(unlisted.starts_with("no key has the id"), "{unlisted}");
    }
}
