//! Dependencies that refuse a role's workers: from the workers' reports in the metadata of committed offsets, and from
//! ready pods that are not members of their group. Pure.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use separation_contract::offset_metadata::Hold;

use crate::decide::{GroupReading, Moment, PodName};

/// The most pods, and the most dependencies, that are named.
const MAX_NAMED: usize = 3;

/// A dependency of workers, as conditions name it; the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// Kafka rejects the user, or a write.
    Kafka,
    /// The object store or the volume fails a request.
    Store,
    /// The model cannot be loaded.
    Model,
    /// Ready pods are not members of the group.
    Membership,
}

impl Dependency {
    /// The reason of the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Kafka => "KafkaRefused",
            Self::Store => "StoreRefused",
            Self::Model => "ModelUnavailable",
            Self::Membership => "WorkersNotMembers",
        }
    }

    /// Parses a worker's report, such as `s3:403`.
    fn from_report(report: &str) -> Self {
        match report.split(':').next() {
            Some("kafka") => Self::Kafka,
            Some("model") => Self::Model,
            _ => Self::Store,
        }
    }

    fn fix(self, report: &str) -> &'static str {
        match self {
            Self::Kafka => {
                "allow the workers' Kafka user to write the result topic and the dead-letter topic, and to read the group"
            }
            Self::Model => "check spec.processor.model, and the volume or the image that contains the model",
            Self::Membership => {
                "read the pods' logs (kubectl logs), and check the Kafka Secret and that the user may read the group"
            }
            Self::Store => store_fix(report),
        }
    }
}

/// The fix for a store, a volume or a scratch disk, with the names of the pool's fields.
fn store_fix(report: &str) -> &'static str {
    let (kind, code) = report.split_once(':').unwrap_or((report, ""));
    match (kind, code) {
        ("scratch", _) => {
            "make room for ephemeral storage on the nodes, or lower spec.storage.scratchSizeLimit"
        }
        ("volume", "ENOSPC" | "EDQUOT") => "make room on the volume of the PersistentVolumeClaim",
        ("volume", _) => "check the PersistentVolumeClaim, and that user 65532 may read and write it",
        (_, "NoSuchBucket") => "create the bucket, or correct spec.storage.stems.bucket",
        (_, "404") => "correct spec.storage.s3.endpoint: another server answers there",
        (_, "timeout" | "unreachable") => "make the object store reachable from the pods",
        _ => "check the Secret of spec.storage.s3, the bucket's policy and the endpoint",
    }
}

/// A dependency that refuses workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of dependency.
    pub dependency: Dependency,
    /// The failure, since when, and the fix.
    pub message: String,
}

/// The refusals that workers report in the metadata of their committed offsets: for each dependency, the number of
/// partitions and the earliest time.
pub fn reported_refusals(holds: &[Hold]) -> Vec<Refusal> {
    let mut by_name: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for hold in holds {
        let (partitions, since) = by_name.entry(hold.dependency()).or_insert((0, hold.since));
        *partitions += 1;
        *since = (*since).min(hold.since);
    }
    let each = by_name.into_iter().map(|(name, (partitions, since))| {
        let dependency = Dependency::from_report(name);
        let since = i64::try_from(since).ok().and_then(|since| Timestamp::from_second(since).ok());
        let since = since.map_or_else(String::new, |since| format!(" since {since}"));
        Refusal {
            dependency,
            message: format!(
                "{name} refuses workers on {partitions} partitions{since}; their messages are kept and retried; fix: {}",
                dependency.fix(name)
            ),
        }
    });
    let mut refusals: Vec<_> = each.collect();
    refusals.sort_by_key(|refusal| refusal.dependency);
    refusals.truncate(MAX_NAMED);
    refusals
}

/// The refusal to report when the operator cannot read Kafka, because it is not authorized or has no credentials. It
/// usually has those of the workers.
pub fn refused_by_kafka(why: &str) -> Refusal {
    Refusal {
        dependency: Dependency::Kafka,
        message: format!("Kafka cannot be read: {why}"),
    }
}

/// The oldest report, for decisions: until it is cleared, replicas are not raised.
pub fn oldest_refusal(holds: &[Hold]) -> Option<Arc<str>> {
    let oldest = holds.iter().min_by_key(|hold| hold.since)?;
    Some(format!("{} refuses a worker", oldest.dependency()).into())
}

/// Ready pods that are not members of their group, and since when.
#[derive(Debug, Clone, Default)]
pub struct NonMembers {
    since: BTreeMap<PodName, Moment>,
}

impl NonMembers {
    /// Records the ready pods and the members. While the group rebalances or cannot be read, membership is unknown and
    /// nothing changes.
    pub fn record(&mut self, ready: &HashSet<&PodName>, group: &GroupReading) {
        self.since.retain(|name, _| ready.contains(name));
        let GroupReading::Stable { at, members } = group else {
            return;
        };
        let members: HashSet<&PodName> = members.iter().map(|member| &member.pod).collect();
        for pod in ready {
            if members.contains(pod) {
                self.since.remove(*pod);
            } else {
                self.since.entry((*pod).clone()).or_insert(*at);
            }
        }
    }

    /// The number of pods that have not been members of a stable group for a session timeout.
    pub fn count(&self, session_timeout: Duration, now: Moment) -> u32 {
        u32::try_from(self.overdue(session_timeout, now).len()).unwrap_or(u32::MAX)
    }

    /// The pods that have not been members of a stable group for a session timeout.
    fn overdue(&self, session_timeout: Duration, now: Moment) -> Vec<&PodName> {
        let overdue = self
            .since
            .iter()
            .filter(|(_, since)| now.since(**since) >= session_timeout);
        overdue.map(|(name, _)| name).collect()
    }

    /// Whether no ready pod has been a member of a stable group for a session timeout: more workers would not join
    /// either.
    pub fn include_all_ready(&self, ready: u32, session_timeout: Duration, now: Moment) -> bool {
        ready > 0 && self.count(session_timeout, now) == ready
    }

    /// The refusal to report for pods that have not been members of a stable group for a session timeout: a worker is
    /// ready when its Kafka client runs, joins in the next rebalance, and rejoins within that time.
    pub fn refusal(
        &self,
        group: &str,
        ready: u32,
        session_timeout: Duration,
        now: Moment,
    ) -> Option<Refusal> {
        let overdue = self.overdue(session_timeout, now);
        if overdue.is_empty() {
            return None;
        }
        let mut names = overdue
            .iter()
            .take(MAX_NAMED)
            .map(|name| name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        if overdue.len() > MAX_NAMED {
            let _ = write!(names, " and {} more", overdue.len() - MAX_NAMED);
        }
        Some(Refusal {
            dependency: Dependency::Membership,
            message: format!(
                "{} of {ready} ready pods have not been members of consumer group {group} for {} s ({names}); fix: {}",
                overdue.len(),
                session_timeout.as_secs(),
                Dependency::Membership.fix("")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Member, MemberWork};

    #[test]
    fn reports_of_one_dependency_are_one_with_the_earliest_time_and_its_fix() {
        let holds = [
            Hold::new("s3:403", 1_767_225_660),
            Hold::new("kafka:29", 1_767_225_720),
            Hold::new("s3:403", 1_767_225_600),
        ];
        let found = reported_refusals(&holds);
        let kinds: Vec<_> = found.iter().map(|refusal| refusal.dependency).collect();
        assert_eq!(kinds, [Dependency::Kafka, Dependency::Store]);
        assert_eq!(
            found[1].message,
            "s3:403 refuses workers on 2 partitions since 2026-01-01T00:00:00Z; their messages are kept and retried; \
             fix: check the Secret of spec.storage.s3, the bucket's policy and the endpoint"
        );
        assert_eq!(reported_refusals(&[]), []);
        assert_eq!(oldest_refusal(&holds).as_deref(), Some("s3:403 refuses a worker"));
        assert_eq!(oldest_refusal(&[]), None);
    }

    #[test]
    fn each_dependency_has_a_reason_and_a_fix_of_its_own() {
        for (name, reason, fix) in [
            ("kafka:29", "KafkaRefused", "allow the workers' Kafka user"),
            ("s3:NoSuchBucket", "StoreRefused", "create the bucket"),
            ("s3:404", "StoreRefused", "spec.storage.s3.endpoint"),
            ("s3:timeout", "StoreRefused", "reachable"),
            ("volume:EACCES", "StoreRefused", "user 65532"),
            ("volume:ENOSPC", "StoreRefused", "make room on the volume"),
            ("scratch:ENOSPC", "StoreRefused", "scratchSizeLimit"),
            ("model:missing", "ModelUnavailable", "spec.processor.model"),
        ] {
            let found = reported_refusals(&[Hold::new(name, 0)]).remove(0);
            assert_eq!(found.dependency.reason(), reason);
            assert!(found.message.contains(fix), "{}", found.message);
        }
    }

    fn group(at: Moment, members: &[&str]) -> GroupReading {
        let members = members.iter().map(|name| Member {
            pod: (*name).into(),
            work: MemberWork::Partitions(Vec::new()),
        });
        GroupReading::Stable {
            at,
            members: members.collect(),
        }
    }

    #[test]
    fn a_ready_pod_is_reported_after_a_session_timeout_outside_its_stable_group() {
        let at = |seconds: u64| Moment::from_millis(seconds * 1_000);
        let (inside, outside) = (PodName::from("in"), PodName::from("out"));
        let pods = HashSet::from([&inside, &outside]);
        let mut non_members = NonMembers::default();
        let minute = Duration::from_secs(60);
        non_members.record(&pods, &group(at(0), &["in"]));
        assert_eq!(non_members.refusal("g", 2, minute, at(59)), None);
        assert_eq!(non_members.count(minute, at(59)), 0);
        // A rebalance does not change what is known.
        non_members.record(&pods, &GroupReading::Rebalancing { at: at(30) });
        let found = non_members
            .refusal("g", 2, minute, at(60))
            .expect("a minute is over");
        assert_eq!(found.dependency.reason(), "WorkersNotMembers");
        assert!(
            found
                .message
                .starts_with("1 of 2 ready pods have not been members of consumer group g for 60 s (out)"),
            "{}",
            found.message
        );
        assert_eq!(non_members.count(minute, at(60)), 1);
        assert!(!non_members.include_all_ready(2, minute, at(60)));
        assert!(non_members.include_all_ready(1, minute, at(60)));
        // It joins and leaves, and the minute starts again.
        non_members.record(&pods, &group(at(61), &["in", "out"]));
        assert_eq!(non_members.refusal("g", 2, minute, at(61)), None);
        non_members.record(&pods, &group(at(62), &["in"]));
        assert_eq!(non_members.refusal("g", 2, minute, at(100)), None);
        // A pod that is no longer ready is not reported.
        non_members.record(&HashSet::from([&inside]), &group(at(101), &["in"]));
        assert_eq!(non_members.refusal("g", 1, minute, at(200)), None);
    }
}
