//! Reports on standard output and standard error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{Bench, SECOND, check_failed, errors, read, reports};

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
fn stems_are_written_to_stems_in_the_working_directory_unless_named() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let mut command = Command::new(env!("CARGO_BIN_EXE_separation-worker"));
    command
        .args(["separate", "--model", "builtin"])
        .arg(song)
        .current_dir(bench.directory.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(bench.stems(), ["song_instrumental.wav", "song_vocals.wav"]);
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
    let not_utf8 = bench.directory.path().join(name);
    fs::rename(bench.song("song.wav"), &not_utf8).unwrap();
    let output = bench.separate(
        &[&not_utf8, &bench.song("song.wav")],
        &["--json", "--stems", "vocals"],
    );
    assert!(output.status.success(), "{}", errors(&output));
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
fn a_closed_standard_output_ends_no_song() {
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
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        assert_eq!(bench.stems().len(), 3);
        fs::remove_dir_all(bench.path("stems")).unwrap();
    }
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_after_all_songs() {
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
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &errors(output);
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
fn a_few_missing_frames_are_given_in_frames() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let mut bytes = fs::read(&song).unwrap();
    let frame_bytes = 8;
    bytes.truncate(bytes.len() - 10 * frame_bytes);
    fs::write(&song, &bytes).unwrap();
    let output = bench.separate(&[&song], &["--stems", "vocals"]);
    assert!(output.status.success(), "{}", errors(&output));
    let expected = "the file ends 10 frames before the length in its header";
    assert!(errors(&output).contains(expected), "{}", errors(&output));
}
