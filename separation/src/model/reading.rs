//! Finds a model's tensor contract from the tensors of its file, its sidecar and its metadata: each part from where it
//! has exactly one reading. Where two readings fit, the error names both and the key that decides.

use super::contract::{Contract, Ports, Stems};
use super::contract_error::ContractError;
use super::declaration::Declaration;
use super::interface::{Element, Interface};
use super::kind::{ContractKind, FileSizes};
use super::stem_name::StemName;
use crate::engine::{
    ChunkTensor, Chunking, Overlap, SpectrumLayout, SpectrumOutput, SpectrumScale, SpectrumShape,
    SpectrumSizes, SpectrumTensor, Tensors,
};

/// Chunks of HTDemucs: 7.8 s.
const HTDEMUCS_FRAMES: usize = 343_980;

/// Chunks of most RoFormers: 8 s.
const ROFORMER_FRAMES: usize = 352_800;

/// The stems of HTDemucs, in the order of its output, and of its variant with six stems.
const DEMUCS_STEMS: [&str; 6] = ["drums", "bass", "other", "vocals", "guitar", "piano"];

/// Hops of published RoFormers.
const ROFORMER_HOPS: [usize; 2] = [441, 512];

impl Contract {
    /// The contract of a model whose sidecar, if there is one, has no keys of UVR.
    ///
    /// # Errors
    /// If a part has no reading or several ones, or two sources of it disagree.
    pub fn read(interface: &Interface, declared: Declaration) -> Result<Self, ContractError> {
        let declared = declared.join(Declaration::from_metadata(&interface.metadata)?)?;
        let (kind, sizes) = kind_of(interface, declared.kind)?;
        if let Some(tensor) = interface
            .inputs
            .iter()
            .chain(&interface.outputs)
            .find(|tensor| matches!(tensor.element, Element::Other(_)))
        {
            return Err(ContractError::ElementType {
                tensor: tensor.to_string(),
            });
        }
        let chunk = match kind {
            ContractKind::MdxNet => return Err(no_mdx_net_parameters(interface)),
            ContractKind::Waveform => waveform(&sizes, &declared)?,
            _ => ChunkTensor::Spectrum(spectrum(kind, interface, &sizes, &declared)?),
        };
        let chunking = chunking(kind, chunk.chunk_frames(), &declared)?;
        let found = stem_names(kind, chunking, &sizes, &declared)?;
        Ok(Self {
            kind,
            ports: Ports::new(kind, interface, &sizes, chunk),
            tensors: Tensors {
                chunk,
                stems: found.len(),
            },
            has_open_chunks: sizes.frames.is_none() && sizes.columns.is_none(),
            chunking,
            overlap: overlap(chunking, chunk.chunk_frames(), &declared)?,
            is_normalized: declared.is_normalized.unwrap_or(chunking == Chunking::Demucs),
            compensate: 1.0,
            stems: Stems::new(found, declared.residual_stem)?,
        })
    }
}

fn kind_of(
    interface: &Interface,
    declared: Option<ContractKind>,
) -> Result<(ContractKind, FileSizes), ContractError> {
    if let Some(kind) = declared {
        let sizes = kind.sizes(interface).ok_or_else(|| ContractError::OtherKind {
            declared: kind.name(),
            expected: kind.description(),
            found: interface.to_string(),
        })?;
        return Ok((kind, sizes));
    }
    let mut readings = ContractKind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, kind.sizes(interface)?)));
    let words = |kind: ContractKind| format!("`{}` ({})", kind.name(), kind.description());
    match (readings.next(), readings.next()) {
        (Some(reading), None) => Ok(reading),
        (Some((first, _)), Some((second, _))) => Err(ContractError::Ambiguous {
            subject: format!("the model's file ({interface})"),
            first: words(first),
            second: words(second),
            key: "contract",
        }),
        (None, _) => Err(ContractError::UnknownKind {
            found: interface.to_string(),
            supported: ContractKind::ALL.map(words).join(", "),
        }),
    }
}

/// The exporter of sherpa-onnx writes an n_fft that it derives from F, which is wrong for most models of UVR, and
/// neither the stem nor the level correction.
fn no_mdx_net_parameters(interface: &Interface) -> ContractError {
    let by_sherpa = interface
        .metadata
        .get("model_type")
        .is_some_and(|model| model == "UVR");
    let n_fft = interface.metadata.get("n_fft").filter(|_| by_sherpa);
    ContractError::NoMdxNetParameters {
        metadata: n_fft.map_or_else(String::new, |n_fft| {
            format!(
                "; the n_fft of {n_fft} in the file's metadata is 2 x F, which sherpa-onnx writes for every model, and not \
                 evidence"
            )
        }),
    }
}

fn missing(subject: impl Into<String>, key: &'static str) -> ContractError {
    ContractError::Missing {
        subject: subject.into(),
        key,
    }
}

/// A size from the file or the declaration, which must not disagree.
fn agreed(
    subject: &'static str,
    in_file: Option<usize>,
    key: &'static str,
    declared: Option<usize>,
) -> Result<Option<usize>, ContractError> {
    match (in_file, declared) {
        (Some(in_file), Some(declared)) if in_file != declared => Err(ContractError::Disagreement {
            subject,
            in_file: in_file.to_string(),
            key,
            declared: declared.to_string(),
        }),
        _ => Ok(in_file.or(declared)),
    }
}

fn waveform(sizes: &FileSizes, declared: &Declaration) -> Result<ChunkTensor, ContractError> {
    let frames = agreed("N", sizes.frames, "chunk", declared.chunk_frames)?.ok_or_else(|| {
        missing(
            "the length of a chunk, which the model's file leaves open,",
            "chunk",
        )
    })?;
    Ok(ChunkTensor::waveform(frames)?)
}

fn spectrum(
    kind: ContractKind,
    interface: &Interface,
    sizes: &FileSizes,
    declared: &Declaration,
) -> Result<SpectrumTensor, ContractError> {
    let n_fft = declared
        .n_fft
        .or_else(|| all_rows(kind, sizes.rows?))
        .ok_or_else(|| missing("the length of the transform", "n_fft"))?;
    let hop_frames = declared.hop_frames.ok_or_else(|| unknown_hop(sizes.columns))?;
    let columns = match (sizes.columns, declared.chunk_frames) {
        (Some(columns), _) => columns,
        (None, Some(chunk)) => chunk.checked_div(hop_frames).unwrap_or(0).saturating_add(1),
        (None, None) => {
            return Err(missing(
                "the length of a chunk, which the model's file leaves open,",
                "chunk",
            ));
        }
    };
    let shape = SpectrumShape::new(SpectrumSizes {
        n_fft,
        hop_frames,
        rows: sizes.rows.unwrap_or(n_fft / 2 + 1),
        columns,
    })?;
    Ok(SpectrumTensor {
        shape: match declared.chunk_frames {
            Some(chunk) => shape.with_chunk_frames(chunk)?,
            None => shape,
        },
        layout: match kind {
            ContractKind::RealImaginary => SpectrumLayout::PartsOfPlanes,
            ContractKind::Interleaved => SpectrumLayout::ChannelsOfPairs,
            ContractKind::InterleavedRows => SpectrumLayout::RowsOfPairs,
            ContractKind::MdxNet | ContractKind::Mdx23c | ContractKind::Waveform => {
                SpectrumLayout::ChannelsOfPlanes
            }
        },
        silent_rows: 0,
        scale: if declared.has_normalized_spectra == Some(true) {
            SpectrumScale::Normalized
        } else {
            SpectrumScale::Sum
        },
        output: output(kind, interface, declared)?,
    })
}

/// n_fft of a model that takes all rows of a transform whose length is a power of 2, as RoFormers do.
fn all_rows(kind: ContractKind, rows: usize) -> Option<usize> {
    let half = rows.checked_sub(1)?;
    (kind != ContractKind::Mdx23c && half.is_power_of_two()).then_some(2 * half)
}

fn unknown_hop(columns: Option<usize>) -> ContractError {
    let Some(columns) = columns else {
        return missing("the hop of the transform", "hop");
    };
    let [first, second] = ROFORMER_HOPS.map(|hop| {
        let seconds = (hop * columns.saturating_sub(1)) as f64 / f64::from(crate::audio::SAMPLE_RATE_HZ);
        format!("a hop of {hop} frames (chunks of {seconds:.2} s)")
    });
    ContractError::Ambiguous {
        subject: format!("T = {columns}"),
        first,
        second,
        key: "hop",
    }
}

/// The meaning of the model's output, which exporters show by its name.
fn output(
    kind: ContractKind,
    interface: &Interface,
    declared: &Declaration,
) -> Result<SpectrumOutput, ContractError> {
    if let Some(output) = declared.output {
        return Ok(output);
    }
    let name = interface.outputs.first().map_or("", |tensor| &tensor.name);
    let has = |part: &str| name.to_ascii_lowercase().contains(part);
    if kind == ContractKind::Mdx23c || has("spec") || has("stft") || has("masked") {
        Ok(SpectrumOutput::Spectrum)
    } else if has("mask") {
        Ok(SpectrumOutput::Mask)
    } else {
        Err(ContractError::Ambiguous {
            subject: format!("the model's output `{name}`"),
            first: "the spectra of stems (`spectrum`)".into(),
            second: "factors of the song's spectra (`mask`)".into(),
            key: "output",
        })
    }
}

fn chunking(kind: ContractKind, frames: usize, declared: &Declaration) -> Result<Chunking, ContractError> {
    match (declared.chunking, kind, frames) {
        (Some(chunking), ..) => Ok(chunking),
        (None, ContractKind::Waveform, HTDEMUCS_FRAMES) => Ok(Chunking::Demucs),
        (None, ContractKind::Waveform, ROFORMER_FRAMES) => Ok(Chunking::Roformer),
        (None, ContractKind::Waveform, _) => Err(ContractError::Ambiguous {
            subject: format!("a waveform of N = {frames} frames"),
            first: "chunks of Demucs (`demucs`)".into(),
            second: "chunks of a RoFormer (`roformer`)".into(),
            key: "chunking",
        }),
        (None, ..) => Ok(Chunking::Roformer),
    }
}

fn overlap(
    chunking: Chunking,
    chunk_frames: usize,
    declared: &Declaration,
) -> Result<Overlap, ContractError> {
    if let Some(overlap) = declared.overlap {
        return Ok(overlap);
    }
    match (declared.overlapping_chunks, chunking) {
        (Some(chunks), _) => chunk_frames
            .checked_div(chunks)
            .and_then(|step| Overlap::of_step(step, chunk_frames).ok())
            .ok_or_else(|| ContractError::Declaration {
                reason: format!("`num_overlap` must be at least 1 and at most 100, found {chunks}"),
            }),
        (None, Chunking::Roformer) => Ok(Overlap::HALF),
        (None, Chunking::MdxNet { .. } | Chunking::Demucs) => Ok(Overlap::DEFAULT),
    }
}

fn stem_names(
    kind: ContractKind,
    chunking: Chunking,
    sizes: &FileSizes,
    declared: &Declaration,
) -> Result<Vec<StemName>, ContractError> {
    let in_file = if sizes.has_stem_axis { sizes.stems } else { Some(1) };
    let declared_count = declared.stems.as_ref().map(Vec::len);
    let count = agreed("S", in_file, "stems", declared_count)?.ok_or_else(|| {
        missing(
            "the number of stems, which the model's file leaves open,",
            "stems",
        )
    })?;
    if let Some(names) = &declared.stems {
        return Ok(names.clone());
    }
    let is_demucs = kind == ContractKind::Waveform && chunking == Chunking::Demucs;
    match count {
        4 | 6 if is_demucs => {
            let names = DEMUCS_STEMS[..count].iter();
            Ok(names
                .map(|name| StemName::new(name).expect("these names are valid"))
                .collect())
        }
        1 => Err(ContractError::Ambiguous {
            subject: "the model's only stem".into(),
            first: "`vocals`".into(),
            second: "`instrumental`".into(),
            key: "stems",
        }),
        _ => Err(missing(
            format!("the order of the model's {count} stems"),
            "stems",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::interface::TensorInfo;
    use super::*;

    /// Tensors by name; 0 stands for an open size.
    type Tensors<'t> = &'t [(&'t str, &'t [usize])];

    fn interface(inputs: Tensors<'_>, outputs: Tensors<'_>) -> Interface {
        let tensor = |(name, sizes): &(&str, &[usize])| TensorInfo {
            name: (*name).to_owned(),
            element: Element::Float32,
            sizes: sizes.iter().map(|size| (*size > 0).then_some(*size)).collect(),
        };
        Interface {
            inputs: inputs.iter().map(tensor).collect(),
            outputs: outputs.iter().map(tensor).collect(),
            ..Interface::default()
        }
    }

    fn read(interface: &Interface, declared: &serde_json::Value) -> Result<Contract, ContractError> {
        Contract::read(interface, Declaration::from_json(declared).unwrap())
    }

    fn stems(contract: &Contract) -> String {
        let names: Vec<String> = contract.stems.names().iter().map(StemName::to_string).collect();
        names.join(" ")
    }

    #[track_caller]
    fn check_refused(interface: &Interface, declared: &serde_json::Value, parts: &[&str]) {
        let error = read(interface, declared).unwrap_err();
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }

    const HTDEMUCS: (Tensors<'_>, Tensors<'_>) =
        (&[("mix", &[1, 2, 343_980])], &[("sources", &[1, 4, 2, 343_980])]);
    const SPECTRA: Tensors<'_> = &[
        ("spec_real", &[1, 2, 1025, 801]),
        ("spec_imag", &[1, 2, 1025, 801]),
    ];

    #[test]
    fn htdemucs_needs_no_sidecar() {
        let contract = read(&interface(HTDEMUCS.0, HTDEMUCS.1), &json!({})).unwrap();
        assert_eq!(contract.tensors.chunk, ChunkTensor::Waveform { frames: 343_980 });
        assert_eq!(stems(&contract), "drums bass other vocals instrumental");
        assert_eq!(
            (contract.chunking, contract.overlap),
            (Chunking::Demucs, Overlap::DEFAULT)
        );
        assert!(contract.is_normalized);
    }

    #[test]
    fn spectra_need_their_hop_and_their_stems() {
        let outputs: Tensors<'_> = &[
            ("out_spec_imag", &[1, 4, 2, 1025, 801]),
            ("out_spec_real", &[1, 4, 2, 1025, 801]),
        ];
        let interface = interface(SPECTRA, outputs);
        check_refused(
            &interface,
            &json!({}),
            &["T = 801", "hop of 441", "hop of 512", "`hop`"],
        );
        check_refused(
            &interface,
            &json!({"hop": 441}),
            &["order of the model's 4 stems", "`stems`"],
        );
        let declared = json!({"hop": 441, "stems": ["drums", "bass", "other", "vocals"]});
        let contract = read(&interface, &declared).unwrap();
        let ChunkTensor::Spectrum(spectrum) = contract.tensors.chunk else {
            panic!("spectra")
        };
        assert_eq!(
            (spectrum.shape.n_fft(), spectrum.shape.chunk_frames()),
            (2048, 352_800)
        );
        assert_eq!(spectrum.output, SpectrumOutput::Spectrum);
        assert_eq!(
            (contract.chunking, contract.overlap),
            (Chunking::Roformer, Overlap::HALF)
        );
        assert!(!contract.is_normalized);
        let names: Vec<&str> = contract.ports.outputs.iter().map(|port| &*port.name).collect();
        assert_eq!(names, ["out_spec_real", "out_spec_imag"]);
        assert_eq!(contract.ports.outputs[0].sizes, [2, 1025, 801]);
    }

    #[test]
    fn chunks_are_halved_only_where_the_file_leaves_their_length_open() {
        let declared = json!({"hop": 441, "chunk": 352_800, "stems": ["vocals"]});
        let model = |columns| {
            let sizes: &[usize] = &[1, 2050, columns, 2];
            read(&interface(&[("x", sizes)], &[("masks", sizes)]), &declared).unwrap()
        };
        let half = model(0).halved().unwrap();
        assert_eq!(half.tensors.chunk.chunk_frames(), 176_400);
        assert_eq!(half.ports.inputs[0].sizes, [2050, 401, 2]);
        assert_eq!(half.ports.outputs[0].sizes, [2050, 401, 2]);
        assert_eq!(model(801).halved(), None);
    }

    #[test]
    fn the_meaning_of_an_output_is_in_its_name_or_declared() {
        let named = |name| interface(&[("x", &[1, 2050, 0, 2])], &[(name, &[1, 2050, 0, 2])]);
        let declared = json!({"hop": 441, "chunk": 485_100, "stems": ["vocals"]});
        let output = |name| match read(&named(name), &declared).unwrap().tensors.chunk {
            ChunkTensor::Spectrum(spectrum) => (spectrum.output, spectrum.shape.columns()),
            ChunkTensor::Waveform { .. } => panic!("spectra"),
        };
        assert_eq!(output("masks"), (SpectrumOutput::Mask, 1101));
        assert_eq!(output("masked_stft"), (SpectrumOutput::Spectrum, 1101));
        check_refused(
            &named("y"),
            &declared,
            &["`y`", "`spectrum`", "`mask`", "`output`"],
        );
    }

    #[test]
    fn what_the_file_and_the_sidecar_leave_open_is_named_with_its_key() {
        let waveform = interface(&[("mix", &[0, 2, 0])], &[("sources", &[0, 0, 2, 0])]);
        check_refused(&waveform, &json!({}), &["length of a chunk", "`chunk`"]);
        let chunk = json!({"chunk": 100_000});
        check_refused(
            &waveform,
            &chunk,
            &["N = 100000", "`demucs`", "`roformer`", "`chunking`"],
        );
        let chunk = json!({"chunk": 352_800});
        check_refused(&waveform, &chunk, &["number of stems", "`stems`"]);
        let one = interface(&[("mix", &[1, 2, 352_800])], &[("sources", &[1, 2, 352_800])]);
        check_refused(
            &one,
            &json!({}),
            &["only stem", "`vocals`", "`instrumental`", "`stems`"],
        );
        let open = interface(&[("x", &[0, 0, 0, 0])], &[("y", &[0, 0, 0, 0])]);
        check_refused(
            &open,
            &json!({}),
            &["`mdx-net`", "`interleaved-rows`", "`contract`"],
        );
        let spectra = interface(
            &[("stft", &[1, 2, 1000, 801, 2])],
            &[("masked_stft", &[1, 1, 2, 1000, 801, 2])],
        );
        check_refused(&spectra, &json!({}), &["length of the transform", "`n_fft`"]);
        check_refused(
            &interface(&[], &[]),
            &json!({}),
            &["no supported tensor contract", "`waveform`"],
        );
    }

    #[test]
    fn the_file_and_the_sidecar_must_agree() {
        let htdemucs = interface(HTDEMUCS.0, HTDEMUCS.1);
        check_refused(
            &htdemucs,
            &json!({"chunk": 343_981}),
            &["N = 343980", "`chunk`", "343981"],
        );
        check_refused(
            &htdemucs,
            &json!({"stems": ["vocals"]}),
            &["S = 4", "`stems`", "1"],
        );
        check_refused(
            &htdemucs,
            &json!({"contract": "interleaved"}),
            &["`contract`", "343980"],
        );
        let mut spectra = interface(
            SPECTRA,
            &[
                ("out_spec_real", &[1, 2, 1025, 801]),
                ("out_spec_imag", &[1, 2, 1025, 801]),
            ],
        );
        let declared = json!({"hop": 441, "chunk": 352_799, "stems": ["vocals"]});
        check_refused(&spectra, &declared, &["352799", "801"]);
        let metadata = [("model_family", "roformer"), ("stft_hop_length", "512")];
        spectra.metadata = metadata
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        check_refused(&spectra, &json!({"hop": 441}), &["`hop`", "441", "512"]);
    }

    #[test]
    fn num_overlap_divides_a_chunk() {
        let step = |chunks| {
            let contract = read(
                &interface(HTDEMUCS.0, HTDEMUCS.1),
                &json!({"num_overlap": chunks}),
            )?;
            let grid = crate::engine::ChunkGrid::new(contract.chunking, 343_980, contract.overlap);
            Ok::<_, ContractError>(grid.unwrap().step_frames())
        };
        for chunks in 1..=99 {
            assert_eq!(step(chunks).unwrap(), 343_980 / chunks);
        }
        assert!(step(0).is_err() && step(1000).is_err());
    }

    #[test]
    fn a_model_of_mdx_net_without_uvrs_keys_is_refused() {
        let mut model = interface(
            &[("input", &[0, 4, 3072, 256])],
            &[("output", &[0, 4, 3072, 256])],
        );
        check_refused(&model, &json!({}), &["UVR's keys"]);
        let metadata = [("model_type", "UVR"), ("n_fft", "6144")];
        model.metadata = metadata
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        check_refused(&model, &json!({}), &["UVR's keys", "6144", "sherpa-onnx"]);
    }
}
