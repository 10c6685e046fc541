//! Recognizes files that are not a model or parameters: downloads often return something else.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes inspected at the start of a file.
const HEAD_BYTES: u64 = 512;

/// Fields of an ONNX file inspected; models have about ten.
const MAX_FIELDS: usize = 10_000;

/// The kind of file by its first bytes, and the fix, for common mistakes.
pub(crate) fn foreign_kind(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 8] = [
        (
            b"version https://git-lfs",
            "a Git LFS pointer; fix: run `git lfs pull`, or download the file itself",
        ),
        (
            b"PK\x03\x04",
            "a zip archive, as PyTorch checkpoints (.ckpt, .pth) are; fix: unpack it, or convert the checkpoint to ONNX",
        ),
        (b"\x80\x02", PICKLE),
        (b"\x80\x03", PICKLE),
        (b"\x80\x04", PICKLE),
        (b"\x1f\x8b", "a gzip archive; fix: decompress it"),
        (b"\xff\xfe", UTF_16),
        (b"\xfe\xff", UTF_16),
    ];
    if head.is_empty() {
        return Some("empty; fix: download it again");
    }
    if let Some((_, kind)) = SIGNATURES.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(kind);
    }
    let text = without_bom(head).trim_ascii_start();
    let starts = |with: &str| {
        text.get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    if starts("<!doctype html") || starts("<html") {
        return Some("a web page; fix: download the file itself, not the page that links to it");
    }
    if starts("<?xml") {
        return Some("an XML document, as servers answer with errors; fix: download it again");
    }
    // The length of a JSON object, and the object.
    let header = head.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    if header.is_some_and(|length| (2..1 << 30).contains(&length)) && head.get(8) == Some(&b'{') {
        return Some("in the safetensors format; fix: convert it to ONNX");
    }
    None
}

const PICKLE: &str =
    "a Python pickle, as PyTorch checkpoints (.ckpt, .pth) are; fix: convert the checkpoint to ONNX";
const UTF_16: &str = "UTF-16 text; fix: save it as UTF-8";

/// The text without a UTF-8 byte-order mark.
pub(super) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Why a file is not a loadable model, if its content shows that: its kind and the fix, after "the file is".
pub fn not_onnx(model: &Path) -> Option<String> {
    // An unreadable file was already an error of loading it.
    describe(BufReader::new(File::open(model).ok()?)).ok()?
}

fn describe(mut file: impl Read + Seek) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    if let Some(kind) = foreign_kind(&head) {
        return Ok(Some(kind.to_owned()));
    }
    let is_text = |byte: &u8| (0x20..0x7f).contains(byte) || byte.is_ascii_whitespace();
    if head.iter().all(is_text) {
        return Ok(Some("text; fix: name the .onnx file".to_owned()));
    }
    let bytes = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(declared_bytes(&mut file, bytes)?
        .filter(|declared| *declared > bytes)
        .map(|declared| format!("cut off: {bytes} of at least {declared} bytes; fix: download it again")))
}

/// The size that the fields of a protobuf message declare, without reading their contents; `None` if it is
/// not a protobuf message.
fn declared_bytes(file: &mut (impl Read + Seek), bytes: u64) -> io::Result<Option<u64>> {
    let mut position = 0;
    for _ in 0..MAX_FIELDS {
        if position >= bytes {
            return Ok(Some(position));
        }
        file.seek(SeekFrom::Start(position))?;
        let Some((key, key_bytes)) = varint(file)? else {
            return Ok(None);
        };
        position += key_bytes;
        let length = match key & 7 {
            0 => match varint(file)? {
                Some((_, length)) => length,
                None => return Ok(None),
            },
            1 => 8,
            2 => match varint(file)? {
                Some((length, length_bytes)) => length.saturating_add(length_bytes),
                None => return Ok(None),
            },
            5 => 4,
            _ => return Ok(None),
        };
        position = position.saturating_add(length);
    }
    Ok(None)
}

/// A number and its length in bytes; `None` if the file ends in it or it is longer than 10 bytes.
fn varint(file: &mut impl Read) -> io::Result<Option<(u64, u64)>> {
    let mut value = 0;
    for length in 0..10 {
        let mut byte = [0];
        if file.read(&mut byte)? == 0 {
            return Ok(None);
        }
        value |= u64::from(byte[0] & 0x7f) << (7 * length).min(63);
        if byte[0] & 0x80 == 0 {
            return Ok(Some((value, length + 1)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// `ir_version` 8, a producer's name, and a graph of 300 bytes.
    fn model() -> Vec<u8> {
        let mut model = b"\x08\x08\x12\x04test\x3a\xac\x02".to_vec();
        model.extend([1; 300]);
        model
    }

    #[track_caller]
    fn check(content: impl Into<Vec<u8>>, expected: Option<&str>) {
        let found = describe(Cursor::new(content.into())).expect("memory");
        match expected {
            Some(expected) => {
                let found = found.expect("it is named");
                assert!(found.starts_with(expected), "{found}");
            }
            None => assert_eq!(found, None),
        }
    }

    #[test]
    fn files_downloaded_in_place_of_a_model_are_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 66759214\n";
        check(pointer, Some("a Git LFS pointer"));
        check("\n<!DOCTYPE HTML>\n<title>Ä</title>", Some("a web page"));
        check("\u{feff}<html lang=\"de\">", Some("a web page"));
        check("<?xml version=\"1.0\"?><Error/>", Some("an XML document"));
        check(*b"PK\x03\x04archive/data.pkl", Some("a zip archive, as PyTorch"));
        check(*b"\x80\x02}q\x00(X\x0a\x00", Some("a Python pickle"));
        check(
            *b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":",
            Some("in the safetensors format"),
        );
        check("", Some("empty"));
        check("not a model", Some("text"));
    }

    #[test]
    fn a_truncated_model_is_distinguished_from_a_complete_one() {
        check(model(), None);
        check(&model()[..100], Some("cut off: 100 of at least 311 bytes"));
        check(vec![0xff; 1_000], None);
        check(vec![7; 1_000], None);
    }
}
