//! The corpus of the fuzz targets in `fuzz/`, and mutations of it, on a stable compiler.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use separation_contract::message::{Task, TaskResult, requeue_value};
use separation_worker::api::{parse_basic, parse_generate};
use separation_worker::audio::{SourceOptions, open_bytes};
use separation_worker::engine::FixedSizes;
use separation_worker::model::{DeclaredModel, parse_parameters};

use crate::formats::read_all;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    corpus.sort();
    corpus
}

fn parse(text: &[u8]) -> bool {
    let hash = || Ok("0123456789abcdef0123456789abcdef".to_owned());
    match parse_parameters(text, Path::new("fuzzed.json"), hash) {
        Ok(DeclaredModel::MdxNet(parameters)) => parameters.shape(FixedSizes::default()).is_ok(),
        Ok(DeclaredModel::Tensors(_)) => true,
        Err(_) => false,
    }
}

#[test]
fn only_valid_parameter_files_of_the_corpus_are_accepted() {
    for (path, text) in corpus("parameters") {
        let name = path.file_stem().unwrap();
        assert_eq!(
            parse(&text),
            name == "sidecar" || name == "collection",
            "{}",
            path.display()
        );
    }
}

#[test]
fn audio_in_the_corpus_is_decoded() {
    for (path, file) in corpus("decode") {
        let mut source = open_bytes(file, &SourceOptions::default()).unwrap();
        let frames = read_all(&mut source).frames();
        // 50 ms; lossy codecs round up to a packet.
        assert!(
            (2_000..12_000).contains(&frames),
            "{}: {frames} frames",
            path.display()
        );
    }
}

const JSON: Option<&[u8]> = Some(b"application/json");

#[test]
fn only_valid_messages_of_the_corpus_are_accepted() {
    for (path, value) in corpus("messages") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (task, result) = (Task::parse(Some(&value)), TaskResult::parse(Some(&value)));
        assert_eq!(task.is_ok(), name.starts_with("task"), "{name}");
        assert_eq!(result.is_ok(), name.starts_with("result"), "{name}");
    }
}

#[test]
fn only_valid_requests_of_the_corpus_are_accepted() {
    for (path, bytes) in corpus("requests") {
        let name = path.file_stem().unwrap();
        assert_eq!(
            parse_generate(JSON, &bytes).is_ok(),
            name == "generate" || name == "spaces",
            "{name:?}"
        );
        assert_eq!(parse_basic(&bytes).is_some(), name == "basic", "{name:?}");
    }
}

fn change(mut bytes: Vec<u8>, changes: Vec<(prop::sample::Index, u8)>) -> Vec<u8> {
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = byte;
    }
    bytes
}

proptest! {
    #[test]
    fn a_mutated_message_is_parsed_as_it_is_written_or_refused(
        file in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let value = change(corpus("messages").swap_remove(file).1, changes);
        if let Ok(task) = Task::parse(Some(&value)) {
            let (count, text) = requeue_value(&value).expect("a task is an object");
            let later = Task::parse(Some(text.as_bytes())).expect("still a task");
            prop_assert_eq!(later.retry_count, count);
            prop_assert_eq!(later.task_uuid, task.task_uuid);
        }
        if let Ok(result) = TaskResult::parse(Some(&value)) {
            prop_assert_eq!(TaskResult::parse(Some(result.to_json().as_bytes())), Ok(result));
        }
    }

    #[test]
    fn a_mutated_request_has_http_addresses_or_is_refused(
        file in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let bytes = change(corpus("requests").swap_remove(file).1, changes);
        if let Ok(request) = parse_generate(JSON, &bytes) {
            for address in [request.audio, request.hook_url] {
                prop_assert!(address.to_ascii_lowercase().starts_with("http"), "{}", address);
            }
        }
        let _ = parse_basic(&bytes);
    }

    #[test]
    fn a_mutated_parameter_file_never_panics_the_parser(
        file in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut text = corpus("parameters").swap_remove(file).1;
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        parse(&text);
    }
}
