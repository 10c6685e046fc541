//! Models that workers download.

/// Size limit of a model, in bytes: that of a protobuf message, which an ONNX file is.
pub const MAX_MODEL_BYTES: u64 = 2 << 30;
