//! Validated connection to Kafka.

use separation_contract::kafka::SaslMechanism;

use super::brokers::addresses;
use super::checks::Checks;
use super::sasl::SaslPlan;
use super::storage::SecretKey;
use crate::crd::{CertificateSecretRef, KafkaSpec, TlsSpec};

/// Connection to Kafka. Secrets are named, not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KafkaPlan {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// TLS; none means plain text.
    pub tls: Option<TlsPlan>,
    /// SASL; none means no authentication.
    pub sasl: Option<SaslPlan>,
    /// Whether producers are idempotent.
    pub idempotent_producer: bool,
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
        keys.extend(self.sasl.iter().flat_map(SaslPlan::secret_keys));
        keys
    }

    pub(super) fn from_spec(spec: &KafkaSpec, checks: &mut Checks) -> Option<Self> {
        let protocol = security_protocol(spec.sasl.as_ref(), spec.tls.as_ref());
        let bootstrap_servers = addresses(&spec.bootstrap_servers, protocol, checks)?;
        let sasl = match &spec.sasl {
            None => None,
            Some(sasl) => Some(SaslPlan::from_spec(sasl, &bootstrap_servers, checks)?),
        };
        let exposed = sasl.as_ref().filter(|_| spec.tls.is_none());
        if let Some((problem, fix)) = exposed.and_then(|sasl| cleartext_problem(sasl.mechanism())) {
            return checks.refuse("kafka.sasl.mechanism", problem, fix);
        }
        let producer = spec.producer.as_ref();
        Some(Self {
            bootstrap_servers,
            tls: spec.tls.as_ref().map(TlsPlan::from_spec),
            sasl,
            idempotent_producer: producer.is_none_or(|producer| producer.idempotence),
        })
    }

    /// `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub fn security_protocol(&self) -> &'static str {
        security_protocol(self.sasl.as_ref(), self.tls.as_ref())
    }
}

fn security_protocol<S, T>(sasl: Option<&S>, tls: Option<&T>) -> &'static str {
    match (sasl, tls) {
        (None, None) => "PLAINTEXT",
        (None, Some(_)) => "SSL",
        (Some(_), None) => "SASL_PLAINTEXT",
        (Some(_), Some(_)) => "SASL_SSL",
    }
}

/// The problem of a connection without TLS, which exposes a secret, with the fix.
fn cleartext_problem(mechanism: SaslMechanism) -> Option<(String, &'static str)> {
    let (what, fix) = match mechanism {
        // The password is never sent.
        SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => return None,
        SaslMechanism::Plain => (
            "the password",
            "add kafka.tls (tls: {} uses the system trust store), or use SCRAM-SHA-512",
        ),
        SaslMechanism::OauthBearer | SaslMechanism::AwsMskIam => {
            ("a token", "add kafka.tls (tls: {} uses the system trust store)")
        }
    };
    let problem = format!(
        "{} sends {what} in clear text, and this connection is not encrypted",
        mechanism.name()
    );
    Some((problem, fix))
}

impl TlsPlan {
    fn from_spec(spec: &TlsSpec) -> Self {
        let cas = spec.trusted_certificate_secret_refs.iter();
        let client = spec.client_certificate_secret_ref.as_ref();
        Self {
            cas: cas
                .map(|CertificateSecretRef { name, key }| SecretKey::new(name, key))
                .collect(),
            client: client.map(|client| ClientCertificateSecret {
                certificate: SecretKey::new(&client.name, &client.certificate_key),
                private_key: SecretKey::new(&client.name, &client.private_key_key),
            }),
        }
    }
}
