//! A model loaded in ONNX Runtime.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use ort::ep::{self, ExecutionProvider as _};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionOutputs};

use super::interface::interface;
use super::library::{self, LibraryError};
use super::provider::Provider;
use super::tensors::{self, failed};
use crate::engine::{Network, NetworkError, Tensors};
use crate::error::ErrorClass;
use crate::locations::Locations;
use crate::model::{Contract, ContractError, Interface, Ports, file_kind};

/// The most threads for one run of a model: more than any machine benefits from, and few enough to start and
/// stop in a second.
pub const MAX_THREADS: usize = 256;

/// The number of cores that this process may use, at most [`MAX_THREADS`].
pub fn default_threads() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(MAX_THREADS)
}

/// How to run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The execution provider. An unavailable provider is an error, never a silent fallback.
    pub provider: Provider,
    /// CPU threads for one run of the model, at most [`MAX_THREADS`].
    pub threads: usize,
    /// Limit of the memory of separations: of this process, or with CUDA of the model on the GPU. None by default.
    pub max_memory_bytes: Option<u64>,
}

impl RuntimeOptions {
    /// On the CPU, without a limit of memory.
    pub const fn cpu(threads: usize) -> Self {
        Self {
            provider: Provider::Cpu,
            threads,
            max_memory_bytes: None,
        }
    }
}

/// Source of the model's bytes.
#[derive(Debug, Clone, Copy)]
pub enum ModelSource<'m> {
    /// In memory.
    Bytes(&'m [u8]),
    /// In an ONNX file.
    File(&'m Path),
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// ONNX Runtime itself is unusable.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The requested provider is not active.
    #[error("provider cuda cannot be used: {reason}")]
    Provider {
        /// What is missing and how to install it.
        reason: String,
        /// The error of ONNX Runtime.
        source: Option<ort::Error>,
    },
    /// The file has another format or is incomplete.
    #[error("cannot load the model {}: the file is {found}", .path.display())]
    NotOnnx {
        /// The model's file.
        path: PathBuf,
        /// Its kind and the fix.
        found: String,
    },
    /// ONNX Runtime cannot load the model.
    #[error("cannot load the model{}", .path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default())]
    Session {
        /// The model's file.
        path: Option<PathBuf>,
        /// The error of ONNX Runtime.
        source: ort::Error,
    },
    /// The tensor contract of the model is not known.
    #[error(transparent)]
    Contract(#[from] ContractError),
}

impl LoadError {
    /// Whether a retry may succeed.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// A model loaded into ONNX Runtime.
pub struct OnnxNetwork {
    session: Session,
    contract: Contract,
    /// Whether its memory can be released.
    shrinks: bool,
    ends_next: bool,
}

impl OnnxNetwork {
    /// Loads a model. `contract` returns its tensor contract, given the interface of its file.
    ///
    /// # Errors
    /// If the library, the provider or the model cannot be used, or its tensor contract is not known.
    pub fn load(
        source: ModelSource<'_>,
        options: RuntimeOptions,
        locations: &Locations,
        contract: impl FnOnce(&Interface) -> Result<Contract, ContractError>,
    ) -> Result<Self, LoadError> {
        let environment = library::environment(locations, options.provider)?;
        let builder = configure(Session::builder(&environment), options)?;
        let path = match source {
            ModelSource::Bytes(_) => None,
            ModelSource::File(path) => Some(path.to_path_buf()),
        };
        let mut builder = builder.map_err(|source| LoadError::Session {
            path: path.clone(),
            source,
        })?;
        let session = match source {
            ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
            ModelSource::File(path) => builder.commit_from_file(path),
        }
        .map_err(|source| session_error(path, source))?;
        let contract = contract(&interface(&session))?;
        Ok(Self {
            session,
            contract,
            shrinks: options.provider == Provider::Cpu,
            ends_next: false,
        })
    }

    /// The model's tensor contract.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Takes chunks of half the length from now on, if the model's file leaves it open and half is long enough.
    pub fn halve_chunks(&mut self) -> bool {
        match self.contract.halved() {
            Some(halved) => self.contract = halved,
            None => return false,
        }
        true
    }

    /// The most chunks per run, if the model limits them. The values of several chunks are contiguous only where the
    /// model has one input.
    pub fn batch_limit(&self) -> Option<usize> {
        let ports = &self.contract.ports;
        (ports.fixed_batch || ports.inputs.len() > 1).then_some(1)
    }
}

impl Network for OnnxNetwork {
    fn tensors(&self) -> Tensors {
        self.contract.tensors
    }

    fn run(&mut self, batch: usize, values: &mut Vec<f32>, outputs: &[usize]) -> Result<(), NetworkError> {
        let per_run = self.batch_limit().unwrap_or(batch);
        let mut options = RunOptions::new().map_err(failed)?;
        if std::mem::take(&mut self.ends_next) && self.shrinks {
            // Releases unused memory after the run, so that an idle worker holds only the model.
            options
                .set("memory.enable_memory_arena_shrinkage", "cpu:0")
                .map_err(failed)?;
        }
        let Contract { ports, tensors, .. } = &self.contract;
        let session = &mut self.session;
        if per_run == batch {
            let found = execute(session, ports, batch, values, &options)?;
            values.clear();
            return tensors::collect(ports, tensors.stems, batch, &found, outputs, values);
        }
        let inputs = std::mem::take(values);
        for input in inputs.chunks_exact(per_run * tensors.chunk.values()) {
            let found = execute(session, ports, per_run, input, &options)?;
            tensors::collect(ports, tensors.stems, per_run, &found, outputs, values)?;
        }
        Ok(())
    }

    fn ends_next(&mut self) {
        self.ends_next = true;
    }
}

fn execute<'s>(
    session: &'s mut Session,
    ports: &Ports,
    batch: usize,
    values: &[f32],
    options: &'s RunOptions,
) -> Result<SessionOutputs<'s>, NetworkError> {
    let inputs = tensors::inputs(ports, batch, values)?;
    session.run_with_options(inputs, options).map_err(failed)
}

/// The error for a model that was not loaded: the kind of file, if recognized, else the runtime's error.
fn session_error(path: Option<PathBuf>, source: ort::Error) -> LoadError {
    let found = path.as_deref().and_then(file_kind::not_onnx);
    match (path, found) {
        (Some(path), Some(found)) => LoadError::NotOnnx { path, found },
        (path, _) => LoadError::Session { path, source },
    }
}

/// Session options. The outer error is explained by us, the inner one is the runtime's.
fn configure(
    builder: ort::Result<SessionBuilder>,
    options: RuntimeOptions,
) -> Result<ort::Result<SessionBuilder>, LoadError> {
    let common = |builder: SessionBuilder| -> ort::Result<SessionBuilder> {
        Ok(builder
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(options.threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            // A plan of all tensors would be a second arena: the first run, which records it, has allocated them singly.
            // It does not make runs faster.
            .with_memory_pattern(false)?
            // The transforms need the cores that spinning would occupy.
            .with_intra_op_spinning(false)?
            .with_flush_to_zero()?)
    };
    let builder = match builder.and_then(common) {
        Ok(builder) => builder,
        Err(error) => return Ok(Err(error)),
    };
    match options.provider {
        Provider::Cpu => {
            let cpu = ep::CPU::default().with_arena_allocator(true).build();
            Ok(builder.with_execution_providers([cpu]).map_err(ort::Error::from))
        }
        Provider::Cuda => with_cuda(builder, options.max_memory_bytes).map(Ok),
    }
}

fn with_cuda(builder: SessionBuilder, max_memory_bytes: Option<u64>) -> Result<SessionBuilder, LoadError> {
    if !ep::CUDA::is_available().unwrap_or(false) {
        let reason = "this build of ONNX Runtime has no CUDA; fix: run `cargo xtask setup --cuda`";
        return Err(LoadError::Provider {
            reason: reason.into(),
            source: None,
        });
    }
    let cuda = ep::CUDA::default()
        .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
        // TF32 keeps 10 bits of each factor: too few for results that match the CPU's to 1e-4.
        .with_tf32(false);
    let cuda = match max_memory_bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) => cuda.with_memory_limit(bytes),
        None => cuda,
    };
    builder
        .with_execution_providers([cuda.build().error_on_failure()])
        .map_err(|error| LoadError::Provider {
            reason: "CUDA or cuDNN did not start; fix: check the NVIDIA GPU, its driver and its libraries"
                .into(),
            source: Some(error.into()),
        })
}
