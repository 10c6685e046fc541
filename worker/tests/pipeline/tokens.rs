//! Brokers that accept tokens (OAUTHBEARER), which they verify themselves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use separation_contract::environment as env;
use separation_testbed::{Kafka, KafkaOptions, TokenServer, Worker, WorkerOptions, eventually};

use crate::refusals::{ready, reports};
use crate::rig::{Rig, STEP_TIMEOUT, WORKER, held_at};

/// Lifetime of tokens that a test outlives.
const SHORT: Duration = Duration::from_secs(5);

/// Lifetime of tokens that outlive each test.
const LONG: Duration = Duration::from_secs(3600);

const COMMITTED: &str = "Offset committed successfully";

/// Brokers for one test that accept the tokens of `server`, and close connections of clients that do not authenticate
/// again within 3 s or before their token expires.
async fn brokers(server: &TokenServer) -> &'static Kafka {
    let settings = [
        ("connections.max.reauth.ms", "3000"),
        ("sasl.oauthbearer.clock.skew.seconds", "0"),
    ];
    let options = KafkaOptions {
        secure: true,
        oauth: Some(server.for_kafka()),
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..KafkaOptions::default()
    };
    Box::leak(Box::new(Kafka::start(options).await.unwrap()))
}

/// Variables of a client that gets tokens from `server`, over TLS.
fn by_endpoint(kafka: &Kafka, server: &TokenServer) -> Vec<(String, String)> {
    let path = |path: &Path| path.display().to_string();
    [
        (env::KAFKA_BOOTSTRAP_SERVERS, kafka.bootstrap_sasl_ssl()),
        (env::KAFKA_SSL_CA_LOCATION, path(kafka.security().ca())),
        (env::KAFKA_SASL_MECHANISM, "OAUTHBEARER".to_owned()),
        (env::KAFKA_OAUTH_TOKEN_ENDPOINT, server.token_endpoint()),
        (env::KAFKA_OAUTH_CLIENT_ID, server.client_id().to_owned()),
        (env::KAFKA_OAUTH_CLIENT_SECRET, server.client_secret()),
        (env::KAFKA_OAUTH_CA_LOCATION, path(server.ca_file())),
        ("NO_PROXY", "127.0.0.1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Variables of a client that reads its token from a file, without TLS.
fn by_file(kafka: &Kafka, file: &Path) -> Vec<(String, String)> {
    [
        (env::KAFKA_BOOTSTRAP_SERVERS, kafka.bootstrap_sasl_plaintext()),
        (env::KAFKA_SECURITY_PROTOCOL, "SASL_PLAINTEXT".to_owned()),
        (env::KAFKA_SASL_MECHANISM, "OAUTHBEARER".to_owned()),
        (env::KAFKA_OAUTH_TOKEN_FILE, file.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A file with a token for `audience`.
fn token_file(rig: &Rig, server: &TokenServer, audience: &str) -> PathBuf {
    let file = rig.directory.path().join("token");
    std::fs::write(&file, server.issue("songs", audience, LONG).unwrap()).unwrap();
    file
}

/// A further task of this worker is committed.
async fn check_processes_a_task(rig: &Rig, worker: &Worker) {
    let before = worker.messages().unwrap();
    let before = before.iter().filter(|message| *message == COMMITTED).count();
    rig.submit(1).await;
    worker
        .wait_for_logs(COMMITTED, before + 1, STEP_TIMEOUT)
        .await
        .unwrap();
}

async fn check_drains(worker: &Worker) {
    worker.sigterm().unwrap();
    assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
}

/// Runs a command of the worker's program with these variables; it must succeed.
async fn check_succeeds(rig: &Rig, arguments: &[&str], variables: &[(String, String)]) {
    let mut command = Command::new(WORKER);
    command
        .args(arguments)
        .envs(rig.site.environment())
        .envs(variables.iter().cloned());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
}

#[tokio::test]
async fn workers_and_commands_use_tokens_of_an_endpoint_and_of_a_file() {
    let server = TokenServer::start().await.unwrap();
    let kafka = brokers(&server).await;
    let rig = Rig::on(kafka, 1).await;
    let file = token_file(&rig, &server, TokenServer::AUDIENCE);
    for (number, variables) in [by_endpoint(kafka, &server), by_file(kafka, &file)]
        .iter()
        .enumerate()
    {
        let letters = format!("letters-{number}-{}", rig.site.tag);
        let before = server.requests().len();
        let options = rig.processor().envs(variables.clone());
        let worker = options
            .env(env::KAFKA_DEAD_LETTER_TOPIC, &letters)
            .start()
            .unwrap();
        let created = worker.wait_for_log("Created topic", STEP_TIMEOUT).await.unwrap();
        assert_eq!(created.fields["topic"], letters, "{created:?}");
        check_processes_a_task(&rig, &worker).await;
        check_drains(&worker).await;
        let requests = server.requests().len() - before;
        assert!(requests <= 1, "the clients of a worker share a token: {requests}");
        let log = format!("{:?}", worker.log().unwrap());
        assert!(!log.contains(&server.client_secret()), "the secret is in the log");
        check_succeeds(&rig, &["lag"], variables).await;
        check_succeeds(&rig, &["dead-letters", "list"], variables).await;
    }
    kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn tokens_and_sessions_that_expire_cost_no_task() {
    let server = TokenServer::start().await.unwrap();
    server.set_lifetime(SHORT);
    let kafka = brokers(&server).await;
    let rig = Rig::on(kafka, 2).await;
    let tasks = rig.submit_many(20).await;
    let worker = rig
        .processor()
        .envs(by_endpoint(kafka, &server))
        .env("SEPARATION_HOLD", "separated")
        .env("SEPARATION_HOLD_MS", "1000")
        .start()
        .unwrap();
    rig.tasks_committed().await;
    // 20 s of tasks, and one token for each 5 s.
    assert!(server.requests().len() >= 4, "{:?}", server.requests());
    assert!(server.requests().iter().all(|request| request.is_accepted));
    rig.check_results(&tasks).await;
    rig.no_dead_letters().await;
    check_drains(&worker).await;
    kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_token_reports_why_and_works_once_its_endpoint_issues_one() {
    let server = TokenServer::start().await.unwrap();
    server.refuse_with("invalid_client", "the client was disabled");
    let kafka = brokers(&server).await;
    let rig = Rig::on(kafka, 1).await;
    let worker = rig.processor().envs(by_endpoint(kafka, &server)).start().unwrap();
    let refused = worker
        .wait_for_log("This worker has no token", STEP_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(refused.level, "ERROR");
    let fields = refused.fields.to_string();
    assert!(fields.contains("the client was disabled"), "{fields}");
    reports(&worker, "kafka:58").await;
    server.accept();
    check_processes_a_task(&rig, &worker).await;
    eventually("the refusal is over", STEP_TIMEOUT, async || {
        !ready(&worker).await.contains("held")
    })
    .await;
    check_drains(&worker).await;
    kafka.kill_broker(0).await.unwrap();
}

#[tokio::test]
async fn a_task_is_held_while_brokers_refuse_the_token_and_continues_with_a_good_one() {
    let server = TokenServer::start().await.unwrap();
    let kafka = brokers(&server).await;
    let rig = Rig::on(kafka, 1).await;
    let hold = rig.hold();
    let file = token_file(&rig, &server, TokenServer::AUDIENCE);
    let options: WorkerOptions = rig.processor().envs(by_file(kafka, &file));
    let worker = held_at(options, "separated", &hold).start().unwrap();
    let tasks = [rig.submit(1).await].into();
    worker.wait_for_log("Held", STEP_TIMEOUT).await.unwrap();

    // After two rotations, the key that signed the worker's token is unknown.
    let known = server.jwks();
    server.rotate_keys().unwrap();
    server.rotate_keys().unwrap();
    kafka.set_jwks(&server.jwks()).unwrap();
    let refused = worker
        .wait_for_log("Kafka refuses this worker", STEP_TIMEOUT)
        .await
        .unwrap();
    assert!(
        refused.fields.to_string().contains("uthentication"),
        "{refused:?}"
    );
    reports(&worker, "kafka:58").await;
    std::fs::remove_file(&hold).unwrap();
    kafka.set_jwks(&known).unwrap();
    rig.tasks_committed().await;
    rig.check_results(&tasks).await;

    // The next token is valid for an hour, but not for these brokers.
    kafka.set_jwks(&server.jwks()).unwrap();
    token_file(&rig, &server, "another-service");
    drop(worker);
    let worker = rig.processor().envs(by_file(kafka, &file)).start().unwrap();
    reports(&worker, "kafka:58").await;
    token_file(&rig, &server, TokenServer::AUDIENCE);
    check_processes_a_task(&rig, &worker).await;
    rig.no_dead_letters().await;
    kafka.kill_broker(0).await.unwrap();
}
