//! MP4 and Matroska files that were cut off or have several tracks, and codecs that only resemble supported
//! ones.

use separation::audio::FfmpegUse;

use crate::fragments::{convert_with, id3v1, like, noise, reported, same};
use crate::support::{Case, EXACT, Expected, Tolerance, check_all, encode, offset_of, read};

/// Replaces the decoder configuration in an MP4 file by ffmpeg with one of another length.
fn with_configuration(mp4: &[u8], configuration: &[u8]) -> Vec<u8> {
    let old = offset_of(mp4, b"\x05\x80\x80\x80");
    let old_bytes = usize::from(mp4[old + 4]);
    let more = configuration.len() - old_bytes;
    let mut file = mp4[..old + 4].to_vec();
    file.push(configuration.len() as u8);
    file.extend_from_slice(configuration);
    file.extend_from_slice(&mp4[old + 5 + old_bytes..]);
    for descriptor in [b"\x03\x80\x80\x80", b"\x04\x80\x80\x80"] {
        file[offset_of(mp4, descriptor) + 4] += more as u8;
    }
    for kind in [
        b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4a", b"esds",
    ] {
        let size = offset_of(mp4, kind) - 4;
        let bytes = u32::from_be_bytes(file[size..size + 4].try_into().unwrap()) + more as u32;
        file[size..size + 4].copy_from_slice(&bytes.to_be_bytes());
    }
    file
}

#[test]
fn he_aac_is_never_decoded_without_sbr() {
    let (first, second) = (
        include_bytes!("he_aac_v1.aac").to_vec(),
        include_bytes!("he_aac_v2.aac").to_vec(),
    );
    let mp4 = |aac: &[u8]| convert_with("ffmpeg", "-v error -i IN -c copy -f ipod OUT", aac);
    let (first_mp4, second_mp4) = (mp4(&first), mp4(&second));
    let refused = |name, file| Case::for_ffmpeg(name, file, "HE-AAC");
    let announced = with_configuration(&first_mp4, &[0x13, 0x90, 0x56, 0xe5, 0xa0]);
    let explicit = with_configuration(&first_mp4, &[0x2b, 0x92, 0x08, 0x00]);
    let explicit_2 = with_configuration(&second_mp4, &[0xeb, 0x8a, 0x08, 0x00]);
    let cases = [
        refused("HE-AAC in ADTS", first.clone()),
        refused("HE-AAC v2 in ADTS", second),
        refused("HE-AAC in MP4", first_mp4),
        refused("HE-AAC v2 in MP4", second_mp4),
        refused("HE-AAC announced after plain AAC", announced),
        Case::for_ffmpeg("HE-AAC announced", explicit, "aac too complex"),
        Case::for_ffmpeg("HE-AAC v2 announced", explicit_2, "aac too complex"),
        refused(
            "HE-AAC in Matroska",
            convert_with("ffmpeg", "-v error -i IN -c copy -f matroska OUT", &first),
        ),
    ];
    check_all(&cases);
}

#[test]
fn an_aac_packet_without_audio_is_silence_and_not_the_one_before_it() {
    let mut aac = encode("-c:a aac -b:a 192k -f adts");
    let mut at = 0;
    for _ in 0..40 {
        at += adts_frame_bytes(&aac[at..]);
    }
    let end = at + adts_frame_bytes(&aac[at..]);
    aac[at + 7..end].fill(0);
    aac[at + 7] = 0xe0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("song");
    std::fs::write(&path, &aac).unwrap();
    let (found, report) = read(&path, FfmpegUse::Forbidden).unwrap();
    assert_eq!(report.skipped_packets, 1);
    assert!(
        found.left[40 * 1_024..41 * 1_024]
            .iter()
            .all(|sample| *sample == 0.0)
    );
}

#[test]
fn a_damaged_packet_of_alac_in_caf_is_a_full_frame_of_silence() {
    let intact = encode("-c:a alac -sample_fmt s16p -f caf");
    let mut damaged = intact.clone();
    // The first packet begins after the chunk's length and its edit count. ALAC has no such element.
    let packet = offset_of(&intact, b"data") + 16;
    assert_eq!(std::mem::replace(&mut damaged[packet], 0x40), 0x20);
    let directory = tempfile::tempdir().unwrap();
    let decoded = |file: &[u8]| {
        let path = directory.path().join("song");
        std::fs::write(&path, file).unwrap();
        read(&path, FfmpegUse::Forbidden).unwrap()
    };
    let (expected, _) = decoded(&intact);
    let (found, report) = decoded(&damaged);
    assert_eq!(report.skipped_packets, 1);
    assert_eq!(found.frames(), expected.frames());
    assert!(found.left[..4_096].iter().all(|sample| *sample == 0.0));
    assert_eq!(found.left[4_096..], expected.left[4_096..]);
}

fn adts_frame_bytes(header: &[u8]) -> usize {
    usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5)
}

#[test]
fn mp4_that_was_cut_off_or_has_several_tracks() {
    let fast = encode("-c:a aac -b:a 192k -movflags faststart -f ipod");
    let slow = encode("-c:a aac -b:a 192k -f ipod");
    let fragmented =
        encode("-c:a aac -b:a 192k -movflags frag_keyframe+empty_moov -frag_duration 300000 -f mp4");
    let alac = encode("-c:a alac -sample_fmt s16p -movflags faststart -f ipod");
    let matroska = encode("-c:a aac -b:a 192k -f matroska");
    let webm = encode("-ar 48000 -c:a libopus -b:a 192k -f webm");
    let cut = |file: &[u8], percent: usize| file[..file.len() * percent / 100].to_vec();
    let cases = [
        reported(same("M4A without its last hundredth", cut(&fast, 99))),
        reported(same("half of an M4A", cut(&fast, 50))),
        reported(same("half of a fragmented MP4", cut(&fragmented, 50))),
        like("an M4A with ID3v1 after", [fast.clone(), id3v1()].concat(), &fast),
        like(
            "an M4A with noise after",
            [slow.clone(), noise(5_000, 4)].concat(),
            &slow,
        ),
        reported(same("half of a Matroska", cut(&matroska, 50))),
        reported(same("half of a WebM", cut(&webm, 50))),
        Case {
            tolerance: Tolerance {
                frames: 4_096,
                ..EXACT
            },
            ..reported(same("half of an ALAC", cut(&alac, 50)))
        },
        Case {
            with_ffmpeg: Expected::Refused(""),
            ..Case::refused("an M4A without its index", cut(&slow, 60), "moov")
        },
    ];
    check_all(&cases);
}

#[test]
fn the_default_track_is_taken_of_several() {
    let other = "-f lavfi -i sine=frequency=300:duration=2 -map 1:a -map 0:a -disposition:a:0 0 -disposition:a:1 default";
    let alone = encode("-c:a flac -sample_fmt s16 -f flac");
    let lossy = encode("-c:a aac -b:a 192k -f ipod");
    let cases = [
        like(
            "the default of MP4",
            encode(&format!("{other} -c:a aac -b:a 192k -f ipod")),
            &lossy,
        ),
        like(
            "the default of MOV",
            encode(&format!("{other} -c:a pcm_s16le -f mov")),
            &alone,
        ),
        like(
            "the default of Matroska",
            encode(&format!("{other} -c:a flac -sample_fmt s16 -f matroska")),
            &alone,
        ),
        Case {
            alone: Expected::Refused("cannot decode"),
            ..like(
                "the default of Matroska that ffmpeg decodes",
                encode(&format!("{other} -c:a wavpack -f matroska")),
                &alone,
            )
        },
        Case {
            alone: Expected::Refused("cannot decode"),
            ..like(
                "the default of MP4 that ffmpeg decodes",
                encode(&format!("{other} -ar 48000 -c:a ac3 -b:a 448k -f mp4")),
                &encode("-ar 48000 -c:a ac3 -b:a 448k -f mp4"),
            )
        },
    ];
    check_all(&cases);
}

#[test]
fn coded_audio_is_not_mistaken_for_samples() {
    let wrap = |coded: &[u8], rest: &str| {
        let raw = "-v error -f s16le -ar 48000 -ac 2 -i IN";
        convert_with("ffmpeg", &format!("{raw} {rest} OUT"), coded)
    };
    let ac3 = encode("-ar 48000 -c:a ac3 -b:a 448k -f spdif");
    let dts = encode("-ar 48000 -c:a dca -strict -2 -b:a 754k -f spdif");
    let cases = [
        Case::refused("AC-3 in WAV", wrap(&ac3, "-c:a pcm_s16le -f wav"), "AC-3"),
        Case::refused("AC-3 in FLAC", wrap(&ac3, "-c:a flac -f flac"), "AC-3"),
        Case::refused("AC-3 in AIFF", wrap(&ac3, "-c:a pcm_s16be -f aiff"), "AC-3"),
        Case::refused("DTS in WAV", wrap(&dts, "-c:a pcm_s16le -f wav"), "DTS"),
        // Its packets contain frames in a row that must not be taken for an MPEG audio stream.
        Case {
            tolerance: Tolerance {
                frames: 1_152,
                ..EXACT
            },
            ..Case::for_ffmpeg(
                "MP2 in an MPEG program stream",
                encode("-c:a mp2 -b:a 192k -f mpeg"),
                "",
            )
        },
        Case::for_ffmpeg(
            "MXF",
            encode(
                "-f lavfi -i color=size=720x576:rate=25:duration=2.2 -map 1:v -map 0:a -ar 48000 -c:v mpeg2video -c:a pcm_s16le -f mxf",
            ),
            "",
        ),
    ];
    check_all(&cases);
}
