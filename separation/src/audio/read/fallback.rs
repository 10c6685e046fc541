//! Decides when a file that our own decoders refuse is passed to ffmpeg, and which of two reasons is reported
//! when neither decodes it.

use crate::audio::AudioError;
use crate::audio::ffmpeg::FfmpegError;

/// Whether ffmpeg is likely to decode a file that our own decoders refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FfmpegSupport {
    /// None: the file is damaged or contradicts itself in a way that no decoder repairs.
    None,
    /// ffmpeg may know the format.
    Possible,
    /// ffmpeg decodes this format.
    Likely,
}

impl FfmpegSupport {
    /// The support for a file refused with this error.
    pub(super) fn after(refusal: &AudioError) -> Self {
        match refusal {
            AudioError::Unsupported { .. } => Self::Likely,
            AudioError::Corrupt { .. } | AudioError::NotAudio { .. } => Self::Possible,
            _ => Self::None,
        }
    }
}

/// The error for a file that needs ffmpeg where ffmpeg is not installed.
pub(super) fn without_program(refusal: AudioError) -> AudioError {
    match refusal {
        AudioError::Unsupported { path, detail } => AudioError::NeedsFfmpeg { path, detail },
        other => other,
    }
}

/// The error for a file that neither decodes: the more specific of the two reasons, or both.
pub(super) fn neither(refusal: AudioError, ffmpeg_error: Option<FfmpegError>) -> AudioError {
    match (refusal, ffmpeg_error) {
        (refusal, None) => refusal,
        (
            AudioError::Unsupported { path, .. }
            | AudioError::Corrupt { path, .. }
            | AudioError::NotAudio { path, .. },
            Some(FfmpegError::NoTrack),
        ) => AudioError::NotAudio {
            path,
            detail: "it has no audio track".to_owned(),
        },
        (AudioError::NotAudio { path, .. }, Some(FfmpegError::Specific(detail))) => {
            AudioError::Ffmpeg { path, detail }
        }
        (
            AudioError::Unsupported { path, detail },
            Some(FfmpegError::Specific(line) | FfmpegError::Vague(line)),
        ) => AudioError::Ffmpeg {
            path,
            detail: format!("{detail}; {line}"),
        },
        (AudioError::Corrupt { path, detail }, Some(FfmpegError::Specific(line))) => AudioError::Corrupt {
            path,
            detail: format!("{detail}; ffmpeg: {line}"),
        },
        (refusal, Some(_)) => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specific(line: &str) -> Option<FfmpegError> {
        Some(FfmpegError::Specific(line.to_owned()))
    }

    #[test]
    fn our_own_reason_stays_where_ffmpeg_has_none() {
        let corrupt = || AudioError::Corrupt {
            path: "song".into(),
            detail: "it ends before its samples".to_owned(),
        };
        let vague = Some(FfmpegError::Vague("Invalid argument".to_owned()));
        let text = neither(corrupt(), vague.clone()).to_string();
        assert_eq!(text, "song is corrupt: it ends before its samples");
        let text = neither(corrupt(), specific("moov atom not found")).to_string();
        assert_eq!(
            text,
            "song is corrupt: it ends before its samples; ffmpeg: moov atom not found"
        );
        let unknown = AudioError::NotAudio {
            path: "song".into(),
            detail: "no known audio format".to_owned(),
        };
        assert_eq!(
            neither(unknown, vague).to_string(),
            "song is not audio: no known audio format"
        );
        let video = AudioError::NotAudio {
            path: "video".into(),
            detail: "no track of it can be read".to_owned(),
        };
        assert_eq!(
            neither(video, Some(FfmpegError::NoTrack)).to_string(),
            "video is not audio: it has no audio track"
        );
    }

    #[test]
    fn ffmpeg_is_recommended_only_where_it_decodes_such_files() {
        let unsupported = AudioError::Unsupported {
            path: "song".into(),
            detail: "it is WavPack".to_owned(),
        };
        assert_eq!(FfmpegSupport::after(&unsupported), FfmpegSupport::Likely);
        assert!(matches!(
            without_program(unsupported),
            AudioError::NeedsFfmpeg { .. }
        ));
        let corrupt = AudioError::Corrupt {
            path: "song".into(),
            detail: "it ends before its samples".to_owned(),
        };
        assert_eq!(FfmpegSupport::after(&corrupt), FfmpegSupport::Possible);
        assert!(matches!(without_program(corrupt), AudioError::Corrupt { .. }));
        let contradiction = AudioError::Contradiction {
            path: "song".into(),
            detail: "two widths".to_owned(),
        };
        assert_eq!(FfmpegSupport::after(&contradiction), FfmpegSupport::None);
    }
}
