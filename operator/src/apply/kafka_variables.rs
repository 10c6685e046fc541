//! Environment variables of the connection to Kafka, the same in all pods of a pool.

use k8s_openapi::api::core::v1::EnvVar;
use separation_contract::environment as env;

use super::layout::{CA_PATH, CLIENT_PATH, OAUTH_CA_PATH, TOKEN_FILE, TOKEN_PATH};
use super::variable::{plain, pod_name, secret};
use crate::names;
use crate::plan::{
    ClientCredentialsPlan, KafkaPlan, OauthSource, PasswordPlan, SaslPlan, SecretKey, TlsPlan, Username,
};

/// The variables of the connection. The pool's tag, if any, becomes part of the Kafka client id.
pub(super) fn connection(kafka: &KafkaPlan, pool_tag: Option<&str>) -> Vec<EnvVar> {
    let mut variables = vec![
        plain(env::KAFKA_BOOTSTRAP_SERVERS, &kafka.bootstrap_servers),
        plain(env::KAFKA_SECURITY_PROTOCOL, kafka.security_protocol()),
    ];
    variables.extend(client_id(pool_tag));
    variables.extend(kafka.tls.iter().flat_map(tls));
    if let Some(plan) = &kafka.sasl {
        variables.push(plain(env::KAFKA_SASL_MECHANISM, plan.mechanism().name()));
        variables.extend(sasl(plan));
    }
    if !kafka.idempotent_producer {
        variables.push(plain(env::KAFKA_ENABLE_IDEMPOTENCE, "false"));
    }
    variables
}

/// The Kafka client id, which identifies the group member. Kubernetes substitutes the pod's name, whose variable must
/// come first.
fn client_id(pool_tag: Option<&str>) -> Vec<EnvVar> {
    match pool_tag {
        Some(tag) => {
            let client_id = names::client_id(&format!("$({})", names::POD_NAME), tag);
            vec![pod_name(names::POD_NAME), plain(env::KAFKA_CLIENT_ID, client_id)]
        }
        None => vec![pod_name(env::KAFKA_CLIENT_ID)],
    }
}

fn tls(tls: &TlsPlan) -> Vec<EnvVar> {
    let mut variables = Vec::new();
    if !tls.cas.is_empty() {
        variables.push(plain(env::KAFKA_SSL_CA_LOCATION, CA_PATH));
    }
    if let Some(client) = &tls.client {
        let file = |name: &str, key: &SecretKey| plain(name, format!("{CLIENT_PATH}/{}", key.key));
        variables.push(file(env::KAFKA_SSL_CERTIFICATE_LOCATION, &client.certificate));
        variables.push(file(env::KAFKA_SSL_KEY_LOCATION, &client.private_key));
    }
    variables
}

/// Extensions of tokens are only for the operator: the workers' Kafka client cannot send them.
fn sasl(sasl: &SaslPlan) -> Vec<EnvVar> {
    match sasl {
        SaslPlan::Password(PasswordPlan {
            mechanism: _,
            username,
            password,
        }) => vec![
            text_or_secret(env::KAFKA_SASL_USERNAME, username),
            secret(env::KAFKA_SASL_PASSWORD, password),
        ],
        SaslPlan::Oauth(oauth) => match &oauth.source {
            OauthSource::ClientCredentials(client) => client_credentials(client),
            OauthSource::ServiceAccount(_) => {
                vec![plain(
                    env::KAFKA_OAUTH_TOKEN_FILE,
                    format!("{TOKEN_PATH}/{TOKEN_FILE}"),
                )]
            }
        },
        SaslPlan::AwsIam { region } => vec![plain(env::KAFKA_AWS_REGION, region)],
    }
}

fn client_credentials(client: &ClientCredentialsPlan) -> Vec<EnvVar> {
    let mut variables = vec![
        plain(env::KAFKA_OAUTH_TOKEN_ENDPOINT, &client.endpoint),
        text_or_secret(env::KAFKA_OAUTH_CLIENT_ID, &client.client_id),
        secret(env::KAFKA_OAUTH_CLIENT_SECRET, &client.client_secret),
    ];
    let scope = client.scope.as_ref();
    variables.extend(scope.map(|scope| plain(env::KAFKA_OAUTH_SCOPE, scope)));
    if !client.cas.is_empty() {
        variables.push(plain(env::KAFKA_OAUTH_CA_LOCATION, OAUTH_CA_PATH));
    }
    variables
}

fn text_or_secret(name: &str, value: &Username) -> EnvVar {
    match value {
        Username::Text(text) => plain(name, text),
        Username::Secret(key) => secret(name, key),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::crd::from_value;
    use crate::plan::PoolPlan;

    /// The variables of the credentials `sasl`; values from Secrets as `<SECRET/KEY>`.
    fn credentials(sasl: &Value) -> BTreeMap<String, String> {
        let pool = from_value(json!({
            "apiVersion": "separation.dev/v1beta1",
            "kind": "SeparationPool",
            "metadata": {"name": "vocals", "namespace": "media"},
            "spec": {
                "kafka": {"bootstrapServers": "SASL_SSL://k:1", "tls": {}, "sasl": sasl},
                "storage": {"stems": {"bucket": "stems"}, "staging": {"s3": {}}},
            },
        }));
        let plan = PoolPlan::from_pool(&pool.expect("a pool")).expect("a plan");
        let prefixes = ["KAFKA_SASL", "KAFKA_OAUTH", "KAFKA_AWS"];
        let variables = connection(&plan.kafka, None).into_iter();
        let of_credentials =
            variables.filter(|variable| prefixes.iter().any(|prefix| variable.name.starts_with(prefix)));
        let with_text = of_credentials.map(|variable| {
            let key = variable.value_from.and_then(|source| source.secret_key_ref);
            let key = key.map(|key| format!("<{}/{}>", key.name, key.key));
            (variable.name, variable.value.or(key).expect("a value"))
        });
        with_text.collect()
    }

    fn check(sasl: &Value, expected: &[(&str, &str)]) {
        let found = credentials(sasl);
        let found: Vec<_> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_mechanism_has_its_variables() {
        check(
            &json!({"username": "ann", "passwordSecretRef": {"name": "ann"}}),
            &[
                (env::KAFKA_SASL_MECHANISM, "SCRAM-SHA-512"),
                (env::KAFKA_SASL_PASSWORD, "<ann/password>"),
                (env::KAFKA_SASL_USERNAME, "ann"),
            ],
        );
        check(
            &json!({"mechanism": "OAUTHBEARER", "oauth": {
                "tokenEndpoint": "https://login.example/token",
                "clientIDSecretRef": {"name": "client"},
                "clientSecretRef": {"name": "client", "key": "password"},
                "scope": "songs",
                "trustedCertificateSecretRefs": [{"name": "ca"}],
                "extensions": {"logicalCluster": "lkc-1"},
            }}),
            &[
                (env::KAFKA_OAUTH_CA_LOCATION, OAUTH_CA_PATH),
                (env::KAFKA_OAUTH_CLIENT_ID, "<client/clientID>"),
                (env::KAFKA_OAUTH_CLIENT_SECRET, "<client/password>"),
                (env::KAFKA_OAUTH_SCOPE, "songs"),
                (env::KAFKA_OAUTH_TOKEN_ENDPOINT, "https://login.example/token"),
                (env::KAFKA_SASL_MECHANISM, "OAUTHBEARER"),
            ],
        );
        check(
            &json!({"mechanism": "OAUTHBEARER", "oauth": {"serviceAccountToken": {"audience": "kafka"}}}),
            &[
                (env::KAFKA_OAUTH_TOKEN_FILE, "/etc/separation/kafka-token/token"),
                (env::KAFKA_SASL_MECHANISM, "OAUTHBEARER"),
            ],
        );
        check(
            &json!({"mechanism": "AWS_MSK_IAM", "aws": {"region": "eu-central-1"}}),
            &[
                (env::KAFKA_AWS_REGION, "eu-central-1"),
                (env::KAFKA_SASL_MECHANISM, "AWS_MSK_IAM"),
            ],
        );
    }
}
