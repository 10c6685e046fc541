//! Shared helpers: files made by ffmpeg, their expected audio, and the comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use separation::audio::{
    AudioError, FfmpegUse, SourceOptions, SourceReport, StereoBlock, StereoSource as _, open,
};

/// Length of the source in seconds; not a multiple of any codec's frame.
pub(crate) const SECONDS: f64 = 2.2677;

/// The expected result for a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// It is decoded like its reference.
    Decoded,
    /// It is refused, with this text in the reason.
    Refused(&'static str),
}

/// How far the decoded audio may differ from its reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Signal-to-noise ratio in dB over the common length.
    pub(crate) min_snr_db: f64,
    /// Frames, at 44.1 kHz, by which the lengths may differ: a packet at most.
    pub(crate) frames: usize,
}

/// Identical samples.
pub(crate) const EXACT: Tolerance = Tolerance {
    min_snr_db: 90.0,
    frames: 0,
};

/// A file and its expected results.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) file: Vec<u8>,
    /// A file that ffmpeg decodes to the expected audio; by default the same file.
    pub(crate) reference: Option<Vec<u8>>,
    pub(crate) tolerance: Tolerance,
    /// With our own decoders only.
    pub(crate) alone: Expected,
    /// With the ffmpeg program.
    pub(crate) with_ffmpeg: Expected,
    /// Whether the report must count something missing, replaced or damaged.
    pub(crate) is_reported: bool,
}

impl Case {
    /// A file that both ways decode exactly as ffmpeg does.
    pub(crate) fn new(name: &'static str, file: Vec<u8>) -> Self {
        Self {
            name,
            file,
            reference: None,
            tolerance: EXACT,
            alone: Expected::Decoded,
            with_ffmpeg: Expected::Decoded,
            is_reported: false,
        }
    }

    /// A file that only ffmpeg decodes.
    pub(crate) fn for_ffmpeg(name: &'static str, file: Vec<u8>, reason: &'static str) -> Self {
        Self {
            alone: Expected::Refused(reason),
            ..Self::new(name, file)
        }
    }

    /// A file that no decoder accepts.
    pub(crate) fn refused(name: &'static str, file: Vec<u8>, reason: &'static str) -> Self {
        Self {
            alone: Expected::Refused(reason),
            with_ffmpeg: Expected::Refused(reason),
            ..Self::new(name, file)
        }
    }

    /// Describes how the result differs from the expected one.
    pub(crate) fn check(&self) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song");
        std::fs::write(&path, &self.file).unwrap();
        for (way, ffmpeg, expected) in [
            ("alone", FfmpegUse::Forbidden, self.alone),
            ("with ffmpeg", FfmpegUse::Allowed, self.with_ffmpeg),
        ] {
            let outcome = read(&path, ffmpeg);
            self.compare(outcome, expected, directory.path())
                .map_err(|wrong| format!("{} {way}: {wrong}", self.name))?;
        }
        Ok(())
    }

    fn compare(
        &self,
        outcome: Result<(StereoBlock, SourceReport), AudioError>,
        expected: Expected,
        directory: &Path,
    ) -> Result<(), String> {
        let (found, report) = match (outcome, expected) {
            (Err(error), Expected::Refused(reason)) if chain(&error).contains(reason) => return Ok(()),
            (Err(error), _) => return Err(format!("refused: {}, expected {expected:?}", chain(&error))),
            (Ok((found, _)), Expected::Refused(reason)) => {
                return Err(format!("{} frames instead of {reason:?}", found.frames()));
            }
            (Ok(decoded), Expected::Decoded) => decoded,
        };
        let expected_audio = reference(self.reference.as_ref().unwrap_or(&self.file), directory)?;
        let snr = snr_db(&expected_audio, &found);
        let difference = expected_audio.frames().abs_diff(found.frames());
        let problems = report.skipped_packets
            + report.replaced_samples
            + report.missing_frames.unwrap_or(0)
            + report.ffmpeg_errors;
        if snr < self.tolerance.min_snr_db
            || difference > self.tolerance.frames
            || (problems > 0) != self.is_reported
        {
            return Err(format!(
                "{} frames for {}, {snr:.1} dB, {report:?}",
                found.frames(),
                expected_audio.frames()
            ));
        }
        Ok(())
    }
}

/// Checks all cases and lists the failed ones.
pub(crate) fn check_all(cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.check().err()).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} files:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Decodes a file to its end.
pub(crate) fn read(path: &Path, ffmpeg: FfmpegUse) -> Result<(StereoBlock, SourceReport), AudioError> {
    let options = SourceOptions {
        ffmpeg,
        ..SourceOptions::default()
    };
    let mut source = open(path, &options)?;
    let (mut song, mut piece) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut piece)?;
        if piece.is_empty() {
            return Ok((song, source.report()));
        }
        song.append(&piece);
    }
}

fn chain(error: &AudioError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The audio that ffmpeg decodes from a file; channels and rate are converted by us, for both alike.
pub(crate) fn reference(file: &[u8], directory: &Path) -> Result<StereoBlock, String> {
    let path = directory.join("reference");
    std::fs::write(&path, file).unwrap();
    let decoded = directory.join("reference.wav");
    // If the last packet is cut off, ffmpeg exits with an error after writing everything before it.
    ffmpeg(&path, "-map 0:a:0 -c:a pcm_f32le -f wav", &decoded)?;
    let (block, _) = read(&decoded, FfmpegUse::Forbidden).map_err(|error| chain(&error))?;
    Ok(block)
}

fn ffmpeg(input: &Path, arguments: &str, output: &Path) -> Result<(), String> {
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(input)
        .args(arguments.split_ascii_whitespace())
        .arg(output)
        .output()
        .map_err(|error| format!("ffmpeg must be installed: {error}"))?;
    if output.exists() {
        return Ok(());
    }
    Err(format!("{arguments}: {}", String::from_utf8_lossy(&run.stderr)))
}

/// Signal-to-noise ratio of both channels together, over the common length.
fn snr_db(expected: &StereoBlock, found: &StereoBlock) -> f64 {
    let (mut signal, mut noise) = (1e-30, 1e-30);
    for (expected, found) in [(&expected.left, &found.left), (&expected.right, &found.right)] {
        for (expected, found) in expected.iter().zip(found) {
            signal += f64::from(*expected).powi(2);
            noise += f64::from(found - expected).powi(2);
        }
    }
    10.0 * (signal / noise).log10()
}

/// Makes a file of two different chords with a slow swell, with ffmpeg's `arguments`.
pub(crate) fn encode(arguments: &str) -> Vec<u8> {
    let voice = |tones: [f64; 3]| {
        let sum: Vec<String> = tones.iter().map(|hz| format!("sin({hz}*2*PI*t)")).collect();
        format!("(0.6+0.4*sin(8*t))*0.15*({})", sum.join("+"))
    };
    let chords = format!(
        "aevalsrc={}|{}:s=44100:d={SECONDS}",
        voice([220.0, 1_470.0, 5_210.0]),
        voice([247.0, 980.0, 3_333.0])
    );
    encode_source(&chords, arguments)
}

/// Makes a file from one of ffmpeg's own sources.
pub(crate) fn encode_source(source: &str, arguments: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let output: PathBuf = directory.path().join("made");
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source])
        .args(arguments.split_ascii_whitespace())
        .arg(&output)
        .output()
        .expect("ffmpeg must be installed");
    assert!(
        run.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    std::fs::read(output).unwrap()
}

/// Offset of the first occurrence of these bytes in a file.
pub(crate) fn offset_of(file: &[u8], bytes: &[u8]) -> usize {
    let mut windows = file.windows(bytes.len());
    windows
        .position(|window| window == bytes)
        .expect("these bytes are in the file")
}
