//! The arguments of `separate` and their validation.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::stem_files;
use crate::audio::{FlacSamples, OutputFormat, WavSamples};
use crate::engine::Overlap;
use crate::model::{ModelChoice, StemName};
use crate::onnx::{MAX_THREADS, Provider, RuntimeOptions, default_threads};
use crate::song::{Formula, Normalize, SongSettings, StemOutput};

const EXAMPLES: &str = "\
Examples:
  separation-worker separate song.mp3 --output-dir stems
  separation-worker separate *.flac --output-dir stems --format flac --bit-depth 24
  separation-worker separate song.wav --output-dir stems --model UVR-MDX-NET-Inst_HQ_4.onnx --stems instrumental
  separation-worker separate song.m4a --output-dir stems --json | jq .outputs

Exit codes: 0 all songs separated, 1 some failed, 2 invalid arguments and nothing started, 130 ended by a signal.
The first signal stops the running song and removes its partial files, a second one ends the program immediately.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SeparateArguments {
    /// Songs: wav, flac, mp3, ogg, opus, m4a, aac, alac, aiff, caf; other formats with ffmpeg, if installed
    #[arg(required = true, value_name = "INPUT")]
    pub(super) inputs: Vec<PathBuf>,

    /// Directory for NAME_vocals.wav and NAME_instrumental.wav; created if missing, existing stems are replaced
    #[arg(long, short, value_name = "DIR")]
    pub(super) output_dir: PathBuf,

    /// `builtin`, or an MDX-Net model
    #[arg(long, value_name = "builtin|FILE.onnx", default_value = "builtin")]
    model: PathBuf,

    /// The model's parameters: a sidecar or UVR's mdx_model_data.json [default: searched next to the model]
    #[arg(long, value_name = "FILE.json")]
    model_data: Option<PathBuf>,

    /// Stems to write [default: both]
    #[arg(long, value_name = "STEM", value_delimiter = ',')]
    stems: Vec<StemName>,

    /// File format of the stems
    #[arg(long, value_enum, default_value_t = Format::Wav)]
    format: Format,

    /// Bits per sample of wav and flac; 32f is 32-bit floating point, wav only
    #[arg(long, value_enum, value_name = "BITS")]
    bit_depth: Option<BitDepth>,

    /// Overlap of chunks, as a fraction of a chunk, at most 0.99; a larger overlap is smoother and slower
    #[arg(long, value_name = "FRACTION", default_value_t = Overlap::DEFAULT.fraction())]
    overlap: f64,

    /// Run the model a second time on the inverted song, to cancel the model's noise; twice as slow
    #[arg(long)]
    denoise: bool,

    /// `peak` scales a stem down if it would clip; `none` keeps the levels, so that the stems sum to the song
    #[arg(long, value_enum, default_value_t = NormalizeChoice::None)]
    normalize: NormalizeChoice,

    /// CPU threads for the model, at most 256 [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: Option<u16>,

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Wav,
    Flac,
    /// Only in builds with the cargo feature `mp3`
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
    pub(super) fn model(&self) -> Result<ModelChoice> {
        let model = ModelChoice::named(self.model.clone(), self.model_data.clone());
        ensure!(
            model != ModelChoice::Builtin || self.model_data.is_none(),
            "--model-data needs a model file; fix: add --model FILE.onnx"
        );
        Ok(model)
    }

    pub(super) fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider {
                ProviderChoice::Cpu => Provider::Cpu,
                ProviderChoice::Cuda => Provider::Cuda,
            },
            threads: self.threads.map_or_else(default_threads, usize::from),
        }
    }

    pub(super) fn settings(&self) -> Result<SongSettings> {
        Ok(SongSettings {
            overlap: Overlap::new(self.overlap).context("--overlap")?,
            denoise: self.denoise,
            formula: match self.compat {
                None => Formula::Uvr,
                Some(Compat::AudioSeparator) => Formula::AudioSeparator,
            },
            normalize: match self.normalize {
                NormalizeChoice::None => Normalize::None,
                NormalizeChoice::Peak => Normalize::Peak,
            },
            format: self.output_format()?,
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

    fn output_format(&self) -> Result<OutputFormat> {
        Ok(match (self.format, self.bit_depth) {
            (Format::Wav, None | Some(BitDepth::Int16)) => OutputFormat::Wav(WavSamples::Int16),
            (Format::Wav, Some(BitDepth::Int24)) => OutputFormat::Wav(WavSamples::Int24),
            (Format::Wav, Some(BitDepth::Float32)) => OutputFormat::Wav(WavSamples::Float32),
            (Format::Flac, None | Some(BitDepth::Int16)) => OutputFormat::Flac(FlacSamples::Int16),
            (Format::Flac, Some(BitDepth::Int24)) => OutputFormat::Flac(FlacSamples::Int24),
            (Format::Flac, Some(BitDepth::Float32)) => {
                bail!(
                    "--bit-depth 32f is for wav only: flac has no floating point; fix: use --format wav or --bit-depth 24"
                )
            }
            (Format::Mp3, Some(_)) => {
                bail!("--bit-depth is for wav and flac only; fix: omit it for mp3")
            }
            (Format::Mp3, None) if cfg!(not(feature = "mp3")) => {
                bail!(
                    "this build cannot write mp3; fix: build with --features mp3 (LAME, LGPL), or use --format flac"
                )
            }
            (Format::Mp3, None) => OutputFormat::Mp3,
        })
    }

    /// The `available` stems that are selected.
    pub(super) fn wanted_stems(&self, available: [StemName; 2]) -> Result<Vec<StemName>> {
        if self.stems.is_empty() {
            return Ok(available.into());
        }
        if let Some(unknown) = self.stems.iter().find(|stem| !available.contains(stem)) {
            let [primary, secondary] = available;
            bail!("--stems: this model has no stem {unknown}; it has {primary} and {secondary}");
        }
        Ok(available
            .into_iter()
            .filter(|stem| self.stems.contains(stem))
            .collect())
    }

    /// The output files of each input's stems.
    pub(super) fn plan_outputs(
        &self,
        stems: &[StemName],
        format: OutputFormat,
    ) -> Result<Vec<Vec<StemOutput>>> {
        let output_dir = fs::canonicalize(&self.output_dir)
            .with_context(|| format!("cannot use --output-dir {}", self.output_dir.display()))?;
        // A missing input is reported when it is separated.
        let inputs: Vec<PathBuf> = self.inputs.iter().flat_map(fs::canonicalize).collect();
        let mut owners: HashMap<PathBuf, &Path> = HashMap::new();
        let mut planned = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let mut outputs = Vec::with_capacity(stems.len());
            for stem in stems {
                let name = output_name(input, stem, format)?;
                let destination = output_dir.join(&name);
                if inputs.contains(&destination) {
                    bail!(
                        "{} would be replaced by a stem of {}; fix: use another --output-dir",
                        destination.display(),
                        input.display()
                    );
                }
                if let Some(other) = owners.insert(destination, input) {
                    let (other, input, name) = (other.display(), input.display(), Path::new(&name).display());
                    bail!(
                        "{other} and {input} would both be written to {name}; fix: rename one, or use two output directories"
                    );
                }
                outputs.push(StemOutput {
                    stem: stem.clone(),
                    path: self.output_dir.join(name),
                });
            }
            planned.push(outputs);
        }
        Ok(planned)
    }
}

fn output_name(input: &Path, stem: &StemName, format: OutputFormat) -> Result<OsString> {
    let song = input
        .file_stem()
        .with_context(|| format!("{} is not a file name", input.display()))?;
    Ok(stem_files::name(song, &format!("_{stem}.{}", format.extension())))
}
