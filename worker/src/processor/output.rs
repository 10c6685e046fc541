//! Format of the stems of a task.

use separation_contract::api_task::{AudioFormat, Output};

use crate::audio::{FlacSamples, Mp3Bitrate, OutputFormat, WavSamples};

/// The format of stems unless a task has its own.
pub(super) const DEFAULT_FORMAT: OutputFormat = OutputFormat::Wav(WavSamples::Int16);

/// The format of an output. `None` if its format cannot have its bit depth.
pub(super) fn stem_format(output: &Output) -> Option<OutputFormat> {
    Some(match (output.format, output.bit_depth) {
        (AudioFormat::Wav, None | Some(16)) => OutputFormat::Wav(WavSamples::Int16),
        (AudioFormat::Wav, Some(24)) => OutputFormat::Wav(WavSamples::Int24),
        (AudioFormat::Wav, Some(32)) => OutputFormat::Wav(WavSamples::Float32),
        (AudioFormat::Flac, None | Some(16)) => OutputFormat::Flac(FlacSamples::Int16),
        (AudioFormat::Flac, Some(24)) => OutputFormat::Flac(FlacSamples::Int24),
        (AudioFormat::Mp3, None) => OutputFormat::Mp3(Mp3Bitrate::Variable),
        _ => return None,
    })
}

/// The most bytes of one frame of both stems in a format. FLAC of noise is as large as WAV.
pub(super) fn bytes_per_frame(format: OutputFormat) -> u64 {
    let bytes_per_sample = match format {
        OutputFormat::Wav(WavSamples::Int16) | OutputFormat::Flac(FlacSamples::Int16) => 2,
        OutputFormat::Wav(WavSamples::Int24) | OutputFormat::Flac(FlacSamples::Int24) => 3,
        OutputFormat::Wav(WavSamples::Float32) => 4,
        // At most 320 kbit/s: 40,000 / 44,100 bytes for both channels.
        OutputFormat::Mp3(_) => return 2,
    };
    let (stems, channels) = (2, 2);
    stems * channels * bytes_per_sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_has_the_requested_bit_depth_or_is_refused() {
        let format = |format, bit_depth| {
            stem_format(&Output {
                format,
                bit_depth,
                ..Output::default()
            })
        };
        assert_eq!(stem_format(&Output::default()), Some(DEFAULT_FORMAT));
        assert_eq!(
            format(AudioFormat::Flac, Some(24)),
            Some(OutputFormat::Flac(FlacSamples::Int24))
        );
        assert_eq!(
            format(AudioFormat::Mp3, None),
            Some(OutputFormat::Mp3(Mp3Bitrate::Variable))
        );
        for (refused, bit_depth) in [
            (AudioFormat::Wav, 8),
            (AudioFormat::Flac, 32),
            (AudioFormat::Mp3, 16),
        ] {
            assert_eq!(format(refused, Some(bit_depth)), None, "{refused:?} {bit_depth}");
        }
    }
}
