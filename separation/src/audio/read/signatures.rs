//! Recognizes files that our own decoders do not read by their first bytes: those that are never audio, and
//! those that ffmpeg decodes. Signatures have four bytes or more, or are checked further, so that no audio is
//! misidentified.

/// The kind of a recognized file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecognizedFormat {
    /// Never decodable audio, though it may contain audio that must not be found by chance.
    Foreign(&'static str),
    /// Audio in a format that ffmpeg decodes.
    ForFfmpeg(&'static str),
}

/// Bytes of text inspected.
const TEXT_BYTES: usize = 512;

/// Formats with a unique prefix.
const FOREIGN: [(&[u8], &str); 25] = [
    // ffmpeg reads its samples as little-endian, which gives noise.
    (b"RIFX", "a WAV file with big-endian numbers"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"8BPS", "a Photoshop image"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (b"\x7fELF", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\0asm", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"SQLite format 3\0", "a database"),
    (b"MThd", "a MIDI file, which has notes and no sound"),
    (b"d8:announce", "a torrent, not the file that it names"),
    (b"d10:created by", "a torrent, not the file that it names"),
    (b"d13:announce-list", "a torrent, not the file that it names"),
];

/// RIFF files other than WAVE, by the four bytes at offset 8.
const RIFF_KINDS: [(&[u8; 4], RecognizedFormat); 5] = [
    (b"WEBP", RecognizedFormat::Foreign("a WebP image")),
    (
        b"RMID",
        RecognizedFormat::Foreign("a MIDI file, which has notes and no sound"),
    ),
    (b"sfbk", RecognizedFormat::Foreign("a SoundFont")),
    (b"AVI ", RecognizedFormat::ForFfmpeg("AVI")),
    (b"QLCM", RecognizedFormat::ForFfmpeg("QCP")),
];

/// Brands of ISO files that are images, at offset 8, after `ftyp`.
const IMAGE_BRANDS: [&[u8; 4]; 8] = [
    b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1", b"avif", b"avis",
];

const FOR_FFMPEG: [(&[u8], &str); 24] = [
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF (WMA)"),
    (b"wvpk", "WavPack"),
    (b"TTA1", "True Audio"),
    (b"MAC ", "Monkey's Audio"),
    (b"MPCK", "Musepack"),
    (b"MP+", "Musepack"),
    (b"DSD ", "DSF"),
    (b"#!AMR", "AMR"),
    (b"FLV\x01", "FLV"),
    (b"\0\0\x01\xba", "MPEG program stream"),
    (b".RMF", "RealMedia"),
    (b".ra\xfd", "RealAudio"),
    (b".snd", "Sun audio"),
    (b"Creative Voice File", "Creative Voice"),
    (b"riff\x2e\x91\xcf\x11", "Wave64"),
    (b"\x7f\xfe\x80\x01", "DTS"),
    (b"\xfe\x7f\x01\x80", "DTS"),
    (b"DTSHDHDR", "DTS-HD"),
    (b"tBaK", "TAK"),
    (b"ea3\x03", "ATRAC"),
    (b"EA3\x01", "ATRAC"),
    (b".SoX", "SoX"),
    (b"XoS.", "SoX"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "MXF"),
];

/// Recognizes a file by its signature; text is left to [`text`].
pub(super) fn recognize(head: &[u8]) -> Option<RecognizedFormat> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    let begins = |(magic, _): &&(&[u8], &'static str)| head.starts_with(magic);
    if at(0, b"RIFF") {
        return RIFF_KINDS
            .iter()
            .find(|(kind, _)| at(8, *kind))
            .map(|(_, format)| *format);
    }
    if at(4, b"ftyp") && IMAGE_BRANDS.iter().any(|brand| at(8, *brand)) {
        return Some(RecognizedFormat::Foreign("a HEIF or AVIF image"));
    }
    if at(0, b"FORM") && (at(8, b"8SVX") || at(8, b"16SV")) {
        return Some(RecognizedFormat::ForFfmpeg("8SVX"));
    }
    if let Some((_, name)) = FOREIGN.iter().find(begins) {
        return Some(RecognizedFormat::Foreign(name));
    }
    if let Some((_, name)) = FOR_FFMPEG.iter().find(begins) {
        return Some(RecognizedFormat::ForFfmpeg(name));
    }
    if is_bitmap(head) {
        return Some(RecognizedFormat::Foreign("a BMP image"));
    }
    if is_windows_program(head) {
        return Some(RecognizedFormat::Foreign("a program"));
    }
    if at(4, b"\xf8\x72\x6f\xba") {
        return Some(RecognizedFormat::ForFfmpeg("TrueHD"));
    }
    if is_transport_stream(head) {
        return Some(RecognizedFormat::ForFfmpeg("MPEG transport stream"));
    }
    is_ac3(head).then_some(RecognizedFormat::ForFfmpeg("AC-3"))
}

/// The size of the second header must be one of the few defined ones.
fn is_bitmap(head: &[u8]) -> bool {
    head.starts_with(b"BM")
        && head.get(6..10) == Some(&[0; 4])
        && matches!(
            head.get(14..18),
            Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
        )
}

/// The DOS header must point to another header.
fn is_windows_program(head: &[u8]) -> bool {
    let Some(&[low, high, 0, 0]) = head.get(60..64) else {
        return false;
    };
    let offset = usize::from(u16::from_le_bytes([low, high]));
    head.starts_with(b"MZ") && head.get(offset..offset + 4) == Some(b"PE\0\0")
}

/// Packets of 188 bytes, or of 192 with a time stamp before each, begin with the same byte.
fn is_transport_stream(head: &[u8]) -> bool {
    let repeats = |first: usize, packet: usize| (0..5).all(|n| head.get(first + n * packet) == Some(&0x47));
    repeats(0, 188) || repeats(4, 192)
}

/// ATSC A/52: two frames, each of the length that its header gives.
fn is_ac3(head: &[u8]) -> bool {
    let second = ac3_frame_bytes(head);
    second.is_some_and(|offset| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(b"\x0b\x77"))
    })
}

fn ac3_frame_bytes(head: &[u8]) -> Option<usize> {
    const KBPS: [usize; 19] = [
        32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
    ];
    let &[0x0b, 0x77, third, fourth, fifth, sixth, ..] = head else {
        return None;
    };
    let version = sixth >> 3;
    if (11..=16).contains(&version) {
        // E-AC-3 gives its length in words.
        return Some(2 * (usize::from(third & 7) << 8 | usize::from(fourth)) + 2);
    }
    let kbps = KBPS.get(usize::from(fifth & 0x3f) / 2)?;
    let odd = usize::from(fifth & 1);
    match (version <= 10, fifth >> 6) {
        (true, 0) => Some(kbps * 4),
        (true, 1) => Some((kbps * 320_000 / 147_000 + odd) * 2),
        (true, 2) => Some(kbps * 6),
        _ => None,
    }
}

/// The kind of text that a file begins with, in UTF-8, UTF-16 or a single-byte encoding; `None` if it is not
/// text.
pub(super) fn text(head: &[u8]) -> Option<&'static str> {
    let text = as_text(&head[..head.len().min(TEXT_BYTES)])?;
    let text = text.trim_start_matches('\u{feff}').trim_start().to_lowercase();
    let is_page = text.starts_with("<!doctype html") || text.contains("<html") || text.contains("<head");
    Some(if text.starts_with("version https://git-lfs.") {
        "a Git LFS pointer, not the file that it names"
    } else if text.starts_with("#extm3u") || text.starts_with("[playlist]") {
        "a playlist, not the songs that it names"
    } else if text.starts_with('<') && is_page {
        "a web page"
    } else if text.starts_with('<') {
        "an XML document"
    } else if text.starts_with('{') {
        "JSON"
    } else {
        "text"
    })
}

fn as_text(head: &[u8]) -> Option<String> {
    if let Some(words) = head.strip_prefix(b"\xff\xfe") {
        return utf_16(words, u16::from_le_bytes);
    }
    if let Some(words) = head.strip_prefix(b"\xfe\xff") {
        return utf_16(words, u16::from_be_bytes);
    }
    let is_control =
        |byte: &u8| *byte == 0x7f || (*byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if head.iter().any(is_control) {
        return None;
    }
    // The last character may be cut off at the end of the inspected bytes.
    let is_utf_8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let plain = head.iter().filter(|byte| byte.is_ascii()).count();
    // Text in single-byte encodings is mostly ASCII, at least in markup and common languages.
    (is_utf_8 || plain * 4 >= head.len() * 3).then(|| String::from_utf8_lossy(head).into_owned())
}

fn utf_16(bytes: &[u8], word: fn([u8; 2]) -> u16) -> Option<String> {
    let (words, _) = bytes.as_chunks::<2>();
    let words = words.iter().map(|bytes| word(*bytes));
    let text: String = char::decode_utf16(words).collect::<Result<_, _>>().ok()?;
    let is_text = |c: char| !c.is_control() || c.is_whitespace();
    (!text.is_empty() && text.chars().all(is_text)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_recognized_in_any_encoding() {
        let page = "<!DOCTYPE html><html lang=\"fr\"><body>Le fichier a été supprimé</body></html>";
        let latin: Vec<u8> = page.chars().map(|c| c as u8).collect();
        let utf_16: Vec<u8> = std::iter::once(0xfeff)
            .chain(page.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [page.as_bytes().to_vec(), latin, utf_16] {
            assert_eq!(text(&bytes), Some("a web page"));
        }
    }

    #[test]
    fn a_character_cut_off_by_the_window_is_text_all_the_same() {
        let bytes = "é".repeat(TEXT_BYTES).into_bytes();
        assert_eq!(text(&bytes[1..]), None);
        let mut bytes = b"x".to_vec();
        bytes.extend("é".repeat(TEXT_BYTES).bytes());
        assert_eq!(text(&bytes), Some("text"));
    }

    #[test]
    fn other_texts_are_named() {
        assert_eq!(
            text(b"#EXTM3U\nsong.mp3\n"),
            Some("a playlist, not the songs that it names")
        );
        assert_eq!(text(b"{\"error\": 404}"), Some("JSON"));
        assert_eq!(text(b"<?xml version=\"1.0\"?><Error/>"), Some("an XML document"));
        assert_eq!(
            text(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            Some("a Git LFS pointer, not the file that it names")
        );
        assert_eq!(text(b"RIFF\x24\0\0\0WAVE"), None);
    }

    #[test]
    fn signatures_shared_by_two_kinds_are_distinguished() {
        assert_eq!(
            recognize(b"RIFF\0\0\0\0WEBPVP8 "),
            Some(RecognizedFormat::Foreign("a WebP image"))
        );
        assert_eq!(
            recognize(b"RIFF\0\0\0\0AVI LIST"),
            Some(RecognizedFormat::ForFfmpeg("AVI"))
        );
        assert_eq!(recognize(b"RIFF\0\0\0\0WAVEfmt "), None);
        assert_eq!(recognize(b"\0\0\0\x18ftypM4A \0\0\0\0"), None);
        assert_eq!(
            recognize(b"\0\0\0\x18ftypheic\0\0\0\0"),
            Some(RecognizedFormat::Foreign("a HEIF or AVIF image"))
        );
        assert_eq!(recognize(b"MZ and more"), None);
        assert_eq!(recognize(b"BM and more than that"), None);
    }
}
