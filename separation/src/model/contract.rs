//! A model's tensor contract: how its tensors, chunks and stems are to be understood.

use std::fmt;

use super::contract_error::ContractError;
use super::interface::{Element, Interface, TensorInfo};
use super::kind::{ContractKind, FileSizes};
use super::parameters::ModelParameters;
use super::stem_name::StemName;
use crate::engine::{ChunkTensor, Chunking, FixedSizes, Overlap, SpectrumTensor, StemSource, Tensors};

/// Everything that is needed to run a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// The kind of its tensors.
    pub kind: ContractKind,
    /// The tensors of its file.
    pub ports: Ports,
    /// What it takes for a chunk and returns.
    pub tensors: Tensors,
    /// Whether the file leaves the length of a chunk open.
    pub has_open_chunks: bool,
    /// How chunks are cut and joined.
    pub chunking: Chunking,
    /// The overlap of chunks, if the user sets none.
    pub overlap: Overlap,
    /// Whether the song is normalized.
    pub is_normalized: bool,
    /// The factor that corrects its level.
    pub compensate: f32,
    /// Its stems.
    pub stems: Stems,
}

/// The stems of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stems {
    /// The stems that the model finds, in the order of its output.
    found: Vec<StemName>,
    /// The rest of the song without one of them: its name, and the number of that one.
    residual: Option<(StemName, usize)>,
}

/// The tensors of a model's file, in the order of a chunk's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Its inputs.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
    /// Whether the outputs have an axis of stems.
    pub has_stem_axis: bool,
    /// Whether the file takes one chunk per run.
    pub fixed_batch: bool,
}

/// One tensor of a model's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whether its elements have 16 bits.
    pub is_half: bool,
    /// The sizes of its axes for one stem of one chunk.
    pub sizes: Vec<usize>,
}

impl Contract {
    /// The contract of an MDX-Net model: one input and one output of \[batch, 4, F, T\].
    ///
    /// # Errors
    /// If the file has another interface, or disagrees with the parameters.
    pub fn mdx_net(interface: &Interface, parameters: &ModelParameters) -> Result<Self, ContractError> {
        let sizes = mdx_net_sizes(interface)?;
        let shape = parameters.shape(FixedSizes {
            rows: sizes.rows,
            columns: sizes.columns,
        })?;
        let chunk = ChunkTensor::Spectrum(SpectrumTensor::mdx_net(shape));
        Ok(Self {
            kind: ContractKind::MdxNet,
            ports: Ports::new(ContractKind::MdxNet, interface, &sizes, chunk),
            tensors: Tensors { chunk, stems: 1 },
            has_open_chunks: sizes.columns.is_none(),
            chunking: Chunking::MdxNet { n_fft: shape.n_fft() },
            overlap: Overlap::DEFAULT,
            is_normalized: false,
            compensate: parameters.compensate,
            stems: Stems {
                found: vec![parameters.primary_stem.clone()],
                residual: Some((parameters.primary_stem.complement(), 0)),
            },
        })
    }

    /// The same with chunks of half the length, if the file leaves it open and half is long enough.
    pub fn halved(&self) -> Option<Self> {
        let chunk = self.tensors.chunk.halved().filter(|_| self.has_open_chunks)?;
        let mut halved = self.clone();
        halved.tensors.chunk = chunk;
        let Ports { inputs, outputs, .. } = &mut halved.ports;
        for port in inputs.iter_mut().chain(outputs) {
            port.sizes = self.kind.sizes_of_values(chunk);
        }
        Some(halved)
    }
}

/// The kind, the input and the lengths of transforms and chunks.
impl fmt::Display for Contract {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.name())?;
        let batch = if self.ports.fixed_batch { "1" } else { "batch" };
        for Port { is_half, sizes, .. } in &self.ports.inputs {
            let element = if *is_half {
                Element::Float16
            } else {
                Element::Float32
            };
            let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
            write!(out, ", {element} of [{batch}, {}]", sizes.join(", "))?;
        }
        if let ChunkTensor::Spectrum(SpectrumTensor { shape, .. }) = &self.tensors.chunk {
            write!(out, ", n_fft {}, hop {}", shape.n_fft(), shape.hop_frames())?;
        }
        write!(out, ", chunks of {} frames", self.tensors.chunk.chunk_frames())
    }
}

/// The sizes that the file of an MDX-Net model fixes.
fn mdx_net_sizes(interface: &Interface) -> Result<FileSizes, ContractError> {
    let ([input], [output]) = (&*interface.inputs, &*interface.outputs) else {
        return Err(ContractError::NotMdxNet {
            what: "its interface",
            expected: "one input and one output".into(),
            found: format!("{} and {}", interface.inputs.len(), interface.outputs.len()),
        });
    };
    for (what, tensor) in [("its input", input), ("its output", output)] {
        let alone = Interface {
            inputs: vec![tensor.clone()],
            outputs: vec![tensor.clone()],
            ..Interface::default()
        };
        let is_float = matches!(tensor.element, Element::Float32 | Element::Float16);
        if !is_float || ContractKind::MdxNet.sizes(&alone).is_none() {
            return Err(ContractError::NotMdxNet {
                what,
                expected: "float32 or float16 of [batch, 4, F, T]".into(),
                found: tensor.to_string(),
            });
        }
    }
    ContractKind::MdxNet
        .sizes(interface)
        .ok_or_else(|| ContractError::NotMdxNet {
            what: "its output",
            expected: format!("as large as its input ({input})"),
            found: output.to_string(),
        })
}

impl Ports {
    /// The tensors of a file of this kind, for chunks of these sizes.
    pub(super) fn new(
        kind: ContractKind,
        interface: &Interface,
        sizes: &FileSizes,
        chunk: ChunkTensor,
    ) -> Self {
        let sizes_of_values = kind.sizes_of_values(chunk);
        let ports = |tensors: &[TensorInfo]| {
            let mut ports: Vec<Port> = tensors
                .iter()
                .map(|tensor| Port {
                    name: tensor.name.clone(),
                    is_half: tensor.element == Element::Float16,
                    sizes: sizes_of_values.clone(),
                })
                .collect();
            // The real part is first.
            if let [first, second] = &*ports
                && first.name.to_ascii_lowercase().contains("imag")
                && !second.name.to_ascii_lowercase().contains("imag")
            {
                ports.reverse();
            }
            ports
        };
        Self {
            inputs: ports(&interface.inputs),
            outputs: ports(&interface.outputs),
            has_stem_axis: sizes.has_stem_axis,
            fixed_batch: sizes.fixed_batch,
        }
    }
}

impl Stems {
    /// The stems with these names, in the order of the model's output, and the rest of the song: without the stem that
    /// `residual` completes; by default without the only stem, or to complete vocals or instrumental.
    pub(super) fn new(found: Vec<StemName>, residual: Option<StemName>) -> Result<Self, ContractError> {
        if let Some(twice) = (1..found.len()).find(|at| found[..*at].contains(&found[*at])) {
            let name = &found[twice];
            return Err(ContractError::Declaration {
                reason: format!("`stems` has {name} twice; fix: name each output of the model once"),
            });
        }
        let completes = |output: usize| (found[output].complement(), output);
        let residual = match residual {
            Some(name) => {
                let output = (0..found.len()).find(|output| completes(*output).0 == name);
                let output = output.filter(|_| !found.contains(&name));
                let output = output.ok_or_else(|| ContractError::Declaration {
                    reason: format!(
                        "`residual_stem` is {name}, which is not the rest of the song without one of the model's stems; \
                         fix: name the complement of a stem"
                    ),
                })?;
                Some((name, output))
            }
            None if found.len() == 1 => Some(completes(0)),
            None => ["vocals", "instrumental"]
                .into_iter()
                .filter_map(|name| found.iter().position(|stem| stem.as_str() == name))
                .map(completes)
                .find(|(name, _)| !found.contains(name)),
        };
        Ok(Self { found, residual })
    }

    /// The names of all stems: those that the model finds, then the rest.
    pub fn names(&self) -> Vec<StemName> {
        let residual = self.residual.iter().map(|(name, _)| name);
        self.found.iter().chain(residual).cloned().collect()
    }

    /// Where the stem of this name comes from.
    pub fn source(&self, name: &StemName) -> Option<StemSource> {
        let found = self.found.iter().position(|stem| stem == name);
        found.map(StemSource::Found).or_else(|| {
            let residual = self.residual.iter().find(|(stem, _)| stem == name);
            residual.map(|(_, output)| StemSource::Rest(*output))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem(name: &str) -> StemName {
        StemName::new(name).unwrap()
    }

    #[track_caller]
    fn check(found: &[&str], residual: Option<&str>, expected: &str) {
        let stems = Stems::new(found.iter().map(|name| stem(name)).collect(), residual.map(stem));
        let names = match stems {
            Ok(stems) => {
                let names: Vec<String> = stems.names().iter().map(StemName::to_string).collect();
                names.join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert!(names.contains(expected), "{names}");
    }

    #[test]
    fn the_rest_of_the_song_completes_vocals_and_instrumental() {
        check(&["vocals"], None, "vocals instrumental");
        check(&["bass"], None, "bass no_bass");
        check(
            &["drums", "bass", "other", "vocals"],
            None,
            "drums bass other vocals instrumental",
        );
        check(&["instrumental", "other"], None, "instrumental other vocals");
        check(&["vocals", "instrumental"], None, "vocals instrumental");
        check(&["drums", "bass"], None, "drums bass");
        check(&["drums", "bass"], Some("no_drums"), "drums bass no_drums");
    }

    #[test]
    fn names_that_no_stem_can_have_are_refused() {
        check(&["vocals", "vocals"], None, "vocals twice");
        check(
            &["vocals", "drums"],
            Some("no_bass"),
            "no_bass, which is not the rest",
        );
        check(
            &["vocals", "instrumental"],
            Some("instrumental"),
            "is not the rest",
        );
    }

    #[test]
    fn a_contract_is_printed_with_the_sizes_of_its_tensors_and_chunks() {
        let tensor = |element: Element| TensorInfo {
            name: "x".to_owned(),
            element,
            sizes: vec![None, Some(4), Some(2048), Some(256)],
        };
        let parameters = ModelParameters {
            n_fft: 6144,
            rows: None,
            columns: None,
            compensate: 1.0,
            primary_stem: stem("vocals"),
        };
        let interface = Interface {
            inputs: vec![tensor(Element::Float16)],
            outputs: vec![tensor(Element::Float32)],
            ..Interface::default()
        };
        assert_eq!(
            Contract::mdx_net(&interface, &parameters).unwrap().to_string(),
            "mdx-net, float16 of [batch, 4, 2048, 256], n_fft 6144, hop 1024, chunks of 261120 frames"
        );
    }

    #[test]
    fn the_rest_comes_from_the_stem_that_it_completes() {
        let stems = Stems::new(vec![stem("drums"), stem("vocals")], None).unwrap();
        assert_eq!(stems.source(&stem("vocals")), Some(StemSource::Found(1)));
        assert_eq!(stems.source(&stem("instrumental")), Some(StemSource::Rest(1)));
        assert_eq!(stems.source(&stem("bass")), None);
    }
}
