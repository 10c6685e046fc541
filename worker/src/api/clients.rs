//! The API's clients and their authentication. API keys are compared in constant time; only their hashes are known.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use separation_contract::environment as env;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::session_token::{self, SessionToken};
use crate::model::hexadecimal;
use crate::settings::SettingError;
use crate::webhook::Signer;

/// Longest `Authorization` or `Cookie` header that is parsed; API keys, usernames, passwords and sessions have at most
/// hundreds of bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// Sessions of one request that are verified.
const MAX_SESSIONS: usize = 4;

/// Longest name of a client; it is part of object keys.
const MAX_NAME_BYTES: usize = 63;

/// Name of the client without authentication. Its tasks are not shown to a client that authenticates.
const LOCAL: &str = "local";

/// Name of the session cookie without encryption.
pub(super) const SESSION_COOKIE: &str = "session";

/// Name of the session cookie with encryption: browsers accept it only from this host, and only over https.
pub(super) const SECURE_SESSION_COOKIE: &str = "__Host-session";

/// A client of the API. It sees its own tasks only.
#[derive(Clone)]
pub struct Client {
    /// The name, 1 to 63 of a-z, 0-9 and `-`: part of object keys.
    pub name: String,
    /// Maximum number of its tasks that have not ended; none is no limit.
    pub limit: Option<u32>,
    /// Sign its webhooks, each with one secret.
    pub signers: Vec<Signer>,
    /// SHA-256 of the username for HTTP Basic: equal lengths, so that comparing takes constant time.
    username_sha256: [u8; 32],
    /// SHA-256 of the API key or the password.
    key_sha256: [u8; 32],
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The client `name`, whose API key has this SHA-256. Without a limit and signers.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn new(name: &str, key_sha256: [u8; 32]) -> Result<Self, SettingError> {
        if !is_name(name) {
            let problem = format!("`{name}` is not a valid name");
            let fix =
                format!("name each client with 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -, and not {LOCAL}");
            return Err(SettingError::new(env::API_KEYS, problem, fix));
        }
        Ok(Self {
            name: name.to_owned(),
            limit: None,
            signers: Vec::new(),
            username_sha256: Sha256::digest(name).into(),
            key_sha256,
        })
    }

    /// The client with the username and the password of the drop-in API. A username that is not a valid name is
    /// replaced by one that is derived from it.
    pub fn with_password(username: &str, password: &str, signers: Vec<Signer>) -> Self {
        let username_sha256: [u8; 32] = Sha256::digest(username).into();
        let name = match is_name(username) {
            true => username.to_owned(),
            false => format!("basic-{}", hexadecimal(&username_sha256[..8])),
        };
        Self {
            name,
            limit: None,
            signers,
            username_sha256,
            key_sha256: Sha256::digest(password).into(),
        }
    }
}

/// Whether a text is a valid name of a client that authenticates.
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) && text != LOCAL
}

/// All clients of the API.
#[derive(Debug, Clone)]
pub struct Clients {
    all: Vec<Arc<Client>>,
    authentication: Authentication,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authentication {
    Required,
    /// Every request is the only client's; the API then listens on a loopback address only.
    Open,
}

impl Clients {
    /// Clients that have to authenticate.
    ///
    /// # Errors
    /// When two have the same name or the same API key.
    pub fn new(all: Vec<Client>) -> Result<Self, SettingError> {
        for (index, client) in all.iter().enumerate() {
            let name = &client.name;
            let before = &all[..index];
            if before.iter().any(|other| other.name == *name) {
                let problem =
                    format!("two clients have the name `{name}`, the username of HTTP Basic included");
                let fix = "give each client a name of its own";
                return Err(SettingError::new(env::API_KEYS, problem, fix));
            }
            if let Some(other) = before.iter().find(|other| other.key_sha256 == client.key_sha256) {
                let problem = format!("the clients `{}` and `{name}` have the same API key", other.name);
                let fix = "create an API key for each client with `separation-worker keys create NAME`";
                return Err(SettingError::new(env::API_KEYS, problem, fix));
            }
        }
        Ok(Self {
            all: all.into_iter().map(Arc::new).collect(),
            authentication: Authentication::Required,
        })
    }

    /// The client `local`, which every request belongs to; for an API that listens on a loopback address only.
    pub fn open(signers: Vec<Signer>) -> Self {
        let local = Client {
            name: LOCAL.to_owned(),
            limit: None,
            signers,
            username_sha256: [0; 32],
            key_sha256: [0; 32],
        };
        Self {
            all: vec![Arc::new(local)],
            authentication: Authentication::Open,
        }
    }

    /// Whether requests need no authentication.
    pub fn is_open(&self) -> bool {
        self.authentication == Authentication::Open
    }

    /// Whether there is more than one client.
    pub(super) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The client of a request, by its `Authorization` or, without one, its session cookie. `now` is in Unix seconds.
    pub fn authenticate(&self, headers: &HeaderMap, now: u64) -> Option<Arc<Client>> {
        if self.is_open() || headers.contains_key(header::AUTHORIZATION) {
            return self.by_authorization(headers);
        }
        let mut sessions = sessions(headers).take(MAX_SESSIONS);
        sessions.find_map(|session| self.by_session(session, now))
    }

    /// The client of a request by its `Authorization` alone: `Bearer API-KEY`, or Basic with its name and
    /// its API key.
    pub fn by_authorization(&self, headers: &HeaderMap) -> Option<Arc<Client>> {
        if self.is_open() {
            return self.all.first().cloned();
        }
        let authorization = headers.get(header::AUTHORIZATION)?.as_bytes();
        if let Some(key) = parse_bearer(authorization) {
            return self.by_key(key);
        }
        let (username, key) = parse_basic(authorization)?;
        let (username, key) = (Sha256::digest(username), Sha256::digest(key));
        // No short circuit: both are always compared.
        self.find(|client| {
            client.username_sha256[..].ct_eq(&username[..]) & client.key_sha256[..].ct_eq(&key[..])
        })
    }

    /// The client with this name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Client>> {
        self.all.iter().find(|client| client.name == name).cloned()
    }

    /// The cookie's value of a new session for the client with this API key. `now` is in Unix seconds.
    pub(super) fn sign_in(&self, key: &str, now: u64) -> Option<String> {
        let client = match self.is_open() {
            true => self.all.first().cloned(),
            false => self.by_key(key),
        }?;
        Some(session_token::issue(&client.name, &client.key_sha256, now))
    }

    fn by_key(&self, key: &str) -> Option<Arc<Client>> {
        let key = Sha256::digest(key);
        self.find(|client| client.key_sha256[..].ct_eq(&key[..]))
    }

    fn by_session(&self, value: &str, now: u64) -> Option<Arc<Client>> {
        let token = SessionToken::parse(value)?;
        let client = self.by_name(token.client)?;
        token.is_valid(&client.key_sha256, now).then_some(client)
    }

    /// Compares with every client, so that the time does not depend on which one matches.
    fn find(&self, matches: impl Fn(&Client) -> Choice) -> Option<Arc<Client>> {
        let mut found = None;
        for client in &self.all {
            if bool::from(matches(client)) {
                found = Some(client);
            }
        }
        found.cloned()
    }
}

/// The values of session cookies, those of encrypted connections first.
fn sessions(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let named = move |expected: &'static str| {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        cookies
            .filter(|cookies| cookies.len() <= MAX_HEADER_BYTES)
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(move |(name, _)| *name == expected)
            .map(|(_, value)| value)
    };
    named(SECURE_SESSION_COOKIE).chain(named(SESSION_COOKIE))
}

/// Whether a request authenticates with a Bearer token.
pub(super) fn is_bearer(headers: &HeaderMap) -> bool {
    let authorization = headers.get(header::AUTHORIZATION);
    authorization.is_some_and(|authorization| parse_bearer(authorization.as_bytes()).is_some())
}

/// Username and password of a Basic `Authorization` header.
pub fn parse_basic(header: &[u8]) -> Option<(String, String)> {
    let encoded = parse_scheme(header, "basic")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// The API key of a Bearer `Authorization` header.
fn parse_bearer(header: &[u8]) -> Option<&str> {
    parse_scheme(header, "bearer").filter(|key| !key.is_empty())
}

/// The credentials of an `Authorization` header with this scheme.
fn parse_scheme<'h>(header: &'h [u8], expected: &str) -> Option<&'h str> {
    let header = std::str::from_utf8(header)
        .ok()
        .filter(|header| header.len() <= MAX_HEADER_BYTES)?;
    let (scheme, credentials) = header.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case(expected)
        .then_some(credentials.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const NOW: u64 = 1_763_683_200;

    fn clients() -> Clients {
        let key = |key: &str| Sha256::digest(key).into();
        let all = vec![
            Client::with_password("admin", "pass:word", Vec::new()),
            Client::new("acme", key("sk_acme")).expect("a name"),
            Client::new("other", key("sk_other")).expect("a name"),
        ];
        Clients::new(all).expect("names and keys differ")
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header");
        HeaderMap::from_iter([(name, value)])
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[track_caller]
    fn check(authorization: &str, expected: Option<&str>) {
        let headers = headers(header::AUTHORIZATION, authorization);
        let clients = clients();
        for found in [
            clients.by_authorization(&headers),
            clients.authenticate(&headers, NOW),
        ] {
            let found = found.map(|client| client.name.clone());
            assert_eq!(found.as_deref(), expected, "{authorization}");
        }
    }

    #[test]
    fn a_key_or_a_password_authenticates_its_client_only() {
        for accepted in [
            basic("admin:pass:word"),
            basic("admin:pass:word").replace("Basic", "bAsIc"),
            "Bearer pass:word".to_owned(),
        ] {
            check(&accepted, Some("admin"));
        }
        check("Bearer sk_acme", Some("acme"));
        check("bearer  sk_acme", Some("acme"));
        check(&basic("acme:sk_acme"), Some("acme"));
        check("Bearer sk_other", Some("other"));
        for wrong in [
            "admin:pass",
            "Admin:pass:word",
            "admin:",
            ":pass:word",
            "admin",
            "",
            "acme:sk_other",
            "other:sk_acme",
            "acme:pass:word",
            ":sk_acme",
            "acme:",
        ] {
            check(&basic(wrong), None);
        }
        let too_long = format!("Bearer {}", "k".repeat(MAX_HEADER_BYTES));
        for broken in [
            "",
            "Basic",
            "Basic !!",
            "Basic /w==",
            "Bearer",
            "Bearer ",
            "Bearer sk_acme2",
            "Bearer sk_acm",
            "Digest sk_acme",
            "sk_acme",
            &too_long,
        ] {
            check(broken, None);
        }
        assert!(clients().authenticate(&HeaderMap::new(), NOW).is_none());
    }

    #[test]
    fn a_session_authenticates_until_it_ends_or_its_key_changes() {
        let clients = clients();
        let token = clients.sign_in("sk_acme", NOW).expect("its key");
        let cookie = |value: &str| headers(header::COOKIE, &format!("theme=dark; session={value}; x"));
        let name = |clients: &Clients, headers: &HeaderMap, now| {
            let client = clients.authenticate(headers, now)?;
            Some(client.name.clone())
        };
        assert_eq!(name(&clients, &cookie(&token), NOW + 60).as_deref(), Some("acme"));
        assert_eq!(name(&clients, &cookie(&token), NOW + 13 * 3600), None);
        assert_eq!(name(&clients, &cookie("acme.9999999999.x"), NOW), None);
        assert_eq!(clients.sign_in("sk_unknown", NOW), None);
        assert!(
            clients.by_authorization(&cookie(&token)).is_none(),
            "a cookie is no Authorization"
        );

        let mut both = cookie(&token);
        both.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert_eq!(
            name(&clients, &both, NOW),
            None,
            "a wrong key is not replaced by a session"
        );

        let replaced = Client::new("acme", Sha256::digest("sk_new").into()).expect("a name");
        let replaced = Clients::new(vec![replaced]).expect("one client");
        assert_eq!(name(&replaced, &cookie(&token), NOW), None);
    }

    #[test]
    fn sessions_of_encrypted_connections_come_first_and_few_are_verified() {
        let clients = clients();
        let [acme, other] = ["sk_acme", "sk_other"].map(|key| clients.sign_in(key, NOW).expect("its key"));
        let name = |cookies: &str| {
            let client = clients.authenticate(&headers(header::COOKIE, cookies), NOW)?;
            Some(client.name.clone())
        };
        let both = format!("session={other}; __Host-session={acme}");
        assert_eq!(name(&both).as_deref(), Some("acme"));
        let replaced = format!("__Host-session=acme.1.x; session={other}");
        assert_eq!(name(&replaced).as_deref(), Some("other"));
        let invalid = "session=x; ".repeat(MAX_SESSIONS);
        assert_eq!(name(&format!("{invalid}session={acme}")), None);
        let large = format!("session={acme}; theme={}", "x".repeat(MAX_HEADER_BYTES));
        assert_eq!(name(&large), None);
    }

    #[test]
    fn without_authentication_every_request_is_of_the_local_client() {
        let clients = Clients::open(Vec::new());
        for headers in [HeaderMap::new(), headers(header::AUTHORIZATION, "Bearer x")] {
            let client = clients.authenticate(&headers, NOW).expect("open");
            assert_eq!(client.name, "local");
        }
        assert!(clients.sign_in("anything", NOW).is_some());
    }

    #[test]
    fn every_client_has_a_name_that_is_safe_in_object_keys() {
        for username in [
            "Admin",
            "user@example.com",
            "a/b",
            "..",
            "",
            "local",
            &"x".repeat(64),
        ] {
            let client = Client::with_password(username, "password", Vec::new());
            assert!(is_name(&client.name), "{}", client.name);
            let refused = Client::new(username, [1; 32]).expect_err(username);
            assert_eq!(refused.name, "API_KEYS");
        }
        let names = ["Admin", "admin"].map(|name| Client::with_password(name, "x", Vec::new()).name);
        assert_ne!(names[0], names[1]);
        assert_eq!(names[1], "admin");
    }

    #[test]
    fn two_clients_share_neither_a_name_nor_a_key() {
        let client = |name, key| Client::new(name, [key; 32]).expect("a name");
        for all in [
            vec![client("a", 1), client("a", 2)],
            vec![client("a", 1), client("b", 1)],
            vec![Client::with_password("a", "password", Vec::new()), client("a", 1)],
        ] {
            let refused = Clients::new(all).expect_err("a duplicate");
            assert_eq!(refused.name, "API_KEYS");
        }
    }

    #[test]
    fn hashes_are_not_printed() {
        let client = Client::new("acme", [171; 32]).expect("a name");
        assert_eq!(format!("{client:?}"), "Client { name: \"acme\", .. }");
    }
}
