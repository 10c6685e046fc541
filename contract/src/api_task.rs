//! Fields that the HTTP API v1 adds to the messages of its tasks. Other implementations ignore them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A task of the HTTP API v1: the field `v1` of tasks and results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTask {
    /// Name of the API key that it was posted with.
    pub client: String,
    /// The requested stems.
    pub output: Output,
}

/// The requested stems and their format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Format of the stems.
    pub format: AudioFormat,
    /// Bits per sample; none for formats without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bit_depth: Option<u8>,
    /// The stems to store, at least one.
    pub stems: Vec<StemKind>,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            format: AudioFormat::Wav,
            bit_depth: Some(16),
            stems: vec![StemKind::Vocals, StemKind::Instrumental],
        }
    }
}

/// Format of stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioFormat {
    /// WAV.
    Wav,
    /// FLAC.
    Flac,
    /// MP3.
    Mp3,
}

impl AudioFormat {
    /// Extension of file names, without a dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Mp3 => "mp3",
        }
    }

    /// The MIME type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Flac => "audio/flac",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// A stem of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StemKind {
    /// The voices.
    Vocals,
    /// Everything else.
    Instrumental,
}

impl StemKind {
    /// Both stems, in the order of responses.
    pub const ALL: [Self; 2] = [Self::Vocals, Self::Instrumental];

    /// The name, as in URLs and file names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vocals => "vocals",
            Self::Instrumental => "instrumental",
        }
    }

    /// The stem with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stem| stem.as_str() == name)
    }
}

impl fmt::Display for StemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a task failed: the field `error_code` of results and `error.code` of the API. Later versions may add codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The file is not audio, or is damaged.
    InputUnreadable,
    /// The song is longer than the limit.
    InputTooLong,
    /// The link or the upload could not be fetched.
    InputFetchFailed,
    /// The song was deleted before it was separated.
    InputMissing,
    /// The song ended several workers.
    WorkerCrashed,
    /// The task took longer than its deadline.
    TimedOut,
    /// No worker processed the task.
    NotProcessed,
    /// An error of this service.
    #[serde(other)]
    Internal,
}

impl FailureCode {
    const ALL: [Self; 8] = [
        Self::InputUnreadable,
        Self::InputTooLong,
        Self::InputFetchFailed,
        Self::InputMissing,
        Self::WorkerCrashed,
        Self::TimedOut,
        Self::NotProcessed,
        Self::Internal,
    ];

    /// The code, as in messages and responses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InputUnreadable => "input_unreadable",
            Self::InputTooLong => "input_too_long",
            Self::InputFetchFailed => "input_fetch_failed",
            Self::InputMissing => "input_missing",
            Self::WorkerCrashed => "worker_crashed",
            Self::TimedOut => "timed_out",
            Self::NotProcessed => "not_processed",
            Self::Internal => "internal",
        }
    }

    /// The code with this text; unknown ones are [`Self::Internal`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let known = Self::ALL.into_iter().find(|code| code.as_str() == text);
        known.unwrap_or(Self::Internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_parsed_as_they_are_written() {
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::parse(code.as_str()), code);
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
        assert_eq!(FailureCode::parse("of a later version"), FailureCode::Internal);
    }

    #[test]
    fn a_task_is_parsed_as_it_is_written() {
        let json = r#"{"client":"acme","output":{"format":"flac","bit_depth":24,"stems":["vocals"]}}"#;
        let task: ApiTask = serde_json::from_str(json).unwrap();
        assert_eq!(task.output.format, AudioFormat::Flac);
        assert_eq!(serde_json::to_string(&task).unwrap(), json);
    }
}
