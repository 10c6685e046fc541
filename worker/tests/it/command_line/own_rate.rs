//! Stems at the song's own sample rate and bit depth.

use std::path::{Path, PathBuf};

use separation_worker::audio::{
    self, FlacSamples, OutputFormat, SourceInfo, SourceOptions, WavSamples, create_at_rate,
};

use super::{Bench, SECOND, check_failed, errors, max_error_of_sum, read, tones};
use crate::formats::read_all;

const OWN: [&str; 4] = ["--rate", "keep", "--bit-depth", "keep"];

/// A song of this many frames.
fn song(bench: &Bench, format: OutputFormat, rate_hz: u32, frames: usize) -> PathBuf {
    let path = bench.path("song").with_extension(format.extension());
    let mut sink = create_at_rate(&path, format, rate_hz).unwrap();
    sink.write(&tones(frames, 0.4)).unwrap();
    sink.finish().unwrap().publish().unwrap();
    path
}

/// The format of a file, and its length in frames at its own rate.
fn inspect(path: &Path) -> (SourceInfo, u64) {
    let mut source = audio::open(path, &SourceOptions::default()).unwrap();
    read_all(&mut source);
    (source.info().clone(), source.file_frames().unwrap())
}

/// Separates a song and checks that its stems have its rate and length, and the sample format `expected`.
fn check(song_format: OutputFormat, rate_hz: u32, stem_format: &str, expected: WavSamples) {
    let bench = Bench::new();
    let frames = 2 * rate_hz as usize + 1;
    let song = song(&bench, song_format, rate_hz, frames);
    let output = bench.separate(&[&song], &[&OWN[..], &["--format", stem_format]].concat());
    assert!(output.status.success(), "{}", errors(&output));
    let stem = |name: &str| bench.path(&format!("stems/song_{name}.{stem_format}"));
    let stems = ["vocals", "instrumental"].map(|name| {
        let (info, stem_frames) = inspect(&stem(name));
        assert_eq!((info.rate_hz, info.depth), (rate_hz, Some(expected)));
        assert_eq!(stem_frames, frames as u64, "{rate_hz}");
        read(&stem(name))
    });
    // The conversions differ where the tones begin and end.
    let middle = 2_000..2 * SECOND - 2_000;
    let error = max_error_of_sum(&read(&song), [&stems[0], &stems[1]], middle);
    assert!(error < 1e-3, "{rate_hz}: {error}");
}

#[test]
fn stems_have_the_songs_rate_length_and_bit_depth() {
    let wav = OutputFormat::Wav;
    check(wav(WavSamples::Int24), 48_000, "wav", WavSamples::Int24);
    check(wav(WavSamples::Float32), 96_000, "wav", WavSamples::Float32);
    check(wav(WavSamples::Float32), 96_000, "flac", WavSamples::Int24);
    check(wav(WavSamples::Int16), 22_050, "flac", WavSamples::Int16);
    let flac = OutputFormat::Flac(FlacSamples::Int24);
    check(flac, 48_000, "wav", WavSamples::Int24);
    check(flac, 44_100, "flac", WavSamples::Int24);
}

#[test]
fn stems_have_44_1_khz_and_16_bits_otherwise() {
    let bench = Bench::new();
    let song = song(&bench, OutputFormat::Wav(WavSamples::Int24), 48_000, 48_000);
    assert!(bench.separate(&[&song], &[]).status.success());
    let (info, frames) = inspect(&bench.path("stems/song_vocals.wav"));
    assert_eq!((info.rate_hz, info.depth), (44_100, Some(WavSamples::Int16)));
    assert_eq!(frames, 44_100);
}

#[test]
fn a_rate_that_the_format_cannot_have_is_an_error_with_the_fix() {
    let bench = Bench::new();
    let check = |rate_hz: u32, format: &str| {
        let song = song(&bench, OutputFormat::Wav(WavSamples::Int16), rate_hz, 10_000);
        let output = bench.separate(&[&song], &["--rate", "keep", "--format", format]);
        check_failed(
            &output,
            &[
                &format!("{format} cannot have"),
                &rate_hz.to_string(),
                "fix: write wav",
            ],
        );
        assert!(bench.stems().is_empty());
    };
    check(192_000, "flac");
    check(96_000, "mp3");
}

#[test]
fn scaled_stems_do_not_clip_after_their_conversion() {
    let bench = Bench::new();
    let path = bench.path("loud.wav");
    let mut sink = create_at_rate(&path, OutputFormat::Wav(WavSamples::Float32), 96_000).unwrap();
    sink.write(&tones(192_000, 2.0)).unwrap();
    sink.finish().unwrap().publish().unwrap();
    let options = ["--json", "--rate", "keep", "--normalize", "peak"];
    let report = super::reports(&bench.separate(&[&path], &options)).remove(0);
    assert_eq!(report["clipped_samples"]["vocals"], 0);
    assert_eq!(report["clipped_samples"]["instrumental"], 0);
}
