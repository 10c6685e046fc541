//! Connection settings of a Kafka cluster, from a pool's plan and the contents of its Secrets.

use separation_kafka::{
    ClientCertificate, ClientCredentials, ClusterSettings, Password, ReadError, ReadErrorKind, Sasl,
    SecretText, Tls, TokenOrigin, TokenSettings,
};

use crate::plan::{KafkaPlan, OauthSource, PoolId, SaslPlan, SecretKey, Username};

/// The operator's own Kafka client id.
const CLIENT_ID: &str = "separation-operator";

/// Where tokens come from if the workers' identity is that of their pods, and in no Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadTokens {
    /// None is needed.
    None,
    /// From the AWS credentials of this process.
    OwnAws,
    /// From a cache that is passed to [`separation_kafka::Cluster::with_cache`].
    External {
        /// Identifies it.
        name: String,
    },
}

/// Settings for a plan. `secret` returns the text of a key of a Secret in the pool's namespace.
///
/// # Errors
/// The first Secret or Secret key that is missing, or that `tokens` does not have the tokens which the plan needs.
pub fn cluster_settings(
    plan: &KafkaPlan,
    pool: &PoolId,
    secret: impl Fn(&SecretKey) -> Option<String>,
    tokens: &WorkloadTokens,
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
    let sasl = plan.sasl.as_ref().map(|plan| sasl(plan, &read, tokens));
    Ok(ClusterSettings {
        client_id: CLIENT_ID.to_owned(),
        bootstrap_servers: plan.bootstrap_servers.clone(),
        tls: tls.transpose()?,
        sasl: sasl.transpose()?,
    })
}

/// `read` returns the text of a Secret key.
fn sasl(
    plan: &SaslPlan,
    read: &impl Fn(&SecretKey) -> Result<SecretText, ReadError>,
    tokens: &WorkloadTokens,
) -> Result<Sasl, ReadError> {
    let text = |name: &Username| match name {
        Username::Text(text) => Ok(text.clone().into()),
        Username::Secret(key) => read(key),
    };
    let (origin, extensions) = match plan {
        SaslPlan::Password(plan) => {
            return Ok(Sasl::Password(Password {
                mechanism: plan.mechanism,
                username: text(&plan.username)?,
                password: read(&plan.password)?,
            }));
        }
        SaslPlan::Oauth(oauth) => {
            let origin = match &oauth.source {
                OauthSource::ClientCredentials(client) => TokenOrigin::ClientCredentials(ClientCredentials {
                    endpoint: client.endpoint.clone(),
                    client_id: text(&client.client_id)?,
                    client_secret: read(&client.client_secret)?,
                    scope: client.scope.clone(),
                    ca: joined(client.cas.iter().map(read))?,
                }),
                OauthSource::ServiceAccount(_) => workload_origin(None, tokens)?,
            };
            (origin, oauth.extensions.clone())
        }
        SaslPlan::AwsIam { region } => (workload_origin(Some(region), tokens)?, Default::default()),
    };
    Ok(Sasl::Token(TokenSettings { origin, extensions }))
}

/// The origin of tokens for the identity of a process; with the region of the brokers, for Amazon MSK.
fn workload_origin(aws_region: Option<&String>, tokens: &WorkloadTokens) -> Result<TokenOrigin, ReadError> {
    match (tokens, aws_region) {
        (WorkloadTokens::External { name }, _) => Ok(TokenOrigin::External { name: name.clone() }),
        (WorkloadTokens::OwnAws, Some(region)) => Ok(TokenOrigin::AwsMskIam {
            region: region.clone(),
        }),
        (WorkloadTokens::OwnAws, None) | (WorkloadTokens::None, _) => Err(ReadError::with_kind(
            "kafka.sasl needs the identity of a pod, which this process does not have; \
             fix: set passwordSecretRef or oauth.tokenEndpoint",
            ReadErrorKind::Unauthorized,
        )),
    }
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
        let settings = cluster_settings(&plan.kafka, &plan.id, secret, &WorkloadTokens::None).unwrap();
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
            sasl: Some(Sasl::Password(Password {
                mechanism: SaslMechanism::ScramSha512,
                username: text("<kafka-user/username>"),
                password: text("<kafka-user/password>"),
            })),
        };
        assert_eq!(settings, expected);
        assert!(!format!("{settings:?}").contains('<'));
    }

    #[test]
    fn a_missing_secret_key_is_named_with_the_fix() {
        let pool = from_yaml(include_str!("../../tests/pools/full.yaml")).unwrap();
        let plan = PoolPlan::from_pool(&pool).unwrap();
        let all_but_password = |key: &SecretKey| (key.key != "password").then(|| "text".to_owned());
        let none = WorkloadTokens::None;
        let refused = cluster_settings(&plan.kafka, &plan.id, all_but_password, &none).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("Secret media/kafka-user has no key password with text; fix: kubectl")
        );
    }

    /// The tokens of a pool with these SASL settings.
    fn token_settings(sasl: &str, tokens: &WorkloadTokens) -> Result<TokenSettings, ReadError> {
        let pool = format!(
            "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka: {{bootstrapServers: 'k:1', tls: {{}}, sasl: {sasl}}}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
"
        );
        let plan = PoolPlan::from_pool(&from_yaml(&pool).unwrap()).unwrap();
        let secret = |key: &SecretKey| Some(format!("<{}/{}>", key.secret, key.key));
        let settings = cluster_settings(&plan.kafka, &plan.id, secret, tokens)?;
        match settings.sasl {
            Some(Sasl::Token(tokens)) => Ok(tokens),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn client_credentials_are_read_from_secrets_and_extensions_are_sent() {
        let sasl = "{mechanism: OAUTHBEARER, oauth: {tokenEndpoint: 'https://login.example/token', \
                    clientID: songs, clientSecretRef: {name: client}, scope: kafka, \
                    trustedCertificateSecretRefs: [{name: a}, {name: b}], extensions: {logicalCluster: lkc-1}}}";
        let text = |text: &str| SecretText::from(text.to_owned());
        let expected = TokenSettings {
            origin: TokenOrigin::ClientCredentials(ClientCredentials {
                endpoint: "https://login.example/token".into(),
                client_id: text("songs"),
                client_secret: text("<client/clientSecret>"),
                scope: Some("kafka".into()),
                ca: Some(text("<a/ca.crt>\n<b/ca.crt>")),
            }),
            extensions: [("logicalCluster".to_owned(), "lkc-1".to_owned())].into(),
        };
        assert_eq!(token_settings(sasl, &WorkloadTokens::None), Ok(expected));
    }

    #[test]
    fn a_workload_identity_is_that_which_the_operator_may_use_and_never_another() {
        let aws = "{mechanism: AWS_MSK_IAM, aws: {region: eu-central-1}}";
        let account = "{mechanism: OAUTHBEARER, oauth: {serviceAccountToken: {audience: kafka}}}";
        let name = "media/default".to_owned();
        let external = WorkloadTokens::External { name: name.clone() };
        let region = "eu-central-1".to_owned();
        for (sasl, tokens, expected) in [
            (
                aws,
                WorkloadTokens::OwnAws,
                Some(TokenOrigin::AwsMskIam { region }),
            ),
            (
                aws,
                external.clone(),
                Some(TokenOrigin::External { name: name.clone() }),
            ),
            (aws, WorkloadTokens::None, None),
            (account, external, Some(TokenOrigin::External { name })),
            (account, WorkloadTokens::OwnAws, None),
            (account, WorkloadTokens::None, None),
        ] {
            let found = token_settings(sasl, &tokens).map(|tokens| tokens.origin);
            match expected {
                Some(expected) => assert_eq!(found, Ok(expected), "{sasl} {tokens:?}"),
                None => assert_eq!(found.unwrap_err().kind, ReadErrorKind::Unauthorized, "{sasl}"),
            }
        }
    }
}
