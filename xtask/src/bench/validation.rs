//! The simulated pool against a real one: the busiest two hours of the trace, ten times as fast, with the operator's
//! decisions about worker processes, real brokers and the API. The simulation gets the tasks as they happened.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::context::Bench;
use super::figures::{Section, Spread};
use super::trace::{self, Task, Trace};
use super::{pipeline, policy};

const RUNS: usize = 3;

/// The part of the trace.
const BUSIEST_SECONDS: f64 = 7_200.0;
const SPEED: f64 = 10.0;

/// Times are a tenth of those of a pool with start-ups of 20 s.
const POOL: &str = "\
apiVersion: separation.dev/v1beta1
kind: SeparationPool
metadata: {name: validation}
spec:
  kafka: {bootstrapServers: 'kafka:9092'}
  storage: {stems: {bucket: stems}, staging: {s3: {}}}
  processor:
    scaling:
      maxReplicas: 24
      target: {type: StartDeadline, startDeadlineSeconds: 6}
      estimates: {startupSeconds: 2, taskSeconds: 2}
      scaleDown: {stabilizationWindowSeconds: 6, lastReplicaStabilizationWindowSeconds: 12}
  uploader: {enabled: false}
";
const PARTITIONS: &str = "48";
const LAG_CHECK_SECONDS: &str = "0.2";

/// The deadline and one lag check, in seconds.
const IN_TIME_SECONDS: f64 = 6.2;

/// A real run.
#[derive(Debug, Deserialize)]
struct Measured {
    /// Arrival, time on a worker and wait of each task, in seconds.
    tasks: Vec<[f64; 3]>,
    worker_hours: f64,
    /// From the start of a process to joining the group, and `SETTLE_MS`.
    start_up_seconds: Vec<f64>,
    /// From joining the group to the first assigned partitions.
    join_seconds: Vec<f64>,
}

/// GPU-hours and the share of tasks that began in time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    gpu_hours: f64,
    in_time_percent: f64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let trace = Trace::load(bench)?;
    let busiest = trace::busiest(&trace.tasks, BUSIEST_SECONDS);
    let begin = busiest.first().context("the trace has no tasks")?.arrival;
    let file = bench.file("busiest.csv");
    trace::write(&trace::faster(busiest, SPEED), &file)?;
    let pool = bench.file("validation.yaml");
    fs::write(&pool, POOL).with_context(|| format!("cannot write {}", pool.display()))?;
    let operator = &bench.binaries()?.operator;
    let [file, pool, operator] = [&file, &pool, operator].map(|path| path.display().to_string());
    let arguments = [
        "policy",
        "--operator",
        &operator,
        "--pool",
        &pool,
        "--trace",
        &file,
        "--partitions",
        PARTITIONS,
        "--lag-check-seconds",
        LAG_CHECK_SECONDS,
    ];
    let mut rows = Vec::new();
    for run in 1..=RUNS {
        println!("run {run} of {RUNS}");
        let measured: Measured = pipeline::measure(bench, &arguments)?;
        let median = |seconds: &[f64]| {
            let spread = Spread::from_figures(seconds.to_vec());
            spread.map(|spread| spread.median).context("no worker started")
        };
        let start_up = median(&measured.start_up_seconds)?;
        let join = median(&measured.join_seconds)?;
        let simulated = simulate(bench, &measured, &pool, [start_up, join])?;
        rows.push(row(run, measured.figures(), simulated, [start_up, join]));
    }
    Ok(Section {
        title: "Scaling policies: the simulation against reality",
        text: format!(
            "Trace: {}; its busiest two hours, {} tasks from {begin:.0} s on, {SPEED} times as fast. \
             `separation-operator local` with StartDeadline 6 s and a lag check every {LAG_CHECK_SECONDS} s, at most 24 \
             worker processes, a real broker with {PARTITIONS} partitions, an S3 server and the API; each worker has its \
             task for the time in the trace. The simulation gets the tasks as they arrived and the time that each took, \
             the same pool, and the medians of the measured start-ups and group joins. In time: begun within the deadline \
             and one lag check. Target: a difference of at most 5 % of the GPU-hours and 2 points of the share in time.",
            trace.origin,
            busiest.len(),
        ),
        header: vec![
            "run",
            "GPU-hours: measured",
            "simulated",
            "difference (%)",
            "in time: measured (%)",
            "simulated (%)",
            "difference (points)",
            "start-up (s)",
            "group join (s)",
        ],
        rows,
    })
}

/// The same run in the simulated pool, with these times of start-up and rebalance.
fn simulate(bench: &Bench<'_>, measured: &Measured, pool: &str, times: [f64; 2]) -> Result<Figures> {
    let tasks: Vec<Task> = measured
        .tasks
        .iter()
        .map(|[arrival, seconds, _]| Task {
            arrival: *arrival,
            seconds: *seconds,
        })
        .collect();
    let file = bench.file("measured.csv");
    trace::write(&tasks, &file)?;
    let file = file.display().to_string();
    let [start_up, rebalance] = times.map(|seconds| format!("{seconds:.3}"));
    let arguments = [
        ["--pool", pool],
        ["--trace", &file],
        ["--partitions", PARTITIONS],
        ["--lag-check-seconds", LAG_CHECK_SECONDS],
        ["--start-up", &start_up],
        ["--rebalance", &rebalance],
        ["--placement", "placed"],
        ["--policies", "pool"],
    ];
    let found = policy::compare(bench, &[arguments.as_flattened(), &["--learn"]].concat())?;
    let result = found.policies.first().context("simulate printed no policy")?;
    Ok(Figures {
        gpu_hours: result.gpu_hours,
        in_time_percent: result.begun_in_time_percent,
    })
}

impl Measured {
    fn figures(&self) -> Figures {
        let in_time = self.tasks.iter().filter(|[_, _, wait]| *wait <= IN_TIME_SECONDS);
        Figures {
            gpu_hours: self.worker_hours,
            in_time_percent: 100.0 * in_time.count() as f64 / self.tasks.len().max(1) as f64,
        }
    }
}

fn row(run: usize, measured: Figures, simulated: Figures, times: [f64; 2]) -> Vec<String> {
    let of_hours = 100.0 * (simulated.gpu_hours / measured.gpu_hours - 1.0);
    let of_share = simulated.in_time_percent - measured.in_time_percent;
    let [start_up, join] = times.map(|seconds| format!("{seconds:.2}"));
    vec![
        run.to_string(),
        format!("{:.3}", measured.gpu_hours),
        format!("{:.3}", simulated.gpu_hours),
        format!("{of_hours:+.1}"),
        format!("{:.1}", measured.in_time_percent),
        format!("{:.1}", simulated.in_time_percent),
        format!("{of_share:+.1}"),
        start_up,
        join,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_differences_of_the_simulation() {
        let measured: Measured = serde_json::from_str(
            r#"{"tasks": [[0.0, 2.0, 6.2], [0.5, 2.0, 6.3]], "worker_hours": 0.8, "starts": 2,
                "start_up_seconds": [1.0], "join_seconds": [0.2]}"#,
        )
        .unwrap();
        let simulated = Figures {
            gpu_hours: 0.84,
            in_time_percent: 49.0,
        };
        let expected = [
            "1", "0.800", "0.840", "+5.0", "50.0", "49.0", "-1.0", "1.10", "0.20",
        ];
        assert_eq!(row(1, measured.figures(), simulated, [1.1, 0.2]), expected);
    }
}
