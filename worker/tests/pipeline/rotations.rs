//! Signing keys and tokens that are rotated while workers are connected and tasks arrive.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use separation_testbed::{Kafka, KafkaOptions, TokenServer, Worker, WorkerOptions, eventually};
use tokio::time::{Instant, interval, sleep_until};

use crate::rig::{Rig, STEP_TIMEOUT};

/// Number of rotations; five are enough for each run of the tests.
const ROTATIONS: &str = "SEPARATION_TEST_ROTATIONS";
/// Brokers require the next token on connections of this age.
const SESSION_MS: &str = "1500";
/// Of a token, from the endpoint or in the file: a worker fetches the next one after 80 %.
const LIFETIME: Duration = Duration::from_secs(4);
/// Time between two tokens in the file.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between rotations. A key is withdrawn at the second one after its own: by then no worker has a token of it.
const INTERVAL: Duration = Duration::from_millis(4_500);

fn rotations() -> usize {
    std::env::var(ROTATIONS).map_or(5, |rotations| rotations.parse().unwrap())
}

fn with_tokens(options: WorkerOptions, kafka: &Kafka) -> WorkerOptions {
    options
        .env("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_sasl_ssl())
        .env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
        .env("KAFKA_SSL_CA_LOCATION", kafka.security().ca())
        .env("KAFKA_SASL_MECHANISM", "OAUTHBEARER")
        .env("NO_PROXY", "127.0.0.1")
}

/// Replaces the file, as a kubelet does.
fn write_token(file: &Path, tokens: &TokenServer) {
    let token = tokens.issue(tokens.client_id(), TokenServer::AUDIENCE, LIFETIME);
    let new = file.with_extension("new");
    std::fs::write(&new, token.unwrap()).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn keep_fresh(file: &Path, tokens: &TokenServer) -> Infallible {
    let mut interval = interval(FILE_INTERVAL);
    loop {
        interval.tick().await;
        write_token(file, tokens);
    }
}

async fn wait_for_tasks(workers: &[&Worker], tasks: usize) {
    for worker in workers {
        worker
            .wait_for_logs("Offset committed successfully", tasks, STEP_TIMEOUT)
            .await
            .unwrap();
    }
}

/// Two workers, one with tokens from the endpoint and one with those in the file, process a task each after each
/// rotation.
async fn rotate_while_workers_run(rig: &Rig, tokens: &TokenServer, file: &Path) {
    let by_endpoint = with_tokens(rig.processor(), rig.kafka)
        .env("KAFKA_OAUTH_TOKEN_ENDPOINT", tokens.token_endpoint())
        .env("KAFKA_OAUTH_CA_LOCATION", tokens.ca_file())
        .env("KAFKA_OAUTH_CLIENT_ID", tokens.client_id())
        .env("KAFKA_OAUTH_CLIENT_SECRET", tokens.client_secret())
        .start()
        .unwrap();
    let by_file = with_tokens(rig.processor(), rig.kafka)
        .env("KAFKA_OAUTH_TOKEN_FILE", file)
        .start()
        .unwrap();
    let workers = [&by_endpoint, &by_file];
    eventually("a stable group of both workers", STEP_TIMEOUT, async || {
        let group = rig.kafka.group(&rig.site.processor_group).await?;
        anyhow::Ok(group.state == "Stable" && group.members.len() == workers.len())
    })
    .await;
    for rotation in 1..=rotations() {
        let next = Instant::now() + INTERVAL;
        tokens.rotate_keys().unwrap();
        rig.kafka.set_jwks(&tokens.jwks()).unwrap();
        sleep_until(next).await;
        for partition in 0..2 {
            rig.submit_to(partition, 1).await;
        }
        wait_for_tasks(&workers, rotation).await;
    }
    for worker in workers {
        worker.sigterm().unwrap();
        assert_eq!(worker.wait_exit(STEP_TIMEOUT).await.unwrap(), 0);
        let log = format!("{:?}", worker.log().unwrap());
        assert!(!log.contains(&tokens.client_secret()), "the secret is in the log");
    }
}

#[tokio::test]
async fn workers_continue_while_signing_keys_and_tokens_are_rotated() {
    let tokens = TokenServer::start().await.unwrap();
    tokens.set_lifetime(LIFETIME);
    let options = KafkaOptions {
        secure: true,
        oauth: Some(tokens.for_kafka()),
        settings: vec![("connections.max.reauth.ms".to_owned(), SESSION_MS.to_owned())],
        ..KafkaOptions::default()
    };
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start(options).await.unwrap()));
    let rig = Rig::on(kafka, 2).await;
    let file = rig.directory.join("token");
    write_token(&file, &tokens);
    tokio::select! {
        never = keep_fresh(&file, &tokens) => match never {},
        () = rotate_while_workers_run(&rig, &tokens, &file) => {}
    }
    let requests = tokens.requests();
    assert!(requests.len() > rotations(), "{requests:?}");
    kafka.kill_broker(0).await.unwrap();
}
