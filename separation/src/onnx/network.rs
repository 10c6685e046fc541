//! A model loaded in ONNX Runtime.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use ort::ep::{self, ExecutionProvider as _};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session};
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::library::{self, LibraryError};
use super::provider::Provider;
use crate::engine::{FixedSizes, Network, NetworkError, ShapeError, SpectrumShape};
use crate::error::ErrorClass;
use crate::locations::Locations;
use crate::model::file_kind;

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
    /// A model of another architecture.
    #[error("not an MDX-Net model: {what} must be {expected}, found {found}")]
    Interface {
        /// The part of its interface.
        what: &'static str,
        /// The interface of an MDX-Net model.
        expected: String,
        /// The interface of this model.
        found: String,
    },
    /// The model and its parameters do not match.
    #[error("the model and its parameters do not match")]
    Shape(#[from] ShapeError),
}

impl LoadError {
    /// Whether a retry may succeed.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// The sizes of a model's spectra that its file fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileShape {
    fixed_batch: bool,
    sizes: FixedSizes,
}

/// A model loaded into ONNX Runtime.
pub struct OnnxNetwork {
    session: Session,
    shape: SpectrumShape,
    fixed_batch: bool,
    /// Whether its memory can be released.
    shrinks: bool,
    ends_next: bool,
}

impl OnnxNetwork {
    /// Loads a model. `shape` returns the shape of its spectra, given the sizes that the file fixes.
    ///
    /// # Errors
    /// If the library, the provider or the model cannot be used, or the model has another architecture.
    pub fn load(
        source: ModelSource<'_>,
        options: RuntimeOptions,
        locations: &Locations,
        shape: impl FnOnce(FixedSizes) -> Result<SpectrumShape, ShapeError>,
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
        let file = file_shape(&session)?;
        let shape = shape(file.sizes)?;
        Ok(Self {
            session,
            shape,
            fixed_batch: file.fixed_batch,
            shrinks: options.provider == Provider::Cpu,
            ends_next: false,
        })
    }

    /// The most spectra per run, if the model fixes it.
    pub fn batch_limit(&self) -> Option<usize> {
        self.fixed_batch.then_some(1)
    }
}

impl Network for OnnxNetwork {
    fn shape(&self) -> SpectrumShape {
        self.shape
    }

    fn run(&mut self, batch: usize, spectra: &mut [f32]) -> Result<(), NetworkError> {
        let failed = |error: ort::Error| {
            NetworkError::new(
                ErrorClass::Transient,
                "ONNX Runtime could not run it",
                Some(Box::new(error)),
            )
        };
        let per_run = if self.fixed_batch { 1 } else { batch };
        let shape = [per_run, 4, self.shape.rows(), self.shape.columns()];
        let mut options = RunOptions::new().map_err(failed)?;
        if std::mem::take(&mut self.ends_next) && self.shrinks {
            // Releases unused memory after the run, so that an idle worker holds only the model.
            options
                .set("memory.enable_memory_arena_shrinkage", "cpu:0")
                .map_err(failed)?;
        }
        for spectra in spectra.chunks_exact_mut(per_run * self.shape.values()) {
            let input = TensorRef::from_array_view((shape, &*spectra)).map_err(failed)?;
            let outputs = self
                .session
                .run_with_options(ort::inputs![input], &options)
                .map_err(failed)?;
            let (found, values) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
            if values.len() != spectra.len() || !found.iter().map(|&size| size as usize).eq(shape) {
                let found: &[i64] = found;
                let message =
                    format!("the output must have the shape {shape:?} of the input, found {found:?}");
                return Err(NetworkError::new(ErrorClass::Permanent, message, None));
            }
            spectra.copy_from_slice(values);
        }
        Ok(())
    }

    fn ends_next(&mut self) {
        self.ends_next = true;
    }
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
            .with_memory_pattern(true)?
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
        Provider::Cuda => with_cuda(builder).map(Ok),
    }
}

fn with_cuda(builder: SessionBuilder) -> Result<SessionBuilder, LoadError> {
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
        .with_tf32(false)
        .build()
        .error_on_failure();
    builder
        .with_execution_providers([cuda])
        .map_err(|error| LoadError::Provider {
            reason: "CUDA or cuDNN did not start; fix: check the NVIDIA GPU, its driver and its libraries"
                .into(),
            source: Some(error.into()),
        })
}

/// Reads F and T from the model's interface: one float input and one float output of [batch, 4, F, T].
fn file_shape(session: &Session) -> Result<FileShape, LoadError> {
    let ([input], [output]) = (session.inputs(), session.outputs()) else {
        return Err(LoadError::Interface {
            what: "its interface",
            expected: "one input and one output".into(),
            found: format!("{} and {}", session.inputs().len(), session.outputs().len()),
        });
    };
    let taken = tensor_shape("its input", input.dtype())?;
    let given = tensor_shape("its output", output.dtype())?;
    for (taken, given) in [
        (taken.sizes.rows, given.sizes.rows),
        (taken.sizes.columns, given.sizes.columns),
    ] {
        if taken.zip(given).is_some_and(|(taken, given)| taken != given) {
            return Err(LoadError::Interface {
                what: "its output",
                expected: format!("as large as its input ({})", output_words(taken)),
                found: output_words(given),
            });
        }
    }
    Ok(FileShape {
        fixed_batch: taken.fixed_batch || given.fixed_batch,
        sizes: FixedSizes {
            rows: taken.sizes.rows.or(given.sizes.rows),
            columns: taken.sizes.columns.or(given.sizes.columns),
        },
    })
}

fn output_words(size: Option<usize>) -> String {
    size.map_or_else(|| "any size".into(), |size| size.to_string())
}

fn tensor_shape(what: &'static str, value: &ValueType) -> Result<FileShape, LoadError> {
    let other = |found: String| LoadError::Interface {
        what,
        expected: "float32 of [batch, 4, F, T]".into(),
        found,
    };
    let ValueType::Tensor {
        ty: TensorElementType::Float32,
        shape,
        ..
    } = value
    else {
        return Err(other(value.to_string()));
    };
    let [batch, 4, rows, columns] = **shape else {
        return Err(other(value.to_string()));
    };
    if batch > 1 {
        return Err(other(value.to_string()));
    }
    Ok(FileShape {
        fixed_batch: batch == 1,
        sizes: FixedSizes {
            rows: usize::try_from(rows).ok(),
            columns: usize::try_from(columns).ok(),
        },
    })
}
