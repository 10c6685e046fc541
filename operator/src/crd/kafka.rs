//! How Kafka is reached, as people write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How Kafka is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
    "message": "PLAIN sends the password as it is, and this connection is not encrypted; \
                fix: add kafka.tls (tls: {} trusts the usual authorities), or use SCRAM-SHA-512"
}]))]
pub struct KafkaSpec {
    /// Brokers to ask first, host:port, comma separated.
    #[schemars(
        length(min = 3, max = 2048),
        regex(pattern = r"^[^,\s]+:[0-9]+(,[^,\s]+:[0-9]+)*$")
    )]
    pub bootstrap_servers: String,
    /// Encrypts connections; without it they are not encrypted. An empty object trusts the usual authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// Logs in with a name and a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSpec>,
}

/// Encryption, and whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Secret with the certificates (PEM) that brokers are checked against. Default: the usual authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Secret with a client certificate and its key (PEM), where brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

/// A Secret in the pool's namespace with certificates of authorities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key with the certificates.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a client certificate, as kubernetes.io/tls Secrets have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key with the certificate.
    #[serde(default = "certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub certificate_key: String,
    /// Its key with the private key.
    #[serde(default = "private_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub private_key_key: String,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaslSpec {
    /// SCRAM-SHA-512, SCRAM-SHA-256, or PLAIN (only with kafka.tls).
    #[serde(default)]
    pub mechanism: MechanismSpec,
    /// Secret with the name and the password.
    pub secret_ref: SaslSecretRef,
}

/// A mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MechanismSpec {
    /// The password is never sent.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// The password is never sent.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password is sent as it is.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// A Secret in the pool's namespace with a name and a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaslSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key with the name to log in with.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Its key with the password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

fn certificate_key() -> String {
    "tls.crt".into()
}

fn private_key_key() -> String {
    "tls.key".into()
}

fn username_key() -> String {
    "username".into()
}

fn password_key() -> String {
    "password".into()
}
