//! Mixes a song with exactly known stems: a voice with reverb over music.

use anyhow::{Result, ensure};
use separation::audio::StereoBlock;

use crate::reverb;

/// Level of the reverb relative to the dry voice.
const REVERB_DB: f64 = -14.0;
/// Level of the vocals, reverb included, relative to the music.
const VOCALS_DB: f64 = -2.0;
/// Every mix has the same reverb.
const NOISE_SEED: u64 = 1;

/// A mix and its two stems, whose exact sum it is; all of one length, none above full scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// The sum of both stems.
    pub mix: StereoBlock,
    /// The voice with its reverb, scaled.
    pub vocals: StereoBlock,
    /// The music.
    pub instrumental: StereoBlock,
}

/// Mixes a voice over music, as long as the shorter of the two.
///
/// The voice is centered, with a stereo reverb 14 dB below it; both together are 2 dB below the music. If any
/// of the three would exceed full scale, all are scaled by one gain.
///
/// # Errors
/// If the voice or the music is silent over the common length.
pub fn mix(voice: &StereoBlock, music: &StereoBlock) -> Result<Mix> {
    let frames = voice.frames().min(music.frames());
    let dry: Vec<f32> = (0..frames)
        .map(|frame| 0.5 * (voice.left[frame] + voice.right[frame]))
        .collect();
    let mut vocals = StereoBlock {
        left: dry.clone(),
        right: dry,
    };
    let mut instrumental = StereoBlock {
        left: music.left[..frames].to_vec(),
        right: music.right[..frames].to_vec(),
    };
    ensure!(rms(&vocals) > 0.0, "the voice is silent");
    ensure!(rms(&instrumental) > 0.0, "the music is silent");

    vocals = sum(&vocals, &room(&vocals)?);
    scale_to(&mut vocals, rms(&instrumental) * gain(VOCALS_DB));

    let peak = [&vocals, &instrumental, &sum(&vocals, &instrumental)]
        .iter()
        .fold(1.0_f32, |peak, block| peak.max(block.peak()));
    for block in [&mut vocals, &mut instrumental] {
        for_each_sample(block, |sample| *sample /= peak);
    }
    let mix = sum(&vocals, &instrumental);
    Ok(Mix {
        mix,
        vocals,
        instrumental,
    })
}

/// The reverb of a centered voice.
fn room(dry: &StereoBlock) -> Result<StereoBlock> {
    let [left, right] = reverb::wet(&dry.left, NOISE_SEED)?;
    let mut room = StereoBlock { left, right };
    scale_to(&mut room, rms(dry) * gain(REVERB_DB));
    Ok(room)
}

/// The root mean square over both channels; 0 for no frames.
fn rms(block: &StereoBlock) -> f64 {
    let energy = block
        .left
        .iter()
        .chain(&block.right)
        .map(|sample| f64::from(*sample).powi(2))
        .sum::<f64>();
    (energy / (2 * block.frames()).max(1) as f64).sqrt()
}

fn gain(decibels: f64) -> f64 {
    10.0_f64.powf(decibels / 20.0)
}

fn scale_to(block: &mut StereoBlock, wanted_rms: f64) {
    let factor = (wanted_rms / rms(block)) as f32;
    for_each_sample(block, |sample| *sample *= factor);
}

fn for_each_sample(block: &mut StereoBlock, change: impl Fn(&mut f32)) {
    block.left.iter_mut().chain(&mut block.right).for_each(change);
}

/// The sum of two blocks of equal length.
fn sum(one: &StereoBlock, other: &StereoBlock) -> StereoBlock {
    let add = |one: &[f32], other: &[f32]| one.iter().zip(other).map(|(a, b)| a + b).collect();
    StereoBlock {
        left: add(&one.left, &other.left),
        right: add(&one.right, &other.right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frames: usize, step: f32, level: f32) -> StereoBlock {
        let left: Vec<f32> = (0..frames).map(|n| level * (n as f32 * step).sin()).collect();
        let right = left.iter().map(|sample| 0.5 * sample).collect();
        StereoBlock { left, right }
    }

    fn decibels(one: &StereoBlock, other: &StereoBlock) -> f64 {
        20.0 * (rms(one) / rms(other)).log10()
    }

    #[test]
    fn levels_match_the_recipe() {
        let (voice, music) = (tone(50_000, 0.05, 0.1), tone(44_100, 0.013, 0.2));
        let mixed = mix(&voice, &music).unwrap();
        assert_eq!(mixed.mix.frames(), 44_100);
        assert!((decibels(&mixed.vocals, &mixed.instrumental) + 2.0).abs() < 1e-3);
        assert_eq!(
            mixed.instrumental, music,
            "nothing exceeds full scale here, so the music is untouched"
        );
        assert_eq!(mixed.mix, sum(&mixed.vocals, &mixed.instrumental));
    }

    #[test]
    fn the_room_is_fourteen_decibels_under_the_voice_and_differs_between_the_channels() {
        let voice = tone(44_100, 0.05, 0.1);
        let room = room(&voice).unwrap();
        assert!((decibels(&room, &voice) + 14.0).abs() < 1e-3);
        assert_ne!(room.left, room.right);
    }

    #[test]
    fn loud_songs_are_scaled_by_one_gain_to_full_scale() {
        let (voice, music) = (tone(44_100, 0.05, 1.0), tone(44_100, 0.05, 1.0));
        let mixed = mix(&voice, &music).unwrap();
        assert!((mixed.mix.peak() - 1.0).abs() < 1e-5, "{}", mixed.mix.peak());
        assert!((decibels(&mixed.vocals, &mixed.instrumental) + 2.0).abs() < 1e-3);
    }

    #[test]
    fn the_same_songs_give_the_same_mix() {
        let (voice, music) = (tone(10_000, 0.05, 0.1), tone(10_000, 0.013, 0.2));
        assert_eq!(mix(&voice, &music).unwrap(), mix(&voice, &music).unwrap());
    }

    #[test]
    fn silence_is_refused() {
        let (silence, music) = (StereoBlock::silence(100), tone(100, 0.1, 0.2));
        assert_eq!(
            mix(&silence, &music).unwrap_err().to_string(),
            "the voice is silent"
        );
        assert_eq!(
            mix(&music, &silence).unwrap_err().to_string(),
            "the music is silent"
        );
        assert!(mix(&StereoBlock::default(), &music).is_err());
    }
}
