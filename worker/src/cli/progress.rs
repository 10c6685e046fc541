//! Progress of one song: a bar on a terminal, else plain lines. Always on standard error.

use std::io::{IsTerminal as _, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::printing::{escaped, line_err};
use crate::audio::SAMPLE_RATE_HZ;
use crate::engine::Progress;

/// Minimum interval between plain lines, so that a log stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct ProgressDisplay {
    name: String,
    begin: Instant,
    kind: Kind,
}

enum Kind {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl ProgressDisplay {
    pub(super) fn start(input: &Path, now: Instant) -> Self {
        let name = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy();
        let name = escaped(&name).into_owned();
        let kind = if stderr().is_terminal() {
            let bar = ProgressBar::no_length().with_message(name.clone());
            bar.set_style(style("{msg}  {spinner}"));
            bar.tick();
            Kind::Bar(bar)
        } else {
            line_err(&format!("{name}: separating"));
            Kind::Lines { last: now }
        };
        Self {
            name,
            begin: now,
            kind,
        }
    }

    pub(super) fn update(&mut self, progress: Progress, now: Instant) {
        let done = seconds(progress.done_frames);
        let elapsed = now.duration_since(self.begin).as_secs_f64();
        let speed = done / elapsed.max(1e-3);
        // The expected length is a hint: a file may contain more.
        let expected = progress.expected_frames.map(|frames| seconds(frames).max(done));
        match &mut self.kind {
            Kind::Bar(bar) => {
                let text = match expected {
                    Some(expected) => {
                        bar.set_length(expected.ceil() as u64);
                        bar.set_style(style("{msg}  {bar:30}  {prefix}"));
                        let left = (expected - done) / speed.max(1e-3);
                        format!(
                            "{} of {}  {speed:.1}x  {left:.0} s left",
                            clock(done),
                            clock(expected)
                        )
                    }
                    None => format!("{}  {speed:.1}x", clock(done)),
                };
                bar.set_prefix(text);
                bar.set_position(done as u64);
            }
            Kind::Lines { last } if now.duration_since(*last) >= LINE_INTERVAL => {
                *last = now;
                let expected = expected
                    .map(|expected| format!(" of {}", clock(expected)))
                    .unwrap_or_default();
                line_err(&format!(
                    "{}: {}{expected} at {speed:.1}x",
                    self.name,
                    clock(done)
                ));
            }
            Kind::Lines { .. } => {}
        }
    }

    pub(super) fn finish(self) {
        if let Kind::Bar(bar) = self.kind {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are valid")
}

fn seconds(frames: u64) -> f64 {
    frames as f64 / f64::from(SAMPLE_RATE_HZ)
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
