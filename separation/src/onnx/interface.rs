//! Reads the interface of a loaded model.

use std::collections::BTreeMap;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::model::{Element, Interface, TensorInfo};

/// The tensors and the custom metadata of the model in `session`.
pub(super) fn interface(session: &Session) -> Interface {
    Interface {
        inputs: session.inputs().iter().map(tensor).collect(),
        outputs: session.outputs().iter().map(tensor).collect(),
        metadata: metadata(session),
    }
}

fn tensor(outlet: &Outlet) -> TensorInfo {
    let (element, sizes) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (
            match ty {
                TensorElementType::Float32 => Element::Float32,
                TensorElementType::Float16 => Element::Float16,
                other => Element::Other(other.to_string()),
            },
            // Open sizes are negative.
            shape.iter().map(|size| usize::try_from(*size).ok()).collect(),
        ),
        other => (Element::Other(other.to_string()), Vec::new()),
    };
    TensorInfo {
        name: outlet.name().to_owned(),
        element,
        sizes,
    }
}

/// A model whose metadata cannot be read has none.
fn metadata(session: &Session) -> BTreeMap<String, String> {
    let Ok(metadata) = session.metadata() else {
        return BTreeMap::new();
    };
    let keys = metadata.custom_keys().unwrap_or_default();
    keys.into_iter()
        .filter_map(|key| {
            let value = metadata.custom(&key)?;
            Some((key, value))
        })
        .collect()
}
