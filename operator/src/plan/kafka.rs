//! Validated connection to Kafka.

use separation_contract::kafka::SaslMechanism;

use super::checks::Checks;
use super::storage::SecretKey;
use crate::crd::{KafkaSpec, MechanismSpec, SaslSpec};

/// Connection to Kafka. Secrets are named, not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KafkaPlan {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// TLS; none means plain text.
    pub tls: Option<TlsPlan>,
    /// SASL; none means no authentication.
    pub sasl: Option<SaslPlan>,
}

/// TLS: trusted CA certificates and the client certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsPlan {
    /// CA certificates that broker certificates are verified with; none means the system trust store.
    pub cas: Vec<SecretKey>,
    /// A client certificate.
    pub client: Option<ClientCertificateSecret>,
}

/// Secret keys of a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCertificateSecret {
    /// The certificate.
    pub certificate: SecretKey,
    /// The private key.
    pub private_key: SecretKey,
}

/// SASL authentication.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaslPlan {
    /// The mechanism's name in Kafka.
    pub mechanism: &'static str,
    /// The user name.
    pub username: Username,
    /// The password.
    pub password: SecretKey,
}

/// A user name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Username {
    /// Written in the pool.
    Text(String),
    /// Read from a Secret.
    Secret(SecretKey),
}

impl KafkaPlan {
    /// All Secret keys that it names.
    pub fn secret_keys(&self) -> Vec<&SecretKey> {
        let mut keys = Vec::new();
        if let Some(tls) = &self.tls {
            keys.extend(&tls.cas);
            if let Some(client) = &tls.client {
                keys.extend([&client.certificate, &client.private_key]);
            }
        }
        if let Some(sasl) = &self.sasl {
            if let Username::Secret(username) = &sasl.username {
                keys.push(username);
            }
            keys.push(&sasl.password);
        }
        keys
    }

    pub(super) fn from_spec(spec: &KafkaSpec, checks: &mut Checks) -> Option<Self> {
        let well_formed = |server: &str| {
            let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        if !spec.bootstrap_servers.split(',').all(well_formed) {
            let problem = format!("`{}` is not a list of brokers", spec.bootstrap_servers);
            let fix = "write host:port, comma separated, without spaces";
            return checks.refuse("kafka.bootstrapServers", problem, fix);
        }
        let sasl = match &spec.sasl {
            None => None,
            Some(sasl) => Some(sasl_plan(sasl, checks)?),
        };
        if sasl
            .as_ref()
            .is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain.name())
            && spec.tls.is_none()
        {
            let problem = "PLAIN sends the password in clear text, and this connection is not encrypted";
            let fix = "add kafka.tls (tls: {} uses the system trust store), or use SCRAM-SHA-512";
            return checks.refuse("kafka.sasl.mechanism", problem, fix);
        }
        Some(Self {
            bootstrap_servers: spec.bootstrap_servers.clone(),
            tls: spec.tls.as_ref().map(|tls| TlsPlan {
                cas: tls
                    .trusted_certificate_secret_refs
                    .iter()
                    .map(|ca| SecretKey::new(&ca.name, &ca.key))
                    .collect(),
                client: tls
                    .client_certificate_secret_ref
                    .as_ref()
                    .map(|client| ClientCertificateSecret {
                        certificate: SecretKey::new(&client.name, &client.certificate_key),
                        private_key: SecretKey::new(&client.name, &client.private_key_key),
                    }),
            }),
            sasl,
        })
    }

    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub fn security_protocol(&self) -> &'static str {
        match (self.sasl.is_some(), self.tls.is_some()) {
            (false, false) => "PLAINTEXT",
            (false, true) => "SSL",
            (true, false) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        }
    }
}

fn sasl_plan(spec: &SaslSpec, checks: &mut Checks) -> Option<SaslPlan> {
    let username = match (&spec.username, &spec.username_secret_ref) {
        (Some(username), None) => Username::Text(username.clone()),
        (None, Some(secret)) => Username::Secret(SecretKey::new(&secret.name, &secret.key)),
        _ => {
            let problem = "the user name is written in the pool or read from a Secret";
            let fix = "set exactly one of username and usernameSecretRef";
            return checks.refuse("kafka.sasl", problem, fix);
        }
    };
    Some(SaslPlan {
        mechanism: mechanism(spec.mechanism).name(),
        username,
        password: SecretKey::new(&spec.password_secret_ref.name, &spec.password_secret_ref.key),
    })
}

fn mechanism(spec: MechanismSpec) -> SaslMechanism {
    match spec {
        MechanismSpec::Plain => SaslMechanism::Plain,
        MechanismSpec::ScramSha256 => SaslMechanism::ScramSha256,
        MechanismSpec::ScramSha512 => SaslMechanism::ScramSha512,
    }
}
