//! Kafka with TLS and SASL authentication.

use std::fs;
use std::time::Duration;

use separation_kafka::ClusterSettings;
use separation_operator::crd::from_yaml;
use separation_operator::decide::Lag;
use separation_operator::observe::{WorkloadTokens, cluster_settings};
use separation_operator::plan::{PoolPlan, SecretKey};
use separation_testbed::{Kafka, KafkaOptions, Security, eventually};

use crate::reading::{DEADLINE, Reading, known, publish, query};

fn pool(servers: &str, tls: &str, sasl: &str) -> PoolPlan {
    let text = format!(
        "
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {{name: vocals, namespace: media}}
spec:
  kafka:
    bootstrapServers: '{servers}'
    {tls}
    {sasl}
  storage: {{stems: {{bucket: stems}}, staging: {{s3: {{}}}}}}
"
    );
    PoolPlan::from_pool(&from_yaml(&text).expect("a pool")).expect("a plan")
}

fn settings(plan: &PoolPlan, security: &Security, password: &str) -> ClusterSettings {
    let file = |path: &std::path::Path| fs::read_to_string(path).ok();
    let secret = |key: &SecretKey| match key.key.as_str() {
        "ca.crt" => file(security.ca()),
        "tls.crt" | "user.crt" => file(security.client_certificate()),
        "tls.key" | "user.key" => file(security.client_key()),
        "username" => Some(security.username().to_owned()),
        "password" => Some(password.to_owned()),
        _ => None,
    };
    cluster_settings(&plan.kafka, &plan.id, secret, &WorkloadTokens::None).expect("settings")
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_read_over_tls_and_with_every_mechanism_and_is_unknown_with_a_wrong_password() {
    let options = KafkaOptions {
        secure: true,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.unwrap();
    kafka.create_topic("authentication", 1).await.unwrap();
    publish(&kafka, "authentication", 0, 3).await;
    let security = kafka.security();
    let tls = "tls: {trustedCertificateSecretRefs: [{name: ca}], clientCertificateSecretRef: {name: client}}";
    let ca = "tls: {trustedCertificateSecretRefs: [{name: ca}]}";
    let two_cas = "tls: {trustedCertificateSecretRefs: [{name: next-ca}, {name: ca}]}";
    let sasl = |mechanism: &str| {
        let user = "usernameSecretRef: {name: user}, passwordSecretRef: {name: user}";
        format!("sasl: {{mechanism: {mechanism}, {user}}}")
    };
    let username = security.username();
    // As with the Secrets of KafkaUsers of Strimzi.
    let user_tls = "tls: {trustedCertificateSecretRefs: [{name: ca}], clientCertificateSecretRef: \
                    {name: user, certificateKey: user.crt, privateKeyKey: user.key}}";
    let password_only = format!("sasl: {{username: {username}, passwordSecretRef: {{name: user}}}}");
    for (servers, tls, sasl) in [
        (kafka.bootstrap_ssl(), tls, String::new()),
        (
            format!("SSL://{}", kafka.bootstrap_ssl()),
            user_tls,
            String::new(),
        ),
        (kafka.bootstrap_sasl_ssl(), ca, sasl("SCRAM-SHA-512")),
        (kafka.bootstrap_sasl_ssl(), ca, sasl("SCRAM-SHA-256")),
        (kafka.bootstrap_sasl_ssl(), ca, sasl("PLAIN")),
        (kafka.bootstrap_sasl_ssl(), two_cas, password_only),
        (kafka.bootstrap_sasl_plaintext(), "", sasl("SCRAM-SHA-512")),
    ] {
        let plan = pool(&servers, tls, &sasl);
        let mut reading = Reading::with(&settings(&plan, security, security.password()));
        eventually(&format!("lag with {tls} {sasl}"), DEADLINE, async || {
            reading.read(&query("authentication")).await.lag.lag == known([3])
        })
        .await;
    }
    let plan = pool(&kafka.bootstrap_sasl_ssl(), ca, &sasl("SCRAM-SHA-512"));
    let mut reading = Reading::with(&settings(&plan, security, "wrong"));
    let found = reading
        .read_within(&[query("authentication")], Duration::from_secs(2))
        .await;
    let Lag::Unknown { why } = &found[0].lag.lag else {
        panic!("{found:?}")
    };
    assert!(
        why.contains("rejected authentication with SCRAM-SHA-512")
            && why.contains("fix: check username and password"),
        "{why}"
    );
}
