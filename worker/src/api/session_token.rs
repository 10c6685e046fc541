//! The value of the session cookie: `name.expiry.mac`, signed with the hash of the client's API key, so that every replica
//! accepts it and none stores it. No I/O.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Lifetime of a session, in seconds: a working day.
pub(super) const SESSION_SECONDS: u64 = 12 * 3600;

/// A parsed value whose signature is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionToken<'t> {
    /// The client that it claims to belong to.
    pub(super) client: &'t str,
    expires_at: u64,
    mac: Vec<u8>,
}

impl<'t> SessionToken<'t> {
    /// Parses a cookie's value.
    pub(super) fn parse(value: &'t str) -> Option<Self> {
        let (client, rest) = value.split_once('.')?;
        let (expires_at, mac) = rest.split_once('.')?;
        Some(Self {
            client,
            expires_at: expires_at.parse().ok()?,
            mac: URL_SAFE_NO_PAD.decode(mac).ok()?,
        })
    }

    /// Whether it is signed with this hash of its client's API key, and it is valid at `now` (Unix seconds).
    pub(super) fn is_valid(&self, key_sha256: &[u8; 32], now: u64) -> bool {
        let mac = mac(self.client, self.expires_at, key_sha256);
        // Compared in constant time, also for an expired one.
        let is_signed = mac.verify_slice(&self.mac).is_ok();
        is_signed && now < self.expires_at
    }
}

/// The cookie's value for a session of `client` that starts at `now` (Unix seconds). The name contains no dot.
pub(super) fn issue(client: &str, key_sha256: &[u8; 32], now: u64) -> String {
    let expires_at = now.saturating_add(SESSION_SECONDS);
    let mac = mac(client, expires_at, key_sha256).finalize().into_bytes();
    format!("{client}.{expires_at}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn mac(client: &str, expires_at: u64, key_sha256: &[u8; 32]) -> Hmac<Sha256> {
    let key = Sha256::new()
        .chain_update("session")
        .chain_update(key_sha256)
        .finalize();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC accepts keys of any length");
    mac.update(format!("{client}.{expires_at}").as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NOW: u64 = 1_763_683_200;

    fn is_valid(value: &str, now: u64) -> bool {
        SessionToken::parse(value).is_some_and(|token| token.is_valid(&KEY, now))
    }

    #[test]
    fn a_session_is_valid_for_twelve_hours() {
        let value = issue("acme", &KEY, NOW);
        assert_eq!(SessionToken::parse(&value).expect("a token").client, "acme");
        assert!(is_valid(&value, NOW));
        assert!(is_valid(&value, NOW + SESSION_SECONDS - 1));
        assert!(!is_valid(&value, NOW + SESSION_SECONDS));
    }

    #[test]
    fn a_changed_session_is_refused() {
        let value = issue("acme", &KEY, NOW);
        let (start, mac) = value.rsplit_once('.').expect("three parts");
        let later = format!("acme.{}.{mac}", NOW + 2 * SESSION_SECONDS);
        let other = format!("other.{}.{mac}", NOW + SESSION_SECONDS);
        let cut = &value[..value.len() - 2];
        let unsigned = format!("{start}.");
        for changed in [cut, &later, &other, &unsigned, start, "acme", "", ".."] {
            assert!(!is_valid(changed, NOW), "{changed}");
        }
        let of_another_key = issue("acme", &[8; 32], NOW);
        assert!(!is_valid(&of_another_key, NOW));
    }
}
