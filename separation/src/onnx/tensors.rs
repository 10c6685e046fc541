//! Copies the values of chunks to the tensors of a model's file and back, converted from and to 16 bits where the file
//! has such elements.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ort::session::{SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor, TensorRef};

use crate::engine::NetworkError;
use crate::error::ErrorClass;
use crate::model::{Port, Ports};

/// Converts an error of ONNX Runtime.
pub(super) fn failed(error: ort::Error) -> NetworkError {
    NetworkError::new(
        ErrorClass::Transient,
        "ONNX Runtime could not run it",
        Some(Box::new(error)),
    )
}

/// The inputs of one run with the `values` of `batch` chunks.
///
/// # Panics
/// If there are several inputs and several chunks: their values would not be contiguous.
pub(super) fn inputs<'v>(
    ports: &Ports,
    batch: usize,
    values: &'v [f32],
) -> Result<Vec<(String, SessionInputValue<'v>)>, NetworkError> {
    assert!(batch == 1 || ports.inputs.len() == 1, "one chunk per run");
    let values = values.chunks_exact(values.len() / ports.inputs.len());
    ports
        .inputs
        .iter()
        .zip(values)
        .map(|(port, values)| Ok((port.name.clone(), input(port, batch, values).map_err(failed)?)))
        .collect()
}

fn input<'v>(port: &Port, batch: usize, values: &'v [f32]) -> ort::Result<SessionInputValue<'v>> {
    let sizes = [&[batch], &*port.sizes].concat();
    if !port.is_half {
        return Ok(TensorRef::from_array_view((sizes, values))?.into());
    }
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    Ok(Tensor::from_array((sizes, halves))?.into())
}

/// Appends the values of the stems `wanted` of each of `batch` chunks.
///
/// # Errors
/// If an output has another shape than the model's file declares for a batch of this size.
pub(super) fn collect(
    ports: &Ports,
    stems: usize,
    batch: usize,
    outputs: &SessionOutputs<'_>,
    wanted: &[usize],
    values: &mut Vec<f32>,
) -> Result<(), NetworkError> {
    for chunk in 0..batch {
        for stem in wanted {
            for port in &ports.outputs {
                let mut expected = vec![batch];
                expected.extend(ports.has_stem_axis.then_some(stems));
                expected.extend(&port.sizes);
                let output = outputs.get(&port.name).ok_or_else(|| {
                    NetworkError::new(
                        ErrorClass::Permanent,
                        format!("the model returned no {}", port.name),
                        None,
                    )
                })?;
                let part = port.sizes.iter().product();
                append(
                    port,
                    output,
                    &expected,
                    (chunk * stems + stem) * part,
                    part,
                    values,
                )?;
            }
        }
    }
    Ok(())
}

/// Appends `length` values from `first` on.
fn append(
    port: &Port,
    output: &DynValue,
    expected: &[usize],
    first: usize,
    length: usize,
    values: &mut Vec<f32>,
) -> Result<(), NetworkError> {
    let check = |found: &[i64]| {
        if found
            .iter()
            .map(|&size| size as usize)
            .eq(expected.iter().copied())
        {
            return Ok(());
        }
        let message = format!(
            "the output {} must have the shape {expected:?}, found {found:?}",
            port.name
        );
        Err(NetworkError::new(ErrorClass::Permanent, message, None))
    };
    if port.is_half {
        let (found, halves) = output.try_extract_tensor::<f16>().map_err(failed)?;
        check(found)?;
        let start = values.len();
        values.resize(start + length, 0.0);
        halves[first..first + length].convert_to_f32_slice(&mut values[start..]);
    } else {
        let (found, floats) = output.try_extract_tensor::<f32>().map_err(failed)?;
        check(found)?;
        values.extend_from_slice(&floats[first..first + length]);
    }
    Ok(())
}
