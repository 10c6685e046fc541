//! Finds what `cargo xtask` installed. Installs nothing.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const PINS: &str = include_str!("../parts.toml");

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pins {
    kafka: Pin,
    versitygw: Pin,
    kafka_python: Pin,
}

#[derive(Debug, Deserialize)]
struct Pin {
    version: String,
}

/// Where the installed parts lie.
#[derive(Debug, Clone)]
pub struct Parts {
    pub(crate) kafka_lib: PathBuf,
    pub(crate) versitygw: PathBuf,
    kafka_python: PathBuf,
}

impl Parts {
    /// Finds them in `SEPARATION_CACHE_DIR`, else `separation` in `XDG_CACHE_HOME`, else `~/.cache/separation`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn locate() -> Result<Self> {
        Self::locate_in(&cache_dir().context("no cache directory; fix: set HOME or SEPARATION_CACHE_DIR")?)
    }

    /// The existing system's Kafka client, for `PYTHONPATH`.
    pub fn kafka_python(&self) -> &Path {
        &self.kafka_python
    }

    fn locate_in(cache: &Path) -> Result<Self> {
        let pins: Pins = toml::from_str(PINS).context("testbed/parts.toml is not as expected")?;
        let part = |relative: String| {
            let path = cache.join(relative);
            ensure!(
                path.exists(),
                "{} is not there; fix: `cargo xtask setup --tests` installs it",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            kafka_lib: part(format!("kafka/{}/lib", pins.kafka.version))?,
            versitygw: part(format!("versitygw/{}/versitygw", pins.versitygw.version))?,
            kafka_python: part(format!("kafka-python/{}", pins.kafka_python.version))?,
        })
    }
}

fn cache_dir() -> Option<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SEPARATION_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("separation")))
        .or_else(|| Some(set("HOME")?.join(".cache/separation")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_installs_it() {
        let empty = tempfile::tempdir().unwrap();
        let missing = Parts::locate_in(empty.path()).unwrap_err().to_string();
        assert!(missing.contains("/kafka/4"), "{missing}");
        assert!(
            missing.ends_with("`cargo xtask setup --tests` installs it"),
            "{missing}"
        );
    }
}
