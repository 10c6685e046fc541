//! Which rights a Kafka user lacks, as the brokers report them.

use std::sync::Arc;
use std::time::Duration;

use separation_contract::check::{CheckResult, Finding};
use separation_contract::kafka::SaslMechanism;
use separation_kafka::{
    Cluster, ClusterSettings, Deadline, NeededTopic, Operation, Password, Sasl, check_access,
};
use separation_testbed::{AUTHORIZER, Kafka, KafkaOptions, eventually};

/// Generous for a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

async fn findings(kafka: &Kafka, password: &str) -> Vec<Finding> {
    let security = kafka.security();
    let servers = kafka.bootstrap_sasl_plaintext();
    let settings = ClusterSettings {
        client_id: "check".to_owned(),
        bootstrap_servers: servers.clone(),
        tls: None,
        sasl: Some(Sasl::Password(Password {
            mechanism: SaslMechanism::ScramSha512,
            username: security.username().to_owned().into(),
            password: password.to_owned().into(),
        })),
    };
    let cluster = Cluster::new(&settings).expect("a cluster");
    let topic = |name, operations, consumers| NeededTopic {
        name,
        operations,
        consumers,
        if_missing: CheckResult::Warning,
    };
    let topics = [
        topic("songs", &[Operation::Read, Operation::Write][..], 3),
        topic("absent", &[Operation::Write][..], 1),
    ];
    let groups = [Arc::from("separators")];
    let found = check_access(&cluster, &servers, &topics, &groups, &Deadline::after(LIMIT)).await;
    found.unwrap_or_else(|why| vec![Finding::problem("kafka", why.to_string())])
}

/// The findings, once the rights have this result and text: brokers apply ACLs a moment after they were changed.
async fn reported(kafka: &Kafka, result: CheckResult, text: &str) -> Vec<Finding> {
    eventually(&format!("rights with {text}"), LIMIT, async || {
        let found = findings(kafka, kafka.security().password()).await;
        let is_reported = found.iter().any(|finding| {
            finding.check == "rights" && finding.result == result && finding.message.contains(text)
        });
        anyhow::ensure!(is_reported, "{found:?}");
        anyhow::Ok(Some(found))
    })
    .await
}

/// The finding of a check.
fn one<'f>(findings: &'f [Finding], check: &str, result: CheckResult) -> &'f Finding {
    let mut found = findings.iter();
    let found = found.find(|finding| finding.check == check && finding.result == result);
    found.unwrap_or_else(|| panic!("no {check} with {result:?} in {findings:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_a_user_lacks_are_named_without_an_attempt_to_use_them() {
    let settings = AUTHORIZER.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = KafkaOptions {
        secure: true,
        settings: settings.into(),
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(options).await.expect("Kafka");
    kafka.create_topic("songs", 2).await.expect("a topic");
    let user = format!("User:{}", kafka.security().username());
    let allow = ["--add", "--allow-principal", &user, "--operation"];
    let describe = ["Describe", "--topic", "*", "--group", "*"];
    kafka
        .change_acls(&[&allow[..], &describe].concat())
        .await
        .expect("the right to describe");
    let lacking = "Read on topic songs, Write on topic songs, Read on group separators";
    let found = reported(&kafka, CheckResult::Problem, lacking).await;
    one(&found, "kafka", CheckResult::Ok);
    let missing = found
        .iter()
        .find(|finding| finding.message.contains("topic absent"));
    assert_eq!(missing.map(|finding| finding.result), Some(CheckResult::Warning));
    let partitions = found
        .iter()
        .find(|finding| finding.message.contains("topic songs has 2"));
    let fix = partitions.and_then(|finding| finding.fix.as_deref());
    assert_eq!(fix, Some("add partitions, or lower maxReplicas"));

    for right in [
        &["Read", "--topic", "*", "--group", "*"][..],
        &["Write", "--topic", "*"],
    ] {
        let allow = [&allow[..], right].concat();
        kafka.change_acls(&allow).await.expect("a right");
    }
    reported(&kafka, CheckResult::Ok, "group separators").await;

    let refused = findings(&kafka, "wrong").await;
    let [refused] = &refused[..] else {
        panic!("{refused:?}")
    };
    assert_eq!(
        refused
            .fix
            .as_deref()
            .map(|fix| fix.contains("check username and password")),
        Some(true)
    );
}
