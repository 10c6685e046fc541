//! Who may call: HTTP Basic, compared without telling by its duration how much was right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The longest header that is looked at; names and passwords are tens of bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// Who may call.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody who reaches the address, which is a loopback one.
    Open,
    /// Who knows name and password.
    Password(Login),
}

/// Hashes of a name and a password: of one length whatever was given, so that comparing tells nothing.
#[derive(Clone)]
pub struct Login {
    username: [u8; 32],
    password: [u8; 32],
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

impl Access {
    /// By name and password; an empty password is none.
    pub fn new(username: &str, password: Option<&SecretString>) -> Self {
        match password
            .map(SecretString::expose_secret)
            .filter(|password| !password.is_empty())
        {
            None => Self::Open,
            Some(password) => Self::Password(Login::new(username, password)),
        }
    }

    /// Whether a request with this `Authorization` may be served.
    pub fn allows(&self, authorization: Option<&[u8]>) -> bool {
        match self {
            Self::Open => true,
            Self::Password(login) => authorization
                .and_then(parse_basic)
                .is_some_and(|(username, password)| login.is(&username, &password)),
        }
    }
}

impl Login {
    fn new(username: &str, password: &str) -> Self {
        Self {
            username: Sha256::digest(username).into(),
            password: Sha256::digest(password).into(),
        }
    }

    fn is(&self, username: &str, password: &str) -> bool {
        let other = Self::new(username, password);
        // Both are always compared.
        let equal = self.username.ct_eq(&other.username) & self.password.ct_eq(&other.password);
        equal.into()
    }
}

/// Name and password of an `Authorization` header of the scheme Basic.
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
    fn only_the_right_name_and_password_are_let_in() {
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
    fn an_empty_password_is_none() {
        assert!(matches!(Access::new("admin", Some(&"".into())), Access::Open));
    }
}
