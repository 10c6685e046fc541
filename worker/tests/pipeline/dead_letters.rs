//! `separation-worker dead-letters` on real brokers.

use std::process::{Command, Output};

use separation_contract::message::MAX_MESSAGE_BYTES;
use separation_contract::names::{self, dead_letter_topic};
use separation_testbed::Record;
use separation_worker::kafka::TopicReader;
use separation_worker::settings::KafkaSettings;
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT, WORKER};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Runs `dead-letters` as a user of this site does.
async fn dead_letters(rig: &Rig, arguments: &[&str]) -> Output {
    let mut command = Command::new(WORKER);
    command
        .arg("dead-letters")
        .args(arguments)
        .envs(rig.site.environment());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[track_caller]
fn check_exit(output: &Output, code: i32, error: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(error), "{error:?} is not in: {errors}");
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn records(rig: &Rig, topic: &str) -> Vec<Record> {
    rig.kafka.consume_all(topic).await.unwrap()
}

#[tokio::test]
async fn a_dead_letter_is_listed_shown_and_published_again() {
    let rig = Rig::new(1).await;
    let (topic, letters) = (&rig.site.task_topic, dead_letter_topic(&rig.site.task_topic));
    let processor = rig.processor().start().unwrap();
    let headers = [("traceparent", TRACE)];
    rig.kafka
        .publish(topic, "a-task", "no task", &headers)
        .await
        .unwrap();
    rig.tasks_committed().await;
    processor.sigterm().unwrap();
    processor.wait_exit(STEP_TIMEOUT).await.unwrap();

    let listed = lines(&dead_letters(&rig, &["list", "--json"]).await);
    let [row] = listed.as_slice() else {
        panic!("one dead letter, not {listed:?}");
    };
    assert_eq!(
        (&row["position"], &row["task_uuid"]),
        (&json!("0@0"), &json!("a-task"))
    );
    assert_eq!(
        (&row["topic"], &row["topic_position"]),
        (&json!(topic), &json!("0@0"))
    );
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.contains("not JSON"), "{reason}");
    let table = String::from_utf8(dead_letters(&rig, &["list"]).await.stdout).unwrap();
    assert!(table.starts_with("POSITION") && table.contains(reason), "{table}");
    let shown = lines(&dead_letters(&rig, &["show", "0@0", "--json"]).await);
    assert_eq!(shown[0]["value"], "no task");
    assert_eq!(shown[0]["headers"][names::DEAD_LETTER_TOPIC], json!(topic));

    let dry = dead_letters(&rig, &["replay", "0@0", "--dry-run"]).await;
    check_exit(&dry, 0, "nothing was published");
    assert_eq!(records(&rig, topic).await.len(), 1);
    let replayed = dead_letters(&rig, &["replay", "--task", "a-task", "--json"]).await;
    check_exit(&replayed, 0, "1 published");
    assert_eq!(lines(&replayed)[0]["published_at"], "0@1");
    let published = records(&rig, topic).await.pop().unwrap();
    assert_eq!(
        (published.key_text().as_str(), published.text().as_str()),
        ("a-task", "no task")
    );
    let trace = published.header("traceparent").unwrap();
    assert_eq!(trace.split('-').nth(1), TRACE.split('-').nth(1), "{trace}");
    assert_eq!(records(&rig, &letters).await.len(), 1, "the dead letter stays");

    let lag = rig.kafka.lag(&rig.site.processor_group, &letters).await.unwrap();
    assert_eq!(lag[0].committed, None, "nothing is committed for the group");
}

#[tokio::test]
async fn a_dead_letter_that_is_not_complete_is_refused_and_the_others_are_published() {
    let rig = Rig::new(1).await;
    let (topic, letters) = (&rig.site.task_topic, dead_letter_topic(&rig.site.task_topic));
    let origin = (names::DEAD_LETTER_TOPIC, topic.as_str());
    let cut = (names::DEAD_LETTER_TRUNCATED_FROM, "70000");
    let other = (names::DEAD_LETTER_TOPIC, rig.site.result_topic.as_str());
    let value = vec![b'x'; MAX_MESSAGE_BYTES];
    for (key, headers) in [
        ("cut", &[origin, cut][..]),
        ("foreign", &[]),
        ("of_results", &[other]),
        ("complete", &[origin]),
    ] {
        rig.kafka.publish(&letters, key, &value, headers).await.unwrap();
    }
    let replayed = dead_letters(&rig, &["replay", "--all", "--json"]).await;
    check_exit(&replayed, 1, "1 published, 3 refused");
    let statuses: Vec<Value> = lines(&replayed)
        .into_iter()
        .map(|line| line["status"].clone())
        .collect();
    assert_eq!(statuses, ["refused", "refused", "refused", "published"]);
    let keys: Vec<String> = records(&rig, topic).await.iter().map(Record::key_text).collect();
    assert_eq!(keys, ["complete"]);
}

#[tokio::test]
async fn a_message_that_does_not_exist_is_an_error() {
    let rig = Rig::new(1).await;
    let letters = dead_letter_topic(&rig.site.task_topic);
    let headers = [(names::DEAD_LETTER_TOPIC, rig.site.task_topic.as_str())];
    rig.kafka.publish(&letters, "a", "{}", &headers).await.unwrap();
    for (arguments, error) in [
        (&["show", "0@7"][..], "no message at 0@7"),
        (&["show", "5@0"], "no message at 5@0"),
        (&["replay", "0@7", "--dry-run"], "no message at 0@7"),
        (&["replay", "--task", "b"], "no message of task b"),
        (
            &["list", "--topic", "no_such_topic"],
            "no_such_topic does not exist",
        ),
    ] {
        check_exit(&dead_letters(&rig, arguments).await, 1, error);
    }
    assert!(records(&rig, &rig.site.task_topic).await.is_empty());
    let empty = dead_letters(&rig, &["list", "--role", "uploader"]).await;
    check_exit(&empty, 0, "has no messages");
}

/// A message that fails again becomes another dead letter while a replay runs.
#[tokio::test]
async fn messages_that_are_published_after_the_reading_began_are_not_read() {
    let rig = Rig::new(2).await;
    let topic = rig.site.task_topic.clone();
    for partition in [0, 1] {
        rig.kafka
            .publish_to(&topic, partition, "before", "{}")
            .await
            .unwrap();
    }
    let settings = KafkaSettings {
        bootstrap_servers: rig.kafka.bootstrap(),
        client_id: "test".to_owned(),
        security_protocol: "PLAINTEXT".to_owned(),
        ssl_ca: None,
        ssl_client: None,
        sasl: None,
        tokens: None,
        idempotent_producer: true,
    };
    let name = topic.clone();
    let open = tokio::task::spawn_blocking(move || TopicReader::open(&settings, "test", &name).unwrap());
    let mut reader = open.await.unwrap();
    for partition in [0, 1] {
        rig.kafka
            .publish_to(&topic, partition, "after", "{}")
            .await
            .unwrap();
    }
    let keys = tokio::task::spawn_blocking(move || {
        let mut keys = Vec::new();
        while let Some(message) = reader.next_message().unwrap() {
            keys.push(String::from_utf8(message.key.unwrap()).unwrap());
        }
        keys
    });
    assert_eq!(keys.await.unwrap(), ["before", "before"]);
}
