//! The client side of SCRAM (RFC 5802) with SHA-256 and SHA-512, without I/O.
//!
//! User names and passwords are not normalized with SASLprep; neither are Kafka's.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use crate::ReadError;

/// The minimum of RFC 7677; a server that asks for fewer makes the password easier to guess from the proof.
const MIN_ITERATIONS: u32 = 4_096;

/// The maximum that is computed: Kafka's own limit is 16,384, and this many take a tenth of a second.
const MAX_ITERATIONS: u32 = 131_072;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScramHash {
    Sha256,
    Sha512,
}

/// A client before its first message.
#[derive(Clone)]
pub(crate) struct ScramClient {
    hash: ScramHash,
    username: String,
    password: String,
    nonce: String,
}

/// The client's proof, and the data to verify the server's signature.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    /// The client-final message.
    pub(crate) message: String,
    hash: ScramHash,
    server_key: Vec<u8>,
    signed: String,
}

impl ScramHash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text)
            .as_ref()
            .to_vec()
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    fn salted(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut salted);
        salted
    }
}

impl ScramClient {
    /// `nonce` must be random bytes.
    pub(crate) fn new(hash: ScramHash, username: &str, password: &str, nonce: &[u8]) -> Self {
        Self::with_nonce(hash, username, password, BASE64.encode(nonce))
    }

    fn with_nonce(hash: ScramHash, username: &str, password: &str, nonce: String) -> Self {
        Self {
            hash,
            username: username.replace('=', "=3D").replace(',', "=2C"),
            password: password.to_owned(),
            nonce,
        }
    }

    /// The client-first message.
    pub(crate) fn client_first_message(&self) -> String {
        format!("n,,{}", self.client_first_bare())
    }

    fn client_first_bare(&self) -> String {
        format!("n={},r={}", self.username, self.nonce)
    }

    /// Computes the proof from the server-first message. Takes milliseconds of CPU time.
    ///
    /// # Errors
    /// When the server's message is malformed, or asks for too few or too many iterations.
    pub(crate) fn prove(&self, server_first: &[u8]) -> Result<Proof, ReadError> {
        let malformed = || ReadError::malformed("malformed SCRAM message from the broker");
        let server_first = std::str::from_utf8(server_first).map_err(|_| malformed())?;
        let mut fields = server_first.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let nonce = field("r=").ok_or_else(malformed)?;
        let salt = field("s=")
            .and_then(|salt| BASE64.decode(salt).ok())
            .ok_or_else(malformed)?;
        let iterations: u32 = field("i=")
            .and_then(|iterations| iterations.parse().ok())
            .ok_or_else(malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ReadError::malformed(
                "the broker's SCRAM nonce does not extend the client's nonce",
            ));
        }
        let iterations = NonZeroU32::new(iterations)
            .filter(|iterations| (MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations.get()))
            .ok_or_else(|| {
                ReadError::new(format!(
                    "the broker requires {iterations} SCRAM iterations; {MIN_ITERATIONS} to {MAX_ITERATIONS} are allowed"
                ))
            })?;
        // "biws" is "n,," in Base64: no channel binding, which Kafka does not support.
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.client_first_bare());
        let salted = self.hash.salted(self.password.as_bytes(), &salt, iterations);
        let client_key = self.hash.sign(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let signature = self.hash.sign(&stored_key, signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(key, sign)| key ^ sign)
            .collect();
        Ok(Proof {
            message: format!("{without_proof},p={}", BASE64.encode(proof)),
            hash: self.hash,
            server_key: self.hash.sign(&salted, b"Server Key"),
            signed,
        })
    }
}

impl Proof {
    /// Checks the server-final message, whose signature proves that the server knows the password too.
    ///
    /// # Errors
    /// When the signature is wrong, or the server reports an error.
    pub(crate) fn verify(&self, server_final: &[u8]) -> Result<(), ReadError> {
        let server_final = String::from_utf8_lossy(server_final);
        if let Some(why) = server_final.strip_prefix("e=") {
            return Err(ReadError::unauthorized(format!(
                "the broker rejected the credentials: {why}"
            )));
        }
        let unproven = || ReadError::new("the broker cannot prove that it knows the password");
        let signature = server_final
            .split(',')
            .next()
            .and_then(|part| part.strip_prefix("v="))
            .and_then(|signature| BASE64.decode(signature).ok())
            .ok_or_else(unproven)?;
        let key = hmac::Key::new(self.hash.hmac(), &self.server_key);
        hmac::verify(&key, self.signed.as_bytes(), &signature).map_err(|_| unproven())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn client() -> ScramClient {
        ScramClient::with_nonce(
            ScramHash::Sha256,
            "user",
            "pencil",
            "rOprNGfwEbeRWgbNEkqO".to_owned(),
        )
    }

    #[test]
    fn the_messages_equal_the_example_of_rfc_7677() {
        let client = client();
        assert_eq!(client.client_first_message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let proof = client.prove(SERVER_FIRST).unwrap();
        assert_eq!(
            proof.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(
            proof.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
            Ok(())
        );
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let proof = client().prove(SERVER_FIRST).unwrap();
        for signature in [
            "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "v=",
            "",
            "nonsense",
        ] {
            assert!(proof.verify(signature.as_bytes()).is_err(), "{signature}");
        }
        let refused = proof.verify(b"e=unknown-user").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the broker rejected the credentials: unknown-user"
        );
    }

    #[test]
    fn malformed_server_first_messages_are_refused() {
        for message in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=another client's,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2000000000",
            "m=ext,r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            assert!(client().prove(message.as_bytes()).is_err(), "{message}");
        }
    }

    #[test]
    fn separators_in_user_names_are_escaped() {
        let client = ScramClient::with_nonce(ScramHash::Sha512, "a=b,c", "p", "n".to_owned());
        assert_eq!(client.client_first_message(), "n,,n=a=3Db=2Cc,r=n");
    }
}
