//! The archive for machines without Python and containers: both programs, ONNX Runtime and the default model, which the
//! programs find beside them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::release::{Release, name_for_architecture};
use super::{completions, programs};
use crate::onnx_runtime::{self, Build};
use crate::{archive, models};

const LIBRARY: &str = "libonnxruntime.so";

/// The license of ONNX Runtime and the notices that copies need.
const NOTICES: [&str; 2] = ["LICENSE", "ThirdPartyNotices.txt"];

pub(super) fn write(release: &Release<'_>) -> Result<()> {
    let project = release.project;
    let staging = project.cache().temporary_dir()?;
    let name = name_for_architecture(&release.names.name);
    let root = staging.path().join(&name);
    let worker = programs::worker(release, &root)?;
    let operator = programs::operator(release, &root)?;
    completions::scripts(project, &[worker.program, operator], &root.join("completions"))?;
    let onnx_runtime = onnx_runtime::install(project, Build::Cpu)?;
    copy(&onnx_runtime, &[LIBRARY], &root)?;
    copy(&onnx_runtime, &NOTICES, &root.join("onnxruntime"))?;
    copy(&worker.models, &models::FILES, &root.join("models"))?;
    copy(&project.path("."), &["LICENSE", "NOTICE"], &root)?;
    archive::compress(
        project,
        staging.path(),
        &name,
        &release.path(&format!("{name}.tar.gz")),
    )
}

/// Copies files into a directory, which is created if it does not exist.
pub(super) fn copy(from: &Path, files: &[&str], to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for file in files {
        let source = from.join(file);
        fs::copy(&source, to.join(file)).with_context(|| format!("cannot copy {}", source.display()))?;
    }
    Ok(())
}
