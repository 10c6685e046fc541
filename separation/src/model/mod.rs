//! Models: names, the catalogue, tensor contracts, parameters, licenses and stems.

mod builtin;
mod catalogue;
pub(crate) mod checksum;
mod contract;
mod contract_error;
mod declaration;
pub mod file_kind;
mod interface;
mod kind;
mod parameters;
mod parameters_file;
mod provenance;
mod reading;
pub mod spleeter;
mod stem_name;

use std::path::{Component, PathBuf};

pub use builtin::{BUILTIN_ONNX, builtin_parameters};
pub use catalogue::{
    BUILTIN_MODEL, CatalogueEntry, DEFAULT_MODEL, Fetch, Quality, Wheel, catalogue, install_fix,
};
pub use checksum::{hexadecimal, sha256_of_file};
pub use contract::{Contract, Port, Ports, Stems};
pub use contract_error::ContractError;
pub use declaration::Declaration;
pub use interface::{Element, Interface, TensorInfo};
pub use kind::ContractKind;
pub use parameters::{ModelParameters, ParameterError};
pub use parameters_file::{DeclaredModel, ParametersError, find_parameters, parse_parameters};
pub use provenance::Provenance;
pub use stem_name::{StemName, StemNameError};

/// The end of the names of model files.
pub const MODEL_ENDING: &str = ".onnx";

/// Which model to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The built-in model: signal processing, not trained.
    Builtin,
    /// An installed model. Its file is searched when it is loaded.
    Named {
        /// Its name, or the name of its file.
        name: String,
        /// The directory that is searched first.
        directory: Option<PathBuf>,
        /// Its parameters file; without one, parameters are searched next to the model.
        parameters: Option<PathBuf>,
    },
    /// A model from a file.
    File {
        /// The ONNX file.
        model: PathBuf,
        /// Its parameters file; without one, parameters are searched next to the model.
        parameters: Option<PathBuf>,
    },
}

impl ModelChoice {
    /// The model for a user's setting: `builtin`, a single path component, which is the name of an installed model or of
    /// its file, or the path of a file.
    pub fn from_setting(setting: PathBuf, directory: Option<PathBuf>, parameters: Option<PathBuf>) -> Self {
        if setting.as_os_str() == BUILTIN_MODEL {
            return Self::Builtin;
        }
        let mut components = setting.components();
        let name = match (components.next(), components.next()) {
            (Some(Component::Normal(name)), None) => name.to_str(),
            _ => None,
        };
        match name {
            Some(name) => Self::Named {
                name: name.to_owned(),
                directory,
                parameters,
            },
            None => Self::File {
                model: setting,
                parameters,
            },
        }
    }

    /// A warning, if the model has a name of the catalogue, and its file, with the checksum `sha256`, is another one
    /// than the catalogue pins.
    pub fn warning(&self, sha256: &str) -> Option<String> {
        let Self::Named { name, .. } = self else {
            return None;
        };
        let name = name.strip_suffix(MODEL_ENDING).unwrap_or(name);
        let pinned = CatalogueEntry::named(name)?.sha256.as_deref()?;
        (pinned != sha256).then(|| {
            format!(
                "the file of the model {name} has the SHA-256 {sha256}, not {pinned} as in the catalogue: it is another \
                 version or another model; fix: remove it, then {}",
                install_fix(name)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(setting: &str, expected: &str) {
        let found = match ModelChoice::from_setting(setting.into(), None, None) {
            ModelChoice::Builtin => "builtin".to_owned(),
            ModelChoice::Named { name, .. } => format!("name {name}"),
            ModelChoice::File { model, .. } => format!("file {}", model.display()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_single_path_component_is_a_name_and_anything_else_a_file() {
        check("builtin", "builtin");
        check("spleeter", "name spleeter");
        check("missing.onnx", "name missing.onnx");
        check("./spleeter", "file ./spleeter");
        check("models/a.onnx", "file models/a.onnx");
        check("/models/a", "file /models/a");
        check("..", "file ..");
    }

    #[test]
    fn another_file_with_a_name_of_the_catalogue_is_warned_of() {
        let warning =
            |name: &str, sha256: &str| ModelChoice::from_setting(name.into(), None, None).warning(sha256);
        for name in ["spleeter", "spleeter.onnx"] {
            assert_eq!(warning(name, spleeter::MODEL_SHA256), None);
            let other = warning(name, "0123").unwrap();
            assert!(
                other.contains(spleeter::MODEL_SHA256) && other.ends_with("models fetch spleeter"),
                "{other}"
            );
        }
        for unpinned in ["Kim_Vocal_2", "other", "builtin", "./spleeter.onnx"] {
            assert_eq!(warning(unpinned, "0123"), None, "{unpinned}");
        }
    }
}
