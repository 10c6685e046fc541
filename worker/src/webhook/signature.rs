//! Standard Webhooks 1.0 signatures: `v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

/// Prefix of secrets in base64.
const PREFIX: &str = "whsec_";

/// Accepts secrets with and without the padding `=` at their end.
const PADDING_OPTIONAL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Signs webhooks with a secret.
#[derive(Clone)]
pub struct Signer {
    key: SecretSlice<u8>,
}

/// Why a secret is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not base64 after `whsec_`.
    #[error("the text after whsec_ is not base64")]
    Base64,
    /// No bytes.
    #[error("it is empty")]
    Empty,
}

impl Signer {
    /// A signer with a secret: base64 after `whsec_`, or the bytes of any other text.
    ///
    /// # Errors
    /// When it is empty or not valid base64.
    pub fn new(secret: &SecretString) -> Result<Self, SecretError> {
        let secret = secret.expose_secret();
        let key = match secret.strip_prefix(PREFIX) {
            Some(encoded) => PADDING_OPTIONAL
                .decode(encoded)
                .map_err(|_| SecretError::Base64)?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self { key: key.into() })
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret())
            .expect("HMAC accepts secrets of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str) -> Result<Signer, SecretError> {
        Signer::new(&SecretString::from(secret))
    }

    #[test]
    fn a_signature_equals_that_of_the_standards_library() {
        let signer = signer("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            signer.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn a_secret_without_whsec_is_used_as_it_is() {
        // "secret" in base64, without its padding.
        let encoded = signer("whsec_c2VjcmV0").unwrap().sign("t1", 1, b"{}");
        assert_eq!(signer("secret").unwrap().sign("t1", 1, b"{}"), encoded);
        assert_eq!(signer("whsec_?").err(), Some(SecretError::Base64));
        assert_eq!(signer("whsec_").err(), Some(SecretError::Empty));
        assert_eq!(signer("").err(), Some(SecretError::Empty));
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", signer("secret").unwrap()), "Signer");
    }
}
