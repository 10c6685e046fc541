//! The catalogue of known models, from `separation/models/catalogue.json`: license, origin, checksum, expected quality.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

const TEXT: &str = include_str!("../../models/catalogue.json");

static ENTRIES: LazyLock<Vec<CatalogueEntry>> =
    LazyLock::new(|| serde_json::from_str(TEXT).expect("a test parses the committed catalogue"));

/// The model of separations that name none.
pub const DEFAULT_MODEL: &str = "spleeter";

/// The name of the model in the program.
pub const BUILTIN_MODEL: &str = "builtin";

/// The license text that must accompany copies of the model `spleeter`, and its parameters.
const SPLEETER_LICENSE: &str = include_str!("../../models/spleeter.LICENSE");
const SPLEETER_PARAMETERS: &str = include_str!("../../models/spleeter.json");

/// A known model.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// Its name, which is also that of its file without `.onnx`.
    pub name: String,
    /// Its architecture.
    pub family: String,
    /// Tensor contracts of its ONNX exports, by the names of `ContractKind` or other ones, which this program cannot run;
    /// empty if no export is known.
    pub contracts: Vec<String>,
    /// Its stems, in the order of its output.
    pub stems: Vec<String>,
    /// The license of its weights, or `none stated`.
    pub license: String,
    /// Where the license is stated, if not with the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_source: Option<String>,
    /// Its author.
    pub source: String,
    /// SHA-256 of its file, if pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size of its file, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Expected quality.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<Quality>,
    /// Peak memory of `separation-worker separate` with it on two cores, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Seconds of audio that `separation-worker separate` separates with it in a second on two cores, if measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_time_factor: Option<f64>,
    /// Whether this program was run with the published weights; none for the built-in model, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_public_export: Option<bool>,
    /// How it is obtained.
    pub fetch: Fetch,
}

/// A measured quality.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// The signal-to-distortion ratio of its stems.
    pub figure: String,
    /// The songs, and who measured.
    pub source: String,
}

/// How a model is obtained.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fetch {
    /// It is in the program.
    BuiltIn,
    /// It is converted from the wheel of a published Python package.
    Package(Wheel),
    /// The user provides its file.
    File {
        /// Where the file is from.
        from: String,
    },
}

/// The wheel of a Python package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Wheel {
    /// Name of the package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the wheel.
    pub sha256: String,
    /// Size of the wheel.
    pub bytes: u64,
}

/// All known models.
pub fn catalogue() -> &'static [CatalogueEntry] {
    &ENTRIES
}

impl CatalogueEntry {
    /// The entry of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ENTRIES.iter().find(|entry| entry.name == name)
    }

    /// The entry whose file has this SHA-256.
    pub fn with_sha256(sha256: &str) -> Option<&'static Self> {
        ENTRIES
            .iter()
            .find(|entry| entry.sha256.as_deref() == Some(sha256))
    }

    /// The text that must accompany copies of the model, if its license requires one.
    pub fn license_text(&self) -> Option<&'static str> {
        (self.name == DEFAULT_MODEL).then_some(SPLEETER_LICENSE)
    }

    /// The sidecar to store next to its file, which has the checksum `sha256`: parameters, name, license and
    /// author. None if this program does not know its parameters.
    pub fn sidecar(&self, sha256: &str) -> Option<String> {
        let parameters = (self.name == DEFAULT_MODEL).then_some(SPLEETER_PARAMETERS)?;
        let mut sidecar: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(parameters).expect("the generator writes an object");
        for (key, value) in [
            ("name", self.name.as_str()),
            ("license", self.license.as_str()),
            ("source", self.source.as_str()),
            ("sha256", sha256),
        ] {
            sidecar.insert(key.to_owned(), value.into());
        }
        let text = serde_json::to_string_pretty(&sidecar).expect("strings and numbers always serialize");
        Some(text + "\n")
    }
}

/// How a user installs the model of this name.
pub fn install_fix(name: &str) -> String {
    match CatalogueEntry::named(name).map(|entry| &entry.fetch) {
        Some(Fetch::Package(_)) => format!("separation-worker models fetch {name}"),
        Some(Fetch::File { .. }) => {
            format!("provide its file; `separation-worker models show {name}` describes where it is from")
        }
        Some(Fetch::BuiltIn) | None => {
            "name a model of `separation-worker models list`, or the path of an .onnx file".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::{ContractKind, ModelParameters, StemName, spleeter};

    /// Tensor contracts of known exports that this program cannot run.
    const OTHER_CONTRACTS: [&str; 2] = ["hybrid", "magnitude"];

    fn is_sha256(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn each_entry_of_the_committed_catalogue_is_valid_and_has_its_own_name() {
        let mut names = BTreeSet::new();
        for entry in catalogue() {
            let name = &entry.name;
            assert!(names.insert(name), "{name} is listed twice");
            assert!(!name.contains(['/', '.']), "{name} is not the name of a file");
            assert!(!entry.license.is_empty() && !entry.source.is_empty(), "{name}");
            for contract in &entry.contracts {
                let is_known = ContractKind::named(contract).is_some();
                assert!(
                    is_known || OTHER_CONTRACTS.contains(&contract.as_str()),
                    "{name}: {contract}"
                );
            }
            for stem in &entry.stems {
                assert_eq!(StemName::new(stem).unwrap().as_str(), stem, "{name}");
            }
            let wheel = match &entry.fetch {
                Fetch::Package(wheel) => Some(&wheel.sha256),
                _ => None,
            };
            for sha256 in entry.sha256.iter().chain(wheel) {
                assert!(is_sha256(sha256), "{name}: {sha256}");
            }
        }
    }

    #[test]
    fn the_pins_of_the_default_model_are_those_of_its_conversion() {
        let entry = CatalogueEntry::named(DEFAULT_MODEL).unwrap();
        let Fetch::Package(wheel) = &entry.fetch else {
            panic!("{:?}", entry.fetch);
        };
        let pins = [&wheel.package, &wheel.version, &wheel.sha256].map(String::as_str);
        assert_eq!(
            pins,
            [spleeter::PACKAGE, spleeter::VERSION, spleeter::WHEEL_SHA256]
        );
        assert_eq!(entry.sha256.as_deref(), Some(spleeter::MODEL_SHA256));
    }

    #[test]
    fn the_default_model_is_accompanied_by_its_parameters_and_its_license() {
        let entry = CatalogueEntry::named(DEFAULT_MODEL).unwrap();
        let sidecar: serde_json::Value = serde_json::from_str(&entry.sidecar("ab").unwrap()).unwrap();
        assert_eq!(
            ModelParameters::from_json(&sidecar).unwrap(),
            spleeter::parameters()
        );
        assert_eq!(sidecar["license"], "MIT");
        assert_eq!(sidecar["sha256"], "ab");
        assert!(entry.license_text().unwrap().starts_with("MIT License"));
        assert_eq!(
            install_fix(DEFAULT_MODEL),
            "separation-worker models fetch spleeter"
        );
        let builtin = CatalogueEntry::named(BUILTIN_MODEL).unwrap();
        assert_eq!((&builtin.fetch, builtin.license_text()), (&Fetch::BuiltIn, None));
    }

    /// The row of a model in the table of docs/models.md.
    fn row(entry: &CatalogueEntry) -> String {
        let or_unknown = |figure: Option<String>| figure.unwrap_or_else(|| "not measured".to_owned());
        let quality: Vec<String> = entry
            .quality
            .iter()
            .map(|quality| format!("{} ({})", quality.figure, quality.source))
            .collect();
        let speed = entry.real_time_factor.map(|factor| format!("{factor:.0}x"));
        let memory = entry
            .peak_memory_bytes
            .map(|bytes| format!("{} MB", bytes / 1_000_000));
        let export = match entry.ran_public_export {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        format!(
            "| `{}` | {} | {} | {} | {} | {export} |",
            entry.name,
            or_unknown((!quality.is_empty()).then(|| quality.join("; "))),
            or_unknown(speed),
            or_unknown(memory),
            entry.license
        )
    }

    #[test]
    fn the_documentation_has_the_row_of_each_model() {
        let document = include_str!("../../../docs/models.md");
        for row in catalogue().iter().map(row) {
            assert!(
                document.lines().any(|line| line == row),
                "docs/models.md lacks this row of `Known models`:\n{row}"
            );
        }
    }

    #[test]
    fn a_model_is_recognized_by_its_checksum() {
        let pinned = catalogue().iter().find(|entry| entry.sha256.is_some()).unwrap();
        let found = CatalogueEntry::with_sha256(pinned.sha256.as_deref().unwrap());
        assert_eq!(found, Some(pinned));
        assert_eq!(CatalogueEntry::with_sha256("0"), None);
    }
}
