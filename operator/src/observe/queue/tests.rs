use separation_kafka::{ReadError, TopicIdentity};

use super::*;
use crate::observe::PartitionOffsets;

const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two readings.
const INTERVAL: Duration = Duration::from_secs(2);

/// A group that reads one partition.
struct Fixture {
    history: QueueHistory,
    start_deadline: Option<Duration>,
    now: Moment,
    offsets: TopicOffsets,
    lag: Lag,
}

impl Fixture {
    fn new(start_deadline: impl Into<Option<Duration>>) -> Self {
        Self {
            history: QueueHistory::default(),
            start_deadline: start_deadline.into(),
            now: Moment::from_millis(100_000_000),
            offsets: TopicOffsets {
                identity: TopicIdentity::default(),
                partitions: Vec::new(),
            },
            lag: Lag::Unknown { why: "".into() },
        }
    }

    /// Returns whether ages of messages are to be requested.
    fn read(&mut self, committed: i64, end: i64) -> bool {
        let messages = u64::try_from(end - committed).expect("in order");
        self.read_with(end, Lag::Known(LagByPartition::from_messages([messages])))
    }

    fn read_with(&mut self, end: i64, lag: Lag) -> bool {
        self.now = self.now + INTERVAL;
        self.lag = lag;
        self.offsets.partitions = vec![PartitionOffsets {
            partition: 0,
            start: Ok(0),
            end: Ok(end),
            // Part of the lag.
            committed: Err(ReadError::new("not used")),
        }];
        let without_ages = self
            .history
            .record(&self.offsets, &self.lag, self.start_deadline, self.now);
        !without_ages.is_empty()
    }

    /// Ages are in seconds, oldest first.
    fn set_ages(&mut self, ages: &[(i64, u64)]) {
        let partition = TopicPartition {
            topic: "tasks".into(),
            partition: 0,
        };
        let moment = |age: &u64| Moment::from_millis(self.now.as_millis() - 1_000 * age);
        let ages = ages.iter().map(|(offset, age)| (*offset, moment(age)));
        let ages = BTreeMap::from([(partition.clone(), ages.collect())]);
        self.history.set_ages(&partition.topic, &ages);
    }

    fn arrivals(&self) -> Vec<(Moment, u64)> {
        let queue = self.history.queue(&self.offsets, &self.lag, |_, _| None);
        let mut partitions = queue.expect("a known lag").partitions;
        partitions
            .pop()
            .map_or_else(Vec::new, |partition| partition.arrivals)
    }

    /// Seconds since arrivals, with numbers of messages.
    #[track_caller]
    fn check(&self, expected: &[(u64, u64)]) {
        let seconds = |(at, messages)| (self.now.since(at).as_secs(), messages);
        let ages: Vec<_> = self.arrivals().into_iter().map(seconds).collect();
        assert_eq!(ages, expected);
    }
}

#[test]
fn a_message_arrives_with_the_first_reading_beyond_it_and_is_forgotten_once_it_is_committed() {
    let mut group = Fixture::new(DEADLINE);
    assert!(!group.read(10, 10));
    group.check(&[]);
    group.read(10, 12);
    group.check(&[(0, 2)]);
    group.read(10, 12);
    group.read(10, 13);
    group.check(&[(4, 2), (0, 1)]);
    group.read(11, 13);
    group.check(&[(6, 1), (2, 1)]);
    group.read(12, 14);
    group.check(&[(4, 1), (0, 1)]);
    group.read(14, 14);
    group.check(&[]);
    group.read(14, 15);
    group.check(&[(0, 1)]);
}

#[test]
fn messages_of_the_first_reading_have_the_ages_that_brokers_report_and_are_asked_for_once() {
    let mut group = Fixture::new(DEADLINE);
    assert!(group.read(4, 10));
    group.check(&[(0, 6)]);
    group.set_ages(&[(6, 60), (6, 40), (9, 20)]);
    group.check(&[(60, 2), (20, 3), (0, 1)]);
    assert!(!group.read(4, 11));
    group.check(&[(62, 2), (22, 3), (2, 1), (0, 1)]);
    group.read(7, 11);
    group.check(&[(24, 2), (4, 1), (2, 1)]);
}

#[test]
fn ages_that_brokers_do_not_report_are_asked_for_again_while_the_messages_are_queued() {
    let mut group = Fixture::new(DEADLINE);
    assert!(group.read(4, 10));
    assert!(group.read(4, 10), "no broker answered");
    group.set_ages(&[(6, 60), (9, 20)]);
    assert!(group.read(4, 10), "one answer is missing");
    group.set_ages(&[(6, 60), (6, 40), (9, 20)]);
    group.check(&[(60, 2), (20, 3), (4, 1)]);
    assert!(!group.read(4, 10));

    let mut group = Fixture::new(DEADLINE);
    assert!(group.read(4, 10));
    assert!(!group.read(10, 12), "all of them are committed");
}

#[test]
fn messages_older_than_all_ages_are_that_old() {
    let mut group = Fixture::new(DEADLINE);
    assert!(group.read(4, 10));
    group.set_ages(&[(i64::MAX, 60), (i64::MAX, 40), (i64::MAX, 20)]);
    group.check(&[(60, 6)]);
}

#[test]
fn messages_of_a_first_reading_without_lag_are_asked_for_once_the_lag_is_known() {
    let mut group = Fixture::new(DEADLINE);
    assert!(!group.read_with(10, Lag::Unknown { why: "".into() }));
    let queue = group.history.queue(&group.offsets, &group.lag, |_, _| None);
    assert_eq!(queue, None);
    assert!(!group.read_with(11, Lag::Unknown { why: "".into() }));
    assert!(group.read(9, 12));
    group.check(&[(4, 1), (2, 1), (0, 1)]);
    // The first reading was 4 s ago, so the youngest age adds nothing.
    group.set_ages(&[(9, 60), (10, 40), (11, 3)]);
    group.check(&[(40, 1), (2, 1), (0, 1)]);

    let mut group = Fixture::new(DEADLINE);
    group.read_with(10, Lag::Unknown { why: "".into() });
    assert!(!group.read(10, 12), "all of them arrived later");
}

#[test]
fn a_partition_that_no_longer_exists_has_no_queue() {
    let mut group = Fixture::new(None);
    group.read(0, 2);
    group.check(&[(0, 2)]);
    group.offsets.partitions.clear();
    group.lag = Lag::Known(LagByPartition::default());
    group
        .history
        .record(&group.offsets, &group.lag, None, group.now + INTERVAL);
    group.check(&[]);
}

#[test]
fn without_a_deadline_the_oldest_message_is_exact_in_bounded_memory_and_no_ages_are_asked_for() {
    let mut group = Fixture::new(None);
    assert!(!group.read(0, 1));
    let first = group.now;
    for end in 2..=10_000 {
        assert!(!group.read(0, end));
    }
    assert_eq!(group.arrivals()[0].0, first);
    assert!(group.arrivals().len() <= SPREAD_STEPS);
    // Half of the messages are committed.
    group.read(5_000, 10_000);
    let oldest = group.arrivals()[0].0;
    let readings = |number: u32| first + INTERVAL * number;
    assert!(
        (readings(5_000)..=readings(5_500)).contains(&oldest),
        "{oldest:?}"
    );
}

#[test]
fn memory_is_bounded_and_arrivals_within_two_deadlines_are_exact_to_a_64th_of_it() {
    for deadline in [DEADLINE, 60 * DEADLINE] {
        let mut group = Fixture::new(deadline);
        group.read(0, 0);
        let mut arrived = Vec::new();
        for end in 1..=20_000 {
            group.read(0, end);
            arrived.push(group.now);
        }
        let arrivals = group.arrivals();
        let most = SPREAD_STEPS + NEWEST_STEPS;
        assert!(arrivals.len() <= most, "{}", arrivals.len());
        let each = arrivals
            .iter()
            .flat_map(|(at, messages)| std::iter::repeat_n(*at, usize::try_from(*messages).expect("few")));
        let each: Vec<_> = each.collect();
        assert_eq!(each.len(), arrived.len());
        for (recorded, arrived) in each.into_iter().zip(arrived) {
            if group.now.since(arrived) <= 2 * deadline {
                assert!(recorded <= arrived && arrived.since(recorded) < deadline / RESOLUTION);
            } else {
                assert!(group.now.since(recorded) >= 2 * deadline);
            }
        }
    }
}
