//! Vorbis and Opus: channels, gain, and pages without a position.

use crate::support::{Case, EXACT, Expected, Tolerance, check_all, encode, offset_of};

/// Decoders of lossy codecs round differently.
const LOSSY: Tolerance = Tolerance {
    min_snr_db: 60.0,
    ..EXACT
};

/// Where the end of the last packet is unknown.
const WITHIN_A_PACKET: Tolerance = Tolerance {
    frames: 2_048,
    ..LOSSY
};

const SURROUND: &str = "-af pan=5.1|FL=c0|FR=c1|FC=0.5*c0|LFE=c1|BL=0.25*c1|BR=0.25*c0";
const QUAD: &str = "-af pan=quad|FL=c0|FR=c1|BL=0.5*c0|BR=0.5*c1";

fn lossy(name: &'static str, file: Vec<u8>) -> Case {
    Case {
        tolerance: LOSSY,
        ..Case::new(name, file)
    }
}

#[test]
fn channels_that_our_decoders_do_not_decode_are_decoded_by_ffmpeg() {
    let more = "Vorbis with more than two channels";
    let surround = |arguments: &str| encode(&format!("{SURROUND} {arguments}"));
    check_all(&[
        lossy("vorbis, mono", encode("-ac 1 -c:a libvorbis -q:a 3 -f ogg")),
        lossy("vorbis, lowest quality", encode("-c:a libvorbis -q:a -1 -f ogg")),
        lossy(
            "vorbis, one channel silent",
            encode("-af pan=stereo|c0=c0|c1=0*c0 -c:a libvorbis -q:a 3 -f ogg"),
        ),
        Case::for_ffmpeg("vorbis, 5.1", surround("-c:a libvorbis -q:a 3 -f ogg"), more),
        Case::for_ffmpeg(
            "vorbis, 5.1, webm",
            surround("-c:a libvorbis -q:a 3 -f webm"),
            more,
        ),
        Case::for_ffmpeg(
            "vorbis, quad",
            encode(&format!("{QUAD} -c:a libvorbis -q:a 3 -f ogg")),
            more,
        ),
        Case::for_ffmpeg(
            "opus, 5.1",
            surround("-c:a libopus -f ogg"),
            "unsupported number of channels",
        ),
        Case::for_ffmpeg(
            "speex",
            encode("-ar 16000 -ac 1 -c:a libspeex -f ogg"),
            "it is Speex",
        ),
        Case {
            alone: Expected::Refused("it is Opus with ambisonics"),
            ..Case::refused("opus, ambisonics", ambisonics(), "4 channels in a layout")
        },
    ]);
}

/// Four channels that the header declares as ambisonics instead of positions.
fn ambisonics() -> Vec<u8> {
    let file = encode(&format!("{QUAD} -c:a libopus -mapping_family 255 -f ogg"));
    let mut pages = Pages::from_file(file);
    let head = offset_of(&pages.file, b"OpusHead");
    pages.file[head + 18] = 2;
    pages.with_checksums()
}

#[test]
fn the_gain_in_the_header_of_opus_is_applied() {
    let gained = |decibels: i16, file: Vec<u8>| {
        let mut pages = Pages::from_file(file);
        let gain = offset_of(&pages.file, b"OpusHead") + 16;
        pages.file[gain..gain + 2].copy_from_slice(&(decibels * 256).to_le_bytes());
        pages
    };
    let opus = encode("-c:a libopus -b:a 128k -f ogg");
    let webm = encode("-c:a libopus -b:a 128k -write_crc32 0 -f webm");
    check_all(&[
        lossy("opus, -6 dB", gained(-6, opus.clone()).with_checksums()),
        lossy("opus, +12 dB", gained(12, opus).with_checksums()),
        Case {
            tolerance: WITHIN_A_PACKET,
            ..lossy("opus, webm, -6 dB", gained(-6, webm).file)
        },
    ]);
}

#[test]
fn pages_without_a_position_lose_nothing() {
    let vorbis = encode("-c:a libvorbis -q:a 3 -page_duration 100000 -f ogg");
    let opus = encode("-c:a libopus -page_duration 100000 -f ogg");
    let case = |name, file: &Vec<u8>, is_without: fn(usize, usize) -> bool| Case {
        reference: Some(file.clone()),
        tolerance: WITHIN_A_PACKET,
        ..Case::new(name, without_positions(file.clone(), is_without))
    };
    check_all(&[
        case("vorbis, every third page", &vorbis, |page, _| page % 3 == 0),
        case("vorbis, every page but the last", &vorbis, |page, last| {
            page < last
        }),
        case("vorbis, every page", &vorbis, |_, _| true),
        case("opus, every third page", &opus, |page, _| page % 3 == 0),
        case("opus, every page but the last", &opus, |page, last| page < last),
    ]);
}

/// Removes the position from those pages with audio for which `is_without(page, last)`.
fn without_positions(file: Vec<u8>, is_without: fn(usize, usize) -> bool) -> Vec<u8> {
    let mut pages = Pages::from_file(file);
    let last = pages.starts.len() - 1;
    assert!(last > 10, "many pages");
    for (page, start) in pages.starts.clone().into_iter().enumerate() {
        let position = start + 6..start + 14;
        let has_audio = pages.file[position.clone()] != [0; 8];
        if has_audio && is_without(page, last) {
            pages.file[position].fill(0xff);
        }
    }
    pages.with_checksums()
}

#[test]
fn a_file_that_ends_inside_a_page_is_read_up_to_its_end() {
    let cut = |arguments: &str| {
        let file = encode(arguments);
        file[..file.len() * 2 / 3].to_vec()
    };
    check_all(&[
        Case {
            tolerance: WITHIN_A_PACKET,
            ..Case::new(
                "vorbis, cut off",
                cut("-c:a libvorbis -page_duration 100000 -f ogg"),
            )
        },
        Case {
            tolerance: WITHIN_A_PACKET,
            alone: Expected::Decoded,
            ..Case::new("opus, cut off", cut("-c:a libopus -page_duration 100000 -f ogg"))
        },
    ]);
}

/// An Ogg file and the offsets of its pages.
struct Pages {
    file: Vec<u8>,
    starts: Vec<usize>,
}

impl Pages {
    fn from_file(file: Vec<u8>) -> Self {
        let mut starts = Vec::new();
        let mut start = 0;
        while file.get(start..start + 4) == Some(b"OggS") {
            starts.push(start);
            start += page_bytes(&file[start..]);
        }
        Self { file, starts }
    }

    /// The file with recomputed page checksums.
    fn with_checksums(mut self) -> Vec<u8> {
        for start in self.starts {
            let end = start + page_bytes(&self.file[start..]);
            self.file[start + 22..start + 26].fill(0);
            let sum = checksum(&self.file[start..end]);
            self.file[start + 22..start + 26].copy_from_slice(&sum.to_le_bytes());
        }
        self.file
    }
}

fn page_bytes(page: &[u8]) -> usize {
    let segments = usize::from(page[26]);
    let body: usize = page[27..27 + segments]
        .iter()
        .map(|bytes| usize::from(*bytes))
        .sum();
    27 + segments + body
}

/// RFC 3533: CRC-32 with the polynomial 0x04c11db7, without inversion or reflection.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| {
            if sum >> 31 == 1 {
                sum << 1 ^ 0x04c1_1db7
            } else {
                sum << 1
            }
        })
    })
}
