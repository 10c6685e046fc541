//! Metric families: registered once, written in the Prometheus text format.

use std::sync::Arc;

use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricType;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The metric families of a process, as `/metrics` serves them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Families {
    registry: Registry,
    all: Arc<Vec<Family>>,
}

/// The description of a metric family.
#[derive(Debug, Clone)]
pub struct Family {
    /// The name.
    pub name: String,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// The help text.
    pub help: String,
}

impl Families {
    /// The families of every process, with their samples: its program's version; and on Linux its CPU time, memory,
    /// threads, open files and start.
    ///
    /// # Panics
    /// Never: names and labels are fixed and valid.
    #[must_use]
    pub fn of_process(version: &str) -> Self {
        let mut families = Self::default();
        let help = "1, with the program's version as a label";
        let build = families.gauges("separation_build_info", help, &["version"]);
        build.with_label_values(&[version]).set(1);
        #[cfg(target_os = "linux")]
        families.register_collector(ProcessCollector::for_self());
        families
    }

    /// All families, including those that have no samples yet.
    #[must_use]
    pub fn all(&self) -> &[Family] {
        &self.all
    }

    /// Adds families that are written elsewhere.
    pub fn add(&mut self, families: impl IntoIterator<Item = Family>) {
        Arc::make_mut(&mut self.all).extend(families);
    }

    /// All samples in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// Registers a family.
    ///
    /// # Panics
    /// When its name is not valid or not unique.
    pub fn register<C: Collector + Clone + 'static>(&mut self, family: prometheus::Result<C>) -> C {
        let family = family.expect("the name is valid");
        self.register_collector(family.clone());
        family
    }

    fn register_collector(&mut self, collector: impl Collector + 'static) {
        let collected = collector.collect().into_iter().zip(collector.desc());
        self.add(collected.map(|(samples, desc)| Family {
            name: desc.fq_name.clone(),
            kind: samples.get_field_type(),
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        }));
        self.registry
            .register(Box::new(collector))
            .expect("the name is unique");
    }

    /// Registers a family of counters.
    pub fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Registers a family of gauges.
    pub fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Registers a family of histograms of durations, with these buckets.
    pub fn durations(&mut self, name: &str, help: &str, labels: &[&str], seconds: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(seconds.to_vec());
        self.register(HistogramVec::new(options, labels))
    }
}
