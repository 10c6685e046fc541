//! Reads one cluster again and again, for every role that wants it, in as few rounds as their intervals allow.
//!
//! Roles with one interval are read in one round, however late they came: a thousand pools ask one question, not a
//! thousand. What a round found is sent on whole; who wants what may change at any time.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{Found, LagReader, Query};
use crate::clock::Clock;
use crate::decide::{GroupReading, Lag, Moment};
use crate::kafka::{Cause, Cluster, Deadline, Unread};
use crate::metrics::{ClusterMetrics, KafkaFailure};

/// The least and the most time that a round may take.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);
const LONGEST_ROUND: Duration = Duration::from_secs(10);

/// How often members of a group that should have none are read: members of others may have come.
const MEMBERS_OF_IDLE: Duration = Duration::from_secs(60);

/// What is read for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose lag.
    pub query: Query,
    /// How often.
    pub interval: Duration,
    /// Whether members are read each time, or only now and then.
    pub members: MembersRead,
}

/// Whether a group's members are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersRead {
    /// Each time.
    Always,
    /// Now and then.
    Rarely,
}

/// What a round found for a role.
#[derive(Debug, Clone)]
pub struct Polled<K> {
    /// The role.
    pub key: K,
    /// Who was asked: a role's servers or credentials may have changed since.
    pub cluster: Arc<Cluster>,
    /// What was asked; it may have changed since.
    pub query: Query,
    /// When the round began.
    pub at: Moment,
    /// The lag.
    pub found: Found,
    /// The members, where they were read.
    pub group: GroupReading,
}

/// A cluster that is read until this is dropped.
#[derive(Debug)]
pub struct Poller<K> {
    shared: Arc<Shared<K>>,
    rounds: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared<K> {
    wanted: Mutex<BTreeMap<K, Entry>>,
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    read_at: Option<Moment>,
    members_at: Option<Moment>,
}

impl<K> Drop for Poller<K> {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}

impl<K: Ord + Clone + Send + 'static> Poller<K> {
    /// Reads a cluster from now on. `send` takes what each round found.
    pub fn start(
        reader: LagReader,
        clock: Clock,
        send: mpsc::Sender<Vec<Polled<K>>>,
        metrics: ClusterMetrics,
    ) -> Self {
        let shared = Arc::new(Shared {
            wanted: Mutex::new(BTreeMap::new()),
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

    /// Reads a role, or reads it in another way.
    pub fn want(&self, key: &K, wanted: Wanted) {
        let mut all = self.shared.lock();
        match all.get_mut(key) {
            Some(entry) if entry.wanted == wanted => return,
            Some(entry) => {
                // Another question is asked at once; another interval or members wait for their turn.
                if entry.wanted.query != wanted.query {
                    entry.read_at = None;
                }
                entry.wanted = wanted;
            }
            None => {
                all.insert(
                    key.clone(),
                    Entry {
                        wanted,
                        read_at: None,
                        members_at: None,
                    },
                );
            }
        }
        drop(all);
        self.shared.changed.notify_one();
    }

    /// Reads a role no longer.
    pub fn forget(&self, key: &K) {
        self.shared.lock().remove(key);
    }
}

impl<K> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Entry>> {
        // Nothing panics while it is held.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next round: what it reads, or when it is due.
enum Next<K> {
    Round(Round<K>),
    At(Moment),
    NothingWanted,
}

struct Round<K> {
    roles: Vec<(K, Query)>,
    /// Indices of roles whose members are read.
    members: Vec<usize>,
    longest: Duration,
}

struct Rounds<K> {
    reader: LagReader,
    shared: Arc<Shared<K>>,
    clock: Clock,
    send: mpsc::Sender<Vec<Polled<K>>>,
    metrics: ClusterMetrics,
}

impl<K: Ord + Clone + Send + 'static> Rounds<K> {
    async fn run(mut self) {
        loop {
            let now = self.clock.now();
            let next = next(&mut self.shared.lock(), now);
            match next {
                Next::Round(round) => {
                    let roles = round.roles.clone();
                    // A bug that an answer sets off is that cluster's problem, and not every pool's.
                    let read = AssertUnwindSafe(self.read(round, now)).catch_unwind().await;
                    let polled = read.unwrap_or_else(|_| {
                        self.reader.start_again();
                        self.metrics.failed(KafkaFailure::Other);
                        panicked(roles, self.reader.cluster(), now)
                    });
                    if self.send.send(polled).await.is_err() {
                        return;
                    }
                }
                Next::At(due) => {
                    tokio::select! {
                        () = tokio::time::sleep(due.since(now)) => {}
                        () = self.shared.changed.notified() => {}
                    }
                }
                Next::NothingWanted => self.shared.changed.notified().await,
            }
        }
    }

    async fn read(&mut self, round: Round<K>, at: Moment) -> Vec<Polled<K>> {
        let deadline = Deadline::after(round.longest);
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
            self.reader.cluster().groups(&groups, at, &deadline).await
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
                found,
                group: GroupReading::NotRead,
            })
            .collect();
        for (index, group) in round.members.into_iter().zip(members) {
            polled[index].group = group;
        }
        polled
    }
}

/// How a round failed, if it did: in whole for a role, by the first cause, or in part.
fn failure(found: &[Found], members: &[GroupReading]) -> Option<KafkaFailure> {
    let mut unknown = found
        .iter()
        .filter(|found| matches!(found.lag.lag, Lag::Unknown { .. }));
    if let Some(found) = unknown.next() {
        return Some(match found.unread {
            Some(Unread(_, Cause::Unreachable)) => KafkaFailure::Unreachable,
            Some(Unread(_, Cause::Refused)) => KafkaFailure::Refused,
            Some(Unread(_, Cause::Other)) | None => KafkaFailure::Other,
        });
    }
    let is_partial = found
        .iter()
        .any(|found| matches!(found.lag.lag, Lag::Partial { .. }))
        || members
            .iter()
            .any(|group| matches!(group, GroupReading::Unknown { .. }));
    is_partial.then_some(KafkaFailure::Partial)
}

/// What a round found that panicked: nothing.
fn panicked<K>(roles: Vec<(K, Query)>, cluster: &Arc<Cluster>, at: Moment) -> Vec<Polled<K>> {
    let why = Unread::new("a bug: reading Kafka panicked; fix: report it with the operator's log");
    let each = roles.into_iter().map(|(key, query)| Polled {
        key,
        cluster: Arc::clone(cluster),
        query,
        at,
        found: Found::nothing(Arc::clone(&why.0), why.clone()),
        group: GroupReading::Unknown {
            at,
            why: Arc::clone(&why.0),
        },
    });
    each.collect()
}

/// Takes the roles that are due, or says when the first one will be.
fn next<K: Clone>(wanted: &mut BTreeMap<K, Entry>, now: Moment) -> Next<K> {
    let mut round = Round {
        roles: Vec::new(),
        members: Vec::new(),
        longest: LONGEST_ROUND,
    };
    let mut earliest: Option<Moment> = None;
    for (key, entry) in wanted {
        let due = entry.due();
        if due > now {
            earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
            continue;
        }
        entry.read_at = Some(now);
        let members_due = entry
            .members_at
            .is_none_or(|at| entry.wanted.members == MembersRead::Always || now.since(at) >= MEMBERS_OF_IDLE);
        if members_due {
            entry.members_at = Some(now);
            round.members.push(round.roles.len());
        }
        round.longest = round.longest.min(entry.wanted.interval);
        round.roles.push((key.clone(), entry.wanted.query.clone()));
    }
    if round.roles.is_empty() {
        return earliest.map_or(Next::NothingWanted, Next::At);
    }
    round.longest = round.longest.max(SHORTEST_ROUND);
    Next::Round(round)
}

impl Entry {
    /// When it is read next: at once, or at the next multiple of its interval, the same for all that share it.
    fn due(&self) -> Moment {
        let Some(read_at) = self.read_at else {
            return Moment::default();
        };
        // Intervals are 0.1 s at least and 300 s at most.
        let interval = u64::try_from(self.wanted.interval.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        Moment::from_millis((read_at.as_millis() / interval + 1).saturating_mul(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Work;
    use crate::observe::Adoption;
    use crate::observe::LagFound;
    use separation_contract::kafka::OffsetReset;

    fn wanted(topic: &str, interval_ms: u64, members: MembersRead) -> Entry {
        Entry {
            wanted: Wanted {
                query: Query {
                    topic: topic.into(),
                    group: "group".into(),
                    adoption: Adoption::pending(OffsetReset::Latest),
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
        match next(all, Moment::from_millis(at_ms)) {
            Next::Round(round) => {
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
    fn roles_with_one_interval_share_a_round_however_late_they_came() {
        let mut all = BTreeMap::from([("early", wanted("a", 2_000, MembersRead::Rarely))]);
        check(&mut all, 500, &["early"], &[0]);
        all.insert("late", wanted("b", 2_000, MembersRead::Always));
        check(&mut all, 1_300, &["late"], &[0]);
        check(&mut all, 1_999, &[], &[]);
        // Members are read each time where that is wanted, and once a minute where it is not.
        check(&mut all, 2_000, &["early", "late"], &[1]);
        check(&mut all, 4_003, &["early", "late"], &[1]);
        check(&mut all, 60_500, &["early", "late"], &[0, 1]);
    }

    #[test]
    fn a_round_that_took_long_is_not_made_up_for() {
        let mut all = BTreeMap::from([("a", wanted("a", 1_000, MembersRead::Rarely))]);
        check(&mut all, 1_000, &["a"], &[0]);
        check(&mut all, 7_800, &["a"], &[]);
        check(&mut all, 7_900, &[], &[]);
        check(&mut all, 8_000, &["a"], &[]);
        assert!(matches!(
            next(&mut all, Moment::from_millis(8_100)),
            Next::At(due) if due == Moment::from_millis(9_000)
        ));
    }

    #[test]
    fn short_and_long_intervals_are_each_read_in_their_own_time() {
        let mut all = BTreeMap::from([
            ("fast", wanted("a", 250, MembersRead::Rarely)),
            ("slow", wanted("b", 1_000, MembersRead::Rarely)),
        ]);
        check(&mut all, 0, &["fast", "slow"], &[0, 1]);
        check(&mut all, 250, &["fast"], &[]);
        check(&mut all, 1_000, &["fast", "slow"], &[]);
    }

    fn found(lag: Lag, unread: Option<Unread>) -> Found {
        Found {
            topic: None,
            offsets: None,
            lag: LagFound {
                lag,
                flags: Vec::new(),
            },
            unread,
            holds: Vec::new(),
        }
    }

    #[test]
    fn a_round_that_failed_has_the_cause_of_its_first_role_that_is_unknown() {
        let unknown = |unread| found(Lag::Unknown { why: "".into() }, Some(unread));
        let known = || found(Lag::Known(Work::of([1])), None);
        let partial = || {
            let (known, missing, why) = (Work::of([1]), 1, "".into());
            found(Lag::Partial { known, missing, why }, Some(Unread::refused("")))
        };
        for (round, expected) in [
            (vec![known()], None),
            (vec![known(), partial()], Some(KafkaFailure::Partial)),
            (
                vec![partial(), unknown(Unread::unreachable(""))],
                Some(KafkaFailure::Unreachable),
            ),
            (vec![unknown(Unread::refused(""))], Some(KafkaFailure::Refused)),
            (vec![unknown(Unread::new(""))], Some(KafkaFailure::Other)),
        ] {
            assert_eq!(failure(&round, &[]), expected, "{round:?}");
        }
        let at = Moment::default();
        let unread = GroupReading::Unknown { at, why: "".into() };
        assert_eq!(failure(&[known()], &[unread]), Some(KafkaFailure::Partial));
    }
}
