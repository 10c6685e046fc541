//! Every format of `docs/formats.md`, encoded by ffmpeg from one deterministic source and read back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use separation_worker::audio::{
    FfmpegUse, FileSource, FlacSamples, OutputFormat, SinkReport, SourceOptions, StereoBlock, StereoSource,
    WavSamples, create, open, open_bytes,
};

/// 2.27 s; not a multiple of any codec's frame size or of a block.
const FRAMES: usize = 100_003;

/// An input format.
struct Row {
    name: &'static str,
    /// ffmpeg's arguments between input and output.
    encode: &'static str,
    /// The format name in `info`.
    format: &'static str,
    via: Via,
    length: Length,
    /// Frames by which the audio is later than in the source; negative if its beginning is lost.
    lag: isize,
    /// Frames by which the expected length may be too great.
    hint_slack: u64,
    min_snr_db: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Via {
    Ourselves,
    Ffmpeg,
}

#[derive(Clone, Copy)]
enum Length {
    Exact,
    /// The format does not store the exact length: up to this many frames may follow.
    AtMostMore(usize),
}

const fn row(name: &'static str, encode: &'static str, format: &'static str, min_snr_db: f64) -> Row {
    Row {
        name,
        encode,
        format,
        via: Via::Ourselves,
        length: Length::Exact,
        lag: 0,
        hint_slack: 0,
        min_snr_db,
    }
}

const fn by_ffmpeg(
    name: &'static str,
    encode: &'static str,
    length: Length,
    lag: isize,
    min_snr_db: f64,
) -> Row {
    Row {
        name,
        encode,
        format: "ffmpeg",
        via: Via::Ffmpeg,
        length,
        lag,
        hint_slack: 0,
        min_snr_db,
    }
}

const ROWS: &[Row] = &[
    row("wav_u8", "-c:a pcm_u8 -f wav", "wav", 35.0),
    row("wav_s16", "-c:a pcm_s16le -f wav", "wav", 80.0),
    row("wav_s24", "-c:a pcm_s24le -f wav", "wav", 125.0),
    row("wav_s32", "-c:a pcm_s32le -f wav", "wav", 130.0),
    row("wav_f32", "-c:a pcm_f32le -f wav", "wav", f64::INFINITY),
    row("wav_f64", "-c:a pcm_f64le -f wav", "wav", f64::INFINITY),
    row(
        "wav_rf64",
        "-c:a pcm_f32le -rf64 always -f wav",
        "wav",
        f64::INFINITY,
    ),
    row("wav_mulaw", "-c:a pcm_mulaw -f wav", "wav", 30.0),
    Row {
        length: Length::AtMostMore(2_048),
        ..row("wav_adpcm", "-c:a adpcm_ima_wav -f wav", "wav", 20.0)
    },
    row("flac_16", "-c:a flac -sample_fmt s16 -f flac", "flac", 80.0),
    row("flac_24", "-c:a flac -sample_fmt s32 -f flac", "flac", 125.0),
    row("flac_ogg", "-c:a flac -sample_fmt s16 -f ogg", "flac", 80.0),
    row("mp3_cbr", "-c:a libmp3lame -b:a 320k -f mp3", "mp3", 20.0),
    row("mp3_vbr", "-c:a libmp3lame -q:a 0 -f mp3", "mp3", 20.0),
    row(
        "mp3_tagged",
        "-c:a libmp3lame -b:a 320k -id3v2_version 3 -metadata title=x COVER -f mp3",
        "mp3",
        20.0,
    ),
    Row {
        length: Length::AtMostMore(2 * 1_152),
        lag: 1_105,
        ..row(
            "mp3_untagged",
            "-c:a libmp3lame -b:a 320k -write_xing 0 -id3v2_version 0 -f mp3",
            "mp3",
            20.0,
        )
    },
    Row {
        length: Length::AtMostMore(2 * 1_152),
        lag: 481,
        ..row("mp2", "-c:a mp2 -b:a 384k -f mp2", "mp2", 20.0)
    },
    row("ogg_vorbis", "-c:a libvorbis -q:a 9 -f ogg", "ogg vorbis", 20.0),
    row("ogg_opus", "-c:a libopus -b:a 320k -f ogg", "opus", 20.0),
    row("m4a_aac", "-c:a aac -b:a 320k -f ipod", "aac", 20.0),
    row(
        "m4a_aac_tagged",
        "-c:a aac -b:a 320k -metadata title=x COVER -movflags faststart -f ipod",
        "aac",
        20.0,
    ),
    Row {
        length: Length::AtMostMore(2 * 1_024),
        lag: 1_024,
        ..row("adts_aac", "-c:a aac -b:a 320k -f adts", "aac", 20.0)
    },
    row("m4a_alac", "-c:a alac -sample_fmt s32p -f ipod", "alac", 125.0),
    // ffmpeg counts the last packet as a full one.
    Row {
        hint_slack: 4_095,
        ..row("caf_alac", "-c:a alac -sample_fmt s16p -f caf", "alac", 80.0)
    },
    row("caf_s16", "-c:a pcm_s16be -f caf", "caf", 80.0),
    row("caf_f32", "-c:a pcm_f32le -f caf", "caf", f64::INFINITY),
    row("aiff_s16", "-c:a pcm_s16be -f aiff", "aiff", 80.0),
    row("aiff_s24", "-c:a pcm_s24be -f aiff", "aiff", 125.0),
    row("aifc_f32", "-c:a pcm_f32be -f aiff", "aiff", f64::INFINITY),
    row("mkv_flac", "-c:a flac -sample_fmt s16 -f matroska", "flac", 80.0),
    Row {
        length: Length::AtMostMore(960),
        ..row("webm_opus", "-c:a libopus -b:a 320k -f webm", "opus", 20.0)
    },
    by_ffmpeg(
        "wavpack",
        "-c:a wavpack -sample_fmt s16p -f wv",
        Length::Exact,
        0,
        80.0,
    ),
    by_ffmpeg("tta", "-c:a tta -sample_fmt s16 -f tta", Length::Exact, 0, 80.0),
    by_ffmpeg(
        "wma",
        "-c:a wmav2 -b:a 320k -f asf",
        Length::AtMostMore(3 * 2_048),
        -2_048,
        15.0,
    ),
    by_ffmpeg(
        "ac3",
        "-c:a ac3 -b:a 448k -f ac3",
        Length::AtMostMore(2 * 1_536),
        256,
        20.0,
    ),
    by_ffmpeg(
        "eac3_mkv",
        "-c:a eac3 -b:a 448k -f matroska",
        Length::AtMostMore(2 * 1_536),
        256,
        20.0,
    ),
];

/// Chords with a slow swell, different in both channels, below 6 kHz so that every codec preserves them.
fn source() -> StereoBlock {
    let voice = |n: usize, tones: [f64; 4]| {
        let time = n as f64 / 44_100.0;
        let swell = 0.6 + 0.4 * (std::f64::consts::TAU * 1.3 * time).sin();
        let sum: f64 = tones
            .iter()
            .map(|hz| (std::f64::consts::TAU * hz * time + hz).sin())
            .sum();
        (0.15 * swell * sum) as f32
    };
    StereoBlock {
        left: (0..FRAMES)
            .map(|n| voice(n, [220.0, 331.0, 1_470.0, 5_210.0]))
            .collect(),
        right: (0..FRAMES)
            .map(|n| voice(n, [247.0, 415.0, 980.0, 3_333.0]))
            .collect(),
    }
}

pub(crate) fn write(block: &StereoBlock, path: &Path, format: OutputFormat) -> SinkReport {
    let mut sink = create(path, format).unwrap();
    sink.write(block).unwrap();
    sink.finish().unwrap().publish().unwrap()
}

pub(crate) fn read_all(source: &mut FileSource) -> StereoBlock {
    let (mut all, mut piece) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source.read(&mut piece).unwrap();
        if piece.is_empty() {
            return all;
        }
        all.append(&piece);
    }
}

/// Encodes `source` with ffmpeg into `directory/_input.wav`, whatever the format.
pub(crate) fn encode(directory: &Path, source: &StereoBlock, arguments: &str) -> PathBuf {
    let wav = directory.join("source");
    write(source, &wav, OutputFormat::Wav(WavSamples::Float32));
    let output = directory.join("_input.wav");
    let has_cover = arguments.contains("COVER");
    let cover: &[&str] = if has_cover {
        &["-f", "lavfi", "-i", "color=red:size=64x64:duration=0.04"]
    } else {
        &[]
    };
    let arguments = arguments.replace(
        "COVER",
        "-map 0:a -map 1:v -c:v png -disposition:v attached_pic -frames:v 1",
    );
    let run = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(&wav)
        .args(cover)
        .args(arguments.split_ascii_whitespace())
        .arg(&output)
        .output()
        .expect("ffmpeg must be installed");
    assert!(
        run.status.success(),
        "{arguments}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    output
}

/// Signal-to-noise ratio of both channels together, with `found` late by `lag` frames (early, if negative).
fn snr_db(expected: &StereoBlock, found: &StereoBlock, lag: isize) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (expected, found) in [(&expected.left, &found.left), (&expected.right, &found.right)] {
        let expected = &expected[lag.min(0).unsigned_abs()..];
        let found = &found[lag.max(0).unsigned_abs().min(found.len())..];
        for (expected, found) in expected.iter().zip(found) {
            signal += f64::from(*expected).powi(2);
            noise += f64::from(found - expected).powi(2);
        }
    }
    10.0 * (signal / noise).log10()
}

/// Reads one format back; returns the difference, if any.
fn check(row: &Row, source: &StereoBlock) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), source, row.encode);
    let ffmpeg = if row.via == Via::Ffmpeg {
        FfmpegUse::Allowed
    } else {
        FfmpegUse::Forbidden
    };
    let options = SourceOptions {
        ffmpeg,
        ..SourceOptions::default()
    };
    let mut file = open(&path, &options).map_err(|error| format!("{}: {error}", row.name))?;
    let info = file.info().clone();
    let found = read_all(&mut file);
    let report = file.report();
    let snr = snr_db(source, &found, row.lag);
    let is_right_length = match row.length {
        Length::Exact => found.frames() == FRAMES,
        Length::AtMostMore(more) => {
            let least = FRAMES - row.lag.min(0).unsigned_abs();
            (least..=FRAMES + more + row.lag.max(0).unsigned_abs()).contains(&found.frames())
        }
    };
    let is_expected_true = info.expected_frames.is_none_or(|expected| match row.length {
        Length::Exact => (FRAMES as u64..=FRAMES as u64 + row.hint_slack).contains(&expected),
        Length::AtMostMore(more) => {
            expected.abs_diff(FRAMES as u64) <= (more + row.lag.unsigned_abs()) as u64
        }
    });
    let is_via_right = info.via_ffmpeg == (row.via == Via::Ffmpeg);
    let is_clean = report.replaced_samples == 0
        && report.skipped_packets == 0
        && report.missing_frames.unwrap_or(0) == 0
        && report.frames == found.frames() as u64;
    let is_good = snr >= row.min_snr_db;
    if info.format == row.format && is_via_right && is_right_length && is_expected_true && is_clean && is_good
    {
        return Ok(());
    }
    let best_lag =
        (-3_000..3_000).max_by(|a, b| snr_db(source, &found, *a).total_cmp(&snr_db(source, &found, *b)));
    Err(format!(
        "{}: {} frames for {FRAMES}, {snr:.1} dB at lag {} (best at {best_lag:?}), {info:?}, {report:?}",
        row.name,
        found.frames(),
        row.lag
    ))
}

#[test]
fn every_format_is_recognized_by_its_content_and_read_completely_and_in_place() {
    let source = source();
    let wrong: Vec<String> = ROWS.iter().filter_map(|row| check(row, &source).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documented_formats_are_the_tested_ones() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats.md");
    let page = std::fs::read_to_string(page).unwrap();
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let outputs = OUTPUTS.iter().map(|(name, _)| *name);
    let tested: BTreeSet<&str> = ROWS
        .iter()
        .map(|row| row.name)
        .chain(outputs)
        .chain(["out_mp3"])
        .collect();
    assert_eq!(documented, tested);
}

/// Output formats, except the optional MP3.
const OUTPUTS: &[(&str, OutputFormat)] = &[
    ("out_wav_16", OutputFormat::Wav(WavSamples::Int16)),
    ("out_wav_24", OutputFormat::Wav(WavSamples::Int24)),
    ("out_wav_f32", OutputFormat::Wav(WavSamples::Float32)),
    ("out_flac_16", OutputFormat::Flac(FlacSamples::Int16)),
    ("out_flac_24", OutputFormat::Flac(FlacSamples::Int24)),
];

#[test]
fn written_samples_read_back_to_one_step_and_then_exactly() {
    let source = source();
    let directory = tempfile::tempdir().unwrap();
    for (name, format) in OUTPUTS {
        let path = directory.path().join(name).with_extension(format.extension());
        let report = write(&source, &path, *format);
        assert_eq!(
            (report.frames, report.clipped_samples),
            (FRAMES as u64, 0),
            "{name}"
        );
        assert_eq!(report.bytes, path.metadata().unwrap().len());
        let once = read_all(&mut open(&path, &SourceOptions::default()).unwrap());
        let step = match format {
            OutputFormat::Wav(WavSamples::Float32) => 0.0,
            OutputFormat::Wav(WavSamples::Int24) | OutputFormat::Flac(FlacSamples::Int24) => {
                1.0 / 8_388_608.0
            }
            _ => 1.0 / 32_768.0,
        };
        let difference = once
            .left
            .iter()
            .zip(&source.left)
            .fold(0.0_f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(difference <= step / 2.0, "{name}: {difference}");
        write(&once, &path, *format);
        let twice = read_all(&mut open(&path, &SourceOptions::default()).unwrap());
        assert!(once == twice, "{name}");
    }
}

#[test]
fn integer_stems_sum_to_the_mix_to_one_step() {
    let mix = source();
    let vocals = StereoBlock {
        left: mix.left.iter().map(|s| s * 0.37).collect(),
        right: mix.right.iter().map(|s| s * 0.61).collect(),
    };
    let rest = StereoBlock {
        left: mix.left.iter().zip(&vocals.left).map(|(m, v)| m - v).collect(),
        right: mix.right.iter().zip(&vocals.right).map(|(m, v)| m - v).collect(),
    };
    let directory = tempfile::tempdir().unwrap();
    let through = |block: &StereoBlock| {
        let path = directory.path().join("stem.wav");
        write(block, &path, OutputFormat::Wav(WavSamples::Int16));
        read_all(&mut open(&path, &SourceOptions::default()).unwrap())
    };
    let (vocals, rest) = (through(&vocals), through(&rest));
    for n in 0..FRAMES {
        assert!((vocals.left[n] + rest.left[n] - mix.left[n]).abs() <= 1.0 / 32_768.0 + 1e-7);
    }
}

/// Left and right into six channels: the downmix to stereo is known.
const SURROUND: &str = "-af pan=5.1|FL=c0|FR=c1|FC=0.5*c0|LFE=c1|BL=0.25*c1|BR=0.25*c0";

#[test]
fn surround_is_mixed_by_the_recommendation_in_every_container() {
    const HALF_POWER: f32 = std::f32::consts::FRAC_1_SQRT_2;
    let source = source();
    let expected = StereoBlock {
        left: mixed(&source.left, &source.left, &source.right, HALF_POWER),
        right: mixed(&source.right, &source.left, &source.left, HALF_POWER),
    };
    for (encode_as, min_snr_db) in [
        ("-c:a pcm_f32le -f wav", 120.0),
        ("-c:a flac -sample_fmt s16 -f flac", 70.0),
        ("-c:a alac -sample_fmt s16p -f ipod", 70.0),
        ("-c:a libvorbis -q:a 9 -f ogg", 15.0),
        ("-c:a aac -b:a 640k -f ipod", 15.0),
        ("-c:a libopus -b:a 640k -f ogg", 15.0),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = encode(directory.path(), &source, &format!("{SURROUND} {encode_as}"));
        let mut file = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(file.info().channels, 6, "{encode_as}");
        let snr = snr_db(&expected, &read_all(&mut file), 0);
        assert!(snr > min_snr_db, "{encode_as}: {snr:.1} dB");
    }
}

fn mixed(front: &[f32], center: &[f32], side: &[f32], gain: f32) -> Vec<f32> {
    let mix = |((front, center), side): ((&f32, &f32), &f32)| front + gain * (0.5 * center + 0.25 * side);
    front.iter().zip(center).zip(side).map(mix).collect()
}

#[test]
fn chained_streams_of_other_rates_and_channels_follow_one_another_in_time() {
    let source = source();
    let directory = tempfile::tempdir().unwrap();
    let stream = |arguments: &str| std::fs::read(encode(directory.path(), &source, arguments)).unwrap();
    let first = stream("-c:a libvorbis -q:a 9 -f ogg");
    for (arguments, rate_hz) in [
        ("-c:a libvorbis -q:a 9 -f ogg", 44_100),
        ("-ar 22050 -c:a libvorbis -q:a 9 -f ogg", 22_050),
        ("-ac 1 -ar 48000 -c:a libopus -f ogg", 48_000),
    ] {
        let chained = [first.clone(), stream(arguments)].concat();
        let mut file = open_bytes(chained, &SourceOptions::default()).unwrap();
        let found = read_all(&mut file);
        assert_eq!(file.report().skipped_packets, 0, "{arguments}");
        let missing = (2 * FRAMES).abs_diff(found.frames());
        assert!(missing <= 44_100 / rate_hz + 1, "{arguments}: {missing}");
        // The second stream is as loud in its middle as its source; as mono, half as loud.
        let middle = FRAMES + FRAMES / 2..FRAMES + FRAMES / 2 + 10_000;
        let power = |samples: &[f32]| samples.iter().map(|s| s.powi(2)).sum::<f32>();
        let second = power(&found.left[middle]);
        let expected = power(&source.left[FRAMES / 2..FRAMES / 2 + 10_000]);
        assert!((0.3..1.5).contains(&(second / expected)), "{arguments}: {second}");
    }
}

#[test]
fn other_rates_and_mono_come_out_as_44_1_khz_stereo() {
    let source = source();
    for (rate_hz, channels) in [(48_000, 1), (22_050, 2), (96_000, 2), (8_000, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let arguments = format!("-ar {rate_hz} -ac {channels} -c:a flac -f flac");
        let path = encode(directory.path(), &source, &arguments);
        let mut file = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!((file.info().rate_hz, file.info().channels), (rate_hz, channels));
        let expected = file.expected_frames();
        let found = read_all(&mut file);
        assert_eq!(expected, Some(found.frames() as u64));
        assert!(
            found.frames().abs_diff(FRAMES) <= 44_100 / rate_hz as usize + 1,
            "{rate_hz}: {}",
            found.frames()
        );
        assert!(channels == 2 || found.left == found.right);
    }
}
