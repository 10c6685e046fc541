//! The whole system on a real cluster: what is lost when all around the workers fails, how soon a message finds a
//! worker where there was none, and the size of the images.
//!
//! The benchmark of the scenarios measures.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Bench;
use super::figures::{Section, Spread};
use crate::images::{self, MOST, Profile, TAG};
use crate::{process, test};

#[derive(Debug, Deserialize)]
struct Faults {
    lost: usize,
    separated_again: usize,
    told_twice: usize,
    ended_badly: usize,
}

#[derive(Debug, Deserialize)]
struct Start {
    seconds: Vec<f64>,
}

pub(super) fn faults(bench: &Bench<'_>) -> Result<Section> {
    // A worker can be held in those that tests have.
    prepare(bench, Profile::Tests)?;
    let runs: Vec<Faults> = measure(bench, &["faults"])?;
    let row = |what: &str, count: fn(&Faults) -> usize| {
        let counts: Vec<String> = runs.iter().map(|run| count(run).to_string()).collect();
        vec![what.to_owned(), counts.join(", ")]
    };
    Ok(Section {
        title: "Cluster: faults",
        text: "Sixty tasks of 1 to 60 s on 12 partitions, from zero pods to four and back, on a cluster of its own for each run. \
               In the middle of tasks, one after the other: the operator's leader, the API server, kubelet, the broker and \
               containerd killed and started again, and S3 away for a minute. Promised are zeros."
            .to_owned(),
        header: vec!["", "each run"],
        rows: vec![
            row("tasks lost", |run| run.lost),
            row("tasks separated again", |run| run.separated_again),
            row("tasks told twice", |run| run.told_twice),
            row("pods killed, or ended with an error", |run| run.ended_badly),
        ],
    })
}

pub(super) fn start(bench: &Bench<'_>) -> Result<Section> {
    prepare(bench, Profile::Release)?;
    let rows = ["0", "3000"].into_iter().map(|delay| -> Result<Vec<String>> {
        let found: Start = measure(bench, &["start", "--rebalance-delay-ms", delay])?;
        let [min, median, max] = Spread::of(found.seconds).context("nothing was run")?.cells(1);
        Ok(vec![format!("{delay} ms"), min, median, max])
    });
    Ok(Section {
        title: "Cluster: from a message to its worker",
        text: "Seconds from a message published at zero pods to the start of its task in a pod, nine times each, images present, \
               default settings, by the broker's `group.initial.rebalance.delay.ms`. Promised is a median of at most 6 s with \
               a delay of 0; 3,000 ms are the brokers' default."
            .to_owned(),
        header: vec!["rebalance delay", "min", "median", "max"],
        rows: rows.collect::<Result<_>>()?,
    })
}

pub(super) fn image_sizes(bench: &Bench<'_>) -> Result<Section> {
    let images = images::build(bench.project, Profile::Release, TAG)?;
    let rows = images.iter().zip(MOST).map(|(image, (_, most))| {
        let [size, most] = [image.bytes()?, most].map(|bytes| format!("{:.0}", bytes as f64 / 1e6));
        Ok(vec![image.name.clone(), size, most])
    });
    Ok(Section {
        title: "Image sizes",
        text: "MB (10^6 bytes) of the images for CPUs as they are shipped, all layers, unpacked.".to_owned(),
        header: vec!["", "MB", "promised"],
        rows: rows.collect::<Result<_>>()?,
    })
}

/// Installs the parts of a cluster and builds the images of this profile.
fn prepare(bench: &Bench<'_>, profile: Profile) -> Result<()> {
    if let Some(reason) = test::install(bench.project)? {
        bail!("this machine cannot run a Kubernetes node: {reason}");
    }
    images::build(bench.project, profile, TAG).map(drop)
}

/// Runs one scenario of the cluster's benchmark with the images that were built last and reads its figures.
fn measure<T: for<'d> Deserialize<'d>>(bench: &Bench<'_>, scenario: &[&str]) -> Result<T> {
    let project = bench.project;
    let printed = process::read(
        project
            .cargo("bench")
            // It only waits: what is measured is in the images.
            .args(["--locked", "--quiet", "--profile=dev"])
            .args(["--workspace", "--all-features", "--bench=cluster", "--"])
            .args(scenario)
            .env(test::IMAGES, project.target(images::FOLDER)),
    )?;
    serde_json::from_str(&printed).with_context(|| format!("cannot understand `{printed}`"))
}
