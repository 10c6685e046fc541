//! Errors of finding a model's tensor contract.

use super::parameters::ParameterError;
use crate::engine::ShapeError;

/// Why the tensor contract of a model is not known.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// A model of another architecture than its parameters.
    #[error("not an MDX-Net model: {what} must be {expected}, found {found}")]
    NotMdxNet {
        /// The part of its interface.
        what: &'static str,
        /// The interface of an MDX-Net model.
        expected: String,
        /// The interface of this model.
        found: String,
    },
    /// The tensors are not of the declared kind.
    #[error(
        "the model is declared as {declared} ({expected}), but its file has {found}; fix: correct `contract`"
    )]
    OtherKind {
        /// The declared kind.
        declared: &'static str,
        /// Its tensors.
        expected: &'static str,
        /// The tensors of the file.
        found: String,
    },
    /// The tensors are of no known kind.
    #[error("the model's file has {found}, which is no supported tensor contract; supported are {supported}")]
    UnknownKind {
        /// The tensors of the file.
        found: String,
        /// The known kinds.
        supported: String,
    },
    /// A tensor of another element type.
    #[error("the model's tensor {tensor} must be float32 or float16")]
    ElementType {
        /// The tensor.
        tensor: String,
    },
    /// Several readings fit.
    #[error(
        "{subject} can be read as {first} or as {second}; fix: set `{key}` in the model's sidecar (NAME.json)"
    )]
    Ambiguous {
        /// What is read.
        subject: String,
        /// One reading.
        first: String,
        /// Another reading.
        second: String,
        /// The key that decides.
        key: &'static str,
    },
    /// Neither the file nor the sidecar has a needed part.
    #[error("{subject} is not known; fix: set `{key}` in the model's sidecar (NAME.json)")]
    Missing {
        /// What is missing.
        subject: String,
        /// The key that declares it.
        key: &'static str,
    },
    /// The file and the sidecar disagree.
    #[error(
        "the model's file has {subject} = {in_file}, but `{key}` is declared as {declared}; fix: correct the sidecar"
    )]
    Disagreement {
        /// What they disagree about.
        subject: &'static str,
        /// The value in the file.
        in_file: String,
        /// The key.
        key: &'static str,
        /// The declared value.
        declared: String,
    },
    /// The declaration cannot be used.
    #[error("the declaration of the model cannot be used: {reason}")]
    Declaration {
        /// The reason and the fix.
        reason: String,
    },
    /// The metadata in the model's file cannot be used.
    #[error("the metadata in the model's file cannot be used")]
    Metadata(#[from] ParameterError),
    /// The transform does not match the model.
    #[error("the model and its parameters do not match")]
    Shape(#[from] ShapeError),
    /// The file of an MDX-Net model does not have its parameters.
    #[error(
        "an MDX-Net model needs a sidecar with UVR's keys (compensate, mdx_dim_f_set, mdx_dim_t_set, \
         mdx_n_fft_scale_set, primary_stem){metadata}"
    )]
    NoMdxNetParameters {
        /// What the metadata in the file is worth.
        metadata: String,
    },
}

impl ContractError {
    /// Whether a sidecar can add what is not known.
    pub fn needs_sidecar(&self) -> bool {
        matches!(
            self,
            Self::Ambiguous { .. } | Self::Missing { .. } | Self::NoMdxNetParameters { .. }
        )
    }
}
