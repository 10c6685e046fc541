//! Tests of the oracle by properties that do not follow from its own code.

use super::*;
use crate::in_memory::music;

const SMALL: Parameters = Parameters {
    n_fft: 2048,
    rows: 1025,
    columns: 6,
    overlap: 0.25,
    denoise: false,
};

fn song(frames: usize) -> Stereo {
    let song = music(frames, 7);
    [song.left, song.right].map(|channel| channel.into_iter().map(f64::from).collect())
}

fn identity(spectrum: &[f64]) -> Vec<f64> {
    spectrum.to_vec()
}

fn energy(x: &Stereo) -> f64 {
    x.iter().flatten().map(|sample| sample * sample).sum()
}

#[test]
fn a_model_that_changes_nothing_gives_the_song_without_its_lowest_rows() {
    // 689 Hz: row 32, above the zeroed ones. Only the chunks' mirrored edges distort it, and these are in the padding
    // or under the window's ends.
    let frames = 3 * SMALL.chunk();
    let tone: Vec<f64> = (0..frames).map(|k| 0.5 * (TAU * k as f64 / 64.0).sin()).collect();
    let x = [tone.clone(), tone.iter().map(|sample| -sample).collect()];
    let inside = SMALL.chunk()..2 * SMALL.chunk();
    for overlap in [0.25, 0.75, 0.9] {
        let d = demix(&x, Parameters { overlap, ..SMALL }, &identity);
        let left = less(&x, &d, 1.0).clone_range(inside.start, inside.end);
        let lost = energy(&left) / energy(&x.clone_range(inside.start, inside.end));
        assert!(lost < 1e-3, "overlap {overlap} loses {lost:e} of the energy");
    }
}

#[test]
fn an_identity_model_removes_only_the_lowest_rows() {
    let x = song(40_000);
    let parameters = Parameters {
        overlap: 0.9,
        ..SMALL
    };
    let removed = less(&x, &demix(&x, parameters, &identity), 1.0);
    // Three rows of the Hann window reach up to row 4 or so; far above, nothing may be missing.
    let stft = Stft::new(SMALL.n_fft);
    let [high_x, high_removed] = [&x, &removed].map(|audio| {
        let frames = stft.frames(&audio.clone_range(4096, 4096 + 16 * HOP));
        let high = frames
            .iter()
            .flat_map(|frame| frame.left[40..].iter().chain(&frame.right[40..]));
        high.map(|value| value.re * value.re + value.im * value.im)
            .sum::<f64>()
    });
    assert!(high_removed < 1e-4 * high_x, "{high_removed:e} of {high_x:e}");
}

#[test]
fn denoising_keeps_an_odd_model_and_removes_an_even_one() {
    let x = song(10_000);
    let denoise = Parameters {
        denoise: true,
        ..SMALL
    };
    let plain = demix(&x, SMALL, &identity);
    let odd = demix(&x, denoise, &identity);
    assert!(energy(&less(&plain, &odd, 1.0)) < 1e-20);
    let even = demix(&x, denoise, &|spectrum| {
        spectrum.iter().map(|value| value.abs()).collect()
    });
    assert!(energy(&even) < 1e-20);
}

#[test]
fn steps_are_those_of_the_definition() {
    let step = |overlap| {
        Parameters {
            columns: 256,
            overlap,
            ..SMALL
        }
        .step()
    };
    assert_eq!([0.0, 0.8, 0.9].map(step), [261_120, 52_223, 26_111]);
}

#[test]
fn stems_of_either_formula_are_those_of_the_definition() {
    let x = song(5_000);
    let d = demix(&x, SMALL, &identity);
    let stems = uvr_stems(&x, SMALL, 1.5, &identity);
    let sum = less(&stems.primary, &scaled(&stems.secondary, -1.0), 1.0);
    assert!(energy(&less(&sum, &x, 1.0)) < 1e-20);
    assert!(energy(&less(&stems.primary, &d, 1.5)) < 1e-20);

    // A peak of 2 is scaled to 0.9; the primary is 2 d and so nearly 1.8, scaled to 0.9 again.
    let loud = scaled(&x, 2.0 / peak(&x));
    let stems = audio_separator_stems(&loud, SMALL, 1.5, &identity);
    assert!((peak(&stems.primary) - 0.9).abs() < 1e-12);
    assert!((peak(&stems.secondary) - 0.9).abs() < 1e-12);
    // A peak of 0.1 stays: the primary is d / 10.
    let quiet = scaled(&x, 0.1 / peak(&x));
    let stems = audio_separator_stems(&quiet, SMALL, 1.5, &identity);
    let d = demix(&quiet, SMALL, &identity);
    assert!(energy(&less(&stems.primary, &d, 0.1)) < 1e-20);
    let secondary = less(&quiet, &d, 0.15);
    assert!(energy(&less(&stems.secondary, &secondary, 1.0)) < 1e-20);
}
