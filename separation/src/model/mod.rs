//! Models: their parameters, their level correction and their stems.

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
    /// The built-in model: signal processing, not trained.
    Builtin,
    /// An MDX-Net model from a file.
    File {
        /// The ONNX file.
        model: PathBuf,
        /// Its parameters file; without one, parameters are searched next to the model.
        parameters: Option<PathBuf>,
    },
}

impl ModelChoice {
    /// The model for a user's setting: `builtin`, or else a file, with its parameters in `parameters` if
    /// given.
    pub fn named(model: PathBuf, parameters: Option<PathBuf>) -> Self {
        if model.as_os_str() == "builtin" {
            Self::Builtin
        } else {
            Self::File { model, parameters }
        }
    }
}
