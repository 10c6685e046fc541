//! Counters and durations of a role, in Prometheus' words. Labels come from fixed sets of words.

use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::holds::Holds;

/// Buckets from a hundredth of a second to ten minutes, the longest task.
const SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Counters and durations of one role; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    messages: IntCounterVec,
    task_seconds: HistogramVec,
    stage_seconds: HistogramVec,
    commits: IntCounterVec,
    rebalances: IntCounterVec,
    dead_letters: IntCounterVec,
    requests: IntCounterVec,
    busy: IntGauge,
    busy_since: Gauge,
    holds: Holds,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label]).expect("the name is valid");
            registry
                .register(Box::new(counter.clone()))
                .expect("the name is not taken");
            counter
        };
        let histogram = |name: &str, help: &str, label: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let histogram = HistogramVec::new(options, &[label]).expect("the name is valid");
            registry
                .register(Box::new(histogram.clone()))
                .expect("the name is not taken");
            histogram
        };
        let messages = counter(
            "separation_messages_total",
            "Messages that ended, by what became of them",
            "outcome",
        );
        let task_seconds = histogram(
            "separation_task_seconds",
            "From taking a message to committing it",
            "outcome",
        );
        let stage_seconds = histogram("separation_stage_seconds", "Duration of each stage", "stage");
        let commits = counter(
            "separation_commits_total",
            "Offsets committed, by result",
            "result",
        );
        let rebalances = counter(
            "separation_rebalances_total",
            "Changes of the assignment, by kind",
            "kind",
        );
        let dead_letters = counter(
            "separation_dead_letters_total",
            "Messages that nobody can work on, by reason",
            "reason",
        );
        let requests = counter(
            "separation_requests_total",
            "Requests to the API, by status",
            "status",
        );
        let busy = IntGauge::new("separation_busy", "1 while a message is worked on").expect("valid");
        let busy_since = Gauge::new(
            "separation_busy_since_seconds",
            "When the running message was taken, in seconds since 1970; 0 while idle",
        )
        .expect("valid");
        for gauge in [
            Box::new(busy.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(busy_since.clone()),
        ] {
            registry.register(gauge).expect("the name is not taken");
        }
        let holds = Holds::register(&registry);
        Self {
            registry,
            messages,
            task_seconds,
            stage_seconds,
            commits,
            rebalances,
            dead_letters,
            requests,
            busy,
            busy_since,
            holds,
        }
    }

    /// Dependencies that refuse this worker now.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// A message was taken, at `unix_seconds`.
    pub fn message_begun(&self, unix_seconds: f64) {
        self.busy.set(1);
        self.busy_since.set(unix_seconds);
    }

    /// A message's work ended.
    pub fn message_ended(&self, outcome: &'static str, after: Duration) {
        self.busy.set(0);
        self.busy_since.set(0.0);
        self.messages.with_label_values(&[outcome]).inc();
        self.task_seconds
            .with_label_values(&[outcome])
            .observe(after.as_secs_f64());
    }

    /// A stage ended, well or badly.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stage_seconds
            .with_label_values(&[stage])
            .observe(took.as_secs_f64());
    }

    /// A commit was answered.
    pub fn commit(&self, result: &'static str) {
        self.commits.with_label_values(&[result]).inc();
    }

    /// The assignment changed.
    pub fn rebalance(&self, kind: &'static str) {
        self.rebalances.with_label_values(&[kind]).inc();
    }

    /// A message became a dead letter.
    pub fn dead_letter(&self, reason: &'static str) {
        self.dead_letters.with_label_values(&[reason]).inc();
    }

    /// A request was answered.
    pub fn request(&self, status: u16) {
        self.requests.with_label_values(&[&status.to_string()]).inc();
    }

    /// All of it, in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Only a broken pipe could fail, and this is memory.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_can_be_read() {
        let metrics = Metrics::new();
        metrics.message_begun(12.0);
        metrics.message_ended("success", Duration::from_secs(2));
        metrics.stage("separate", Duration::from_secs(1));
        let text = String::from_utf8(metrics.text()).expect("text");
        for line in [
            "separation_messages_total{outcome=\"success\"} 1",
            "separation_busy 0",
            "separation_task_seconds_bucket{outcome=\"success\",le=\"2.5\"} 1",
            "separation_stage_seconds_count{stage=\"separate\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
