//! Signatures after Standard Webhooks 1.0: HMAC-SHA256 of `id.timestamp.body`, base64, with `v1,` in front.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;

/// What secrets in base64 begin with.
const PREFIX: &str = "whsec_";

/// People copy secrets with and without the `=` at their end.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Signs webhooks with a secret.
#[derive(Clone)]
pub struct Signer {
    key: SecretSlice<u8>,
}

/// A secret that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It begins with `whsec_`, and no base64 follows.
    #[error("what follows whsec_ is not base64")]
    Base64,
    /// There is none.
    #[error("it is empty")]
    Empty,
}

impl Signer {
    /// A signer with a secret: base64 after `whsec_`, or any other text as its bytes.
    ///
    /// # Errors
    /// When it is empty or no base64.
    pub fn new(secret: &SecretString) -> Result<Self, SecretError> {
        let secret = secret.expose_secret();
        let key = match secret.strip_prefix(PREFIX) {
            Some(encoded) => FORGIVING.decode(encoded).map_err(|_| SecretError::Base64)?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self { key: key.into() })
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes keys of any length");
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
    fn a_signature_is_that_of_the_standards_own_library() {
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
