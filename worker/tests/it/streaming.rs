//! Separating a song as a stream, in the memory of one chunk, gives the same result as processing it in one piece.

use proptest::prelude::*;
use separation_worker::audio::StereoBlock;
use separation_worker::engine::{
    Analyzer, HOP_FRAMES, Network, NetworkError, Plan, SpectrumShape, SpectrumSizes, SpectrumTensor,
    StemFormula, Synthesizer, Tensors,
};

use crate::in_memory::{self, Delivered, mdx_net, music, separate_song};

/// The smallest possible chunks: chunk = 3072, gen = 1024, trim = 1024.
const SMALLEST: (usize, usize, usize) = (2048, 200, 4);

const GRAIN: &[usize] = &[4_096, 1, 333, 16_384];

/// A cheap model that is neither linear nor local: it keeps what both channels share and adds its echo.
pub(crate) struct CenterModel(pub(crate) SpectrumShape);

impl Network for CenterModel {
    fn tensors(&self) -> Tensors {
        mdx_net(self.0)
    }

    fn run(&mut self, batch: usize, spectra: &mut Vec<f32>, _: &[usize]) -> Result<(), NetworkError> {
        assert_eq!(spectra.len(), batch * self.0.values(), "a batch of spectra");
        for spectrum in spectra.chunks_exact_mut(self.0.values()) {
            let plane = spectrum.len() / 4;
            let (left, right) = spectrum.split_at_mut(2 * plane);
            for k in 0..plane {
                let (l_re, l_im, r_re, r_im) = (left[k], left[plane + k], right[k], right[plane + k]);
                let shared = (l_re * r_re + l_im * r_im) / (l_re.hypot(l_im) * r_re.hypot(r_im) + 1e-3);
                let gain = shared.max(0.1);
                for at in [k, plane + k] {
                    left[at] *= gain;
                    right[at] *= gain;
                }
            }
            for row in spectrum.chunks_exact_mut(self.0.columns()) {
                for column in 1..row.len() {
                    row[column] += 0.25 * row[column - 1];
                }
            }
        }
        Ok(())
    }
}

fn shape((n_fft, rows, columns): (usize, usize, usize)) -> SpectrumShape {
    SpectrumShape::new(SpectrumSizes {
        n_fft,
        hop_frames: HOP_FRAMES,
        rows,
        columns,
    })
    .expect("a valid shape")
}

fn plan(shape: SpectrumShape, overlap: f64) -> Plan {
    in_memory::plan(shape, overlap, StemFormula::Uvr { compensate: 1.0 })
}

/// The model's output for the complete song, computed in full arrays: every chunk that starts inside z.
fn demix_in_one_piece(shape: SpectrumShape, overlap: f64, song: &StereoBlock) -> [Vec<f64>; 2] {
    let (chunk, n_fft) = (shape.chunk_frames(), shape.n_fft());
    let (trim, gen_frames) = (n_fft / 2, chunk - n_fft);
    let length = trim + song.frames() + gen_frames + trim - song.frames() % gen_frames;
    let step = ((1.0 - overlap) * chunk as f64) as usize;
    let z = [&song.left, &song.right].map(|channel| {
        let mut z = vec![0.0_f32; length];
        z[trim..trim + channel.len()].copy_from_slice(channel);
        z
    });
    let tensor = SpectrumTensor::mdx_net(shape);
    let (mut analyzer, mut synthesizer) = (Analyzer::new(tensor), Synthesizer::new(tensor));
    let mut spectrum = vec![0.0; shape.values()];
    let mut answer = StereoBlock::default();
    let mut sums = [vec![0.0_f64; length], vec![0.0_f64; length]];
    let mut weights = vec![0.0_f64; length];
    for start in (0..length).step_by(step) {
        let end = length.min(start + chunk);
        let mut samples = StereoBlock::silence(chunk);
        samples.left[..end - start].copy_from_slice(&z[0][start..end]);
        samples.right[..end - start].copy_from_slice(&z[1][start..end]);
        analyzer.transform(&samples, &mut spectrum);
        CenterModel(shape)
            .run(1, &mut spectrum, &[0])
            .expect("this model never fails");
        synthesizer.transform(&spectrum, &mut answer);
        let window = window(end - start, overlap);
        for (k, weight) in window.iter().enumerate() {
            sums[0][start + k] += f64::from(answer.left[k]) * weight;
            sums[1][start + k] += f64::from(answer.right[k]) * weight;
            weights[start + k] += weight;
        }
    }
    sums.map(|sums| {
        let quotients = sums.iter().zip(&weights).map(|(sum, weight)| sum / weight);
        quotients.skip(trim).take(song.frames()).collect()
    })
}

fn window(length: usize, overlap: f64) -> Vec<f64> {
    let at = |k: usize| 0.5 - 0.5 * (std::f64::consts::TAU * k as f64 / (length - 1) as f64).cos();
    match length {
        1 => vec![1.0],
        _ if overlap == 0.0 => vec![1.0; length],
        _ => (0..length).map(at).collect(),
    }
}

/// Checks that streaming a song of `song_frames`, read in blocks of `grain`, equals processing it in one piece to 1e-6,
/// and that its progress reports are correct.
fn check(sizes: (usize, usize, usize), overlap: f64, song_frames: usize, grain: &[usize], batch: usize) {
    let shape = shape(sizes);
    let song = music(song_frames, song_frames as u64);
    let plan = Plan {
        batch,
        ..plan(shape, overlap)
    };
    let delivered = separate_song(&mut CenterModel(shape), &plan, &song, grain).expect("nothing stops it");
    let name = format!("overlap {overlap}, {song_frames} frames, blocks of {grain:?}, batches of {batch}");
    check_progress(&delivered, song_frames as u64, &name);
    let primary = &delivered.stems.primary;
    let expected_stems = demix_in_one_piece(shape, overlap, &song);
    let mut max_difference = 0.0_f64;
    for (found, expected) in [&primary.left, &primary.right].into_iter().zip(&expected_stems) {
        assert_eq!(found.len(), expected.len(), "{name}");
        for (&found, expected) in found.iter().zip(expected) {
            let difference = (f64::from(found) - expected).abs();
            assert!(difference <= 1e-6, "{name}: {found} instead of {expected}");
            max_difference = max_difference.max(difference);
        }
    }
    print(&format!("{name}: {max_difference:.1e}"));
}

fn check_progress(delivered: &Delivered, song_frames: u64, name: &str) {
    assert_eq!(delivered.frames, song_frames, "{name}");
    assert_eq!(delivered.stems.primary.frames() as u64, song_frames, "{name}");
    assert_eq!(delivered.stems.secondary.frames() as u64, song_frames, "{name}");
    let progress = &delivered.progress;
    assert!(
        progress.is_sorted_by_key(|step| step.done_frames),
        "{name}: {progress:?}"
    );
    assert_eq!(
        progress.last().map(|step| step.done_frames),
        Some(song_frames),
        "{name}"
    );
    let expected = Some(song_frames);
    assert!(
        progress.iter().all(|step| step.expected_frames == expected),
        "{name}"
    );
}

#[expect(clippy::print_stdout, reason = "measured differences, shown by --nocapture")]
fn print(line: &str) {
    println!("{line}");
}

/// Song lengths just before, at and just after each boundary.
fn edges(shape: SpectrumShape, overlap: f64) -> Vec<usize> {
    let (trim, chunk) = (shape.n_fft() / 2, shape.chunk_frames());
    let step = plan(shape, overlap).grid.step_frames();
    let gen_frames = chunk - shape.n_fft();
    let boundaries = [
        trim,
        gen_frames,
        2 * gen_frames,
        step,
        chunk,
        chunk - trim,
        chunk + step,
        3 * step + 1,
    ];
    let chunk_starts = (1..5)
        .map(|index| index * step)
        .filter_map(|start| start.checked_sub(trim));
    let mut edges: Vec<_> = boundaries
        .into_iter()
        .chain(chunk_starts)
        .flat_map(|at| at.saturating_sub(1)..=at + 1)
        .collect();
    edges.extend([1, 2, 1_023]);
    edges.retain(|&frames| frames > 0);
    edges.sort_unstable();
    edges.dedup();
    edges
}

#[test]
fn songs_that_end_at_any_boundary_stream_correctly() {
    for overlap in [0.0, 0.25, 0.75, 0.9] {
        for song_frames in edges(shape(SMALLEST), overlap) {
            check(SMALLEST, overlap, song_frames, GRAIN, 1);
        }
    }
}

#[test]
fn chunks_with_the_largest_overlap_stream_correctly() {
    for song_frames in edges(shape(SMALLEST), 0.99) {
        check(SMALLEST, 0.99, song_frames, GRAIN, 3);
    }
}

#[test]
fn a_second_and_a_minute_stream_correctly() {
    for overlap in [0.0, 0.25, 0.75, 0.9] {
        check(SMALLEST, overlap, 44_100, GRAIN, 1);
    }
    check(SMALLEST, 0.99, 44_100, GRAIN, 16);
    check((6144, 300, 16), 0.25, 61 * 44_100, &[1_152], 1);
    check((6144, 300, 16), 0.9, 61 * 44_100, &[1_152], 1);
}

#[test]
fn ten_minutes_stream_correctly() {
    check((4096, 512, 256), 0.25, 600 * 44_100, &[16_384], 1);
}

#[test]
fn the_batch_size_changes_nothing() {
    let shape = shape(SMALLEST);
    let song = music(30_000, 3);
    let separated = |batch| {
        let plan = Plan {
            batch,
            ..plan(shape, 0.75)
        };
        separate_song(&mut CenterModel(shape), &plan, &song, GRAIN)
            .unwrap()
            .stems
    };
    let one_by_one = separated(1);
    assert_eq!(separated(2), one_by_one);
    assert_eq!(separated(5), one_by_one);
    assert_eq!(separated(1_000), one_by_one);
}

#[test]
fn the_block_size_changes_nothing() {
    let shape = shape(SMALLEST);
    let song = music(30_000, 4);
    let separated = |grain: &[usize]| {
        separate_song(&mut CenterModel(shape), &plan(shape, 0.25), &song, grain)
            .unwrap()
            .stems
    };
    let large = separated(&[16_384]);
    assert_eq!(separated(&[1]), large);
    assert_eq!(separated(&[1_024, 3_072, 2_304]), large);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_song_in_any_blocks_streams_correctly(
        song_frames in 1_usize..20_000,
        overlap in prop_oneof![Just(0.0), 0.001_f64..0.98],
        grain in prop::collection::vec(1_usize..=16_384, 1..6),
        batch in 1_usize..=5,
    ) {
        check(SMALLEST, overlap, song_frames, &grain, batch);
    }
}
