//! Connection settings of a cluster.

use std::fmt;

use separation_contract::kafka::SaslMechanism;

/// Connection settings of a cluster. Equal settings can share one [`crate::Cluster`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSettings {
    /// Kafka `client.id`.
    pub client_id: String,
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// TLS; `None` means plaintext.
    pub tls: Option<Tls>,
    /// SASL credentials; `None` means no authentication.
    pub sasl: Option<Sasl>,
}

/// TLS settings. Texts are PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tls {
    /// CA certificates that brokers are verified against; `None` means the system trust store.
    pub ca: Option<SecretText>,
    /// The certificate for brokers that request client authentication.
    pub client: Option<ClientCertificate>,
}

/// A certificate and its private key. Texts are PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCertificate {
    /// The certificate, followed by its intermediate certificates.
    pub certificate: SecretText,
    /// The private key, unencrypted.
    pub private_key: SecretText,
}

/// SASL credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sasl {
    /// The SASL mechanism.
    pub mechanism: SaslMechanism,
    /// The user name.
    pub username: SecretText,
    /// The password.
    pub password: SecretText,
}

/// A text that `Debug` does not print.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl SecretText {
    /// The text; never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
