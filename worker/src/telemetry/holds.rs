//! Dependencies that refuse this worker now, as metrics, `/ready` and the record beside committed offsets report them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntGaugeVec, Opts};
use separation_contract::offset_metadata::Hold;

use super::metrics::Families;

/// Dependencies that refuse this worker now; clones share them.
#[derive(Debug, Clone)]
pub struct Holds {
    since: Arc<Mutex<BTreeMap<String, u64>>>,
    gauge: IntGaugeVec,
}

impl Holds {
    pub(super) fn register(families: &mut Families) -> Self {
        const NAME: &str = "separation_held";
        let options = Opts::new(
            NAME,
            "1 while a dependency refuses this worker, by dependency and code, such as s3:403",
        );
        Self {
            since: Arc::default(),
            gauge: families.register(NAME, IntGaugeVec::new(options, &["dependency"])),
        }
    }

    /// `dependency` refuses this worker. The time of the first refusal in a row is kept.
    pub fn set(&self, dependency: &str) -> Hold {
        self.set_at(dependency, unix_seconds())
    }

    fn set_at(&self, dependency: &str, now: u64) -> Hold {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *since.entry(dependency.to_owned()).or_insert(now);
        self.gauge.with_label_values(&[dependency]).set(1);
        Hold::new(dependency, first)
    }

    /// `dependency` does not refuse this worker any more. Gives whether it did.
    pub fn clear(&self, dependency: &str) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let held = since.remove(dependency).is_some();
        if held {
            // The series may only be missing if it was removed with this very dependency.
            let _ = self.gauge.remove_label_values(&[dependency]);
        }
        held
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Hold> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since
            .iter()
            .map(|(name, since)| Hold::new(name, *since))
            .collect()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_dependency_is_held_since_its_first_refusal_until_it_is_cleared() {
        let metrics = Metrics::new();
        let holds = metrics.holds();
        let line = "separation_held{dependency=\"s3:403\"} 1";
        let text = || String::from_utf8(metrics.families().text()).expect("text");
        assert_eq!(holds.set_at("s3:403", 10), Hold::new("s3:403", 10));
        assert_eq!(holds.set_at("s3:403", 20), Hold::new("s3:403", 10));
        holds.set_at("kafka:29", 30);
        assert_eq!(holds.list(), [Hold::new("kafka:29", 30), Hold::new("s3:403", 10)]);
        assert!(text().contains(line));
        assert!(holds.clear("s3:403"));
        assert!(!holds.clear("s3:403"));
        assert!(!text().contains(line));
        assert_eq!(holds.list(), [Hold::new("kafka:29", 30)]);
    }
}
