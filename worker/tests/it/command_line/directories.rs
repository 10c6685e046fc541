//! Directories of songs, and songs whose stems exist.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Bench, SECOND, check_refused, errors, read, reports};

#[test]
fn a_directory_is_searched_only_with_recursive() {
    let bench = Bench::new();
    bench.song("music/song.wav");
    let output = bench.separate(&[&bench.path("music")], &[]);
    check_refused(&output, &["music is a directory", "--recursive"]);
    assert!(bench.stems().is_empty());
}

#[test]
fn stems_of_a_directory_are_in_its_sub_directories_and_other_files_are_skipped() {
    let bench = Bench::new();
    let music = bench.path("music");
    let named = bench.song("named.wav");
    bench.song("music/b.wav");
    bench.song("music/album/a.wav");
    fs::write(music.join("album/cover.jpg"), "a picture").unwrap();
    symlink(&music, music.join("album/loop")).unwrap();
    let abandoned = bench.path("stems/album/.a_vocals.wav-x.separation.part");
    fs::create_dir_all(abandoned.parent().unwrap()).unwrap();
    fs::write(&abandoned, "of a killed run").unwrap();
    let output = bench.separate(&[&music, &named], &["-r", "--stems", "vocals"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(
        bench.stems(),
        ["album/a_vocals.wav", "b_vocals.wav", "named_vocals.wav"]
    );
    let expected = "music: songs found: 2, other files skipped: 1";
    assert!(errors(&output).contains(expected), "{}", errors(&output));
}

#[test]
fn stems_below_a_searched_directory_are_not_separated_again() {
    let bench = Bench::new();
    bench.song("song.wav");
    for _ in 0..2 {
        let output = bench.separate(&[bench.directory.path()], &["-r", "--stems", "vocals"]);
        assert!(output.status.success(), "{}", errors(&output));
        assert_eq!(bench.stems(), ["song_vocals.wav"]);
    }
    let output = bench.separate(&[&bench.path("stems")], &["-r"]);
    check_refused(&output, &["--output-dir", "fix: use another"]);
}

#[test]
fn songs_of_two_directories_that_would_collide_are_refused_before_anything_starts() {
    let bench = Bench::new();
    bench.song("one/album/song.wav");
    bench.song("two/album/song.wav");
    let output = bench.separate(&[&bench.path("one"), &bench.path("two")], &["--recursive"]);
    check_refused(&output, &["album/song_vocals.wav", "rename"]);
    assert!(bench.stems().is_empty());
}

#[test]
fn songs_whose_stems_exist_are_skipped_and_others_are_separated() {
    let bench = Bench::new();
    let songs = [bench.song("complete.wav"), bench.song("partial.wav")];
    let songs: Vec<&Path> = songs.iter().map(|song| &**song).collect();
    let stem = |name: &str| bench.path("stems").join(name);
    fs::create_dir(bench.path("stems")).unwrap();
    for name in [
        "complete_vocals.wav",
        "complete_instrumental.wav",
        "partial_vocals.wav",
    ] {
        fs::write(stem(name), "earlier").unwrap();
    }
    let output = bench.separate(&songs, &["--skip-existing", "--json"]);
    assert!(output.status.success(), "{}", errors(&output));
    let reports = reports(&output);
    assert_eq!(reports[0]["status"], "skipped");
    assert_eq!(
        reports[0]["outputs"]["vocals"],
        stem("complete_vocals.wav").to_str().unwrap()
    );
    assert_eq!(reports[1]["status"], "separated");
    assert_eq!(fs::read(stem("complete_vocals.wav")).unwrap(), b"earlier");
    for name in ["partial_vocals.wav", "partial_instrumental.wav"] {
        assert_eq!(read(&stem(name)).frames(), 2 * SECOND, "{name}");
    }
    let again = bench.separate(&songs, &["--skip-existing"]);
    assert!(again.status.success(), "{}", errors(&again));
    let text = String::from_utf8(again.stdout).unwrap();
    assert_eq!(
        text.matches("skipped, because its stems exist").count(),
        2,
        "{text}"
    );
}
