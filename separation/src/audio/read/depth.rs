//! The bit depth of coded samples, and the configuration that has it.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE,
    CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S8, CODEC_ID_PCM_S16BE,
    CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE,
    CODEC_ID_PCM_U8,
};

use crate::audio::WavSamples;

/// The narrowest samples that hold those of a codec; `None` for lossy codecs.
pub(super) fn of_codec(params: &AudioCodecParameters) -> Option<WavSamples> {
    match params.codec {
        CODEC_ID_FLAC => flac_bits(params).map(of_bits),
        CODEC_ID_ALAC => alac_bits(params).map(of_bits),
        CODEC_ID_PCM_U8 | CODEC_ID_PCM_S8 | CODEC_ID_PCM_S16LE | CODEC_ID_PCM_S16BE => {
            Some(WavSamples::Int16)
        }
        // Logarithmic 8 bits decode to 14.
        CODEC_ID_PCM_ALAW | CODEC_ID_PCM_MULAW => Some(WavSamples::Int16),
        CODEC_ID_PCM_S24LE | CODEC_ID_PCM_S24BE => Some(WavSamples::Int24),
        CODEC_ID_PCM_S32LE | CODEC_ID_PCM_S32BE | CODEC_ID_PCM_F32LE | CODEC_ID_PCM_F32BE
        | CODEC_ID_PCM_F64LE | CODEC_ID_PCM_F64BE => Some(WavSamples::Float32),
        _ => None,
    }
}

fn of_bits(bits: u32) -> WavSamples {
    match bits {
        0..=16 => WavSamples::Int16,
        17..=24 => WavSamples::Int24,
        _ => WavSamples::Float32,
    }
}

/// RFC 9639, section 8.2: after 103 bits of STREAMINFO, 5 bits that hold the bits per sample minus one.
fn flac_bits(params: &AudioCodecParameters) -> Option<u32> {
    match params.extra_data.as_deref()?.get(12..14)? {
        &[high, low] => Some((u32::from(high & 1) << 4 | u32::from(low >> 4)) + 1),
        _ => None,
    }
}

/// The byte of ALACSpecificConfig after the frame length and the version.
fn alac_bits(params: &AudioCodecParameters) -> Option<u32> {
    alac_config(params)?.get(5).copied().map(u32::from)
}

/// ALACSpecificConfig. CAF may have it inside of one or two atoms.
pub(super) fn alac_config(params: &AudioCodecParameters) -> Option<&[u8]> {
    let mut config = params.extra_data.as_deref()?;
    for atom in [b"frma", b"alac"] {
        if config.get(4..8) == Some(atom) {
            config = config.get(12..)?;
        }
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_samples_that_hold_a_depth_are_chosen() {
        let check = |bits: u32, expected: WavSamples| assert_eq!(of_bits(bits), expected, "{bits}");
        check(8, WavSamples::Int16);
        check(12, WavSamples::Int16);
        check(16, WavSamples::Int16);
        check(20, WavSamples::Int24);
        check(24, WavSamples::Int24);
        check(32, WavSamples::Float32);
    }
}
