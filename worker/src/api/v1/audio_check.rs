//! Checks a song by its first bytes, before it is stored: whether it is audio, and its length.
//!
//! Refuses only what the first bytes show. The processor decodes the complete song and decides about the rest.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use crate::audio::{FileHead, inspect_head};

/// Bytes that are checked: enough for the headers of all formats, except tags with large images.
const HEAD_BYTES: usize = 256 * 1024;

/// A song whose first bytes are acceptable.
pub(super) struct CheckedSong<'s, E> {
    /// Its length, if its header declares it.
    pub(super) duration: Option<Duration>,
    /// The complete song.
    pub(super) song: BoxStream<'s, Result<Bytes, E>>,
}

/// Why a song is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnacceptableSong {
    /// Its content is not audio.
    #[error("the file is not audio: {0}")]
    NotAudio(String),
    /// Its header declares a length above the limit.
    #[error("the song is {seconds} s long; the limit is {limit_seconds} s")]
    TooLong {
        /// Its length, rounded up.
        seconds: u64,
        /// The limit.
        limit_seconds: u64,
    },
}

/// Checks the first bytes of `song`. Holds no more of it than these and one piece.
pub(super) async fn check<'s, E>(
    mut song: BoxStream<'s, Result<Bytes, E>>,
    limit_seconds: u64,
) -> Result<CheckedSong<'s, E>, E>
where
    E: From<UnacceptableSong> + Send + 's,
{
    let (mut head, mut pieces) = (Vec::new(), Vec::new());
    let mut is_complete = false;
    while head.len() < HEAD_BYTES && !is_complete {
        match song.next().await {
            Some(piece) => {
                let piece = piece?;
                head.extend_from_slice(&piece);
                pieces.push(Ok(piece));
            }
            None => is_complete = true,
        }
    }
    // Not on a thread of the runtime: it decodes the first frames.
    let inspected = tokio::task::spawn_blocking(move || inspect_head(&head, is_complete)).await;
    let duration = match inspected.unwrap_or(FileHead::MaybeAudio { duration: None }) {
        FileHead::NotAudio(reason) => return Err(UnacceptableSong::NotAudio(reason).into()),
        FileHead::MaybeAudio { duration } => duration,
    };
    if let Some(duration) = duration
        && duration > Duration::from_secs(limit_seconds)
    {
        let seconds = duration.as_secs_f64().ceil() as u64;
        return Err(UnacceptableSong::TooLong {
            seconds,
            limit_seconds,
        }
        .into());
    }
    let rest = match is_complete {
        true => stream::empty().boxed(),
        false => song,
    };
    Ok(CheckedSong {
        duration,
        song: stream::iter(pieces).chain(rest).boxed(),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    /// 16-bit mono at 8 kHz whose header declares `seconds`.
    fn wav(seconds: u32, bytes: usize) -> Vec<u8> {
        let data_bytes = seconds * 16_000;
        let mut file = b"RIFF".to_vec();
        file.extend((data_bytes + 36).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
        file.extend(data_bytes.to_le_bytes());
        file.extend(vec![0; bytes]);
        file
    }

    async fn check_in_pieces(file: &[u8]) -> Result<(Option<Duration>, Vec<u8>), UnacceptableSong> {
        let pieces = file.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let pieces: Vec<Result<Bytes, UnacceptableSong>> = pieces.collect();
        let checked = check(stream::iter(pieces).boxed(), 60).await?;
        let pieces: Vec<Bytes> = checked.song.try_collect().await?;
        Ok((checked.duration, pieces.concat()))
    }

    #[tokio::test]
    async fn a_song_that_passes_is_complete() {
        for file in [wav(59, 900_000), wav(59, 59 * 16_000), wav(2, 1_000)] {
            let (duration, checked) = check_in_pieces(&file).await.expect("audio");
            assert!(duration.is_some_and(|duration| duration <= Duration::from_secs(59)));
            assert!(checked == file, "{} of {} bytes", checked.len(), file.len());
        }
    }

    #[tokio::test]
    async fn what_the_first_bytes_show_is_refused() {
        let refused = |result: Result<(Option<Duration>, Vec<u8>), _>| result.expect_err("unacceptable");
        let text = refused(check_in_pieces(b"<!doctype html><html>").await);
        assert!(matches!(text, UnacceptableSong::NotAudio(_)), "{text:?}");
        let empty = refused(check_in_pieces(b"").await);
        assert!(matches!(empty, UnacceptableSong::NotAudio(_)), "{empty:?}");
        let long = refused(check_in_pieces(&wav(61, 600_000)).await);
        assert_eq!(long.to_string(), "the song is 61 s long; the limit is 60 s");
    }
}
