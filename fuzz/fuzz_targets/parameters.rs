//! Files of model parameters: any bytes give parameters or an error.
//!
//! `cargo +nightly fuzz run parameters -- -max_total_time=60`

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use separation_worker::engine::FixedSizes;
use separation_worker::model::{DeclaredModel, parse_parameters};

fuzz_target!(|text: &[u8]| {
    let hash = || Ok("0123456789abcdef0123456789abcdef".to_owned());
    if let Ok(DeclaredModel::MdxNet(parameters)) = parse_parameters(text, Path::new("fuzzed.json"), hash) {
        // Accepted parameters give a shape of limited size or a named error.
        if let Ok(shape) = parameters.shape(FixedSizes::default()) {
            assert!(shape.values() <= 4 * 32_769 * 8_192);
        }
    }
});
