//! The main job in one command: build, separate a song, say where the stems are and how well it went.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::binaries::{Binaries, Mix, Report, Separation};
use crate::project::Project;
use crate::songs;

/// The mix that is the demo's song: a real voice over real music.
const DEMO_MIX: u32 = 1;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Songs to separate instead of the demo's own
    files: Vec<PathBuf>,
}

/// `cargo xtask demo`.
pub(crate) fn demo(project: &Project, options: &Options) -> Result<()> {
    let files = found(&options.files)?;
    let binaries = Binaries::build(project)?;
    let stems = project.path("stems");
    if !files.is_empty() {
        let reports = binaries.separate(&files, &stems, &[])?;
        return report_all(&binaries, &reports);
    }
    let songs = songs::install(project)?;
    let mixes = binaries.mix(&songs, &project.target("demo"), Some(DEMO_MIX))?;
    let song = mixes.first().context("separation-evaluation made no mix")?;
    println!("separating {}", song.mix.display());
    let separation = binaries.separate_one(&song.mix, &stems, &[])?;
    report(&binaries, &separation, Some(song))
}

/// The files with their full paths, since the worker is started in the checkout; all that are missing at once.
fn found(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let missing: Vec<_> = files
        .iter()
        .filter(|file| !file.is_file())
        .map(|file| file.display().to_string())
        .collect();
    ensure!(missing.is_empty(), "no such file: {}", missing.join(", "));
    files
        .iter()
        .map(|file| std::path::absolute(file).context("no current directory"))
        .collect()
}

fn report_all(binaries: &Binaries<'_>, reports: &[Report]) -> Result<()> {
    let mut failed = 0;
    for each in reports {
        match each {
            Report::Separated(separation) => report(binaries, separation, None)?,
            Report::Failed { input, error } => {
                failed += 1;
                println!("\n{}\n  FAILED: {error}", input.display());
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} files failed", reports.len());
    Ok(())
}

fn report(binaries: &Binaries<'_>, separation: &Separation, song: Option<&Mix>) -> Result<()> {
    println!("\n{}", separation.input.display());
    for (stem, path) in &separation.outputs {
        let quality = match song.and_then(|song| song.reference(stem)) {
            Some(reference) => format!(
                "  (SDR {:.2} dB against the exact {stem})",
                binaries.sdr_db(reference, path)?
            ),
            None => String::new(),
        };
        println!("  {stem}: {}{quality}", path.display());
    }
    println!("  {}", figures(separation));
    Ok(())
}

fn figures(separation: &Separation) -> String {
    format!(
        "{:.1} s of audio in {:.1} s: {:.1} x real time; peak memory {:.0} MB",
        separation.audio_seconds,
        separation.wall_seconds,
        separation.speed,
        separation.peak_memory_bytes as f64 / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_files_are_named_before_anything_is_built() {
        let refused = found(&["/no/one.mp3".into(), "/".into(), "/no/two.mp3".into()]).unwrap_err();
        assert_eq!(refused.to_string(), "no such file: /no/one.mp3, /, /no/two.mp3");
    }

    #[test]
    fn figures_read_as_a_sentence() {
        let separation = Separation {
            input: "a.wav".into(),
            outputs: [].into(),
            audio_seconds: 31.94,
            wall_seconds: 2.0,
            speed: 15.97,
            peak_memory_bytes: 210_400_000,
            first_chunk_seconds: None,
        };
        assert_eq!(
            figures(&separation),
            "31.9 s of audio in 2.0 s: 16.0 x real time; peak memory 210 MB"
        );
    }
}
