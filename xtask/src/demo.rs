//! The demo: builds the programs, separates songs with the worker alone and then through the API of an autoscaled
//! pool on this machine, and prints the paths and quality of the stems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::binaries::{self, Binaries, Mix, Profile, Separation};
use crate::process;
use crate::project::Project;
use crate::songs;

/// The mix used as the demo's song: a real voice over real music.
const DEMO_MIX: u32 = 1;

/// The sample pool to run.
const POOL: &str = "deploy/samples/local.yaml";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Songs to separate instead of the demo's own
    files: Vec<PathBuf>,
}

/// The result of one song, as in a line of `separation-operator local --json`.
#[derive(Debug, Deserialize)]
struct SongReport {
    input: PathBuf,
    #[serde(default)]
    outputs: BTreeMap<String, PathBuf>,
    error: Option<String>,
}

/// `cargo xtask demo`: the worker separates the songs while the operator is built, then a pool does.
pub(crate) fn demo(project: &Project, options: &Options) -> Result<()> {
    let files = found(&options.files)?;
    let (binaries, operator) = Binaries::build_worker_first(project)?;
    let demo = Demo {
        project,
        binaries: &binaries,
        output: project.path("stems"),
    };
    let songs = match files.is_empty() {
        true => demo.own_song()?,
        false => Songs { files, exact: None },
    };
    demo.separate(&songs)?;
    println!("\nwaiting for the build of the operator, to separate the same with an autoscaled pool");
    operator.finish()?;
    demo.run_pool(&songs).map(drop)
}

/// Runs the demo with the tests' programs, and leaves nothing in the checkout.
pub(crate) fn run_smoke_test(project: &Project) -> Result<()> {
    let binaries = Binaries::build(project, Profile::Tested)?;
    let demo = Demo::in_target(project, &binaries);
    let songs = demo.own_song()?;
    demo.separate(&songs)?;
    demo.run_pool(&songs).map(drop)
}

/// Time of the demo's own song with these programs, from the pool's start to its end.
pub(crate) fn timed(project: &Project, binaries: &Binaries<'_>) -> Result<Duration> {
    let demo = Demo::in_target(project, binaries);
    demo.run_pool(&demo.own_song()?)
}

struct Demo<'p> {
    project: &'p Project,
    binaries: &'p Binaries<'p>,
    /// Output directory of stems.
    output: PathBuf,
}

/// Files to separate, and the exact stems of the demo's own song.
struct Songs {
    files: Vec<PathBuf>,
    exact: Option<Mix>,
}

/// Absolute paths of the files, because the programs run in the checkout; the error lists all missing files.
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

impl<'p> Demo<'p> {
    fn in_target(project: &'p Project, binaries: &'p Binaries<'p>) -> Self {
        Self {
            project,
            binaries,
            output: project.target("demo/stems"),
        }
    }

    fn own_song(&self) -> Result<Songs> {
        let songs = songs::install(self.project)?;
        let mixes = self
            .binaries
            .mix(&songs, &self.project.target("demo"), Some(DEMO_MIX))?;
        let song = mixes
            .into_iter()
            .next()
            .context("separation-evaluation made no mix")?;
        Ok(Songs {
            files: vec![song.mix.clone()],
            exact: Some(song),
        })
    }

    /// Separates the songs with one call of the worker's command line.
    fn separate(&self, songs: &Songs) -> Result<()> {
        let reports = self.binaries.separate(&songs.files, &self.output, &[])?;
        let reports: Vec<SongReport> = reports.into_iter().map(SongReport::from).collect();
        self.print(&reports, songs)
    }

    /// Runs a pool until the songs are separated, and returns the time.
    fn run_pool(&self, songs: &Songs) -> Result<Duration> {
        let mut local = self.project.command(&self.binaries.operator);
        local
            .args(["local", "--json", "--port=0", "--file", POOL, "--worker"])
            .arg(&self.binaries.worker)
            .arg("--output")
            .arg(&self.output)
            .arg("--input")
            .args(&songs.files);
        println!("{}", process::line(&local));
        let started = Instant::now();
        let (printed, status) = process::read_with_status(&mut local)?;
        let duration = started.elapsed();
        let reports: Vec<SongReport> = binaries::json_lines(&printed)?;
        if reports.len() != songs.files.len() {
            process::expect_success(status, &local)?;
        }
        self.print(&reports, songs)?;
        println!("\n{}", figures(reports.len(), duration));
        Ok(duration)
    }

    /// Prints the stems' paths and quality; fails if a song failed.
    fn print(&self, reports: &[SongReport], songs: &Songs) -> Result<()> {
        for report in reports {
            let quality =
                |stem: &str, path: &Path| match songs.exact.as_ref().and_then(|song| song.reference(stem)) {
                    Some(reference) => Ok(Some(self.binaries.sdr_db(reference, path)?)),
                    None => anyhow::Ok(None),
                };
            println!("{}", report_text(report, quality)?);
        }
        let failed = reports.iter().filter(|report| report.error.is_some()).count();
        ensure!(failed == 0, "{failed} of {} songs failed", reports.len());
        Ok(())
    }
}

impl From<binaries::Report> for SongReport {
    fn from(report: binaries::Report) -> Self {
        match report {
            binaries::Report::Separated(Separation { input, outputs, .. }) => Self {
                input,
                outputs,
                error: None,
            },
            binaries::Report::Failed { input, error } => Self {
                input,
                outputs: BTreeMap::new(),
                error: Some(error),
            },
        }
    }
}

fn report_text(report: &SongReport, quality: impl Fn(&str, &Path) -> Result<Option<f64>>) -> Result<String> {
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

fn figures(songs: usize, duration: Duration) -> String {
    let songs = match songs {
        1 => "one song".to_owned(),
        more => format!("{more} songs"),
    };
    format!(
        "{songs} in {:.1} s, from the start of the pool, without workers, to its end",
        duration.as_secs_f64()
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
    fn the_result_of_a_song_is_printed_with_paths_and_quality() {
        let report = |line| binaries::json_lines::<SongReport>(line).unwrap().remove(0);
        let done = report(r#"{"input":"a.wav","status":"done","outputs":{"vocals":"s/a_vocals.wav"}}"#);
        let quality = |_: &str, _: &Path| Ok(Some(6.13));
        assert_eq!(
            report_text(&done, quality).unwrap(),
            "\na.wav\n  vocals: s/a_vocals.wav  (SDR 6.13 dB against the exact vocals)"
        );
        let failed = report(r#"{"input":"b.txt","status":"failed","error":"not audio"}"#);
        assert_eq!(
            report_text(&failed, |_, _| Ok(None)).unwrap(),
            "\nb.txt\n  FAILED: not audio"
        );
        assert_eq!(
            figures(2, Duration::from_millis(9_840)),
            "2 songs in 9.8 s, from the start of the pool, without workers, to its end"
        );
    }
}
