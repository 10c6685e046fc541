//! Linear samples: their byte order, their width, and where they end.

use crate::support::{Case, Tolerance, check_all, encode, offset_of};

/// Replaces the bytes at `offset` with `bytes`.
fn patched(mut file: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn samples_in_quicktime_have_the_byte_order_that_the_file_gives() {
    let mov = |codec: &str| encode(&format!("-c:a {codec} -f mov"));
    check_all(&[
        Case::new("in24, big-endian", mov("pcm_s24be")),
        Case::new("in32, big-endian", mov("pcm_s32be")),
        Case::new("fl32, big-endian", mov("pcm_f32be")),
        Case::new("fl64, big-endian", mov("pcm_f64be")),
        Case::new("in24, mono", encode("-ac 1 -c:a pcm_s24be -f mov")),
        Case::new("in24, little-endian by enda", mov("pcm_s24le")),
        Case::new("fl32, little-endian by enda", mov("pcm_f32le")),
        Case::new("twos", mov("pcm_s16be")),
        Case::new("sowt", mov("pcm_s16le")),
        Case::new("lpcm with flags", encode("-ar 96000 -c:a pcm_s24be -f mov")),
        Case::for_ffmpeg("twos of 8 bits", mov("pcm_s8"), "invalid pcm sample size"),
        Case::for_ffmpeg(
            "six channels",
            encode("-ac 6 -c:a pcm_s24be -f mov"),
            "invalid number of channels",
        ),
        Case::refused(
            "24 bits in packets for 32",
            lpcm_24_in_32(),
            "larger than its samples",
        ),
    ]);
}

/// Version 2 of a sound description that declares fewer bits than its packets have.
fn lpcm_24_in_32() -> Vec<u8> {
    let file = encode("-ar 96000 -c:a pcm_s32be -f mov");
    let bits = offset_of(&file, b"lpcm") - 4 + 56;
    assert_eq!(file[bits..bits + 4], 32_u32.to_be_bytes());
    patched(file, bits, &24_u32.to_be_bytes())
}

#[test]
fn core_audio_and_aiff_are_read_in_their_byte_order_and_to_their_end() {
    let caf = |codec: &str| encode(&format!("-c:a {codec} -f caf"));
    let aiff = |codec: &str| encode(&format!("-c:a {codec} -f aiff"));
    check_all(&[
        Case::new("caf, 24 bits, little-endian", caf("pcm_s24le")),
        Case::new("caf, floating point, big-endian", caf("pcm_f32be")),
        Case::new("caf of a pipe", without_length(caf("pcm_s16be"))),
        Case::new(
            "caf of a pipe, mono",
            without_length(encode("-ac 1 -c:a pcm_f32le -f caf")),
        ),
        Case::for_ffmpeg("caf, mu-law", caf("pcm_mulaw"), "unexpected bits per sample"),
        Case::refused(
            "caf, 24 bits in packets for 32",
            caf_24_in_32(),
            "larger than its samples",
        ),
        Case::new("aiff, 24 bits", aiff("pcm_s24be")),
        Case::new("aifc, sowt", aiff("pcm_s16le")),
        Case::new("aifc, floating point", aiff("pcm_f32be")),
    ]);
}

/// A file with the length fields of an output that cannot seek.
fn without_length(file: Vec<u8>) -> Vec<u8> {
    let length = offset_of(&file, b"data") + 4;
    patched(file, length, &(-1_i64).to_be_bytes())
}

fn caf_24_in_32() -> Vec<u8> {
    let file = encode("-c:a pcm_s32le -f caf");
    let bits = offset_of(&file, b"desc") + 12 + 28;
    assert_eq!(file[bits..bits + 4], 32_u32.to_be_bytes());
    patched(file, bits, &24_u32.to_be_bytes())
}

/// Offsets of fields of a plain WAV header.
const BLOCK_ALIGN: usize = 32;
const BITS: usize = 34;
const DATA_BYTES: usize = 40;

/// A plain WAV file of 16 bits, whose samples begin at byte 44.
fn wav(arguments: &str) -> Vec<u8> {
    let file = encode(&format!("{arguments} -c:a pcm_s16le -bitexact -f wav"));
    assert_eq!(offset_of(&file, b"data") + 8, 44);
    file
}

#[test]
fn wav_headers_that_are_wrong_give_the_samples_or_a_reason() {
    let mono = wav("-ac 1");
    let stereo = wav("-ac 2");
    check_all(&[
        Case::new(
            "frames of a stereo file in a mono one",
            patched(mono.clone(), BLOCK_ALIGN, &4_u16.to_le_bytes()),
        ),
        Case::new(
            "frames of a mono file in a stereo one",
            patched(stereo.clone(), BLOCK_ALIGN, &2_u16.to_le_bytes()),
        ),
        Case::refused(
            "24 bits in frames for 32",
            patched(encode("-c:a pcm_s32le -f wav"), BITS, &24_u16.to_le_bytes()),
            "24-bit samples of 2 channels in frames of 8 bytes",
        ),
        Case {
            reference: Some(stereo.clone()),
            ..Case::new(
                "no length of samples",
                patched(stereo.clone(), DATA_BYTES, &[0; 4]),
            )
        },
        Case::new(
            "length of a stream",
            patched(stereo.clone(), DATA_BYTES, &[0xff; 4]),
        ),
        Case {
            is_reported: true,
            ..Case::new(
                "length of a longer file",
                patched(stereo.clone(), DATA_BYTES, &10_000_000_u32.to_le_bytes()),
            )
        },
        Case::refused("only tags", only_tags(&stereo), "its length is zero"),
        Case {
            tolerance: Tolerance {
                frames: 1,
                ..crate::support::EXACT
            },
            is_reported: true,
            ..Case::new("cut off inside a frame", stereo[..stereo.len() - 4_001].to_vec())
        },
        Case::refused(
            "big-endian",
            big_endian(&stereo),
            "a WAV file with big-endian numbers",
        ),
    ]);
}

/// An empty data chunk with a list chunk after it, which is not samples.
fn only_tags(file: &[u8]) -> Vec<u8> {
    let list = [b"LIST".as_slice(), &64_u32.to_le_bytes(), b"INFO", &[b'x'; 60]].concat();
    let mut file = patched(file[..44].to_vec(), DATA_BYTES, &[0; 4]);
    file.extend_from_slice(&list);
    let riff_bytes = u32::try_from(file.len() - 8).unwrap();
    patched(file, 4, &riff_bytes.to_le_bytes())
}

/// RIFX: every number is big-endian.
fn big_endian(file: &[u8]) -> Vec<u8> {
    let mut swapped = file.to_vec();
    swapped[..4].copy_from_slice(b"RIFX");
    for (offset, bytes) in [
        (4, 4),
        (16, 4),
        (20, 2),
        (22, 2),
        (24, 4),
        (28, 4),
        (32, 2),
        (34, 2),
        (40, 4),
    ] {
        swapped[offset..offset + bytes].reverse();
    }
    swapped[44..].chunks_exact_mut(2).for_each(<[u8]>::reverse);
    swapped
}
