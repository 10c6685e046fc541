//! Converts sample rates: n frames become round(n * to / from), aligned with the input to the sample. Equal
//! rates pass through bit for bit.

use audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{Fft, FixedSync, Indexing, Resampler, WindowFunction};

use crate::audio::StereoBlock;

/// The lowest accepted rate. Below it, a small file would become hours: 1,000 Hz already grows 44.1 times.
pub(super) const MIN_RATE_HZ: u32 = 1_000;

/// The highest accepted rate: eight times 192 kHz.
pub(super) const MAX_RATE_HZ: u32 = 1_536_000;

/// The longest transform, in frames of the faster side. Rates without a common divisor with 44,100 need one as
/// long as the rate (doubled if odd), so this admits every rate up to 262,144 Hz, and round ones above it. With
/// 4 bytes a sample and about ten buffers twice as long: 2 x 262,144 x 2 x 4 x 10 = 42 MiB at worst.
const MAX_TRANSFORM_FRAMES: u64 = 2 * 262_144;

/// Minimum frames of the slower side in one transform: the filter is as long as the transform, and from 1,024
/// on it passes 98.6 % of the band.
const MIN_TRANSFORM_FRAMES: u64 = 1_024;

pub(super) enum Converter {
    /// The rates are equal.
    Through,
    /// The rates differ.
    Fft(Box<FftConverter>),
}

pub(super) struct FftConverter {
    fft: Fft<f32>,
    from_hz: u32,
    to_hz: u32,
    /// Input that does not fill a transform yet: left and right.
    input: [Vec<f32>; 2],
    output: [Vec<f32>; 2],
    transform_frames: usize,
    /// Output frames still to drop: the delay of the filter.
    delay_left: usize,
    frames_in: u64,
    frames_out: u64,
}

/// Frames at `to_hz` for `frames` frames at `from_hz`: round(frames * to / from), halves up.
pub(super) fn converted_frames(frames: u64, from_hz: u32, to_hz: u32) -> u64 {
    let from = u128::from(from_hz.max(1));
    let exact = (u128::from(frames) * u128::from(to_hz) * 2 + from) / (2 * from);
    u64::try_from(exact).unwrap_or(u64::MAX)
}

impl Converter {
    /// A converter between two rates; `None` for unsupported rates.
    pub(super) fn new(from_hz: u32, to_hz: u32) -> Option<Self> {
        if from_hz == to_hz {
            return Some(Self::Through);
        }
        let (frames_in, frames_out) = transform(from_hz, to_hz)?;
        let fft = Fft::new_custom(
            from_hz as usize,
            to_hz as usize,
            frames_in,
            1,
            2,
            WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .ok()?;
        let buffer = || Vec::with_capacity(frames_in);
        Some(Self::Fft(Box::new(FftConverter {
            delay_left: fft.output_delay(),
            fft,
            from_hz,
            to_hz,
            input: [buffer(), buffer()],
            output: [vec![0.0; frames_out], vec![0.0; frames_out]],
            transform_frames: frames_in,
            frames_in: 0,
            frames_out: 0,
        })))
    }

    /// Takes frames and appends the completed output to `ready`.
    pub(super) fn push(&mut self, block: &StereoBlock, ready: &mut StereoBlock) -> Result<(), String> {
        match self {
            Self::Through => {
                ready.append(block);
                Ok(())
            }
            Self::Fft(converter) => converter.push(block, ready),
        }
    }

    /// Appends the remaining output, after the last frame.
    pub(super) fn finish(&mut self, ready: &mut StereoBlock) -> Result<(), String> {
        match self {
            Self::Through => Ok(()),
            Self::Fft(converter) => {
                let total = converted_frames(converter.frames_in, converter.from_hz, converter.to_hz);
                converter.finish_at(total, ready)
            }
        }
    }

    /// Like [`Self::finish`], but the complete output has `total` frames, which may differ by rounding from
    /// those of the input.
    pub(super) fn finish_at(&mut self, total: u64, ready: &mut StereoBlock) -> Result<(), String> {
        match self {
            Self::Through => Ok(()),
            Self::Fft(converter) => converter.finish_at(total, ready),
        }
    }
}

/// Input and output frames of one transform: complete periods of the ratio, an even number on both sides, so
/// that the middle of the filter, and so the delay, is an integer number of frames.
fn transform(from_hz: u32, to_hz: u32) -> Option<(usize, usize)> {
    let supported = MIN_RATE_HZ..=MAX_RATE_HZ;
    if !supported.contains(&from_hz) || !supported.contains(&to_hz) {
        return None;
    }
    let (from, to) = (u64::from(from_hz), u64::from(to_hz));
    let divisor = greatest_common_divisor(from, to);
    let (period_in, period_out) = (from / divisor, to / divisor);
    let periods = MIN_TRANSFORM_FRAMES
        .div_ceil(period_in.min(period_out))
        .next_multiple_of(2);
    let (frames_in, frames_out) = (periods * period_in, periods * period_out);
    if frames_in.max(frames_out) > MAX_TRANSFORM_FRAMES {
        return None;
    }
    Some((
        usize::try_from(frames_in).ok()?,
        usize::try_from(frames_out).ok()?,
    ))
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

impl FftConverter {
    fn push(&mut self, block: &StereoBlock, ready: &mut StereoBlock) -> Result<(), String> {
        self.frames_in += block.frames() as u64;
        let mut taken = 0;
        while taken < block.frames() {
            let room = self.transform_frames - self.input[0].len();
            let end = block.frames().min(taken + room);
            self.input[0].extend_from_slice(&block.left[taken..end]);
            self.input[1].extend_from_slice(&block.right[taken..end]);
            taken = end;
            if self.input[0].len() == self.transform_frames {
                self.convert(u64::MAX, ready)?;
            }
        }
        Ok(())
    }

    fn finish_at(&mut self, total: u64, ready: &mut StereoBlock) -> Result<(), String> {
        while self.frames_out < total {
            for channel in &mut self.input {
                channel.resize(self.transform_frames, 0.0);
            }
            self.convert(total - self.frames_out, ready)?;
        }
        Ok(())
    }

    fn convert(&mut self, most_frames: u64, ready: &mut StereoBlock) -> Result<(), String> {
        let frames_out = self.output[0].len();
        let from = SequentialSliceOfVecs::new(&self.input[..], 2, self.transform_frames)
            .map_err(|error| error.to_string())?;
        let mut to = SequentialSliceOfVecs::new_mut(&mut self.output[..], 2, frames_out)
            .map_err(|error| error.to_string())?;
        let (_, written) = self
            .fft
            .process_into_buffer(&from, &mut to, Some(&Indexing::new()))
            .map_err(|error| error.to_string())?;
        let start = self.delay_left.min(written);
        self.delay_left -= start;
        let kept = u64::min((written - start) as u64, most_frames);
        let end = start + usize::try_from(kept).unwrap_or(written - start);
        ready.left.extend_from_slice(&self.output[0][start..end]);
        ready.right.extend_from_slice(&self.output[1][start..end]);
        self.frames_out += kept;
        for channel in &mut self.input {
            channel.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const TARGET_HZ: u32 = 44_100;

    fn convert(rate_hz: u32, left: Vec<f32>) -> StereoBlock {
        let mut converter = Converter::new(rate_hz, TARGET_HZ).expect("a rate that can be converted");
        let right = left.iter().map(|sample| -sample).collect();
        let complete = StereoBlock { left, right };
        let mut ready = StereoBlock::default();
        // Uneven pieces, so that transforms and pieces do not start together.
        for start in (0..complete.frames()).step_by(777) {
            let end = complete.frames().min(start + 777);
            let piece = StereoBlock {
                left: complete.left[start..end].to_vec(),
                right: complete.right[start..end].to_vec(),
            };
            converter
                .push(&piece, &mut ready)
                .expect("conversion does not fail");
        }
        converter.finish(&mut ready).expect("conversion does not fail");
        assert_eq!(
            ready.frames() as u64,
            converted_frames(complete.frames() as u64, rate_hz, TARGET_HZ)
        );
        ready
    }

    fn check_sine(rate_hz: u32, frequency_hz: f64) {
        let sine = |rate: f64, n: usize| 0.5 * (TAU * frequency_hz * n as f64 / rate).sin();
        let input: Vec<f32> = (0..2 * rate_hz as usize)
            .map(|n| sine(f64::from(rate_hz), n) as f32)
            .collect();
        let output = convert(rate_hz, input);
        let (mut signal, mut noise) = (0.0, 0.0);
        // Half a second away from both ends, where the sine starts and stops.
        for n in 22_050..66_150 {
            let expected = sine(44_100.0, n);
            signal += expected * expected;
            noise += (f64::from(output.left[n]) - expected).powi(2);
            assert_eq!(output.left[n], -output.right[n]);
        }
        let snr_db = 10.0 * (signal / noise).log10();
        assert!(snr_db > 90.0, "{frequency_hz} Hz at {rate_hz} Hz: {snr_db:.1} dB");
    }

    #[test]
    fn sines_keep_amplitude_and_phase_to_90_db_at_any_rate() {
        let rates = [
            8_000, 11_025, 22_050, 32_000, 37_800, 44_099, 48_000, 88_200, 96_000, 192_000,
        ];
        for rate_hz in rates {
            let band_hz = f64::from(u32::min(rate_hz, 44_100)) / 2.0;
            for share in [0.005, 0.2, 0.5, 0.9, 0.95] {
                check_sine(rate_hz, band_hz * share);
            }
        }
    }

    #[test]
    fn frequencies_above_the_nyquist_limit_are_removed() {
        let tone: Vec<f32> = (0..192_000)
            .map(|n| (TAU * 30_000.0 * f64::from(n) / 96_000.0).sin() as f32)
            .collect();
        let output = convert(96_000, tone);
        let peak = output.left[22_050..66_150]
            .iter()
            .fold(0.0_f32, |peak, s| peak.max(s.abs()));
        assert!(peak < 3e-5, "{peak}");
    }

    #[test]
    fn an_impulse_stays_where_it_was() {
        let mut input = vec![0.0; 48_000];
        input[16_000] = 1.0;
        let output = convert(48_000, input);
        let at = (0..output.frames()).max_by(|a, b| output.left[*a].total_cmp(&output.left[*b]));
        assert_eq!(at, Some(14_700));
    }

    #[test]
    fn a_song_returns_to_its_own_rate_in_place_and_with_its_own_length() {
        for rate_hz in [8_000, 32_000, 44_099, 48_000, 96_000, 192_000] {
            let frames = rate_hz as usize + 7;
            // Within the band of both rates.
            let tone_hz = f64::from(u32::min(rate_hz, TARGET_HZ)) / 8.0;
            let song: Vec<f32> = (0..frames)
                .map(|n| (TAU * tone_hz * n as f64 / f64::from(rate_hz)).sin() as f32)
                .collect();
            let engine = convert(rate_hz, song.clone());
            let mut converter = Converter::new(TARGET_HZ, rate_hz).expect("a rate that can be converted");
            let mut back = StereoBlock::default();
            converter
                .push(&engine, &mut back)
                .expect("conversion does not fail");
            converter
                .finish_at(frames as u64, &mut back)
                .expect("conversion does not fail");
            assert_eq!(back.frames(), frames, "{rate_hz}");
            let middle = frames / 4..3 * frames / 4;
            let error = middle.fold(0.0_f32, |most, n| most.max((back.left[n] - song[n]).abs()));
            assert!(error < 1e-4, "{rate_hz}: {error}");
        }
    }

    #[test]
    fn a_single_sample_survives_every_rate() {
        for rate_hz in [1_000, 8_000, 44_099, 44_100, 48_000, 96_000, 1_536_000] {
            let frames = convert(rate_hz, vec![0.5]).frames() as u64;
            assert_eq!(frames, converted_frames(1, rate_hz, TARGET_HZ));
        }
    }

    #[test]
    fn absurd_rates_are_refused() {
        for rate_hz in [0, 1, 999, 1_535_999, 1_536_001, u32::MAX] {
            assert!(Converter::new(rate_hz, TARGET_HZ).is_none(), "{rate_hz}");
            assert!(Converter::new(TARGET_HZ, rate_hz).is_none(), "{rate_hz}");
        }
        assert!(Converter::new(262_143, TARGET_HZ).is_some());
    }
}
