//! Locations of files on this machine. The only module of this crate that reads the environment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::model::MODEL_ENDING;

/// The directory of models in the program's directory and in the cache.
const MODELS: &str = "models";

/// The directory of models among Python packages, where `cargo xtask dist` puts them into the wheel.
const PACKAGED_MODELS: &str = "separation_worker/models";

/// Directories and files named by the environment.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    /// `ORT_DYLIB_PATH`: the ONNX Runtime library to use, before any other.
    pub onnx_runtime: Option<PathBuf>,
    /// The directory of this program.
    pub program_dir: Option<PathBuf>,
    /// The directories of Python packages of the environment into which pip installed this program, if it did.
    pub python_packages: Vec<PathBuf>,
    /// Where `cargo xtask` keeps its downloads: `SEPARATION_CACHE_DIR`, else `separation` in
    /// `XDG_CACHE_HOME`, else `~/.cache/separation`.
    pub cache_dir: Option<PathBuf>,
    /// Where models are fetched to: `models` in the cache.
    pub models_dir: Option<PathBuf>,
}

impl Locations {
    /// Reads the locations from this process's environment.
    pub fn from_environment() -> Self {
        let path = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let cache_dir = path("SEPARATION_CACHE_DIR")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("separation")))
            .or_else(|| Some(path("HOME")?.join(".cache/separation")));
        let program_dir = env::current_exe()
            .ok()
            .and_then(|program| Some(program.parent()?.to_path_buf()));
        Self {
            onnx_runtime: path("ORT_DYLIB_PATH"),
            python_packages: program_dir.as_deref().map(python_packages).unwrap_or_default(),
            program_dir,
            models_dir: cache_dir.as_ref().map(|cache| cache.join(MODELS)),
            cache_dir,
        }
    }

    /// Where an installed model of this name may be, in the order in which it is searched. First a file of exactly this
    /// name, in `directory` and in the working directory; then `NAME.onnx` in `directory`, in the program's directory, in
    /// `models` there, among Python packages, and where models are fetched to.
    pub fn model_paths(&self, name: &str, directory: Option<&Path>) -> Vec<PathBuf> {
        let file = match name.ends_with(MODEL_ENDING) {
            true => name.to_owned(),
            false => format!("{name}{MODEL_ENDING}"),
        };
        let program = self.program_dir.as_deref();
        let beside_program = program.map(|program| program.join(MODELS));
        let named = [directory, Some(Path::new("."))];
        let packaged: Vec<PathBuf> = self
            .python_packages
            .iter()
            .map(|packages| packages.join(PACKAGED_MODELS))
            .collect();
        let mut installed = vec![directory, program, beside_program.as_deref()];
        installed.extend(packaged.iter().map(|models| Some(models.as_path())));
        installed.push(self.models_dir.as_deref());
        let in_each = |directories: &[Option<&Path>], file: &str| -> Vec<PathBuf> {
            let directories = directories.iter().flatten();
            directories.map(|directory| directory.join(file)).collect()
        };
        let mut paths = [in_each(&named, name), in_each(&installed, &file)].concat();
        // Of a name with the ending, the first one is both.
        let mut seen = BTreeSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        paths
    }
}

/// `PREFIX/lib/python3.*/site-packages` of a program in `PREFIX/bin`, as pip installs programs and packages: into a virtual
/// environment, for a user, or into a system, where Debian names the directory `dist-packages` and Fedora uses `lib64`.
fn python_packages(program_dir: &Path) -> Vec<PathBuf> {
    let prefix = match program_dir.file_name() {
        Some(name) if name == "bin" => program_dir.parent(),
        _ => None,
    };
    let libraries = prefix
        .into_iter()
        .flat_map(|prefix| ["lib", "lib64"].map(|name| prefix.join(name)));
    let mut found: Vec<PathBuf> = libraries
        .filter_map(|library| fs::read_dir(library).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.path().join(name)))
        .filter(|packages| packages.is_dir())
        .collect();
    // Directories are listed in any order.
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_packages_are_those_of_the_environment_that_has_the_program() {
        let prefix = tempfile::tempdir().unwrap();
        let path = |relative: &str| prefix.path().join(relative);
        for directory in [
            "bin",
            "lib/python3.11/site-packages",
            "lib64/python3.12/dist-packages",
            "lib/perl5/site-packages",
            "lib/python3.13",
        ] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        assert_eq!(
            python_packages(&path("bin")),
            [
                path("lib/python3.11/site-packages"),
                path("lib64/python3.12/dist-packages")
            ]
        );
        // Not the directory of scripts of an environment.
        assert!(python_packages(&path("lib")).is_empty());
        assert!(python_packages(Path::new("/nowhere/bin")).is_empty());
    }

    #[test]
    fn a_model_is_searched_as_named_then_in_the_given_directory_then_beside_the_program_then_in_the_cache() {
        let locations = Locations {
            program_dir: Some("/opt".into()),
            python_packages: vec!["/lib/python3.11/site-packages".into()],
            models_dir: Some("/cache/models".into()),
            ..Locations::default()
        };
        let check = |name, directory: Option<&str>, expected: &[&str]| {
            let paths = locations.model_paths(name, directory.map(Path::new));
            let paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(paths, expected);
        };
        let installed = [
            "/opt/a.onnx",
            "/opt/models/a.onnx",
            "/lib/python3.11/site-packages/separation_worker/models/a.onnx",
            "/cache/models/a.onnx",
        ];
        let of_name = [&["/m/a", "./a", "/m/a.onnx"], &installed[..]].concat();
        check("a", Some("/m"), &of_name);
        let of_file = [&["/m/a.onnx", "./a.onnx"], &installed[..]].concat();
        check("a.onnx", Some("/m"), &of_file);
        check("a.onnx", None, &of_file[1..]);
    }
}
