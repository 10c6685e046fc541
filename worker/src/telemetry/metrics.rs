//! Counters and durations of a role, in Prometheus' words. Labels come from fixed sets of words.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::holds::Holds;

/// Buckets from a hundredth of a second to ten minutes, the longest task.
const SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// The metric families of one role, as its endpoint shows them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Families {
    registry: Registry,
    names: Vec<String>,
}

impl Families {
    /// Their names, also of those that have no samples yet and are not shown.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All samples, in Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Only a broken pipe could fail, and this is memory.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    pub(super) fn register<C: Collector + Clone + 'static>(&mut self, family: prometheus::Result<C>) -> C {
        let family = family.expect("the name is valid");
        self.registry
            .register(Box::new(family.clone()))
            .expect("the name is not taken");
        self.names
            .extend(family.desc().into_iter().map(|desc| desc.fq_name.clone()));
        family
    }

    fn counter(&mut self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    fn histogram(&mut self, name: &str, help: &str, label: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, &[label]))
    }
}

/// Counters and durations of a processor or an uploader; cheap to clone.
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

/// Counters of the API; cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    holds: Holds,
    families: Families,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiMetrics {
    /// Nothing counted yet.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::default();
        let requests = families.counter(
            "separation_requests_total",
            "Requests to the API, by HTTP status",
            "status",
        );
        Self {
            requests,
            holds: Holds::register(&mut families),
            families,
        }
    }

    /// Dependencies that refuse the API now.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// A request was answered.
    pub fn request(&self, status: u16) {
        self.requests.with_label_values(&[&status.to_string()]).inc();
    }

    /// What was counted.
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
    /// Nothing counted yet.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    pub fn new() -> Self {
        let mut families = Families::default();
        let busy = IntGauge::new("separation_busy", "1 while a message is worked on");
        let busy_since = Gauge::new(
            "separation_busy_since_seconds",
            "When the running message was taken, in seconds since 1970; 0 while idle",
        );
        let holds = Holds::register(&mut families);
        Self {
            messages: families.counter(
                "separation_messages_total",
                "Messages that ended, by what became of them",
                "outcome",
            ),
            task_seconds: families.histogram(
                "separation_task_seconds",
                "From taking a message to committing it",
                "outcome",
            ),
            stage_seconds: families.histogram("separation_stage_seconds", "Duration of each stage", "stage"),
            commits: families.counter(
                "separation_commits_total",
                "Offsets committed, by result",
                "result",
            ),
            rebalances: families.counter(
                "separation_rebalances_total",
                "Changes of the assignment, by kind",
                "kind",
            ),
            dead_letters: families.counter(
                "separation_dead_letters_total",
                "Messages sent to the dead-letter topic, by reason",
                "reason",
            ),
            busy: families.register(busy),
            busy_since: families.register(busy_since),
            holds,
            families,
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

    /// What was counted.
    pub fn families(&self) -> Families {
        self.families.clone()
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
