//! `separation-evaluation`: mixes songs with exactly known stems and measures separated stems.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to standard output, errors to standard error"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use separation::audio::{SAMPLE_RATE_HZ, WavSamples};
use separation_evaluation::{files, looping, mix, pairs, sdr};
use serde::Serialize;

/// Mixes songs with exactly known stems and measures separated stems
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  separation-evaluation mix --songs ~/.cache/separation/songs --output-dir mixes --only 1
  separation-evaluation loop --input song.wav --seconds 3600 --output hour.wav
  separation-evaluation sdr --reference vocals_reference.wav --estimate vocals.wav";

#[derive(Debug, Subcommand)]
enum Command {
    /// Mix two voices over three instrumentals: NAME_mix.wav, NAME_vocals_reference.wav,
    /// NAME_instrumental_reference.wav (32-bit float)
    Mix {
        /// Directory of the songs that `cargo xtask` installs
        #[arg(long, value_name = "DIR")]
        songs: PathBuf,
        /// Output directory of the mixes
        #[arg(long, value_name = "DIR")]
        output_dir: PathBuf,
        /// Make only this one of the six
        #[arg(long, value_name = "1..6", value_parser = clap::value_parser!(u8).range(1..=6))]
        only: Option<u8>,
        /// Print one JSON object per mix
        #[arg(long)]
        json: bool,
    },
    /// Repeat a song to a length, as a 16-bit WAV file
    Loop {
        /// Song file
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// The length in seconds, at most a day
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        seconds: u32,
        /// Output file
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the signal-to-distortion ratio in dB
    Sdr {
        /// Exact stem
        #[arg(long, value_name = "FILE")]
        reference: PathBuf,
        /// Separated stem
        #[arg(long, value_name = "FILE")]
        estimate: PathBuf,
        /// Print a JSON object; its `sdr_db` is null if the two are equal
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Serialize)]
struct MixFiles {
    name: String,
    mix: PathBuf,
    vocals_reference: PathBuf,
    instrumental_reference: PathBuf,
}

#[derive(Debug, Serialize)]
struct Sdr {
    sdr_db: Option<f64>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Mix {
            songs,
            output_dir,
            only,
            json,
        } => {
            let mut selected = pairs::six_pairs(&songs)?;
            if let Some(number) = only {
                selected = vec![selected.swap_remove(usize::from(number) - 1)];
            }
            for pair in &selected {
                let mixed = mix_pair(pair, &output_dir)?;
                if json {
                    println!("{}", serde_json::to_string(&mixed)?);
                } else {
                    println!("{}", mixed.mix.display());
                }
            }
            Ok(())
        }
        Command::Loop {
            input,
            seconds,
            output,
        } => {
            let frames = u64::from(seconds) * u64::from(SAMPLE_RATE_HZ);
            files::write_wav(&output, WavSamples::Int16, |sink| {
                looping::repeat(|| files::open(&input), frames, sink)
                    .with_context(|| format!("cannot repeat {}", input.display()))
            })
        }
        Command::Sdr {
            reference,
            estimate,
            json,
        } => {
            let sdr_db = sdr::sdr_db(&mut files::open(&reference)?, &mut files::open(&estimate)?)
                .with_context(|| {
                    format!(
                        "cannot compare {} with {}",
                        estimate.display(),
                        reference.display()
                    )
                })?;
            if json {
                let sdr_db = sdr_db.is_finite().then_some(sdr_db);
                println!("{}", serde_json::to_string(&Sdr { sdr_db })?);
            } else {
                println!("{sdr_db:.2} dB");
            }
            Ok(())
        }
    }
}

fn mix_pair(pair: &pairs::Pair, output_dir: &Path) -> Result<MixFiles> {
    let (voice, music) = (files::read(&pair.voice)?, files::read(&pair.music)?);
    let mixed = mix::mix(&voice, &music).with_context(|| format!("cannot mix {}", pair.name))?;
    let write = |what: &str, block| -> Result<PathBuf> {
        let path = output_dir.join(format!("{}_{what}.wav", pair.name));
        files::write_wav(&path, WavSamples::Float32, |sink| Ok(sink.write(block)?))?;
        Ok(path)
    };
    Ok(MixFiles {
        mix: write("mix", &mixed.mix)?,
        vocals_reference: write("vocals_reference", &mixed.vocals)?,
        instrumental_reference: write("instrumental_reference", &mixed.instrumental)?,
        name: pair.name.clone(),
    })
}
