//! How a cluster is reached, with secrets read.

use std::fmt;

use separation_contract::kafka::SaslMechanism;

use super::Unread;
use crate::plan::{KafkaPlan, PoolId, SecretKey};

/// How a cluster is reached, with secrets read. Equal settings can share one [`super::Cluster`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSettings {
    /// Brokers, `host:port`, comma separated.
    pub bootstrap_servers: String,
    /// Encryption, where it is asked for.
    pub tls: Option<Tls>,
    /// Login, where it is asked for.
    pub sasl: Option<Sasl>,
}

/// Encryption, and whom to trust. Texts are PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tls {
    /// Certificates that brokers are checked against; none means the authorities that the machine trusts.
    pub ca: Option<SecretText>,
    /// What we show to brokers that ask.
    pub client: Option<ClientCertificate>,
}

/// A certificate and its private key. Texts are PEM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientCertificate {
    /// The certificate, and those that lead to its authority.
    pub certificate: SecretText,
    /// The private key, not encrypted.
    pub private_key: SecretText,
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// The name to log in with.
    pub username: SecretText,
    /// The password.
    pub password: SecretText,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl SecretText {
    /// The text, for those who need it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl ClusterSettings {
    /// Settings for a plan. `secret` gives the text of a secret's key, of the pool's namespace.
    ///
    /// # Errors
    /// The first secret or key that is not there.
    pub fn of(
        plan: &KafkaPlan,
        pool: &PoolId,
        secret: impl Fn(&SecretKey) -> Option<String>,
    ) -> Result<Self, Unread> {
        let read = |key: &SecretKey| {
            secret(key).map(SecretText).ok_or_else(|| {
                let SecretKey { secret, key } = key;
                let namespace = &pool.namespace;
                Unread::new(format!(
                    "secret {namespace}/{secret} has no key {key} with text; \
                     fix: kubectl create secret generic {secret} --namespace {namespace} --from-file={key}=FILE"
                ))
            })
        };
        let tls = plan.tls.as_ref().map(|tls| {
            let client = tls.client.as_ref().map(|client| {
                Ok(ClientCertificate {
                    certificate: read(&client.certificate)?,
                    private_key: read(&client.private_key)?,
                })
            });
            Ok(Tls {
                ca: tls.ca.as_ref().map(read).transpose()?,
                client: client.transpose()?,
            })
        });
        let sasl = plan.sasl.as_ref().map(|sasl| {
            Ok(Sasl {
                mechanism: sasl
                    .mechanism
                    .parse()
                    .map_err(|unknown| Unread::new(format!("SASL mechanism: {unknown}")))?,
                username: read(&sasl.username)?,
                password: read(&sasl.password)?,
            })
        });
        Ok(Self {
            bootstrap_servers: plan.bootstrap_servers.clone(),
            tls: tls.transpose()?,
            sasl: sasl.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::from_yaml;
    use crate::plan::PoolPlan;

    #[test]
    fn secrets_become_settings_and_are_never_shown() {
        let pool = from_yaml(include_str!("../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::of(&pool).unwrap();
        let secret = |key: &SecretKey| Some(format!("<{}/{}>", key.secret, key.key));
        let settings = ClusterSettings::of(&plan.kafka, &plan.id, secret).unwrap();
        let text = |text: &str| SecretText(text.to_owned());
        let expected = ClusterSettings {
            bootstrap_servers: plan.kafka.bootstrap_servers.clone(),
            tls: Some(Tls {
                ca: Some(text("<kafka-ca/ca.crt>")),
                client: Some(ClientCertificate {
                    certificate: text("<kafka-client/tls.crt>"),
                    private_key: text("<kafka-client/tls.key>"),
                }),
            }),
            sasl: Some(Sasl {
                mechanism: SaslMechanism::ScramSha512,
                username: text("<kafka-user/username>"),
                password: text("<kafka-user/password>"),
            }),
        };
        assert_eq!(settings, expected);
        assert!(!format!("{settings:?}").contains('<'));
    }

    #[test]
    fn a_key_that_is_missing_is_named_with_the_fix() {
        let pool = from_yaml(include_str!("../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::of(&pool).unwrap();
        let all_but_password = |key: &SecretKey| (key.key != "password").then(|| "text".to_owned());
        let refused = ClusterSettings::of(&plan.kafka, &plan.id, all_but_password).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("secret media/kafka-user has no key password with text; fix: kubectl")
        );
    }
}
