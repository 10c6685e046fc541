//! Connection settings of a cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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
pub enum Sasl {
    /// A user name and a password.
    Password(Password),
    /// A token that is fetched and renewed (`OAUTHBEARER`).
    Token(TokenSettings),
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Password {
    /// `PLAIN` or a SCRAM mechanism.
    pub mechanism: SaslMechanism,
    /// The user name.
    pub username: SecretText,
    /// The password.
    pub password: SecretText,
}

/// Tokens to authenticate with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenSettings {
    /// Where tokens come from.
    pub origin: TokenOrigin,
    /// SASL extensions (RFC 7628) that are sent with each token.
    pub extensions: BTreeMap<String, String>,
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenOrigin {
    /// The token endpoint of an OAuth 2 authorization server.
    ClientCredentials(ClientCredentials),
    /// A file with a JWT that another process renews.
    File(PathBuf),
    /// Signed with the AWS credentials of this process, for Amazon MSK in this region.
    AwsMskIam {
        /// AWS region of the brokers.
        region: String,
    },
    /// A [`crate::TokenCache`] that is passed to [`crate::Cluster::with_cache`].
    External {
        /// Identifies it: settings with the same name share tokens.
        name: String,
    },
}

/// OAuth 2 client credentials (RFC 6749, section 4.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCredentials {
    /// URL of the token endpoint.
    pub endpoint: String,
    /// The client ID.
    pub client_id: SecretText,
    /// The client secret.
    pub client_secret: SecretText,
    /// The requested scope.
    pub scope: Option<String>,
    /// CA certificates (PEM) that the endpoint is verified against; `None` means the system trust store.
    pub ca: Option<SecretText>,
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
