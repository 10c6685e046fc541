//! Errors between a file and its samples.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ErrorClass;

/// The reason when samples are narrower than their packets: some writers align them to the top, others to the
/// bottom.
pub(super) const UNCLEAR_WIDTH: &str = "its packets are larger than its samples";

/// A failure to read, decode, encode or write audio.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file could not be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file could not be created, written or renamed.
    #[error("cannot write {path}")]
    Write {
        /// The file, or the scratch directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content is not a known audio format.
    #[error("{path} is not audio: {detail}")]
    NotAudio {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// Only ffmpeg decodes this format, and ffmpeg is not installed.
    #[error("{path} can be decoded by ffmpeg only, which is not installed: {detail}; fix: install ffmpeg")]
    NeedsFfmpeg {
        /// The file.
        path: PathBuf,
        /// Why our own decoders refuse it.
        detail: String,
    },
    /// ffmpeg did not decode the file.
    #[error("ffmpeg could not decode {path}: {detail}")]
    Ffmpeg {
        /// The file.
        path: PathBuf,
        /// The last line that ffmpeg wrote, or its exit status.
        detail: String,
    },
    /// The container is known, its content is not supported.
    #[error("{path} uses something we cannot decode: {detail}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported codec or feature.
        detail: String,
    },
    /// The header gives two interpretations of the samples, and nothing decides between them.
    #[error("{path} is ambiguous and cannot be decoded: {detail}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The contradiction.
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
    /// The file has an audio track of length zero.
    #[error("{path} holds no audio: its length is zero")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The sample rate cannot be converted.
    #[error(
        "{path} declares a sample rate of {rate_hz} Hz, outside what can be converted (1,000 to 1,536,000 Hz)"
    )]
    SampleRate {
        /// The file.
        path: PathBuf,
        /// The declared rate.
        rate_hz: u32,
    },
    /// The channel layout cannot be mixed to stereo.
    #[error("{path} declares {channels} channels in a layout that cannot be mixed to stereo")]
    Channels {
        /// The file.
        path: PathBuf,
        /// The declared number.
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
    /// An encoder refused valid samples.
    #[error("cannot encode {path}: {detail}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's message.
        detail: String,
    },
    /// The resampler refused valid samples.
    #[error("cannot convert {path} to 44.1 kHz: {detail}")]
    Resample {
        /// The file.
        path: PathBuf,
        /// The resampler's message.
        detail: String,
    },
    /// MP3 cannot be written without ffmpeg.
    #[error(
        "mp3 is written by the ffmpeg program, which is not installed; fix: install ffmpeg, or write flac"
    )]
    Mp3NeedsFfmpeg,
    /// The installed ffmpeg cannot write MP3.
    #[error(
        "the installed ffmpeg cannot write mp3: it has no encoder libmp3lame; fix: install an ffmpeg with it, or \
        write flac"
    )]
    Mp3NeedsLame,
    /// ffmpeg did not encode the file.
    #[error("ffmpeg could not write {path}: {detail}")]
    FfmpegEncode {
        /// The file.
        path: PathBuf,
        /// The most specific line that ffmpeg wrote, or its exit status.
        detail: String,
    },
    /// Files of this format cannot have this sample rate.
    #[error("{format} cannot have a sample rate of {rate_hz} Hz; fix: write wav, or at 44.1 kHz")]
    OutputRate {
        /// Extension of the format.
        format: &'static str,
        /// The sample rate in Hz.
        rate_hz: u32,
    },
}

/// Constructors that copy the path; those without a detail return one for `map_err`.
impl AudioError {
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn encode<E: Display>(path: &Path) -> impl Fn(E) -> Self {
        move |error| Self::Encode {
            path: path.to_owned(),
            detail: error.to_string(),
        }
    }

    pub(super) fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        let (path, detail) = (path.to_owned(), detail.into());
        Self::Corrupt { path, detail }
    }

    pub(super) fn unsupported(path: &Path, detail: impl Into<String>) -> Self {
        let (path, detail) = (path.to_owned(), detail.into());
        Self::Unsupported { path, detail }
    }

    pub(super) fn contradiction(path: &Path, detail: impl Into<String>) -> Self {
        let (path, detail) = (path.to_owned(), detail.into());
        Self::Contradiction { path, detail }
    }

    pub(super) fn not_audio(path: &Path, detail: impl Into<String>) -> Self {
        let (path, detail) = (path.to_owned(), detail.into());
        Self::NotAudio { path, detail }
    }

    pub(super) fn empty(path: &Path) -> Self {
        Self::Empty {
            path: path.to_owned(),
        }
    }

    pub(super) fn channels(path: &Path, channels: usize) -> Self {
        Self::Channels {
            path: path.to_owned(),
            channels,
        }
    }

    pub(super) fn too_long(path: &Path, limit: Duration) -> Self {
        Self::TooLong {
            path: path.to_owned(),
            limit,
        }
    }
}

impl AudioError {
    /// Whether a retry may succeed.
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
            | Self::Mp3NeedsFfmpeg
            | Self::Mp3NeedsLame
            | Self::FfmpegEncode { .. }
            | Self::OutputRate { .. } => ErrorClass::Permanent,
            Self::Encode { .. } | Self::Resample { .. } => ErrorClass::Bug,
        }
    }
}

/// A retry does not change names and permissions; a full disk or a failing mount may recover.
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
