//! Separates songs with a toy model, and compares the stems with the oracle's.

use std::path::{Path, PathBuf};

use separation::audio::{
    OutputFormat, SourceOptions, StereoBlock, StereoSource as _, WavSamples, create, open,
};
use separation::engine::{Control, Overlap};
use separation::locations::Locations;
use separation::model::{ModelChoice, StemName};
use separation::onnx::RuntimeOptions;
use separation::song::{Formula, Normalize, Separator, SongSettings, StemFormat, StemOutput, StemRate};

use super::oracle::{self, Model, Scheme, Stereo};

const FLOATS: OutputFormat = OutputFormat::Wav(WavSamples::Float32);

/// Largest difference from the oracle, with tensors of 32 bits and of 16.
pub(crate) const FLOAT32: f64 = 1e-4;
pub(crate) const FLOAT16: f64 = 2e-3;

/// A loaded model and a directory for songs.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    separator: Separator,
    pub(crate) denoise: bool,
}

impl Bench {
    pub(crate) fn new(model: &str) -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/models");
        let choice = ModelChoice::File {
            model: models.join(model).with_extension("onnx"),
            parameters: None,
        };
        let options = RuntimeOptions::cpu(2);
        let separator = Separator::load(&choice, options, &Locations::from_environment());
        Self {
            directory: tempfile::tempdir().unwrap(),
            separator: separator.expect("ONNX Runtime and the model are installed"),
            denoise: false,
        }
    }

    pub(crate) fn stems(&self) -> Vec<String> {
        self.separator.stems().iter().map(StemName::to_string).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The stems of a song, by name.
    pub(crate) fn separate(
        &mut self,
        song: &StereoBlock,
        overlap: Option<f64>,
        stems: &[String],
    ) -> Vec<StereoBlock> {
        let input = self.path("song.wav");
        let mut sink = create(&input, FLOATS).unwrap();
        sink.write(song).unwrap();
        sink.finish().unwrap().publish().unwrap();
        let outputs: Vec<StemOutput> = stems
            .iter()
            .map(|stem| StemOutput {
                stem: StemName::new(stem).unwrap(),
                path: self.path(&format!("{stem}.wav")),
            })
            .collect();
        let settings = SongSettings {
            overlap: overlap.map(|fraction| Overlap::new(fraction).unwrap()),
            denoise: self.denoise,
            formula: Formula::Uvr,
            normalize: Normalize::None,
            format: StemFormat::Fixed(FLOATS),
            rate: StemRate::Fixed,
        };
        let report = self
            .separator
            .separate(&input, &outputs, &settings, &mut |_| (), &Control::default());
        assert_eq!(report.unwrap().frames, song.frames() as u64);
        outputs.iter().map(|output| read(&output.path)).collect()
    }

    /// Checks all stems of a song of `frames` against the oracle, and the rest against the song. Returns the largest
    /// difference.
    pub(crate) fn check(
        &mut self,
        overlap: Option<f64>,
        frames: usize,
        scheme: Scheme,
        model: Model<'_>,
        limit: f64,
    ) -> f64 {
        let song = music(frames);
        let names = self.stems();
        let stems = self.separate(&song, overlap, &names);
        let denoised = |chunk: &Stereo| oracle::denoised(chunk, model);
        let model: Model<'_> = if self.denoise { &denoised } else { model };
        let expected = oracle::separate(&doubles(&song), scheme, model);
        let mut max_difference = 0.0_f64;
        for (name, (found, expected)) in names.iter().zip(stems.iter().zip(&expected)) {
            let difference = difference(found, expected);
            assert!(
                difference <= limit,
                "{name} of {frames} frames, overlap {overlap:?}: {difference:e}"
            );
            max_difference = max_difference.max(difference);
        }
        print(&format!(
            "{frames} frames, overlap {overlap:?}: {max_difference:.1e}"
        ));
        let vocals = names.iter().position(|name| name == "vocals");
        let has_rest = names.len() > expected.len();
        if has_rest && names.last().is_some_and(|name| name == "instrumental") {
            let vocals = &stems[vocals.expect("the instrumental completes the vocals")];
            assert_eq!(
                stems.last().unwrap(),
                &without(&song, vocals),
                "the instrumental is the song without the vocals"
            );
        }
        max_difference
    }
}

#[expect(clippy::print_stdout, reason = "measured differences, shown by --nocapture")]
fn print(line: &str) {
    println!("{line}");
}

fn read(path: &Path) -> StereoBlock {
    let mut source = open(path, &SourceOptions::default()).unwrap();
    let (mut all, mut block) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut block).unwrap();
        if block.is_empty() {
            return all;
        }
        all.append(&block);
    }
}

fn without(song: &StereoBlock, stem: &StereoBlock) -> StereoBlock {
    let channel = |song: &[f32], stem: &[f32]| song.iter().zip(stem).map(|(x, stem)| x - stem).collect();
    StereoBlock {
        left: channel(&song.left, &stem.left),
        right: channel(&song.right, &stem.right),
    }
}

fn doubles(block: &StereoBlock) -> Stereo {
    [&block.left, &block.right].map(|channel| channel.iter().copied().map(f64::from).collect())
}

fn difference(found: &StereoBlock, expected: &Stereo) -> f64 {
    let mut max_difference = 0.0_f64;
    for (found, expected) in [&found.left, &found.right].into_iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "as long as the song");
        for (&found, expected) in found.iter().zip(expected) {
            let difference = (f64::from(found) - expected).abs();
            // `max` would ignore NaN.
            assert!(difference.is_finite(), "{found} instead of {expected}");
            max_difference = max_difference.max(difference);
        }
    }
    max_difference
}

/// Tones that come and go, different in both channels, with some noise and an offset.
pub(crate) fn music(frames: usize) -> StereoBlock {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / 8_388_608.0 - 1.0
    };
    let mut song = StereoBlock::default();
    for k in 0..frames {
        let tone = |hz: f64, beat_hz: f64| {
            let turn = std::f64::consts::TAU * k as f64 / 44_100.0;
            (turn * hz).sin() * (0.6 + 0.4 * (turn * beat_hz).sin())
        };
        let (voice, bass) = (0.3 * tone(440.0, 1.3), 0.25 * tone(97.0, 0.7));
        song.left.push((voice + bass + 0.05 * noise() + 0.01) as f32);
        song.right
            .push((voice - 0.5 * bass + 0.05 * noise() + 0.01) as f32);
    }
    song
}
