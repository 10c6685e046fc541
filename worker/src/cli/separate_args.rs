//! The arguments of `separate` and their validation.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::model_source::ModelSourceArguments;
use super::name_template::NameTemplate;
use super::output_plan::OutputNames;
use super::song_files::{self, SongFile};
use crate::audio::{FlacSamples, Mp3Bitrate, OutputFormat, WavSamples, check_encoder};
use crate::engine::Overlap;
use crate::model::StemName;
use crate::onnx::{MAX_THREADS, Provider, RuntimeOptions, default_threads};
use crate::settings::parse_megabytes;
use crate::song::{Formula, Normalize, SongSettings, StemFormat, StemOutput, StemRate};

/// Selects all stems of a model.
const ALL_STEMS: &str = "all";

const EXAMPLES: &str = "\
Examples:
  separation-worker separate song.mp3
  separation-worker separate *.flac --output-dir stems --format flac --bit-depth 24
  separation-worker separate song.wav --output-dir stems --model UVR-MDX-NET-Inst_HQ_4.onnx --stems instrumental
  separation-worker separate song.wav --output-dir stems --model builtin
  separation-worker separate song.wav --output-dir stems --model htdemucs.onnx --stems all
  separation-worker separate song.wav --output-dir stems --model s3://models/a.onnx --model-sha256 …
  separation-worker separate albums/ --recursive --output-dir stems --skip-existing --format mp3
  separation-worker separate song.flac --output-dir stems --name {name}/{stem} --rate keep --bit-depth keep
  separation-worker separate song.m4a --output-dir stems --json | jq .outputs

Exit codes: 0 all songs separated or skipped, 1 some failed, 2 invalid arguments and nothing started, 130 ended by a signal.
The first signal stops the running song and removes its partial files, a second one ends the program immediately.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SeparateArguments {
    /// Songs: wav, flac, mp3, ogg, opus, m4a, aac, alac, aiff, caf; other formats with ffmpeg, if installed; with
    /// --recursive also directories
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,

    /// Search directories and their sub-directories for songs, by file extension and content; hidden files are left out
    #[arg(long, short)]
    recursive: bool,

    /// Directory for the stems; created if missing, existing stems are replaced; stems of a searched directory keep its
    /// sub-directories
    #[arg(long, short, value_name = "DIR", default_value = "stems")]
    pub(super) output_dir: PathBuf,

    /// Path of each stem below --output-dir, without its extension; {name} is the song's file name without its extension
    #[arg(long, value_name = "TEMPLATE", default_value = "{name}_{stem}")]
    name: NameTemplate,

    /// Skip songs whose stems all exist, however they were made
    #[arg(long)]
    pub(super) skip_existing: bool,

    /// Stems to write, or `all` of the model [default: vocals and instrumental, or all if it has neither]
    #[arg(long, value_name = "STEM", value_delimiter = ',')]
    stems: Vec<StemName>,

    /// File format of the stems
    #[arg(long, value_enum, default_value_t = Format::Wav)]
    format: Format,

    /// Bits per sample of wav and flac [default: 16]; 32f is 32-bit floating point, wav only
    #[arg(long, value_enum, value_name = "BITS")]
    bit_depth: Option<BitDepth>,

    /// Sample rate of the stems in Hz; the stems sum to the song at 44100 only
    #[arg(long, value_enum, value_name = "HZ", default_value_t = Rate::Hz44100)]
    rate: Rate,

    /// Constant bit rate of mp3 in kbit/s [default: variable, LAME V0, about 245]
    #[arg(long, value_name = "KBPS", value_parser = mp3_bitrate_parser())]
    mp3_bitrate: Option<u16>,

    /// Overlap of chunks, as a fraction of a chunk, at most 0.99; a larger overlap is smoother and slower [default: the
    /// model's, 0.25 for MDX-Net]
    #[arg(long, value_name = "FRACTION")]
    overlap: Option<f64>,

    /// Run the model a second time on the inverted song, to cancel the model's noise; twice as slow
    #[arg(long)]
    denoise: bool,

    /// `peak` scales a stem down if it would clip; `none` keeps the levels, so that the stems sum to the song
    #[arg(long, value_enum, default_value_t = NormalizeChoice::None)]
    normalize: NormalizeChoice,

    /// CPU threads for the model, at most 256 [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: Option<u16>,

    /// Limit of the memory of this process, or with cuda of the model on the GPU: measured by a run on silence, and nothing
    /// starts if it is not enough
    #[arg(long = "max-memory", value_name = "MEGABYTES", value_parser = parse_megabytes)]
    max_memory_bytes: Option<u64>,

    /// Execution provider of the model; never falls back to another one
    #[arg(long, value_enum, default_value_t = ProviderChoice::Cpu)]
    provider: ProviderChoice,

    /// Compute stems and levels as another program does, for comparison; the stems then do not sum to the song
    #[arg(long, value_enum, value_name = "PROGRAM", conflicts_with = "normalize")]
    compat: Option<Compat>,

    /// Time limit of one song
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,

    /// Print one JSON object per song to standard output
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) model: ModelSourceArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Wav,
    Flac,
    /// Needs the ffmpeg program
    Mp3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BitDepth {
    #[value(name = "16")]
    Int16,
    #[value(name = "24")]
    Int24,
    #[value(name = "32f")]
    Float32,
    /// The song's own; 16 for lossy songs, see docs/formats.md
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rate {
    #[value(name = "44100")]
    Hz44100,
    /// The song's own
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NormalizeChoice {
    None,
    Peak,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProviderChoice {
    Cpu,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compat {
    AudioSeparator,
}

impl SeparateArguments {
    pub(super) fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider {
                ProviderChoice::Cpu => Provider::Cpu,
                ProviderChoice::Cuda => Provider::Cuda,
            },
            threads: self.threads.map_or_else(default_threads, usize::from),
            max_memory_bytes: self.max_memory_bytes,
        }
    }

    pub(super) fn settings(&self) -> Result<SongSettings> {
        Ok(SongSettings {
            overlap: self.overlap.map(Overlap::new).transpose().context("--overlap")?,
            denoise: self.denoise,
            formula: match self.compat {
                None => Formula::Uvr,
                Some(Compat::AudioSeparator) => Formula::AudioSeparator,
            },
            normalize: match self.normalize {
                NormalizeChoice::None => Normalize::None,
                NormalizeChoice::Peak => Normalize::Peak,
            },
            format: self.stem_format()?,
            rate: match self.rate {
                Rate::Hz44100 => StemRate::Fixed,
                Rate::Keep => StemRate::Song,
            },
        })
    }

    pub(super) fn timeout(&self) -> Result<Option<Duration>> {
        let parse = |seconds: f64| {
            let timeout = Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|timeout| !timeout.is_zero());
            timeout.with_context(|| format!("--timeout must be a number of seconds above 0, found {seconds}"))
        };
        self.timeout.map(parse).transpose()
    }

    fn stem_format(&self) -> Result<StemFormat> {
        ensure!(
            self.mp3_bitrate.is_none() || self.format == Format::Mp3,
            "--mp3-bitrate is for mp3 only; fix: add --format mp3, or omit it"
        );
        let wav = |samples| StemFormat::Fixed(OutputFormat::Wav(samples));
        let flac = |samples| StemFormat::Fixed(OutputFormat::Flac(samples));
        Ok(match (self.format, self.bit_depth) {
            (Format::Wav, None | Some(BitDepth::Int16)) => wav(WavSamples::Int16),
            (Format::Wav, Some(BitDepth::Int24)) => wav(WavSamples::Int24),
            (Format::Wav, Some(BitDepth::Float32)) => wav(WavSamples::Float32),
            (Format::Wav, Some(BitDepth::Keep)) => StemFormat::WavOfSongDepth,
            (Format::Flac, None | Some(BitDepth::Int16)) => flac(FlacSamples::Int16),
            (Format::Flac, Some(BitDepth::Int24)) => flac(FlacSamples::Int24),
            (Format::Flac, Some(BitDepth::Keep)) => StemFormat::FlacOfSongDepth,
            (Format::Flac, Some(BitDepth::Float32)) => {
                bail!(
                    "--bit-depth 32f is for wav only: flac has no floating point; fix: use --format wav or --bit-depth 24"
                )
            }
            (Format::Mp3, Some(_)) => {
                bail!("--bit-depth is for wav and flac only; fix: omit it for mp3")
            }
            (Format::Mp3, None) => {
                let bitrate = self
                    .mp3_bitrate
                    .map_or(Mp3Bitrate::Variable, Mp3Bitrate::Constant);
                let format = OutputFormat::Mp3(bitrate);
                check_encoder(format).context("--format mp3")?;
                StemFormat::Fixed(format)
            }
        })
    }

    /// The `available` stems that are selected.
    pub(super) fn wanted_stems(&self, available: &[StemName]) -> Result<Vec<StemName>> {
        let selected = |wanted: &dyn Fn(&StemName) -> bool| -> Vec<StemName> {
            available.iter().filter(|stem| wanted(stem)).cloned().collect()
        };
        if self.stems.is_empty() {
            let usual = selected(&|stem| ["vocals", "instrumental"].contains(&stem.as_str()));
            return Ok(if usual.is_empty() {
                available.to_vec()
            } else {
                usual
            });
        }
        if self.stems.iter().any(|stem| stem.as_str() == ALL_STEMS) {
            return Ok(available.to_vec());
        }
        if let Some(unknown) = self.stems.iter().find(|stem| !available.contains(stem)) {
            let names: Vec<&str> = available.iter().map(StemName::as_str).collect();
            bail!(
                "--stems: this model has no stem {unknown}; it has {}",
                names.join(", ")
            );
        }
        Ok(selected(&|stem| self.stems.contains(stem)))
    }

    /// The songs that are named or found in directories. `report` receives a line about each directory. The output
    /// directory must exist.
    pub(super) fn songs(&self, report: impl Fn(&str)) -> Result<Vec<SongFile>> {
        let output_dir = fs::canonicalize(&self.output_dir)
            .with_context(|| format!("cannot use --output-dir {}", self.output_dir.display()))?;
        let mut songs = Vec::new();
        for input in &self.inputs {
            if !input.is_dir() {
                songs.push(SongFile {
                    path: input.clone(),
                    directory: PathBuf::new(),
                });
                continue;
            }
            let name = input.display();
            ensure!(
                self.recursive,
                "{name} is a directory; fix: add --recursive (-r) to separate all songs below it"
            );
            let found = song_files::search(input, &output_dir)?;
            let (count, skipped) = (found.songs.len(), found.skipped);
            report(&format!(
                "{name}: songs found: {count}, other files skipped: {skipped}"
            ));
            songs.extend(found.songs);
        }
        Ok(songs)
    }

    /// The output files of each song's stems.
    pub(super) fn plan_outputs(
        &self,
        songs: &[SongFile],
        stems: &[StemName],
        format: StemFormat,
    ) -> Result<Vec<Vec<StemOutput>>> {
        let names = OutputNames {
            output_dir: &self.output_dir,
            template: &self.name,
            extension: format.extension(),
        };
        names.plan(songs, stems)
    }
}

/// The bit rates of MPEG 1 layer III that suit music.
fn mp3_bitrate_parser() -> impl TypedValueParser<Value = u16> {
    PossibleValuesParser::new(["96", "112", "128", "160", "192", "224", "256", "320"])
        .try_map(|kbps| kbps.parse::<u16>())
}
