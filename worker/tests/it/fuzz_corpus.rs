//! The corpus of the fuzz targets in `fuzz/`, and mutations of it, on a stable compiler.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use separation_worker::audio::{SourceOptions, open_bytes};
use separation_worker::engine::FixedSizes;
use separation_worker::model::parse_parameters;

use crate::formats::read_all;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    corpus.sort();
    corpus
}

fn parse(text: &[u8]) -> bool {
    let hash = || Ok("0123456789abcdef0123456789abcdef".to_owned());
    parse_parameters(text, Path::new("fuzzed.json"), hash)
        .is_ok_and(|parameters| parameters.shape(FixedSizes::default()).is_ok())
}

#[test]
fn files_of_parameters_in_the_corpus_are_told_apart() {
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

proptest! {
    #[test]
    fn no_change_of_any_bytes_makes_a_file_of_parameters_dangerous(
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
