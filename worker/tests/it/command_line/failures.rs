//! Songs, arguments and machines with which a separation fails.

use std::fs;
use std::process::Command;

use super::{Bench, SECOND, check_failed, check_refused, errors, tones};

#[test]
fn a_song_longer_than_a_day_is_refused() {
    let bench = Bench::new();
    // 25 hours of silence at 1 kHz, one byte per sample, in a sparse file.
    let data_bytes: u32 = 25 * 3_600 * 1_000;
    let mut header =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\xe8\x03\0\0\xe8\x03\0\0\x01\0\x08\0data".to_vec();
    header[4..8].copy_from_slice(&(data_bytes + 36).to_le_bytes());
    header.extend(data_bytes.to_le_bytes());
    let song = bench.path("day.wav");
    fs::write(&song, &header).unwrap();
    fs::File::options()
        .write(true)
        .open(&song)
        .unwrap()
        .set_len(header.len() as u64 + u64::from(data_bytes))
        .unwrap();
    check_failed(
        &bench.separate(&[&song], &[]),
        &["longer than the limit of 86400 seconds"],
    );
}

#[test]
fn invalid_arguments_are_refused_by_name() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let check =
        |options: &[&str], expected: &[&str]| check_refused(&bench.separate(&[&song], options), expected);
    check(
        &["--format", "flac", "--bit-depth", "32f"],
        &["32f", "--format wav"],
    );
    check(&["--overlap", "1"], &["--overlap", "at most 0.99"]);
    check(&["--overlap", "0.99999"], &["--overlap", "at most 0.99"]);
    check(&["--overlap", "0.000001"], &["overlap", "two frames"]);
    check(&["--stems", "drums"], &["drums", "vocals, instrumental"]);
    check(&["--stems", "../up"], &["--stems", "../up"]);
    check(&["--timeout", "0"], &["--timeout"]);
    check(&["--timeout", "NaN"], &["--timeout"]);
    check(&["--threads", "0"], &["--threads", "1..=256"]);
    check(&["--threads", "5000"], &["--threads", "1..=256"]);
    check(&["--max-memory", "1"], &["more than the allowed 1 MB"]);
    check(&["--model-data", "x.json"], &["--model"]);
    check(&["--model", "missing.onnx"], &["missing.onnx"]);
    check(
        &[
            "--model",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/bad_rank.onnx"),
        ],
        &["not an MDX-Net model"],
    );
    check(
        &["--compat", "audio-separator", "--normalize", "peak"],
        &["--normalize"],
    );
    check(&["--mp3-bitrate", "320"], &["--mp3-bitrate", "--format mp3"]);
    check(
        &["--format", "mp3", "--mp3-bitrate", "100"],
        &["--mp3-bitrate", "96, 112"],
    );
    check(
        &["--format", "mp3", "--bit-depth", "keep"],
        &["--bit-depth", "omit it"],
    );
    assert!(bench.stems().is_empty());
}

#[test]
fn a_song_that_exceeds_its_timeout_leaves_nothing_behind() {
    let bench = Bench::new();
    let output = bench.separate(&[&bench.song("song.wav")], &["--timeout", "0.000001"]);
    check_failed(&output, &["--timeout", "0.000001 s exceeded"]);
    assert!(bench.stems().is_empty());
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let song = bench.write("song.wav", &tones(20 * SECOND, 0.1));
    let stems = bench.path("stems");
    fs::create_dir(&stems).unwrap();
    // A file system of 1 MB for the worker only: the mount is private to its namespace and disappears with it.
    let script =
        r#"mount -t tmpfs -o size=1m tmpfs "$1" && shift && "$@"; code=$?; ls -A "$STEMS" >&2; exit $code"#;
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&stems);
    command
        .arg(env!("CARGO_BIN_EXE_separation-worker"))
        .arg("separate")
        .arg(&song)
        .args(["--model", "builtin", "--output-dir"])
        .arg(&stems);
    let output = command.env("STEMS", &stems).output().unwrap();
    check_failed(&output, &["cannot write", "No space left"]);
    assert!(!errors(&output).contains(".part"), "{}", errors(&output));
}

#[test]
fn missing_cuda_is_an_error_and_never_falls_back_to_the_cpu() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let empty_cache = bench.path("no-cache");
    let mut command = bench.command(&[&song], &["--provider", "cuda"]);
    let output = command
        .env("SEPARATION_CACHE_DIR", &empty_cache)
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .unwrap();
    check_failed(
        &output,
        &["no-cache/onnxruntime", "cuda", "cargo xtask setup --cuda"],
    );
    let cpu_build = separation_worker::locations::Locations::from_environment()
        .cache_dir
        .unwrap();
    let cpu_build = cpu_build
        .join("onnxruntime")
        .join(separation_worker::onnx::RUNTIME_VERSION)
        .join("cpu/libonnxruntime.so");
    let mut command = bench.command(&[&song], &["--provider", "cuda"]);
    let output = command.env("ORT_DYLIB_PATH", cpu_build).output().unwrap();
    check_failed(&output, &["provider cuda", "cargo xtask setup --cuda"]);
    assert!(bench.stems().is_empty());
}

#[test]
fn a_missing_onnx_runtime_error_has_the_searched_path() {
    let bench = Bench::new();
    let mut command = bench.command(&[&bench.song("song.wav")], &[]);
    let output = command
        .env("SEPARATION_CACHE_DIR", "/nowhere")
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .unwrap();
    check_failed(
        &output,
        &["/nowhere/onnxruntime", "cargo xtask setup", "ORT_DYLIB_PATH"],
    );
    let mut command = bench.command(&[&bench.song("song.wav")], &[]);
    let output = command.env("ORT_DYLIB_PATH", "/nowhere/lib.so").output().unwrap();
    check_failed(&output, &["/nowhere/lib.so"]);
}
