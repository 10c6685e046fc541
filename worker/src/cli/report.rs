//! The report of each song: one JSON object, or a few lines of text.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::printing::{json_out, line_err, line_out};
use crate::audio::SAMPLE_RATE_HZ;
use crate::model::Provenance;
use crate::song::{SongReport, StemOutput, peak_memory_bytes};

/// The report of one song. Paths that are not UTF-8 contain replacement characters.
#[derive(Debug, Default, Serialize)]
pub(super) struct FileReport {
    input: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Path of each stem's file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outputs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// License and origin of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Provenance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_seconds: Option<f64>,
    wall_seconds: f64,
    /// Seconds of audio per second of wall time.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
    /// From the start of the process to the first finished chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_chunk_seconds: Option<f64>,
    /// Peak resident memory of the process so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    /// Number of samples of each stem that were clipped to full scale.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    clipped_samples: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Separated,
    Skipped,
    #[default]
    Failed,
}

impl FileReport {
    pub(super) fn success(
        input: &Path,
        song: &SongReport,
        model: &Provenance,
        wall: Duration,
        first_chunk: Option<Duration>,
    ) -> Self {
        let audio_seconds = song.frames as f64 / f64::from(SAMPLE_RATE_HZ);
        let by_stem = song
            .outputs
            .iter()
            .map(|(output, report)| (output.stem.to_string(), output, report));
        Self {
            input: input.display().to_string(),
            status: Status::Separated,
            error: None,
            outputs: by_stem
                .clone()
                .map(|(stem, output, _)| (stem, output.path.display().to_string()))
                .collect(),
            format: Some(song.input.format.to_string()),
            model: Some(model.clone()),
            audio_seconds: Some(audio_seconds),
            wall_seconds: wall.as_secs_f64(),
            speed: Some(audio_seconds / wall.as_secs_f64().max(1e-9)),
            first_chunk_seconds: first_chunk.map(|first| first.as_secs_f64()),
            peak_memory_bytes: peak_memory_bytes(),
            clipped_samples: by_stem
                .map(|(stem, _, report)| (stem, report.clipped_samples))
                .collect(),
            warnings: warnings(song),
        }
    }

    /// A song that is not separated because all of its stems exist.
    pub(super) fn skipped(input: &Path, outputs: &[StemOutput]) -> Self {
        Self {
            input: input.display().to_string(),
            status: Status::Skipped,
            outputs: outputs
                .iter()
                .map(|output| (output.stem.to_string(), output.path.display().to_string()))
                .collect(),
            ..Self::default()
        }
    }

    pub(super) fn failure(input: &Path, error: &anyhow::Error, wall: Duration) -> Self {
        Self {
            input: input.display().to_string(),
            error: Some(format!("{error:#}")),
            wall_seconds: wall.as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
            ..Self::default()
        }
    }

    pub(super) fn is_failure(&self) -> bool {
        self.status == Status::Failed
    }
}

/// Prints the report to standard output as JSON or text; without `json`, a failure goes to standard error.
pub(super) fn print(report: &FileReport, json: bool) -> io::Result<()> {
    if json {
        return json_out(report);
    }
    if let Some(error) = &report.error {
        line_err(&format!("{}: {error}", report.input));
        return Ok(());
    }
    for path in report.outputs.values() {
        line_out(path)?;
    }
    if report.status == Status::Skipped {
        return line_out(&format!("{}: skipped, because its stems exist", report.input));
    }
    let memory = report
        .peak_memory_bytes
        .map(|bytes| format!(", {} MB", bytes / 1_000_000))
        .unwrap_or_default();
    let (audio, wall) = (report.audio_seconds.unwrap_or_default(), report.wall_seconds);
    let speed = report.speed.unwrap_or_default();
    line_out(&format!(
        "{}: {audio:.1} s of audio in {wall:.1} s ({speed:.1}x real time{memory})",
        report.input
    ))?;
    for warning in &report.warnings {
        line_err(&format!("{}: warning: {warning}", report.input));
    }
    Ok(())
}

fn warnings(song: &SongReport) -> Vec<String> {
    let mut warnings = Vec::new();
    if song.source.replaced_samples > 0 {
        let count = song.source.replaced_samples;
        warnings.push(format!(
            "{count} samples were NaN or far out of range and were replaced by silence"
        ));
    }
    if song.source.skipped_packets > 0 {
        let count = song.source.skipped_packets;
        warnings.push(format!("{count} corrupt audio packets were replaced by silence"));
    }
    if let Some(missing) = song.source.missing_frames.filter(|&missing| missing > 0) {
        warnings.push(format!(
            "the file ends {} before the length in its header",
            length(missing, song.input.rate_hz)
        ));
    }
    if song.source.ffmpeg_errors > 0 {
        let count = song.source.ffmpeg_errors;
        warnings.push(format!(
            "ffmpeg reported {count} errors while it decoded the file; parts of the song may be missing"
        ));
    }
    for (output, report) in &song.outputs {
        if report.clipped_samples > 0 {
            let count = report.clipped_samples;
            warnings.push(format!(
                "{count} samples of {} were clipped; fix: --normalize peak or --bit-depth 32f",
                output.stem
            ));
        }
    }
    warnings
}

/// A length as text: in seconds, or in frames below 0.1 s.
fn length(frames: u64, rate_hz: u32) -> String {
    let seconds = frames as f64 / f64::from(rate_hz.max(1));
    match frames {
        1 => "1 frame".to_owned(),
        _ if seconds < 0.1 => format!("{frames} frames"),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_below_a_tenth_of_a_second_are_given_in_frames() {
        assert_eq!(length(66_150, 44_100), "1.5 s");
        assert_eq!(length(4_410, 44_100), "0.1 s");
        assert_eq!(length(529, 44_100), "529 frames");
        assert_eq!(length(1, 44_100), "1 frame");
    }
}
