//! Progress of a model's download: a bar on a terminal, else plain lines. Always on standard error.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::printing::{escaped, line_err};
use crate::model_store::DownloadProgress;

/// Minimum interval between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct DownloadDisplay {
    name: String,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl DownloadDisplay {
    /// Shows nothing until the first update: a model in the cache is not downloaded.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: escaped(name).into_owned(),
            bar: None,
            last_line: None,
        }
    }

    pub(super) fn update(&mut self, progress: DownloadProgress, now: Instant) {
        if let DownloadProgress::Receiving {
            done_bytes,
            total_bytes,
        } = progress
            && stderr().is_terminal()
        {
            let bar = self.bar.get_or_insert_with(|| bar(&self.name));
            if let Some(total) = total_bytes {
                bar.set_length(total);
            }
            bar.set_position(done_bytes);
            return;
        }
        let is_due = |last: Instant| now.duration_since(last) >= LINE_INTERVAL;
        if self.last_line.is_none_or(is_due) {
            self.last_line = Some(now);
            line_err(&format!("{}: {}", self.name, text(progress)));
        }
    }

    /// Prints a line above the bar.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| line_err(line)),
            None => line_err(line),
        }
    }

    pub(super) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}  {bar:30}  {bytes} of {total_bytes}  {bytes_per_sec}");
    let bar = ProgressBar::new(0).with_message(name.to_owned());
    bar.set_style(style.expect("the template is valid"));
    bar
}

/// The progress in megabytes.
pub(super) fn text(progress: DownloadProgress) -> String {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    match progress {
        DownloadProgress::Waiting => "waiting for another process that downloads it".to_owned(),
        DownloadProgress::Receiving {
            done_bytes,
            total_bytes: Some(total_bytes),
        } => format!(
            "downloaded {} of {} MB",
            megabytes(done_bytes),
            megabytes(total_bytes)
        ),
        DownloadProgress::Receiving { done_bytes, .. } => format!("downloaded {} MB", megabytes(done_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_in_megabytes() {
        let receiving = |total_bytes| DownloadProgress::Receiving {
            done_bytes: 1_240_000,
            total_bytes,
        };
        assert_eq!(text(receiving(Some(39_000_000))), "downloaded 1.2 of 39.0 MB");
        assert_eq!(text(receiving(None)), "downloaded 1.2 MB");
    }
}
