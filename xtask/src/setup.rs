//! Installs ONNX Runtime, the default model and, on request, the requirements of the tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::models;
use crate::onnx_runtime::{self, Build};
use crate::project::Project;
use crate::system::{self, Need};
use crate::test;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also install the build for NVIDIA GPUs (a 250 MB download), and list the CUDA libraries that it needs
    #[arg(long)]
    cuda: bool,

    /// Also install the requirements of tests: Kafka, Kubernetes, an S3 server, a browser, Python packages, songs
    #[arg(long)]
    tests: bool,

    /// Program that installs the default model [default: one that is built in the profile release]
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
}

/// `cargo xtask setup`.
pub(crate) fn setup(project: &Project, options: &Options) -> Result<()> {
    system::ensure(match options.worker {
        Some(_) => &[Need::Pip],
        None => system::FOR_BUILDING,
    })?;
    onnx_runtime::install(project, Build::Cpu)?;
    if options.cuda {
        let directory = onnx_runtime::install(project, Build::Cuda)?;
        onnx_runtime::report_cuda_libraries(project, &directory)?;
    }
    if options.tests {
        test::install(project)?;
    }
    models::setup(project, options.worker.as_deref())
}
