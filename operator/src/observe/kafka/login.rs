//! How a plan's Kafka is reached, once its secrets are read.

use super::{ClusterSettings, Unread};
use crate::plan::{KafkaPlan, PoolId, SecretKey};

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
            secret(key).ok_or_else(|| {
                let SecretKey { secret, key } = key;
                let namespace = &pool.namespace;
                Unread::new(format!(
                    "secret {namespace}/{secret} has no key {key} with text; \
                     fix: kubectl create secret generic {secret} --namespace {namespace} --from-file={key}=FILE"
                ))
            })
        };
        let mut security = vec![("security.protocol", plan.security_protocol().to_lowercase())];
        if let Some(tls) = &plan.tls {
            if let Some(ca) = &tls.ca {
                security.push(("ssl.ca.pem", read(ca)?));
            }
            if let Some(client) = &tls.client {
                security.push(("ssl.certificate.pem", read(&client.certificate)?));
                security.push(("ssl.key.pem", read(&client.private_key)?));
            }
        }
        if let Some(sasl) = &plan.sasl {
            security.push(("sasl.mechanisms", sasl.mechanism.to_owned()));
            security.push(("sasl.username", read(&sasl.username)?));
            security.push(("sasl.password", read(&sasl.password)?));
        }
        Ok(Self {
            bootstrap_servers: plan.bootstrap_servers.clone(),
            security,
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
        let pool = from_yaml(include_str!("../../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::of(&pool).unwrap();
        let secret = |key: &SecretKey| Some(format!("<{}/{}>", key.secret, key.key));
        let settings = ClusterSettings::of(&plan.kafka, &plan.id, secret).unwrap();
        assert_eq!(
            settings.security,
            [
                ("security.protocol", "sasl_ssl".to_owned()),
                ("ssl.ca.pem", "<kafka-ca/ca.crt>".to_owned()),
                ("ssl.certificate.pem", "<kafka-client/tls.crt>".to_owned()),
                ("ssl.key.pem", "<kafka-client/tls.key>".to_owned()),
                ("sasl.mechanisms", "SCRAM-SHA-512".to_owned()),
                ("sasl.username", "<kafka-user/username>".to_owned()),
                ("sasl.password", "<kafka-user/password>".to_owned()),
            ]
        );
        assert!(!format!("{settings:?}").contains('<'));
    }

    #[test]
    fn a_key_that_is_missing_is_named_with_the_fix() {
        let pool = from_yaml(include_str!("../../../tests/pools/full.yaml")).unwrap();
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
