//! The codes that the HTTP API v1 reports for songs that could not be separated.

use separation_contract::api_task::FailureCode;

use crate::audio::AudioError;
use crate::engine::SeparateError;
use crate::song::SongError;

/// The code of an error; `None` if its class decides.
pub(super) fn failure_code(error: &SongError) -> Option<FailureCode> {
    match error {
        SongError::Open(error) | SongError::Separate(SeparateError::Source(error)) => input_code(error),
        SongError::Separate(SeparateError::Empty) => Some(FailureCode::InputUnreadable),
        _ => None,
    }
}

fn input_code(error: &AudioError) -> Option<FailureCode> {
    match error {
        AudioError::TooLong { .. } => Some(FailureCode::InputTooLong),
        AudioError::NotAudio { .. }
        | AudioError::NeedsFfmpeg { .. }
        | AudioError::Ffmpeg { .. }
        | AudioError::Unsupported { .. }
        | AudioError::Contradiction { .. }
        | AudioError::Corrupt { .. }
        | AudioError::Empty { .. }
        | AudioError::SampleRate { .. }
        | AudioError::Channels { .. } => Some(FailureCode::InputUnreadable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_errors_of_the_song_have_a_code_of_the_input() {
        let path = || "song.wav".into();
        let corrupt = || AudioError::Corrupt {
            path: path(),
            detail: "no samples".to_owned(),
        };
        let too_long = AudioError::TooLong {
            path: path(),
            limit: Duration::from_secs(1),
        };
        let unreadable = AudioError::Read {
            path: path(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        for (error, code) in [
            (SongError::Open(too_long), Some(FailureCode::InputTooLong)),
            (SongError::Open(corrupt()), Some(FailureCode::InputUnreadable)),
            (
                SongError::Separate(SeparateError::Source(corrupt())),
                Some(FailureCode::InputUnreadable),
            ),
            (SongError::Open(unreadable), None),
            (SongError::Encode(corrupt()), None),
        ] {
            assert_eq!(failure_code(&error), code, "{error}");
        }
    }
}
