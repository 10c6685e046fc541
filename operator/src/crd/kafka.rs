//! Spec of the connection to Kafka.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Connection to Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.sasl) || self.sasl.mechanism != 'PLAIN' || has(self.tls)",
    "message": "PLAIN sends the password in clear text, and this connection is not encrypted; \
                fix: add kafka.tls (tls: {} uses the system trust store), or use SCRAM-SHA-512"
}]))]
pub struct KafkaSpec {
    /// Brokers to connect to first, as host:port, comma separated, such as kafka.media.svc:9092. Use complete names:
    /// the operator resolves them from its own namespace.
    #[schemars(
        length(min = 3, max = 2048),
        regex(pattern = r"^[^,\s]+:[0-9]+(,[^,\s]+:[0-9]+)*$")
    )]
    pub bootstrap_servers: String,
    /// Encrypts connections to Kafka. {} uses the system trust store. Default: no encryption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// SASL authentication with a user name and a password. Default: no authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSpec>,
}

/// TLS: trusted CA certificates and the client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Secrets with the CA certificates (PEM) that broker certificates are verified with; certificates of any of them
    /// are trusted. Default: the system trust store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_certificate_secret_refs: Vec<CertificateSecretRef>,
    /// Secret with a client certificate and its private key (PEM), if the brokers require one. For a KafkaUser of
    /// Strimzi: its Secret, with certificateKey user.crt and privateKeyKey user.key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ClientCertificateSecretRef>,
}

/// A Secret in the pool's namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecretRef {
    /// Name of the Secret. For a Kafka of Strimzi: CLUSTER-cluster-ca-cert.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the certificates. Default: ca.crt.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a client certificate, by default with the keys of a kubernetes.io/tls Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the certificate. Default: tls.crt.
    #[serde(default = "certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub certificate_key: String,
    /// Secret key with the private key. Default: tls.key.
    #[serde(default = "private_key_key")]
    #[schemars(length(min = 1, max = 253))]
    pub private_key_key: String,
}

/// SASL authentication.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.username) != has(self.usernameSecretRef)",
    "message": "the user name is written here or read from a Secret; \
                fix: set exactly one of username and usernameSecretRef"
}]))]
pub struct SaslSpec {
    /// SCRAM-SHA-512, SCRAM-SHA-256, or PLAIN (only with kafka.tls). Default: SCRAM-SHA-512.
    #[serde(default)]
    pub mechanism: MechanismSpec,
    /// User name. Set either this or usernameSecretRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Secret with the user name. Set either this or username.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<UsernameSecretRef>,
    /// Secret with the password, such as the Secret of a Strimzi KafkaUser.
    pub password_secret_ref: PasswordSecretRef,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MechanismSpec {
    /// The password is never sent.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// The password is never sent.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password is sent in clear text.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// A Secret in the pool's namespace with a user name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsernameSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the user name. Default: username.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in the pool's namespace with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret key with the password. Default: password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
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

pub(super) fn username_key() -> String {
    "username".into()
}

pub(super) fn password_key() -> String {
    "password".into()
}
