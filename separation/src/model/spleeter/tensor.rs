//! Writes tensors as ONNX stores them: `ModelProto.graph` (field 7), `GraphProto.initializer` (5), and in it the
//! fields of `TensorProto`.

use half::f16;

use super::table::{Element, View};

/// Protobuf: a varint, and bytes with their length.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

/// A part of a model: its graph with one initializer.
pub(super) fn initializer(view: &View, weights: &[u8]) -> Vec<u8> {
    let values = view.positions().map(|position| {
        let (bytes, _) = weights[4 * position..]
            .split_first_chunk()
            .expect("the view is inside");
        f32::from_le_bytes(*bytes)
    });
    let (data_type, raw): (u64, Vec<u8>) = match view.element {
        Element::Float32 => (1, values.flat_map(f32::to_le_bytes).collect()),
        // Rounds to the nearest, ties to even.
        Element::Float16 => (
            10,
            values
                .flat_map(|value| f16::from_f32(value).to_le_bytes())
                .collect(),
        ),
    };
    let mut tensor = Vec::new();
    for &size in &view.dims {
        write_varint(&mut tensor, 1 << 3 | VARINT);
        write_varint(&mut tensor, size as u64);
    }
    write_varint(&mut tensor, 2 << 3 | VARINT);
    write_varint(&mut tensor, data_type);
    write_bytes(&mut tensor, 8, view.name.as_bytes());
    write_bytes(&mut tensor, 9, &raw);
    let mut graph = Vec::new();
    write_bytes(&mut graph, 5, &tensor);
    let mut model = Vec::new();
    write_bytes(&mut model, 7, &graph);
    model
}

fn write_bytes(message: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    write_varint(message, field << 3 | BYTES);
    write_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn write_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}
