//! Mixes any number of channels to stereo by ITU-R BS.775.
//!
//! Center and surround channels are mixed at -3 dB and the low-frequency channel is left out. Nothing is
//! scaled afterwards, so stereo stays unchanged and the sum of loud channels may exceed full scale.

use symphonia::core::audio::{ChannelLabel, Channels, Position};

use crate::audio::StereoBlock;

const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// Gain of one channel into the left and right output.
type Gain = [f32; 2];

/// The gain of each channel of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Downmix {
    gains: Vec<Gain>,
}

impl Downmix {
    /// The mix for a layout; `None` where the layout gives no positions: none at all, ambisonics, or more
    /// than eight channels without positions.
    pub(super) fn for_layout(channels: &Channels) -> Option<Self> {
        let gains = match channels {
            Channels::Positioned(positions) => positions.iter().map(gain).collect(),
            Channels::Discrete(count) => return Self::for_count(usize::from(*count)),
            Channels::Custom(labels) if labels.iter().any(is_ambisonic) => return None,
            Channels::Custom(labels) => match labels.iter().map(position).collect::<Option<Vec<_>>>() {
                Some(positions) => positions.into_iter().map(gain).collect(),
                None => return Self::for_count(labels.len()),
            },
            _ => return None,
        };
        Self::new(gains)
    }

    /// The mix for channels without positions, assumed in the order of WAVE files.
    pub(super) fn for_count(count: usize) -> Option<Self> {
        const LEFT: Position = Position::FRONT_LEFT;
        const RIGHT: Position = Position::FRONT_RIGHT;
        const CENTER: Position = Position::FRONT_CENTER;
        const LFE: Position = Position::LFE1;
        const BACK_LEFT: Position = Position::REAR_LEFT;
        const BACK_RIGHT: Position = Position::REAR_RIGHT;
        const BACK: Position = Position::REAR_CENTER;
        const SIDE_LEFT: Position = Position::SIDE_LEFT;
        const SIDE_RIGHT: Position = Position::SIDE_RIGHT;
        let order: &[Position] = match count {
            1 => &[CENTER],
            2 => &[LEFT, RIGHT],
            3 => &[LEFT, RIGHT, CENTER],
            4 => &[LEFT, RIGHT, BACK_LEFT, BACK_RIGHT],
            5 => &[LEFT, RIGHT, CENTER, BACK_LEFT, BACK_RIGHT],
            6 => &[LEFT, RIGHT, CENTER, LFE, BACK_LEFT, BACK_RIGHT],
            7 => &[LEFT, RIGHT, CENTER, LFE, BACK, SIDE_LEFT, SIDE_RIGHT],
            8 => &[
                LEFT, RIGHT, CENTER, LFE, BACK_LEFT, BACK_RIGHT, SIDE_LEFT, SIDE_RIGHT,
            ],
            _ => return None,
        };
        Self::new(order.iter().copied().map(gain).collect())
    }

    /// The mix for a WAVE channel mask, where it names exactly as many positions as there are channels.
    pub(super) fn for_wave_mask(mask: u32, count: usize) -> Option<Self> {
        Position::from_wave_channel_mask(mask)
            .filter(|positions| positions.bits().count_ones() as usize == count)
            .and_then(|positions| Self::for_layout(&Channels::Positioned(positions)))
            .or_else(|| Self::for_count(count))
    }

    fn new(mut gains: Vec<Gain>) -> Option<Self> {
        match gains.as_mut_slice() {
            [] => return None,
            // A single channel is mono, whatever position its label gives.
            [alone] => *alone = [1.0, 1.0],
            _ => {}
        }
        Some(Self { gains })
    }

    pub(super) fn channels(&self) -> usize {
        self.gains.len()
    }

    /// Appends interleaved frames to `block`; an incomplete frame at the end is dropped.
    pub(super) fn mix(&self, interleaved: &[f32], block: &mut StereoBlock) {
        let channels = self.gains.len();
        block.left.reserve(interleaved.len() / channels);
        block.right.reserve(interleaved.len() / channels);
        match self.gains.as_slice() {
            [_] => {
                block.left.extend_from_slice(interleaved);
                block.right.extend_from_slice(interleaved);
            }
            [[1.0, 0.0], [0.0, 1.0]] => {
                block
                    .left
                    .extend(interleaved.chunks_exact(2).map(|frame| frame[0]));
                block
                    .right
                    .extend(interleaved.chunks_exact(2).map(|frame| frame[1]));
            }
            gains => {
                for frame in interleaved.chunks_exact(channels) {
                    let sum = |side: usize| {
                        frame
                            .iter()
                            .zip(gains)
                            .map(|(s, gain)| s * gain[side])
                            .sum::<f32>()
                    };
                    block.left.push(sum(0));
                    block.right.push(sum(1));
                }
            }
        }
    }
}

fn is_ambisonic(label: &ChannelLabel) -> bool {
    matches!(
        label,
        ChannelLabel::Ambisonic(_) | ChannelLabel::AmbisonicBFormat(_)
    )
}

fn position(label: &ChannelLabel) -> Option<Position> {
    match label {
        ChannelLabel::Positioned(position) => Some(*position),
        _ => None,
    }
}

fn gain(position: Position) -> Gain {
    const LEFT_FULL: Position = Position::FRONT_LEFT
        .union(Position::FRONT_LEFT_CENTER)
        .union(Position::FRONT_LEFT_WIDE);
    const RIGHT_FULL: Position = Position::FRONT_RIGHT
        .union(Position::FRONT_RIGHT_CENTER)
        .union(Position::FRONT_RIGHT_WIDE);
    const LEFT_AROUND: Position = Position::REAR_LEFT
        .union(Position::SIDE_LEFT)
        .union(Position::TOP_FRONT_LEFT)
        .union(Position::TOP_REAR_LEFT)
        .union(Position::TOP_SIDE_LEFT)
        .union(Position::BOTTOM_FRONT_LEFT);
    const RIGHT_AROUND: Position = Position::REAR_RIGHT
        .union(Position::SIDE_RIGHT)
        .union(Position::TOP_FRONT_RIGHT)
        .union(Position::TOP_REAR_RIGHT)
        .union(Position::TOP_SIDE_RIGHT)
        .union(Position::BOTTOM_FRONT_RIGHT);
    const LOW: Position = Position::LFE1.union(Position::LFE2);
    if LEFT_FULL.contains(position) {
        [1.0, 0.0]
    } else if RIGHT_FULL.contains(position) {
        [0.0, 1.0]
    } else if LEFT_AROUND.contains(position) {
        [HALF_POWER, 0.0]
    } else if RIGHT_AROUND.contains(position) {
        [0.0, HALF_POWER]
    } else if LOW.contains(position) {
        [0.0, 0.0]
    } else {
        // Every middle position: center, rear center, above, below.
        [HALF_POWER, HALF_POWER]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(downmix: Option<Downmix>, frame: &[f32], left: f32, right: f32) {
        let mut block = StereoBlock::default();
        downmix.expect("a known layout").mix(frame, &mut block);
        assert_eq!((block.left, block.right), (vec![left], vec![right]));
    }

    #[test]
    fn mono_is_on_both_sides_and_stereo_is_untouched() {
        check(Downmix::for_count(1), &[0.3], 0.3, 0.3);
        check(Downmix::for_count(2), &[0.3, -0.4], 0.3, -0.4);
    }

    #[test]
    fn center_and_surrounds_are_mixed_at_half_power_and_the_low_channel_is_dropped() {
        check(
            Downmix::for_count(6),
            &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            HALF_POWER,
            HALF_POWER,
        );
        check(Downmix::for_count(6), &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], 0.0, 0.0);
        check(
            Downmix::for_wave_mask(0x60f, 6),
            &[0.5, 0.25, 0.0, 0.0, 1.0, 0.0],
            0.5 + HALF_POWER,
            0.25,
        );
    }

    #[test]
    fn more_than_eight_channels_without_positions_have_no_mix() {
        assert_eq!(Downmix::for_count(9), None);
        assert_eq!(Downmix::for_layout(&Channels::None), None);
    }
}
