//! Models from files: valid ones are loaded, others are refused with the expected and the found value.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use separation_worker::locations::Locations;
use separation_worker::model::ModelChoice;
use separation_worker::onnx::RuntimeOptions;
use separation_worker::processor::Separation;
use separation_worker::song::{Separator, SongError};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(name)
}

const OPTIONS: RuntimeOptions = RuntimeOptions::cpu(1);

fn choice(name: &str, parameters: Option<&str>) -> ModelChoice {
    ModelChoice::File {
        model: model(name),
        parameters: parameters.map(model),
    }
}

fn load(name: &str, parameters: Option<&str>) -> Result<Separator, SongError> {
    Separator::load(&choice(name, parameters), OPTIONS, &Locations::from_environment())
}

fn stems(name: &str) -> Vec<String> {
    let separator = load(name, None).unwrap();
    separator.stems().iter().map(ToString::to_string).collect()
}

#[test]
fn stems_are_named_by_the_model() {
    assert_eq!(stems("conv_tiny.onnx"), ["vocals", "instrumental"]);
    assert_eq!(stems("conv_f2048_n5120.onnx"), ["instrumental", "vocals"]);
    assert_eq!(stems("conv_f2560_n5120.onnx"), ["bass", "no_bass"]);
    assert_eq!(
        stems("wave_demucs.onnx"),
        ["drums", "bass", "other", "vocals", "instrumental"]
    );
}

#[test]
fn a_model_without_vocals_serves_no_tasks() {
    let load = |name| Separation::load(&choice(name, None), OPTIONS, &Locations::from_environment());
    assert!(load("wave_demucs.onnx").is_ok());
    assert_eq!(
        load("conv_f2560_n5120.onnx").err().unwrap().to_string(),
        "the stems of the model are bass, no_bass, but tasks need vocals and instrumental"
    );
}

#[test]
fn a_processor_states_its_memory_and_refuses_a_limit_below_it() {
    let load = |limit| {
        let options = RuntimeOptions {
            max_memory_bytes: limit,
            ..OPTIONS
        };
        Separation::load(&ModelChoice::Builtin, options, &Locations::from_environment())
    };
    assert_eq!(load(None).ok().unwrap().memory(), None);
    let bound = load(Some(100_000_000_000)).ok().unwrap().memory().unwrap();
    assert_eq!((bound.chunk_frames, bound.batch), (261_120, 1));
    let refused = load(Some(1_000_000)).err().unwrap().to_string();
    assert!(refused.contains("more than the allowed 1 MB"), "{refused}");
}

#[test]
fn a_dynamic_number_of_frames_is_taken_from_the_sidecar() {
    assert!(load("conv_dynamic_frames.onnx", None).is_ok());
    assert!(load("conv_fixed_batch.onnx", None).is_ok());
}

#[track_caller]
fn check_refused(name: &str, parameters: Option<&str>, expected: &[&str]) {
    let error = load(name, parameters).err().unwrap();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    for expected in expected {
        assert!(text.contains(expected), "{name}: {expected:?} is not in: {text}");
    }
}

#[test]
fn unsupported_models_are_refused_with_the_expected_and_found_values() {
    check_refused("bad_batch.onnx", None, &["[batch, 4, F, T]", "2"]);
    check_refused("bad_channels.onnx", None, &["[batch, 4, F, T]", "3"]);
    check_refused("bad_element_type.onnx", None, &["float32 or float16", "f64"]);
    check_refused("bad_rank.onnx", None, &["[batch, 4, F, T]"]);
    check_refused(
        "bad_two_inputs.onnx",
        None,
        &["one input and one output", "2 and 1"],
    );
    check_refused("bad_output_shape.onnx", None, &["its output", "64", "32"]);
    check_refused(
        "bad_not_onnx.onnx",
        None,
        &["cannot load the model", "bad_not_onnx.onnx"],
    );
    check_refused("missing.onnx", None, &["no model file", "missing.onnx"]);
}

#[test]
fn parameters_that_do_not_match_are_refused_with_the_expected_and_found_values() {
    check_refused("bad_f_above_n_fft.onnx", None, &["F = 2048", "1025"]);
    check_refused("bad_n_fft_above_chunk.onnx", None, &["3072", "4096"]);
    check_refused("bad_n_fft_below_hop.onnx", None, &["n_fft", "2048", "256"]);
    check_refused("bad_sidecar_compensate.onnx", None, &["compensate", "found 0"]);
    check_refused(
        "bad_sidecar_config_yaml.onnx",
        None,
        &["config_yaml", "not MDX-Net"],
    );
    check_refused("bad_sidecar_frames.onnx", None, &["T = 4", "mdx_dim_t_set = 8"]);
    check_refused("bad_sidecar_rows.onnx", None, &["F = 64", "mdx_dim_f_set = 48"]);
    check_refused(
        "conv_tiny.onnx",
        Some("conv_f2048_n6144.json"),
        &["F = 64", "mdx_dim_f_set = 2048"],
    );
    check_refused(
        "conv_tiny.onnx",
        Some("missing.json"),
        &["cannot read", "missing.json"],
    );
}
