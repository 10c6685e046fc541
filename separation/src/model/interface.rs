//! The tensors and the metadata that a model's file declares.

use std::collections::BTreeMap;
use std::fmt;

/// The interface of a model's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its inputs.
    pub inputs: Vec<TensorInfo>,
    /// Its outputs.
    pub outputs: Vec<TensorInfo>,
    /// Its custom metadata.
    pub metadata: BTreeMap<String, String>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// The sizes of its axes; `None` where the file leaves the size open.
    pub sizes: Vec<Option<usize>>,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point (IEEE 754 half precision).
    Float16,
    /// Any other, by its name.
    Other(String),
}

impl fmt::Display for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Other(name) => name,
        })
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: &Option<usize>| size.map_or_else(|| "?".to_owned(), |size| size.to_string());
        let sizes: Vec<String> = self.sizes.iter().map(size).collect();
        write!(out, "{} {} [{}]", self.name, self.element, sizes.join(", "))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |tensors: &[TensorInfo]| {
            let tensors: Vec<String> = tensors.iter().map(TensorInfo::to_string).collect();
            tensors.join(", ")
        };
        write!(out, "{} -> {}", list(&self.inputs), list(&self.outputs))
    }
}
