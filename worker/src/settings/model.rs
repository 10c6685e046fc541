//! Settings of the model and its execution provider.

use std::path::PathBuf;

use clap::Args;
use separation_contract::environment as env;

use crate::model::ModelChoice;
use crate::onnx::{MAX_THREADS, Provider, RuntimeOptions, default_threads};

/// Options for the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArguments {
    /// builtin, a file, or the name of a model in the model directory
    #[arg(long, env = env::MODEL_NAME, default_value = "builtin", value_name = "NAME")]
    model_name: PathBuf,
    /// Directory of models
    #[arg(long, env = env::MODEL_FILE_DIR, default_value = "./models", value_name = "DIR")]
    model_file_dir: PathBuf,
    /// cpu or cuda; with cuda, the worker does not start if CUDA is unavailable
    #[arg(long, env = env::PROVIDER, default_value = "cpu", value_name = "PROVIDER", value_parser = ["cpu", "cuda"])]
    provider: String,
    /// CPU threads of the model, at most 256 [default: one per core]
    #[arg(long, env = env::THREADS, value_name = "COUNT",
          value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    threads: Option<u16>,
}

impl ModelArguments {
    /// The selected model.
    pub fn choice(&self) -> ModelChoice {
        let bare = self.model_name.components().count() == 1 && self.model_name.as_os_str() != "builtin";
        let model = if bare && !self.model_name.is_file() {
            self.model_file_dir.join(&self.model_name)
        } else {
            self.model_name.clone()
        };
        ModelChoice::named(model, None)
    }

    /// Execution provider and threads.
    pub fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions {
            provider: match self.provider.as_str() {
                "cuda" => Provider::Cuda,
                _ => Provider::Cpu,
            },
            threads: self.threads.map_or_else(default_threads, usize::from),
        }
    }
}
