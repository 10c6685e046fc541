//! Connection settings of a Kafka cluster, from a pool's plan and the contents of its Secrets.

use separation_kafka::{ClientCertificate, ClusterSettings, ReadError, Sasl, SecretText, Tls};

use crate::plan::{KafkaPlan, PoolId, SecretKey, Username};

/// The operator's own Kafka client id.
const CLIENT_ID: &str = "separation-operator";

/// Settings for a plan. `secret` returns the text of a key of a Secret in the pool's namespace.
///
/// # Errors
/// The first Secret or Secret key that is missing.
pub fn cluster_settings(
    plan: &KafkaPlan,
    pool: &PoolId,
    secret: impl Fn(&SecretKey) -> Option<String>,
) -> Result<ClusterSettings, ReadError> {
    let read = |key: &SecretKey| {
        secret(key).map(SecretText::from).ok_or_else(|| {
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
            ca: joined(tls.cas.iter().map(read))?,
            client: client.transpose()?,
        })
    });
    let sasl = plan.sasl.as_ref().map(|sasl| {
        Ok(Sasl {
            mechanism: sasl
                .mechanism
                .parse()
                .map_err(|unknown| ReadError::new(format!("SASL mechanism: {unknown}")))?,
            username: match &sasl.username {
                Username::Text(username) => username.clone().into(),
                Username::Secret(key) => read(key)?,
            },
            password: read(&sasl.password)?,
        })
    });
    Ok(ClusterSettings {
        client_id: CLIENT_ID.to_owned(),
        bootstrap_servers: plan.bootstrap_servers.clone(),
        tls: tls.transpose()?,
        sasl: sasl.transpose()?,
    })
}

/// The certificates of several Secrets as one text; none if there are none.
fn joined(
    certificates: impl Iterator<Item = Result<SecretText, ReadError>>,
) -> Result<Option<SecretText>, ReadError> {
    let texts = certificates.collect::<Result<Vec<_>, _>>()?;
    let text = texts
        .iter()
        .map(SecretText::expose)
        .collect::<Vec<_>>()
        .join("\n");
    Ok((!texts.is_empty()).then(|| text.into()))
}

#[cfg(test)]
mod tests {
    use separation_contract::kafka::SaslMechanism;

    use super::*;
    use crate::crd::from_yaml;
    use crate::plan::PoolPlan;

    #[test]
    fn secrets_become_settings_and_are_never_shown() {
        let pool = from_yaml(include_str!("../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::from_pool(&pool).unwrap();
        let secret = |key: &SecretKey| Some(format!("<{}/{}>", key.secret, key.key));
        let settings = cluster_settings(&plan.kafka, &plan.id, secret).unwrap();
        let text = |text: &str| SecretText::from(text.to_owned());
        let expected = ClusterSettings {
            client_id: CLIENT_ID.to_owned(),
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
        let refused = cluster_settings(&plan.kafka, &plan.id, all_but_password).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("Secret media/kafka-user has no key password with text; fix: kubectl")
        );
    }
}
