//! Dependencies that currently refuse this worker, as metrics, `/ready` and the offset metadata report them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{IntCounterVec, IntGaugeVec};
use separation_contract::offset_metadata::Hold;
use separation_daemon::Families;
use tokio::sync::watch;

use crate::clock::unix_time;

/// Dependencies that currently refuse this worker; clones share them.
#[derive(Debug, Clone)]
pub struct Holds {
    held: Arc<watch::Sender<BTreeMap<String, Held>>>,
    gauge: IntGaugeVec,
    counter: IntCounterVec,
}

/// Time of the first refusal, in Unix seconds, and the fix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    since: u64,
    fix: &'static str,
}

/// Notifies of changes of [`Holds`].
#[derive(Debug)]
pub struct HoldChanges(watch::Receiver<BTreeMap<String, Held>>);

impl HoldChanges {
    /// Waits until a dependency is set or cleared since the last call.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Holds {
    pub(super) fn register(families: &mut Families) -> Self {
        Self {
            held: Arc::new(watch::Sender::default()),
            gauge: families.gauges(
                "separation_held",
                "1 while a dependency refuses this worker, by dependency and error code, such as s3:403",
                &["dependency"],
            ),
            counter: families.counters(
                "separation_holds_total",
                "Number of times a dependency started to refuse this worker, by dependency and error code",
                &["dependency"],
            ),
        }
    }

    /// Records that `dependency` refuses this worker. Keeps the time of the first refusal in a row.
    pub fn set(&self, dependency: &str, fix: &'static str) -> Hold {
        self.set_at(dependency, fix, unix_time().as_secs())
    }

    fn set_at(&self, dependency: &str, fix: &'static str, now: u64) -> Hold {
        let mut since = now;
        self.held.send_if_modified(|held| {
            if let Some(before) = held.get(dependency) {
                since = before.since;
                return false;
            }
            held.insert(dependency.to_owned(), Held { since, fix });
            self.gauge.with_label_values(&[dependency]).set(1);
            self.counter.with_label_values(&[dependency]).inc();
            true
        });
        Hold::new(dependency, since)
    }

    /// Records that `dependency` no longer refuses this worker. Returns whether it did.
    pub fn clear(&self, dependency: &str) -> bool {
        self.held.send_if_modified(|held| {
            let cleared = held.remove(dependency).is_some();
            if cleared {
                // The error, a missing series, cannot occur: the series exists while the dependency is recorded.
                let _ = self.gauge.remove_label_values(&[dependency]);
            }
            cleared
        })
    }

    /// All refusing dependencies, sorted by name.
    pub fn list(&self) -> Vec<Hold> {
        self.reports().into_iter().map(|(hold, _)| hold).collect()
    }

    /// All refusing dependencies, sorted by name, each with its fix.
    pub fn reports(&self) -> Vec<(Hold, &'static str)> {
        let held = self.held.borrow();
        held.iter()
            .map(|(name, held)| (Hold::new(name, held.since), held.fix))
            .collect()
    }

    /// Subscribes to changes from now on.
    pub fn changes(&self) -> HoldChanges {
        HoldChanges(self.held.subscribe())
    }
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
        assert_eq!(holds.set_at("s3:403", "grant it", 10), Hold::new("s3:403", 10));
        assert_eq!(holds.set_at("s3:403", "grant it", 20), Hold::new("s3:403", 10));
        holds.set_at("kafka:29", "allow it", 30);
        assert_eq!(holds.list(), [Hold::new("kafka:29", 30), Hold::new("s3:403", 10)]);
        assert_eq!(holds.reports()[1].1, "grant it");
        assert!(text().contains(line));
        assert!(holds.clear("s3:403"));
        assert!(!holds.clear("s3:403"));
        assert!(!text().contains(line));
        assert!(text().contains("separation_holds_total{dependency=\"s3:403\"} 1"));
        assert_eq!(holds.list(), [Hold::new("kafka:29", 30)]);
    }
}
