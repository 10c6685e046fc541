//! The engine with real ONNX models in ONNX Runtime agrees with the definition to 1e-4 of full scale.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use separation_worker::audio::StereoBlock;
use separation_worker::engine::{ChunkTensor, Plan, StemFormula};
use separation_worker::locations::Locations;
use separation_worker::model::{Contract, ModelParameters, StemName};
use separation_worker::onnx::{ModelSource, OnnxNetwork, RuntimeOptions};

use crate::in_memory::{StemBlocks, music, plan, separate_song};
use crate::oracle::{self, Parameters, Stereo, fixture_model};

/// Frames of one chunk of every fixture: 1024 x (256 - 1).
const CHUNK: usize = 261_120;
const COLUMNS: usize = 256;

/// One song and the way it is separated.
struct Row {
    /// F and n_fft, which identify the fixture.
    model: (usize, usize),
    overlap: f64,
    song_frames: usize,
    denoise: Denoise,
    compensate: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Denoise {
    Off,
    On,
}

impl Row {
    const fn new(model: (usize, usize), overlap: f64, song_frames: usize) -> Self {
        Self {
            model,
            overlap,
            song_frames,
            denoise: Denoise::Off,
            compensate: 1.0,
        }
    }

    const fn denoise(self) -> Self {
        Self {
            denoise: Denoise::On,
            ..self
        }
    }

    const fn compensate(self, compensate: f32) -> Self {
        Self { compensate, ..self }
    }

    fn parameters(&self) -> Parameters {
        Parameters {
            n_fft: self.model.1,
            rows: self.model.0,
            columns: COLUMNS,
            overlap: self.overlap,
            denoise: self.denoise == Denoise::On,
        }
    }

    fn song(&self) -> StereoBlock {
        music(self.song_frames, self.song_frames as u64)
    }

    fn separate(&self, song: &StereoBlock, formula: StemFormula) -> StemBlocks {
        let (rows, n_fft) = self.model;
        let file = fixture_file(rows, n_fft);
        let options = RuntimeOptions::cpu(2);
        let mut network = OnnxNetwork::load(
            ModelSource::File(&file),
            options,
            &Locations::from_environment(),
            |interface| {
                let parameters = ModelParameters {
                    n_fft,
                    rows: Some(rows),
                    columns: Some(COLUMNS),
                    compensate: self.compensate,
                    primary_stem: StemName::new("vocals").expect("a name"),
                };
                Contract::mdx_net(interface, &parameters)
            },
        )
        .expect("ONNX Runtime and the fixture are installed");
        let ChunkTensor::Spectrum(spectrum) = network.contract().tensors.chunk else {
            panic!("the fixture is an MDX-Net model")
        };
        let plan = Plan {
            denoise: self.denoise == Denoise::On,
            ..plan(spectrum.shape, self.overlap, formula)
        };
        let delivered = separate_song(&mut network, &plan, song, &[4_096, 1, 16_384, 777])
            .expect("nothing stops the separation");
        assert_eq!(delivered.frames, self.song_frames as u64);
        delivered.stems
    }

    fn fixture(&self) -> impl Fn(&[f64]) -> Vec<f64> {
        let parameters = self.parameters();
        move |spectrum| fixture_model::fixture(spectrum, parameters)
    }

    fn print(&self, differences: [f64; 2], time: [Duration; 2]) {
        let (rows, n_fft) = self.model;
        let [primary, secondary] = differences;
        print(&format!(
            "F {rows} n_fft {n_fft} overlap {:<4} N {:<6} denoise {:<3} compensate {:<5}: primary {primary:.1e} \
             secondary {secondary:.1e} (engine {:.1} s, oracle {:.1} s)",
            self.overlap,
            self.song_frames,
            format!("{:?}", self.denoise),
            self.compensate,
            time[0].as_secs_f64(),
            time[1].as_secs_f64(),
        ));
    }
}

#[expect(clippy::print_stdout, reason = "measured differences, shown by --nocapture")]
fn print(line: &str) {
    println!("{line}");
}

fn fixture_file(rows: usize, n_fft: usize) -> PathBuf {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    models.join(format!("conv_f{rows}_n{n_fft}.onnx"))
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

/// Both stems by UVR's formula equal the oracle's to 1e-4, and their sum equals the song to 1e-6.
fn check(row: &Row) {
    let song = row.song();
    let start = Instant::now();
    let compensate = row.compensate;
    let stems = row.separate(&song, StemFormula::Uvr { compensate });
    let engine_time = start.elapsed();
    let expected = oracle::uvr_stems(
        &doubles(&song),
        row.parameters(),
        f64::from(compensate),
        &row.fixture(),
    );
    let differences = [
        difference(&stems.primary, &expected.primary),
        difference(&stems.secondary, &expected.secondary),
    ];
    row.print(differences, [engine_time, start.elapsed() - engine_time]);
    assert!(
        differences.iter().all(|&difference| difference <= 1e-4),
        "{differences:?}"
    );
    let mut sum = doubles(&stems.primary);
    for (sum, secondary) in sum
        .iter_mut()
        .flatten()
        .zip(doubles(&stems.secondary).iter().flatten())
    {
        *sum += secondary;
    }
    let unexplained = difference(&song, &sum);
    assert!(
        unexplained <= 1e-6,
        "the sum of the stems differs from the song by {unexplained:e}"
    );
    let silence = StereoBlock::silence(song.frames());
    assert!(
        stems.primary != silence && stems.secondary != silence,
        "neither stem is silent"
    );
}

/// Both stems of a song with this peak equal those of audio-separator to 1e-5.
fn check_compatible(row: &Row, peak: f32) {
    let mut song = row.song();
    let gain = peak / song.peak();
    for sample in song.left.iter_mut().chain(&mut song.right) {
        *sample *= gain;
    }
    let x = doubles(&song);
    let formula = StemFormula::AudioSeparator {
        compensate: row.compensate,
        peak: song.peak(),
    };
    let start = Instant::now();
    // The engine's caller knows the peak and scales input and output.
    lower(&mut song);
    let mut stems = row.separate(&song, formula);
    lower(&mut stems.primary);
    lower(&mut stems.secondary);
    let engine_time = start.elapsed();
    let expected =
        oracle::audio_separator_stems(&x, row.parameters(), f64::from(row.compensate), &row.fixture());
    let differences = [
        difference(&stems.primary, &expected.primary),
        difference(&stems.secondary, &expected.secondary),
    ];
    print(&format!("as audio-separator, peak {peak}:"));
    row.print(differences, [engine_time, start.elapsed() - engine_time]);
    assert!(
        differences.iter().all(|&difference| difference <= 1e-5),
        "{differences:?}"
    );
}

fn lower(block: &mut StereoBlock) {
    let peak = block.peak();
    if peak > 0.9 {
        for sample in block.left.iter_mut().chain(&mut block.right) {
            *sample *= 0.9 / peak;
        }
    }
}

#[test]
fn songs_shorter_than_a_chunk_are_separated_as_defined() {
    check(&Row::new((3072, 7680), 0.25, 1));
    check(&Row::new((3072, 6144), 0.5, 2).compensate(1.035));
    check(&Row::new((2048, 5120), 0.0, 1_000));
}

#[test]
fn songs_that_end_near_a_chunks_end_are_separated_as_defined() {
    check(&Row::new((3072, 7680), 0.25, CHUNK - 7680 - 1).denoise());
    check(&Row::new((3072, 6144), 0.0, CHUNK - 6144));
    check(&Row::new((2560, 5120), 0.5, CHUNK - 5120 + 1).compensate(1.08));
    check(&Row::new((2048, 6144), 0.25, CHUNK));
}

#[test]
fn songs_of_several_chunks_are_separated_as_defined() {
    check(&Row::new((3072, 7680), 0.25, 352_800).compensate(1.035));
    check(&Row::new((2048, 6144), 0.5, 617_400).denoise().compensate(0.97));
}

#[test]
fn chunks_that_overlap_by_four_fifths_are_joined_as_defined() {
    check(&Row::new((2560, 5120), 0.8, 352_801).compensate(1.02));
}

#[test]
fn chunks_that_overlap_by_nine_tenths_are_joined_as_defined() {
    check(&Row::new((2048, 5120), 0.9, CHUNK - 5120 + 1));
}

#[test]
fn the_stems_of_audio_separator_are_reproduced_with_and_without_scaling() {
    check_compatible(&Row::new((2048, 6144), 0.25, 100_000).compensate(1.035), 1.0);
    check_compatible(&Row::new((3072, 6144), 0.25, 44_100).compensate(1.08), 0.9);
    check_compatible(&Row::new((2048, 5120), 0.25, 44_100).compensate(1.02), 0.5);
    check_compatible(&Row::new((2048, 5120), 0.8, 300_000).denoise(), 1.3);
}
