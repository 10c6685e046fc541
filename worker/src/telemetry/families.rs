//! Metric families: registered once, written in the Prometheus text format.

use prometheus::core::Collector;
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

/// Histogram buckets in seconds, up to the longest task of ten minutes.
const SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// The metric families of one role, as `/metrics` serves them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Families {
    registry: Registry,
    names: Vec<String>,
}

impl Families {
    /// Their names, including families that have no samples yet.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All samples in the Prometheus text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    pub(super) fn register<C: Collector + Clone + 'static>(&mut self, family: prometheus::Result<C>) -> C {
        let family = family.expect("the name is valid");
        self.registry
            .register(Box::new(family.clone()))
            .expect("the name is unique");
        self.names
            .extend(family.desc().into_iter().map(|desc| desc.fq_name.clone()));
        family
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label]))
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, label: &str) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, &[label]))
    }
}
