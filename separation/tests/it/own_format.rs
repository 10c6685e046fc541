//! The bit depth and the length of a file at its own rate, by which stems can have the format of their song.

use std::path::PathBuf;

use separation::audio::{
    FfmpegUse, SourceOptions, StereoBlock, StereoSource as _, WavSamples, is_recognized, open,
};

use crate::support::encode;

/// Encodes a file without an extension.
fn file(directory: &tempfile::TempDir, arguments: &str) -> PathBuf {
    let path = directory.path().join("song");
    std::fs::write(&path, encode(arguments)).unwrap();
    path
}

fn check(arguments: &str, ffmpeg: FfmpegUse, expected: Option<WavSamples>) {
    let directory = tempfile::tempdir().unwrap();
    let options = SourceOptions {
        ffmpeg,
        ..SourceOptions::default()
    };
    let source = open(&file(&directory, arguments), &options).unwrap();
    assert_eq!(source.info().depth, expected, "{arguments}");
}

#[test]
fn the_bit_depth_of_a_lossless_file_is_found_and_a_lossy_one_has_none() {
    let alone = |arguments: &str, expected: WavSamples| {
        check(arguments, FfmpegUse::Forbidden, Some(expected));
    };
    alone("-c:a pcm_u8 -f wav", WavSamples::Int16);
    alone("-c:a pcm_s24le -f wav", WavSamples::Int24);
    alone("-c:a pcm_s32le -f wav", WavSamples::Float32);
    alone("-c:a pcm_mulaw -f wav", WavSamples::Int16);
    alone("-c:a flac -sample_fmt s16 -f flac", WavSamples::Int16);
    alone("-c:a flac -sample_fmt s32 -f flac", WavSamples::Int24);
    alone("-c:a flac -sample_fmt s32 -f ogg", WavSamples::Int24);
    alone("-c:a flac -sample_fmt s32 -f matroska", WavSamples::Int24);
    alone("-c:a alac -sample_fmt s16p -f ipod", WavSamples::Int16);
    alone("-c:a alac -sample_fmt s32p -f ipod", WavSamples::Int24);
    alone("-c:a alac -sample_fmt s32p -f caf", WavSamples::Int24);
    alone("-c:a pcm_s24be -f aiff", WavSamples::Int24);
    alone("-c:a pcm_f32be -f aiff", WavSamples::Float32);
    alone("-c:a pcm_s16be -f caf", WavSamples::Int16);
    alone("-c:a pcm_s24be -f mov", WavSamples::Int24);
    for lossy in [
        "-c:a libmp3lame -f mp3",
        "-c:a libvorbis -f ogg",
        "-c:a libopus -f webm",
        "-c:a aac -f ipod",
        "-c:a adpcm_ima_wav -f wav",
    ] {
        check(lossy, FfmpegUse::Forbidden, None);
    }
    let by_ffmpeg = "-c:a wavpack -sample_fmt s16p -f wv";
    check(by_ffmpeg, FfmpegUse::Allowed, Some(WavSamples::Int24));
}

#[test]
fn frames_of_a_file_are_counted_at_its_own_rate_unless_the_rate_changes() {
    let count = |bytes: Vec<u8>| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song");
        std::fs::write(&path, bytes).unwrap();
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        let mut block = StereoBlock::default();
        while source.read(&mut block).is_ok() && !block.is_empty() {}
        source.file_frames()
    };
    let flac = |rate_hz: u32| encode(&format!("-t 2 -ar {rate_hz} -c:a flac -f flac"));
    assert_eq!(count(flac(96_000)), Some(192_000));
    assert_eq!(count([flac(48_000), flac(48_000)].concat()), Some(192_000));
    assert_eq!(count([flac(48_000), flac(44_100)].concat()), None);
}

#[test]
fn songs_without_an_extension_are_recognized_and_other_files_are_not() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        "-c:a flac -f flac",
        "-c:a libmp3lame -f mp3",
        "-c:a wavpack -f wv",
    ] {
        assert!(
            is_recognized(&file(&directory, arguments)).unwrap(),
            "{arguments}"
        );
    }
    let other = directory.path().join("song.mp3");
    for content in [&b"notes, not a song\n"[..], b"", b"\x89PNG\r\n\x1a\n"] {
        std::fs::write(&other, content).unwrap();
        assert!(!is_recognized(&other).unwrap());
    }
    assert!(!is_recognized(directory.path()).unwrap());
}
