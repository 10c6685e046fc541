//! Format and sample rate of a song's stems.

use crate::audio::{FlacSamples, OutputFormat, SAMPLE_RATE_HZ, SourceInfo, WavSamples};

/// Format of stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StemFormat {
    /// The same for every song.
    Fixed(OutputFormat),
    /// WAV with the song's bit depth; 16 bits for songs without one.
    WavOfSongDepth,
    /// FLAC with the song's bit depth, at most 24 bits; 16 bits for songs without one.
    FlacOfSongDepth,
}

/// Sample rate of stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StemRate {
    /// 44.1 kHz, at which songs are separated.
    Fixed,
    /// The song's own rate. Stems are converted to it and have the song's length in frames.
    Song,
}

impl StemFormat {
    /// The usual file name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Fixed(format) => format.extension(),
            Self::WavOfSongDepth => "wav",
            Self::FlacOfSongDepth => "flac",
        }
    }

    /// The format of the stems of a song.
    pub(super) fn for_song(self, song: &SourceInfo) -> OutputFormat {
        let depth = song.depth.unwrap_or(WavSamples::Int16);
        match (self, depth) {
            (Self::Fixed(format), _) => format,
            (Self::WavOfSongDepth, depth) => OutputFormat::Wav(depth),
            (Self::FlacOfSongDepth, WavSamples::Int16) => OutputFormat::Flac(FlacSamples::Int16),
            (Self::FlacOfSongDepth, _) => OutputFormat::Flac(FlacSamples::Int24),
        }
    }
}

impl StemRate {
    /// The sample rate of the stems of a song, in Hz.
    pub(super) fn for_song(self, song: &SourceInfo) -> u32 {
        match self {
            Self::Fixed => SAMPLE_RATE_HZ,
            Self::Song => song.rate_hz,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_of_a_song_decides_only_on_request_and_flac_has_24_bits_at_most() {
        let check = |format: StemFormat, depth: Option<WavSamples>, expected: OutputFormat| {
            let song = SourceInfo {
                format: "wav".to_owned(),
                via_ffmpeg: false,
                rate_hz: 48_000,
                channels: 2,
                depth,
                expected_frames: None,
            };
            assert_eq!(format.for_song(&song), expected, "{format:?} {depth:?}");
        };
        let (wav, flac) = (StemFormat::WavOfSongDepth, StemFormat::FlacOfSongDepth);
        let fixed = OutputFormat::Wav(WavSamples::Int16);
        check(StemFormat::Fixed(fixed), Some(WavSamples::Float32), fixed);
        check(wav, None, OutputFormat::Wav(WavSamples::Int16));
        check(
            wav,
            Some(WavSamples::Float32),
            OutputFormat::Wav(WavSamples::Float32),
        );
        check(flac, None, OutputFormat::Flac(FlacSamples::Int16));
        check(
            flac,
            Some(WavSamples::Int24),
            OutputFormat::Flac(FlacSamples::Int24),
        );
        check(
            flac,
            Some(WavSamples::Float32),
            OutputFormat::Flac(FlacSamples::Int24),
        );
    }
}
