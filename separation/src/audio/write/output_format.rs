//! Output formats of stems.

use crate::audio::AudioError;

/// The highest sample rate of our FLAC encoder.
const MAX_FLAC_RATE_HZ: u32 = 96_000;

/// The sample rates of MPEG 1, 2 and 2.5.
const MP3_RATES_HZ: [u32; 9] = [
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000,
];

/// An output format, always stereo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// WAV; RF64 beyond 4 GiB.
    Wav(WavSamples),
    /// FLAC.
    Flac(FlacSamples),
    /// MP3 by LAME, which the ffmpeg program must contain.
    Mp3(Mp3Bitrate),
}

/// Bit rate of an MP3 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mp3Bitrate {
    /// LAME's best variable bit rate (V0): about 245 kbit/s for music.
    Variable,
    /// A constant bit rate in kbit/s, at most 320, and at most 160 at sample rates up to 24 kHz; LAME takes the
    /// nearest one that MP3 has.
    Constant(u16),
}

/// Sample format of a WAV file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WavSamples {
    /// 16-bit integers.
    Int16,
    /// 24-bit integers.
    Int24,
    /// 32-bit floating point: exact, and not clipped beyond full scale.
    Float32,
}

/// Sample format of a FLAC file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlacSamples {
    /// 16-bit integers.
    Int16,
    /// 24-bit integers.
    Int24,
}

impl OutputFormat {
    /// The usual file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav(_) => "wav",
            Self::Flac(_) => "flac",
            Self::Mp3(_) => "mp3",
        }
    }

    /// Checks that a file of this format can have a sample rate.
    ///
    /// # Errors
    /// If it cannot.
    pub(super) fn check_rate(self, rate_hz: u32) -> Result<(), AudioError> {
        let is_supported = match self {
            Self::Wav(_) => true,
            Self::Flac(_) => rate_hz <= MAX_FLAC_RATE_HZ,
            Self::Mp3(_) => MP3_RATES_HZ.contains(&rate_hz),
        };
        if is_supported {
            return Ok(());
        }
        let format = self.extension();
        Err(AudioError::OutputRate { format, rate_hz })
    }

    /// The largest positive sample that does not clip: 1 - 2^-(bits-1) for integers, which have one step
    /// fewer above zero than below it, and 1 for floating point and MP3.
    pub fn full_scale(self) -> f32 {
        match self {
            Self::Wav(WavSamples::Int16) | Self::Flac(FlacSamples::Int16) => 32_767.0 / 32_768.0,
            Self::Wav(WavSamples::Int24) | Self::Flac(FlacSamples::Int24) => 8_388_607.0 / 8_388_608.0,
            Self::Wav(WavSamples::Float32) | Self::Mp3(_) => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_a_format_cannot_have_is_refused_with_a_format_that_can() {
        let refused =
            |format: OutputFormat, rate_hz: u32| format.check_rate(rate_hz).unwrap_err().to_string();
        let mp3 = OutputFormat::Mp3(Mp3Bitrate::Variable);
        let flac = OutputFormat::Flac(FlacSamples::Int24);
        assert!(refused(mp3, 96_000).contains("mp3 cannot have a sample rate of 96000 Hz; fix: write wav"));
        assert!(refused(flac, 192_000).contains("flac"));
        for (format, rate_hz) in [
            (mp3, 48_000),
            (flac, 96_000),
            (OutputFormat::Wav(WavSamples::Int16), 1_536_000),
        ] {
            format.check_rate(rate_hz).unwrap();
        }
    }
}
