//! The ffmpeg program, in a child process: how it is started, and its messages.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest wait for ffmpeg to send or accept data.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Characters kept of a line that ffmpeg wrote.
const MAX_LINE_CHARS: usize = 300;

/// Last lines of ffmpeg's output that are kept; the reason for its failure is among them.
const MAX_LINES: usize = 8;

/// Bytes read of one line before it counts as ended.
const MAX_LINE_BYTES: u64 = 4_096;

/// ffmpeg, so that it reads no commands, writes only errors, and is not ended by the Ctrl-C that stops this
/// process, which would look like a failure.
pub(super) fn command() -> Command {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-hide_banner", "-loglevel", "error"])
        .process_group(0);
    command
}

/// ffmpeg's messages, shared with the thread that reads them.
#[derive(Clone, Default)]
pub(super) struct FfmpegMessages(Arc<Mutex<LastLines>>);

#[derive(Default)]
struct LastLines {
    /// The last lines, oldest first.
    lines: VecDeque<String>,
    /// Count of all lines.
    count: u64,
}

impl FfmpegMessages {
    /// Why it failed, complete once its stream has ended; `None` where it reported nothing.
    pub(super) fn error(&self) -> Option<FfmpegError> {
        FfmpegError::from_lines(self.last_lines().lines.make_contiguous())
    }

    /// Lines that it wrote so far; it writes only errors.
    pub(super) fn errors(&self) -> u64 {
        self.last_lines().count
    }

    pub(super) fn add(&self, line: String) {
        let mut last = self.last_lines();
        if last.lines.len() == MAX_LINES {
            last.lines.pop_front();
        }
        last.lines.push_back(line);
        last.count += 1;
    }

    /// Reads lines until ffmpeg ends. The first `name` of each line is removed: the error that contains the
    /// line already names the file.
    pub(super) fn collect(&self, stderr: ChildStderr, name: &str) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while let Ok(1..) = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim().replacen(name, "", 1);
            if !text.is_empty() {
                self.add(text.chars().take(MAX_LINE_CHARS).collect());
            }
            line.clear();
        }
    }

    fn last_lines(&self) -> MutexGuard<'_, LastLines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why ffmpeg failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FfmpegError {
    /// The file has no audio track.
    #[error("it has no audio track")]
    NoTrack,
    /// A message specific to this file.
    #[error("{0}")]
    Specific(String),
    /// A message that ffmpeg writes for most failures.
    #[error("{0}")]
    Vague(String),
}

/// Messages that report only that something failed.
const VAGUE: [&str; 10] = [
    "Invalid data found when processing input",
    "Invalid argument",
    "Conversion failed!",
    "Format not on whitelist",
    "Operation not permitted",
    "Error opening input",
    "Error opening output",
    "Error while decoding stream",
    "Nothing was written into output file",
    "Last message repeated",
];

impl FfmpegError {
    /// The most specific of the lines that ffmpeg wrote, oldest first; `None` where it wrote none.
    pub(super) fn from_lines(lines: &[String]) -> Option<Self> {
        if lines.iter().any(|line| line.contains("matches no streams")) {
            return Some(Self::NoTrack);
        }
        let is_vague = |line: &str| VAGUE.iter().any(|vague| line.contains(vague));
        let lines = || lines.iter().map(|line| without_context(line));
        match lines().rfind(|line| !is_vague(line)) {
            Some(line) => Some(Self::Specific(line.to_owned())),
            None => lines().next_back().map(|line| Self::Vague(line.to_owned())),
        }
    }
}

/// Strips the prefix that names the part of ffmpeg that wrote a line: `[mov,mp4 @ 0x55d7] `.
fn without_context(line: &str) -> &str {
    let context = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(context, _)| context.contains(" @ 0x"));
    context.map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Option<FfmpegError> {
        FfmpegError::from_lines(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    fn specific(line: &str) -> Option<FfmpegError> {
        Some(FfmpegError::Specific(line.to_owned()))
    }

    #[test]
    fn the_most_specific_line_counts() {
        assert_eq!(lines(&[]), None);
        assert_eq!(
            lines(&[
                "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x5556707cea00] moov atom not found",
                "file:cut.m4a: Invalid data found when processing input",
            ]),
            specific("moov atom not found")
        );
        assert_eq!(
            lines(&[
                "Stream map '0:a:0' matches no streams.",
                "To ignore this, add a trailing '?' to the map.",
            ]),
            Some(FfmpegError::NoTrack)
        );
        assert_eq!(
            lines(&["No space left on device", "    Last message repeated 3 times"]),
            specific("No space left on device")
        );
        assert_eq!(
            lines(&["song: Invalid argument"]),
            Some(FfmpegError::Vague("song: Invalid argument".to_owned()))
        );
    }
}
