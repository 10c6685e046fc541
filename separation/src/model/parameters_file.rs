//! Finds what is declared about a model: in a given file, in the sidecar next to the model, or by the model's hash
//! in UVR's collection.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};
use serde_json::Value;

use super::checksum::hexadecimal;
use super::contract::Contract;
use super::contract_error::ContractError;
use super::declaration::Declaration;
use super::file_kind;
use super::interface::Interface;
use super::parameters::{ModelParameters, ParameterError};

/// UVR hashes the last 10,240,000 bytes of a model, or all of a smaller one.
const HASHED_BYTES: u64 = 10_000 * 1024;

/// The name of UVR's collection of parameters.
const COLLECTION_NAME: &str = "mdx_model_data.json";

/// The largest accepted parameters file: UVR's collection has 60 kB, this is 64 times as much.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What is declared about a model.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclaredModel {
    /// The parameters of an MDX-Net model, by UVR's keys.
    MdxNet(ModelParameters),
    /// Parts of another tensor contract.
    Tensors(Declaration),
}

impl DeclaredModel {
    fn from_json(json: &Value) -> Result<Self, ParameterError> {
        if !ModelParameters::is_declared_by(json) && Declaration::is_declared_by(json) {
            Declaration::from_json(json).map(Self::Tensors)
        } else {
            ModelParameters::from_json(json).map(Self::MdxNet)
        }
    }

    /// The model's tensor contract, with the interface of its file.
    ///
    /// # Errors
    /// If the file and the declaration disagree, or leave parts open.
    pub fn contract(&self, interface: &Interface) -> Result<Contract, ContractError> {
        match self {
            Self::MdxNet(parameters) => Contract::mdx_net(interface, parameters),
            Self::Tensors(declaration) => Contract::read(interface, declaration.clone()),
        }
    }
}

/// Why a model's parameters are not known.
#[derive(Debug, thiserror::Error)]
pub enum ParametersError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is too large for a parameters file.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes and is not a model parameters file")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not JSON.
    #[error("{path} is not JSON{}", .found.map(|found| format!(": it is {found}")).unwrap_or_default())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Its kind and the fix, if known.
        found: Option<&'static str>,
        /// The position and kind of the JSON error.
        source: serde_json::Error,
    },
    /// A file is neither a sidecar nor a collection that has this model.
    #[error("{path} has no parameters for this model: it is keyed by hash and the model's is {hash}")]
    NotListed {
        /// The file.
        path: PathBuf,
        /// MD5 of the model, as UVR computes it.
        hash: String,
    },
    /// The model's file has another format or is incomplete.
    #[error("cannot use the model {}: the file is {found}", .model.display())]
    NotAModel {
        /// The model.
        model: PathBuf,
        /// Its kind and the fix.
        found: String,
    },
    /// Parameters were found but are invalid.
    #[error("{path} cannot be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ParameterError,
    },
    /// No parameters were found.
    #[error(
        "the parameters of {model} were not found; fix: name a parameters file, or put {sidecar} (keys compensate, \
         mdx_dim_f_set, mdx_dim_t_set, mdx_n_fft_scale_set, primary_stem) or UVR's {COLLECTION_NAME} beside it"
    )]
    NotFound {
        /// The model.
        model: PathBuf,
        /// The sidecar that was searched.
        sidecar: PathBuf,
    },
}

/// What is declared about the model in the file `model`: from `given` if there is one, else from its sidecar
/// (`NAME.json`), else from the collection next to it.
///
/// # Errors
/// If none are found, or the first ones found cannot be used.
pub fn find_parameters(model: &Path, given: Option<&Path>) -> Result<DeclaredModel, ParametersError> {
    let found = parameters_of(model, given);
    // A web page has no parameters.
    let unknown = matches!(
        found,
        Err(ParametersError::NotFound { .. } | ParametersError::NotListed { .. })
    );
    match unknown.then(|| file_kind::not_onnx(model)).flatten() {
        Some(found) => Err(ParametersError::NotAModel {
            model: model.into(),
            found,
        }),
        None => found,
    }
}

fn parameters_of(model: &Path, given: Option<&Path>) -> Result<DeclaredModel, ParametersError> {
    let sidecar = model.with_extension("json");
    let collection = model.with_file_name(COLLECTION_NAME);
    let path = match given {
        Some(given) => given,
        None => [&sidecar, &collection]
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| ParametersError::NotFound {
                model: model.into(),
                sidecar: sidecar.clone(),
            })?,
    };
    let text = read_bounded(path)?;
    let hash = || {
        hash_model(model).map_err(|source| ParametersError::Read {
            path: model.into(),
            source,
        })
    };
    parse_parameters(&text, path, hash)
}

/// The declaration in `text`, the contents of `path`: one object of parameters, or a collection keyed by hash.
///
/// # Errors
/// If it is neither, or has no usable entry for the model.
pub fn parse_parameters(
    text: &[u8],
    path: &Path,
    model_hash: impl FnOnce() -> Result<String, ParametersError>,
) -> Result<DeclaredModel, ParametersError> {
    let json = serde_json::from_slice(file_kind::without_bom(text));
    let json: Value = json.map_err(|source| ParametersError::NotJson {
        path: path.into(),
        found: file_kind::foreign_kind(text),
        source,
    })?;
    let keyed_by_hash = !Declaration::is_declared_by(&json)
        && json
            .as_object()
            .is_some_and(|keys| keys.values().all(Value::is_object));
    let parameters = if keyed_by_hash {
        let hash = model_hash()?;
        let entry = json.get(&hash);
        &entry
            .ok_or_else(|| ParametersError::NotListed {
                path: path.into(),
                hash,
            })?
            .clone()
    } else {
        &json
    };
    DeclaredModel::from_json(parameters).map_err(|source| ParametersError::Unusable {
        path: path.into(),
        source,
    })
}

pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, ParametersError> {
    let unreadable = |source| ParametersError::Read {
        path: path.into(),
        source,
    };
    // Checked before opening: opening a named pipe would block until it has a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ParametersError::TooLarge { path: path.into() });
    }
    Ok(text)
}

/// MD5 of the model's last [`HASHED_BYTES`] bytes, in hexadecimal.
fn hash_model(model: &Path) -> io::Result<String> {
    let mut file = File::open(model)?;
    let skipped = file.metadata()?.len().saturating_sub(HASHED_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut hashed = Vec::new();
    file.take(HASHED_BYTES).read_to_end(&mut hashed)?;
    Ok(hexadecimal(&Md5::digest(&hashed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"{"compensate": 1.035, "mdx_n_fft_scale_set": 6144, "primary_stem": "Vocals"}"#;

    fn directory_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn n_fft_in(directory: &tempfile::TempDir, given: Option<&str>) -> Result<usize, ParametersError> {
        let given = given.map(|name| directory.path().join(name));
        let declared = find_parameters(&directory.path().join("m.onnx"), given.as_deref())?;
        Ok(match declared {
            DeclaredModel::MdxNet(parameters) => parameters.n_fft,
            DeclaredModel::Tensors(declaration) => declaration.n_fft.unwrap(),
        })
    }

    #[test]
    fn the_keys_of_a_sidecar_show_which_contract_it_declares() {
        let directory = directory_with(&[
            ("m.onnx", "content"),
            ("own.json", r#"{"n_fft": 2048, "hop": 441}"#),
            // Only objects, as in a collection.
            (
                "configuration.json",
                r#"{"audio": {"n_fft": 4096}, "training": {}}"#,
            ),
        ]);
        assert_eq!(n_fft_in(&directory, Some("own.json")).unwrap(), 2048);
        assert_eq!(n_fft_in(&directory, Some("configuration.json")).unwrap(), 4096);
    }

    #[test]
    fn a_sidecar_may_state_a_license_besides_either_contract_or_alone() {
        let declared = |text: &str| {
            parse_parameters(text.as_bytes(), Path::new("m.json"), || {
                panic!("not a collection")
            })
        };
        let of_uvr = ENTRY.replace('{', r#"{"license": "MIT", "#);
        assert_eq!(declared(&of_uvr).unwrap(), declared(ENTRY).unwrap());
        let alone = declared(r#"{"license": "MIT", "source": "ann"}"#).unwrap();
        assert_eq!(alone, DeclaredModel::Tensors(Declaration::default()));
        let incomplete = declared(r#"{"license": "MIT", "compensate": 1.0}"#);
        assert!(matches!(incomplete, Err(ParametersError::Unusable { .. })));
    }

    #[test]
    fn a_given_file_wins_over_the_sidecar_and_the_sidecar_over_the_collection() {
        let md5_of_model = "9a0364b9e99bb480dd25e1f0284c8555"; // printf content | md5sum
        let collection = format!(r#"{{"{md5_of_model}": {}}}"#, ENTRY.replace("6144", "7680"));
        let directory = directory_with(&[
            ("m.onnx", "content"),
            ("m.json", ENTRY),
            ("given.json", &ENTRY.replace("6144", "5120")),
            ("mdx_model_data.json", &collection),
        ]);
        assert_eq!(n_fft_in(&directory, Some("given.json")).unwrap(), 5120);
        assert_eq!(n_fft_in(&directory, Some("mdx_model_data.json")).unwrap(), 7680);
        assert_eq!(n_fft_in(&directory, None).unwrap(), 6144);
        fs::remove_file(directory.path().join("m.json")).unwrap();
        assert_eq!(n_fft_in(&directory, None).unwrap(), 7680);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_other_files_are_named() {
        let directory = directory_with(&[
            ("m.onnx", "content"),
            ("m.json", &format!("\u{feff}{ENTRY}")),
            ("page.json", "<!doctype html><title>404</title>"),
            ("pointer.json", "version https://git-lfs.github.com/spec/v1\n"),
        ]);
        assert_eq!(n_fft_in(&directory, None).unwrap(), 6144);
        let utf_16: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(directory.path().join("utf16.json"), utf_16).unwrap();
        fs::write(directory.path().join("m.onnx"), "<html></html>").unwrap();
        fs::remove_file(directory.path().join("m.json")).unwrap();
        let error = n_fft_in(&directory, None).unwrap_err().to_string();
        assert!(error.contains("m.onnx: the file is a web page"), "{error}");
        for (name, found) in [
            ("page.json", "it is a web page"),
            ("pointer.json", "it is a Git LFS pointer"),
            ("utf16.json", "it is UTF-16 text"),
        ] {
            let error = n_fft_in(&directory, Some(name)).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn only_the_end_of_a_large_model_is_hashed() {
        let directory = directory_with(&[]);
        let (large, tail) = (directory.path().join("large"), directory.path().join("tail"));
        let bytes: Vec<u8> = (0..HASHED_BYTES + 1000).map(|k| (k % 251) as u8).collect();
        fs::write(&large, &bytes).unwrap();
        fs::write(&tail, &bytes[1000..]).unwrap();
        assert_eq!(hash_model(&large).unwrap(), hash_model(&tail).unwrap());
    }

    #[test]
    fn only_a_file_of_sensible_size_is_read() {
        let directory = directory_with(&[("m.onnx", "content")]);
        let large = File::create(directory.path().join("large.json")).unwrap();
        large.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(
            n_fft_in(&directory, Some("large.json")),
            Err(ParametersError::TooLarge { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some("/dev/zero")),
            Err(ParametersError::Read { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some(".")),
            Err(ParametersError::Read { .. })
        ));
    }

    #[test]
    fn missing_and_malformed_parameters_are_named() {
        let directory = directory_with(&[
            // Not text: the kind is unknown.
            ("m.onnx", "\u{7}content"),
            ("empty.json", "{}"),
            ("text.json", "no"),
            ("list.json", "[]"),
        ]);
        assert!(matches!(
            n_fft_in(&directory, None),
            Err(ParametersError::NotFound { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some("empty.json")),
            Err(ParametersError::NotListed { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some("text.json")),
            Err(ParametersError::NotJson { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some("list.json")),
            Err(ParametersError::Unusable { .. })
        ));
        assert!(matches!(
            n_fft_in(&directory, Some("none.json")),
            Err(ParametersError::Read { .. })
        ));
    }
}
