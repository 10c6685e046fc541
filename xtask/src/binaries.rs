//! Builds and runs the project's own programs, and parses their output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::models;
use crate::onnx_runtime::{self, Build};
use crate::process::{self, Running};
use crate::project::Project;
use crate::system;

const WORKER: &str = "separation-worker";
const OPERATOR: &str = "separation-operator";
const EVALUATION: &str = "separation-evaluation";

/// Builds of `separation-worker`, `separation-operator` and `separation-evaluation`.
#[derive(Debug)]
pub(crate) struct Binaries<'p> {
    project: &'p Project,
    pub(crate) worker: PathBuf,
    pub(crate) operator: PathBuf,
    evaluation: PathBuf,
}

/// Build profile of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As in the images: optimized across crates, which takes minutes.
    Dist,
    /// The builds of `cargo xtask test`, with all features.
    Tested,
}

/// One line of `separation-worker separate --json`, about one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(crate) enum Report {
    Separated(Separation),
    Failed { input: PathBuf, error: String },
}

/// A separated file.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Separation {
    pub(crate) input: PathBuf,
    /// The output file of each stem.
    pub(crate) outputs: BTreeMap<String, PathBuf>,
    pub(crate) wall_seconds: f64,
    /// Seconds of audio per second of work.
    pub(crate) speed: f64,
    pub(crate) peak_memory_bytes: u64,
    /// Seconds from the start of the process to the first finished chunk.
    pub(crate) first_chunk_seconds: Option<f64>,
}

/// A mix with exact references, as printed by `separation-evaluation mix --json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mix {
    pub(crate) name: String,
    pub(crate) mix: PathBuf,
    vocals_reference: PathBuf,
    instrumental_reference: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Sdr {
    /// `null` if the estimate equals the reference.
    sdr_db: Option<f64>,
}

/// Runs of a model alone, as printed by `separation-worker bench-model`.
#[derive(Debug, Deserialize)]
pub(crate) struct BareRuns {
    pub(crate) run_seconds: Vec<f64>,
    /// Chunks of a song of the requested length.
    pub(crate) song_chunks: u64,
}

impl Mix {
    /// The exact reference of a stem; only the two mixed stems have one.
    pub(crate) fn reference(&self, stem: &str) -> Option<&Path> {
        match stem {
            "vocals" => Some(&self.vocals_reference),
            "instrumental" => Some(&self.instrumental_reference),
            _ => None,
        }
    }
}

impl<'p> Binaries<'p> {
    /// Builds the programs, and installs their requirements and the default model.
    pub(crate) fn build(project: &'p Project, profile: Profile) -> Result<Self> {
        install_requirements(project)?;
        println!("building the worker, the operator and separation-evaluation (minutes the first time)");
        let (mut build, directory) = match profile {
            Profile::Dist => (
                build_of(project.dist_build(), &[WORKER, EVALUATION, OPERATOR]),
                "dist",
            ),
            Profile::Tested => (project.tests_build(), "debug"),
        };
        let ((), wheel) = models::while_building(project, || process::run(&mut build))?;
        let binaries = Self::in_directory(project, directory);
        models::install(project, &binaries.worker, wheel.as_ref())?;
        Ok(binaries)
    }

    /// Builds the worker and separation-evaluation, and starts the build of the operator.
    pub(crate) fn build_worker_first(project: &'p Project) -> Result<(Self, Running)> {
        install_requirements(project)?;
        println!("building the worker (minutes the first time)");
        let mut build = build_of(release_build(project), &[WORKER, EVALUATION]);
        let ((), wheel) = models::while_building(project, || process::run(&mut build))?;
        println!("building the operator in the background");
        let mut build = build_of(release_build(project), &[OPERATOR]);
        build.arg("--quiet");
        let running = process::start(build)?;
        let binaries = Self::in_directory(project, "release");
        models::install(project, &binaries.worker, wheel.as_ref())?;
        Ok((binaries, running))
    }

    fn in_directory(project: &'p Project, directory: &str) -> Self {
        let program = |name: &str| project.target(format!("{directory}/{name}"));
        Self {
            project,
            worker: program(WORKER),
            operator: program(OPERATOR),
            evaluation: program(EVALUATION),
        }
    }

    /// Separates `inputs` into `output_dir`, continuing after failures; shows progress on our standard error.
    pub(crate) fn separate(
        &self,
        inputs: &[PathBuf],
        output_dir: &Path,
        settings: &[&str],
    ) -> Result<Vec<Report>> {
        let mut command = self.project.command(&self.worker);
        command
            .args(["separate", "--json", "--output-dir"])
            .arg(output_dir)
            .args(settings)
            .arg("--")
            .args(inputs);
        let (printed, status) = process::read_with_status(&mut command)?;
        let reports: Vec<Report> = json_lines(&printed)?;
        // With a report for every file, a failure is described better there than by the exit status.
        if reports.len() != inputs.len() {
            process::expect_success(status, &command)?;
            bail!(
                "separation-worker reported {} files, not {}",
                reports.len(),
                inputs.len()
            );
        }
        Ok(reports)
    }

    /// The same for one file, which must not fail.
    pub(crate) fn separate_one(
        &self,
        input: &Path,
        output_dir: &Path,
        settings: &[&str],
    ) -> Result<Separation> {
        match self.separate(&[input.to_path_buf()], output_dir, settings)?.pop() {
            Some(Report::Separated(separation)) => Ok(separation),
            Some(Report::Failed { input, error }) => bail!("cannot separate {}: {error}", input.display()),
            None => bail!("separation-worker reported no file"),
        }
    }

    /// Seconds that the model alone takes for one chunk, measured `runs` times.
    pub(crate) fn bare_runs(
        &self,
        model: &Path,
        threads: &str,
        runs: u32,
        song_seconds: u32,
    ) -> Result<BareRuns> {
        let printed = process::read(
            self.project
                .command(&self.worker)
                .args(["bench-model", "--threads", threads, "--runs", &runs.to_string()])
                .args(["--song-seconds", &song_seconds.to_string(), "--model"])
                .arg(model),
        )?;
        let [runs] = <[BareRuns; 1]>::try_from(json_lines(&printed)?)
            .map_err(|lines| anyhow::anyhow!("bench-model printed {} reports, not one", lines.len()))?;
        Ok(runs)
    }

    /// Makes the mixes with exact references, or only number `only` (from 1).
    pub(crate) fn mix(&self, songs: &Path, output_dir: &Path, only: Option<u32>) -> Result<Vec<Mix>> {
        let mut command = self.project.command(&self.evaluation);
        command
            .args(["mix", "--json", "--songs"])
            .arg(songs)
            .arg("--output-dir")
            .arg(output_dir);
        if let Some(number) = only {
            command.args(["--only", &number.to_string()]);
        }
        json_lines(&process::read(&mut command)?)
    }

    /// Repeats a song until it is `seconds` long.
    pub(crate) fn loop_to(&self, input: &Path, seconds: u32, output: &Path) -> Result<()> {
        process::run(
            self.project
                .command(&self.evaluation)
                .args(["loop", "--seconds", &seconds.to_string(), "--input"])
                .arg(input)
                .arg("--output")
                .arg(output),
        )
    }

    /// The signal-to-distortion ratio in dB; infinite if the two are equal.
    pub(crate) fn sdr_db(&self, reference: &Path, estimate: &Path) -> Result<f64> {
        let printed = process::read(
            self.project
                .command(&self.evaluation)
                .args(["sdr", "--json", "--reference"])
                .arg(reference)
                .arg("--estimate")
                .arg(estimate),
        )?;
        let [Sdr { sdr_db }] = <[Sdr; 1]>::try_from(json_lines(&printed)?)
            .map_err(|lines| anyhow::anyhow!("sdr printed {} values, not one", lines.len()))?;
        Ok(sdr_db.unwrap_or(f64::INFINITY))
    }
}

fn install_requirements(project: &Project) -> Result<()> {
    system::ensure(system::FOR_BUILDING)?;
    onnx_runtime::install(project, Build::Cpu)?;
    Ok(())
}

fn release_build(project: &Project) -> Command {
    let mut build = project.cargo("build");
    build.args(["--locked", "--release"]);
    build
}

/// The build of these programs. It selects the packages of all of them, so that each call compiles the dependencies
/// with the same features and none is compiled twice.
fn build_of(mut build: Command, programs: &[&str]) -> Command {
    for package in [WORKER, EVALUATION, OPERATOR] {
        build.args(["--package", package]);
    }
    for program in programs {
        build.args(["--bin", program]);
    }
    build
}

/// Parses one value per non-empty line.
pub(crate) fn json_lines<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("cannot parse `{line}`")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_parsed_and_unknown_fields_are_ignored() {
        let line =
            r#"{"status":"separated","input":"a.wav","outputs":{"vocals":"s/a_vocals.wav","instrumental":"s/a_instrumental.wav"},
            "audio_seconds":20.5,"wall_seconds":1.0,"speed":20.5,"peak_memory_bytes":1000,"new":1}"#
                .replace('\n', "");
        let reports: Vec<Report> = json_lines(&format!("{line}\n\n{line}\n")).unwrap();
        let [Report::Separated(_), Report::Separated(separation)] = &reports[..] else {
            panic!("two songs were separated, not {reports:?}")
        };
        assert_eq!(separation.outputs["vocals"], Path::new("s/a_vocals.wav"));
        assert_eq!(separation.first_chunk_seconds, None);
    }

    #[test]
    fn a_failed_song_is_parsed_as_a_failure() {
        let lines = r#"{"status":"failed","input":"a.txt","error":"not audio","wall_seconds":0.0}"#;
        let reports: Vec<Report> = json_lines(lines).unwrap();
        assert!(matches!(&reports[..], [Report::Failed { error, .. }] if error == "not audio"));
    }

    #[test]
    fn a_line_that_is_no_report_is_shown() {
        let refused = json_lines::<Sdr>("oops").unwrap_err();
        assert_eq!(refused.to_string(), "cannot parse `oops`");
    }

    #[test]
    fn an_equal_estimate_has_no_finite_figure() {
        let figures: Vec<Sdr> = json_lines("{\"sdr_db\":null}\n{\"sdr_db\":-1.5}").unwrap();
        assert_eq!((figures[0].sdr_db, figures[1].sdr_db), (None, Some(-1.5)));
    }
}
