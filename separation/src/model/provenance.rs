//! License and origin of a loaded model, so that its user can tell whether it may be used.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::catalogue::{BUILTIN_MODEL, CatalogueEntry};
use super::file_kind;
use super::parameters_file::read_bounded;

/// The longest name, license or author of a sidecar, in bytes: manifests, which have a size limit, contain them.
const MAX_BYTES: usize = 1_000;

/// License and origin of a model, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
    /// The license of its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The keys of a sidecar; others are parameters.
#[derive(Default, Deserialize)]
struct Sidecar {
    name: Option<String>,
    license: Option<String>,
    source: Option<String>,
}

impl Provenance {
    /// That of the built-in model.
    pub fn of_builtin(sha256: String) -> Self {
        Self::from_catalogue(CatalogueEntry::named(BUILTIN_MODEL), sha256).unwrap_or_default()
    }

    /// That of a model file with this SHA-256: from the catalogue, else from `name`, `license` and `source` of the
    /// sidecar, which is `parameters` or next to the model. A sidecar that cannot be read states none of them, and longer
    /// texts than 1,000 bytes are ignored.
    pub fn of_file(model: &Path, parameters: Option<&Path>, sha256: String) -> Self {
        if let Some(known) = Self::from_catalogue(CatalogueEntry::with_sha256(&sha256), sha256.clone()) {
            return known;
        }
        let sidecar = parameters.map_or_else(|| model.with_extension("json"), Path::to_path_buf);
        let text = read_bounded(&sidecar).unwrap_or_default();
        let stated: Sidecar = serde_json::from_slice(file_kind::without_bom(&text)).unwrap_or_default();
        let bounded = |text: Option<String>| text.filter(|text| text.len() <= MAX_BYTES);
        Self {
            name: bounded(stated.name),
            sha256,
            license: bounded(stated.license),
            source: bounded(stated.source),
        }
    }

    fn from_catalogue(entry: Option<&CatalogueEntry>, sha256: String) -> Option<Self> {
        let entry = entry?;
        Some(Self {
            name: Some(entry.name.clone()),
            sha256,
            license: Some(entry.license.clone()),
            source: Some(entry.source.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_states_the_license_of_a_known_file_whatever_its_sidecar_states() {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("m.onnx");
        let sidecar = format!(
            r#"{{"license": "CC0", "source": "ann", "name": "{}", "primary_stem": "Vocals"}}"#,
            "m".repeat(MAX_BYTES + 1)
        );
        std::fs::write(directory.path().join("m.json"), sidecar).unwrap();
        let known = crate::model::catalogue()
            .iter()
            .find_map(|entry| entry.sha256.clone())
            .unwrap();
        let of_known = Provenance::of_file(&model, None, known.clone());
        assert_eq!(of_known.license.as_deref(), Some("MIT"));
        assert_eq!(of_known.sha256, known);
        let of_other = Provenance::of_file(&model, None, "0".repeat(64));
        assert_eq!(of_other.license.as_deref(), Some("CC0"));
        assert_eq!(of_other.source.as_deref(), Some("ann"));
        assert_eq!(of_other.name, None);
        // No sidecar states nothing.
        let alone = Provenance::of_file(&directory.path().join("n.onnx"), None, "0".repeat(64));
        assert_eq!(alone.license, None);
    }

    #[test]
    fn the_built_in_model_has_the_license_of_the_program() {
        let provenance = Provenance::of_builtin("0".repeat(64));
        assert_eq!(provenance.name.as_deref(), Some("builtin"));
        assert_eq!(provenance.license.as_deref(), Some(env!("CARGO_PKG_LICENSE")));
    }
}
