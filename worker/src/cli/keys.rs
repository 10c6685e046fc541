//! `separation-worker keys create`: creates the API key of a client, and its entry for `API_KEYS`.
//!
//! Stores nothing. Entries contain the hash of an API key, never the API key.

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use super::printing::{json_out, write_out};
use crate::api::Client;
use crate::model::hexadecimal;
use crate::settings::SettingError;

const EXAMPLES: &str = "\
Examples:
  separation-worker keys create acme
  separation-worker keys create acme --webhook-secret --max-queued-tasks 100
  umask 077                                                  # others cannot read the files
  separation-worker keys create acme --json > acme.json      # the API key and its entry, for a script
  jq '[.entry]' acme.json > keys.json
  kubectl create secret generic api-keys --from-file=keys.json

keys.json is a JSON list with one entry for each API key. A pool names the Secret in spec.api.keysSecretRef; elsewhere,
set API_KEYS to the list. To replace an API key, create another one with the same name and replace its entry. Keep entries
as secret as API keys: sessions of the API's page are signed with the hash, and webhooks with the secrets.

Exit codes: 0 created, 1 runtime error, 2 invalid arguments.";

/// Random bytes of an API key and of a webhook secret: 256 bits cannot be guessed.
type Random = [u8; 32];

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Create the API key of a client, and print it once with its entry for API_KEYS
    Create(CreateArguments),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct CreateArguments {
    /// Name of the client, 1 to 63 of a-z, 0-9 and -, not local; it sees only tasks that were posted with this name
    #[arg(value_name = "NAME")]
    name: String,
    /// Maximum number of the client's tasks that have not ended; further ones are answered 429 [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_queued_tasks: Option<u32>,
    /// Also create the secret that signs the client's webhooks
    #[arg(long)]
    webhook_secret: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A new API key.
#[derive(Serialize)]
struct NewKey {
    /// The API key, for the client's `Authorization: Bearer`.
    key: String,
    /// Verifies webhooks at the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_secret: Option<String>,
    entry: Entry,
}

/// An element of `API_KEYS`.
#[derive(Serialize)]
struct Entry {
    name: String,
    sha256: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    webhook_secrets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queued_tasks: Option<u32>,
}

pub(super) fn run(arguments: &KeysArguments) -> Result<(), Failure> {
    let KeysCommand::Create(arguments) = &arguments.command;
    let secret = arguments.webhook_secret.then(random).transpose()?;
    let new = NewKey::new(&arguments.name, arguments.max_queued_tasks, random()?, secret)?;
    let printed = match arguments.json {
        true => json_out(&new),
        false => write_out(&new.text().context("cannot print")?),
    };
    Ok(printed.context("cannot print")?)
}

impl NewKey {
    fn new(
        name: &str,
        max_queued_tasks: Option<u32>,
        key: Random,
        secret: Option<Random>,
    ) -> Result<Self, SettingError> {
        let key = format!("sk_{}", URL_SAFE_NO_PAD.encode(key));
        let hash: [u8; 32] = Sha256::digest(&key).into();
        // Checks the name.
        let client = Client::new(name, hash)?;
        let webhook_secret = secret.map(|secret| format!("whsec_{}", STANDARD.encode(secret)));
        Ok(Self {
            key,
            entry: Entry {
                name: client.name,
                sha256: hexadecimal(&hash),
                webhook_secrets: webhook_secret.iter().cloned().collect(),
                max_queued_tasks,
            },
            webhook_secret,
        })
    }

    /// The API key, its entry, and where the entry belongs.
    fn text(&self) -> serde_json::Result<String> {
        let mut text = format!("API key:         {}\n", self.key);
        if let Some(secret) = &self.webhook_secret {
            text.push_str(&format!("webhook secret:  {secret}\n"));
        }
        let entry = serde_json::to_string(&self.entry)?;
        text.push_str(&format!(
            "\nGive it to {} now: it is not stored and cannot be printed again.\n\n\
             Entry for the JSON list in API_KEYS:\n{entry}\n\n\
             For the API of a pool, write the list of all entries to keys.json, which only you may read (umask 077),\n\
             and store it in the Secret that the pool names in spec.api.keysSecretRef:\n  \
             kubectl create secret generic api-keys --from-file=keys.json --dry-run=client -o yaml |\n    \
             kubectl apply -f -\n",
            self.entry.name
        ));
        Ok(text)
    }
}

fn random() -> anyhow::Result<Random> {
    let mut bytes = Random::default();
    let source = rustls::crypto::ring::default_provider().secure_random;
    source
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the operating system provides no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::webhook::Signer;

    #[test]
    fn an_entry_has_the_hash_of_the_key_and_a_usable_secret() {
        let new = NewKey::new("acme", Some(5), [0xfb; 32], Some([1; 32])).unwrap();
        // Base64 for URLs, without padding.
        assert_eq!(new.key, "sk_-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        let secret = new.webhook_secret.clone().unwrap();
        Signer::new(&SecretString::from(secret.as_str())).unwrap();
        let json = serde_json::to_value(&new).unwrap();
        let expected = serde_json::json!({
            "name": "acme",
            "sha256": "fa01faf542a2b8dbdebc624e57e0af13b9c1e3baeacb1b0360301f2911238feb",
            "webhook_secrets": [secret],
            "max_queued_tasks": 5
        });
        assert_eq!(json["entry"], expected);
        let text = new.text().unwrap();
        for shown in [new.key, secret, serde_json::to_string(&new.entry).unwrap()] {
            assert!(text.contains(&shown), "{text}");
        }
    }

    #[test]
    fn an_entry_without_options_has_no_fields_for_them() {
        let new = NewKey::new("a", None, [0; 32], None).unwrap();
        let json = serde_json::to_value(&new).unwrap();
        let fields: Vec<_> = json["entry"].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["name", "sha256"]);
        assert!(json.get("webhook_secret").is_none(), "{json}");
    }

    #[test]
    fn a_name_that_no_client_can_have_is_refused() {
        for name in ["", "Acme", "a b", "a/b", "local"] {
            let refused = NewKey::new(name, None, [0; 32], None);
            assert!(refused.is_err(), "{name}");
        }
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
