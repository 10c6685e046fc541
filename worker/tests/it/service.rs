//! The service loop on an in-process broker, with a role whose outcomes the test decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use separation_contract::api_task::ApiTask;
use separation_contract::message::{Malformed, Outcome, Task, TaskId, TaskResult};
use separation_contract::offset_metadata::OffsetMetadata;
use separation_worker::error::ErrorClass;
use separation_worker::kafka::{Consumer, Producer};
use separation_worker::service::{Activity, Exit, Service, ServiceError, Shutdown};
use separation_worker::settings::{
    ConsumedRole, ConsumerArguments, ConsumerSettings, KafkaArguments, KafkaSettings,
};
use separation_worker::telemetry::Metrics;
use separation_worker::work::{FailureReport, Finished, Role, WorkContext, WorkError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Timeout of any wait; each step here takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// A message that the role processes; the test sends the outcome.
struct Work {
    task: String,
    context: WorkContext,
    answer: oneshot::Sender<Result<(), ErrorClass>>,
}

/// A role whose outcomes the test decides.
struct Scripted {
    work: mpsc::UnboundedSender<Work>,
    finds_completed: bool,
    /// How many messages may be cleaned up.
    clean_ups: Arc<Semaphore>,
}

impl Role for Scripted {
    type Message = Task;
    const RECEIVED: &'static str = "Received task";
    const NAME: &'static str = "Scripted";
    const DEAD_LETTERS_FAILURES: bool = false;

    fn parse(&self, value: Option<&[u8]>) -> Result<Task, Malformed> {
        Task::parse(value)
    }

    fn task<'m>(&self, task: &'m Task) -> (&'m TaskId, Option<&'m str>) {
        (&task.task_uuid, task.hook_url.as_deref())
    }

    fn api_task<'m>(&self, task: &'m Task) -> Option<&'m ApiTask> {
        task.v1.as_ref()
    }

    async fn find_completed(&self, task: &Task) -> Result<Option<Finished>, WorkError> {
        Ok(self.finds_completed.then(|| success(&task.task_uuid)))
    }

    async fn work(&self, task: &Task, context: &WorkContext) -> Result<Finished, WorkError> {
        let (answer, answered) = oneshot::channel();
        let task_uuid = task.task_uuid.clone();
        self.work
            .send(Work {
                task: task_uuid.to_string(),
                context: context.clone(),
                answer,
            })
            .expect("the test listens");
        let done = context
            .run(async { Ok(answered.await.expect("the test answers")) })
            .await?;
        context.confirm().await?;
        done.map(|()| success(&task_uuid))
            .map_err(|class| WorkError::new(class, "failure of the test"))
    }

    async fn report_failure(
        &self,
        failure: FailureReport<'_>,
        _context: &WorkContext,
    ) -> Result<Finished, WorkError> {
        let result = TaskResult::failure(failure.task_uuid.clone(), None, failure.reason);
        Ok(Finished {
            publish: Some(TaskResult {
                v1: failure.v1.cloned(),
                ..result.with_error_code(failure.code)
            }),
            success: false,
        })
    }

    async fn clean_up(&self, _task: &Task, _finished: &Finished) {
        self.clean_ups.acquire().await.expect("it stays open").forget();
    }
}

fn success(task: &TaskId) -> Finished {
    Finished {
        publish: Some(TaskResult {
            task_uuid: task.clone(),
            hook_url: None,
            outcome: Outcome::Success {
                vocals_path: "/v".into(),
                instrumental_path: "/i".into(),
            },
            task_message: None,
            started_at: None,
            v1: None,
        }),
        success: true,
    }
}

/// A broker with topics of one partition, and options of the service.
pub(crate) struct Rig {
    pub(crate) broker: MockCluster<'static, DefaultProducerContext>,
    options: Vec<&'static str>,
}

struct Running {
    work: mpsc::UnboundedReceiver<Work>,
    activity: watch::Receiver<Activity>,
    shutdown: Shutdown,
    /// Stops the service like a crash: it commits nothing more.
    crash: CancellationToken,
    exit: std::thread::JoinHandle<Option<Result<Exit, ServiceError>>>,
}

#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    kafka: KafkaArguments,
    #[command(flatten)]
    consumer: ConsumerArguments,
}

impl Rig {
    pub(crate) fn new(options: &[&'static str]) -> Self {
        let broker = MockCluster::new(1).unwrap();
        for topic in ["uvr_tasks", "uvr_results", "uvr_tasks_dead_letters"] {
            broker.create_topic(topic, 1, 1).unwrap();
        }
        Self {
            broker,
            options: options.to_vec(),
        }
    }

    pub(crate) fn settings(&self) -> (KafkaSettings, ConsumerSettings) {
        let servers = self.broker.bootstrap_servers();
        let mut arguments = vec!["test", "--bootstrap-servers", servers.as_str()];
        arguments.extend(["--auto-offset-reset", "earliest", "--settle-ms", "1"]);
        arguments.extend(&self.options);
        let options = <Options as clap::Parser>::parse_from(arguments);
        let consumer = options.consumer.settings(ConsumedRole::Processor).unwrap();
        (options.kafka.settings().unwrap(), consumer)
    }

    fn start(&self, finds_completed: bool) -> Running {
        self.start_with(finds_completed, Semaphore::MAX_PERMITS)
    }

    /// A service that may clean up after `clean_ups` messages.
    fn start_with(&self, finds_completed: bool, clean_ups: usize) -> Running {
        let (kafka, settings) = self.settings();
        let (sender, work) = mpsc::unbounded_channel();
        let (activity, watched) = watch::channel(Activity::Starting);
        let shutdown = Shutdown::default();
        let requested = shutdown.clone();
        let crash = CancellationToken::new();
        let crashed = crash.clone();
        let exit = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let metrics = Metrics::new();
                let service = Service {
                    role: Arc::new(Scripted {
                        work: sender,
                        finds_completed,
                        clean_ups: Arc::new(Semaphore::new(clean_ups)),
                    }),
                    consumer: Consumer::join(&kafka, &settings, metrics.clone()).unwrap(),
                    producer: Producer::new(&kafka).unwrap(),
                    settings,
                    metrics,
                    activity,
                };
                crashed.run_until_cancelled(service.run(&requested)).await
            })
        });
        Running {
            work,
            activity: watched,
            shutdown,
            crash,
            exit,
        }
    }

    async fn publish(&self, value: &str) {
        let producer = Producer::new(&self.settings().0).unwrap();
        producer
            .publish("uvr_tasks", Some(b"key"), value.as_bytes(), &[])
            .await
            .unwrap();
    }

    pub(crate) async fn publish_task(&self, task: &str) {
        self.publish(&format!(r#"{{"task_uuid": "{task}", "audio_path": "/x"}}"#))
            .await;
    }

    /// The first messages of a topic: value, and the reason of a dead letter.
    fn read(&self, topic: &str, count: usize) -> Vec<(String, Option<String>)> {
        let consumer = self.reader();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut read = Vec::new();
        while read.len() < count {
            let message = consumer.poll(DEADLINE).expect("a message in time").unwrap();
            let reason = message.headers().and_then(|headers| {
                let found = headers.iter().find(|header| header.key == "dead-letter-reason")?;
                Some(String::from_utf8_lossy(found.value?).into_owned())
            });
            let value = message.payload().unwrap_or_default();
            read.push((String::from_utf8_lossy(value).into_owned(), reason));
        }
        read
    }

    /// Waits until the group's committed offset in the task topic and the attempts in its metadata have these values.
    async fn reaches(&self, offset: i64, attempts: u32) -> OffsetMetadata {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (committed, record) = self.committed();
            if committed == Some(offset) && record.attempt == attempts {
                return record;
            }
            assert!(Instant::now() < deadline, "{committed:?} {record:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The group's committed offset in the task topic, and its metadata.
    pub(crate) fn committed(&self) -> (Option<i64>, OffsetMetadata) {
        let mut requested = TopicPartitionList::new();
        requested.add_partition("uvr_tasks", 0);
        let answer = self.reader().committed_offsets(requested, DEADLINE).unwrap();
        let element = answer.find_partition("uvr_tasks", 0).unwrap();
        (
            element.offset().to_raw().filter(|&offset| offset >= 0),
            OffsetMetadata::parse(element.metadata()),
        )
    }

    /// The group's committed offset, which follows a completed message: its metadata is the time of that message alone.
    fn completed(&self) -> Option<i64> {
        let (committed, record) = self.committed();
        assert!(record.last.is_some(), "{record:?}");
        assert_eq!(record, OffsetMetadata::last(record.last));
        committed
    }

    fn reader(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", "uvr_processor_group")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }
}

impl Running {
    async fn next(&mut self) -> Work {
        tokio::time::timeout(DEADLINE, self.work.recv())
            .await
            .expect("work in time")
            .expect("the service runs")
    }

    async fn reaches(&mut self, wanted: impl Fn(&Activity) -> bool) {
        tokio::time::timeout(DEADLINE, self.activity.wait_for(|activity| wanted(activity)))
            .await
            .expect("in time")
            .expect("the service runs");
    }

    async fn finish(self) -> Exit {
        self.shutdown.drain.cancel();
        tokio::task::spawn_blocking(move || self.exit.join().unwrap().unwrap().unwrap())
            .await
            .unwrap()
    }

    async fn crash(self) {
        self.crash.cancel();
        let ended = tokio::task::spawn_blocking(move || self.exit.join().unwrap());
        assert!(ended.await.unwrap().is_none(), "it ended before the crash");
    }
}

#[tokio::test]
async fn one_message_at_a_time_is_processed_published_and_committed() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    rig.publish_task("b").await;
    let mut running = rig.start(false);
    let first = running.next().await;
    assert_eq!(first.task, "a");
    assert!(
        running.work.try_recv().is_err(),
        "b stays queued while a is processed"
    );
    let (committed, record) = rig.committed();
    assert_eq!(
        (committed, record.attempt),
        (Some(0), 1),
        "committed before the work starts"
    );
    assert!(record.start.is_some(), "{record:?}");
    first.answer.send(Ok(())).unwrap();
    let second = running.next().await;
    assert_eq!(second.task, "b");
    let of_second = rig.reaches(1, 1).await;
    assert!(
        of_second.last.is_some(),
        "the time of a, while b runs: {of_second:?}"
    );
    second.answer.send(Ok(())).unwrap();
    running.reaches(|activity| *activity == Activity::Idle).await;
    assert_eq!(rig.completed(), Some(2));
    assert_eq!(running.finish().await, Exit::Drained);
    let results = rig.read("uvr_results", 2);
    assert!(results[0].0.contains(r#""task_uuid":"a""#) && results[1].0.contains(r#""task_uuid":"b""#));
    let started_at = format!(r#""started_at":{}"#, record.start.unwrap());
    assert!(results[0].0.contains(&started_at), "{}", results[0].0);
}

#[tokio::test]
async fn completed_work_is_only_published_and_committed() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    let running = rig.start(true);
    assert_eq!(rig.read("uvr_results", 1).len(), 1);
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.committed(), (Some(1), OffsetMetadata::default()));
}

#[tokio::test]
async fn a_drain_finishes_the_running_message_and_starts_no_other() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    rig.publish_task("b").await;
    let mut running = rig.start(false);
    let work = running.next().await;
    running.shutdown.drain.cancel();
    running
        .reaches(|activity| matches!(activity, Activity::Draining { task: Some(_) }))
        .await;
    work.answer.send(Ok(())).unwrap();
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.completed(), Some(1));
}

#[tokio::test]
async fn an_abort_leaves_the_message_uncommitted() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    let mut running = rig.start(false);
    let _work = running.next().await;
    running.shutdown.drain.cancel();
    running.shutdown.abort.cancel();
    assert_eq!(running.finish().await, Exit::Aborted);
    let (committed, record) = rig.committed();
    assert_eq!(committed, Some(0));
    assert_eq!(
        (record.attempt, record.draining),
        (0, true),
        "an aborted attempt does not count"
    );
}

#[track_caller]
fn check_failure(result: &str, reason: &str) {
    assert!(
        result.contains(r#""success":false"#) && result.contains(reason),
        "{result}"
    );
}

#[tokio::test]
async fn a_failure_is_published_or_requeued_by_the_policy() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    let mut running = rig.start(false);
    running
        .next()
        .await
        .answer
        .send(Err(ErrorClass::Transient))
        .unwrap();
    check_failure(&rig.read("uvr_results", 1)[0].0, "failure of the test");
    running.finish().await;
    assert_eq!(rig.committed(), (Some(1), OffsetMetadata::default()));

    let rig = Rig::new(&["--on-failure", "RetryOnFailure", "--max-retries", "1"]);
    rig.publish_task("a").await;
    rig.publish_task("b").await;
    let mut running = rig.start(false);
    running
        .next()
        .await
        .answer
        .send(Err(ErrorClass::Transient))
        .unwrap();
    let other = running.next().await;
    assert_eq!(other.task, "b", "a is requeued after b");
    other.answer.send(Err(ErrorClass::Permanent)).unwrap();
    running
        .next()
        .await
        .answer
        .send(Err(ErrorClass::Transient))
        .unwrap();
    let results = rig.read("uvr_results", 2);
    assert!(results[0].0.contains(r#""task_uuid":"b""#) && results[1].0.contains(r#""task_uuid":"a""#));
    running.finish().await;
    assert!(rig.read("uvr_tasks", 3)[2].0.contains(r#""retry_count":1"#));
}

#[tokio::test]
async fn the_failure_of_a_task_of_the_api_names_its_code_and_output() {
    let rig = Rig::new(&[]);
    let v1 = r#""v1":{"client":"acme","output":{"format":"mp3","stems":["vocals"]}}"#;
    rig.publish(&format!(r#"{{"task_uuid": "a", "audio_path": "/x", {v1}}}"#))
        .await;
    let mut running = rig.start(false);
    running
        .next()
        .await
        .answer
        .send(Err(ErrorClass::TimedOut))
        .unwrap();
    let result = rig.read("uvr_results", 1).remove(0).0;
    check_failure(&result, r#""error_code":"timed_out""#);
    check_failure(&result, v1);
    running.finish().await;
}

#[tokio::test]
async fn progress_is_committed_with_the_offset_of_the_running_message() {
    let rig = Rig::new(&["--progress-seconds", "1"]);
    rig.publish_task("a").await;
    let mut running = rig.start(false);
    let work = running.next().await;
    let before = rig.reaches(0, 1).await;
    assert_eq!(before.percent, None);
    work.context.report_progress(40);
    let deadline = Instant::now() + DEADLINE;
    while rig.committed().1.percent != Some(40) {
        assert!(Instant::now() < deadline, "{:?}", rig.committed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (committed, record) = rig.committed();
    assert_eq!(
        (committed, record.attempt, record.start),
        (Some(0), 1, before.start)
    );
    work.answer.send(Ok(())).unwrap();
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.completed(), Some(1));
}

#[tokio::test]
async fn a_malformed_task_becomes_a_dead_letter_and_the_next_is_processed() {
    let rig = Rig::new(&[]);
    rig.publish("{").await;
    rig.publish(r#"{"task_uuid": "known", "hook_url": "http://h"}"#)
        .await;
    rig.publish_task("a").await;
    let mut running = rig.start(false);
    running.next().await.answer.send(Ok(())).unwrap();
    let dead = rig.read("uvr_tasks_dead_letters", 2);
    assert_eq!(dead[0].0, "{");
    assert!(dead[0].1.as_deref().unwrap().contains("not JSON"));
    assert!(dead[1].1.as_deref().unwrap().contains("`audio_path` is missing"));
    let results = rig.read("uvr_results", 2);
    check_failure(&results[0].0, "`audio_path` is missing");
    running.finish().await;
    assert_eq!(rig.completed(), Some(3));
}

/// The in-process broker waits the session timeout less 1 s for members that left, and 3 s for the first member.
const SHORT_SESSION: [&str; 4] = ["--session-timeout-ms", "3500", "--heartbeat-interval-ms", "1000"];

#[tokio::test]
async fn a_message_that_crashes_its_worker_is_a_dead_letter_after_three_attempts() {
    let rig = Rig::new(&SHORT_SESSION);
    rig.publish_task("a").await;
    for attempt in 1..=3 {
        let mut running = rig.start(false);
        let _work = running.next().await;
        let (committed, record) = rig.committed();
        assert_eq!((committed, record.attempt), (Some(0), attempt));
        running.crash().await;
    }
    let running = rig.start(false);
    let result = rig.read("uvr_results", 1).remove(0).0;
    check_failure(&result, "crashed its worker 3 times");
    check_failure(&result, r#""error_code":"worker_crashed""#);
    assert_eq!(rig.read("uvr_tasks_dead_letters", 1).len(), 1);
    running.finish().await;
    assert_eq!(rig.committed(), (Some(1), OffsetMetadata::default()));
}

/// A producer whose request for a producer id was refused never publishes again.
#[tokio::test]
async fn a_producer_that_failed_permanently_is_replaced() {
    let rig = Rig::new(&[]);
    rig.publish_task("a").await;
    rig.broker.request_errors(
        RDKafkaApiKey::InitProducerId,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
    );
    let mut running = rig.start(false);
    running.next().await.answer.send(Ok(())).unwrap();
    assert_eq!(rig.read("uvr_results", 1).len(), 1);
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.completed(), Some(1));
}

/// In an earlier version, the commit of one message also counted an attempt at the next, so a worker that crashed
/// between the two lost it.
#[tokio::test]
async fn a_message_whose_processing_did_not_start_has_no_attempt() {
    let rig = Rig::new(&[&SHORT_SESSION[..], &["--max-attempts", "1"]].concat());
    rig.publish_task("a").await;
    rig.publish_task("b").await;
    let mut running = rig.start_with(false, 0);
    running.next().await.answer.send(Ok(())).unwrap();
    rig.reaches(1, 0).await;
    running.crash().await;
    let mut next = rig.start(false);
    let work = next.next().await;
    assert_eq!(work.task, "b");
    rig.reaches(1, 1).await;
    work.answer.send(Ok(())).unwrap();
    assert_eq!(rig.read("uvr_results", 2).len(), 2);
    assert_eq!(next.finish().await, Exit::Drained);
}

/// The platform sends SIGTERM, and SIGKILL when its grace period is over.
#[tokio::test]
async fn a_worker_that_is_killed_after_it_was_asked_to_stop_does_not_count_against_the_message() {
    let rig = Rig::new(&[&SHORT_SESSION[..], &["--max-attempts", "1"]].concat());
    rig.publish_task("a").await;
    for _ in 0..2 {
        let mut running = rig.start(false);
        let _work = running.next().await;
        rig.reaches(0, 1).await;
        running.shutdown.drain.cancel();
        let record = rig.reaches(0, 0).await;
        assert!(record.draining && record.start.is_some(), "{record:?}");
        running.crash().await;
    }
    let mut running = rig.start(false);
    running.next().await.answer.send(Ok(())).unwrap();
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.completed(), Some(1));
}

/// librdkafka does not repeat an OffsetFetch request that a broker answered with NOT_COORDINATOR.
#[tokio::test]
async fn a_partition_whose_committed_offset_could_not_be_read_is_still_processed() {
    let rig = Rig::new(&SHORT_SESSION);
    rig.publish_task("a").await;
    rig.broker.request_errors(
        RDKafkaApiKey::OffsetFetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR],
    );
    let mut running = rig.start(false);
    running.next().await.answer.send(Ok(())).unwrap();
    assert_eq!(rig.read("uvr_results", 1).len(), 1);
    assert_eq!(running.finish().await, Exit::Drained);
    assert_eq!(rig.completed(), Some(1));
}
