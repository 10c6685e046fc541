//! When a change of the staging storage takes effect. Pure.
//!
//! A task and a result name their location, and a worker reads one location: a message that is queued while the workers
//! are replaced would fail. So a change has these steps, each derived from the observed objects, so that another leader
//! continues with it:
//!
//! 1. The pods keep the previous location while a topic has lag.
//! 2. The API, which publishes tasks, is scaled to 0.
//! 3. Once its last pod has ended and both topics were empty at the same moment, the workers get the new location.
//! 4. Once the last worker with the previous location has ended, the API is scaled up again.
//!
//! If a topic has lag while the API is stopped in step 3, the API is started again after [`MAX_STOP_WITH_LAG`], and the
//! change continues with step 1.

use std::time::Duration;

use crate::decide::{Lag, Moment};
use crate::observe::TopicOffsets;
use crate::plan::Staging;

/// Time with lag, or with unknown lag, after which a stopped API is started again although the workers have the previous
/// location: another program posts tasks, its own last tasks take longer, or Kafka cannot be read.
const MAX_STOP_WITH_LAG: Duration = Duration::from_secs(300);

/// Since when a role has had no message, neither queued nor running, by successive readings.
#[derive(Debug, Default)]
pub(super) struct Emptiness(Option<EmptyPeriod>);

/// A period without a message: from the end of the reading that began at `from` to the beginning of the one at `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EmptyPeriod {
    from: Moment,
    until: Moment,
    /// Sum of the end offsets, which grows with each message.
    ends: i128,
}

impl Emptiness {
    /// Records the reading that began at `at`. Lag 0 in one reading shows no emptiness, because end offsets are read
    /// before committed ones and a message may be published in between. The same end offsets in the next reading show
    /// that none was.
    pub(super) fn record(&mut self, at: Moment, lag: &Lag, offsets: Option<&TopicOffsets>) {
        let is_empty = matches!(lag, Lag::Known(lag) if lag.messages() == 0);
        let offsets = offsets.filter(|_| is_empty);
        self.0 = offsets.map(|offsets| {
            let partitions = offsets.partitions.iter();
            let ends = partitions.filter_map(|partition| partition.end.as_ref().ok());
            let ends: i128 = ends.map(|end| i128::from(*end)).sum();
            let before = self.0.filter(|before| before.ends == ends);
            EmptyPeriod {
                from: before.map_or(at, |before| before.from),
                until: at,
                ends,
            }
        });
    }

    /// The period up to the last reading; none if that found lag, or not all lag was known.
    pub(super) fn period(&self) -> Option<EmptyPeriod> {
        self.0
    }
}

/// Whether all topics were empty at one moment after `since`. One poller reads the roles of a pool, round by round: a
/// reading that began later began after the earlier one had ended.
fn were_empty_together(since: Moment, periods: &[EmptyPeriod]) -> bool {
    let from = periods.iter().map(|period| period.from).fold(since, Ord::max);
    periods.iter().all(|period| period.until > from)
}

/// The pods of a pool's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiPods {
    /// Its Deployment has replicas.
    Wanted,
    /// It has no replicas, but a pod may still publish a task.
    Ending,
    /// There are none.
    None,
}

/// The location in a role's Deployment.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeployedStaging<'a> {
    pub(super) location: &'a Staging,
    /// The location in its planned Deployment. It is not always that of the spec, because `podTemplate` may replace the
    /// volume.
    pub(super) planned: Option<&'a Staging>,
}

impl DeployedStaging<'_> {
    fn is_planned(&self) -> bool {
        self.planned == Some(self.location)
    }
}

/// What a change depends on.
#[derive(Debug)]
pub(super) struct StagingObservation<'a> {
    /// The locations in the Deployments of the enabled roles.
    pub(super) deployed: Vec<DeployedStaging<'a>>,
    /// Whether a worker's pod with another location than planned exists.
    pub(super) has_previous_workers: bool,
    /// The pods of the API.
    pub(super) api: ApiPods,
    /// The periods without messages of the enabled roles; none while a role has lag or is unread.
    pub(super) empty: Option<Vec<EmptyPeriod>>,
}

/// The state of a change of the staging storage.
#[derive(Debug, Default)]
pub(super) struct StagingChange {
    /// Since when the API has had no pods, while the workers keep the previous location.
    without_api_since: Option<Moment>,
    /// Since when a role has had lag or been unread, while the workers keep the previous location.
    not_empty_since: Option<Moment>,
    is_waiting: bool,
    stops_api: bool,
}

impl StagingChange {
    /// The previous location, while the pods must keep it.
    pub(super) fn kept(&mut self, observed: &StagingObservation<'_>, now: Moment) -> Option<Staging> {
        let mut deployed = observed.deployed.iter();
        let previous = deployed.find(|deployed| !deployed.is_planned());
        let is_stopped = observed.api != ApiPods::Wanted;
        // Once one role has the new location, the others follow.
        let has_begun = observed.deployed.iter().any(DeployedStaging::is_planned);
        let Some(previous) = previous.filter(|_| !has_begun) else {
            let has_previous = previous.is_some() || observed.has_previous_workers;
            *self = Self {
                stops_api: is_stopped && has_previous,
                ..Self::default()
            };
            return None;
        };
        self.not_empty_since = match observed.empty {
            Some(_) => None,
            None => Some(self.not_empty_since.unwrap_or(now)),
        };
        self.stops_api = self
            .not_empty_since
            .is_none_or(|since| is_stopped && now.since(since) < MAX_STOP_WITH_LAG);
        self.without_api_since = match observed.api {
            ApiPods::None => Some(self.without_api_since.unwrap_or(now)),
            ApiPods::Wanted | ApiPods::Ending => None,
        };
        let without_api = self.without_api_since.zip(observed.empty.as_deref());
        self.is_waiting = !without_api.is_some_and(|(since, empty)| were_empty_together(since, empty));
        self.is_waiting.then(|| previous.location.clone())
    }

    /// Whether the pods keep the previous location.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether the API has no pods for the change.
    pub(super) fn stops_api(&self) -> bool {
        self.stops_api
    }
}

#[cfg(test)]
mod tests {
    use separation_kafka::{ReadError, TopicIdentity};

    use super::*;
    use crate::decide::LagByPartition;
    use crate::observe::PartitionOffsets;

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    /// A reading: its beginning, the end offset, and the committed offset.
    type Reading = (u64, i64, i64);

    /// The period after readings of a topic with one partition.
    fn period(readings: &[Reading]) -> Option<EmptyPeriod> {
        let mut emptiness = Emptiness::default();
        for (begin, end, committed) in readings {
            let messages = u64::try_from(end - committed).expect("lag is not negative");
            let lag = Lag::Known(LagByPartition::from_messages([messages]));
            let offsets = offsets(Ok(*end), *committed);
            emptiness.record(at(*begin), &lag, Some(&offsets));
        }
        emptiness.period()
    }

    fn offsets(end: Result<i64, ReadError>, committed: i64) -> TopicOffsets {
        TopicOffsets {
            identity: TopicIdentity {
                cluster_id: None,
                topic_id: None,
            },
            partitions: vec![PartitionOffsets {
                partition: 0,
                start: Ok(0),
                end,
                committed: Ok(Some(committed)),
            }],
        }
    }

    /// Whether readings of both topics show a moment after `since` at which both were empty.
    #[track_caller]
    fn check(since: u64, tasks: &[Reading], results: &[Reading], expected: bool) {
        let periods: Option<Vec<_>> = [tasks, results].into_iter().map(period).collect();
        let found = periods.is_some_and(|periods| were_empty_together(at(since), &periods));
        assert_eq!(found, expected, "tasks {tasks:?}, results {results:?}");
    }

    #[test]
    fn two_rounds_without_a_message_show_that_both_topics_were_empty() {
        check(0, &[(1, 5, 5), (2, 5, 5)], &[(1, 4, 4), (2, 4, 4)], true);
        check(0, &[(1, 5, 5)], &[(1, 4, 4)], false);
        // The uploader is read more often.
        check(0, &[(1, 5, 5)], &[(1, 4, 4), (2, 4, 4), (3, 4, 4)], false);
        check(
            0,
            &[(1, 5, 5), (4, 5, 5)],
            &[(1, 4, 4), (2, 4, 4), (3, 4, 4)],
            true,
        );
    }

    #[test]
    fn lag_0_of_each_topic_at_different_times_shows_nothing() {
        // The processor publishes a result after the last reading of the uploader.
        let results = [(1, 4, 4), (2, 4, 4)];
        check(0, &[(1, 6, 5), (2, 6, 5), (3, 6, 6), (4, 6, 6)], &results, false);
        // The result is queued, or was uploaded since.
        let tasks = [(2, 6, 5), (3, 6, 6), (4, 6, 6), (5, 6, 6)];
        check(0, &tasks, &[(2, 4, 4), (5, 5, 4)], false);
        check(0, &tasks, &[(2, 4, 4), (5, 5, 5)], false);
        check(0, &tasks, &[(2, 4, 4), (4, 5, 5), (5, 5, 5)], true);
        // The uploader is empty first, then the processor.
        check(0, &[(3, 5, 5), (4, 5, 5)], &[(1, 4, 4), (2, 4, 4)], false);
        check(0, &[(1, 5, 5), (2, 5, 5)], &[(3, 4, 4), (4, 4, 4)], false);
    }

    #[test]
    fn a_message_between_two_readings_is_noticed_although_both_find_lag_0() {
        // A reading reads the end offset, then a worker requeues its task and commits, then the commit is read.
        let results = [(1, 4, 4), (2, 4, 4)];
        check(0, &[(1, 5, 5), (2, 6, 6)], &results, false);
        check(0, &[(1, 5, 5), (2, 6, 5)], &results, false);
    }

    #[test]
    fn only_a_moment_after_the_end_of_the_api_counts() {
        let (tasks, results) = ([(1, 5, 5), (3, 5, 5)], [(1, 4, 4), (4, 4, 4)]);
        check(2, &tasks, &results, true);
        check(3, &tasks, &results, false);
    }

    #[test]
    fn unknown_lag_ends_a_period() {
        let mut emptiness = Emptiness::default();
        let empty = Lag::Known(LagByPartition::from_messages([0]));
        emptiness.record(at(1), &empty, Some(&offsets(Ok(5), 5)));
        let why = "timed out";
        let unknown = Lag::Unknown { why: why.into() };
        emptiness.record(at(2), &unknown, Some(&offsets(Err(ReadError::new(why)), 5)));
        assert_eq!(emptiness.period(), None);
        emptiness.record(at(3), &empty, Some(&offsets(Ok(5), 5)));
        assert_eq!(emptiness.period().map(|period| period.from), Some(at(3)));
    }

    fn bucket(name: &str) -> Staging {
        Staging::S3 {
            bucket: name.to_owned(),
            prefix: "staging/".to_owned(),
        }
    }

    /// Both topics were empty from one moment to the other.
    fn empty(from: u64, until: u64) -> Option<Vec<EmptyPeriod>> {
        let period = EmptyPeriod {
            from: at(from),
            until: at(until),
            ends: 0,
        };
        Some(vec![period, period])
    }

    /// Deployments with these locations, whose planned location is `planned`.
    fn deployed<'a>(locations: &[&'a Staging], planned: &'a Staging) -> Vec<DeployedStaging<'a>> {
        let each = locations.iter().map(|&location| DeployedStaging {
            location,
            planned: Some(planned),
        });
        each.collect()
    }

    #[test]
    fn a_change_stops_the_api_before_the_workers_change_and_starts_it_after_them() {
        let (old, new) = (bucket("old"), bucket("new"));
        let mut observed = StagingObservation {
            deployed: deployed(&[&old, &old], &new),
            has_previous_workers: true,
            api: ApiPods::Wanted,
            empty: None,
        };
        let mut change = StagingChange::default();
        let mut step = |observed: &StagingObservation<'_>, now: u64| {
            let kept = change.kept(observed, at(now));
            assert_eq!(kept.is_some(), change.is_waiting());
            assert!(kept.is_none_or(|kept| kept == old));
            (change.is_waiting(), change.stops_api())
        };
        assert_eq!(step(&observed, 1), (true, false), "tasks are queued");
        observed.empty = empty(2, 3);
        assert_eq!(step(&observed, 3), (true, true), "the API can publish tasks");
        observed.api = ApiPods::Ending;
        assert_eq!(step(&observed, 4), (true, true), "its last request runs");
        observed.empty = None;
        observed.api = ApiPods::None;
        assert_eq!(step(&observed, 5), (true, true), "its last task is queued");
        observed.empty = empty(4, 5);
        assert_eq!(
            step(&observed, 6),
            (true, true),
            "the reading began before the end of the API"
        );
        observed.empty = empty(4, 6);
        assert_eq!(step(&observed, 7), (false, true));
        observed.deployed = deployed(&[&new, &old], &new);
        observed.empty = None;
        assert_eq!(step(&observed, 8), (false, true), "the other role follows");
        observed.deployed = deployed(&[&new, &new], &new);
        assert_eq!(
            step(&observed, 9),
            (false, true),
            "a pod has the previous location"
        );
        observed.has_previous_workers = false;
        assert_eq!(step(&observed, 10), (false, false));
    }

    #[test]
    fn a_stopped_api_is_started_again_after_five_minutes_with_lag_and_stopped_at_lag_0() {
        let (old, new) = (bucket("old"), bucket("new"));
        let mut observed = StagingObservation {
            deployed: deployed(&[&old], &new),
            has_previous_workers: true,
            api: ApiPods::None,
            empty: None,
        };
        let mut change = StagingChange::default();
        let mut stops_api = |observed: &StagingObservation<'_>, now: u64| {
            assert_eq!(change.kept(observed, at(now)).as_ref(), Some(&old));
            change.stops_api()
        };
        assert!(stops_api(&observed, 1_000));
        assert!(stops_api(&observed, 300_999), "another program posted a task");
        assert!(!stops_api(&observed, 301_000));
        observed.api = ApiPods::Wanted;
        assert!(!stops_api(&observed, 301_001));
        observed.empty = empty(400_000, 400_001);
        assert!(stops_api(&observed, 400_001));
        observed.api = ApiPods::Ending;
        observed.empty = None;
        assert!(stops_api(&observed, 400_002), "its last task is queued");
    }

    #[test]
    fn an_api_that_was_started_in_between_must_end_again() {
        let (old, new) = (bucket("old"), bucket("new"));
        let mut observed = StagingObservation {
            deployed: deployed(&[&old], &new),
            has_previous_workers: false,
            api: ApiPods::None,
            empty: empty(0, 1),
        };
        let mut change = StagingChange::default();
        assert_eq!(change.kept(&observed, at(1)).as_ref(), Some(&old));
        observed.api = ApiPods::Wanted;
        assert_eq!(change.kept(&observed, at(2)).as_ref(), Some(&old));
        observed.api = ApiPods::None;
        observed.empty = empty(0, 3);
        assert_eq!(change.kept(&observed, at(4)).as_ref(), Some(&old));
        observed.empty = empty(0, 5);
        assert_eq!(change.kept(&observed, at(5)), None);
    }

    #[test]
    fn a_reverted_change_starts_the_api_and_a_running_one_is_not_stopped_for_late_workers() {
        let (old, new) = (bucket("old"), bucket("new"));
        let mut observed = StagingObservation {
            deployed: deployed(&[&old, &old], &old),
            has_previous_workers: false,
            api: ApiPods::None,
            empty: empty(0, 1),
        };
        let mut change = StagingChange::default();
        assert_eq!(change.kept(&observed, at(1)), None);
        assert!(!change.stops_api());
        // A role that is enabled again has a Deployment from before the change.
        observed.deployed = deployed(&[&old, &new], &old);
        observed.api = ApiPods::Wanted;
        assert_eq!(change.kept(&observed, at(2)), None);
        assert!(!change.stops_api());
    }
}
