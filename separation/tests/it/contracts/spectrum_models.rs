//! Models that take and return spectra.

use super::bench::{Bench, FLOAT16, FLOAT32};
use super::oracle::{Chunking, Scheme, Stereo};
use super::spectra::Stft;
use super::toy::{Planes, SpectrumToy};

const SECOND: usize = 44_100;

pub(super) fn scheme(chunk: usize, overlap: f64) -> Scheme {
    Scheme {
        chunking: Chunking::Roformer,
        chunk,
        step: ((1.0 - overlap) * chunk as f64) as usize,
        is_normalized: false,
    }
}

pub(super) fn real_imaginary(stems: usize) -> SpectrumToy {
    SpectrumToy {
        stft: Stft::new(2048, 441, false),
        rows: 1025,
        stems,
        planes: Planes::ByPart,
        is_mask: false,
    }
}

/// Checks lengths around those that matter for chunks of these frames, and one of some seconds, with the model's own
/// overlap.
fn check(model: &str, stems: &[&str], scheme: Scheme, toy: &SpectrumToy, seconds: usize, limit: f64) {
    let mut bench = Bench::new(model);
    assert_eq!(bench.stems(), stems);
    let run = |chunk: &Stereo| toy.run(chunk);
    let border = 2 * (scheme.chunk - scheme.step);
    let edges = [1, 2, scheme.chunk / 2, scheme.chunk, border, border + 1];
    for frames in edges.into_iter().chain([seconds * SECOND]) {
        bench.check(None, frames, scheme, &run, limit);
    }
}

#[test]
fn real_and_imaginary_parts_in_tensors_of_their_own() {
    let stems = ["vocals", "drums", "bass", "instrumental"];
    check(
        "spectrum_small",
        &stems,
        scheme(4_410, 0.5),
        &real_imaginary(3),
        60,
        FLOAT32,
    );
}

#[test]
fn chunks_of_a_roformer_are_separated_as_defined() {
    let mut bench = Bench::new("spectrum");
    assert_eq!(bench.stems(), ["vocals", "drums", "instrumental"]);
    let toy = real_imaginary(2);
    for frames in [1, 352_800, 352_801, 16 * SECOND] {
        bench.check(
            None,
            frames,
            scheme(352_800, 0.5),
            &|chunk| toy.run(chunk),
            FLOAT32,
        );
    }
}

#[test]
fn spectra_of_16_bits_are_converted() {
    let stems = ["vocals", "drums", "instrumental"];
    check(
        "spectrum_half",
        &stems,
        scheme(4_410, 0.5),
        &real_imaginary(2),
        5,
        FLOAT16,
    );
}

pub(super) fn interleaved() -> SpectrumToy {
    SpectrumToy {
        stft: Stft::new(2048, 512, true),
        planes: Planes::ByChannel,
        ..real_imaginary(2)
    }
}

#[test]
fn real_and_imaginary_parts_as_the_last_axis() {
    let (stems, toy) = (["vocals", "drums", "instrumental"], interleaved());
    check("interleaved_small", &stems, scheme(4_400, 0.5), &toy, 5, FLOAT32);
}

pub(super) fn masks() -> (Scheme, SpectrumToy) {
    let scheme = Scheme {
        is_normalized: true,
        ..scheme(4_410, 0.75)
    };
    let toy = SpectrumToy {
        planes: Planes::ByChannel,
        is_mask: true,
        ..real_imaginary(1)
    };
    (scheme, toy)
}

#[test]
fn masks_of_rows_of_both_channels_are_multiplied() {
    let (scheme, toy) = masks();
    check(
        "rows_mask_small",
        &["vocals", "instrumental"],
        scheme,
        &toy,
        5,
        FLOAT32,
    );
}

#[test]
fn masks_of_both_polarities_are_averaged_as_spectra() {
    let (scheme, toy) = masks();
    let mut bench = Bench::new("rows_mask_small");
    bench.denoise = true;
    bench.check(None, 30_000, scheme, &|chunk| toy.run(chunk), FLOAT32);
}

pub(super) fn planes() -> SpectrumToy {
    SpectrumToy {
        stft: Stft::new(2048, 1024, false),
        rows: 1000,
        planes: Planes::ByChannel,
        ..real_imaginary(2)
    }
}

#[test]
fn planes_of_several_stems() {
    let stems = ["vocals", "instrumental"];
    check("planes_small", &stems, scheme(4_096, 0.5), &planes(), 5, FLOAT32);
}
