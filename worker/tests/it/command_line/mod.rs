//! `separation-worker separate` as users and scripts run it.

mod failures;
mod output;
mod signals;
mod stems;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use separation_worker::audio::{self, OutputFormat, StereoBlock, WavSamples};
use serde_json::Value;

use crate::formats::{read_all, write};

const SECOND: usize = 44_100;

/// A directory of songs, with a stems directory that does not exist yet.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Two seconds of tones that differ between the channels.
    fn song(&self, name: &str) -> PathBuf {
        self.write(name, &tones(2 * SECOND, 0.4))
    }

    fn write(&self, name: &str, block: &StereoBlock) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(block, &path, OutputFormat::Wav(WavSamples::Float32));
        path
    }

    fn command(&self, inputs: &[&Path], options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
        command
            .arg("separate")
            .args(inputs)
            .arg("--output-dir")
            .arg(self.path("stems"))
            .args(options);
        command
    }

    fn separate(&self, inputs: &[&Path], options: &[&str]) -> Output {
        self.command(inputs, options).output().unwrap()
    }

    fn stems(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("stems"))
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }
}

fn tones(frames: usize, level: f32) -> StereoBlock {
    let tone = |hz: f32| {
        (0..frames)
            .map(move |k| level * (k as f32 * hz * std::f32::consts::TAU / SECOND as f32).sin())
            .collect()
    };
    StereoBlock {
        left: tone(440.0),
        right: tone(660.0),
    }
}

fn read(path: &Path) -> StereoBlock {
    read_all(&mut audio::open(path, &audio::SourceOptions::default()).unwrap())
}

fn reports(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn check_refused(output: &Output, expected_errors: &[&str]) {
    check_ended(output, 2, expected_errors);
}

#[track_caller]
fn check_failed(output: &Output, expected_errors: &[&str]) {
    check_ended(output, 1, expected_errors);
}

#[track_caller]
fn check_ended(output: &Output, code: i32, expected_errors: &[&str]) {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for expected in expected_errors {
        assert!(errors.contains(expected), "{expected:?} is not in: {errors}");
    }
}
