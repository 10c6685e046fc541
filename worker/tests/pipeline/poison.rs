//! Messages and songs that cannot be worked on: each is put aside with its reason, its caller hears of it, and the
//! next message is served.

use std::os::unix::fs::symlink;

use separation_contract::environment as env;
use separation_contract::message::MAX_MESSAGE_BYTES;
use separation_contract::names::dead_letter_topic;
use separation_testbed::{Record, eventually, task_message, tiny_song};
use serde_json::{Value, json};

use crate::rig::{PATIENCE, Rig};

/// A message that nobody can work on.
struct Poison {
    value: Vec<u8>,
    /// Part of the reason that it is put aside with.
    reason: &'static str,
    /// The task, where the message still tells it.
    task: Option<String>,
}

impl Poison {
    fn nameless(value: impl Into<Vec<u8>>, reason: &'static str) -> Self {
        Self {
            value: value.into(),
            reason,
            task: None,
        }
    }

    /// A message with a task's name, in which `fields` replace others, or go where they are null.
    fn of(rig: &Rig, task: &str, fields: &Value, reason: &'static str) -> Self {
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

    /// Checks that `letter` is this message, put aside from `topic` at `offset`.
    #[track_caller]
    fn check(&self, letter: &Record, topic: &str, offset: usize) {
        let header = |name: &str| letter.header(&format!("dead-letter-{name}"));
        let reason = header("reason").unwrap_or_default();
        assert!(
            reason.contains(self.reason),
            "`{reason}` does not say `{}`",
            self.reason
        );
        assert_eq!(header("topic").as_deref(), Some(topic));
        assert_eq!(header("partition").as_deref(), Some("0"));
        assert_eq!(header("offset"), Some(offset.to_string()));
        let whole = self.value.len();
        let kept = &self.value[..whole.min(MAX_MESSAGE_BYTES)];
        assert!(letter.value.as_deref().unwrap_or_default() == kept, "{reason}");
        let cut_from = (kept.len() < whole).then(|| whole.to_string());
        assert_eq!(header("truncated-from"), cut_from);
        assert!(letter.header("traceparent").is_some());
    }
}

/// What both topics' poison has in common.
fn nameless() -> Vec<Poison> {
    let large = json!({ "task_uuid": "large", "pad": "x".repeat(10 << 20) }).to_string();
    vec![
        Poison::nameless(r#"{"task_uuid": "#, "the message is not JSON"),
        Poison::nameless(*b"{\"task_uuid\": \"a\xff\xfe\"}", "the message is not JSON"),
        Poison::nameless("[1, 2]", "the message is not a JSON object"),
        Poison::nameless("", "the message is empty"),
        Poison::nameless(large, "bytes, more than 65536"),
        Poison::nameless(r#"{"audio_path": "a"}"#, "the field `task_uuid` is missing"),
        Poison::nameless(r#"{"task_uuid": 7}"#, "the field `task_uuid` is not"),
        Poison::nameless(
            r#"{"task_uuid": "../../etc/passwd", "audio_path": "a"}"#,
            "task_uuid may only have",
        ),
    ]
}

/// A topic that takes large messages, with its topic of dead letters.
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

/// Checks that all of `poisons` were put aside from `topic`, in order.
async fn check_dead_letters(rig: &Rig, topic: &str, poisons: &[Poison]) {
    let letters = rig.kafka.consume_all(&dead_letter_topic(topic)).await.unwrap();
    assert_eq!(letters.len(), poisons.len());
    for (offset, (poison, letter)) in poisons.iter().zip(&letters).enumerate() {
        poison.check(letter, topic, offset);
    }
}

/// Checks that the caller of a task heard once that it failed, and why.
async fn check_failed(rig: &Rig, task: &str, reason: &str) {
    let rung = rig.webhooks(task);
    let [(id, body)] = rung.as_slice() else {
        panic!("one webhook about {task}, not {rung:?}");
    };
    assert_eq!((id.as_str(), &body["status"]), (task, &json!("failed")));
    let said = body["error_message"].as_str().unwrap();
    assert!(said.contains(reason), "`{said}` does not say `{reason}`");
    let manifest = rig.manifest(task).await.expect("a manifest");
    assert_eq!(manifest["status"], "failed", "{manifest}");
    assert_eq!(manifest["webhook"], "delivered", "{manifest}");
}

#[tokio::test]
async fn what_is_no_task_becomes_a_dead_letter_and_the_next_task_is_served() {
    let rig = Rig::new(1).await;
    let topic = roomy_topic(&rig, "tasks").await;
    let mut poisons = nameless();
    poisons.extend([
        Poison::of(&rig, "no-path", &json!({}), "the field `audio_path` is missing"),
        Poison::of(
            &rig,
            "number",
            &json!({ "audio_path": 7 }),
            "the field `audio_path` is not",
        ),
        Poison::of(
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
    rig.all_told(&good).await;
    rig.run_dry().await;
    rig.check_done(&good).await;
    check_dead_letters(&rig, &topic, &poisons).await;
    for poison in &poisons {
        if let Some(task) = &poison.task {
            check_failed(&rig, task, poison.reason).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_result_becomes_a_dead_letter_and_the_next_result_is_served() {
    let rig = Rig::new(1).await;
    let topic = roomy_topic(&rig, "results").await;
    let stems = |vocals: &str| {
        let instrumental = rig.site.stems.join("none.wav");
        json!({ "success": true, "vocals_path": vocals, "instrumental_path": instrumental })
    };
    let missing = rig.site.stems.join("missing.wav");
    let mut poisons = nameless();
    poisons.extend([
        Poison::of(&rig, "no-success", &json!({}), "the field `success` is missing"),
        Poison::of(
            &rig,
            "text",
            &json!({ "success": "true" }),
            "the field `success` is not",
        ),
        Poison::of(
            &rig,
            "no-stems",
            &json!({ "success": true }),
            "the field `vocals_path` is missing",
        ),
        Poison::of(&rig, "outside", &stems("/etc/passwd"), "it must lie below"),
        Poison::of(&rig, "climbs", &stems("../../etc/passwd"), "it must lie below"),
        Poison::of(&rig, "bucket", &stems("s3://secrets/a.wav"), "its bucket must be"),
        Poison::of(&rig, "missing", &stems(missing.to_str().unwrap()), "missing.wav"),
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
    rig.all_told(&good).await;
    rig.check_done(&good).await;
    check_dead_letters(&rig, &topic, &poisons).await;
    for poison in &poisons {
        if let Some(task) = &poison.task {
            check_failed(&rig, task, poison.reason).await;
        }
    }
}

#[tokio::test]
async fn a_song_that_cannot_be_separated_fails_with_words_and_the_next_is_served() {
    let rig = Rig::new(1).await;
    let at = |name: &str| rig.site.songs.join(name).display().to_string();
    let secret = rig.site.folder().join("secret.wav");
    std::fs::write(&secret, tiny_song(9)).unwrap();
    symlink(&secret, at("link.wav")).unwrap();
    std::fs::write(at("text.wav"), "this is no song\n".repeat(100)).unwrap();
    std::fs::write(at("empty.wav"), "").unwrap();
    std::fs::write(at("cut.wav"), &tiny_song(1)[..40]).unwrap();
    let songs = [
        ("climbs", "../../etc/passwd".to_owned(), "it must lie below"),
        ("climbs-inside", at("../secret.wav"), "it must lie below"),
        ("outside", "/etc/passwd".to_owned(), "it must lie below"),
        ("link", at("link.wav"), "it must lie below"),
        ("folder", at("."), "it must be a regular file"),
        ("missing", at("missing.wav"), "missing.wav"),
        ("bucket", "s3://secrets/a.wav".to_owned(), "its bucket must be"),
        (
            "bad-address",
            "s3://".to_owned(),
            "it must be of the form s3://bucket/key",
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
    rig.all_told(&good).await;
    rig.run_dry().await;
    rig.check_done(&good).await;
    for (task, _, reason) in songs {
        check_failed(&rig, task, reason).await;
    }
    assert!(secret.exists(), "what lies elsewhere stays");
    assert!(
        std::fs::exists(at("text.wav")).unwrap(),
        "a song that failed is kept"
    );
    let separated = processor.messages().unwrap();
    let separated = separated.iter().filter(|message| *message == "Separated");
    assert_eq!(separated.count(), 1);
    let left = std::fs::read_dir(&rig.site.stems).unwrap().count();
    assert_eq!(left, 0, "nothing is left where stems wait");
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
async fn a_song_that_kills_its_worker_is_put_aside_after_three_attempts() {
    let rig = Rig::new(1).await;
    let before = rig.submit(1).await;
    let killer = rig.submit(2).await;
    let after = rig.submit(3).await;
    let _uploader = rig.uploader().start().unwrap();
    let start = || {
        rig.processor()
            // The attempt at a message that follows another is committed beside the work, within milliseconds.
            .env("SEPARATION_FAULT", "separated")
            .env("SEPARATION_FAULT_TASK", &killer)
            .start()
            .unwrap()
    };
    for _ in 0..3 {
        let killed = start();
        let code = killed.wait_exit(PATIENCE).await.unwrap();
        assert_eq!(code, 128 + 9, "{:?}", killed.messages());
    }
    let last = start();
    let neighbours = [before, after].into();
    rig.all_told(&neighbours).await;
    rig.all_told(&[killer.clone()].into()).await;
    rig.run_dry().await;
    rig.check_done(&neighbours).await;
    check_failed(&rig, &killer, "the task ended its worker 3 times").await;
    assert_eq!(last.exit_code(), None);
    let letters = eventually("a dead letter", PATIENCE, async || {
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
        Some("the task ended its worker 3 times")
    );
}

#[tokio::test]
async fn what_came_without_a_key_is_published_without_one() {
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
