//! End-to-end benchmarks on a real cluster: work lost while each component around the workers fails and while workers
//! are evicted, time from a message at zero pods to its task's start, in total and by stage, a scale-up for many songs,
//! start and song of the image of `local`, alerts without faults, and the size of the images.
//!
//! The measurements are made by the benchmark of the scenarios package.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::context::Bench;
use super::figures::{Section, Spread};
use crate::images::{self, ImageProfile, Recipe, TAG};
use crate::{process, test};

#[derive(Debug, Deserialize)]
struct TaskFaults {
    lost: usize,
    repeated: usize,
    duplicate_results: usize,
    failed_pods: usize,
}

#[derive(Debug, Deserialize)]
struct Evictions {
    /// From each eviction to the start of its task on another worker.
    seconds: Vec<f64>,
    lost: usize,
    repeated: usize,
    failed_pods: usize,
    dead_letters: usize,
}

#[derive(Debug, Deserialize)]
struct StartTimes {
    seconds: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct Stage {
    name: String,
    /// One for each run.
    seconds: Vec<f64>,
}

/// The file in the directory of the document's images that has the complete [`Recording::watch`].
const RECORDING: &str = "scale-up.txt";

#[derive(Debug, Deserialize)]
struct Recording {
    /// Output of kubectl.
    watch: String,
    replicas_seconds: f64,
    webhooks_seconds: f64,
    no_pods_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct LocalImage {
    /// From the start of each container to its first response.
    start_seconds: Vec<f64>,
    /// From a song to its stems.
    song_seconds: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct HealthyHour {
    minutes: u64,
    tasks: usize,
    /// Seconds by alert.
    fired: BTreeMap<String, f64>,
    /// Seconds by alert.
    pending: BTreeMap<String, f64>,
}

pub(super) fn faults(bench: &Bench<'_>) -> Result<Section> {
    // Workers can be held only in the test images.
    prepare(bench, ImageProfile::Tests)?;
    let runs: Vec<TaskFaults> = measure(bench, &["faults"])?;
    let row = |what: &str, count: fn(&TaskFaults) -> usize| {
        let counts: Vec<String> = runs.iter().map(|run| count(run).to_string()).collect();
        vec![what.to_owned(), counts.join(", ")]
    };
    Ok(Section {
        title: "Cluster: faults",
        text: "Sixty tasks of 1 to 60 s on 12 partitions, from zero pods to four and back, on a new cluster for each run. \
               In the middle of tasks, one after the other: the operator's leader, the API server, kubelet, the broker and \
               containerd killed and restarted, and S3 unreachable for a minute. Target: all zero."
            .to_owned(),
        header: vec!["", "each run"],
        rows: vec![
            row("tasks lost", |run| run.lost),
            row("tasks separated again", |run| run.repeated),
            row("tasks with several results or webhook ids", |run| run.duplicate_results),
            row("pods killed or exited with an error", |run| run.failed_pods),
        ],
    })
}

pub(super) fn evictions(bench: &Bench<'_>) -> Result<Section> {
    // Workers can be held only in the test images.
    prepare(bench, ImageProfile::Tests)?;
    let found: Evictions = measure(bench, &["evictions"])?;
    let trials = found.seconds.len();
    let [min, median, max] = Spread::from_figures(found.seconds)
        .context("there were no runs")?
        .cells(1);
    let row = |what: &str, figure: String| vec![what.to_owned(), figure];
    Ok(Section {
        title: "Cluster: evictions",
        text: format!(
            "{trials} workers evicted with a notice of 30 s, 20 s after the start of a task of 60 s, with `drainSeconds: 25`, \
             heartbeats every 3 s and an idle worker. Target: a start on the other worker within 15 s; otherwise all zero."
        ),
        header: vec!["", "figure"],
        rows: vec![
            row("seconds to the start on another worker: min", min),
            row("median", median),
            row("max", max),
            row("tasks lost", found.lost.to_string()),
            row("tasks separated again", found.repeated.to_string()),
            row("dead letters", found.dead_letters.to_string()),
            row(
                "pods killed or exited with an error",
                found.failed_pods.to_string(),
            ),
        ],
    })
}

pub(super) fn start(bench: &Bench<'_>) -> Result<Section> {
    prepare(bench, ImageProfile::Dist)?;
    let rows = ["0", "3000"].into_iter().map(|delay| -> Result<Vec<String>> {
        let found: StartTimes = measure(bench, &["start", "--rebalance-delay-ms", delay])?;
        let [min, median, max] = Spread::from_figures(found.seconds)
            .context("there were no runs")?
            .cells(1);
        Ok(vec![format!("{delay} ms"), min, median, max])
    });
    Ok(Section {
        title: "Cluster: from a message to the start of its task",
        text: "Seconds from a message published at zero pods to the start of its task in a pod, nine times each, images present, \
               default settings, by the broker's `group.initial.rebalance.delay.ms`. Target: a median of at most 6 s with \
               a delay of 0; 3,000 ms is the brokers' default."
            .to_owned(),
        header: vec!["rebalance delay", "min", "median", "max"],
        rows: rows.collect::<Result<_>>()?,
    })
}

pub(super) fn reaction_stages(bench: &Bench<'_>) -> Result<Section> {
    prepare(bench, ImageProfile::Dist)?;
    let stages: Vec<Stage> = measure(bench, &["stages"])?;
    let runs = stages.first().map_or(0, |stage| stage.seconds.len());
    let totals = (0..runs).map(|run| stages.iter().map(|stage| stage.seconds[run]).sum::<f64>());
    let total = Spread::row("total", totals.collect(), 2)?;
    let rows = stages
        .into_iter()
        .map(|stage| Spread::row(stage.name, stage.seconds, 2));
    let mut rows: Vec<_> = rows.collect::<Result<_>>()?;
    rows.push(total);
    Ok(Section {
        title: "Cluster: from a message to the start of its task, by stage",
        text: format!(
            "Seconds from a message published at zero pods to the start of its task in a pod, {runs} times, images present, \
             default settings, the built-in model, `group.initial.rebalance.delay.ms` of 0 (the brokers' default, 3,000, \
             lengthens the group join by as much). *decision*: until the operator has read the lag and decided; *write*: \
             until the pod exists, which takes the Deployment's and the ReplicaSet's controllers; *scheduler*: until it has \
             a node; *kubelet*: until its container starts; *process*: until the worker's first log line; *model*: until \
             the model is loaded; *group join*: until the worker has partitions; *first fetch*: until the task starts, \
             after an assignment that was stable for `SETTLE_MS`, 1 s."
        ),
        header: vec!["stage", "min", "median", "max"],
        rows,
    })
}

pub(super) fn recording(bench: &Bench<'_>) -> Result<Section> {
    prepare(bench, ImageProfile::Dist)?;
    let found: Recording = measure(bench, &["recording"])?;
    println!("{}", found.watch);
    if let Some(images) = &bench.images {
        let path = images.join(RECORDING);
        fs::write(&path, &found.watch).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let row = |what: &str, seconds: f64| vec![what.to_owned(), format!("{seconds:.1}")];
    Ok(Section {
        title: "Cluster: 24 songs",
        text: format!(
            "Seconds from the first of 24 messages at zero pods, each with a song of 60 s on a partition of its own, with the              default model, at most 24 processors and scale-down after 15 s. All pods share this machine.              [Output of `kubectl get seppool --watch`](images/{RECORDING}); README.md has an excerpt."
        ),
        header: vec!["until", "s"],
        rows: vec![
            row("the Deployment has 24 replicas", found.replicas_seconds),
            row(
                "the stems of all songs are stored and webhooks delivered",
                found.webhooks_seconds,
            ),
            row("no pod is left", found.no_pods_seconds),
        ],
    })
}

pub(super) fn local_image(bench: &Bench<'_>) -> Result<Section> {
    prepare_images(bench, ImageProfile::Dist, &images::ALL)?;
    let found: LocalImage = measure(bench, &["local-image"])?;
    let runs = found.start_seconds.len();
    Ok(Section {
        title: "Cluster: the image of `local`",
        text: format!(
            "Seconds from the start of the container to the first response of its API, and from a song of 10 s to its stems \
             with the commands of [local.md](local.md) and the default model, in {runs} containers. Target: at most 5 s and \
             10 s."
        ),
        header: vec!["", "min", "median", "max"],
        rows: vec![
            Spread::row("first response", found.start_seconds, 1)?,
            Spread::row("stems of a song", found.song_seconds, 1)?,
        ],
    })
}

pub(super) fn healthy_hour(bench: &Bench<'_>) -> Result<Section> {
    prepare(bench, ImageProfile::Dist)?;
    let minutes = bench.minutes.to_string();
    let found: HealthyHour = measure(bench, &["healthy-hour", "--minutes", &minutes])?;
    let mut rows = vec![
        vec!["alerts that fired".to_owned(), found.fired.len().to_string()],
        vec![
            "alerts whose expression gave a series, but not for long enough to fire".to_owned(),
            found.pending.len().to_string(),
        ],
    ];
    for (state, alerts) in [("fired", found.fired), ("pending", found.pending)] {
        let seconds = alerts.into_iter().map(|(alert, seconds)| {
            vec![
                format!("{alert}: seconds in which it was {state}"),
                format!("{seconds:.0}"),
            ]
        });
        rows.extend(seconds);
    }
    Ok(Section {
        title: "Cluster: alerts without faults",
        text: format!(
            "{} tasks in {} minutes, one every 5 s, on 12 partitions and up to 3 processors; Prometheus scrapes every second. \
             The run fails if a task is lost or repeated, or a pod fails. Target: no alert fires.",
            found.tasks, found.minutes
        ),
        header: vec!["", "figure"],
        rows,
    })
}

pub(super) fn image_sizes(bench: &Bench<'_>) -> Result<Section> {
    let images = images::build(bench.project, ImageProfile::Dist, &images::ALL, TAG)?;
    let rows = images.iter().zip(images::ALL).map(|(image, recipe)| {
        let [size, max_bytes] =
            [image.bytes()?, recipe.max_bytes].map(|bytes| format!("{:.0}", bytes as f64 / 1e6));
        Ok(vec![image.name.clone(), size, max_bytes])
    });
    Ok(Section {
        title: "Image sizes",
        text: "MB (10^6 bytes) of the released images for CPUs, all layers, uncompressed.".to_owned(),
        header: vec!["", "MB", "promised"],
        rows: rows.collect::<Result<_>>()?,
    })
}

/// Installs the components of a cluster and builds its images, of this profile.
fn prepare(bench: &Bench<'_>, profile: ImageProfile) -> Result<()> {
    prepare_images(bench, profile, &images::FOR_CLUSTERS)
}

/// The same for these images.
fn prepare_images(bench: &Bench<'_>, profile: ImageProfile, recipes: &[Recipe]) -> Result<()> {
    if let Some(reason) = test::install(bench.project)? {
        bail!("this machine cannot run a Kubernetes node: {reason}");
    }
    images::build(bench.project, profile, recipes, TAG).map(drop)
}

/// Runs one scenario of the cluster benchmark with the latest images and parses its output.
fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    let printed = process::read(
        project
            .cargo("bench")
            // It only waits: the measured code is in the images.
            .args(["--locked", "--quiet", "--profile=dev"])
            .args(["--workspace", "--all-features", "--bench=cluster", "--"])
            .args(scenario)
            .env(test::IMAGES, project.target(images::DIRECTORY)),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot parse `{printed}`"))
}
