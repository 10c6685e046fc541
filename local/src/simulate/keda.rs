//! A model of KEDA 2.20 with its Kafka scaler, and of the HorizontalPodAutoscaler that it creates, after their source.
//!
//! | part | here |
//! |---|---|
//! | KEDA polls every 30 s | from 0 replicas to 1; to 0 at once when the lag was 0 for the cooldown of 300 s |
//! | the HPA syncs every 15 s | above 0 replicas: `ceil(lag / threshold)`, at most 4 or twice as many; none within 10 % |
//! | scale-down of the HPA | to the highest number of the last 300 s |
//! | victims | pods that are not ready, then any: a pod's task is lost and starts again on another one |
//!
//! The threshold is the tasks per replica of the pool's target, or 1. KEDA counts at most one threshold per partition.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use separation_operator::decide::{Moment, Policy, ReplicaLimits, Target};

use super::outcome::Outcome;
use super::pool::SimulatedPool;
use super::random::Rng;
use super::scenario::Scenario;

/// `pollingInterval`.
const POLL: Duration = Duration::from_secs(30);

/// `--horizontal-pod-autoscaler-sync-period`.
const SYNC: Duration = Duration::from_secs(15);

/// `cooldownPeriod`.
const COOLDOWN: Duration = Duration::from_secs(300);

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: Duration = Duration::from_secs(300);

/// One by `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE_PARTS: u64 = 10;

/// The HPA at most doubles replicas, or raises them to this number.
const SCALE_UP_MINIMUM: u32 = 4;

/// KEDA and its HPA.
struct Autoscaler {
    limits: ReplicaLimits,
    /// `lagThreshold`.
    threshold: NonZeroU32,
    partitions: u64,
    last_active: Option<Moment>,
    /// Recommendations of the HPA, oldest first.
    recommended: VecDeque<(Moment, u32)>,
}

/// Runs the scenario until its work is done.
pub(super) fn run(scenario: &Scenario) -> Outcome {
    let mut rng = Rng::new(scenario.seed);
    let mut pool = SimulatedPool::new(scenario);
    let mut autoscaler = Autoscaler::new(&scenario.role.policy, scenario.partitions as u64);
    let mut start = |period: Duration| Moment::default() + period.mul_f64(rng.uniform());
    let (mut poll, mut sync) = (start(POLL), start(SYNC));
    let mut victims = Rng::new(scenario.seed);
    loop {
        let now = poll.min(sync);
        pool.advance(now);
        let replicas = pool.replicas();
        let lag = (!pool.is_unreachable(now)).then(|| pool.lag());
        let desired = if now == poll {
            poll = poll + POLL;
            lag.map_or(replicas, |lag| autoscaler.poll(now, lag, replicas))
        } else {
            sync = sync + SYNC;
            lag.map_or(replicas, |lag| autoscaler.sync(now, lag, replicas))
        };
        if desired != replicas {
            pool.set_replicas_without_choice(desired, &mut victims);
        }
        let is_done = pool.finished(now) && pool.replicas() == scenario.role.policy.limits.min();
        if is_done || now >= scenario.end() {
            return pool.finish(now);
        }
    }
}

impl Autoscaler {
    fn new(policy: &Policy, partitions: u64) -> Self {
        Self {
            limits: policy.limits,
            threshold: match policy.target {
                Target::TasksPerReplica(tasks) => tasks,
                Target::DrainDeadline { .. } | Target::StartDeadline { .. } => NonZeroU32::MIN,
            },
            partitions,
            last_active: None,
            recommended: VecDeque::new(),
        }
    }

    /// KEDA's loop: replicas from 0 and to 0.
    fn poll(&mut self, now: Moment, lag: u64, replicas: u32) -> u32 {
        let min = self.limits.min();
        if lag > 0 {
            self.last_active = Some(now);
            return if replicas == 0 { min.max(1) } else { replicas };
        }
        let is_cooling_down = self
            .last_active
            .is_some_and(|active| now.since(active) < COOLDOWN);
        match (min, is_cooling_down) {
            (0, false) => 0,
            _ => replicas.max(min),
        }
    }

    /// The HPA's loop: replicas above 0.
    fn sync(&mut self, now: Moment, lag: u64, replicas: u32) -> u32 {
        if replicas == 0 {
            return 0;
        }
        let threshold = u64::from(self.threshold.get());
        let lag = lag.min(self.partitions.saturating_mul(threshold));
        let covered = threshold.saturating_mul(replicas.into());
        let recommended = if lag.abs_diff(covered).saturating_mul(TOLERANCE_PARTS) <= covered {
            replicas
        } else {
            u32::try_from(lag.div_ceil(threshold)).unwrap_or(u32::MAX)
        };
        self.recommended.push_back((now, recommended));
        while let Some((at, _)) = self.recommended.front()
            && now.since(*at) > STABILIZATION
        {
            self.recommended.pop_front();
        }
        let highest = self.recommended.iter().map(|(_, replicas)| *replicas).max();
        let fastest = replicas.saturating_mul(2).max(SCALE_UP_MINIMUM);
        let (min, max) = (self.limits.min().max(1), self.limits.max());
        highest.unwrap_or(replicas).clamp(min, max.min(fastest).max(min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(limits: std::ops::RangeInclusive<u32>) -> Autoscaler {
        Autoscaler {
            limits: ReplicaLimits::new(limits).expect("in order"),
            threshold: NonZeroU32::MIN,
            partitions: 24,
            last_active: None,
            recommended: VecDeque::new(),
        }
    }

    fn seconds(seconds: u64) -> Moment {
        Moment::from_millis(1_000 * seconds)
    }

    /// Replicas after each change, and when the last one was made, if 24 messages stay queued from 0 on.
    fn scale_up(first_poll: u64, first_sync: u64) -> (Vec<u32>, u64) {
        let mut autoscaler = autoscaler(0..=24);
        let (mut steps, mut last_change) = (vec![0], 0);
        for second in 0..200 {
            for is_poll in [true, false] {
                let replicas = steps[steps.len() - 1];
                let desired = if is_poll && second % 30 == first_poll {
                    autoscaler.poll(seconds(second), 24, replicas)
                } else if !is_poll && second % 15 == first_sync {
                    autoscaler.sync(seconds(second), 24, replicas)
                } else {
                    replicas
                };
                if desired != replicas {
                    steps.push(desired);
                    last_change = second;
                }
            }
        }
        (steps, last_change)
    }

    /// Measured with KEDA 2.20.2: 55.5 s, 64.3 s and 85.6 s (shortest, median, longest).
    #[test]
    fn a_scale_up_to_24_takes_the_steps_and_the_time_that_were_measured() {
        let mut times = Vec::new();
        for first_poll in (0..30).step_by(4) {
            for first_sync in (0..15).step_by(2) {
                let (steps, time) = scale_up(first_poll, first_sync);
                assert_eq!(steps, [0, 1, 4, 8, 16, 24]);
                times.push(time);
            }
        }
        times.sort_unstable();
        assert!(times[0] >= 45 && times[times.len() - 1] <= 90, "{times:?}");
        let median = times[times.len() / 2];
        assert!((60..=72).contains(&median), "{median} s");
    }

    #[test]
    fn replicas_within_the_tolerance_stay() {
        let mut autoscaler = autoscaler(0..=100);
        autoscaler.partitions = 100;
        assert_eq!(autoscaler.sync(seconds(0), 63, 60), 60);
        assert_eq!(autoscaler.sync(seconds(15), 66, 60), 60);
        assert_eq!(autoscaler.sync(seconds(30), 67, 60), 67);
    }

    #[test]
    fn replicas_fall_after_the_windows() {
        let mut autoscaler = autoscaler(0..=24);
        assert_eq!(autoscaler.poll(seconds(0), 8, 8), 8);
        assert_eq!(autoscaler.sync(seconds(0), 8, 8), 8);
        assert_eq!(autoscaler.sync(seconds(15), 2, 8), 8);
        assert_eq!(autoscaler.sync(seconds(300), 2, 8), 8);
        assert_eq!(autoscaler.sync(seconds(301), 2, 8), 2);
        assert_eq!(autoscaler.poll(seconds(299), 0, 8), 8);
        assert_eq!(autoscaler.poll(seconds(300), 0, 8), 0);
    }
}
