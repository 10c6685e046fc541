//! Loads ONNX Runtime's shared library, once per process.

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;

use ort::environment::Environment;

use super::provider::Provider;
use crate::locations::Locations;

/// The version that `onnxruntime.toml` pins.
pub const RUNTIME_VERSION: &str = pinned_version(include_str!("../../onnxruntime.toml"));

const LIBRARY_NAME: &str = "libonnxruntime.so";

/// ONNX Runtime allows one environment per process, whichever library it came from.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Why ONNX Runtime could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No library was found.
    #[error(
        "ONNX Runtime {RUNTIME_VERSION} is not installed; looked for:{searched}\nfix: run `cargo xtask setup{}`, or set ORT_DYLIB_PATH to a libonnxruntime.so",
        match provider { Provider::Cpu => "", Provider::Cuda => " --cuda" }
    )]
    NotFound {
        /// The requested provider.
        provider: Provider,
        /// The paths that were searched.
        searched: SearchedPaths,
    },
    /// The library was found and cannot be used.
    #[error("cannot use the ONNX Runtime library {path}")]
    Unusable {
        /// The library.
        path: PathBuf,
        /// The error of the loader or the library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Paths searched without success, in order.
#[derive(Debug)]
pub struct SearchedPaths(Vec<PathBuf>);

impl fmt::Display for SearchedPaths {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|path| write!(out, "\n  {}", path.display()))
    }
}

/// The environment of the process; the first call loads the library.
pub(super) fn environment(locations: &Locations, provider: Provider) -> Result<Environment, LibraryError> {
    let mut loaded = ENVIRONMENT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = &*loaded {
        return Ok(environment.clone());
    }
    let path = find(locations, provider)?;
    let unusable = |source| LibraryError::Unusable {
        path: path.clone(),
        source,
    };
    let environment = ort::init_from(&path)
        .map_err(|error| unusable(error.to_string().into()))?
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string().into()))?;
    // The library's log only repeats its errors.
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    *loaded = Some(environment.clone());
    Ok(environment)
}

/// `ORT_DYLIB_PATH` if set; else the program's directory; else the Python package of this version that pip installed with
/// the program; else the cache that `cargo xtask setup` fills.
fn find(locations: &Locations, provider: Provider) -> Result<PathBuf, LibraryError> {
    if let Some(given) = &locations.onnx_runtime {
        return Ok(given.clone());
    }
    let next_to_program = locations.program_dir.iter().map(|dir| dir.join(LIBRARY_NAME));
    let packaged = locations.python_packages.iter().map(|packages| {
        packages
            .join("onnxruntime/capi")
            .join(format!("{LIBRARY_NAME}.{RUNTIME_VERSION}"))
    });
    let build = match provider {
        Provider::Cpu => "cpu",
        Provider::Cuda => "cuda",
    };
    let cached = locations.cache_dir.iter().map(|dir| {
        dir.join("onnxruntime")
            .join(RUNTIME_VERSION)
            .join(build)
            .join(LIBRARY_NAME)
    });
    let candidates: Vec<PathBuf> = next_to_program.chain(packaged).chain(cached).collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(LibraryError::NotFound {
            provider,
            searched: SearchedPaths(candidates),
        }),
    }
}

/// The value of `version = "…"`, read at compile time so that the version is pinned in one place.
const fn pinned_version(file: &'static str) -> &'static str {
    let key = b"\nversion = \"";
    let bytes = file.as_bytes();
    let mut start = 0;
    while start + key.len() < bytes.len() {
        let mut matched = 0;
        while matched < key.len() && bytes[start + matched] == key[matched] {
            matched += 1;
        }
        if matched == key.len() {
            let first = start + key.len();
            let mut last = first;
            while bytes[last] != b'"' {
                last += 1;
            }
            return file.split_at(last).0.split_at(first).1;
        }
        start += 1;
    }
    panic!("onnxruntime.toml has no version");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_pin_is_a_version() {
        assert_eq!(
            RUNTIME_VERSION
                .split('.')
                .filter(|part| part.parse::<u32>().is_ok())
                .count(),
            3
        );
    }

    #[test]
    fn the_given_path_wins_then_the_program_then_the_python_package_then_the_cache() {
        let [program, python, cache] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let mut locations = Locations {
            onnx_runtime: Some("/given/lib.so".into()),
            program_dir: Some(program.path().into()),
            python_packages: vec![python.path().into()],
            cache_dir: Some(cache.path().into()),
            ..Locations::default()
        };
        assert_eq!(
            find(&locations, Provider::Cpu).unwrap(),
            PathBuf::from("/given/lib.so")
        );
        locations.onnx_runtime = None;
        let cached = cache.path().join("onnxruntime").join(RUNTIME_VERSION).join("cpu");
        fs::create_dir_all(&cached).unwrap();
        fs::write(cached.join(LIBRARY_NAME), "").unwrap();
        assert_eq!(
            find(&locations, Provider::Cpu).unwrap(),
            cached.join(LIBRARY_NAME)
        );
        let packaged = python.path().join("onnxruntime/capi");
        fs::create_dir_all(&packaged).unwrap();
        // A package of another version is not used.
        fs::write(packaged.join("libonnxruntime.so.1.0.0"), "").unwrap();
        assert_eq!(
            find(&locations, Provider::Cpu).unwrap(),
            cached.join(LIBRARY_NAME)
        );
        let packaged = packaged.join(format!("libonnxruntime.so.{RUNTIME_VERSION}"));
        fs::write(&packaged, "").unwrap();
        assert_eq!(find(&locations, Provider::Cpu).unwrap(), packaged);
        fs::write(program.path().join(LIBRARY_NAME), "").unwrap();
        assert_eq!(
            find(&locations, Provider::Cpu).unwrap(),
            program.path().join(LIBRARY_NAME)
        );
    }

    #[test]
    fn a_missing_library_lists_every_path_and_the_command_that_installs_it() {
        let locations = Locations {
            cache_dir: Some("/nowhere".into()),
            ..Locations::default()
        };
        let message = find(&locations, Provider::Cuda).unwrap_err().to_string();
        assert!(message.contains(&format!(
            "/nowhere/onnxruntime/{RUNTIME_VERSION}/cuda/libonnxruntime.so"
        )));
        assert!(message.contains("cargo xtask setup --cuda"));
    }
}
