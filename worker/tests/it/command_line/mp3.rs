//! Stems as MP3, which ffmpeg encodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Bench, SECOND, check_refused, errors, read};

#[test]
fn mp3_stems_have_the_length_of_the_song() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let sizes = [&[][..], &["--mp3-bitrate", "320"]].map(|options: &[&str]| {
        let output = bench.separate(&[&song], &[&["--format", "mp3"], options].concat());
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(bench.stems(), ["song_instrumental.mp3", "song_vocals.mp3"]);
        let stem = bench.path("stems/song_vocals.mp3");
        assert_eq!(read(&stem).frames(), 2 * SECOND);
        fs::metadata(stem).unwrap().len()
    });
    // 2 s x 320 kbit/s = 80 kB.
    assert!((78_000..84_000).contains(&sizes[1]), "{sizes:?}");
    assert!(sizes[0] < sizes[1], "{sizes:?}");
}

#[test]
fn without_ffmpeg_or_its_encoder_mp3_is_refused_with_the_fix() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let programs = bench.path("programs");
    fs::create_dir(&programs).unwrap();
    let check = |expected: &str| {
        let mut command = bench.command(&[&song], &["--format", "mp3"]);
        let output = command.env("PATH", &programs).output().unwrap();
        check_refused(&output, &["--format mp3", expected, "fix: install"]);
        assert!(!bench.path("stems").exists());
    };
    check("not installed");
    let other_build = programs.join("ffmpeg");
    fs::write(
        &other_build,
        "#!/bin/sh\necho ' A....D aac  AAC (Advanced Audio Coding)'\n",
    )
    .unwrap();
    fs::set_permissions(&other_build, fs::Permissions::from_mode(0o755)).unwrap();
    check("libmp3lame");
}
