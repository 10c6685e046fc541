//! Prometheus metrics of a role. Label values come from fixed sets.

use std::time::Duration;

use prometheus::{Gauge, HistogramVec, IntCounterVec, IntGauge};
use separation_daemon::Families;

use super::holds::Holds;

/// Histogram buckets in seconds, up to the longest task of ten minutes.
const SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Metrics of a processor or an uploader; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    families: Families,
    messages: IntCounterVec,
    task_seconds: HistogramVec,
    stage_seconds: HistogramVec,
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
    placements: IntCounterVec,
    holds: Holds,
    families: Families,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiMetrics {
    /// Registers all families, without samples.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::default();
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
    /// Registers all families, without samples.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::default();
        let mut counters = |name, help, label| families.counters(name, help, &[label]);
        let messages = counters(
            "separation_messages_total",
            "Processed messages, by outcome",
            "outcome",
        );
        let commits = counters("separation_commits_total", "Offset commits, by result", "result");
        let kinds = "Changes of the partition assignment, by kind";
        let rebalances = counters("separation_rebalances_total", kinds, "kind");
        let reasons = "Messages sent to the dead-letter topic, by reason";
        let dead_letters = counters("separation_dead_letters_total", reasons, "reason");
        let mut durations = |name, help, label| families.durations(name, help, &[label], &SECONDS);
        let message = "Duration from receiving a message to committing it";
        let task_seconds = durations("separation_task_seconds", message, "outcome");
        let stage_seconds = durations("separation_stage_seconds", "Duration of each stage", "stage");
        let since = "Unix time at which processing of the running message started, in seconds; 0 while idle";
        Self {
            messages,
            task_seconds,
            stage_seconds,
            commits,
            rebalances,
            dead_letters,
            busy: families.register(IntGauge::new("separation_busy", "1 while a message is processed")),
            busy_since: families.register(Gauge::new("separation_busy_since_seconds", since)),
            holds: Holds::register(&mut families),
            families,
        }
    }

    /// Dependencies that currently refuse this worker.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Records that processing of a message started at `unix_seconds`.
    pub fn message_begun(&self, unix_seconds: f64) {
        self.busy.set(1);
        self.busy_since.set(unix_seconds);
    }

    /// Counts a message by outcome, with its duration.
    pub fn message_ended(&self, outcome: &'static str, after: Duration) {
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

    #[test]
    fn recorded_metrics_are_in_the_text_output() {
        let metrics = Metrics::new();
        metrics.message_begun(12.0);
        metrics.message_ended("success", Duration::from_secs(2));
        metrics.stage("separate", Duration::from_secs(1));
        let text = String::from_utf8(metrics.families().text()).expect("text");
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
