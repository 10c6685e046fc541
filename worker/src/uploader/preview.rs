//! Previews of stems for players: a small mono FLAC file to listen to, and the peaks of the waveform to draw.
//!
//! A stem is read block by block on a blocking thread, so memory does not depend on its length.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use separation_contract::api_task::StemKind;
use serde::Serialize;

use crate::audio::{
    AudioError, FfmpegUse, ResampledSink, SAMPLE_RATE_HZ, SourceOptions, StereoBlock, StereoSink as _,
    StereoSource as _, Waveform, create_mono_flac, open,
};
use crate::engine::Control;
use crate::error::ErrorClass;
use crate::storage::{AttemptId, AttemptScratch, OpenFile, Scratch, Staging, StemSource, StorageError};
use crate::work::WorkError;

/// Sample rate of previews: all that is heard on a phone, in a quarter of the samples of the stem.
const RATE_HZ: u32 = 22_050;

/// Peaks of a stem: enough for one in each two pixels of a wide screen.
const PEAKS: usize = 1_000;

/// File name of a preview in scratch space.
const FILE: &str = "preview.flac";

/// The preview of a stem.
pub(super) struct Preview {
    /// The file to listen to, in scratch space.
    pub(super) audio: StemSource,
    /// Of the stem.
    pub(super) waveform: Waveform,
    /// Removed with the preview.
    _scratch: AttemptScratch,
}

/// The object `peaks.json`.
#[derive(Debug, Serialize)]
struct PeaksDocument {
    version: u32,
    duration_seconds: f64,
    /// The largest absolute sample of each of [`PEAKS`] slices of a stem, from 0 to 1.
    peaks: BTreeMap<StemKind, Vec<f32>>,
}

/// Makes the preview of a staged stem.
///
/// # Errors
/// When the stem cannot be read or decoded, scratch space cannot be written, or `control` ends the work.
pub(super) async fn make_preview(
    staging: &Staging,
    stem: &StemSource,
    scratch: &Scratch,
    control: Control,
) -> Result<Preview, WorkError> {
    let scratch = scratch.begin(AttemptId::new()).await?;
    let source = staging.stem_file(stem, &scratch).await?;
    // Keeps a shared file open.
    let held = stem.clone();
    let encoded = tokio::task::spawn_blocking(move || {
        let preview = encode(&source, scratch, &control);
        drop(held);
        preview
    });
    encoded
        .await
        .map_err(|panicked| WorkError::new(ErrorClass::Bug, panicked))?
}

fn encode(source: &Path, scratch: AttemptScratch, control: &Control) -> Result<Preview, WorkError> {
    let path = scratch.path().join(FILE);
    let failed = |error: AudioError| WorkError::new(error.class(), error);
    let options = SourceOptions {
        // Stems have formats of our own encoders.
        ffmpeg: FfmpegUse::Forbidden,
        ..SourceOptions::default()
    };
    let mut input = open(source, &options).map_err(failed)?;
    let mono = create_mono_flac(&path, RATE_HZ).map_err(failed)?;
    // The length of the stem, rounded to frames.
    let length = Arc::default();
    let mut sink = Box::new(ResampledSink::new(mono, &path, RATE_HZ, length).map_err(failed)?);
    let (mut waveform, mut block) = (Waveform::default(), StereoBlock::default());
    loop {
        control
            .check(Instant::now())
            .map_err(|stopped| WorkError::new(ErrorClass::TimedOut, stopped))?;
        input.read(&mut block).map_err(failed)?;
        if block.is_empty() {
            break;
        }
        waveform.push(&block);
        sink.write(&block).map_err(failed)?;
    }
    let written = sink.finish().and_then(|file| file.publish()).map_err(failed)?;
    Ok(Preview {
        audio: StemSource::File {
            file: OpenFile::own(&path).map_err(StorageError::scratch("open", &path))?,
            size: written.bytes,
        },
        waveform,
        _scratch: scratch,
    })
}

/// The object `peaks.json` for the waveforms of a song's stems: 10 kB for two stems.
pub(super) fn peaks_json(waveforms: &BTreeMap<StemKind, Waveform>) -> Vec<u8> {
    let frames = waveforms.values().map(Waveform::frames).max().unwrap_or(0);
    let milliseconds = frames * 1_000 / u64::from(SAMPLE_RATE_HZ);
    let rounded = |peak: f32| (peak.min(1.0) * 100.0).round() / 100.0;
    let document = PeaksDocument {
        version: 1,
        duration_seconds: milliseconds as f64 / 1_000.0,
        peaks: waveforms
            .iter()
            .map(|(stem, waveform)| (*stem, waveform.peaks(PEAKS).into_iter().map(rounded).collect()))
            .collect(),
    };
    serde_json::to_vec(&document).expect("numbers and names always serialize")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::audio::MAX_BLOCK_FRAMES;

    fn waveform(blocks: usize, peak: f32) -> Waveform {
        let mut waveform = Waveform::default();
        let mut block = StereoBlock::silence(MAX_BLOCK_FRAMES);
        block.right[MAX_BLOCK_FRAMES / 2] = -peak;
        for _ in 0..blocks {
            waveform.push(&block);
        }
        waveform
    }

    #[test]
    fn the_peaks_of_a_song_of_two_hours_are_below_20_kb() {
        let blocks = 2 * 3_600 * 44_100 / MAX_BLOCK_FRAMES;
        let stems = [
            (StemKind::Vocals, waveform(blocks, 0.126)),
            (StemKind::Instrumental, waveform(blocks, 1.5)),
        ];
        let json = peaks_json(&stems.into());
        assert!(json.len() < 20_000, "{} bytes", json.len());
        let read: Value = serde_json::from_slice(&json).unwrap();
        let duration = (blocks * MAX_BLOCK_FRAMES) as f64 / 44_100.0;
        assert!((read["duration_seconds"].as_f64().unwrap() - duration).abs() < 0.002);
        assert_eq!(read["version"], 1);
        // Rounded, and full scale at most.
        for (stem, peak) in [("vocals", 0.13), ("instrumental", 1.0)] {
            assert_eq!(read["peaks"][stem], Value::from(vec![peak; 1_000]), "{stem}");
        }
    }
}
