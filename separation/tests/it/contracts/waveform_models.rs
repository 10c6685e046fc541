//! Models that take and return samples.

use super::bench::{Bench, FLOAT16, FLOAT32, music};
use super::oracle::{Chunking, Scheme, Stereo};
use super::toy;

const MINUTE: usize = 60 * 44_100;

pub(super) fn demucs(chunk: usize, overlap: f64) -> Scheme {
    Scheme {
        chunking: Chunking::Demucs,
        chunk,
        step: ((1.0 - overlap) * chunk as f64) as usize,
        is_normalized: true,
    }
}

pub(super) fn roformer(chunk: usize, overlap: f64) -> Scheme {
    Scheme {
        chunking: Chunking::Roformer,
        is_normalized: false,
        ..demucs(chunk, overlap)
    }
}

/// Lengths around everything that the scheme distinguishes.
fn lengths(scheme: Scheme) -> Vec<usize> {
    let Scheme { chunk, step, .. } = scheme;
    let border = chunk - step;
    let edges = [
        chunk / 2,
        step,
        chunk,
        2 * border,
        chunk + step,
        3 * step,
        2 * border + step,
    ];
    let mut lengths: Vec<usize> = edges
        .into_iter()
        .flat_map(|at| at.saturating_sub(1)..=at + 1)
        .collect();
    lengths.extend([1, 2, 3, 997]);
    lengths.retain(|frames| *frames > 0);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

pub(super) fn four_stems(chunk: &Stereo) -> Vec<Stereo> {
    toy::waveform(chunk, 4)
}

pub(super) fn two_stems(chunk: &Stereo) -> Vec<Stereo> {
    toy::waveform(chunk, 2)
}

fn one_stem(chunk: &Stereo) -> Vec<Stereo> {
    toy::waveform(chunk, 1)
}

#[test]
fn songs_of_any_length_are_separated_as_demucs_does() {
    let mut bench = Bench::new("wave_demucs_small");
    assert_eq!(
        bench.stems(),
        ["drums", "bass", "other", "vocals", "instrumental"]
    );
    for overlap in [None, Some(0.0), Some(0.5), Some(0.9)] {
        let scheme = demucs(4_095, overlap.unwrap_or(0.25));
        for frames in lengths(scheme) {
            bench.check(overlap, frames, scheme, &four_stems, FLOAT32);
        }
    }
    bench.check(None, MINUTE, demucs(4_095, 0.25), &four_stems, FLOAT32);
}

#[test]
fn songs_of_any_length_are_separated_as_roformers_are() {
    let mut bench = Bench::new("wave_roformer_small");
    assert_eq!(bench.stems(), ["vocals", "instrumental"]);
    for overlap in [None, Some(0.0), Some(0.0625), Some(0.75)] {
        let scheme = roformer(4_410, overlap.unwrap_or(0.5));
        for frames in lengths(scheme) {
            bench.check(overlap, frames, scheme, &two_stems, FLOAT32);
        }
    }
    bench.check(None, MINUTE, roformer(4_410, 0.5), &two_stems, FLOAT32);
}

#[test]
fn chunks_of_htdemucs_need_no_sidecar() {
    let mut bench = Bench::new("wave_demucs");
    assert_eq!(
        bench.stems(),
        ["drums", "bass", "other", "vocals", "instrumental"]
    );
    for frames in [1, 100_000, 343_980, 343_981, MINUTE] {
        bench.check(None, frames, demucs(343_980, 0.25), &four_stems, FLOAT32);
    }
}

#[test]
fn chunks_of_a_roformer_need_only_the_name_of_the_stem() {
    let mut bench = Bench::new("wave_roformer");
    assert_eq!(bench.stems(), ["vocals", "instrumental"]);
    for frames in [1, 352_799, 352_800, 352_801, MINUTE] {
        bench.check(None, frames, roformer(352_800, 0.5), &one_stem, FLOAT32);
    }
}

#[test]
fn tensors_of_16_bits_are_converted() {
    let mut bench = Bench::new("wave_demucs_half");
    for frames in [1, 4_410, 100_000, MINUTE] {
        bench.check(None, frames, demucs(4_410, 0.25), &four_stems, FLOAT16);
    }
}

#[test]
fn denoising_averages_both_polarities_of_every_stem() {
    let mut bench = Bench::new("wave_demucs_small");
    bench.denoise = true;
    bench.check(None, 20_000, demucs(4_095, 0.25), &four_stems, FLOAT32);
}

#[test]
fn a_stem_is_the_same_alone_and_among_others() {
    let mut bench = Bench::new("wave_demucs_small");
    let song = music(50_000);
    let names = bench.stems();
    let together = bench.separate(&song, None, &names);
    for (name, expected) in names.iter().zip(&together) {
        let alone = bench.separate(&song, None, std::slice::from_ref(name));
        assert!(alone == std::slice::from_ref(expected), "{name}");
    }
    let reversed: Vec<String> = names.iter().rev().cloned().collect();
    let mut stems = bench.separate(&song, None, &reversed);
    stems.reverse();
    assert!(stems == together, "in any order");
}
