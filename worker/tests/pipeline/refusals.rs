//! Brokers that refuse a worker: the message is kept, the refusal is reported, and work continues when it ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use separation_contract::environment as env;
use separation_contract::offset_metadata::OffsetMetadata;
use separation_testbed::{AUTHORIZER, Kafka, KafkaOptions, Record, Worker, WorkerOptions, eventually};

use crate::rig::{Rig, STEP_TIMEOUT, admin, ask, held_at, print_resumed, refusal_duration};

/// Time within which a task continues after a refusal has ended.
const RESUMES: Duration = Duration::from_secs(30);

/// Brokers for one test only, with SCRAM authentication.
pub(crate) async fn brokers(settings: &[(&str, &str)]) -> &'static Kafka {
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = KafkaOptions {
        secure: true,
        settings: settings.collect(),
        ..KafkaOptions::default()
    };
    Box::leak(Box::new(Kafka::start(options).await.unwrap()))
}

/// A worker that authenticates with this password.
pub(crate) fn authenticates(rig: &Rig, options: WorkerOptions, password: &str) -> WorkerOptions {
    options
        .env("KAFKA_BOOTSTRAP_SERVERS", rig.kafka.bootstrap_sasl_plaintext())
        .env("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        .env("KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
        .env("KAFKA_SASL_USERNAME", rig.kafka.security().username())
        .env("KAFKA_SASL_PASSWORD", password)
}

/// The body of a worker's `/ready`.
pub(crate) async fn ready(worker: &Worker) -> String {
    ask(admin(worker).await, "/ready").await.unwrap().1
}

/// Waits until a worker reports that `dependency` refuses it.
pub(crate) async fn reports(worker: &Worker, dependency: &str) {
    eventually("the refusal in /ready", STEP_TIMEOUT, async || {
        ready(worker)
            .await
            .contains(&format!("held: {dependency} refuses this worker"))
    })
    .await;
}

#[tokio::test]
async fn a_worker_with_an_old_password_exits_once_and_one_that_was_never_accepted_keeps_trying() {
    // Brokers close connections of clients that do not reauthenticate within this time.
    let kafka = brokers(&[("connections.max.reauth.ms", "3000")]).await;
    let rig = Rig::on(kafka, 1).await;
    let old = kafka.security().password();
    let start = |password: &str| {
        authenticates(&rig, rig.processor(), password)
            .env("SEPARATION_REFUSED_LIMIT_MS", "4000")
            .env("SEPARATION_LEAST_UPTIME_MS", "0")
            .start()
            .unwrap()
    };
    let accepted = start(old);
    rig.submit(1).await;
    accepted
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    kafka.set_password("another-password").await.unwrap();
    reports(&accepted, "kafka:58").await;
    assert_eq!(accepted.wait_exit(STEP_TIMEOUT).await.unwrap(), 1);
    let last = accepted.log_end();
    assert!(last.contains("has refused it for"), "{last}");

    let never = start(old);
    let current = start("another-password");
    let task = rig.submit(2).await;
    let done = current
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(done.fields["task_uuid"], task);
    current.sigterm().unwrap();
    assert_eq!(current.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
    reports(&never, "kafka:58").await;
    assert!(
        never.wait_exit(Duration::from_secs(8)).await.is_err(),
        "it keeps trying"
    );
    kafka.set_password(old).await.unwrap();
    rig.submit(3).await;
    never
        .wait_for_log("Offset committed successfully", RESUMES)
        .await
        .unwrap();
    assert!(!ready(&never).await.contains("held"), "the refusal is over");
    kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_forbidden_result_topic_holds_the_task_until_it_is_allowed() {
    let kafka = brokers(&AUTHORIZER).await;
    let rig = Rig::on(kafka, 1).await;
    let (site, user) = (&rig.site, format!("User:{}", kafka.security().username()));
    let allow = ["--add", "--allow-principal", &user, "--operation"];
    let reading = [&allow[..], &["Read", "--topic", &site.task_topic, "--group", "*"]].concat();
    kafka.change_acls(&reading).await.unwrap();
    let hold = rig.hold();
    let password = kafka.security().password();
    let options = authenticates(&rig, rig.processor(), password).env(env::MAX_ATTEMPTS, "1");
    let worker = held_at(options, "separated", &hold).start().unwrap();
    let tasks = [rig.submit(1).await].into();
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    std::fs::remove_file(&hold).unwrap();
    eventually(
        "the refusal in the record and in /ready",
        STEP_TIMEOUT,
        async || {
            let lag = kafka.lag(&site.processor_group, &site.task_topic).await?;
            let record = OffsetMetadata::parse(&lag[0].metadata);
            // An attempt does not count while it is on hold.
            let held = record.held.is_some() && record.attempt == 0;
            anyhow::Ok(held && ready(&worker).await.contains("held: kafka:"))
        },
    )
    .await;
    let writing = [&allow[..], &["Write", "--topic", &site.result_topic]].concat();
    kafka.change_acls(&writing).await.unwrap();
    worker
        .wait_for_log("Offset committed successfully", RESUMES)
        .await
        .unwrap();
    rig.check_results(&tasks).await;
    assert!(!ready(&worker).await.contains("held"));
    kafka.kill_broker(0).await.unwrap();
}

/// Waits for the duration of a refusal. A worker that exits because it was refused for too long is restarted, as the
/// kubelet does.
async fn keep_running(worker: &mut Worker, start: impl Fn() -> Worker) {
    let begun = Instant::now();
    let left = || refusal_duration().saturating_sub(begun.elapsed());
    while worker.wait_exit(left()).await.is_ok() {
        let long = Duration::from_secs(120);
        assert!(
            begun.elapsed() >= long,
            "a worker exited after {:?}",
            begun.elapsed()
        );
        *worker = start();
    }
}

/// Waits until another task is committed; returns how long that took.
async fn time_to_next_commit(rig: &Rig, within: Duration) -> Duration {
    let begun = Instant::now();
    let (group, topic) = (&rig.site.processor_group, &rig.site.task_topic);
    let before = rig.kafka.total_lag(group, topic).await.unwrap();
    eventually("a task committed", within, async || {
        anyhow::Ok(rig.kafka.total_lag(group, topic).await? < before)
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn refusals_by_kafka_during_100_tasks_fail_none() {
    let settings = [&AUTHORIZER[..], &[("connections.max.reauth.ms", "3000")]].concat();
    let kafka = brokers(&settings).await;
    let rig = Rig::on(kafka, 4).await;
    let (site, user) = (&rig.site, format!("User:{}", kafka.security().username()));
    let principal = ["--allow-principal", &user, "--operation"];
    let reading = ["Read", "--topic", &site.task_topic, "--group", "*"];
    let writing = ["Write", "--topic", &site.result_topic];
    for permissions in [&reading[..], &writing[..]] {
        kafka
            .change_acls(&[&["--add"], &principal[..], permissions].concat())
            .await
            .unwrap();
    }
    let password = kafka.security().password();
    let processor = || {
        authenticates(&rig, rig.processor(), password)
            .env("SEPARATION_HOLD", "separated")
            .env("SEPARATION_HOLD_MS", "700")
            .start()
            .unwrap()
    };
    let mut workers = [processor(), processor()];
    let tasks = rig.submit_many(100).await;
    time_to_next_commit(&rig, STEP_TIMEOUT).await;

    let revoke_write = [&["--remove", "--force"], &principal[..], &writing].concat();
    kafka.change_acls(&revoke_write).await.unwrap();
    reports(&workers[0], "kafka:29").await;
    let [one, other] = &mut workers;
    tokio::join!(keep_running(one, processor), keep_running(other, processor));
    kafka
        .change_acls(&[&["--add"], &principal[..], &writing].concat())
        .await
        .unwrap();
    print_resumed(
        "a forbidden result topic",
        time_to_next_commit(&rig, RESUMES).await,
    );

    kafka.set_password("another-password").await.unwrap();
    reports(&workers[0], "kafka:58").await;
    let [one, other] = &mut workers;
    tokio::join!(keep_running(one, processor), keep_running(other, processor));
    kafka.set_password(password).await.unwrap();
    print_resumed("another Kafka password", time_to_next_commit(&rig, RESUMES).await);

    rig.tasks_committed().await;
    let results = kafka.consume_all(&site.result_topic).await.unwrap();
    let succeeded: BTreeSet<_> = results
        .iter()
        .filter(|result| result.json()["success"] == true)
        .map(Record::key_text)
        .collect();
    assert_eq!(succeeded, tasks);
    // A result that was published before its worker lost the partition may be published again, but never as a failure.
    assert!(results.iter().all(|result| result.json()["success"] == true));
    rig.no_dead_letters().await;
    kafka.kill_broker(0).await.unwrap();
}

/// A topic is deleted during a task, which ends before or after the client has noticed.
async fn topic_deleted(assignor: &str, noticed: bool) {
    let rig = Rig::new(1).await;
    let hold = rig.hold();
    let options = rig.processor().env(env::KAFKA_ASSIGNOR, assignor);
    let worker = held_at(options, "separated", &hold).start().unwrap();
    rig.submit(1).await;
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();
    rig.kafka.delete_topic(&rig.site.task_topic).await.unwrap();
    if noticed {
        eventually("the client notices", STEP_TIMEOUT, async || {
            let log = worker.log().unwrap();
            log.iter()
                .any(|line| line.fields.to_string().contains("topic not available"))
        })
        .await;
    }
    std::fs::remove_file(&hold).unwrap();
    let ended = if noticed {
        "The message's partition is no longer assigned"
    } else {
        "The topic was deleted while its message was processed"
    };
    worker.wait_for_log(ended, RESUMES).await.unwrap();
    rig.kafka.create_topic(&rig.site.task_topic, 1).await.unwrap();
    let task = rig.submit(2).await;
    let done = worker
        .wait_for_log("Offset committed successfully", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(done.fields["task_uuid"], task);
}

#[tokio::test]
async fn a_topic_deleted_during_a_task_is_reported_and_the_recreated_one_processed() {
    tokio::join!(
        topic_deleted("range", false),
        topic_deleted("range", true),
        topic_deleted("cooperative-sticky", false),
        topic_deleted("cooperative-sticky", true),
    );
}
