//! Learned times of seeded samples.

use proptest::prelude::*;

use super::*;

/// Samples of each check.
const SEEDS: u64 = 200;

/// Draws a time in seconds.
type Draw = fn(&mut fastrand::Rng) -> f64;

/// Distributions of task times, each with its median.
const TASK_TIMES: [(&str, f64, Draw); 4] = [
    ("constant", 23.0, constant),
    ("log-normal", 23.0, log_normal),
    ("like the trace", 23.0, like_the_trace),
    // The quantile 0.5 / 0.7 of the first mode.
    ("bimodal", 21.77, bimodal),
];

fn constant(_: &mut fastrand::Rng) -> f64 {
    23.0
}

/// Median 23 s, 90th percentile 53 s.
fn log_normal(random: &mut fastrand::Rng) -> f64 {
    near(random, 23.0, 0.651)
}

/// A log-normal time with this median and standard deviation of its logarithm (Box-Muller).
fn near(random: &mut fastrand::Rng, median: f64, deviation: f64) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
    median * (deviation * normal).exp()
}

/// Quantiles of the requests of a public trace of GPU tasks, with a heavier tail than a log-normal distribution.
const TRACE: [(f64, f64); 9] = [
    (0.0, 5.0),
    (0.05, 11.0),
    (0.25, 17.0),
    (0.5, 23.0),
    (0.75, 33.0),
    (0.9, 53.0),
    (0.95, 70.0),
    (0.99, 106.0),
    (1.0, 567.0),
];

fn like_the_trace(random: &mut fastrand::Rng) -> f64 {
    let at = random.f64();
    let above = TRACE.iter().position(|(quantile, _)| *quantile > at);
    let above = above.expect("below 1");
    let ((from, shorter), (to, longer)) = (TRACE[above - 1], TRACE[above]);
    shorter * (longer / shorter).powf((at - from) / (to - from))
}

/// Songs of two lengths.
fn bimodal(random: &mut fastrand::Rng) -> f64 {
    let median = if random.f64() < 0.7 { 20.0 } else { 60.0 };
    near(random, median, 0.15)
}

fn sample(draw: impl Fn(&mut fastrand::Rng) -> f64, seed: u64, size: usize) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..size).map(|_| draw(&mut random)).collect()
}

/// Every tenth value becomes 50 times as large.
fn with_outliers(seconds: &[f64]) -> Vec<f64> {
    let factor = |index: usize| if index % 10 == 4 { 50.0 } else { 1.0 };
    let numbered = seconds.iter().enumerate();
    numbered.map(|(index, seconds)| factor(index) * seconds).collect()
}

fn learned(tasks: &[f64], starts: &[f64]) -> LearnedTimes {
    let mut times = LearnedTimes::default();
    for seconds in tasks {
        times.task_finished(Duration::from_secs_f64(*seconds));
    }
    for seconds in starts {
        times.worker_started(Duration::from_secs_f64(*seconds));
    }
    times
}

fn estimates(times: &LearnedTimes) -> Estimates {
    times.estimates(DeclaredEstimates::default())
}

/// The expected time of a task after these.
fn task_after(tasks: &[f64]) -> f64 {
    estimates(&learned(tasks, &[])).task.as_secs_f64()
}

/// The expected start-up time after these.
fn startup_after(starts: &[f64]) -> f64 {
    estimates(&learned(&[], starts)).startup.as_secs_f64()
}

/// Whether a value differs from the expected one by this part of it at most.
fn is_within(part: f64, expected: f64, value: f64) -> bool {
    (value / expected - 1.0).abs() <= part
}

/// Checks a condition for all seeds: it must hold for this share of them.
#[track_caller]
fn check_share(what: &str, expected: f64, holds: impl Fn(u64) -> bool) {
    let holding = (0..SEEDS).filter(|seed| holds(*seed)).count();
    let share = holding as f64 / SEEDS as f64;
    assert!(share >= expected, "{what}: true for {share} of the samples");
}

#[test]
fn after_100_tasks_the_time_of_a_task_is_within_15_percent_of_the_median() {
    for (name, median, draw) in TASK_TIMES {
        let share = |size: usize, expected: f64| {
            check_share(&format!("{name}, {size}"), expected, |seed| {
                is_within(0.15, median, task_after(&sample(draw, seed, size)))
            });
        };
        // The standard error of the median of 100 such times is 8 % if they are log-normal, and 6 % if like the trace.
        share(100, if name == "log-normal" { 0.87 } else { 0.93 });
        share(512, 0.99);
    }
}

#[test]
fn one_task_in_ten_at_50_times_its_time_moves_the_median_by_10_percent_at_most() {
    for (name, _, draw) in TASK_TIMES {
        for (size, share) in [(100, 0.95), (512, 1.0)] {
            check_share(&format!("{name}, {size}"), share, |seed| {
                let tasks = sample(draw, seed, size);
                is_within(0.1, task_after(&tasks), task_after(&with_outliers(&tasks)))
            });
        }
    }
}

#[test]
fn the_tail_is_the_95th_percentile_without_outliers() {
    let distributions: [(&str, f64, Draw); 3] = [
        ("constant", 23.0, constant),
        ("log-normal", 67.1, log_normal),
        ("like the trace", 70.0, like_the_trace),
    ];
    for (name, tail, draw) in distributions {
        check_share(name, 0.95, |seed| {
            let tasks = sample(draw, seed, 512);
            let tail_of = |tasks: &[f64]| estimates(&learned(tasks, &[])).task_tail.as_secs_f64();
            is_within(0.25, tail, tail_of(&tasks)) && is_within(0.25, tail, tail_of(&with_outliers(&tasks)))
        });
    }
}

#[test]
fn after_5_starts_the_start_up_time_is_within_15_percent_of_the_truth() {
    for median in [10.0, 60.0, 180.0] {
        let starts = |seed, size| sample(|random| near(random, median, 0.1), seed, size);
        check_share("5 starts", 0.97, |seed| {
            is_within(0.15, median, startup_after(&starts(seed, 5)))
        });
        for (size, share) in [(5, 0.95), (20, 1.0)] {
            check_share("with outliers", share, |seed| {
                let starts = starts(seed, size);
                is_within(
                    0.1,
                    startup_after(&starts),
                    startup_after(&with_outliers(&starts)),
                )
            });
        }
    }
}

#[test]
fn estimates_of_few_observations_are_shrunk_towards_the_defaults() {
    for (tasks, expected) in [(0, 30.0), (1, 34.46), (25, 60.0), (100, 120.0), (600, 120.0)] {
        let found = task_after(&vec![120.0; tasks]);
        assert!(is_within(0.001, expected, found), "{tasks} tasks: {found} s");
    }
    for (starts, expected) in [(0, 60.0), (1, 90.94), (5, 480.0), (70, 480.0)] {
        let found = startup_after(&vec![480.0; starts]);
        assert!(is_within(0.001, expected, found), "{starts} starts: {found} s");
    }
    assert_eq!(estimates(&LearnedTimes::default()), Estimates::default());
    // All tasks take the same time: the factor of the tail falls from 3 to 1.
    for (tasks, factor) in [(1, 2.856), (125, 1.732), (500, 1.0)] {
        let Estimates { task, task_tail, .. } = estimates(&learned(&vec![120.0; tasks], &[]));
        let found = task_tail.as_secs_f64() / task.as_secs_f64();
        assert!(is_within(0.001, factor, found), "{tasks} tasks: {found}");
    }
}

#[test]
fn the_first_observation_changes_an_estimate_by_little_however_long_it_is() {
    assert!(is_within(0.5, 30.0, task_after(&[50.0 * 30.0])));
    assert!(is_within(1.2, 60.0, startup_after(&[50.0 * 60.0])));
}

#[test]
fn declared_times_replace_learned_ones() {
    let times = learned(&[40.0; 500], &[20.0; 5]);
    let declared = DeclaredEstimates {
        task: Some(Duration::from_secs(90)),
        startup: None,
    };
    let found = times.estimates(declared);
    assert_eq!(found.task, Duration::from_secs(90));
    // The learned factor is 1.
    assert!(is_within(0.001, 90.0, found.task_tail.as_secs_f64()));
    assert!(is_within(0.001, 20.0, found.startup.as_secs_f64()));
    let declared = DeclaredEstimates {
        task: None,
        startup: Some(Duration::from_secs(7)),
    };
    let found = times.estimates(declared);
    assert_eq!(found.startup, Duration::from_secs(7));
    assert!(is_within(0.001, 40.0, found.task.as_secs_f64()));
}

#[test]
fn memory_is_bounded_and_the_last_512_tasks_count() {
    let mut times = learned(&[20.0; 2_000], &[30.0; 2_000]);
    let kept = |sample: &Sample| (sample.values.len(), sample.sorted.len());
    assert_eq!(kept(&times.tasks), (512, 512));
    assert_eq!(kept(&times.starts), (64, 64));
    for _ in 0..512 {
        times.task_finished(Duration::from_secs(40));
    }
    let summary = times.summary();
    assert_eq!((summary.tasks, summary.task_tail_seconds), (2_512, 40));
}

#[test]
fn restored_times_are_replaced_by_as_many_new_ones_as_half_a_sample() {
    let before = LearnedSummary {
        tasks: 1_000_000,
        task_seconds: 20,
        task_tail_seconds: 60,
        starts: 2,
        startup_seconds: 30,
    };
    let mut times = LearnedTimes::restored(before);
    assert_eq!((times.tasks.values.len(), times.starts.values.len()), (256, 2));
    for _ in 0..257 {
        times.task_finished(Duration::from_secs(200));
    }
    let after = times.summary();
    assert_eq!((after.tasks, after.task_seconds), (1_000_257, 200));
    assert_eq!((after.starts, after.startup_seconds), (2, 30));
}

proptest! {
    #[test]
    fn a_restart_changes_nothing_that_was_learned(
        tasks in prop::collection::vec(0.0_f64..1e6, 0..700),
        starts in prop::collection::vec(0.0_f64..1e4, 0..90),
    ) {
        let times = learned(&tasks, &starts);
        let summary = times.summary();
        let restored = LearnedTimes::restored(summary);
        prop_assert_eq!(restored.summary(), summary);
        // Half a second of rounding, in the shortest times.
        let (before, after) = (estimates(&times), estimates(&restored));
        for (before, after) in [(before.task, after.task), (before.startup, after.startup)] {
            prop_assert!(is_within(0.5, before.as_secs_f64(), after.as_secs_f64()), "{before:?}, {after:?}");
        }
    }

    #[test]
    fn an_estimate_is_never_outside_of_the_default_and_what_was_observed(
        seconds in prop::collection::vec(1.0_f64..1e5, 1..200),
    ) {
        let (least, most) = seconds
            .iter()
            .fold((30.0_f64, 30.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
        let task = task_after(&seconds);
        prop_assert!(task >= least * 0.999 && task <= most * 1.001, "{task}");
    }
}
