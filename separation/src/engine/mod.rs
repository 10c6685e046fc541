//! Separation of an audio stream into stems. Imports no file, Kafka or ONNX code.

mod chunk_transform;
mod control;
mod cutter;
mod error;
mod geometry;
mod level;
mod overlap_add;
mod pipeline;
mod spectrum;
mod stems;
mod stft;
mod tensors;

pub use control::{CancelToken, Control, Progress, Stopped};
pub use error::{NetworkError, SeparateError};
pub use geometry::{ChunkGrid, Chunking, Overlap, OverlapError};
pub use level::{Level, LevelMeter};
pub use pipeline::{Network, Plan, separate};
pub use spectrum::{FixedSizes, HOP_FRAMES, ShapeError, SpectrumShape, SpectrumSizes};
pub use stems::{StemFormula, StemSource};
pub use stft::{Analyzer, Synthesizer};
pub use tensors::{ChunkTensor, SpectrumLayout, SpectrumOutput, SpectrumScale, SpectrumTensor, Tensors};
