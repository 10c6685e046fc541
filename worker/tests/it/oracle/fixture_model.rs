//! The `conv_*` models of `tests/models`, computed in double precision from the formula in their README.

use super::{CHANNELS, Parameters};

/// The model's output for a spectrum of \[4\]\[F\]\[T\]: a convolution over rows and frames, then a nonlinearity.
pub(crate) fn fixture(spectrum: &[f64], parameters: Parameters) -> Vec<f64> {
    let plane = parameters.rows * parameters.columns;
    let mut mixed = vec![0.0; spectrum.len()];
    for (o, mixed) in mixed.chunks_exact_mut(plane).enumerate() {
        for (i, x) in spectrum.chunks_exact(plane).enumerate() {
            for a in 0..3 {
                for b in 0..3 {
                    add_shifted(mixed, x, parameters.columns, (a, b), weight(o, i, a, b));
                }
            }
        }
    }
    assert_eq!(mixed.len(), CHANNELS * plane, "one spectrum");
    mixed.into_iter().map(bend).collect()
}

fn weight(o: usize, i: usize, a: usize, b: usize) -> f64 {
    let small = (((7 * o + 5 * i + 3 * a + 11 * b) % 23) as f64 - 11.0) / 256.0;
    if (o, a, b) == (i, 1, 1) {
        small + 0.5
    } else {
        small
    }
}

fn bend(u: f64) -> f64 {
    0.5 * u + 0.25 * u.abs() + 0.25 * u * u.abs() / (8.0 + u.abs())
}

/// `sum`\[f, t\] += `weight` * `x`\[f + a - 1, t + b - 1\], where x is 0 outside its rows and columns.
fn add_shifted(sum: &mut [f64], x: &[f64], columns: usize, (a, b): (usize, usize), weight: f64) {
    let rows = x.len() / columns;
    for (f, sum) in sum.chunks_exact_mut(columns).enumerate() {
        let Some(row) = (f + a).checked_sub(1).filter(|&row| row < rows) else {
            continue;
        };
        let x = &x[row * columns..][..columns];
        match b {
            0 => add(&mut sum[1..], &x[..columns - 1], weight),
            1 => add(sum, x, weight),
            _ => add(&mut sum[..columns - 1], &x[1..], weight),
        }
    }
}

fn add(sum: &mut [f64], x: &[f64], weight: f64) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += weight * x;
    }
}
