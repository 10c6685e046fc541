//! A stereo reverb of exponentially decaying noise.

use anyhow::{Context, Result};
use realfft::RealFftPlanner;
use separation::audio::SAMPLE_RATE_HZ;

/// Length of the impulse response in seconds.
const LENGTH_SECONDS: f64 = 0.4;
/// Time in which the noise decays by a factor of e.
const TIME_CONSTANT_SECONDS: f64 = 0.09;

/// The reverb on both channels: the voice convolved with exponentially decaying noise, cut to the length of
/// the voice.
pub(crate) fn wet(voice: &[f32], noise_seed: u64) -> Result<[Vec<f32>; 2]> {
    let mut noise = Noise(noise_seed);
    let responses = [impulse_response(&mut noise), impulse_response(&mut noise)];
    let [left, right] = responses.map(|response| convolve(voice, &response));
    Ok([left?, right?])
}

fn impulse_response(noise: &mut Noise) -> Vec<f32> {
    let rate_hz = f64::from(SAMPLE_RATE_HZ);
    let decay_per_sample = (-1.0 / (TIME_CONSTANT_SECONDS * rate_hz)).exp();
    let mut envelope = 1.0;
    (0..(LENGTH_SECONDS * rate_hz) as usize)
        .map(|_| {
            let sample = envelope * noise.next_sample();
            envelope *= decay_per_sample;
            sample as f32
        })
        .collect()
}

/// Linear convolution, cut to the length of `signal`. One transform covers all of it, so it suits songs, not
/// hours of audio.
fn convolve(signal: &[f32], response: &[f32]) -> Result<Vec<f32>> {
    let length = (signal.len() + response.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
    let spectrum = |samples: &[f32]| {
        let mut padded = forward.make_input_vec();
        padded[..samples.len()].copy_from_slice(samples);
        let mut spectrum = forward.make_output_vec();
        forward
            .process(&mut padded, &mut spectrum)
            .map(|()| spectrum)
            .context("wrong buffer size for the transform")
    };
    let mut product = spectrum(signal)?;
    for (bin, other) in product.iter_mut().zip(spectrum(response)?) {
        *bin *= other;
    }
    let mut convolved = inverse.make_output_vec();
    inverse
        .process(&mut product, &mut convolved)
        .context("wrong buffer size for the transform")?;
    convolved.truncate(signal.len());
    // Neither direction of the transform scales its output.
    let scale = 1.0 / length as f32;
    convolved.iter_mut().for_each(|sample| *sample *= scale);
    Ok(convolved)
}

/// Seeded noise, the same on every machine: SplitMix64; the sum of twelve uniform numbers is nearly normal.
struct Noise(u64);

impl Noise {
    /// Mean 0, variance 1 (each of the twelve has variance 1/12).
    fn next_sample(&mut self) -> f64 {
        (0..12).map(|_| self.next_uniform()).sum::<f64>() - 6.0
    }

    /// In [0, 1), with 53 bits.
    fn next_uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_is_the_sum_of_delayed_copies() {
        let convolved = convolve(&[1.0, 2.0, 0.0, -1.0], &[0.5, 0.0, 0.25]).unwrap();
        for (found, expected) in convolved.iter().zip([0.5, 1.0, 0.25, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{convolved:?}");
        }
        assert_eq!(convolved.len(), 4);
    }

    #[test]
    fn noise_has_the_published_first_value_mean_0_and_variance_1() {
        // SplitMix64 from seed 0 starts with 0xe220a8397b1dcdaf.
        let first = (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1_u64 << 53) as f64;
        assert_eq!(Noise(0).next_uniform().to_bits(), first.to_bits());
        let mut noise = Noise(1);
        let samples: Vec<f64> = (0..100_000).map(|_| noise.next_sample()).collect();
        let mean = samples.iter().sum::<f64>() / 1e5;
        let variance = samples.iter().map(|sample| sample * sample).sum::<f64>() / 1e5;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02,
            "{mean} {variance}"
        );
    }

    #[test]
    fn the_room_decays_by_e_in_ninety_milliseconds() {
        let response = impulse_response(&mut Noise(7));
        assert_eq!(response.len(), 17_640);
        let energy = |samples: &[f32]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let frames = 3969; // 90 ms: amplitude falls by e, energy by its square
        let ratio = energy(&response[..frames]) / energy(&response[frames..2 * frames]);
        assert!((ratio / 2.0_f64.exp() - 1.0).abs() < 0.1, "{ratio}");
    }
}
