//! Shared by the stream tests: tags, noise, joined files and files made by other programs.

use std::path::Path;
use std::process::Command;

use separation::audio::{OutputFormat, StereoBlock, WavSamples, create};

use crate::support::{Case, Tolerance, reference};

/// Two decoders of one lossy stream: samples equal except for rounding, lengths within one packet.
pub(crate) const STREAM: Tolerance = Tolerance {
    min_snr_db: 60.0,
    frames: 1_152,
};

/// A case that decodes as ffmpeg decodes the same file.
pub(crate) fn same(name: &'static str, file: Vec<u8>) -> Case {
    Case {
        tolerance: STREAM,
        ..Case::new(name, file)
    }
}

/// A case that decodes as ffmpeg decodes another file.
pub(crate) fn like(name: &'static str, file: Vec<u8>, reference: &[u8]) -> Case {
    Case {
        reference: Some(reference.to_vec()),
        ..same(name, file)
    }
}

pub(crate) fn reported(case: Case) -> Case {
    Case {
        is_reported: true,
        ..case
    }
}

/// Pseudo-random bytes, the same for each seed.
pub(crate) fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

pub(crate) fn id3v1() -> Vec<u8> {
    [b"TAG".as_slice(), &[b' '; 125]].concat()
}

/// A tag with a picture that declares `size` bytes.
pub(crate) fn id3v2(picture: &[u8], size: usize) -> Vec<u8> {
    let seven = |size: usize| [21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8);
    let frame = [b"APIC".as_slice(), &seven(picture.len()), &[0, 0], picture].concat();
    let head = [b"ID3\x04\0\0".as_slice(), &seven(size)].concat();
    [head, frame].concat()
}

pub(crate) fn ape(picture: &[u8]) -> Vec<u8> {
    let item = [
        &(picture.len() as u32).to_le_bytes()[..],
        &[2, 0, 0, 0],
        b"Cover Art (Front)\0",
        picture,
    ]
    .concat();
    let part = |flags: u32| {
        [
            b"APETAGEX".as_slice(),
            &2_000_u32.to_le_bytes(),
            &(item.len() as u32 + 32).to_le_bytes(),
            &1_u32.to_le_bytes(),
            &flags.to_le_bytes(),
            &[0; 8],
        ]
        .concat()
    };
    [part(0xa000_0000), item.clone(), part(0x8000_0000)].concat()
}

/// The audio that ffmpeg decodes from each file, concatenated, as a file.
pub(crate) fn joined_audio(files: &[&[u8]]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut joined = StereoBlock::default();
    for file in files {
        joined.append(&reference(file, directory.path()).unwrap());
    }
    let path = directory.path().join("joined.wav");
    let mut sink = create(&path, OutputFormat::Wav(WavSamples::Float32)).unwrap();
    sink.write(&joined).unwrap();
    sink.finish().unwrap().publish().unwrap();
    std::fs::read(path).unwrap()
}

/// Makes a file with a program that reads one file and writes another, given as `IN` and `OUT`.
pub(crate) fn convert_with(program: &str, arguments: &str, input: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("in.wav"), directory.path().join("out"));
    std::fs::write(&from, input).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let run = Command::new(program)
        .args(arguments.split_ascii_whitespace().map(|word| match word {
            "IN" => path(&from),
            "OUT" => path(&to),
            word => word.to_owned(),
        }))
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    let text = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{program} {arguments}: {text}");
    std::fs::read(to).unwrap()
}
