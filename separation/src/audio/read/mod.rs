//! Reads files of any known format.

mod aac;
mod bytes;
mod caf;
mod coded_pcm;
mod containers;
mod depth;
mod downmix;
mod edits;
mod encoder_tag;
mod fallback;
mod ffmpeg_in;
mod flac_streams;
mod frame_stream;
mod frames;
mod guard;
mod head;
mod matroska;
mod ogg;
mod outline;
mod packets;
mod quicktime_pcm;
mod raw;
mod section;
mod signatures;
mod sniff;
mod source;
mod tags;
mod wav_in;

pub use head::{FileHead, inspect_head};
pub use source::{
    FfmpegUse, FileSource, SourceInfo, SourceOptions, SourceReport, is_recognized, open, open_bytes,
};
