//! Parameters of an MDX-Net model, under the names in UVR's own data.

use serde::Deserialize;

use super::stem_name::{StemName, StemNameError};
use crate::engine::{FixedSizes, HOP_FRAMES, OverlapError, ShapeError, SpectrumShape, SpectrumSizes};

/// T if neither the model nor its parameters give it: 2^8.
const DEFAULT_COLUMNS: usize = 256;

/// Parameters that a model's file does not contain.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelParameters {
    /// Length of the transform (`mdx_n_fft_scale_set`).
    pub n_fft: usize,
    /// F, if given (`mdx_dim_f_set`).
    pub rows: Option<usize>,
    /// T, if given (2 to the power of `mdx_dim_t_set`).
    pub columns: Option<usize>,
    /// The factor that corrects the model's level (`compensate`).
    pub compensate: f32,
    /// The stem that the model finds (`primary_stem`).
    pub primary_stem: StemName,
}

/// Why parameters are not those of a model that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// Missing keys or wrong types.
    #[error("not the parameters of a model")]
    Malformed(#[source] serde_json::Error),
    /// Parameters of a model of another architecture.
    #[error(
        "`config_yaml` is set: the model is not MDX-Net but of a kind that needs that configuration; fix: convert it to \
         JSON and name it as the model's parameters file"
    )]
    OtherArchitecture,
    /// A factor out of range.
    #[error(
        "`compensate` must be a number above 0 and at most {}, found {found}",
        ModelParameters::MAX_COMPENSATE
    )]
    Compensate {
        /// The given value.
        found: f64,
    },
    /// More columns than fit in memory.
    #[error("`mdx_dim_t_set` is the logarithm of T to base 2 and at most 13, found {found}")]
    Columns {
        /// The given value.
        found: u32,
    },
    /// A stem name that cannot be used in a file name.
    #[error("the name of a stem cannot be used")]
    Stem(#[from] StemNameError),
    /// An overlap out of range.
    #[error("`overlap` cannot be used")]
    Overlap(#[from] OverlapError),
    /// Two declarations of one model.
    #[error("`{key}` is declared as {first} and as {second}; fix: correct the sidecar")]
    Disagreement {
        /// The key.
        key: &'static str,
        /// One value.
        first: String,
        /// The other value.
        second: String,
    },
    /// Metadata of a model that needs something that is not supported.
    #[error("the metadata in the file has `{key}` = {found}, but only {expected} is supported")]
    OtherValue {
        /// The key.
        key: &'static str,
        /// The supported value.
        expected: &'static str,
        /// The value in the file.
        found: String,
    },
    /// Metadata of a model whose transform has another window.
    #[error(
        "the metadata in the file names a window of {found}, but only Hann windows of n_fft frames are supported"
    )]
    OtherWindow {
        /// The value in the file.
        found: String,
    },
}

/// The keys of the file; unknown ones are ignored.
#[derive(Deserialize)]
struct Keys {
    compensate: f64,
    mdx_dim_f_set: Option<usize>,
    mdx_dim_t_set: Option<u32>,
    mdx_n_fft_scale_set: usize,
    primary_stem: String,
}

impl ModelParameters {
    /// Published models have 1.01 to 1.09; a larger value is a mistake.
    const MAX_COMPENSATE: f64 = 16.0;
    /// 2^13 columns are the most that a spectrum may have.
    const MAX_COLUMNS_LOG2: u32 = 13;

    /// Whether an object has keys of UVR.
    pub(super) fn is_declared_by(json: &serde_json::Value) -> bool {
        let keys = [
            "compensate",
            "mdx_dim_f_set",
            "mdx_dim_t_set",
            "mdx_n_fft_scale_set",
            "primary_stem",
        ];
        keys.into_iter().any(|key| json.get(key).is_some())
    }

    /// The parameters in one JSON object.
    ///
    /// # Errors
    /// If keys are missing, of another type or out of range, or belong to another kind of model.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ParameterError> {
        if json.get("config_yaml").is_some_and(|value| !value.is_null()) {
            return Err(ParameterError::OtherArchitecture);
        }
        let keys = Keys::deserialize(json).map_err(ParameterError::Malformed)?;
        if !(keys.compensate > 0.0 && keys.compensate <= Self::MAX_COMPENSATE) {
            return Err(ParameterError::Compensate {
                found: keys.compensate,
            });
        }
        if let Some(found) = keys.mdx_dim_t_set.filter(|&log2| log2 > Self::MAX_COLUMNS_LOG2) {
            return Err(ParameterError::Columns { found });
        }
        Ok(Self {
            n_fft: keys.mdx_n_fft_scale_set,
            rows: keys.mdx_dim_f_set,
            columns: keys.mdx_dim_t_set.map(|log2| 1 << log2),
            compensate: keys.compensate as f32,
            primary_stem: StemName::new(&keys.primary_stem)?,
        })
    }

    /// The shape of the model's spectra, given the sizes that its file fixes.
    ///
    /// # Errors
    /// If the file and the parameters disagree, or no chunk can have that shape.
    pub fn shape(&self, fixed: FixedSizes) -> Result<SpectrumShape, ShapeError> {
        let rows = agree("F", "mdx_dim_f_set", fixed.rows, self.rows)?.ok_or(ShapeError::UnknownRows)?;
        let columns = agree("T", "2^mdx_dim_t_set", fixed.columns, self.columns)?.unwrap_or(DEFAULT_COLUMNS);
        SpectrumShape::new(SpectrumSizes {
            n_fft: self.n_fft,
            hop_frames: HOP_FRAMES,
            rows,
            columns,
        })
    }
}

fn agree(
    what: &'static str,
    key: &'static str,
    in_model: Option<usize>,
    given: Option<usize>,
) -> Result<Option<usize>, ShapeError> {
    match (in_model, given) {
        (Some(in_model), Some(given)) if in_model != given => Err(ShapeError::Disagreement {
            what,
            key,
            in_model,
            given,
        }),
        _ => Ok(in_model.or(given)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys() -> serde_json::Value {
        json!({
            "compensate": 1.035, "mdx_dim_f_set": 2048, "mdx_dim_t_set": 8,
            "mdx_n_fft_scale_set": 6144, "primary_stem": "Vocals", "is_karaoke": true,
        })
    }

    fn with(key: &str, value: serde_json::Value) -> Result<ModelParameters, ParameterError> {
        let mut keys = keys();
        keys[key] = value;
        ModelParameters::from_json(&keys)
    }

    #[test]
    fn uvrs_keys_are_read_and_others_ignored() {
        let parameters = ModelParameters::from_json(&keys()).unwrap();
        assert_eq!(parameters.compensate, 1.035);
        assert_eq!(parameters.primary_stem.as_str(), "vocals");
        assert_eq!(
            parameters.shape(FixedSizes::default()).unwrap(),
            SpectrumShape::new(SpectrumSizes {
                n_fft: 6144,
                hop_frames: HOP_FRAMES,
                rows: 2048,
                columns: 256
            })
            .unwrap()
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_name() {
        assert!(matches!(
            with("compensate", json!(0)),
            Err(ParameterError::Compensate { .. })
        ));
        assert!(matches!(
            with("compensate", json!(1e9)),
            Err(ParameterError::Compensate { .. })
        ));
        assert!(matches!(
            with("mdx_dim_t_set", json!(64)),
            Err(ParameterError::Columns { found: 64 })
        ));
        assert!(matches!(
            with("primary_stem", json!("../x")),
            Err(ParameterError::Stem(_))
        ));
        assert!(matches!(
            with("mdx_n_fft_scale_set", json!("big")),
            Err(ParameterError::Malformed(_))
        ));
        assert!(matches!(
            with("config_yaml", json!("model.yaml")),
            Err(ParameterError::OtherArchitecture)
        ));
    }

    #[test]
    fn the_file_and_the_parameters_must_agree() {
        let parameters = ModelParameters::from_json(&keys()).unwrap();
        assert!(
            parameters
                .shape(FixedSizes {
                    rows: Some(2048),
                    columns: Some(256)
                })
                .is_ok()
        );
        assert!(matches!(
            parameters.shape(FixedSizes {
                rows: Some(3072),
                columns: None
            }),
            Err(ShapeError::Disagreement {
                what: "F",
                in_model: 3072,
                given: 2048,
                ..
            })
        ));
        assert!(matches!(
            parameters.shape(FixedSizes {
                rows: None,
                columns: Some(128)
            }),
            Err(ShapeError::Disagreement { what: "T", .. })
        ));
    }
}
