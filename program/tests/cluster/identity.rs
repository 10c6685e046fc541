//! The operator's identity at brokers of pools without a Kafka Secret: its own, only where its settings allow it, or tokens
//! of the pool's service account.

use std::fs;

use separation_operator::crd::SeparationPoolStatus;
use separation_testbed::{
    AUTHORIZER, AssumedRole, ControlPlane, Kafka, KafkaOauth, KafkaOptions, Release, Sts, eventually,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::adoption::condition_message;
use crate::manifests::{apply, system, user};
use crate::rig::{Rig, SOON, client, post};
use crate::subject::{OperatorProcess, PoolUnderTest};

/// Audience of the tokens that the brokers accept.
const AUDIENCE: &str = "kafka";

/// Brokers that verify tokens of the control plane's service accounts, and grant no permission by default.
async fn kafka(rig: &Rig) -> &'static Kafka {
    static STARTED: OnceCell<Kafka> = OnceCell::const_new();
    let started = STARTED.get_or_init(|| async {
        let oauth = KafkaOauth {
            issuer: ControlPlane::ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            jwks: rig.plane.jwks().await.expect("public keys"),
        };
        let settings = AUTHORIZER.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = KafkaOptions {
            secure: true,
            oauth: Some(oauth),
            settings: settings.into(),
            ..KafkaOptions::default()
        };
        Kafka::start(options).await.expect("Kafka")
    });
    started.await
}

/// Grants a service account all permissions for topics and groups.
async fn allow(kafka: &Kafka, account: &str) {
    let user = format!("User:{account}");
    let everything = ["--operation", "All", "--topic", "*", "--group", "*"];
    let allow = [&["--add", "--allow-principal", &user][..], &everything].concat();
    kafka.change_acls(&allow).await.expect("permissions");
}

/// Writes the Secret with the brokers' CA.
async fn write_ca(rig: &Rig, kafka: &Kafka) {
    let ca = fs::read_to_string(kafka.security().ca()).expect("a certificate");
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "kafka-ca", "namespace": rig.namespace},
        "stringData": {"ca.crt": ca},
    });
    apply(&rig.admin, &secret).await;
}

/// A service account of the pools.
fn account(rig: &Rig, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "vocals", "namespace": rig.namespace, "annotations": annotations},
    })
}

/// Grants what the chart grants for these values of `identity`.
async fn grant(rig: &Rig, identity: &Value) {
    let release = Release {
        namespace: system(&rig.namespace),
        ..Release::default()
    };
    let objects = release.render(&json!({"identity": identity})).expect("a chart");
    let mut granted = objects
        .iter()
        .filter(|object| object["metadata"]["name"] == "separation-operator-tokens")
        .peekable();
    assert!(granted.peek().is_some());
    for object in granted {
        apply(&rig.admin, object).await;
    }
}

/// A connection with this SASL authentication.
fn connection(servers: &str, sasl: &Value) -> Value {
    json!({
        "bootstrapServers": servers,
        "tls": {"trustedCertificateSecretRefs": [{"name": "kafka-ca"}]},
        "sasl": sasl,
    })
}

/// SASL with tokens of service accounts.
fn tokens() -> Value {
    json!({"mechanism": "OAUTHBEARER", "oauth": {"serviceAccountToken": {"audience": AUDIENCE}}})
}

/// Waits until the pool reports with this text that Kafka refuses the operator, and returns the message.
async fn until_refused(pool: &PoolUnderTest<'_>, part: &str) -> String {
    let message = |status: &SeparationPoolStatus| {
        let message = condition_message(status, "DependenciesAvailable", "False")?;
        message.contains(part).then(|| message.to_owned())
    };
    let status = pool
        .until_status(part, SOON, |status| message(status).is_some())
        .await;
    let mut conditions = status.conditions.iter();
    let refused = conditions.find(|found| found.type_ == "DependenciesAvailable");
    assert_eq!(refused.map(|found| &*found.reason), Some("KafkaRefused"));
    message(&status).expect("it is there")
}

/// Namespace and name of the service accounts whose tokens the operator has received.
fn received(rig: &Rig) -> Vec<(String, String)> {
    let requests = rig.plane.requests().expect("an audit log").into_iter();
    let ours = user(&rig.namespace);
    let mut received: Vec<_> = requests
        .filter(|request| request.user == ours && request.subresource == "token" && request.status == 201)
        .map(|request| (request.namespace, request.name))
        .collect();
    received.sort();
    received.dedup();
    received
}

#[tokio::test]
async fn a_pool_that_names_brokers_without_right_is_refused_and_their_own_pool_is_unaffected() {
    let rig = Rig::new().await;
    let kafka = kafka(&rig).await;
    write_ca(&rig, kafka).await;
    grant(&rig, &json!({"audiences": [AUDIENCE]})).await;
    allow(kafka, &user(&rig.namespace)).await;
    let victim = PoolUnderTest::on(&rig, kafka, "victim", 2).await;
    let servers = kafka.bootstrap_sasl_ssl();
    let own = json!({"kafka": connection(&servers, &tokens())});
    victim.apply(&own).await;
    let broker = format!("127.0.0.1@{}", rig.namespace);
    let arguments = ["--identity-brokers", &broker, "--identity-audiences", AUDIENCE];
    let operator = OperatorProcess::start_with(&rig, &arguments);
    victim.until_adopted().await;
    victim.publish_one_each(1).await;
    victim.until_replicas(1, SOON).await;

    // The same brokers by a name that is not allowed, and the other pool's topic and group.
    let intruder = PoolUnderTest::on(&rig, kafka, "intruder", 1).await;
    intruder
        .apply(&json!({
            "kafka": connection(&servers.replace("127.0.0.1", "localhost"), &tokens()),
            "processor": {"topic": victim.tasks(), "consumerGroup": victim.group()},
        }))
        .await;
    let refusal = format!(
        "the operator must not use its own identity for broker localhost and pools of namespace {}",
        rig.namespace
    );
    let message = until_refused(&intruder, &refusal).await;
    assert!(
        message.contains("fix: add the host to identity.allowedBrokers"),
        "{message}"
    );
    assert_eq!(intruder.deployment().await.spec.replicas, Some(0));

    victim.publish_one_each(2).await;
    victim.until_replicas(2, SOON).await;
    let status = victim.pools().get(&victim.name).await.expect("the victim").status;
    let status = status.expect("a status");
    assert_eq!(condition_message(&status, "GroupConflict", "True"), None);
    assert!(condition_message(&status, "Ready", "True").is_some());
    let expected = (system(&rig.namespace), "separation-operator".to_owned());
    assert_eq!(received(&rig), [expected]);
    operator.end().await;
}

#[tokio::test]
async fn the_operator_authenticates_with_tokens_of_the_named_service_account_only() {
    let rig = Rig::new().await;
    let kafka = kafka(&rig).await;
    write_ca(&rig, kafka).await;
    apply(&rig.admin, &account(&rig, &json!({}))).await;
    allow(kafka, &format!("system:serviceaccount:{}:vocals", rig.namespace)).await;
    let pool = pool_with_account(&rig, kafka, &tokens()).await;
    let named = format!("{}/vocals", rig.namespace);
    let arguments = token_arguments(&named);
    let operator = OperatorProcess::start_with(&rig, &arguments);
    let refusal = format!("the operator may not use service account {named}");
    let message = until_refused(&pool, &refusal).await;
    assert!(
        message.contains("fix: add it with identity.serviceAccounts"),
        "{message}"
    );

    let values = json!({"serviceAccounts": [{"namespace": rig.namespace, "name": "vocals"}]});
    grant(&rig, &values).await;
    pool.until_adopted().await;
    pool.publish_one_each(1).await;
    pool.until_replicas(1, SOON).await;
    assert_eq!(received(&rig), [(rig.namespace.clone(), "vocals".to_owned())]);
    operator.end().await;

    // The permission is for this name in this namespace.
    let granted = client(rig.plane, &rig.operator_token).await;
    for (namespace, name) in [
        (rig.namespace.clone(), "default"),
        (system(&rig.namespace), "separation-operator"),
    ] {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE]},
        });
        assert_eq!(post(path, &request).refused(&granted).await.code, 403);
    }
}

#[tokio::test]
async fn a_token_of_the_service_account_is_exchanged_for_its_aws_role() {
    let rig = Rig::new().await;
    // No MSK: these brokers refuse its tokens.
    let kafka = kafka(&rig).await;
    write_ca(&rig, kafka).await;
    apply(&rig.admin, &account(&rig, &json!({}))).await;
    let values = json!({"serviceAccounts": [{"namespace": rig.namespace, "name": "vocals"}]});
    grant(&rig, &values).await;
    let sts = Sts::start().await.expect("an STS");
    let jwks = rig.plane.jwks().await.expect("public keys");
    sts.set_jwks(&jwks).expect("it trusts the control plane");
    let sasl = json!({"mechanism": "AWS_MSK_IAM", "aws": {"region": "eu-central-1"}});
    let pool = pool_with_account(&rig, kafka, &sasl).await;
    let named = format!("{}/vocals", rig.namespace);
    let arguments = token_arguments(&named);
    let endpoint = sts.endpoint();
    let operator = OperatorProcess::start_in(&rig, &arguments, &[("AWS_ENDPOINT_URL_STS", &endpoint)]);
    let refusal = format!("service account {named} has no annotation eks.amazonaws.com/role-arn");
    until_refused(&pool, &refusal).await;

    let role = "arn:aws:iam::123456789012:role/vocals";
    let annotations = json!({"eks.amazonaws.com/role-arn": role});
    apply(&rig.admin, &account(&rig, &annotations)).await;
    let assumed = eventually("assumed role", SOON, async || sts.assumed().into_iter().next()).await;
    let expected = AssumedRole {
        role_arn: role.to_owned(),
        session_name: "separation-operator".to_owned(),
        subject: format!("system:serviceaccount:{named}").replace('/', ":"),
    };
    assert_eq!(assumed, expected);
    operator.end().await;
}

/// A pool whose processors have the service account `vocals`, and which authenticates like this.
async fn pool_with_account<'r>(rig: &'r Rig, kafka: &'r Kafka, sasl: &Value) -> PoolUnderTest<'r> {
    let pool = PoolUnderTest::on(rig, kafka, "vocals", 1).await;
    pool.apply(&json!({
        "kafka": connection(&kafka.bootstrap_sasl_ssl(), sasl),
        "processor": {"serviceAccountName": "vocals"},
    }))
    .await;
    pool
}

/// Arguments of an operator that requests tokens of this service account.
fn token_arguments(account: &str) -> [&str; 4] {
    [
        "--token-service-accounts",
        account,
        "--allow-in-pod-template",
        "service-account",
    ]
}
