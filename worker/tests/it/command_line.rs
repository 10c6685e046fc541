//! `separation-worker separate` as a person or a script meets it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use separation_worker::audio::{self, OutputFormat, StereoBlock, WavSamples};
use serde_json::Value;

use crate::formats::{read_all, write};

const SECOND: usize = 44_100;

/// A folder with songs, and one for stems that does not exist yet.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Two seconds of tones that differ between the channels.
    fn song(&self, name: &str) -> PathBuf {
        self.write(name, &tones(2 * SECOND, 0.4))
    }

    fn write(&self, name: &str, block: &StereoBlock) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(block, &path, OutputFormat::Wav(WavSamples::Float32));
        path
    }

    fn command(&self, inputs: &[&Path], options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
        command
            .arg("separate")
            .args(inputs)
            .arg("--output-dir")
            .arg(self.path("stems"))
            .args(options);
        command
    }

    fn separate(&self, inputs: &[&Path], options: &[&str]) -> Output {
        self.command(inputs, options).output().unwrap()
    }

    fn stems(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("stems"))
            .map(|entries| {
                entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }
}

fn tones(frames: usize, level: f32) -> StereoBlock {
    let tone = |hz: f32| {
        (0..frames)
            .map(move |k| level * (k as f32 * hz * std::f32::consts::TAU / SECOND as f32).sin())
            .collect()
    };
    StereoBlock {
        left: tone(440.0),
        right: tone(660.0),
    }
}

fn read(path: &Path) -> StereoBlock {
    read_all(&mut audio::open(path, &audio::SourceOptions::default()).unwrap())
}

fn greatest_error_of_sum(song: &StereoBlock, stems: [&StereoBlock; 2]) -> f32 {
    let of = |song: &[f32], a: &[f32], b: &[f32]| {
        assert_eq!((song.len(), song.len()), (a.len(), b.len()));
        song.iter()
            .zip(a)
            .zip(b)
            .map(|((x, a), b)| (x - a - b).abs())
            .fold(0.0, f32::max)
    };
    of(&song.left, &stems[0].left, &stems[1].left).max(of(&song.right, &stems[0].right, &stems[1].right))
}

fn reports(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn check_refused(output: &Output, expected_words: &[&str]) {
    check_ended(output, 2, expected_words);
}

#[track_caller]
fn check_failed(output: &Output, expected_words: &[&str]) {
    check_ended(output, 1, expected_words);
}

#[track_caller]
fn check_ended(output: &Output, code: i32, expected_words: &[&str]) {
    let words = words(output);
    assert_eq!(output.status.code(), Some(code), "{words}");
    for expected in expected_words {
        assert!(words.contains(expected), "{expected:?} is not in: {words}");
    }
}

#[test]
fn stems_are_named_after_the_song_and_sum_to_it() {
    let bench = Bench::new();
    let song = bench.song("my song.wav");
    let output = bench.separate(&[&song], &["--bit-depth", "32f"]);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(bench.stems(), ["my song_instrumental.wav", "my song_vocals.wav"]);
    let stems = bench
        .stems()
        .into_iter()
        .map(|name| read(&bench.path("stems").join(name)));
    let [instrumental, vocals] = stems.collect::<Vec<_>>().try_into().unwrap();
    assert!(greatest_error_of_sum(&read(&song), [&vocals, &instrumental]) < 1e-6);
}

#[test]
fn stems_of_16_bits_sum_to_the_song_to_one_step() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    assert!(bench.separate(&[&song], &[]).status.success());
    let [instrumental, vocals] =
        ["instrumental", "vocals"].map(|stem| read(&bench.path(&format!("stems/song_{stem}.wav"))));
    assert!(greatest_error_of_sum(&read(&song), [&vocals, &instrumental]) <= 1.001 / 32_768.0);
}

#[test]
fn json_has_one_object_per_song_and_nothing_else() {
    let bench = Bench::new();
    let (song, other) = (bench.song("song.wav"), bench.song("other.wav"));
    let output = bench.separate(
        &[&song, &other],
        &["--json", "--stems", "vocals", "--format", "flac"],
    );
    let reports = reports(&output);
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[0]["input"], song.to_str().unwrap());
    assert_eq!(reports[0]["status"], "separated");
    assert_eq!(reports[0]["format"], "wav");
    assert_eq!(reports[0]["audio_seconds"], 2.0);
    assert_eq!(reports[0]["clipped_samples"]["vocals"], 0);
    for number in [
        "wall_seconds",
        "speed",
        "first_chunk_seconds",
        "peak_memory_bytes",
    ] {
        assert!(reports[1][number].as_f64().unwrap() > 0.0, "{number}");
    }
    let vocals = PathBuf::from(reports[1]["outputs"]["vocals"].as_str().unwrap());
    assert_eq!(read(&vocals).frames(), 2 * SECOND);
    assert_eq!(bench.stems(), ["other_vocals.flac", "song_vocals.flac"]);
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let bench = Bench::new();
    let text = bench.path("notes.wav");
    fs::write(&text, "these are notes, not a song\n".repeat(100)).unwrap();
    let output = bench.separate(
        &[&bench.path("missing.wav"), &text, &bench.song("song.wav")],
        &["--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let reports = reports(&output);
    assert_eq!(
        reports.iter().map(|report| &report["status"]).collect::<Vec<_>>(),
        ["failed", "failed", "separated"]
    );
    assert!(reports[0]["error"].as_str().unwrap().contains("missing.wav"));
    assert!(reports[1]["error"].as_str().unwrap().contains("notes.wav"));
    assert_eq!(bench.stems(), ["song_instrumental.wav", "song_vocals.wav"]);
}

#[test]
fn a_name_that_is_not_utf_8_is_reported_and_does_not_stop_the_others() {
    let bench = Bench::new();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9.wav");
    let odd = bench.folder.path().join(name);
    fs::rename(bench.song("song.wav"), &odd).unwrap();
    let output = bench.separate(&[&odd, &bench.song("song.wav")], &["--json", "--stems", "vocals"]);
    assert!(output.status.success(), "{}", words(&output));
    assert_eq!(reports(&output).len(), 2);
    assert_eq!(fs::read_dir(bench.path("stems")).unwrap().count(), 2);
}

#[test]
fn a_closed_standard_error_does_not_stop_the_work() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(&[&bench.song("song.wav"), &bench.song("other.wav")], &[]);
    let output = command.stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(bench.stems().len(), 4);
}

#[test]
fn a_reader_that_goes_after_the_first_line_ends_no_song() {
    let bench = Bench::new();
    let songs = [
        bench.song("one.wav"),
        bench.song("two.wav"),
        bench.song("three.wav"),
    ];
    let songs: Vec<&Path> = songs.iter().map(PathBuf::as_path).collect();
    for options in [&["--stems", "vocals"][..], &["--stems", "vocals", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.command(&songs, options).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        assert_eq!(bench.stems().len(), 3);
        fs::remove_dir_all(bench.path("stems")).unwrap();
    }
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_behind_all_songs() {
    let bench = Bench::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = bench.command(&[&bench.song("one.wav"), &bench.song("two.wav")], &[]);
    let output = command.stdout(full).output().unwrap();
    check_failed(&output, &["cannot write the report"]);
    assert_eq!(bench.stems().len(), 4);
}

#[test]
fn control_characters_of_names_are_printed_as_escapes() {
    let bench = Bench::new();
    let song = bench.song("a\u{1b}[2J\nb\u{202e}.wav");
    let missing = bench.path("no\u{1b}.wav");
    let is_clean = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &words(output);
        !text.contains(['\u{1b}', '\u{202e}'])
    };
    let output = bench.separate(&[&song, &missing], &["--stems", "vocals"]);
    assert!(is_clean(&output), "{output:?}");
    check_failed(
        &output,
        &["no\\u{1b}.wav", "a\\u{1b}[2J\\nb\\u{202e}.wav: separating"],
    );
    let output = bench.separate(&[&song], &["--stems", "vocals", "--json"]);
    assert!(is_clean(&output), "{output:?}");
    assert_eq!(reports(&output)[0]["input"], song.to_str().unwrap());
}

#[test]
fn the_longest_names_of_songs_give_stems() {
    let bench = Bench::new();
    let songs = [
        bench.song(&format!("{}.wav", "x".repeat(251))),
        bench.song(&format!("{}y.wav", "x".repeat(250))),
        bench.song(&format!("{}.wav", "é".repeat(125))),
    ];
    let songs: Vec<&Path> = songs.iter().map(PathBuf::as_path).collect();
    let output = bench.separate(&songs, &[]);
    assert!(output.status.success(), "{}", words(&output));
    let stems = bench.stems();
    assert_eq!(stems.len(), 6);
    assert!(
        stems
            .iter()
            .all(|name| name.len() <= 255 && name.ends_with(".wav")),
        "{stems:?}"
    );
}

#[test]
fn a_length_that_is_hardly_missed_is_given_in_frames() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let mut bytes = fs::read(&song).unwrap();
    let frame_bytes = 8;
    bytes.truncate(bytes.len() - 10 * frame_bytes);
    fs::write(&song, &bytes).unwrap();
    let output = bench.separate(&[&song], &["--stems", "vocals"]);
    assert!(output.status.success(), "{}", words(&output));
    let expected = "the file ends 10 frames before the length in its header";
    assert!(words(&output).contains(expected), "{}", words(&output));
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut child = bench
        .command(&[&song], &[])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parts = || {
        bench
            .stems()
            .iter()
            .filter(|name| name.ends_with(".part"))
            .count()
    };
    while parts() < 2 {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    signal(&child, "-STOP");
    let running = bench.separate(&[&bench.song("other.wav")], &["--stems", "vocals"]);
    assert!(running.status.success(), "{}", words(&running));
    assert_eq!(parts(), 2, "those of a running process stay");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parts(), 2);
    let next = bench.separate(&[&bench.song("other.wav")], &["--stems", "vocals"]);
    assert!(next.status.success(), "{}", words(&next));
    assert_eq!(bench.stems(), ["other_vocals.wav"]);
}

#[test]
fn a_signal_while_the_model_is_loaded_starts_no_song() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut command = bench.command(&[&song], &["--threads", "256"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    while !catches_sigterm(child.id()) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(bench.stems().is_empty());
}

/// Whether a process has a handler for SIGTERM, signal 15: bit 14 of the mask of caught ones.
fn catches_sigterm(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> 14 & 1 == 1
}

#[test]
fn a_song_of_more_than_a_day_is_refused_by_its_length() {
    let bench = Bench::new();
    // 25 hours of silence at 1 kHz, one byte a sample, in a file with a hole.
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
fn names_that_would_collide_are_refused_before_anything_starts() {
    let bench = Bench::new();
    let (one, two) = (bench.song("one/song.wav"), bench.song("two/song.flac.wav"));
    let same = bench.song("two/song.wav");
    assert!(
        bench
            .separate(&[&one, &two], &["--stems", "vocals"])
            .status
            .success(),
        "these differ"
    );
    fs::remove_dir_all(bench.path("stems")).unwrap();
    check_refused(
        &bench.separate(&[&one, &same], &[]),
        &["song_vocals.wav", "rename"],
    );
    assert!(bench.stems().is_empty());
}

#[test]
fn a_stem_never_replaces_an_input() {
    let bench = Bench::new();
    let (song, earlier) = (bench.song("stems/song.wav"), bench.song("stems/song_vocals.wav"));
    check_refused(&bench.separate(&[&song, &earlier], &[]), &["would be replaced"]);
    assert_eq!(bench.stems(), ["song.wav", "song_vocals.wav"]);
}

#[test]
fn existing_stems_are_replaced_by_success_and_kept_by_failure() {
    let bench = Bench::new();
    fs::create_dir(bench.path("stems")).unwrap();
    let vocals = bench.path("stems/song_vocals.wav");
    fs::write(&vocals, "earlier").unwrap();
    let broken = bench.path("song.wav");
    fs::write(&broken, b"RIFF").unwrap();
    check_failed(&bench.separate(&[&broken], &[]), &["song.wav"]);
    assert_eq!(fs::read(&vocals).unwrap(), b"earlier");
    assert!(bench.separate(&[&bench.song("song.wav")], &[]).status.success());
    assert_eq!(read(&vocals).frames(), 2 * SECOND);
}

#[test]
fn arguments_that_cannot_be_met_are_refused_by_name() {
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
    check(&["--stems", "drums"], &["drums", "vocals and instrumental"]);
    check(&["--stems", "../up"], &["--stems", "../up"]);
    check(&["--timeout", "0"], &["--timeout"]);
    check(&["--timeout", "NaN"], &["--timeout"]);
    check(&["--threads", "0"], &["--threads", "1..=256"]);
    check(&["--threads", "5000"], &["--threads", "1..=256"]);
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
    if cfg!(not(feature = "mp3")) {
        check(&["--format", "mp3"], &["--features mp3"]);
    }
    assert!(bench.stems().is_empty());
}

#[test]
fn a_song_that_takes_too_long_leaves_nothing_behind() {
    let bench = Bench::new();
    let output = bench.separate(&[&bench.song("song.wav")], &["--timeout", "0.000001"]);
    check_failed(&output, &["--timeout", "0.000001 s is over"]);
    assert!(bench.stems().is_empty());
}

#[test]
fn ctrl_c_ends_the_song_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut command = bench.command(&[&song, &bench.song("next.wav")], &[]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "long.wav: separating");
    signal(&child, "-INT");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("cancelled")), "{rest:?}");
    assert!(bench.stems().is_empty());
}

fn signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let song = bench.write("song.wav", &tones(20 * SECOND, 0.1));
    let stems = bench.path("stems");
    fs::create_dir(&stems).unwrap();
    // A file system of 1 MB for the worker alone: the mount is seen by no other process and goes with it.
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
        .arg("--output-dir")
        .arg(&stems);
    let output = command.env("STEMS", &stems).output().unwrap();
    check_failed(&output, &["cannot write", "No space left"]);
    assert!(!words(&output).contains(".part"), "{}", words(&output));
}

#[test]
fn a_stem_that_would_clip_is_reported_and_scaled_on_request() {
    // Of a song and its inversion one has its greatest sample above zero, where integers have one step fewer.
    for level in [2.0, -2.0] {
        let bench = Bench::new();
        let song = bench.write("loud.wav", &tones(2 * SECOND, level));
        let clipped = |options: &[&str]| {
            let clipped = reports(&bench.separate(&[&song], options))[0]["clipped_samples"].clone();
            clipped["vocals"].as_u64().unwrap() + clipped["instrumental"].as_u64().unwrap()
        };
        assert!(clipped(&["--json"]) > 0);
        assert_eq!(clipped(&["--json", "--normalize", "peak"]), 0);
        let peak = |stem: &str| read(&bench.path(&format!("stems/loud_{stem}.wav"))).peak();
        assert!(peak("vocals").max(peak("instrumental")) > 0.999);
        assert_eq!(bench.stems().len(), 2, "the scratch space is gone");
    }
}

/// The stems of a tone of this peak through a model that gives back what it gets, in the middle of the song, as parts
/// of the tone.
fn peers_stems(peak: f32) -> [f32; 2] {
    let bench = Bench::new();
    let song = bench.write("tone.wav", &tones(2 * SECOND, peak));
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/identity_full.onnx");
    let options = [
        "--compat",
        "audio-separator",
        "--model",
        model,
        "--bit-depth",
        "32f",
    ];
    let output = bench.separate(&[&song], &options);
    assert!(output.status.success(), "{}", words(&output));
    let song = read(&song);
    ["vocals", "instrumental"].map(|stem| {
        let stem = read(&bench.path(&format!("stems/tone_{stem}.wav")));
        let middle = SECOND / 2..3 * SECOND / 2;
        let product: f32 = middle.clone().map(|k| song.left[k] * stem.left[k]).sum();
        product / middle.map(|k| song.left[k] * song.left[k]).sum::<f32>()
    })
}

#[test]
fn compat_gives_the_levels_of_the_peer() {
    // primary = p d, secondary = m - p d, where m = d is the song, lowered to a peak of 0.9 if it is above. The tone's
    // ends overshoot a little, and the peak with them.
    let check = |peak: f32, expected: [f32; 2]| {
        let found = peers_stems(peak);
        let close = found
            .iter()
            .zip(expected)
            .all(|(found, expected)| (found - expected).abs() < 0.02);
        assert!(close, "peak {peak}: {found:?} instead of {expected:?}");
    };
    check(0.5, [0.5, 0.5]);
    // m = x / 2; p d = 0.9 x, whose peak of 1.62 is lowered to 0.9: x / 2; m - p d = -0.4 x.
    check(1.8, [0.5, -0.4]);
}

#[test]
fn cuda_that_is_not_there_is_an_error_and_never_the_processor() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let nowhere = bench.path("no-cache");
    let mut command = bench.command(&[&song], &["--provider", "cuda"]);
    let output = command
        .env("SEPARATION_CACHE_DIR", &nowhere)
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .unwrap();
    check_failed(
        &output,
        &["no-cache/onnxruntime", "cuda", "cargo xtask setup --cuda"],
    );
    let cpu_build = separation_worker::places::Places::from_environment()
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
fn a_missing_onnx_runtime_says_where_it_was_looked_for() {
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
