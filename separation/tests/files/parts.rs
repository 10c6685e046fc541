//! What the tables share: files made by ffmpeg, what they must decode to, and the comparison.

use std::path::{Path, PathBuf};
use std::process::Command;

use separation::audio::{
    AudioError, FfmpegUse, SourceOptions, SourceReport, StereoBlock, StereoSource as _, open,
};

/// Length of the source in seconds; no multiple of any codec's frame.
pub(crate) const SECONDS: f64 = 2.2677;

/// What must become of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// It is decoded like its reference.
    Decoded,
    /// It is refused, with this in the reason.
    Refused(&'static str),
}

/// How far the decoded audio may be from its reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Signal to noise, in dB, of what both have.
    pub(crate) min_snr_db: f64,
    /// Frames, at 44.1 kHz, by which the lengths may differ: a packet at most.
    pub(crate) frames: usize,
}

/// The same samples.
pub(crate) const EXACT: Tolerance = Tolerance {
    min_snr_db: 90.0,
    frames: 0,
};

/// A file, what it must decode to, and where.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) file: Vec<u8>,
    /// A file that ffmpeg decodes to what this one must give; by default the same.
    pub(crate) reference: Option<Vec<u8>>,
    pub(crate) tolerance: Tolerance,
    /// With our own decoders alone.
    pub(crate) alone: Expected,
    /// With the ffmpeg program.
    pub(crate) with_ffmpeg: Expected,
    /// Whether something must be reported as missing, replaced or damaged.
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

    /// A file that ffmpeg alone decodes.
    pub(crate) fn for_ffmpeg(name: &'static str, file: Vec<u8>, reason: &'static str) -> Self {
        Self {
            alone: Expected::Refused(reason),
            ..Self::new(name, file)
        }
    }

    /// A file that nothing decodes.
    pub(crate) fn refused(name: &'static str, file: Vec<u8>, reason: &'static str) -> Self {
        Self {
            alone: Expected::Refused(reason),
            with_ffmpeg: Expected::Refused(reason),
            ..Self::new(name, file)
        }
    }

    /// What is wrong with what becomes of the file.
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
        let wanted = reference(self.reference.as_ref().unwrap_or(&self.file), directory)?;
        let snr = snr_db(&wanted, &found);
        let difference = wanted.frames().abs_diff(found.frames());
        let complaints = report.skipped_packets
            + report.replaced_samples
            + report.missing_frames.unwrap_or(0)
            + report.ffmpeg_errors;
        if snr < self.tolerance.min_snr_db
            || difference > self.tolerance.frames
            || (complaints > 0) != self.is_reported
        {
            return Err(format!(
                "{} frames for {}, {snr:.1} dB, {report:?}",
                found.frames(),
                wanted.frames()
            ));
        }
        Ok(())
    }
}

/// Checks all cases and names all that are wrong.
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
    let (mut whole, mut piece) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut piece)?;
        if piece.is_empty() {
            return Ok((whole, source.report()));
        }
        whole.append(&piece);
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

/// What ffmpeg decodes a file to; its channels and rate are converted by us, in both alike.
pub(crate) fn reference(file: &[u8], directory: &Path) -> Result<StereoBlock, String> {
    let path = directory.join("reference");
    std::fs::write(&path, file).unwrap();
    let decoded = directory.join("reference.wav");
    // ffmpeg ends with an error where the last packet is cut off, and has written what came before.
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

/// Signal to noise of both channels together, over what both have.
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

/// Makes a file of two different chords with a slow swell by ffmpeg's `arguments`.
pub(crate) fn made(arguments: &str) -> Vec<u8> {
    let voice = |tones: [f64; 3]| {
        let sum: Vec<String> = tones.iter().map(|hz| format!("sin({hz}*2*PI*t)")).collect();
        format!("(0.6+0.4*sin(8*t))*0.15*({})", sum.join("+"))
    };
    let chords = format!(
        "aevalsrc={}|{}:s=44100:d={SECONDS}",
        voice([220.0, 1_470.0, 5_210.0]),
        voice([247.0, 980.0, 3_333.0])
    );
    made_from(&chords, arguments)
}

/// Makes a file of one of ffmpeg's own sources.
pub(crate) fn made_from(source: &str, arguments: &str) -> Vec<u8> {
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

/// Where a file has these bytes first.
pub(crate) fn place_of(file: &[u8], bytes: &[u8]) -> usize {
    let mut windows = file.windows(bytes.len());
    windows
        .position(|window| window == bytes)
        .expect("these bytes are in the file")
}
