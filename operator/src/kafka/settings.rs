//! Connection settings of a cluster, with the contents of its Secrets.

use std::fmt;

use separation_contract::kafka::SaslMechanism;

use super::ReadError;
use crate::plan::{KafkaPlan, PoolId, SecretKey};

/// Connection settings of a cluster, with the contents of its Secrets. Equal settings can share one [`super::Cluster`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterSettings {
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

impl ClusterSettings {
    /// Settings for a plan. `secret` returns the text of a key of a Secret in the pool's namespace.
    ///
    /// # Errors
    /// The first Secret or Secret key that is missing.
    pub fn from_plan(
        plan: &KafkaPlan,
        pool: &PoolId,
        secret: impl Fn(&SecretKey) -> Option<String>,
    ) -> Result<Self, ReadError> {
        let read = |key: &SecretKey| {
            secret(key).map(SecretText).ok_or_else(|| {
                let SecretKey { secret, key } = key;
                let namespace = &pool.namespace;
                ReadError::new(format!(
                    "Secret {namespace}/{secret} has no key {key} with text; \
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
                    .map_err(|unknown| ReadError::new(format!("SASL mechanism: {unknown}")))?,
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
        let plan = PoolPlan::from_pool(&pool).unwrap();
        let secret = |key: &SecretKey| Some(format!("<{}/{}>", key.secret, key.key));
        let settings = ClusterSettings::from_plan(&plan.kafka, &plan.id, secret).unwrap();
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
    fn a_missing_secret_key_is_named_with_the_fix() {
        let pool = from_yaml(include_str!("../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::from_pool(&pool).unwrap();
        let all_but_password = |key: &SecretKey| (key.key != "password").then(|| "text".to_owned());
        let refused = ClusterSettings::from_plan(&plan.kafka, &plan.id, all_but_password).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("Secret media/kafka-user has no key password with text; fix: kubectl")
        );
    }
}
