//! A pool that authenticates with tokens of its service account only: to Kafka directly, to S3 after an exchange for
//! temporary credentials.

use std::collections::BTreeSet;

use separation_scenarios::{Outcome, Pool, PoolOptions, System};
use separation_testbed::{AUTHORIZER, Cluster, ClusterOptions, ControlPlane, KafkaOauth, KafkaOptions};
use serde_json::{Value, json};

use crate::is_skipped;

const NAMESPACE: &str = "identity";
const ACCOUNT: &str = "vocals";
/// The subject of the account's tokens, which is its user at Kafka.
const SUBJECT: &str = "system:serviceaccount:identity:vocals";
/// The audience of tokens for Kafka.
const AUDIENCE: &str = "kafka";
const ROLE: &str = "arn:aws:iam::123456789012:role/stems";
/// Mount path of the token for AWS.
const AWS_TOKEN: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const CA: &str = "kafka-ca";
/// Brokers require the next token on connections of this age.
const REAUTHENTICATE_MS: &str = "10000";

fn options() -> ClusterOptions {
    let mut settings: Vec<_> = AUTHORIZER.into();
    settings.push(("connections.max.reauth.ms", REAUTHENTICATE_MS));
    let settings = settings.into_iter();
    ClusterOptions {
        kafka: KafkaOptions {
            secure: true,
            oauth: Some(KafkaOauth {
                issuer: ControlPlane::ISSUER.to_owned(),
                audience: AUDIENCE.to_owned(),
                // Known once the control plane runs.
                jwks: json!({"keys": []}).to_string(),
            }),
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ..KafkaOptions::default()
        },
        sts: true,
        ..ClusterOptions::default()
    }
}

/// Lets the brokers accept the account's tokens, for the pool's topics and groups only.
async fn trust_account(cluster: &Cluster) {
    let jwks = cluster.plane.jwks().await.unwrap();
    cluster.kafka.set_jwks(&jwks).unwrap();
    let user = format!("User:{SUBJECT}");
    let prefix = format!("{NAMESPACE}-");
    let acls = ["--add", "--allow-principal", &user, "--operation", "All"];
    let resources = ["--topic", &prefix, "--group", &prefix];
    let arguments = [
        &acls[..],
        &resources[..],
        &["--resource-pattern-type", "prefixed"],
    ]
    .concat();
    cluster.kafka.change_acls(&arguments).await.unwrap();
}

/// The namespace with the service account and, the only Secret, the brokers' CA certificate.
fn objects(cluster: &Cluster) -> [Value; 3] {
    let ca = std::fs::read_to_string(cluster.kafka.security().ca()).unwrap();
    let of_namespace = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": of_namespace(ACCOUNT)}),
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": of_namespace(CA),
            "stringData": {"ca.crt": ca},
        }),
    ]
}

/// The fields of a role's pods that EKS sets for an account with an AWS role.
fn aws_identity(cluster: &Cluster) -> Value {
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let token = json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}});
    json!({
        "serviceAccountName": ACCOUNT,
        "env": [
            variable("AWS_ROLE_ARN", ROLE),
            variable("AWS_WEB_IDENTITY_TOKEN_FILE", &format!("{AWS_TOKEN}/token")),
            variable("AWS_ENDPOINT_URL_STS", &cluster.sts.as_ref().unwrap().endpoint()),
        ],
        "podTemplate": {"spec": {
            "containers": [{
                "name": "worker",
                "volumeMounts": [{"name": "aws-token", "mountPath": AWS_TOKEN, "readOnly": true}],
            }],
            "volumes": [{"name": "aws-token", "projected": {"sources": [token]}}],
        }},
    })
}

fn pool_options(cluster: &Cluster) -> PoolOptions {
    let token = json!({"audience": AUDIENCE, "expirationSeconds": 600});
    PoolOptions {
        change: json!({
            "kafka": {
                "bootstrapServers": cluster.kafka.bootstrap_sasl_ssl(),
                "tls": {"trustedCertificateSecretRefs": [{"name": CA}]},
                "sasl": {"mechanism": "OAUTHBEARER", "oauth": {"serviceAccountToken": token}},
            },
            "storage": {"s3": {"credentialsSecretRef": null}},
            "processor": aws_identity(cluster),
            "uploader": aws_identity(cluster),
        }),
        ..PoolOptions::default()
    }
}

#[tokio::test]
async fn a_pool_without_a_static_secret_produces_stems() {
    if is_skipped() {
        return;
    }
    let system = System::without_release(options()).await.unwrap();
    let cluster = &system.cluster;
    trust_account(cluster).await;
    cluster.apply(&objects(cluster)).await.unwrap();
    let mut values = System::values();
    let identity = json!({
        "worker": {"allowInPodTemplate": ["service-account"]},
        "identity": {"serviceAccounts": [{"namespace": NAMESPACE, "name": ACCOUNT}]},
    });
    json_patch::merge(&mut values, &identity);
    system.release.install(cluster, &values).await.unwrap();

    let pool = Pool::create(&system, NAMESPACE, pool_options(cluster))
        .await
        .unwrap();
    let pods = cluster.watch_pods(NAMESPACE);
    let mut tasks = BTreeSet::new();
    for number in 0..4 {
        tasks.insert(pool.submit(2.0, number).await.unwrap());
    }
    pool.wait_for_all_webhooks(&tasks).await;
    pool.wait_until_no_pods(&pods).await;
    let outcome = Outcome::read(&pool, &tasks, &pods).await.unwrap();
    assert_eq!(outcome, Outcome::default(), "{}", pool.log_text());

    let assumed = cluster.sts.as_ref().unwrap().assumed();
    assert!(!assumed.is_empty());
    for role in &assumed {
        assert_eq!((&*role.role_arn, &*role.subject), (ROLE, SUBJECT));
    }
    let secrets = cluster
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"))
        .await
        .unwrap();
    let secrets = secrets["items"].as_array().unwrap().iter();
    let names: Vec<_> = secrets.map(|secret| &secret["metadata"]["name"]).collect();
    assert_eq!(names, [CA]);
}
