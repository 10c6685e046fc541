//! What can go wrong between a file and its samples.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ErrorClass;

/// A failure to read, decode, encode or write audio.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file could not be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file could not be created, written or given its name.
    #[error("cannot write {path}")]
    Write {
        /// The file, or the directory of scratch space.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The content is no audio that we know.
    #[error("{path} is not audio: {detail}")]
    NotAudio {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// The content is audio of a kind that only ffmpeg decodes, and there is no ffmpeg.
    #[error("{path} can be decoded by ffmpeg only, which is not installed: {detail}; fix: install ffmpeg")]
    NeedsFfmpeg {
        /// The file.
        path: PathBuf,
        /// Why our own decoders do not take it.
        detail: String,
    },
    /// The ffmpeg program did not decode the file.
    #[error("ffmpeg could not decode {path}: {detail}")]
    Ffmpeg {
        /// The file.
        path: PathBuf,
        /// The last line that ffmpeg wrote, or what became of it.
        detail: String,
    },
    /// The container is known and what is inside is not decodable by us.
    #[error("{path} uses something we cannot decode: {detail}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it uses.
        detail: String,
    },
    /// The content gives two meanings to its samples, and nothing says which is right.
    #[error("{path} cannot be decoded without a guess: {detail}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        detail: String,
    },
    /// The content is damaged beyond use.
    #[error("{path} is corrupt: {detail}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        detail: String,
    },
    /// There is audio of no length inside.
    #[error("{path} holds no audio: its length is zero")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The sample rate cannot be converted.
    #[error(
        "{path} claims a sample rate of {rate_hz} Hz, outside what can be converted (1,000 to 1,536,000 Hz)"
    )]
    SampleRate {
        /// The file.
        path: PathBuf,
        /// The rate it claims.
        rate_hz: u32,
    },
    /// The channels cannot be mixed to stereo.
    #[error("{path} claims {channels} channels in no layout that can be mixed to stereo")]
    Channels {
        /// The file.
        path: PathBuf,
        /// The number it claims.
        channels: usize,
    },
    /// The audio is longer than the caller allows.
    #[error("{path} is longer than the limit of {} seconds", limit.as_secs_f64())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// An encoder refused samples that it should take.
    #[error("cannot encode {path}: {detail}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        detail: String,
    },
    /// The resampler refused samples that it should take.
    #[error("cannot convert {path} to 44.1 kHz: {detail}")]
    Resample {
        /// The file.
        path: PathBuf,
        /// What the resampler said.
        detail: String,
    },
    /// MP3 output was asked of a build without it.
    #[error("this build cannot write mp3: build it with the cargo feature `mp3` (LAME, under the LGPL)")]
    Mp3NotBuilt,
}

impl AudioError {
    /// What this failure says about trying again.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => class_of_io(source),
            Self::NotAudio { .. }
            | Self::NeedsFfmpeg { .. }
            | Self::Ffmpeg { .. }
            | Self::Unsupported { .. }
            | Self::Contradiction { .. }
            | Self::Corrupt { .. }
            | Self::Empty { .. }
            | Self::SampleRate { .. }
            | Self::Channels { .. }
            | Self::TooLong { .. }
            | Self::Mp3NotBuilt => ErrorClass::Permanent,
            Self::Encode { .. } | Self::Resample { .. } => ErrorClass::Bug,
        }
    }
}

/// Names and permissions stay as they are on another try; a full disk or a failing mount may not.
fn class_of_io(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidFilename => ErrorClass::Permanent,
        _ => ErrorClass::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resampler_that_fails_is_a_bug_in_reading_and_not_in_encoding() {
        let error = AudioError::Resample {
            path: "song.flac".into(),
            detail: "wrong number of frames".to_owned(),
        };
        assert_eq!(error.class(), ErrorClass::Bug);
        let expected = "cannot convert song.flac to 44.1 kHz: wrong number of frames";
        assert_eq!(error.to_string(), expected);
    }
}
