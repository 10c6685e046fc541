//! What a model is made for: its transform, its level and the stem it finds.

mod builtin;
pub(crate) mod file_kind;
mod parameters;
mod parameters_file;
mod stem_name;

use std::path::PathBuf;

pub use builtin::{BUILTIN_ONNX, builtin_parameters};
pub use parameters::{ModelParameters, ParameterError};
pub use parameters_file::{ParametersError, find_parameters, parse_parameters};
pub use stem_name::{StemName, StemNameError};

/// Which model to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The one in this program: signal processing, no training.
    Builtin,
    /// An MDX-Net model from a file.
    File {
        /// The ONNX file.
        model: PathBuf,
        /// A file with its parameters; without it they are looked for beside the model.
        parameters: Option<PathBuf>,
    },
}

impl ModelChoice {
    /// The model that a person names: `builtin`, or else a file, with its parameters in `parameters` if they are given.
    pub fn named(model: PathBuf, parameters: Option<PathBuf>) -> Self {
        if model.as_os_str() == "builtin" {
            Self::Builtin
        } else {
            Self::File { model, parameters }
        }
    }
}
