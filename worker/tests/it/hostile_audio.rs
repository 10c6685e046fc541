//! Files that are broken, have false headers, or are not audio: a clear error or a correct result, in bounded memory,
//! and never a panic.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;
use separation_worker::audio::{
    AudioError, FfmpegUse, FlacSamples, OutputFormat, SourceOptions, SourceReport, StereoBlock, StereoSource,
    WavSamples, create, open, open_bytes,
};
use separation_worker::error::ErrorClass;

use crate::formats::{encode, read_all, write};

/// The most frames that one byte can encode: a FLAC frame of 65,535 equal frames has 14 bytes. An Ogg or MP4 table
/// entry of one byte adds no more than that; 44.1 is the resampling factor of the lowest rate.
const MAX_FRAMES_PER_BYTE: f64 = 65_535.0 / 14.0 * 44.1;

fn without_ffmpeg() -> SourceOptions {
    SourceOptions {
        ffmpeg: FfmpegUse::Forbidden,
        ..SourceOptions::default()
    }
}

/// Reads everything and discards it.
fn drain(bytes: Vec<u8>) -> Result<SourceReport, AudioError> {
    let max = 65_536 + (bytes.len() as f64 * MAX_FRAMES_PER_BYTE) as u64;
    let mut source = open_bytes(bytes, &without_ffmpeg())?;
    let mut block = StereoBlock::default();
    loop {
        source.read(&mut block)?;
        if block.is_empty() {
            return Ok(source.report());
        }
        assert!(source.report().frames <= max, "{} frames", source.report().frames);
        assert!(
            block
                .left
                .iter()
                .chain(&block.right)
                .all(|sample| sample.is_finite())
        );
    }
}

fn tone(frames: usize) -> StereoBlock {
    let wave: Vec<f32> = (0..frames).map(|n| 0.4 * (n as f32 * 0.07).sin()).collect();
    StereoBlock {
        right: wave.iter().map(|s| s * 0.5).collect(),
        left: wave,
    }
}

/// One small file of every container.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    const ENCODINGS: [&str; 11] = [
        "-c:a pcm_s16le -f wav",
        "-c:a adpcm_ima_wav -f wav",
        "-c:a flac -f flac",
        "-c:a libmp3lame -b:a 128k -f mp3",
        "-c:a libvorbis -f ogg",
        "-c:a libopus -f ogg",
        "-c:a aac -f ipod",
        "-c:a aac -f adts",
        "-c:a alac -f caf",
        "-c:a pcm_s16be -f aiff",
        "-c:a libopus -f webm",
    ];
    let directory = tempfile::tempdir().unwrap();
    let bytes = |encoding| std::fs::read(encode(directory.path(), &tone(22_050), encoding)).unwrap();
    ENCODINGS
        .iter()
        .map(|encoding| (*encoding, bytes(encoding)))
        .collect()
}

/// A WAV header in front of `data`, with any values.
fn wav(tag: u16, channels: u16, rate_hz: u32, bits: u16, declared_bytes: u32, data: &[u8]) -> Vec<u8> {
    let frame_bytes = channels.wrapping_mul(bits / 8);
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&declared_bytes.saturating_add(36).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0");
    file.extend_from_slice(&tag.to_le_bytes());
    file.extend_from_slice(&channels.to_le_bytes());
    file.extend_from_slice(&rate_hz.to_le_bytes());
    file.extend_from_slice(&rate_hz.wrapping_mul(u32::from(frame_bytes)).to_le_bytes());
    file.extend_from_slice(&frame_bytes.to_le_bytes());
    file.extend_from_slice(&bits.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&declared_bytes.to_le_bytes());
    file.extend_from_slice(data);
    file
}

#[test]
fn files_that_are_not_audio_are_refused() {
    let noise: Vec<u8> = {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(300_000).collect()
    };
    let files: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("text", b"to whom it may concern\n".repeat(5_000)),
        ("zip", [b"PK\x03\x04".as_slice(), &noise].concat()),
        ("png", [b"\x89PNG\r\n\x1a\n".as_slice(), &noise].concat()),
        ("noise", noise),
        ("zeros", vec![0; 200_000]),
    ];
    for (name, bytes) in files {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song.mp3");
        std::fs::write(&path, &bytes).unwrap();
        for options in [SourceOptions::default(), without_ffmpeg()] {
            let error = open(&path, &options).err().expect(name);
            assert!(
                matches!(error, AudioError::NotAudio { .. } | AudioError::Ffmpeg { .. }),
                "{name}: {error}"
            );
            assert_eq!(error.class(), ErrorClass::Permanent);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let error = open(directory.path(), &SourceOptions::default()).err().unwrap();
    assert!(error.to_string().ends_with("it is a directory"), "{error}");
    let error = open(&directory.path().join("none"), &SourceOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.class(), ErrorClass::Permanent);
}

#[test]
fn truncated_files_give_the_audio_that_is_left_or_a_clear_error() {
    for (name, bytes) in samples() {
        let complete = drain(bytes.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut frames_before = 0;
        for tenth in 1..10 {
            let Ok(report) = drain(bytes[..bytes.len() * tenth / 10].to_vec()) else {
                continue;
            };
            assert!(report.frames <= complete.frames, "{name} at {tenth}0 %");
            assert!(report.frames >= frames_before, "{name} at {tenth}0 %");
            frames_before = report.frames;
        }
    }
}

#[test]
fn a_wav_that_declares_three_hours_gives_its_second_and_reports_the_missing_frames() {
    let claimed_frames = 3 * 3_600 * 44_100;
    let file = wav(1, 2, 44_100, 16, claimed_frames * 4, &[1; 44_100 * 4]);
    let source = open_bytes(file.clone(), &without_ffmpeg()).unwrap();
    assert_eq!(source.expected_frames(), Some(44_100));
    let report = drain(file).unwrap();
    assert_eq!(report.frames, 44_100);
    assert_eq!(report.missing_frames, Some(u64::from(claimed_frames) - 44_100));
}

#[test]
fn a_wav_whose_length_was_never_filled_in_is_read_to_its_end() {
    for declared in [0, u32::MAX] {
        let mut file = wav(1, 2, 44_100, 16, declared, &[1; 400]);
        file[4..8].copy_from_slice(&declared.to_le_bytes());
        let report = drain(file).unwrap();
        assert_eq!((report.frames, report.missing_frames), (100, None));
    }
}

#[test]
fn absurd_wav_headers_are_refused_with_the_value() {
    let check = |file: Vec<u8>, expected: &str| {
        let error = drain(file).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.class(), ErrorClass::Permanent);
    };
    let data = [0; 4_000];
    check(wav(1, 2, 1, 16, 4_000, &data), "sample rate of 1 Hz");
    check(wav(1, 2, 0, 16, 4_000, &data), "sample rate of 0 Hz");
    check(
        wav(1, 2, 4_000_000_000, 16, 4_000, &data),
        "sample rate of 4000000000 Hz",
    );
    check(wav(1, 0, 44_100, 16, 4_000, &data), "0 channels");
    check(wav(1, 1_000, 44_100, 16, 4_000, &data), "1000 channels");
    check(wav(1, 2, 44_100, 16, 0, &[]), "its length is zero");
    check(wav(1, 2, 44_100, 16, 4_000, &data)[..20].to_vec(), "corrupt");
    let mut huge_chunk = wav(1, 2, 44_100, 16, 4_000, &data);
    huge_chunk[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    check(huge_chunk, "corrupt");
}

#[test]
fn a_file_whose_leading_tag_has_an_absurd_length_is_refused() {
    let (_, mp3) = samples()
        .into_iter()
        .find(|(name, _)| name.contains("mp3"))
        .unwrap();
    let error = drain([b"ID3\x04\0\0\x7f\x7f\x7f\x7f".as_slice(), &mp3].concat())
        .err()
        .unwrap();
    assert!(error.to_string().contains("nothing follows its tags"), "{error}");
}

#[test]
fn one_sample_silence_and_broken_numbers_are_audio() {
    assert_eq!(drain(wav(1, 1, 44_100, 16, 2, &[0, 64])).unwrap().frames, 1);
    assert_eq!(drain(wav(1, 1, 48_000, 16, 2, &[0, 64])).unwrap().frames, 1);
    assert_eq!(
        drain(wav(1, 2, 44_100, 16, 40_000, &[0; 40_000])).unwrap().frames,
        10_000
    );
    let values = [f32::NAN, 0.5, f32::INFINITY, f32::NEG_INFINITY, 1e30, -2.0];
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut source = open_bytes(wav(3, 2, 44_100, 32, 24, &data), &without_ffmpeg()).unwrap();
    let block = read_all(&mut source);
    assert_eq!(
        (block.left, block.right),
        (vec![0.0, 0.0, 0.0], vec![0.5, 0.0, -2.0])
    );
    assert_eq!(source.report().replaced_samples, 4);
}

#[test]
fn the_length_limit_is_enforced_and_reported() {
    let options = SourceOptions {
        max_duration: Some(Duration::from_millis(500)),
        ..without_ffmpeg()
    };
    let error = open_bytes(wav(1, 2, 44_100, 16, 176_400, &[0; 176_400]), &options)
        .err()
        .unwrap();
    assert!(error.to_string().contains("limit of 0.5 seconds"), "{error}");
    // Without a length in the header, the limit applies while reading.
    let mut file = wav(1, 2, 44_100, 16, u32::MAX, &[0; 176_400]);
    file[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = open_bytes(file, &options).err();
    assert!(matches!(error, Some(AudioError::TooLong { .. })));
}

#[test]
fn an_absurd_gapless_tag_or_edit_promises_no_more_than_the_file_declares() {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), &tone(22_050), "-c:a aac -f ipod");
    let bytes = std::fs::read(&path).unwrap();
    let index = |pattern: &[u8]| {
        bytes
            .windows(pattern.len())
            .position(|window| window == pattern)
            .unwrap()
    };
    let check = |bytes: Vec<u8>, frames: std::ops::Range<u64>| {
        let expected = open_bytes(bytes.clone(), &without_ffmpeg())
            .unwrap()
            .expected_frames();
        assert!(frames.contains(&expected.unwrap()), "{expected:?}");
        let report = drain(bytes).unwrap();
        assert!(frames.contains(&report.frames), "{report:?}");
        assert_eq!(report.missing_frames, Some(0));
    };
    check(bytes.clone(), 22_050..23_074);

    // Without the edit list the tag applies: first with valid values, then with absurd ones.
    let mut tagged = bytes.clone();
    tagged[index(b"edts")..][..4].copy_from_slice(b"free");
    check(tagged.clone(), 23_074..25_000);
    check(with_gapless_tag(&tagged, 1_024, 22_050), 22_050..22_051);
    check(with_gapless_tag(&tagged, 1_024, u64::MAX), 22_050..24_000);
    check(with_gapless_tag(&tagged, u64::MAX, u64::MAX), 23_074..25_000);

    // The duration of the only edit: after the box's kind, version and count.
    let mut edited = bytes.clone();
    let duration = index(b"elst") + 12;
    edited[duration..duration + 4].fill(0xff);
    check(edited, 22_050..24_000);
}

#[test]
fn damaged_first_packets_become_silence() {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), &tone(44_100), "-c:a alac -f ipod");
    let mut bytes = std::fs::read(&path).unwrap();
    let data = bytes.windows(4).position(|window| window == b"mdat").unwrap() + 4;
    // An element that ALAC does not define, at the start of the first packet of 4,096 frames.
    bytes[data] = 0xa0;
    let mut source = open_bytes(bytes, &without_ffmpeg()).unwrap();
    let block = read_all(&mut source);
    assert_eq!(source.report().skipped_packets, 1);
    assert_eq!(block.frames(), 44_100);
    assert!(block.left[..4_096].iter().all(|sample| *sample == 0.0));
    let expected_tone = tone(44_100);
    let mut pairs = block.left.iter().zip(&expected_tone.left).skip(4_096);
    assert!(pairs.all(|(found, expected_tone)| (found - expected_tone).abs() < 1e-4));
}

/// Appends iTunes' tag to the boxes at the end of an MP4 file that ffmpeg wrote.
fn with_gapless_tag(file: &[u8], start: u64, length: u64) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], content: &[u8]| {
        let size = u32::try_from(8 + content.len()).unwrap();
        [&size.to_be_bytes(), kind.as_slice(), content].concat()
    };
    let text = format!(" 00000000 {start:08X} 00000000 {length:016X} 00000000");
    let tag = boxed(
        b"----",
        &[
            boxed(b"mean", b"\0\0\0\0com.apple.iTunes"),
            boxed(b"name", b"\0\0\0\0iTunSMPB"),
            boxed(b"data", &[b"\0\0\0\x01\0\0\0\0", text.as_bytes()].concat()),
        ]
        .concat(),
    );
    let mut tagged = [file, &tag].concat();
    for kind in [b"moov", b"udta", b"meta", b"ilst"] {
        let index = file.windows(4).rposition(|window| window == kind).unwrap();
        let size = &mut tagged[index - 4..index];
        let grown = u32::from_be_bytes(size.try_into().unwrap()) + u32::try_from(tag.len()).unwrap();
        size.copy_from_slice(&grown.to_be_bytes());
    }
    tagged
}

#[test]
fn damaged_packets_become_silence_so_that_the_rest_stays_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), &tone(88_200), "-c:a flac -f flac");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 10].fill(0xaa);
    let report = drain(bytes).unwrap();
    assert!(
        report.skipped_packets > 0 || report.missing_frames > Some(0),
        "{report:?}"
    );
    assert!(report.frames <= 88_200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_file_never_panics_the_decoder(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), prop::bool::ANY), 1..12),
    ) {
        static SAMPLES: std::sync::LazyLock<Vec<(&str, Vec<u8>)>> = std::sync::LazyLock::new(samples);
        for (_, bytes) in SAMPLES.iter() {
            let mut changed = bytes.clone();
            for (index, value, is_in_header) in &changes {
                let max = if *is_in_header { changed.len().min(600) } else { changed.len() };
                let index = index.index(max);
                changed[index] = *value;
            }
            // Any error is fine; a panic or endless frames are not.
            let _ = drain(changed);
        }
    }
}

#[test]
fn without_ffmpeg_the_error_recommends_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), &tone(22_050), "-c:a ac3 -f ac3");
    let error = open(&path, &without_ffmpeg()).err().unwrap();
    assert!(matches!(error, AudioError::Unsupported { .. }), "{error}");
    // A separate process, because PATH applies to the entire process.
    let run = run_in_child(
        "without_ffmpeg_child",
        &[("PATH", Path::new("/nonexistent")), ("HOSTILE_FILE", &path)],
    );
    assert!(run.success());
}

#[test]
fn without_ffmpeg_child() {
    let Some(path) = std::env::var_os("HOSTILE_FILE") else {
        return;
    };
    let error = open(Path::new(&path), &SourceOptions::default()).err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with("which is not installed: it is AC-3; fix: install ffmpeg"),
        "{error}"
    );
}

#[test]
fn an_ffmpeg_that_hangs_is_stopped_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = encode(directory.path(), &tone(22_050), "-c:a ac3 -f ac3");
    let programs = directory.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let hanging = programs.join("ffmpeg");
    std::fs::write(&hanging, "#!/bin/sh\nexec /usr/bin/tail -f /dev/null\n").unwrap();
    std::fs::set_permissions(&hanging, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = run_in_child(
        "an_ffmpeg_that_hangs_child",
        &[("PATH", &programs), ("HANGING_FILE", &path)],
    );
    assert!(run.success());
}

#[test]
fn an_ffmpeg_that_hangs_child() {
    let Some(path) = std::env::var_os("HANGING_FILE") else {
        return;
    };
    let options = SourceOptions {
        ffmpeg_timeout: Duration::from_millis(200),
        ..SourceOptions::default()
    };
    let error = open(Path::new(&path), &options).err().unwrap();
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(&error) {
        text = format!("{text}: {cause}");
    }
    assert!(text.contains("ffmpeg sent nothing for 0.2 seconds"), "{text}");
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let children = std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap();
        assert_eq!(children, "", "the program was killed");
    }
}

/// Runs one test of this binary in a separate process.
fn run_in_child(test: &str, environment: &[(&str, &Path)]) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("hostile_audio::{test}")])
        .envs(environment.iter().copied())
        .status()
        .unwrap()
}

#[test]
fn a_full_disk_is_a_transient_error_that_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    // A separate file system of 256 KiB.
    let script = "mount -t tmpfs -o size=256k none \"$FULL_DISK\" && exec \"$0\" --exact hostile_audio::full_disk_child";
    let run = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("FULL_DISK", directory.path())
        .output()
        .expect("unshare is part of util-linux");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn full_disk_child() {
    let Some(directory) = std::env::var_os("FULL_DISK").map(PathBuf::from) else {
        return;
    };
    let noise = tone(200_000);
    for format in [
        OutputFormat::Wav(WavSamples::Float32),
        OutputFormat::Flac(FlacSamples::Int24),
    ] {
        let path = directory.join("stem");
        let mut sink = create(&path, format).unwrap();
        let error = sink
            .write(&noise)
            .and_then(|()| sink.finish().map(|_| ()))
            .expect_err("a full disk");
        assert!(matches!(error, AudioError::Write { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Transient);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
    // A file that fits is still written.
    assert_eq!(
        write(
            &tone(1_000),
            &directory.join("stem"),
            OutputFormat::Wav(WavSamples::Int16)
        )
        .frames,
        1_000
    );
}

#[test]
fn a_missing_directory_is_a_permanent_error() {
    let error = create(
        Path::new("/nonexistent/stem.wav"),
        OutputFormat::Wav(WavSamples::Int16),
    )
    .err()
    .unwrap();
    assert_eq!(error.class(), ErrorClass::Permanent);
}
