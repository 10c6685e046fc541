//! Names, contents and levels of stems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::{Bench, SECOND, check_failed, check_refused, errors, max_error_of_sum, read, reports, tones};

#[test]
fn stems_are_named_after_the_song_and_sum_to_it() {
    let bench = Bench::new();
    let song = bench.song("my song.wav");
    let output = bench.separate(&[&song], &["--bit-depth", "32f"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(bench.stems(), ["my song_instrumental.wav", "my song_vocals.wav"]);
    let stems = bench
        .stems()
        .into_iter()
        .map(|name| read(&bench.path("stems").join(name)));
    let [instrumental, vocals] = stems.collect::<Vec<_>>().try_into().unwrap();
    assert!(max_error_of_sum(&read(&song), [&vocals, &instrumental], 0..2 * SECOND) < 1e-6);
}

#[test]
fn stems_of_16_bits_sum_to_the_song_to_one_step() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    assert!(bench.separate(&[&song], &[]).status.success());
    let [instrumental, vocals] =
        ["instrumental", "vocals"].map(|stem| read(&bench.path(&format!("stems/song_{stem}.wav"))));
    let error = max_error_of_sum(&read(&song), [&vocals, &instrumental], 0..2 * SECOND);
    assert!(error <= 1.001 / 32_768.0, "{error}");
}

#[test]
fn one_stem_alone_is_the_same_file_as_with_the_other() {
    for stem in ["vocals", "instrumental"] {
        let bench = Bench::new();
        let song = bench.song("song.wav");
        let file = format!("song_{stem}.wav");
        assert!(bench.separate(&[&song], &["--stems", stem]).status.success());
        assert_eq!(bench.stems(), [&*file]);
        let alone = fs::read(bench.path("stems").join(&file)).unwrap();
        assert!(bench.separate(&[&song], &[]).status.success());
        assert!(
            fs::read(bench.path("stems").join(&file)).unwrap() == alone,
            "{stem}"
        );
    }
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
    assert!(output.status.success(), "{}", errors(&output));
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
fn names_that_would_collide_are_refused_before_anything_starts() {
    let bench = Bench::new();
    let (one, two) = (bench.song("one/song.wav"), bench.song("two/song.flac.wav"));
    let same = bench.song("two/song.wav");
    assert!(
        bench
            .separate(&[&one, &two], &["--stems", "vocals"])
            .status
            .success(),
        "these names differ"
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
fn a_stem_that_would_clip_is_reported_and_scaled_on_request() {
    // Either the song or its inversion has its greatest sample above zero, where integers have one step fewer.
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
        assert_eq!(bench.stems().len(), 2, "the scratch space is removed");
    }
}

/// The stems of a tone with this peak through the identity model, as factors of the tone in the middle of the song.
fn audio_separator_stems(peak: f32) -> [f32; 2] {
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
    assert!(output.status.success(), "{}", errors(&output));
    let song = read(&song);
    ["vocals", "instrumental"].map(|stem| {
        let stem = read(&bench.path(&format!("stems/tone_{stem}.wav")));
        let middle = SECOND / 2..3 * SECOND / 2;
        let product: f32 = middle.clone().map(|k| song.left[k] * stem.left[k]).sum();
        product / middle.map(|k| song.left[k] * song.left[k]).sum::<f32>()
    })
}

#[test]
fn compat_gives_the_levels_of_audio_separator() {
    // primary = p d, secondary = m - p d, where m = d is the song, scaled to a peak of 0.9 if it is above. The tone's
    // ends overshoot slightly, and with them the peak.
    let check = |peak: f32, expected: [f32; 2]| {
        let found = audio_separator_stems(peak);
        let close = found
            .iter()
            .zip(expected)
            .all(|(found, expected)| (found - expected).abs() < 0.02);
        assert!(close, "peak {peak}: {found:?} instead of {expected:?}");
    };
    check(0.5, [0.5, 0.5]);
    // m = x / 2; p d = 0.9 x, whose peak of 1.62 is scaled to 0.9: x / 2; m - p d = -0.4 x.
    check(1.8, [0.5, -0.4]);
}

#[test]
fn all_stems_of_a_model_are_written_on_request() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/wave_demucs_small.onnx");
    let check = |options: &[&str], expected: &[&str]| {
        let output = bench.separate(&[&song], &[&["--model", model], options].concat());
        assert!(output.status.success(), "{}", errors(&output));
        let expected: Vec<String> = expected.iter().map(|stem| format!("song_{stem}.wav")).collect();
        assert_eq!(bench.stems(), expected);
        fs::remove_dir_all(bench.path("stems")).unwrap();
    };
    check(&[], &["instrumental", "vocals"]);
    check(&["--stems", "drums,bass"], &["bass", "drums"]);
    check(
        &["--stems", "all"],
        &["bass", "drums", "instrumental", "other", "vocals"],
    );
}

/// The memory that is stated before the first song, in MB, and the line that states it.
fn stated_memory(output: &Output) -> (f64, String) {
    let text = errors(output);
    let line = text.lines().find(|line| line.contains("at most "));
    let line = line.unwrap_or_else(|| panic!("no bound is stated: {text}"));
    let bound = line
        .split_once("at most ")
        .and_then(|(_, rest)| rest.split_once(" MB"));
    (bound.unwrap().0.parse().unwrap(), line.to_owned())
}

fn fixture(name: &str) -> String {
    format!("{}/tests/models/{name}.onnx", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn memory_stays_below_the_stated_bound_and_near_it() {
    let check = |options: &[&str]| {
        let bench = Bench::new();
        let song = bench.write("song.wav", &tones(60 * SECOND, 0.4));
        let output = bench.separate(
            &[&song],
            &[&["--json", "--max-memory", "100000"], options].concat(),
        );
        let (bound, _) = stated_memory(&output);
        let peak = reports(&output)[0]["peak_memory_bytes"].as_f64().expect("a peak") / 1e6;
        assert!(
            // On a busy machine the model is slower than the encoders, and the queues between them stay empty.
            peak <= bound && bound <= 1.3 * peak,
            "{options:?}: {peak} MB, stated were {bound} MB"
        );
    };
    check(&[]);
    check(&["--format", "flac"]);
    check(&["--model", &fixture("wave_demucs"), "--stems", "all"]);
    check(&["--model", &fixture("spectrum"), "--stems", "all"]);
}

#[test]
fn chunks_are_shortened_below_a_limit_where_the_model_leaves_their_length_open() {
    let bench = Bench::new();
    let song = bench.song("song.wav");
    let sidecar = bench.path("sidecar.json");
    // 20 s
    let declared = r#"{"chunk": 882000, "chunking": "roformer", "stems": ["vocals", "instrumental"]}"#;
    fs::write(&sidecar, declared).unwrap();
    let separate = |megabytes: f64| {
        let megabytes = megabytes.to_string();
        let model = fixture("wave_roformer_small");
        let options = [
            "--model",
            model.as_str(),
            "--model-data",
            sidecar.to_str().unwrap(),
            "--max-memory",
            megabytes.as_str(),
        ];
        bench.separate(&[&song], &options)
    };
    let (needed, line) = stated_memory(&separate(100_000.0));
    assert!(line.contains("chunks of 20.0 s"), "{line}");
    let limit = (needed * 0.7).floor();
    let output = separate(limit);
    assert!(output.status.success(), "{}", errors(&output));
    let (needed, line) = stated_memory(&output);
    assert!(needed <= limit && !line.contains("20.0 s"), "{line}");
    assert_eq!(
        read(&bench.path("stems/song_vocals.wav")).frames(),
        read(&song).frames()
    );
}

#[test]
fn memory_does_not_grow_with_the_song() {
    let bench = Bench::new();
    let peak_bytes = |name: &str, seconds: usize| {
        let song = bench.write(name, &tones(seconds * SECOND, 0.4));
        let output = bench.separate(&[&song], &["--json", "--stems", "vocals"]);
        let report = reports(&output).remove(0);
        report["peak_memory_bytes"].as_u64().expect("a peak")
    };
    let (short, long) = (peak_bytes("short.wav", 20), peak_bytes("long.wav", 260));
    // The samples of the longer song alone are 85 MB more.
    assert!(
        long < short + 25_000_000,
        "{short} bytes for 20 s, {long} for 260 s"
    );
}
