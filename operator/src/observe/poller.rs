//! Reads one cluster periodically for its roles, in as few rounds as their intervals allow.
//!
//! Roles with the same interval are read in one round, whenever they were added: a thousand pools cost one request, not
//! a thousand. All results of a round are sent together. Roles may be added, changed and removed at any time.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use separation_kafka::{Cluster, Deadline, ReadError, ReadErrorKind};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{LagReader, Query, QueryResult, read_groups};
use crate::clock::Clock;
use crate::decide::{GroupReading, Lag, Moment};
use crate::metrics::{ClusterMetrics, KafkaFailure};

/// The shortest and the longest deadline of a round.
const MIN_ROUND: Duration = Duration::from_secs(1);
const MAX_ROUND: Duration = Duration::from_secs(10);

/// How often members of a group that should have none are read: another client may have joined.
const IDLE_MEMBERS_INTERVAL: Duration = Duration::from_secs(60);

/// A role's query, and how often it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleQuery {
    /// The topic and group.
    pub query: Query,
    /// `lagCheckPeriodSeconds`.
    pub interval: Duration,
    /// How often members are read.
    pub members: MembersRead,
}

/// How often a group's members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersRead {
    /// In each round.
    Always,
    /// Every minute.
    Rarely,
}

/// The result of a round for a role.
#[derive(Debug, Clone)]
pub struct Polled<K> {
    /// The role.
    pub key: K,
    /// The cluster that was read: the role's servers or credentials may have changed since.
    pub cluster: Arc<Cluster>,
    /// The query of the round; it may have changed since.
    pub query: Query,
    /// When the round began.
    pub at: Moment,
    /// Lag, offsets, and the refusals that workers report.
    pub result: QueryResult,
    /// The members; [`GroupReading::NotRead`] if they were not due.
    pub group: GroupReading,
}

/// Handle of a task that reads one cluster. Dropping it stops the task.
#[derive(Debug)]
pub struct Poller<K> {
    shared: Arc<SharedRoles<K>>,
    rounds: JoinHandle<()>,
}

#[derive(Debug)]
struct SharedRoles<K> {
    roles: Mutex<BTreeMap<K, Entry>>,
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    role_query: RoleQuery,
    read_at: Option<Moment>,
    members_at: Option<Moment>,
}

impl<K> Drop for Poller<K> {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}

impl<K: Ord + Clone + Send + 'static> Poller<K> {
    /// Starts the task. The results of each round are sent to `send`.
    pub fn start(
        reader: LagReader,
        clock: Clock,
        send: mpsc::Sender<Vec<Polled<K>>>,
        metrics: ClusterMetrics,
    ) -> Self {
        let shared = Arc::new(SharedRoles {
            roles: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
        });
        let rounds = Rounds {
            reader,
            shared: Arc::clone(&shared),
            clock,
            send,
            metrics,
        };
        Self {
            shared,
            rounds: tokio::spawn(rounds.run()),
        }
    }

    /// Adds a role, or changes its query, interval or members.
    pub fn set_query(&self, key: &K, role_query: RoleQuery) {
        let mut all = self.shared.lock();
        match all.get_mut(key) {
            Some(entry) if entry.role_query == role_query => return,
            Some(entry) => {
                // A changed query is read immediately; a changed interval or `members` applies from the next round.
                if entry.role_query.query != role_query.query {
                    entry.read_at = None;
                }
                entry.role_query = role_query;
            }
            None => {
                all.insert(
                    key.clone(),
                    Entry {
                        role_query,
                        read_at: None,
                        members_at: None,
                    },
                );
            }
        }
        drop(all);
        self.shared.changed.notify_one();
    }

    /// Removes a role.
    pub fn remove(&self, key: &K) {
        self.shared.lock().remove(key);
    }
}

impl<K> SharedRoles<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Entry>> {
        // Nothing panics while it is held.
        self.roles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next round, or when it is due.
enum NextRound<K> {
    Round(Round<K>),
    At(Moment),
    NoRoles,
}

struct Round<K> {
    roles: Vec<(K, Query)>,
    /// Indices of roles whose members are read.
    members: Vec<usize>,
    time_limit: Duration,
}

struct Rounds<K> {
    reader: LagReader,
    shared: Arc<SharedRoles<K>>,
    clock: Clock,
    send: mpsc::Sender<Vec<Polled<K>>>,
    metrics: ClusterMetrics,
}

impl<K: Ord + Clone + Send + 'static> Rounds<K> {
    async fn run(mut self) {
        loop {
            let now = self.clock.now();
            let due = take_due(&mut self.shared.lock(), now);
            match due {
                NextRound::Round(round) => {
                    let roles = round.roles.clone();
                    // A panic caused by a response must affect only this cluster's pools.
                    let read = AssertUnwindSafe(self.read(round, now)).catch_unwind().await;
                    let polled = read.unwrap_or_else(|_| {
                        self.reader.reset();
                        self.metrics.failed(KafkaFailure::Other);
                        panic_results(roles, self.reader.cluster(), now)
                    });
                    if self.send.send(polled).await.is_err() {
                        return;
                    }
                }
                NextRound::At(at) => {
                    tokio::select! {
                        () = tokio::time::sleep(at.since(now)) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
                NextRound::NoRoles => self.shared.changed.notified().await,
            }
        }
    }

    async fn read(&mut self, round: Round<K>, at: Moment) -> Vec<Polled<K>> {
        let deadline = Deadline::after(round.time_limit);
        let queries: Vec<Query> = round.roles.iter().map(|(_, query)| query.clone()).collect();
        let found = self.reader.read(&queries, at, &deadline).await;
        let groups: Vec<_> = round
            .members
            .iter()
            .map(|index| {
                (
                    Arc::clone(&queries[*index].group),
                    Arc::clone(&queries[*index].topic),
                )
            })
            .collect();
        let members = if groups.is_empty() {
            Vec::new()
        } else {
            read_groups(self.reader.cluster(), &groups, at, &deadline).await
        };
        let took = self.clock.now().since(at);
        self.metrics.read(took);
        self.metrics.connections(self.reader.cluster().connections_open());
        if let Some(failure) = failure(&found, &members) {
            self.metrics.failed(failure);
        }
        let mut polled: Vec<_> = round
            .roles
            .into_iter()
            .zip(found)
            .map(|((key, query), found)| Polled {
                key,
                cluster: Arc::clone(self.reader.cluster()),
                query,
                at,
                result: found,
                group: GroupReading::NotRead,
            })
            .collect();
        for (index, group) in round.members.into_iter().zip(members) {
            polled[index].group = group;
        }
        polled
    }
}

/// How a round failed, if it did: `Refused` if that is the cause for a role with unknown lag, because no retry helps; or
/// else the cause for the first such role, or `Partial`.
fn failure(found: &[QueryResult], members: &[GroupReading]) -> Option<KafkaFailure> {
    let unknown = found
        .iter()
        .filter(|found| matches!(found.lag.lag, Lag::Unknown { .. }));
    let causes = unknown.map(|found| match found.error.as_ref().map(|error| error.kind) {
        Some(ReadErrorKind::Unreachable | ReadErrorKind::TimedOut) => KafkaFailure::Unreachable,
        Some(ReadErrorKind::Unauthorized) => KafkaFailure::Refused,
        Some(
            ReadErrorKind::Refused(_)
            | ReadErrorKind::Unsupported
            | ReadErrorKind::NoCommonVersion
            | ReadErrorKind::Malformed
            | ReadErrorKind::Other,
        )
        | None => KafkaFailure::Other,
    });
    // The first one of equals.
    let cause = causes.min_by_key(|cause| *cause != KafkaFailure::Refused);
    if cause.is_some() {
        return cause;
    }
    let is_partial = found
        .iter()
        .any(|found| matches!(found.lag.lag, Lag::Partial { .. }))
        || members
            .iter()
            .any(|group| matches!(group, GroupReading::Unknown { .. }));
    is_partial.then_some(KafkaFailure::Partial)
}

/// The results of a round that panicked: everything is unknown.
fn panic_results<K>(roles: Vec<(K, Query)>, cluster: &Arc<Cluster>, at: Moment) -> Vec<Polled<K>> {
    let error = ReadError::new("a bug: reading Kafka panicked; fix: report it with the operator's log");
    let each = roles.into_iter().map(|(key, query)| Polled {
        key,
        cluster: Arc::clone(cluster),
        query,
        at,
        result: QueryResult::failed(Arc::clone(&error.why), error.clone()),
        group: GroupReading::Unknown {
            at,
            why: Arc::clone(&error.why),
        },
    });
    each.collect()
}

/// Takes the roles that are due, or returns when the first one will be.
fn take_due<K: Clone>(roles: &mut BTreeMap<K, Entry>, now: Moment) -> NextRound<K> {
    let mut round = Round {
        roles: Vec::new(),
        members: Vec::new(),
        time_limit: MAX_ROUND,
    };
    let mut earliest: Option<Moment> = None;
    for (key, entry) in roles {
        let due = entry.due();
        if due > now {
            earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
            continue;
        }
        entry.read_at = Some(now);
        let members_due = entry.members_at.is_none_or(|at| {
            entry.role_query.members == MembersRead::Always || now.since(at) >= IDLE_MEMBERS_INTERVAL
        });
        if members_due {
            entry.members_at = Some(now);
            round.members.push(round.roles.len());
        }
        round.time_limit = round.time_limit.min(entry.role_query.interval);
        round.roles.push((key.clone(), entry.role_query.query.clone()));
    }
    if round.roles.is_empty() {
        return earliest.map_or(NextRound::NoRoles, NextRound::At);
    }
    round.time_limit = round.time_limit.max(MIN_ROUND);
    NextRound::Round(round)
}

impl Entry {
    /// When it is read next: immediately, or at the next multiple of its interval, so that roles with the same interval
    /// share a round.
    fn due(&self) -> Moment {
        let Some(read_at) = self.read_at else {
            return Moment::default();
        };
        // Intervals are between 0.1 s and 300 s.
        let interval = u64::try_from(self.role_query.interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        Moment::from_millis((read_at.as_millis() / interval + 1).saturating_mul(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::LagByPartition;
    use crate::observe::Adoption;
    use crate::observe::LagWithAnomalies;
    use separation_contract::kafka::OffsetReset;

    fn entry(topic: &str, interval_ms: u64, members: MembersRead) -> Entry {
        Entry {
            role_query: RoleQuery {
                query: Query {
                    topic: topic.into(),
                    group: "group".into(),
                    adoption: Adoption::pending(OffsetReset::Latest),
                    start_deadline: None,
                },
                interval: Duration::from_millis(interval_ms),
                members,
            },
            read_at: None,
            members_at: None,
        }
    }

    #[track_caller]
    fn check(all: &mut BTreeMap<&'static str, Entry>, at_ms: u64, roles: &[&str], members: &[usize]) {
        match take_due(all, Moment::from_millis(at_ms)) {
            NextRound::Round(round) => {
                let found: Vec<_> = round.roles.iter().map(|(key, _)| *key).collect();
                assert_eq!(
                    (&found[..], &round.members[..]),
                    (roles, members),
                    "at {at_ms} ms"
                );
            }
            _ => assert!(roles.is_empty(), "nothing is due at {at_ms} ms"),
        }
    }

    #[test]
    fn roles_with_the_same_interval_share_a_round_whenever_they_were_added() {
        let mut all = BTreeMap::from([("early", entry("a", 2_000, MembersRead::Rarely))]);
        check(&mut all, 500, &["early"], &[0]);
        all.insert("late", entry("b", 2_000, MembersRead::Always));
        check(&mut all, 1_300, &["late"], &[0]);
        check(&mut all, 1_999, &[], &[]);
        // Members are read in each round for `Always`, and once a minute for `Rarely`.
        check(&mut all, 2_000, &["early", "late"], &[1]);
        check(&mut all, 4_003, &["early", "late"], &[1]);
        check(&mut all, 60_500, &["early", "late"], &[0, 1]);
    }

    #[test]
    fn missed_rounds_are_not_caught_up() {
        let mut all = BTreeMap::from([("a", entry("a", 1_000, MembersRead::Rarely))]);
        check(&mut all, 1_000, &["a"], &[0]);
        check(&mut all, 7_800, &["a"], &[]);
        check(&mut all, 7_900, &[], &[]);
        check(&mut all, 8_000, &["a"], &[]);
        assert!(matches!(
            take_due(&mut all, Moment::from_millis(8_100)),
            NextRound::At(at) if at == Moment::from_millis(9_000)
        ));
    }

    #[test]
    fn roles_with_different_intervals_are_read_at_their_own_intervals() {
        let mut all = BTreeMap::from([
            ("fast", entry("a", 250, MembersRead::Rarely)),
            ("slow", entry("b", 1_000, MembersRead::Rarely)),
        ]);
        check(&mut all, 0, &["fast", "slow"], &[0, 1]);
        check(&mut all, 250, &["fast"], &[]);
        check(&mut all, 1_000, &["fast", "slow"], &[]);
    }

    fn result(lag: Lag, error: Option<ReadError>) -> QueryResult {
        QueryResult {
            topic: None,
            offsets: None,
            lag: LagWithAnomalies {
                lag,
                anomalies: Vec::new(),
            },
            error,
            holds: Vec::new(),
            finished: Vec::new(),
            queue: None,
        }
    }

    #[test]
    fn a_failed_round_has_the_cause_of_the_first_role_with_unknown_lag_or_of_a_refused_one() {
        let unknown = |kind| {
            let error = ReadError::with_kind("", kind);
            result(Lag::Unknown { why: "".into() }, Some(error))
        };
        let known = || result(Lag::Known(LagByPartition::from_messages([1])), None);
        let partial = || {
            let (known, missing, why) = (LagByPartition::from_messages([1]), 1, "".into());
            let error = ReadError::with_kind("", ReadErrorKind::Unauthorized);
            result(Lag::Partial { known, missing, why }, Some(error))
        };
        for (round, expected) in [
            (vec![known()], None),
            (vec![known(), partial()], Some(KafkaFailure::Partial)),
            (
                vec![partial(), unknown(ReadErrorKind::Unreachable)],
                Some(KafkaFailure::Unreachable),
            ),
            (
                vec![unknown(ReadErrorKind::TimedOut)],
                Some(KafkaFailure::Unreachable),
            ),
            (
                vec![unknown(ReadErrorKind::Unauthorized)],
                Some(KafkaFailure::Refused),
            ),
            (
                vec![unknown(ReadErrorKind::Unreachable), unknown(ReadErrorKind::Other)],
                Some(KafkaFailure::Unreachable),
            ),
            (
                vec![
                    unknown(ReadErrorKind::Unreachable),
                    unknown(ReadErrorKind::Unauthorized),
                ],
                Some(KafkaFailure::Refused),
            ),
            (
                vec![unknown(ReadErrorKind::Refused(-1))],
                Some(KafkaFailure::Other),
            ),
            (vec![unknown(ReadErrorKind::Other)], Some(KafkaFailure::Other)),
        ] {
            assert_eq!(failure(&round, &[]), expected, "{round:?}");
        }
        let at = Moment::default();
        let unknown_members = GroupReading::Unknown { at, why: "".into() };
        assert_eq!(
            failure(&[known()], &[unknown_members]),
            Some(KafkaFailure::Partial)
        );
    }
}
