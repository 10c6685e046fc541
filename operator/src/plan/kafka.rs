//! How Kafka is reached, checked.

use separation_contract::kafka::SaslMechanism;

use super::{Checks, SecretKey};
use crate::crd::{KafkaSpec, MechanismSpec};

/// How Kafka is reached. Secrets are named, not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KafkaPlan {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// Encryption, where it is asked for.
    pub tls: Option<TlsPlan>,
    /// Login, where it is asked for.
    pub sasl: Option<SaslPlan>,
}

/// Encryption, and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsPlan {
    /// Certificates that brokers are checked against; none means the usual authorities.
    pub ca: Option<CaSecret>,
    /// A client certificate.
    pub client: Option<ClientCertificateSecret>,
}

/// A secret's key with certificates.
pub type CaSecret = SecretKey;

/// A secret's keys with a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCertificateSecret {
    /// The certificate.
    pub certificate: SecretKey,
    /// The private key.
    pub private_key: SecretKey,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaslPlan {
    /// The name of the mechanism, as Kafka knows it.
    pub mechanism: &'static str,
    /// The name to log in with.
    pub username: SecretKey,
    /// The password.
    pub password: SecretKey,
}

impl KafkaPlan {
    /// The keys of Secrets that it names.
    pub fn secret_keys(&self) -> Vec<&SecretKey> {
        let mut keys = Vec::new();
        if let Some(tls) = &self.tls {
            keys.extend(&tls.ca);
            if let Some(client) = &tls.client {
                keys.extend([&client.certificate, &client.private_key]);
            }
        }
        if let Some(sasl) = &self.sasl {
            keys.extend([&sasl.username, &sasl.password]);
        }
        keys
    }

    pub(super) fn of(spec: &KafkaSpec, checks: &mut Checks) -> Option<Self> {
        let well_formed = |server: &str| {
            let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        if !spec.bootstrap_servers.split(',').all(well_formed) {
            return checks.refuse(
                "kafka.bootstrapServers",
                format!("`{}` is no list of brokers", spec.bootstrap_servers),
                "write host:port, comma separated, without spaces",
            );
        }
        let sasl = spec.sasl.as_ref().map(|sasl| SaslPlan {
            mechanism: mechanism(sasl.mechanism).name(),
            username: SecretKey::new(&sasl.secret_ref.name, &sasl.secret_ref.username_key),
            password: SecretKey::new(&sasl.secret_ref.name, &sasl.secret_ref.password_key),
        });
        if sasl
            .as_ref()
            .is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain.name())
            && spec.tls.is_none()
        {
            return checks.refuse(
                "kafka.sasl.mechanism",
                "PLAIN sends the password as it is, and this connection is not encrypted",
                "add kafka.tls (tls: {} trusts the usual authorities), or use SCRAM-SHA-512",
            );
        }
        Some(Self {
            bootstrap_servers: spec.bootstrap_servers.clone(),
            tls: spec.tls.as_ref().map(|tls| TlsPlan {
                ca: tls
                    .ca_secret_ref
                    .as_ref()
                    .map(|ca| SecretKey::new(&ca.name, &ca.key)),
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

fn mechanism(spec: MechanismSpec) -> SaslMechanism {
    match spec {
        MechanismSpec::Plain => SaslMechanism::Plain,
        MechanismSpec::ScramSha256 => SaslMechanism::ScramSha256,
        MechanismSpec::ScramSha512 => SaslMechanism::ScramSha512,
    }
}
