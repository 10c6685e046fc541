//! The built-in model separates real songs at least as well as documented.
//!
//! Needs the songs, ONNX Runtime and ffmpeg, all of which `cargo xtask test` installs.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use separation::audio::{OutputFormat, StereoBlock, WavSamples};
use separation::engine::Control;
use separation::locations::Locations;
use separation::model::{ModelChoice, StemName};
use separation::onnx::RuntimeOptions;
use separation::song::{Formula, Normalize, Separator, SongSettings, StemFormat, StemOutput, StemRate};
use separation_evaluation::{files, mix, pairs, sdr};

/// SDR in dB of the two stems.
#[derive(Debug, Clone, Copy)]
struct Quality {
    vocals_db: f64,
    instrumental_db: f64,
}

fn songs() -> PathBuf {
    Locations::from_environment().cache_dir.unwrap().join("songs")
}

fn write(path: &Path, block: &StereoBlock) {
    files::write_wav(path, WavSamples::Float32, |sink| Ok(sink.write(block)?)).unwrap();
}

/// Separates the sum of both stems with default settings and measures the resulting stems.
#[expect(clippy::print_stdout, reason = "measured values, shown by --nocapture")]
fn measure(name: &str, vocals: &StereoBlock, instrumental: &StereoBlock) -> Quality {
    let directory = tempfile::tempdir().unwrap();
    let path = |file: &str| directory.path().join(file);
    let mut song = vocals.clone();
    for (song, music) in [
        (&mut song.left, &instrumental.left),
        (&mut song.right, &instrumental.right),
    ] {
        song.iter_mut()
            .zip(music)
            .for_each(|(song, music)| *song += music);
    }
    write(&path("song.wav"), &song);
    let options = RuntimeOptions::cpu(2);
    let mut separator =
        Separator::load(&ModelChoice::Builtin, options, &Locations::from_environment()).unwrap();
    let settings = SongSettings {
        overlap: None,
        denoise: false,
        formula: Formula::Uvr,
        normalize: Normalize::None,
        format: StemFormat::Fixed(OutputFormat::Wav(WavSamples::Float32)),
        rate: StemRate::Fixed,
    };
    let outputs = ["vocals", "instrumental"].map(|stem| StemOutput {
        stem: StemName::new(stem).unwrap(),
        path: path(stem).with_extension("wav"),
    });
    separator
        .separate(
            &path("song.wav"),
            &outputs,
            &settings,
            &mut |_| {},
            &Control::default(),
        )
        .unwrap();
    let sdr_db = |stem: &str, reference: &StereoBlock| {
        let reference_file = path(stem).with_extension("reference.wav");
        write(&reference_file, reference);
        let estimate = path(stem).with_extension("wav");
        sdr::sdr_db(
            &mut files::open(&reference_file).unwrap(),
            &mut files::open(&estimate).unwrap(),
        )
        .unwrap()
    };
    let quality = Quality {
        vocals_db: sdr_db("vocals", vocals),
        instrumental_db: sdr_db("instrumental", instrumental),
    };
    println!(
        "{name}: vocals {:.2} dB, instrumental {:.2} dB",
        quality.vocals_db, quality.instrumental_db
    );
    quality
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    f64::midpoint(figures[(figures.len() - 1) / 2], figures[middle])
}

#[test]
fn real_voices_are_separated_from_real_music() {
    let qualities: Vec<Quality> = pairs::six_pairs(&songs())
        .unwrap()
        .iter()
        .map(|pair| {
            let mix = mix::mix(
                &files::read(&pair.voice).unwrap(),
                &files::read(&pair.music).unwrap(),
            )
            .unwrap();
            measure(&pair.name, &mix.vocals, &mix.instrumental)
        })
        .collect();
    let vocals_db = median(qualities.iter().map(|quality| quality.vocals_db).collect());
    let instrumental_db = median(qualities.iter().map(|quality| quality.instrumental_db).collect());
    // Documented: 2.62 / 4.62. The model reaches 6.0 / 8.0, and this limit detects a loss of half a decibel.
    assert!(vocals_db >= 5.5, "median of vocals: {vocals_db:.2} dB");
    assert!(
        instrumental_db >= 7.5,
        "median of instrumentals: {instrumental_db:.2} dB"
    );
}

#[test]
fn a_released_pop_song_is_separated() {
    let song = songs().join("The Easton Ellises - Falcon 69.stem.mp4");
    let directory = tempfile::tempdir().unwrap();
    // Streams: 0 the master, which is not the sum of the stems; 1 drums, 2 bass, 3 other, 4 vocals.
    let stem = |stream: usize| {
        let wav = directory.path().join(format!("{stream}.wav"));
        let ffmpeg = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(&song)
            .args(["-map", &format!("0:{stream}"), "-c:a", "pcm_f32le"])
            .arg(&wav)
            .status();
        assert!(ffmpeg.unwrap().success(), "ffmpeg reads {}", song.display());
        files::read(&wav).unwrap()
    };
    let mut music = stem(1);
    for other in [stem(2), stem(3)] {
        music
            .left
            .iter_mut()
            .zip(&other.left)
            .for_each(|(sum, sample)| *sum += sample);
        music
            .right
            .iter_mut()
            .zip(&other.right)
            .for_each(|(sum, sample)| *sum += sample);
    }
    let quality = measure("a pop song", &stem(4), &music);
    // Documented: 0.9 / 8.0. The model reaches 4.0 / 11.2.
    assert!(quality.vocals_db >= 3.5, "vocals: {:.2} dB", quality.vocals_db);
    assert!(
        quality.instrumental_db >= 10.5,
        "instrumental: {:.2} dB",
        quality.instrumental_db
    );
}
