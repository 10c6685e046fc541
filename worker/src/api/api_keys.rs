//! The setting `API_KEYS`: the API's clients as JSON, from a Secret.
//!
//! Errors contain names of clients, and never a hash or a secret.

use secrecy::{ExposeSecret as _, SecretString};
use separation_contract::environment as env;
use serde::Deserialize;

use super::clients::Client;
use crate::settings::{SettingError, Sha256Hex};
use crate::webhook::Signer;

/// Maximum number of webhook secrets of a client: the current one and the one before its rotation.
const MAX_WEBHOOK_SECRETS: usize = 2;

/// One API key, as in the setting.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiKey {
    name: String,
    sha256: String,
    #[serde(default)]
    webhook_secrets: Vec<SecretText>,
    #[serde(default)]
    max_queued_tasks: Option<u32>,
}

/// A text that is never printed.
#[derive(Deserialize)]
#[serde(from = "String")]
struct SecretText(SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// The clients of a value of `API_KEYS`; an empty value has none.
///
/// # Errors
/// When it is not a list of API keys, or one of them is invalid.
pub(super) fn parse(setting: &SecretString) -> Result<Vec<Client>, SettingError> {
    let json = setting.expose_secret().trim();
    if json.is_empty() {
        return Ok(Vec::new());
    }
    // The error's own text may contain a secret.
    let keys: Vec<ApiKey> = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let problem = format!("not a JSON list of API keys (line {line}, column {column})");
        let fix = r#"set [{"name": "…", "sha256": "…"}], with "webhook_secrets": ["…"] and "max_queued_tasks": 100 as needed"#;
        SettingError::new(env::API_KEYS, problem, fix)
    })?;
    keys.iter().map(client).collect()
}

fn client(key: &ApiKey) -> Result<Client, SettingError> {
    let name = &key.name;
    let invalid = |problem: String, fix: &str| SettingError::new(env::API_KEYS, problem, fix);
    let hash = key.sha256.parse::<Sha256Hex>();
    let hash = hash.map_err(|error| {
        let problem = format!("the field `sha256` of `{name}` is {error}");
        invalid(
            problem,
            "set the SHA-256 that `separation-worker keys create` prints",
        )
    })?;
    let mut client = Client::new(name, bytes(&hash))?;
    if key.webhook_secrets.len() > MAX_WEBHOOK_SECRETS {
        let problem = format!("`{name}` has {} webhook secrets", key.webhook_secrets.len());
        let fix = "set the current secret, and the one before it while receivers change to the new one";
        return Err(invalid(problem, fix));
    }
    for SecretText(secret) in &key.webhook_secrets {
        let signer = Signer::new(secret).map_err(|error| {
            let problem = format!("a webhook secret of `{name}` is invalid: {error}");
            invalid(problem, "set whsec_ and the base64 of at least 24 random bytes")
        })?;
        client.signers.push(signer);
    }
    if key.max_queued_tasks == Some(0) {
        let problem = format!("`max_queued_tasks` of `{name}` is 0");
        return Err(invalid(
            problem,
            "set at least 1, or remove the field for no limit",
        ));
    }
    client.limit = key.max_queued_tasks;
    Ok(client)
}

fn bytes(hash: &Sha256Hex) -> [u8; 32] {
    let digits = hash.as_str();
    std::array::from_fn(|index| {
        let pair = &digits[2 * index..2 * index + 2];
        u8::from_str_radix(pair, 16).expect("a SHA-256 has 64 hexadecimal digits")
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::super::clients::Clients;
    use super::*;

    /// SHA-256 of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_key_authenticates_by_its_hash() {
        let json = format!(
            r#"[{{"name": "acme", "sha256": "{ABC}", "webhook_secrets": ["whsec_c2VjcmV0", "older"], "max_queued_tasks": 9}},
                {{"name": "b-2", "sha256": "{}"}}]"#,
            "0".repeat(64)
        );
        let clients = parse(&json.into()).expect("two keys");
        let fields: Vec<_> = clients
            .iter()
            .map(|client| (client.name.as_str(), client.signers.len(), client.limit))
            .collect();
        assert_eq!(fields, [("acme", 2, Some(9)), ("b-2", 0, None)]);
        let bearer = HeaderValue::from_static("Bearer abc");
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
        let clients = Clients::new(clients).expect("names and keys differ");
        let found = clients.by_authorization(&headers).expect("its key");
        assert_eq!(found.name, "acme");
    }

    #[test]
    fn an_empty_setting_has_no_clients() {
        for empty in ["", " \n", "[]"] {
            assert!(parse(&empty.into()).expect("no keys").is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn an_invalid_setting_is_described_without_its_secrets() {
        let key = |rest: &str| format!(r#"[{{"name": "acme", "sha256": "{ABC}"{rest}}}]"#);
        for (json, expected) in [
            ("{".to_owned(), "line 1"),
            (r#"["sk_secret"]"#.to_owned(), "line 1"),
            (key(r#", "webhook_secrets": "whsec_secret""#), "line 1"),
            (key(r#", "whsec_secret": 1"#), "line 1"),
            (key(r#", "max_queued_tasks": -1"#), "line 1"),
            (key(r#", "max_queued_tasks": 0"#), "max_queued_tasks"),
            (
                key(r#", "webhook_secrets": ["secret1", "secret2", "secret3"]"#),
                "3 webhook secrets",
            ),
            (
                key(r#", "webhook_secrets": ["whsec_secret!"]"#),
                "webhook secret of `acme`",
            ),
            (key("").replace("acme", "Acme Inc"), "`Acme Inc`"),
            (key("").replace(ABC, "sk_secret"), "`sha256` of `acme`"),
        ] {
            let error = parse(&json.clone().into())
                .map(|clients| clients.len())
                .expect_err(&json);
            assert_eq!(error.name, "API_KEYS");
            assert!(error.problem.contains(expected), "{error}");
            let text = error.to_string();
            assert!(
                !text.contains("sk_secret") && !text.contains("whsec_secret"),
                "{text}"
            );
            assert!(!text.contains("secret1"), "{text}");
        }
    }
}
