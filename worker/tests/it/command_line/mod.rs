//! `separation-worker separate` as users and scripts run it.

mod completions;
mod directories;
mod failures;
mod models;
mod mp3;
mod names;
mod output;
mod own_rate;
mod signals;
mod stems;

use std::fs;
use std::ops::Range;
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

    /// With the built-in model, which is fast and installed everywhere, unless the options name one.
    fn command(&self, inputs: &[&Path], options: &[&str]) -> Command {
        let model: &[&str] = match options.contains(&"--model") {
            true => &[],
            false => &["--model", "builtin"],
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
        command
            .arg("separate")
            .args(inputs)
            .arg("--output-dir")
            .arg(self.path("stems"))
            .args(model)
            .args(options);
        command
    }

    fn separate(&self, inputs: &[&Path], options: &[&str]) -> Output {
        self.command(inputs, options).output().unwrap()
    }

    /// Paths of all files below the stems directory, relative to it.
    fn stems(&self) -> Vec<String> {
        let stems = self.path("stems");
        let mut names = Vec::new();
        let mut directories = vec![stems.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    let name = path.strip_prefix(&stems).unwrap().to_str().unwrap();
                    names.push(name.to_owned());
                }
            }
        }
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

/// The largest difference between a song and the sum of its stems, in some of the frames.
fn max_error_of_sum(song: &StereoBlock, stems: [&StereoBlock; 2], frames: Range<usize>) -> f32 {
    let error = |song: &[f32], a: &[f32], b: &[f32]| {
        assert_eq!((song.len(), song.len()), (a.len(), b.len()));
        let errors = frames.clone().map(|n| (song[n] - a[n] - b[n]).abs());
        errors.fold(0.0, f32::max)
    };
    let left = error(&song.left, &stems[0].left, &stems[1].left);
    left.max(error(&song.right, &stems[0].right, &stems[1].right))
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
