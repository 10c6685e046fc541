//! MDX-Net separation of an audio stream into two stems. Imports no file, Kafka or ONNX code.

mod control;
mod geometry;
mod overlap_add;
mod pipeline;
mod stems;
mod stft;

pub use control::{CancelToken, Control, Progress, Stopped};
pub use geometry::{
    ChunkGrid, FixedSizes, HOP_FRAMES, Overlap, OverlapError, ShapeError, SpectrumShape, SpectrumSizes,
};
pub use pipeline::{Network, NetworkError, Plan, SeparateError, separate};
pub use stems::{StemBlocks, StemFormula};
pub use stft::{Analyzer, Synthesizer};
