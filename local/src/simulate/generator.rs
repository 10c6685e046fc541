//! Synthetic traces: the same parameters and seed give the same trace.

use std::time::Duration;

use separation_operator::decide::Moment;

use super::random::Rng;
use super::trace::{Arrival, MAX_TASKS, Trace, TraceError};

/// Parameters of bursts over steady arrivals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bursts {
    /// The time during which tasks arrive.
    pub length: Duration,
    /// Tasks per hour, at random moments.
    pub tasks_per_hour: u32,
    /// Tasks of each burst.
    pub burst: u32,
    /// Time between two bursts; the first is at the start.
    pub burst_every: Duration,
    /// The mean time a worker needs for a task; single tasks need from half to one and a half times as long.
    pub task: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Bursts {
    /// Generates the trace.
    ///
    /// # Errors
    /// When it would have too many tasks.
    pub fn trace(&self) -> Result<Trace, TraceError> {
        let hours = self.length.as_secs_f64() / 3600.0;
        let bursts = if self.burst == 0 {
            0
        } else {
            self.length.as_secs() / self.burst_every.as_secs().max(1) + 1
        };
        let expected = hours * f64::from(self.tasks_per_hour) + bursts as f64 * f64::from(self.burst);
        if expected > MAX_TASKS as f64 {
            return Err(TraceError::TooMany);
        }
        let mut rng = Rng::new(self.seed);
        let mut trace = Trace::default();
        let steady = f64::from(self.tasks_per_hour) * hours;
        for _ in 0..steady as u64 {
            let at = Moment::default() + self.length.mul_f64(rng.uniform());
            trace.arrivals.push(self.arrival(at, &mut rng));
        }
        for number in 0..bursts {
            let at = Moment::default() + self.burst_every * u32::try_from(number).unwrap_or(u32::MAX);
            for _ in 0..self.burst {
                trace.arrivals.push(self.arrival(at, &mut rng));
            }
        }
        Ok(trace.sorted())
    }

    fn arrival(&self, at: Moment, rng: &mut Rng) -> Arrival {
        let task = self.task.mul_f64(0.5 + rng.uniform());
        // Whole milliseconds, as all times here.
        let task = Duration::from_millis(u64::try_from(task.as_millis()).unwrap_or(u64::MAX));
        Arrival { at, task }
    }
}

/// Generative requests to GPUs, with the statistics of a trace of 23 days that was published for research: tasks of a
/// few seconds to ten minutes, a daily rhythm with empty nights, quiet weekends, and short bursts. 23 days have about
/// 26,000 tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerativeRequests {
    /// The time during which tasks arrive.
    pub days: u32,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Quantiles of the time of a task: share of the tasks, and seconds. Between two of them the logarithm is linear.
const TASK_SECONDS: [(f64, f64); 12] = [
    (0.0, 3.0),
    (0.01, 8.0),
    (0.05, 11.0),
    (0.1, 13.0),
    (0.25, 17.0),
    (0.5, 23.0),
    (0.75, 33.0),
    (0.9, 53.0),
    (0.95, 70.0),
    (0.99, 106.0),
    (0.999, 160.0),
    (1.0, 567.0),
];

/// Tasks of a working day, in hundreds, by its hour.
const TASKS_OF_HOUR: [f64; 24] = [
    1.53, 1.8, 0.42, 0.69, 2.14, 2.22, 2.29, 2.5, 0.76, 0.76, 0.76, 0.42, 0.2, 0.2, 0.14, 0.04, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.27,
];

/// Tasks of a day of the weekend, as a share of those of a working day.
const WEEKEND: f64 = 0.05;

/// The rate of arrivals and the usual time of a task change every ten minutes.
const SLOT_SECONDS: u32 = 600;

/// Spread of the logarithm of the rate, and its correlation with the slot before.
const RATE_SPREAD: f64 = 0.35;
const RATE_CORRELATION: f64 = 0.7;

/// The part of the variance of task times that tasks of one slot share, and its correlation with the slot before.
const TASK_SHARED: f64 = 0.2;
const TASK_CORRELATION: f64 = 0.8;

/// The share of tasks after which their user sends another one, and the mean pause between the two.
const REPEATED: f64 = 0.5;
const PAUSE_SECONDS: f64 = 15.0;

/// The share of users who send many tasks without waiting, how many on average, and the mean time between two of them.
const BURSTS: f64 = 0.002;
const BURST_TASKS: f64 = 20.0;
const BURST_SECONDS: f64 = 3.3;

impl GenerativeRequests {
    /// Generates the trace.
    ///
    /// # Errors
    /// When it would have too many tasks.
    pub fn trace(self) -> Result<Trace, TraceError> {
        let mut rng = Rng::new(self.seed);
        let mut trace = Trace::default();
        let (mut of_rate, mut of_tasks) = (0.0, 0.0);
        let slots_per_hour = 3600 / SLOT_SECONDS;
        for slot in 0..self.days.saturating_mul(24 * slots_per_hour) {
            of_rate = correlated(of_rate, RATE_CORRELATION, &mut rng);
            of_tasks = correlated(of_tasks, TASK_CORRELATION, &mut rng);
            let hour = slot / slots_per_hour;
            let weekend = if hour / 24 % 7 < 2 { WEEKEND } else { 1.0 };
            let tasks = 100.0 * TASKS_OF_HOUR[hour as usize % 24] / f64::from(slots_per_hour);
            // The second term makes the mean of the log-normal factor 1.
            let factor = (RATE_SPREAD * of_rate - RATE_SPREAD * RATE_SPREAD / 2.0).exp();
            let users = tasks * weekend * factor / mean_tasks_of_user();
            let mut at = rng.exponential() / users;
            while at < 1.0 {
                let seconds = (f64::from(slot) + at) * f64::from(SLOT_SECONDS);
                self.add_user(seconds, of_tasks, &mut rng, &mut trace)?;
                at += rng.exponential() / users;
            }
        }
        Ok(trace.sorted())
    }

    /// Adds the tasks of one user, who begins at `seconds`. Times are whole seconds, as in the published trace.
    fn add_user(
        self,
        seconds: f64,
        of_tasks: f64,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), TraceError> {
        let is_burst = rng.uniform() < BURSTS;
        let mut more = if is_burst {
            (rng.exponential() * BURST_TASKS) as u32
        } else {
            0
        };
        let mut at = seconds;
        loop {
            let deviation = TASK_SHARED.sqrt() * of_tasks + (1.0 - TASK_SHARED).sqrt() * rng.normal();
            let task = task_seconds(share_below(deviation));
            if at < f64::from(self.days) * 86_400.0 {
                let at = Moment::default() + Duration::from_secs(at as u64);
                let task = Duration::from_secs(task.round() as u64);
                trace.add(1, Arrival { at, task })?;
            }
            if is_burst && more > 0 {
                more -= 1;
                at += rng.exponential() * BURST_SECONDS;
            } else if !is_burst && rng.uniform() < REPEATED {
                at += task + rng.exponential() * PAUSE_SECONDS;
            } else {
                return Ok(());
            }
        }
    }
}

/// The next value of a standard normal sequence with this correlation of neighbors.
fn correlated(last: f64, correlation: f64, rng: &mut Rng) -> f64 {
    correlation * last + (1.0 - correlation * correlation).sqrt() * rng.normal()
}

/// The mean of a geometric distribution, and the rare bursts.
fn mean_tasks_of_user() -> f64 {
    1.0 / (1.0 - REPEATED) + BURSTS * BURST_TASKS
}

/// The share of a standard normal distribution below a value, to 0.0002 (Bowling et al. 2009).
fn share_below(deviation: f64) -> f64 {
    1.0 / (1.0 + (-1.5976 * deviation - 0.07056 * deviation.powi(3)).exp())
}

/// The time that a share of the tasks does not exceed.
fn task_seconds(share: f64) -> f64 {
    let between = TASK_SECONDS.windows(2).find(|pair| share <= pair[1].0);
    let Some(&[(low, shortest), (high, longest)]) = between else {
        return TASK_SECONDS[TASK_SECONDS.len() - 1].1;
    };
    shortest * (longest / shortest).powf((share - low) / (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the published trace: 26,392 tasks; median 23 s, p90 53 s, p99 106 s, longest 567 s; coefficient of variation of
    /// the times between arrivals 11.9; no task for 79 % of the time, at most 22 simultaneously.
    #[test]
    fn generative_requests_have_the_statistics_of_the_published_trace() {
        for seed in [1, 2] {
            let trace = GenerativeRequests { days: 23, seed }.trace().unwrap();
            let count = trace.arrivals.len();
            assert!((24_500..=28_000).contains(&count), "{count} tasks");
            let task = |percent| trace.task_percentile(percent).unwrap().as_secs();
            assert!((21..=25).contains(&task(50)), "median {}", task(50));
            assert!((49..=57).contains(&task(90)), "p90 {}", task(90));
            assert!((98..=118).contains(&task(99)), "p99 {}", task(99));
            assert!((400..=567).contains(&task(100)), "longest {}", task(100));
            let variation = variation_of_gaps(&trace);
            assert!((11.0..=13.5).contains(&variation), "variation {variation}");
            let (idle, peak) = idle_and_peak(&trace);
            assert!((0.77..=0.81).contains(&idle), "idle {idle}");
            assert!((15..=30).contains(&peak), "{peak} simultaneously");
        }
    }

    #[test]
    fn the_seed_decides_and_the_days_limit() {
        let trace = |days, seed| GenerativeRequests { days, seed }.trace().unwrap();
        assert_eq!(trace(3, 5), trace(3, 5));
        assert_ne!(trace(3, 5), trace(3, 6));
        assert!(trace(3, 5).end() < Moment::from_millis(3 * 86_400_000));
        assert!(trace(0, 5).arrivals.is_empty());
        let too_many = GenerativeRequests {
            days: 10_000,
            seed: 1,
        };
        assert!(matches!(too_many.trace(), Err(TraceError::TooMany)));
    }

    /// Standard deviation by mean of the times between arrivals.
    fn variation_of_gaps(trace: &Trace) -> f64 {
        let gaps: Vec<f64> = trace
            .arrivals
            .windows(2)
            .map(|pair| pair[1].at.since(pair[0].at).as_secs_f64())
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        variance.sqrt() / mean
    }

    /// The share of time without a task, and the most simultaneous tasks, if each begins when it arrives.
    fn idle_and_peak(trace: &Trace) -> (f64, i32) {
        let mut events: Vec<(Moment, i32)> = trace
            .arrivals
            .iter()
            .flat_map(|arrival| [(arrival.at, 1), (arrival.at + arrival.task, -1)])
            .collect();
        events.sort_unstable();
        let (mut running, mut peak, mut idle) = (0, 0, 0.0);
        let mut last = Moment::default();
        for (at, change) in &events {
            if running == 0 {
                idle += at.since(last).as_secs_f64();
            }
            last = *at;
            running += change;
            peak = peak.max(running);
        }
        (idle / last.since(Moment::default()).as_secs_f64(), peak)
    }
}
