//! Prometheus metrics of a role. Label values come from fixed sets.

use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram, HistogramVec, IntCounterVec, IntGauge};
use separation_daemon::Families;

use super::holds::Holds;

/// Histogram buckets in seconds, up to the longest task of ten minutes.
const SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Histogram buckets in seconds for messages that are queued, up to six hours.
const QUEUE_SECONDS: [f64; 14] = [
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 21_600.0,
];

/// Outcomes of messages.
const MESSAGE_OUTCOMES: [&str; 10] = [
    "done",
    "duplicate",
    "failed",
    "requeued",
    "dead_letter",
    "lost",
    "moved",
    "topic_deleted",
    "released",
    "aborted",
];

/// Reasons of dead letters.
const DEAD_LETTER_REASONS: [&str; 3] = ["malformed", "worker_crashes", "failed"];

/// Outcomes of webhooks.
const WEBHOOK_OUTCOMES: [&str; 3] = ["delivered", "retried", "failed"];

/// Metrics of a processor or an uploader; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    families: Families,
    messages: IntCounterVec,
    queue_wait: Histogram,
    task_seconds: HistogramVec,
    stage_seconds: HistogramVec,
    audio_seconds: Counter,
    audio_processing_seconds: Counter,
    webhooks: IntCounterVec,
    commits: IntCounterVec,
    rebalances: IntCounterVec,
    dead_letters: IntCounterVec,
    busy: IntGauge,
    busy_since: Gauge,
    holds: Holds,
}

/// Metrics of the API; cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    webhooks: IntCounterVec,
    placements: IntCounterVec,
    holds: Holds,
    families: Families,
}

/// Adds the series of these label values: Prometheus' increase() does not count the first value of a series.
fn with_values(counters: IntCounterVec, values: &[&str]) -> IntCounterVec {
    for value in values {
        counters.with_label_values(&[value]);
    }
    counters
}

fn webhooks(families: &mut Families) -> IntCounterVec {
    let webhooks = families.counters(
        "separation_webhooks_total",
        "Webhooks, by outcome: delivered; retried, if it failed and is sent again later; failed, if it is not",
        &["outcome"],
    );
    with_values(webhooks, &WEBHOOK_OUTCOMES)
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiMetrics {
    /// Registers all families.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::of_process(env!("CARGO_PKG_VERSION"));
        Self {
            requests: families.counters(
                "separation_requests_total",
                "Requests to the API, by HTTP status",
                &["status"],
            ),
            request_seconds: families.durations(
                "separation_request_seconds",
                "Duration of requests to the API up to the response's body, by method and route",
                &["method", "route"],
                &SECONDS,
            ),
            webhooks: webhooks(&mut families),
            placements: families.counters(
                "separation_placements_total",
                "Choices of a task's partition, by how: idle, shortest, round_robin or hashed",
                &["how"],
            ),
            holds: Holds::register(&mut families),
            families,
        }
    }

    /// Dependencies that currently refuse the API.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Counts a response by its HTTP status.
    pub fn request(&self, status: u16) {
        self.requests.with_label_values(&[&status.to_string()]).inc();
    }

    /// Records the duration of a request. `route` is the pattern that its path matched.
    pub fn request_took(&self, method: &'static str, route: &str, took: Duration) {
        self.request_seconds
            .with_label_values(&[method, route])
            .observe(took.as_secs_f64());
    }

    /// Counts an attempt to deliver a webhook: `delivered`, `retried` or `failed`.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks.with_label_values(&[outcome]).inc();
    }

    /// Counts the choice of a task's partition, by how it was chosen.
    pub fn placement(&self, how: &'static str) {
        self.placements.with_label_values(&[how]).inc();
    }

    /// The metric families.
    pub fn families(&self) -> Families {
        self.families.clone()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all families.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::of_process(env!("CARGO_PKG_VERSION"));
        let mut counters = |name, help, label| families.counters(name, help, &[label]);
        let outcomes = "Processed messages, by outcome";
        let messages = counters("separation_messages_total", outcomes, "outcome");
        let commits = counters("separation_commits_total", "Offset commits, by result", "result");
        let kinds = "Changes of the partition assignment, by kind";
        let rebalances = counters("separation_rebalances_total", kinds, "kind");
        let reasons = "Messages sent to the dead-letter topic, by reason";
        let dead_letters = counters("separation_dead_letters_total", reasons, "reason");
        let mut durations = |name, help, label| families.durations(name, help, &[label], &SECONDS);
        let message = "Duration from receiving a message to committing it";
        let task_seconds = durations("separation_task_seconds", message, "outcome");
        let tries =
            "Duration of each try of a stage, such as fetch, separate, store, publish, upload, webhook";
        let stage_seconds = durations("separation_stage_seconds", tries, "stage");
        let wait = "Time from publishing a message to starting its first attempt; a message that is released or \
                    republished counts again";
        let queue_wait = families.durations("separation_queue_wait_seconds", wait, &[], &QUEUE_SECONDS);
        let audio = "Length of the songs that were separated, in seconds; processors only";
        let processing = "Time that separating those songs took, in seconds; processors only";
        let mut amounts = |name: &str, help: &str| families.register(Counter::new(name, help));
        let audio_seconds = amounts("separation_audio_seconds_total", audio);
        let audio_processing_seconds = amounts("separation_audio_processing_seconds_total", processing);
        let since = "Unix time at which processing of the running message started, in seconds; 0 while idle";
        Self {
            messages: with_values(messages, &MESSAGE_OUTCOMES),
            queue_wait: queue_wait.with_label_values::<&str>(&[]),
            task_seconds,
            stage_seconds,
            audio_seconds,
            audio_processing_seconds,
            webhooks: webhooks(&mut families),
            commits,
            rebalances,
            dead_letters: with_values(dead_letters, &DEAD_LETTER_REASONS),
            busy: families.register(IntGauge::new("separation_busy", "1 while a message is processed")),
            busy_since: families.register(Gauge::new("separation_busy_since_timestamp_seconds", since)),
            holds: Holds::register(&mut families),
            families,
        }
    }

    /// Dependencies that currently refuse this worker.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Records how long a message was queued before its first attempt started.
    pub fn queued(&self, wait: Duration) {
        self.queue_wait.observe(wait.as_secs_f64());
    }

    /// Records that processing of a message started at `unix_seconds`.
    pub fn message_begun(&self, unix_seconds: f64) {
        self.busy.set(1);
        self.busy_since.set(unix_seconds);
    }

    /// Counts a message by outcome, with its duration.
    pub fn message_ended(&self, outcome: &'static str, after: Duration) {
        debug_assert!(
            MESSAGE_OUTCOMES.contains(&outcome),
            "{outcome} has no initial series"
        );
        self.busy.set(0);
        self.busy_since.set(0.0);
        self.messages.with_label_values(&[outcome]).inc();
        self.task_seconds
            .with_label_values(&[outcome])
            .observe(after.as_secs_f64());
    }

    /// Records the duration of a stage, whether it succeeded or failed.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stage_seconds
            .with_label_values(&[stage])
            .observe(took.as_secs_f64());
    }

    /// Counts a separated song: its length in seconds, and how long separating it took.
    pub fn separated(&self, audio_seconds: f64, took: Duration) {
        self.audio_seconds.inc_by(audio_seconds);
        self.audio_processing_seconds.inc_by(took.as_secs_f64());
    }

    /// Counts a webhook: `delivered` or `failed`.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks.with_label_values(&[outcome]).inc();
    }

    /// Counts a commit response.
    pub fn commit(&self, result: &'static str) {
        self.commits.with_label_values(&[result]).inc();
    }

    /// Counts a change of the assignment.
    pub fn rebalance(&self, kind: &'static str) {
        self.rebalances.with_label_values(&[kind]).inc();
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, reason: &'static str) {
        debug_assert!(
            DEAD_LETTER_REASONS.contains(&reason),
            "{reason} has no initial series"
        );
        self.dead_letters.with_label_values(&[reason]).inc();
    }

    /// The metric families.
    pub fn families(&self) -> Families {
        self.families.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn has(families: &Families, lines: &[&str]) {
        let text = String::from_utf8(families.text()).expect("text");
        for line in lines {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn recorded_metrics_are_in_the_text_output() {
        let metrics = Metrics::new();
        metrics.message_begun(12.0);
        metrics.message_ended("done", Duration::from_secs(2));
        metrics.stage("separate", Duration::from_secs(1));
        let lines = [
            "separation_messages_total{outcome=\"done\"} 1",
            "separation_busy 0",
            "separation_task_seconds_bucket{outcome=\"done\",le=\"2.5\"} 1",
            "separation_stage_seconds_count{stage=\"separate\"} 1",
        ];
        has(&metrics.families(), &lines);
    }

    #[test]
    fn counters_that_alerts_watch_begin_with_0() {
        let lines = [
            "separation_messages_total{outcome=\"dead_letter\"} 0",
            "separation_dead_letters_total{reason=\"worker_crashes\"} 0",
            "separation_webhooks_total{outcome=\"failed\"} 0",
        ];
        has(&Metrics::new().families(), &lines);
        has(&ApiMetrics::new().families(), &lines[2..]);
    }
}
