//! Charts of compared policies.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::comparison::PolicyRun;
use super::scenario::Scenario;
use super::svg::{Chart, Series, Style};
use super::timeline;

/// Writes `lag.svg`, `replicas.svg` and `waits.svg`, each over time, and `gpu-hours.svg`.
///
/// # Errors
/// When the directory or a file cannot be written.
pub(super) fn write_plots(directory: &Path, scenario: &Scenario, runs: &[PolicyRun]) -> anyhow::Result<()> {
    let plots = [
        (
            "lag.svg",
            over_time("Lag", "messages", runs, |run| &run.outcome.timeline.lag, 1.0),
        ),
        (
            "replicas.svg",
            over_time("Pods", "pods", runs, |run| &run.outcome.timeline.pods, 1.0),
        ),
        (
            "waits.svg",
            over_time(
                "Longest wait",
                "seconds",
                runs,
                |run| &run.outcome.timeline.waits,
                0.001,
            ),
        ),
        ("gpu-hours.svg", gpu_hours(scenario, runs)),
    ];
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for (name, svg) in plots {
        let path = directory.join(name);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The highest value of each step of time.
fn over_time(
    title: &str,
    unit: &str,
    runs: &[PolicyRun],
    series: fn(&PolicyRun) -> &timeline::Series,
    factor: f64,
) -> String {
    let length = |run: &PolicyRun| run.outcome.timeline.step() * count(series(run).highest().len());
    let (time_unit, time) = time_unit(runs.iter().map(length).max().unwrap_or_default());
    let series = runs.iter().map(|run| {
        let step = run.outcome.timeline.step().as_secs_f64() / time.as_secs_f64();
        let values = series(run).highest().iter().enumerate();
        Series {
            name: run.policy.to_string(),
            values: values
                .map(|(index, value)| (step * index as f64, factor * *value as f64))
                .collect(),
        }
    });
    Chart {
        title,
        x: time_unit,
        y: unit,
        style: Style::Steps,
        series: series.collect(),
    }
    .svg()
}

fn gpu_hours(scenario: &Scenario, runs: &[PolicyRun]) -> String {
    let limit = scenario.in_time();
    let series = runs.iter().map(|run| Series {
        name: run.policy.to_string(),
        values: vec![(100.0 * run.outcome.share_within(limit), run.outcome.gpu_hours())],
    });
    Chart {
        title: "GPU-hours by the tasks begun in time",
        x: &format!("% begun within {} s", limit.as_secs_f64()),
        y: "GPU-hours",
        style: Style::Points,
        series: series.collect(),
    }
    .svg()
}

/// The unit for an axis of this length.
fn time_unit(length: Duration) -> (&'static str, Duration) {
    let seconds = match length.as_secs() {
        0..10_800 => ("minutes", 60),
        10_800..259_200 => ("hours", 3_600),
        _ => ("days", 86_400),
    };
    (seconds.0, Duration::from_secs(seconds.1))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::comparison::{ComparedPolicy, run_policies};
    use super::super::tests::scenario;
    use super::*;

    #[test]
    fn every_policy_is_in_every_plot() {
        let scenario = scenario("arrival_seconds,task_seconds\n10,30\n700,30\n", &[]);
        let policies = [ComparedPolicy::Keda, ComparedPolicy::Optimum];
        let runs = run_policies(&scenario, &policies).expect("runs");
        let directory = tempfile::tempdir().expect("a directory");
        let plots = directory.path().join("new/plots");
        write_plots(&plots, &scenario, &runs).expect("plots");
        for name in ["lag.svg", "replicas.svg", "waits.svg", "gpu-hours.svg"] {
            let svg = fs::read_to_string(plots.join(name)).expect(name);
            for policy in policies {
                assert!(
                    svg.contains(&format!(">{policy}</text>")),
                    "{name} lacks {policy}"
                );
            }
        }
    }
}
