//! The parts of a tensor contract that a model's tensors do not show: declared by its sidecar or by the metadata in
//! its file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::kind::ContractKind;
use super::parameters::ParameterError;
use super::stem_name::StemName;
use crate::engine::{Chunking, Overlap, SpectrumOutput};

/// Sections of a configuration of ZFTurbo's Music-Source-Separation-Training.
const CONFIGURATION_SECTIONS: [&str; 3] = ["audio", "training", "inference"];

/// Parts of a tensor contract; `None` is not declared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declaration {
    /// The kind of contract.
    pub kind: Option<ContractKind>,
    /// Names of the stems, in the order of the model's output.
    pub stems: Option<Vec<StemName>>,
    /// Length of a transform.
    pub n_fft: Option<usize>,
    /// Frames between two transforms.
    pub hop_frames: Option<usize>,
    /// Frames of a chunk.
    pub chunk_frames: Option<usize>,
    /// Overlap of chunks.
    pub overlap: Option<Overlap>,
    /// Number of chunks that cover each frame.
    pub overlapping_chunks: Option<usize>,
    /// How chunks are cut and joined.
    pub chunking: Option<Chunking>,
    /// The meaning of the model's output.
    pub output: Option<SpectrumOutput>,
    /// Whether the song is normalized.
    pub is_normalized: Option<bool>,
    /// Whether the transform is divided by the square root of n_fft.
    pub has_normalized_spectra: Option<bool>,
    /// The stem that is the rest of the song without one that the model finds.
    pub residual_stem: Option<StemName>,
}

/// The keys of a sidecar; unknown ones are ignored.
#[derive(Deserialize)]
struct Keys {
    contract: Option<ContractKind>,
    stems: Option<Vec<String>>,
    n_fft: Option<usize>,
    hop: Option<usize>,
    chunk: Option<usize>,
    overlap: Option<f64>,
    num_overlap: Option<usize>,
    chunking: Option<ChunkingKey>,
    output: Option<OutputKey>,
    normalize: Option<bool>,
    stft_normalized: Option<bool>,
    residual_stem: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ChunkingKey {
    Demucs,
    Roformer,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OutputKey {
    Spectrum,
    Mask,
}

impl Declaration {
    /// Whether an object is a sidecar that declares parts of a tensor contract, or none of them besides a license.
    pub(super) fn is_declared_by(json: &Value) -> bool {
        let keys = [
            "contract",
            "stems",
            "n_fft",
            "hop",
            "chunk",
            "overlap",
            "num_overlap",
            "chunking",
            "output",
            "normalize",
            "stft_normalized",
            "residual_stem",
            "model_config",
            "name",
            "license",
            "source",
        ];
        keys.into_iter().any(|key| json.get(key).is_some()) || is_configuration(json)
    }

    /// The declaration in a JSON object: our own keys, and a configuration of ZFTurbo's training program, as the
    /// object itself or as its `model_config`.
    ///
    /// # Errors
    /// If a key has another type or is out of range, or two keys disagree.
    pub fn from_json(json: &Value) -> Result<Self, ParameterError> {
        let keys = Keys::deserialize(json).map_err(ParameterError::Malformed)?;
        let own = Self {
            kind: keys.contract,
            stems: keys.stems.as_deref().map(names).transpose()?,
            n_fft: keys.n_fft,
            hop_frames: keys.hop,
            chunk_frames: keys.chunk,
            overlap: keys.overlap.map(Overlap::new).transpose()?,
            overlapping_chunks: keys.num_overlap,
            chunking: keys.chunking.map(|key| match key {
                ChunkingKey::Demucs => Chunking::Demucs,
                ChunkingKey::Roformer => Chunking::Roformer,
            }),
            output: keys.output.map(|key| match key {
                OutputKey::Spectrum => SpectrumOutput::Spectrum,
                OutputKey::Mask => SpectrumOutput::Mask,
            }),
            is_normalized: keys.normalize,
            has_normalized_spectra: keys.stft_normalized,
            residual_stem: keys.residual_stem.as_deref().map(StemName::new).transpose()?,
        };
        match json.get("model_config") {
            Some(Value::String(text)) => {
                let config = serde_json::from_str(text).map_err(ParameterError::Malformed)?;
                own.join(from_configuration(&config)?)
            }
            Some(config) => own.join(from_configuration(config)?),
            None if is_configuration(json) => own.join(from_configuration(json)?),
            None => Ok(own),
        }
    }

    /// The declaration in the custom metadata of an ONNX file: JSON in `sep_meta` or `model_config`, or the keys that
    /// the exporter of Unblend writes.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), and for a model that needs another sample rate or another transform.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let get = |key: &str| metadata.get(key).map(String::as_str);
        if let Some(rate) = get("sample_rate").filter(|rate| *rate != "44100") {
            return Err(other_value("sample_rate", "44100", rate));
        }
        let mut declared = unblend(&get)?;
        if let Some(text) = get("sep_meta") {
            let json = serde_json::from_str(text).map_err(ParameterError::Malformed)?;
            declared = declared.join(Self::from_json(&json)?)?;
        }
        if let Some(text) = get("model_config") {
            let json = serde_json::from_str(text).map_err(ParameterError::Malformed)?;
            declared = declared.join(from_configuration(&json)?)?;
        }
        Ok(declared)
    }

    /// Both declarations together.
    ///
    /// # Errors
    /// If they disagree.
    pub fn join(self, other: Self) -> Result<Self, ParameterError> {
        Ok(Self {
            kind: same("contract", self.kind, other.kind)?,
            stems: same("stems", self.stems, other.stems)?,
            n_fft: same("n_fft", self.n_fft, other.n_fft)?,
            hop_frames: same("hop", self.hop_frames, other.hop_frames)?,
            chunk_frames: same("chunk", self.chunk_frames, other.chunk_frames)?,
            // A matter of taste, not of the model: the sidecar's wins.
            overlap: self.overlap.or(other.overlap),
            overlapping_chunks: self.overlapping_chunks.or(other.overlapping_chunks),
            chunking: same("chunking", self.chunking, other.chunking)?,
            output: same("output", self.output, other.output)?,
            is_normalized: same("normalize", self.is_normalized, other.is_normalized)?,
            has_normalized_spectra: same(
                "stft_normalized",
                self.has_normalized_spectra,
                other.has_normalized_spectra,
            )?,
            residual_stem: same("residual_stem", self.residual_stem, other.residual_stem)?,
        })
    }
}

/// Neither of two declarations overrides the other.
fn same<T: PartialEq + std::fmt::Debug>(
    key: &'static str,
    first: Option<T>,
    second: Option<T>,
) -> Result<Option<T>, ParameterError> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => Err(ParameterError::Disagreement {
            key,
            first: format!("{first:?}"),
            second: format!("{second:?}"),
        }),
        (first, second) => Ok(first.or(second)),
    }
}

fn other_value(key: &'static str, expected: &'static str, found: &str) -> ParameterError {
    ParameterError::OtherValue {
        key,
        expected,
        found: found.to_owned(),
    }
}

fn names<S: AsRef<str>>(names: &[S]) -> Result<Vec<StemName>, ParameterError> {
    let names: Result<Vec<_>, _> = names.iter().map(|name| StemName::new(name.as_ref())).collect();
    Ok(names?)
}

fn is_configuration(json: &Value) -> bool {
    CONFIGURATION_SECTIONS
        .into_iter()
        .filter(|section| json.get(section).is_some_and(Value::is_object))
        .count()
        >= 2
}

/// A configuration of ZFTurbo's Music-Source-Separation-Training, as JSON.
fn from_configuration(config: &Value) -> Result<Declaration, ParameterError> {
    let stems = match config.pointer("/training/target_instrument") {
        Some(Value::String(target)) => Some(vec![StemName::new(target)?]),
        _ => config
            .pointer("/training/instruments")
            .map(|list| Vec::<String>::deserialize(list).map_err(ParameterError::Malformed))
            .transpose()?
            .map(|list| names(&list))
            .transpose()?,
    };
    // Only the configurations of Demucs have a segment, in seconds.
    let segment = typed::<usize>(config, "/training/segment")?
        .zip(typed::<usize>(config, "/training/samplerate")?)
        .map(|(seconds, rate)| seconds.saturating_mul(rate));
    Ok(Declaration {
        stems,
        n_fft: first_number(config, &["/model/stft_n_fft", "/audio/n_fft"])?,
        hop_frames: first_number(config, &["/model/stft_hop_length", "/audio/hop_length"])?,
        chunk_frames: match segment {
            Some(segment) => Some(segment),
            None => first_number(config, &["/inference/chunk_size", "/audio/chunk_size"])?,
        },
        overlapping_chunks: typed(config, "/inference/num_overlap")?,
        chunking: segment.map(|_| Chunking::Demucs),
        is_normalized: typed(config, "/inference/normalize")?,
        has_normalized_spectra: typed(config, "/model/stft_normalized")?,
        ..Declaration::default()
    })
}

fn first_number(config: &Value, pointers: &[&'static str]) -> Result<Option<usize>, ParameterError> {
    for pointer in pointers {
        if let Some(found) = typed(config, pointer)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn typed<'c, T: Deserialize<'c>>(config: &'c Value, pointer: &str) -> Result<Option<T>, ParameterError> {
    config
        .pointer(pointer)
        .map(|value| Option::deserialize(value).map_err(ParameterError::Malformed))
        .transpose()
        .map(Option::flatten)
}

/// The keys of Unblend's exporter (`_export_metadata`).
fn unblend<'m>(get: &impl Fn(&str) -> Option<&'m str>) -> Result<Declaration, ParameterError> {
    let Some(family) = get("model_family") else {
        return Ok(Declaration::default());
    };
    if family != "roformer" {
        return Err(other_value("model_family", "roformer", family));
    }
    for (key, expected) in [
        ("stft_window", "hann"),
        ("stft_win_length", get("stft_n_fft").unwrap_or_default()),
    ] {
        if let Some(found) = get(key).filter(|found| *found != expected) {
            return Err(ParameterError::OtherWindow {
                found: found.to_owned(),
            });
        }
    }
    let number = |key: &'static str| {
        get(key)
            .map(|text| text.parse().map_err(|_| other_value(key, "a number", text)))
            .transpose()
    };
    let stems = get("sources")
        .map(|text| serde_json::from_str::<Vec<String>>(text).map_err(ParameterError::Malformed))
        .transpose()?;
    // Without a second mask, the second source is the rest of the song.
    let found = number("num_stems")?.unwrap_or(usize::MAX);
    let stems = stems.map(|stems| stems.into_iter().take(found).collect::<Vec<_>>());
    Ok(Declaration {
        kind: Some(ContractKind::RealImaginary),
        stems: stems.as_deref().map(names).transpose()?,
        n_fft: number("stft_n_fft")?,
        hop_frames: number("stft_hop_length")?,
        chunk_frames: number("segment_samples")?,
        output: Some(SpectrumOutput::Spectrum),
        has_normalized_spectra: get("stft_normalized").map(|text| text == "true"),
        ..Declaration::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(names: &[&str]) -> Option<Vec<StemName>> {
        Some(names.iter().map(|name| StemName::new(name).unwrap()).collect())
    }

    #[test]
    fn the_keys_of_a_sidecar_are_read_and_others_ignored() {
        let json = json!({
            "contract": "interleaved-rows", "stems": ["Vocals"], "n_fft": 2048, "hop": 441, "chunk": 485_100,
            "overlap": 0.5, "chunking": "roformer", "output": "mask", "normalize": true, "stft_normalized": false,
            "residual_stem": "instrumental", "license": "MIT",
        });
        assert!(Declaration::is_declared_by(&json));
        let expected = Declaration {
            kind: Some(ContractKind::InterleavedRows),
            stems: named(&["vocals"]),
            n_fft: Some(2048),
            hop_frames: Some(441),
            chunk_frames: Some(485_100),
            overlap: Some(Overlap::HALF),
            overlapping_chunks: None,
            chunking: Some(Chunking::Roformer),
            output: Some(SpectrumOutput::Mask),
            is_normalized: Some(true),
            has_normalized_spectra: Some(false),
            residual_stem: Some(StemName::new("instrumental").unwrap()),
        };
        assert_eq!(Declaration::from_json(&json).unwrap(), expected);
    }

    #[test]
    fn a_configuration_of_a_roformer_is_read_wherever_it_is() {
        let config = json!({
            "audio": {"chunk_size": 352_800, "hop_length": 441, "n_fft": 2048},
            "model": {"stft_n_fft": 2048, "stft_hop_length": 441, "stft_normalized": false},
            "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
            "inference": {"num_overlap": 4, "normalize": null},
        });
        let expected = Declaration {
            stems: named(&["vocals"]),
            n_fft: Some(2048),
            hop_frames: Some(441),
            chunk_frames: Some(352_800),
            overlapping_chunks: Some(4),
            has_normalized_spectra: Some(false),
            ..Declaration::default()
        };
        assert!(Declaration::is_declared_by(&config));
        assert_eq!(Declaration::from_json(&config).unwrap(), expected);
        let wrapped = json!({"model_config": config, "name": "any"});
        assert_eq!(Declaration::from_json(&wrapped).unwrap(), expected);
        for (key, value) in [("sep_meta", &wrapped), ("model_config", &config)] {
            let metadata = BTreeMap::from([(key.to_owned(), value.to_string())]);
            assert_eq!(Declaration::from_metadata(&metadata).unwrap(), expected, "{key}");
        }
        let text = json!({"model_config": config.to_string()}).to_string();
        let metadata = BTreeMap::from([("sep_meta".to_owned(), text)]);
        assert_eq!(Declaration::from_metadata(&metadata).unwrap(), expected);
    }

    #[test]
    fn a_configuration_of_demucs_gives_its_segment() {
        let config = json!({
            "audio": {"chunk_size": 485_100, "hop_length": 1024},
            "training": {"instruments": ["drums", "bass"], "target_instrument": null, "segment": 11, "samplerate": 44_100},
        });
        let declared = Declaration::from_json(&config).unwrap();
        assert_eq!(
            (declared.chunk_frames, declared.chunking),
            (Some(485_100), Some(Chunking::Demucs))
        );
        assert_eq!(declared.stems, named(&["drums", "bass"]));
    }

    fn unblend_metadata(changes: &[(&str, &str)]) -> BTreeMap<String, String> {
        let keys = [
            ("model_family", "roformer"),
            ("sources", r#"["vocals", "instrumental"]"#),
            ("num_stems", "1"),
            ("sample_rate", "44100"),
            ("segment_samples", "352800"),
            ("stft_n_fft", "2048"),
            ("stft_hop_length", "441"),
            ("stft_win_length", "2048"),
            ("stft_normalized", "false"),
            ("stft_window", "hann"),
        ];
        let pairs = keys.iter().chain(changes);
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_metadata_of_unblend_is_a_complete_contract() {
        let declared = Declaration::from_metadata(&unblend_metadata(&[])).unwrap();
        assert_eq!(
            declared,
            Declaration {
                kind: Some(ContractKind::RealImaginary),
                stems: named(&["vocals"]),
                n_fft: Some(2048),
                hop_frames: Some(441),
                chunk_frames: Some(352_800),
                output: Some(SpectrumOutput::Spectrum),
                has_normalized_spectra: Some(false),
                ..Declaration::default()
            }
        );
    }

    #[test]
    fn metadata_of_a_model_that_needs_something_else_is_refused() {
        for (key, value) in [
            ("model_family", "scnet"),
            ("sample_rate", "48000"),
            ("stft_window", "none"),
            ("stft_win_length", "1024"),
            ("stft_n_fft", "many"),
            ("sources", "vocals"),
        ] {
            let error = Declaration::from_metadata(&unblend_metadata(&[(key, value)]));
            assert!(error.is_err(), "{key} = {value}");
        }
    }

    #[test]
    fn values_out_of_range_or_of_another_type_are_refused() {
        for json in [
            json!({"contract": "spectrogram"}),
            json!({"stems": "vocals"}),
            json!({"stems": ["../vocals"]}),
            json!({"overlap": 1.0}),
            json!({"hop": -1}),
            json!({"chunking": "uvr"}),
            json!({"audio": {"n_fft": "big"}, "training": {}}),
            json!({"n_fft": 4096, "model_config": {"audio": {"n_fft": 2048}}}),
        ] {
            assert!(Declaration::from_json(&json).is_err(), "{json}");
        }
    }
}
