//! The main job in one command: build, run an autoscaled pool on this machine, separate songs through its API, say where
//! the stems are and how well it went.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::binaries::{Binaries, Mix, Profile};
use crate::process;
use crate::project::Project;
use crate::songs;

/// The mix that is the demo's song: a real voice over real music.
const DEMO_MIX: u32 = 1;

/// The pool that is run.
const POOL: &str = "deploy/samples/local.yaml";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Songs to separate instead of the demo's own
    files: Vec<PathBuf>,
}

/// What `separation-operator local --json` says about one song.
#[derive(Debug, Deserialize)]
struct Report {
    input: PathBuf,
    #[serde(default)]
    outputs: BTreeMap<String, PathBuf>,
    error: Option<String>,
}

/// `cargo xtask demo`.
pub(crate) fn demo(project: &Project, options: &Options) -> Result<()> {
    let files = found(&options.files)?;
    let binaries = Binaries::build(project, Profile::Release)?;
    let demo = Demo {
        project,
        binaries: &binaries,
        output: project.path("stems"),
    };
    match files.is_empty() {
        true => demo.own_song(),
        false => demo.separate(&files, None),
    }
    .map(drop)
}

/// The demo with the programs that tests were run on, leaving nothing in the checkout.
pub(crate) fn as_a_test(project: &Project) -> Result<()> {
    let binaries = Binaries::build(project, Profile::Tested)?;
    let output = project.target("demo/stems");
    let demo = Demo {
        project,
        binaries: &binaries,
        output,
    };
    demo.own_song().map(drop)
}

/// How long the demo's own song takes, from the pool's start to its end, with these programs.
pub(crate) fn timed(project: &Project, binaries: &Binaries<'_>) -> Result<Duration> {
    let demo = Demo {
        project,
        binaries,
        output: project.target("demo/stems"),
    };
    demo.own_song()
}

struct Demo<'p> {
    project: &'p Project,
    binaries: &'p Binaries<'p>,
    /// Where stems go.
    output: PathBuf,
}

/// The files with their full paths, since the programs are started in the checkout; all that are missing at once.
fn found(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let missing: Vec<_> = files
        .iter()
        .filter(|file| !file.is_file())
        .map(|file| file.display().to_string())
        .collect();
    ensure!(missing.is_empty(), "no such file: {}", missing.join(", "));
    files
        .iter()
        .map(|file| std::path::absolute(file).context("no current directory"))
        .collect()
}

impl Demo<'_> {
    fn own_song(&self) -> Result<Duration> {
        let songs = songs::install(self.project)?;
        let mixes = self
            .binaries
            .mix(&songs, &self.project.target("demo"), Some(DEMO_MIX))?;
        let song = mixes.first().context("separation-evaluation made no mix")?;
        self.separate(std::slice::from_ref(&song.mix), Some(song))
    }

    /// Runs a pool until the songs are separated, and says how long that took; `exact` has a song's exact stems, where
    /// they are known.
    fn separate(&self, files: &[PathBuf], exact: Option<&Mix>) -> Result<Duration> {
        let mut local = self.project.command(&self.binaries.operator);
        local
            .args(["local", "--json", "--port=0", "--file", POOL, "--worker"])
            .arg(&self.binaries.worker)
            .arg("--output")
            .arg(&self.output)
            .arg("--input")
            .args(files);
        println!("{}", process::line(&local));
        let started = Instant::now();
        let (printed, status) = process::read_with_status(&mut local)?;
        let took = started.elapsed();
        let reports: Vec<Report> = crate::binaries::json_lines(&printed)?;
        if reports.len() != files.len() {
            process::expect_success(status, &local)?;
        }
        let mut failed = 0;
        for report in &reports {
            failed += usize::from(report.error.is_some());
            let quality = |stem: &str, path: &Path| match exact.and_then(|song| song.reference(stem)) {
                Some(reference) => Ok(Some(self.binaries.sdr_db(reference, path)?)),
                None => anyhow::Ok(None),
            };
            println!("{}", words(report, quality)?);
        }
        println!("\n{}", figures(reports.len(), took));
        ensure!(failed == 0, "{failed} of {} songs failed", reports.len());
        Ok(took)
    }
}

fn words(report: &Report, quality: impl Fn(&str, &Path) -> Result<Option<f64>>) -> Result<String> {
    let mut text = format!("\n{}", report.input.display());
    if let Some(error) = &report.error {
        text.push_str(&format!("\n  FAILED: {error}"));
    }
    for (stem, path) in &report.outputs {
        text.push_str(&format!("\n  {stem}: {}", path.display()));
        if let Some(sdr_db) = quality(stem, path)? {
            text.push_str(&format!("  (SDR {sdr_db:.2} dB against the exact {stem})"));
        }
    }
    Ok(text)
}

fn figures(songs: usize, took: Duration) -> String {
    let songs = match songs {
        1 => "one song".to_owned(),
        more => format!("{more} songs"),
    };
    format!(
        "{songs} in {:.1} s, from the pool's start with no workers to its end",
        took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_files_are_named_before_anything_is_built() {
        let refused = found(&["/no/one.mp3".into(), "/".into(), "/no/two.mp3".into()]).unwrap_err();
        assert_eq!(refused.to_string(), "no such file: /no/one.mp3, /, /no/two.mp3");
    }

    #[test]
    fn what_became_of_a_song_reads_well() {
        let report = |line| crate::binaries::json_lines::<Report>(line).unwrap().remove(0);
        let done = report(r#"{"input":"a.wav","status":"done","outputs":{"vocals":"s/a_vocals.wav"}}"#);
        let known = |_: &str, _: &Path| Ok(Some(6.13));
        assert_eq!(
            words(&done, known).unwrap(),
            "\na.wav\n  vocals: s/a_vocals.wav  (SDR 6.13 dB against the exact vocals)"
        );
        let failed = report(r#"{"input":"b.txt","status":"failed","error":"not audio"}"#);
        assert_eq!(
            words(&failed, |_, _| Ok(None)).unwrap(),
            "\nb.txt\n  FAILED: not audio"
        );
        assert_eq!(
            figures(2, Duration::from_millis(9_840)),
            "2 songs in 9.8 s, from the pool's start with no workers to its end"
        );
    }
}
