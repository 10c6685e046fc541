//! Names of stems by `--name`.

use super::{Bench, check_refused, errors};

#[test]
fn a_template_names_stems_and_their_directories() {
    let bench = Bench::new();
    let song = bench.song("my song.wav");
    let output = bench.separate(&[&song], &["--name", "{stem}/the {stem} of {name}"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(
        bench.stems(),
        [
            "instrumental/the instrumental of my song.wav",
            "vocals/the vocals of my song.wav"
        ]
    );
}

#[test]
fn one_stem_needs_no_placeholder_of_its_name() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    check_refused(
        &bench.separate(&[&song], &["--name", "{name}"]),
        &["--name {name}", "add {stem}", "--stems"],
    );
    assert!(bench.stems().is_empty());
    let output = bench.separate(&[&song], &["--name", "{name}", "--stems", "vocals"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(bench.stems(), ["song.wav"]);
}

#[test]
fn templates_without_a_name_for_each_stem_of_each_song_are_refused() {
    let bench = Bench::new();
    let (one, two) = (bench.song("one.wav"), bench.song("two.wav"));
    let check = |template: &str, expected: &[&str]| {
        check_refused(&bench.separate(&[&one, &two], &["--name", template]), expected);
    };
    check("{stem}", &["one.wav", "two.wav", "add {name} to --name"]);
    check("{title}_{stem}", &["--name", "{title}", "{name}"]);
    check("../{name}_{stem}", &["--name", "\"..\"", "below --output-dir"]);
    check("/tmp/{name}_{stem}", &["--name", "below --output-dir"]);
    assert!(bench.stems().is_empty());
}
