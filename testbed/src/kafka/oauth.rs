//! Brokers that accept tokens (OAUTHBEARER), which they verify themselves with public keys in a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The issuer whose tokens the listeners with SASL accept. A token's subject is its principal.
#[derive(Debug, Clone)]
pub struct KafkaOauth {
    /// The required claim `iss`.
    pub issuer: String,
    /// The required claim `aud`.
    pub audience: String,
    /// The issuer's public keys (JWKS); [`super::Kafka::set_jwks`] replaces them.
    pub jwks: String,
}

/// The expected tokens and the file of public keys.
#[derive(Debug, Clone)]
pub(super) struct TokenValidation {
    expected: KafkaOauth,
    jwks: PathBuf,
}

impl TokenValidation {
    /// Writes the file of public keys into `directory`.
    pub(super) fn prepare(directory: &Path, expected: KafkaOauth) -> Result<Self> {
        let validation = Self {
            jwks: directory.join("jwks.json"),
            expected,
        };
        validation.write_jwks(&validation.expected.jwks)?;
        Ok(validation)
    }

    /// Replaces the public keys; brokers read the file again when it has changed.
    pub(super) fn write_jwks(&self, jwks: &str) -> Result<()> {
        // Renamed, so that a broker never reads a part of it.
        let new = self.jwks.with_extension("new");
        std::fs::write(&new, jwks)
            .and_then(|()| std::fs::rename(&new, &self.jwks))
            .with_context(|| format!("cannot write {}", self.jwks.display()))
    }

    /// The option of the virtual machine that allows the file; by default none is allowed.
    pub(super) fn java_option(&self) -> String {
        format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={}", self.url())
    }

    /// The settings of one listener, without the prefix of listener and mechanism.
    pub(super) fn listener_settings(&self) -> [(&'static str, String); 6] {
        let package = "org.apache.kafka.common.security.oauthbearer";
        let module = format!("{package}.OAuthBearerLoginModule required;");
        let handler = format!("{package}.OAuthBearerValidatorCallbackHandler");
        let expected = &self.expected;
        [
            ("sasl.jaas.config", module),
            ("sasl.server.callback.handler.class", handler),
            ("sasl.oauthbearer.jwks.endpoint.url", self.url()),
            ("sasl.oauthbearer.expected.issuer", expected.issuer.clone()),
            ("sasl.oauthbearer.expected.audience", expected.audience.clone()),
            // By default, tokens are accepted for 30 s after they have expired.
            ("sasl.oauthbearer.clock.skew.seconds", "0".to_owned()),
        ]
    }

    fn url(&self) -> String {
        format!("file://{}", self.jwks.display())
    }
}
