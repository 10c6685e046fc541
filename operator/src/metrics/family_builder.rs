//! Creates and registers metric families.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Buckets from a millisecond to half a minute, the longest deadline of a reading.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Creates and registers metric families. Their names are valid and unique.
#[derive(Clone, Copy)]
pub(super) struct FamilyBuilder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) names: &'a RefCell<Vec<String>>,
}

impl FamilyBuilder<'_> {
    pub(super) fn counters(self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histograms(self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn register<C: Collector + Clone + 'static>(self, family: prometheus::Result<C>) -> C {
        let family = family.expect("the name and the labels are valid");
        let names = family.desc().into_iter().map(|desc| desc.fq_name.clone());
        self.names.borrow_mut().extend(names);
        self.registry
            .register(Box::new(family.clone()))
            .expect("the name is not taken");
        family
    }
}
