//! HTTP Basic authentication, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Longest `Authorization` header that is parsed; usernames and passwords are tens of bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// Access control of the API.
#[derive(Debug, Clone)]
pub enum Access {
    /// No authentication; the API then listens on a loopback address only.
    Open,
    /// HTTP Basic with this username and password.
    Password(Credentials),
}

/// SHA-256 of the username and the password: equal lengths, so that comparing takes constant time.
#[derive(Clone)]
pub struct Credentials {
    username: [u8; 32],
    password: [u8; 32],
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Access {
    /// An empty password counts as no password.
    pub fn new(username: &str, password: Option<&SecretString>) -> Self {
        match password
            .map(SecretString::expose_secret)
            .filter(|password| !password.is_empty())
        {
            None => Self::Open,
            Some(password) => Self::Password(Credentials::new(username, password)),
        }
    }

    /// Whether a request with this `Authorization` may be served.
    pub fn allows(&self, authorization: Option<&[u8]>) -> bool {
        match self {
            Self::Open => true,
            Self::Password(credentials) => authorization
                .and_then(parse_basic)
                .is_some_and(|(username, password)| credentials.matches(&username, &password)),
        }
    }
}

impl Credentials {
    fn new(username: &str, password: &str) -> Self {
        Self {
            username: Sha256::digest(username).into(),
            password: Sha256::digest(password).into(),
        }
    }

    fn matches(&self, username: &str, password: &str) -> bool {
        let other = Self::new(username, password);
        // No short circuit: both are always compared.
        let equal = self.username.ct_eq(&other.username) & self.password.ct_eq(&other.password);
        equal.into()
    }
}

/// Username and password of a Basic `Authorization` header.
pub fn parse_basic(header: &[u8]) -> Option<(String, String)> {
    let header = std::str::from_utf8(header)
        .ok()
        .filter(|header| header.len() <= MAX_HEADER_BYTES)?;
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_correct_username_and_password_are_accepted() {
        let access = Access::new("admin", Some(&"pass:word".into()));
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text)).into_bytes();
        assert!(access.allows(Some(&header("admin:pass:word"))));
        assert!(access.allows(Some(
            format!("bAsIc {}", STANDARD.encode("admin:pass:word")).as_bytes()
        )));
        for wrong in [
            "admin:pass",
            "Admin:pass:word",
            "admin:",
            ":pass:word",
            "admin",
            "",
        ] {
            assert!(!access.allows(Some(&header(wrong))), "{wrong}");
        }
        for broken in [
            "",
            "Basic",
            "Basic !!",
            "Bearer YWRtaW46cGFzczp3b3Jk",
            "Basic /w==",
        ] {
            assert!(!access.allows(Some(broken.as_bytes())), "{broken}");
        }
        assert!(!access.allows(None));
    }

    #[test]
    fn an_empty_password_disables_authentication() {
        assert!(matches!(Access::new("admin", Some(&"".into())), Access::Open));
    }
}
