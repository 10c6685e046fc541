//! One song in every contract, as long as wanted: two seconds in tests, ten minutes in benchmarks.

use super::bench::{Bench, FLOAT32};
use super::oracle::{Model, Scheme, Stereo};
use super::spectrum_models::{interleaved, masks, planes, real_imaginary, scheme};
use super::toy::SpectrumToy;
use super::waveform_models::{demucs, four_stems, roformer, two_stems};

/// 2 s, or the seconds in `SEPARATION_TEST_SONG_SECONDS` (benchmarks).
fn song_frames() -> usize {
    let seconds = std::env::var("SEPARATION_TEST_SONG_SECONDS");
    44_100 * seconds.map_or(2, |seconds| seconds.parse::<usize>().unwrap())
}

/// Prints the largest difference, for benchmarks.
#[expect(clippy::print_stdout, reason = "a figure of benchmarks, shown by --nocapture")]
fn check(contract: &str, model: &str, scheme: Scheme, toy: Model<'_>) {
    let difference = Bench::new(model).check(None, song_frames(), scheme, toy, FLOAT32);
    println!("largest difference with {contract}: {difference:.1e}");
}

#[test]
fn a_long_song_agrees_in_every_contract() {
    let spectra = |contract: &str, model: &str, scheme: Scheme, toy: &SpectrumToy| {
        check(contract, model, scheme, &|chunk: &Stereo| toy.run(chunk));
    };
    check(
        "waveform, chunks of Demucs",
        "wave_demucs_small",
        demucs(4_095, 0.25),
        &four_stems,
    );
    check(
        "waveform, chunks of a RoFormer",
        "wave_roformer_small",
        roformer(4_410, 0.5),
        &two_stems,
    );
    spectra(
        "real-imaginary",
        "spectrum_small",
        scheme(4_410, 0.5),
        &real_imaginary(3),
    );
    spectra(
        "interleaved",
        "interleaved_small",
        scheme(4_400, 0.5),
        &interleaved(),
    );
    let (scheme_of_masks, toy) = masks();
    spectra(
        "interleaved-rows, masks",
        "rows_mask_small",
        scheme_of_masks,
        &toy,
    );
    spectra("mdx23c", "planes_small", scheme(4_096, 0.5), &planes());
}
