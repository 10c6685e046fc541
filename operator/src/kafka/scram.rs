//! SCRAM (RFC 5802) with SHA-256 and SHA-512, the client's side: text in, text out.
//!
//! Names and passwords are taken as they are, as Kafka itself does.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

use super::Unread;

/// The least that RFC 7677 allows; a server that asks for less wants to make guessing cheap.
const FEWEST_ROUNDS: u32 = 4_096;

/// The most that we compute: Kafka's own limit is 16,384, and this many take a tenth of a second.
const MOST_ROUNDS: u32 = 131_072;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// A client before its first message.
#[derive(Clone)]
pub(super) struct Client {
    hash: Hash,
    username: String,
    password: String,
    nonce: String,
}

/// What proves the password, and what the server must answer to it.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    /// The client's last message.
    pub(super) message: String,
    hash: Hash,
    server_key: Vec<u8>,
    signed: String,
}

impl Hash {
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

    fn salted(self, password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, rounds, salt, password, &mut salted);
        salted
    }
}

impl Client {
    /// A client with a nonce that nobody can guess.
    pub(super) fn new(hash: Hash, username: &str, password: &str, nonce: &[u8]) -> Self {
        Self::with_nonce(hash, username, password, BASE64.encode(nonce))
    }

    fn with_nonce(hash: Hash, username: &str, password: &str, nonce: String) -> Self {
        Self {
            hash,
            username: username.replace('=', "=3D").replace(',', "=2C"),
            password: password.to_owned(),
            nonce,
        }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n={},r={}", self.username, self.nonce)
    }

    /// Answers the server's first message. Takes milliseconds of work.
    ///
    /// # Errors
    /// When the server's message is none, or asks for too little or too much work.
    pub(super) fn prove(&self, server_first: &[u8]) -> Result<Proof, Unread> {
        let nonsense = || Unread::new("the broker's SCRAM message is none");
        let server_first = std::str::from_utf8(server_first).map_err(|_| nonsense())?;
        let mut fields = server_first.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let nonce = field("r=").ok_or_else(nonsense)?;
        let salt = field("s=")
            .and_then(|salt| BASE64.decode(salt).ok())
            .ok_or_else(nonsense)?;
        let rounds: u32 = field("i=")
            .and_then(|rounds| rounds.parse().ok())
            .ok_or_else(nonsense)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Unread::new("the broker's SCRAM message answers somebody else's"));
        }
        let rounds = NonZeroU32::new(rounds)
            .filter(|rounds| (FEWEST_ROUNDS..=MOST_ROUNDS).contains(&rounds.get()))
            .ok_or_else(|| {
                Unread::new(format!(
                    "the broker asks for {rounds} rounds of SCRAM, and {FEWEST_ROUNDS} to {MOST_ROUNDS} are allowed"
                ))
            })?;
        // "biws" is "n,,": no channel binding, as Kafka knows none.
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.first_bare());
        let salted = self.hash.salted(self.password.as_bytes(), &salt, rounds);
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
    /// Checks that the server knows the password too.
    ///
    /// # Errors
    /// When it does not, or says what is wrong with ours.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), Unread> {
        let server_final = String::from_utf8_lossy(server_final);
        if let Some(why) = server_final.strip_prefix("e=") {
            return Err(Unread::refused(format!("the broker refuses the login: {why}")));
        }
        let impostor = || Unread::new("the broker cannot prove that it knows the password");
        let signature = server_final
            .split(',')
            .next()
            .and_then(|first| first.strip_prefix("v="))
            .and_then(|signature| BASE64.decode(signature).ok())
            .ok_or_else(impostor)?;
        let key = hmac::Key::new(self.hash.hmac(), &self.server_key);
        hmac::verify(&key, self.signed.as_bytes(), &signature).map_err(|_| impostor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn client() -> Client {
        Client::with_nonce(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    #[test]
    fn the_conversation_of_the_standard_is_ours() {
        let client = client();
        assert_eq!(client.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
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
        for impostor in [
            "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "v=",
            "",
            "nonsense",
        ] {
            assert!(proof.verify(impostor.as_bytes()).is_err(), "{impostor}");
        }
        let refused = proof.verify(b"e=unknown-user").unwrap_err();
        assert_eq!(refused.to_string(), "the broker refuses the login: unknown-user");
    }

    #[test]
    fn first_messages_that_cannot_be_are_refused() {
        for message in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=somebody else's,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2000000000",
            "m=ext,r=rOprNGfwEbeRWgbNEkqO%,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ] {
            assert!(client().prove(message.as_bytes()).is_err(), "{message}");
        }
    }

    #[test]
    fn names_may_have_what_separates_fields() {
        let client = Client::with_nonce(Hash::Sha512, "a=b,c", "p", "n".to_owned());
        assert_eq!(client.first(), "n,,n=a=3Db=2Cc,r=n");
    }
}
