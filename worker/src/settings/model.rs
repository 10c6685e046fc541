//! Settings of the model and its execution provider.

use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use clap::Args;
use separation_contract::environment as env;

use super::{AddressNames, ModelAddress, SettingError};
use crate::locations::Locations;
use crate::model::{DEFAULT_MODEL, ModelChoice};
use crate::onnx::{MAX_THREADS, Provider, RuntimeOptions, default_threads};

/// Options for the directories of models.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelDirectories {
    /// Directory of models, which is searched for a name first
    #[arg(long, env = env::MODEL_FILE_DIR, default_value = "./models", value_name = "DIR")]
    model_file_dir: PathBuf,
    /// Directory of fetched and downloaded models [default: models in ~/.cache/separation]
    #[arg(long, env = env::MODEL_CACHE_DIR, value_name = "DIR")]
    model_cache_dir: Option<PathBuf>,
}

/// Options for the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArguments {
    /// Name of an installed model (`separation-worker models list`), or a file
    #[arg(long, env = env::MODEL_NAME, hide_env_values = true, default_value = DEFAULT_MODEL, value_name = "NAME|FILE")]
    model_name: PathBuf,
    /// Address of a model, in place of its name: https://… or s3://bucket/key; downloaded at start, once
    #[arg(long, env = env::MODEL_URI, hide_env_values = true, default_value = "", hide_default_value = true,
          value_name = "ADDRESS")]
    model_uri: String,
    /// SHA-256 of the file at that address
    #[arg(long, env = env::MODEL_SHA256, default_value = "", hide_default_value = true, value_name = "SHA256")]
    model_sha256: String,
    #[command(flatten)]
    directories: ModelDirectories,
    /// cpu or cuda; with cuda, the worker does not start if CUDA is unavailable
    #[arg(long, env = env::PROVIDER, default_value = "cpu", value_name = "PROVIDER", value_parser = ["cpu", "cuda"])]
    provider: String,
    /// CPU threads of the model, at most 256 [default: one per core]
    #[arg(long, env = env::THREADS, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: Option<u16>,
    /// Limit of the memory of this process, or with cuda of the model on the GPU; the worker does not start if it is not
    /// enough [default: none]
    #[arg(long = "max-memory", env = env::MODEL_MAX_MEMORY, value_name = "MEGABYTES", value_parser = parse_megabytes)]
    max_memory_bytes: Option<u64>,
}

/// The bytes of a number of megabytes (10^6 bytes).
///
/// # Errors
/// If it is not a whole number.
pub fn parse_megabytes(text: &str) -> Result<u64, ParseIntError> {
    Ok(text.parse::<u64>()?.saturating_mul(1_000_000))
}

/// A model as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelReference {
    /// On this machine.
    Local(ModelChoice),
    /// At an address.
    Address {
        /// The address.
        address: ModelAddress,
        /// Its parameters file on this machine; without one, the sidecar next to the address.
        parameters: Option<PathBuf>,
    },
}

impl ModelReference {
    /// Parses a name, a path or an address. `sha256` is the checksum of an address. Errors have the `names` of these
    /// settings.
    ///
    /// # Errors
    /// When the address or the checksum is invalid, or only one of them is given.
    pub fn parse(
        setting: &Path,
        sha256: Option<&str>,
        parameters: Option<PathBuf>,
        directories: &ModelDirectories,
        names: AddressNames,
    ) -> Result<Self, SettingError> {
        if let Some(address) = setting
            .to_str()
            .filter(|setting| ModelAddress::is_address(setting))
        {
            let address = ModelAddress::parse(address, sha256, names)?;
            return Ok(Self::Address { address, parameters });
        }
        if sha256.is_some() {
            let problem = format!("set, but the model {} is not an address", setting.display());
            let fix = "omit it: only downloads are checked";
            return Err(SettingError::new(names.sha256, problem, fix));
        }
        let directory = Some(directories.model_file_dir.clone());
        let choice = ModelChoice::from_setting(setting.to_owned(), directory, parameters);
        Ok(Self::Local(choice))
    }
}

impl ModelDirectories {
    /// The directory that is searched for a name first.
    pub fn model_file_dir(&self) -> &Path {
        &self.model_file_dir
    }

    /// The locations of this process's environment, with the directory of fetched and downloaded models.
    pub fn locations(&self) -> Locations {
        let mut locations = Locations::from_environment();
        if let Some(directory) = &self.model_cache_dir {
            locations.models_dir = Some(directory.clone());
        }
        locations
    }
}

impl ModelArguments {
    /// The selected model.
    ///
    /// # Errors
    /// As [`ModelReference::parse`].
    pub fn reference(&self) -> Result<ModelReference, SettingError> {
        let sha256 = Some(self.model_sha256.trim()).filter(|sha256| !sha256.is_empty());
        let address = self.model_uri.trim();
        if !address.is_empty() {
            let address = ModelAddress::parse(address, sha256, AddressNames::PROCESSOR)?;
            let parameters = None;
            return Ok(ModelReference::Address { address, parameters });
        }
        let names = AddressNames {
            address: env::MODEL_NAME,
            ..AddressNames::PROCESSOR
        };
        ModelReference::parse(&self.model_name, sha256, None, &self.directories, names)
    }

    /// Where models are.
    pub fn directories(&self) -> &ModelDirectories {
        &self.directories
    }

    /// Execution provider and threads.
    pub fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider.as_str() {
                "cuda" => Provider::Cuda,
                _ => Provider::Cpu,
            },
            threads: self.threads.map_or_else(default_threads, usize::from),
            max_memory_bytes: self.max_memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        model: ModelArguments,
    }

    fn reference(options: &[&str]) -> Result<ModelReference, SettingError> {
        let line = <Line as clap::Parser>::parse_from([&["test"], options].concat());
        line.model.reference()
    }

    #[test]
    fn without_a_setting_the_model_is_the_one_that_the_operator_sets() {
        let expected = ModelChoice::Named {
            name: separation_contract::names::DEFAULT_MODEL.to_owned(),
            directory: Some("./models".into()),
            parameters: None,
        };
        assert_eq!(reference(&[]), Ok(ModelReference::Local(expected.clone())));
        // As when an environment variable is set to nothing.
        let empty = reference(&["--model-uri=", "--model-sha256="]);
        assert_eq!(empty, Ok(ModelReference::Local(expected)));
        let builtin = reference(&["--model-name=builtin"]);
        assert_eq!(builtin, Ok(ModelReference::Local(ModelChoice::Builtin)));
    }

    #[test]
    fn an_address_replaces_the_name_and_needs_a_checksum() {
        let checksum = format!("--model-sha256={SHA256}");
        for option in ["--model-uri", "--model-name"] {
            let address = format!("{option}=s3://models/a.onnx");
            let found = reference(&[&address, &checksum]).expect("an address");
            assert!(
                matches!(&found, ModelReference::Address { address, .. }
                    if address.location.to_string() == "s3://models/a.onnx"),
                "{found:?}"
            );
            let missing = reference(&[&address]).expect_err("no checksum");
            assert_eq!(missing.name, env::MODEL_SHA256);
        }
        for option in ["--model-uri", "--model-name"] {
            let address = format!("{option}=s3://models");
            let invalid = reference(&[&address, &checksum]).expect_err("no file");
            let variable = option[2..].replace('-', "_").to_uppercase();
            assert_eq!(invalid.name, variable);
        }
        let unused = reference(&["--model-name=spleeter", &checksum]).expect_err("no address");
        assert!(
            unused.problem.contains("spleeter is not an address"),
            "{}",
            unused.problem
        );
    }
}
