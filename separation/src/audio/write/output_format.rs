//! Output formats of stems.

/// An output format, always stereo at 44.1 kHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// WAV; RF64 beyond 4 GiB.
    Wav(WavSamples),
    /// FLAC.
    Flac(FlacSamples),
    /// MP3 by LAME at its best variable bit rate (V0); only in builds with the feature `mp3`.
    Mp3,
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
            Self::Mp3 => "mp3",
        }
    }

    /// The largest positive sample that does not clip: 1 - 2^-(bits-1) for integers, which have one step
    /// fewer above zero than below it, and 1 for floating point and MP3.
    pub fn full_scale(self) -> f32 {
        match self {
            Self::Wav(WavSamples::Int16) | Self::Flac(FlacSamples::Int16) => 32_767.0 / 32_768.0,
            Self::Wav(WavSamples::Int24) | Self::Flac(FlacSamples::Int24) => 8_388_607.0 / 8_388_608.0,
            Self::Wav(WavSamples::Float32) | Self::Mp3 => 1.0,
        }
    }
}
