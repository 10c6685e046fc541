//! Messages and songs that cannot be processed: each gets a dead letter or a failure with its reason, its webhook
//! reports the failure, and the next message is processed.

use std::os::unix::fs::symlink;

use separation_contract::environment as env;
use separation_contract::message::MAX_MESSAGE_BYTES;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Record, eventually, task_message, tiny_song};
use serde_json::{Value, json};

use crate::rig::{Rig, STEP_TIMEOUT};

/// A malformed message.
struct Poison {
    value: Vec<u8>,
    /// Part of the reason in its dead letter.
    reason: &'static str,
    /// The task, if it can be parsed.
    task: Option<String>,
}

impl Poison {
    fn without_task(value: impl Into<Vec<u8>>, reason: &'static str) -> Self {
        Self {
            value: value.into(),
            reason,
            task: None,
        }
    }

    /// A message with a task id, whose other fields are replaced by `fields`.
    fn with_task(rig: &Rig, task: &str, fields: &Value, reason: &'static str) -> Self {
        let mut message = json!({ "task_uuid": task, "hook_url": rig.hooks.url("/hook") });
        for (name, value) in fields.as_object().unwrap() {
            message[name] = value.clone();
        }
        Self {
            value: message.to_string().into_bytes(),
            reason,
            task: Some(task.to_owned()),
        }
    }

    /// Checks that `letter` is the dead letter of this message in `topic` at `offset`.
    #[track_caller]
    fn check(&self, letter: &Record, topic: &str, offset: usize) {
        let header = |name: &str| letter.header(&format!("dead-letter-{name}"));
        let reason = header("reason").unwrap_or_default();
        assert!(
            reason.contains(self.reason),
            "`{reason}` does not contain `{}`",
            self.reason
        );
        assert_eq!(header("topic").as_deref(), Some(topic));
        assert_eq!(header("partition").as_deref(), Some("0"));
        assert_eq!(header("offset"), Some(offset.to_string()));
        let length = self.value.len();
        let kept = &self.value[..length.min(MAX_MESSAGE_BYTES)];
        assert!(letter.value.as_deref().unwrap_or_default() == kept, "{reason}");
        let cut_from = (kept.len() < length).then(|| length.to_string());
        assert_eq!(header("truncated-from"), cut_from);
        assert!(letter.header("traceparent").is_some());
    }
}

/// Malformed messages for both topics.
fn without_task() -> Vec<Poison> {
    let large = json!({ "task_uuid": "large", "pad": "x".repeat(10 << 20) }).to_string();
    vec![
        Poison::without_task(r#"{"task_uuid": "#, "the message is not JSON"),
        Poison::without_task(*b"{\"task_uuid\": \"a\xff\xfe\"}", "the message is not JSON"),
        Poison::without_task("[1, 2]", "the message is not a JSON object"),
        Poison::without_task("", "the message is empty"),
        Poison::without_task(large, "bytes, more than 65536"),
        Poison::without_task(r#"{"audio_path": "a"}"#, "the field `task_uuid` is missing"),
        Poison::without_task(r#"{"task_uuid": 7}"#, "the field `task_uuid` is not"),
        Poison::without_task(
            r#"{"task_uuid": "../../etc/passwd", "audio_path": "a"}"#,
            "task_uuid may only have",
        ),
    ]
}

/// A topic that accepts large messages, with its dead-letter topic.
async fn roomy_topic(rig: &Rig, name: &str) -> String {
    let topic = format!("roomy-{name}-{}", rig.site.tag);
    let large = [("max.message.bytes", "20000000")];
    rig.kafka.create_topic_with(&topic, 1, &large).await.unwrap();
    rig.kafka
        .create_topic(&dead_letter_topic(&topic), 1)
        .await
        .unwrap();
    topic
}

async fn publish(rig: &Rig, topic: &str, key: &str, value: &[u8]) {
    rig.kafka.publish(topic, key, value, &[]).await.unwrap();
}

/// Checks that all `poisons` of `topic` became dead letters, in order.
async fn check_dead_letters(rig: &Rig, topic: &str, poisons: &[Poison]) {
    let letters = rig.kafka.consume_all(&dead_letter_topic(topic)).await.unwrap();
    assert_eq!(letters.len(), poisons.len());
    for (offset, (poison, letter)) in poisons.iter().zip(&letters).enumerate() {
        poison.check(letter, topic, offset);
    }
}

/// Checks that one webhook reported the failure of a task, with its reason.
async fn check_failed(rig: &Rig, task: &str, reason: &str) {
    let deliveries = rig.webhooks(task);
    let [(id, body)] = deliveries.as_slice() else {
        panic!("one webhook about {task}, not {deliveries:?}");
    };
    assert_eq!((id.as_str(), &body["status"]), (task, &json!("failed")));
    let error = body["error_message"].as_str().unwrap();
    assert!(error.contains(reason), "`{error}` does not contain `{reason}`");
    let manifest = rig.manifest(task).await.expect("a manifest");
    assert_eq!(manifest["status"], "failed", "{manifest}");
    assert_eq!(manifest["webhook"], "delivered", "{manifest}");
}

#[tokio::test]
async fn a_malformed_task_becomes_a_dead_letter_and_the_next_task_is_processed() {
    let rig = Rig::new(1).await;
    let topic = roomy_topic(&rig, "tasks").await;
    let mut poisons = without_task();
    poisons.extend([
        Poison::with_task(&rig, "no-path", &json!({}), "the field `audio_path` is missing"),
        Poison::with_task(
            &rig,
            "number",
            &json!({ "audio_path": 7 }),
            "the field `audio_path` is not",
        ),
        Poison::with_task(
            &rig,
            "count",
            &json!({ "audio_path": "a", "retry_count": -1 }),
            "the field `retry_count` is not",
        ),
    ]);
    for poison in &poisons {
        publish(&rig, &topic, "key", &poison.value).await;
    }
    let (good, path) = rig.site.put_song(&tiny_song(1)).unwrap();
    let task = task_message(&good, path.to_str().unwrap(), &rig.hooks.url("/hook"));
    publish(&rig, &topic, &good, task.to_string().as_bytes()).await;
    let _uploader = rig.uploader().start().unwrap();
    let _processor = rig
        .processor()
        .env(env::KAFKA_TASK_TOPIC, &topic)
        .start()
        .unwrap();
    let good = [good].into();
    rig.wait_for_webhooks(&good).await;
    rig.wait_until_committed().await;
    rig.check_done(&good).await;
    check_dead_letters(&rig, &topic, &poisons).await;
    for poison in &poisons {
        if let Some(task) = &poison.task {
            check_failed(&rig, task, poison.reason).await;
        }
    }
}

#[tokio::test]
async fn a_malformed_result_becomes_a_dead_letter_and_the_next_result_is_processed() {
    let rig = Rig::new(1).await;
    let topic = roomy_topic(&rig, "results").await;
    let stems = |vocals: &str| {
        let instrumental = rig.site.stems.join("none.wav");
        json!({ "success": true, "vocals_path": vocals, "instrumental_path": instrumental })
    };
    let missing = rig.site.stems.join("missing.wav");
    let mut poisons = without_task();
    poisons.extend([
        Poison::with_task(&rig, "no-success", &json!({}), "the field `success` is missing"),
        Poison::with_task(
            &rig,
            "text",
            &json!({ "success": "true" }),
            "the field `success` is not",
        ),
        Poison::with_task(
            &rig,
            "no-stems",
            &json!({ "success": true }),
            "the field `vocals_path` is missing",
        ),
        Poison::with_task(&rig, "outside", &stems("/etc/passwd"), "it must be below"),
        Poison::with_task(&rig, "climbs", &stems("../../etc/passwd"), "it must be below"),
        Poison::with_task(&rig, "bucket", &stems("s3://secrets/a.wav"), "its bucket must be"),
        Poison::with_task(&rig, "missing", &stems(missing.to_str().unwrap()), "missing.wav"),
    ]);
    for poison in &poisons {
        publish(&rig, &topic, "key", &poison.value).await;
    }
    let [vocals, instrumental] =
        ["good_vocals.wav", "good_instrumental.wav"].map(|name| rig.site.stems.join(name));
    std::fs::write(&vocals, tiny_song(1)).unwrap();
    std::fs::write(&instrumental, tiny_song(2)).unwrap();
    let result = json!({
        "task_uuid": "good", "success": true, "vocals_path": vocals, "instrumental_path": instrumental,
        "hook_url": rig.hooks.url("/hook"),
    });
    publish(&rig, &topic, "good", result.to_string().as_bytes()).await;
    let _uploader = rig
        .uploader()
        .env(env::KAFKA_RESULT_TOPIC, &topic)
        .start()
        .unwrap();
    let good = ["good".to_owned()].into();
    rig.wait_for_webhooks(&good).await;
    rig.check_done(&good).await;
    check_dead_letters(&rig, &topic, &poisons).await;
    for poison in &poisons {
        if let Some(task) = &poison.task {
            check_failed(&rig, task, poison.reason).await;
        }
    }
}

#[tokio::test]
async fn a_song_that_cannot_be_separated_fails_with_the_reason_and_the_next_is_processed() {
    let rig = Rig::new(1).await;
    let at = |name: &str| rig.site.songs.join(name).display().to_string();
    let secret = rig.site.directory().join("secret.wav");
    std::fs::write(&secret, tiny_song(9)).unwrap();
    symlink(&secret, at("link.wav")).unwrap();
    std::fs::write(at("text.wav"), "this is no song\n".repeat(100)).unwrap();
    std::fs::write(at("empty.wav"), "").unwrap();
    std::fs::write(at("cut.wav"), &tiny_song(1)[..40]).unwrap();
    let songs = [
        ("climbs", "../../etc/passwd".to_owned(), "it must be below"),
        ("climbs-inside", at("../secret.wav"), "it must be below"),
        ("outside", "/etc/passwd".to_owned(), "it must be below"),
        ("link", at("link.wav"), "it must be below"),
        ("folder", at("."), "it must be a regular file"),
        ("missing", at("missing.wav"), "missing.wav"),
        ("bucket", "s3://secrets/a.wav".to_owned(), "its bucket must be"),
        (
            "bad-address",
            "s3://".to_owned(),
            "it must have the form s3://bucket/key",
        ),
        ("text", at("text.wav"), "is not audio"),
        ("empty", at("empty.wav"), "empty"),
        ("cut", at("cut.wav"), ""),
    ];
    for (task, path, _) in &songs {
        let message = task_message(task, path, &rig.hooks.url("/hook")).to_string();
        publish(&rig, &rig.site.task_topic, task, message.as_bytes()).await;
    }
    let good = [rig.submit(1).await].into();
    let processor = rig.processor().start().unwrap();
    let _uploader = rig.uploader().start().unwrap();
    rig.wait_for_webhooks(&good).await;
    rig.wait_until_committed().await;
    rig.check_done(&good).await;
    for (task, _, reason) in songs {
        check_failed(&rig, task, reason).await;
    }
    assert!(secret.exists(), "files in other directories are kept");
    assert!(
        std::fs::exists(at("text.wav")).unwrap(),
        "a song that failed is kept"
    );
    let separated = processor.messages().unwrap();
    let separated = separated.iter().filter(|message| *message == "Separated");
    assert_eq!(separated.count(), 1);
    let left = std::fs::read_dir(&rig.site.stems).unwrap().count();
    assert_eq!(left, 0, "nothing is left in the stems directory");
    let letters = rig
        .kafka
        .consume_all(&dead_letter_topic(&rig.site.task_topic))
        .await;
    assert_eq!(
        letters.unwrap(),
        [],
        "a task that failed is a result, not a dead letter"
    );
}

#[tokio::test]
async fn a_song_that_kills_its_worker_becomes_a_dead_letter_after_three_attempts() {
    let rig = Rig::new(1).await;
    let before = rig.submit(1).await;
    let killer = rig.submit(2).await;
    let after = rig.submit(3).await;
    let _uploader = rig.uploader().start().unwrap();
    let start = || {
        rig.processor()
            // The attempt at a subsequent message is committed in parallel with the work, within milliseconds.
            .env("SEPARATION_FAULT", "separated")
            .env("SEPARATION_FAULT_TASK", &killer)
            .start()
            .unwrap()
    };
    for _ in 0..3 {
        let killed = start();
        let code = killed.wait_exit(STEP_TIMEOUT).await.unwrap();
        assert_eq!(code, 128 + 9, "{:?}", killed.messages());
    }
    let last = start();
    let neighbors = [before, after].into();
    rig.wait_for_webhooks(&neighbors).await;
    rig.wait_for_webhooks(&[killer.clone()].into()).await;
    rig.wait_until_committed().await;
    rig.check_done(&neighbors).await;
    check_failed(&rig, &killer, "the task crashed its worker 3 times").await;
    assert_eq!(last.exit_code(), None);
    let letters = eventually("a dead letter", STEP_TIMEOUT, async || {
        let letters = rig
            .kafka
            .consume_all(&dead_letter_topic(&rig.site.task_topic))
            .await?;
        anyhow::Ok((!letters.is_empty()).then_some(letters))
    })
    .await;
    let [letter] = letters.as_slice() else {
        panic!("one dead letter, not {letters:?}");
    };
    assert_eq!(letter.json()["task_uuid"], killer);
    assert_eq!(letter.header("dead-letter-offset").as_deref(), Some("1"));
    assert_eq!(
        letter.header("dead-letter-reason").as_deref(),
        Some("the task crashed its worker 3 times")
    );
}

#[tokio::test]
async fn messages_without_a_key_are_republished_without_one() {
    let rig = Rig::new(1).await;
    let site = &rig.site;
    let _processor = rig
        .processor()
        .env(env::ON_FAILURE, "RetryOnFailure")
        .env(env::MAX_RETRIES, "1")
        .start()
        .unwrap();
    let (task, path) = site.put_song(&tiny_song(1)).unwrap();
    let message = task_message(&task, &path.display().to_string(), &rig.hooks.url("/hook"));
    for value in [message.to_string(), "no task".to_owned()] {
        rig.kafka.publish_keyless(&site.task_topic, value).await.unwrap();
    }
    rig.tasks_committed().await;
    for topic in [site.result_topic.clone(), dead_letter_topic(&site.task_topic)] {
        let keys: Vec<_> = rig.kafka.consume_all(&topic).await.unwrap();
        let keys: Vec<_> = keys.into_iter().map(|record| record.key).collect();
        assert_eq!(keys, [None], "{topic}");
    }
}
