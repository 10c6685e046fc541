//! Certificates and credentials for brokers with TLS and SASL, generated for every test.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::oauth::{KafkaOauth, TokenValidation};
use crate::certificates::{Authority, Purpose};

const USERNAME: &str = "worker";
const PASSWORD: &str = "worker-secret";

/// Client settings for the listeners with TLS or authentication.
#[derive(Debug, Clone)]
pub struct Security {
    authority: Arc<Authority>,
    ca: PathBuf,
    client_certificate: PathBuf,
    client_key: PathBuf,
    broker: PathBuf,
    tokens: Option<TokenValidation>,
}

impl Security {
    /// The user that can authenticate, by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub fn username(&self) -> &'static str {
        USERNAME
    }

    /// Its password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// File with the authority's certificate (PEM), which signs the brokers' certificates.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// File with a client certificate (PEM).
    pub fn client_certificate(&self) -> &Path {
        &self.client_certificate
    }

    /// File with its private key (PEM).
    pub fn client_key(&self) -> &Path {
        &self.client_key
    }

    /// A further client certificate and its private key, both as PEM. At the listener with TLS, its principal is
    /// `User:CN=` with this name.
    ///
    /// # Errors
    /// If it cannot be generated.
    pub fn client_certificate_of(&self, name: &str) -> Result<(String, String)> {
        let certificate = self.authority.certificate(name, &[], Purpose::Client)?;
        Ok((certificate.pem, certificate.key))
    }

    /// Generates an authority and certificates, for brokers at `address` and one client, in `directory`.
    pub(super) fn make(directory: &Path, address: Ipv4Addr, oauth: Option<KafkaOauth>) -> Result<Self> {
        let authority = Arc::new(Authority::make()?);
        let hosts = ["localhost", "127.0.0.1", &address.to_string()];
        let broker = authority.certificate("broker", &hosts, Purpose::Server)?;
        let client = authority.certificate(USERNAME, &[], Purpose::Client)?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self {
            ca: write("ca.pem", &authority.pem())?,
            client_certificate: write("client.pem", &client.pem)?,
            client_key: write("client.key", &client.key)?,
            broker: write(
                "broker.pem",
                &format!("{}{}{}", broker.key, broker.pem, authority.pem()),
            )?,
            tokens: oauth
                .map(|expected| TokenValidation::prepare(directory, expected))
                .transpose()?,
            authority,
        })
    }

    pub(super) fn tokens(&self) -> Option<&TokenValidation> {
        self.tokens.as_ref()
    }

    pub(super) fn scram_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            arguments.push("--add-scram".to_owned());
            arguments.push(format!("{mechanism}=[name={USERNAME},password={PASSWORD}]"));
        }
        arguments
    }

    pub(super) fn broker_settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<(String, String)> = [
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", self.broker.display().to_string()),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", self.ca.display().to_string()),
            ("listener.name.ssl.ssl.client.auth", "required".to_owned()),
            (
                "sasl.enabled.mechanisms",
                format!(
                    "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512{}",
                    self.tokens.as_ref().map_or("", |_| ",OAUTHBEARER")
                ),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for listener in ["sasl_ssl", "sasl_plaintext"] {
            let package = "org.apache.kafka.common.security";
            settings.push((
                format!("listener.name.{listener}.plain.sasl.jaas.config"),
                format!("{package}.plain.PlainLoginModule required user_{USERNAME}=\"{PASSWORD}\";"),
            ));
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                settings.push((
                    format!("listener.name.{listener}.{mechanism}.sasl.jaas.config"),
                    format!("{package}.scram.ScramLoginModule required;"),
                ));
            }
            for (name, value) in self.tokens.iter().flat_map(TokenValidation::listener_settings) {
                settings.push((format!("listener.name.{listener}.oauthbearer.{name}"), value));
            }
        }
        settings
    }
}
