//! What is known about a file before a reader is created: where it ends, and which track is read.

use std::io;

use symphonia::core::io::MediaSource;

use super::edits::{self, Trim};
use super::matroska;
use super::sniff::{Container, Sniffed};
use super::tags;

/// Index of the default audio track, from 0.
pub(super) fn default_track_index(input: &mut Box<dyn MediaSource>, sniffed: Sniffed) -> io::Result<usize> {
    Ok(Outline::read(input, sniffed)?.track_index)
}

/// What is known about a file before a reader is created.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outline {
    /// Where its last byte is, or would be if the file was not cut off.
    pub(super) end: u64,
    pub(super) track_id: Option<u32>,
    /// Index among the audio tracks, from 0.
    track_index: usize,
    pub(super) trim: Option<Trim>,
    /// Whether the file has no index of its packets.
    pub(super) is_without_index: bool,
    /// Whether its last box or element extends past the end of the file.
    pub(super) is_cut_off: bool,
}

impl Outline {
    pub(super) fn read(input: &mut Box<dyn MediaSource>, sniffed: Sniffed) -> io::Result<Self> {
        let mut outline = Self {
            end: input.seek(io::SeekFrom::End(0))?,
            track_id: None,
            track_index: 0,
            trim: None,
            is_without_index: false,
            is_cut_off: false,
        };
        let file_end = outline.end;
        match sniffed.container {
            Container::Mp4 => {
                if let Some(layout) = edits::layout(input) {
                    outline.end = layout.end;
                    outline.is_without_index = !layout.has_index;
                    outline.track_id = layout.sound.map(|sound| sound.id);
                    outline.track_index = layout.sound.map_or(0, |sound| sound.index);
                    outline.trim = layout.sound.and_then(|sound| sound.trim);
                }
            }
            Container::Matroska => {
                if let Some(layout) = matroska::layout(input) {
                    outline.end = layout.end;
                    outline.track_id = layout.track.map(|track| track.number);
                    outline.track_index = layout.track.map_or(0, |track| track.index);
                }
            }
            // Frame readers would treat a trailing tag as part of the last frame.
            Container::Flac | Container::Mpeg | Container::Adts => outline.end = tags::end_of_audio(input)?,
            _ => {}
        }
        outline.is_cut_off = outline.end > file_end;
        Ok(outline)
    }
}
