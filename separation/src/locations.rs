//! Locations of files on this machine. The only module of this crate that reads the environment.

use std::env;
use std::path::PathBuf;

/// Directories and files named by the environment.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    /// `ORT_DYLIB_PATH`: the ONNX Runtime library to use, before any other.
    pub onnx_runtime: Option<PathBuf>,
    /// The directory of this program.
    pub program_dir: Option<PathBuf>,
    /// Where `cargo xtask` keeps its downloads: `SEPARATION_CACHE_DIR`, else `separation` in
    /// `XDG_CACHE_HOME`, else `~/.cache/separation`.
    pub cache_dir: Option<PathBuf>,
}

impl Locations {
    /// Reads the locations from this process's environment.
    pub fn from_environment() -> Self {
        let path = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            onnx_runtime: path("ORT_DYLIB_PATH"),
            program_dir: env::current_exe()
                .ok()
                .and_then(|program| Some(program.parent()?.to_path_buf())),
            cache_dir: path("SEPARATION_CACHE_DIR")
                .or_else(|| Some(path("XDG_CACHE_HOME")?.join("separation")))
                .or_else(|| Some(path("HOME")?.join(".cache/separation"))),
        }
    }
}
