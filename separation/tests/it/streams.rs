//! MP3, AAC and FLAC: streams of frames with other bytes before, between and after them, and streams that
//! were cut off, damaged or joined.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use separation::audio::{FfmpegUse, SourceOptions, StereoSource as _, open_bytes};

use crate::fragments::{STREAM, ape, convert_with, id3v1, id3v2, joined_audio, like, noise, reported, same};
use crate::support::{Case, EXACT, Tolerance, check_all, encode, offset_of, read};

/// Both decoders conceal a damaged frame differently and agree elsewhere.
const CONCEALED: Tolerance = Tolerance {
    min_snr_db: 10.0,
    frames: 1_152,
};

const MP3: &str = "-c:a libmp3lame -b:a 192k -id3v2_version 0 -f mp3";
const MP3_MONO: &str = "-ac 1 -c:a libmp3lame -b:a 96k -write_xing 0 -id3v2_version 0 -f mp3";
const MP3_48K: &str = "-ar 48000 -c:a libmp3lame -b:a 192k -write_xing 0 -id3v2_version 0 -f mp3";
const MP3_BARE: &str = "-c:a libmp3lame -b:a 192k -write_xing 0 -id3v2_version 0 -f mp3";
const ADTS: &str = "-c:a aac -b:a 192k -f adts";
const FLAC: &str = "-c:a flac -sample_fmt s16 -f flac";

/// Offsets of the frames of an MP3 at 44.1 kHz.
fn frames(mp3: &[u8]) -> Vec<usize> {
    const KBPS: [usize; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    let mut offsets = vec![0];
    let mut at = 0;
    while let Some(&[_, _, third]) = mp3.get(at..at + 3) {
        at += 144_000 * KBPS[usize::from(third >> 4)] / 44_100 + usize::from(third >> 1 & 1);
        offsets.push(at);
    }
    offsets
}

#[test]
fn mp3_with_other_bytes_before_and_behind_it() {
    let mp3 = encode(MP3);
    let picture = noise(500_000, 7);
    let cases = [
        reported(like(
            "noise after",
            [mp3.clone(), noise(700_000, 1)].concat(),
            &mp3,
        )),
        like(
            "ID3v2 with a picture after",
            [mp3.clone(), id3v2(&picture, picture.len() + 10)].concat(),
            &mp3,
        ),
        like(
            "APEv2 with a picture after",
            [mp3.clone(), ape(&picture)].concat(),
            &mp3,
        ),
        like("ID3v1 after", [mp3.clone(), id3v1()].concat(), &mp3),
        like(
            "three tags after",
            [
                mp3.clone(),
                ape(&picture),
                b"LYRICSBEGINwords000016LYRICS200".to_vec(),
                id3v1(),
            ]
            .concat(),
            &mp3,
        ),
        like("zeros after", [mp3.clone(), vec![0; 3_000]].concat(), &mp3),
        like("noise before", [noise(10_000, 2), mp3.clone()].concat(), &mp3),
        like(
            "much noise before",
            [noise(300_000, 3), mp3.clone()].concat(),
            &mp3,
        ),
        like(
            "APEv2 with a picture before",
            [ape(&picture), mp3.clone()].concat(),
            &mp3,
        ),
        like("zeros before", [vec![0; 30_000], mp3.clone()].concat(), &mp3),
        like(
            "ID3v2 that states too small a size",
            [id3v2(&picture, 1_000), mp3.clone()].concat(),
            &mp3,
        ),
        like(
            "ID3v2 and APEv2 before",
            [id3v2(&picture, picture.len() + 10), ape(&picture), mp3.clone()].concat(),
            &mp3,
        ),
    ];
    check_all(&cases);
}

#[test]
fn mp3_that_was_joined() {
    let (stereo, bare) = (encode(MP3), encode(MP3_BARE));
    let (mono, fast) = (encode(MP3_MONO), encode(MP3_48K));
    let (tagged_end, bare_end) = (frames(&stereo)[40], frames(&bare)[40]);
    let picture = noise(50_000, 7);
    let tag = id3v2(&picture, picture.len() + 10);
    let untagged = stereo[frames(&stereo)[1]..].to_vec();
    let exact = |case: Case| Case {
        tolerance: Tolerance { frames: 16, ..STREAM },
        ..case
    };
    let cases = [
        exact(like(
            "stereo, then mono",
            [stereo.clone(), mono.clone()].concat(),
            &joined_audio(&[&stereo, &mono]),
        )),
        exact(like(
            "mono, then stereo",
            [mono.clone(), bare.clone()].concat(),
            &joined_audio(&[&mono, &bare]),
        )),
        exact(like(
            "44.1 kHz, then 48 kHz",
            [stereo.clone(), fast.clone()].concat(),
            &joined_audio(&[&stereo, &fast]),
        )),
        Case {
            tolerance: Tolerance {
                min_snr_db: 20.0,
                frames: 1_152,
            },
            ..like(
                "two of a kind, each with its tags",
                [
                    tag.clone(),
                    stereo.clone(),
                    id3v1(),
                    tag.clone(),
                    stereo.clone(),
                    id3v1(),
                ]
                .concat(),
                &joined_audio(&[&stereo, &untagged]),
            )
        },
        reported(exact(like(
            "cut in the middle of a frame, then mono",
            [&stereo[..tagged_end + 300], &mono].concat(),
            &joined_audio(&[&stereo[..tagged_end], &mono]),
        ))),
        Case {
            tolerance: Tolerance {
                min_snr_db: 20.0,
                frames: 16,
            },
            ..reported(like(
                "cut in the middle of a frame, then another of its kind",
                [&bare[..bare_end + 300], &bare].concat(),
                &joined_audio(&[&bare[..bare_end], &bare]),
            ))
        },
        exact(like(
            "a tag with a picture in between",
            [stereo.clone(), tag, mono.clone()].concat(),
            &joined_audio(&[&stereo, &mono]),
        )),
    ];
    check_all(&cases);
}

#[test]
fn mp3_that_is_damaged_or_unusual() {
    let (mp3, bare) = (encode(MP3), encode(MP3_BARE));
    let wav = encode("-c:a pcm_s16le -f wav");
    let half = mp3.len() / 2;
    let offsets = frames(&mp3);
    let (frame, next, fifth) = (offsets[40], offsets[41], offsets[45]);
    let without = |end: usize| [&mp3[..frame], &mp3[end..]].concat();
    let mut without_header = mp3.clone();
    without_header[frame] = 0;
    let mut damaged = mp3.clone();
    damaged[frame + 100..frame + 110].fill(0x55);
    let mut gap = mp3.clone();
    gap[frame..fifth].fill(0);
    let mut killed = mp3[..half].to_vec();
    let tag = offset_of(&killed, b"Info");
    // The counts of frames and bytes, which an encoder fills in at its end.
    killed[tag + 8..tag + 16].fill(0);
    let mut no_lengths = mp3.clone();
    no_lengths[tag + 8..tag + 16].fill(0);
    let cases = [
        same("an encoder that was killed", killed),
        same("lengths never filled in", no_lengths),
        reported(same("cut off", mp3[..half].to_vec())),
        same("cut off without a tag", bare[..half].to_vec()),
        same("cut at its beginning", bare[300..].to_vec()),
        Case {
            tolerance: CONCEALED,
            ..reported(like("a header is damaged", without_header, &without(next)))
        },
        Case {
            tolerance: CONCEALED,
            ..same("a body is damaged", damaged)
        },
        Case {
            tolerance: CONCEALED,
            ..reported(like("a gap of zeros", gap, &without(fifth)))
        },
        same("VBR by lame", convert_with("lame", "--quiet -V 2 IN OUT", &wav)),
        same(
            "22.05 kHz mono by lame",
            convert_with("lame", "--quiet --resample 22.05 -m m IN OUT", &wav),
        ),
        same(
            "with checksums by lame",
            convert_with("lame", "--quiet -p IN OUT", &wav),
        ),
        same("8 kHz", encode("-ar 8000 -c:a libmp3lame -f mp3")),
        same("MP2", encode("-c:a mp2 -b:a 192k -f mp2")),
        Case {
            is_reported: true,
            ..like(
                "MP2 with noise after",
                [encode("-c:a mp2 -b:a 192k -f mp2"), noise(100_000, 5)].concat(),
                &encode("-c:a mp2 -b:a 192k -f mp2"),
            )
        },
    ];
    check_all(&cases);
}

#[test]
fn adts_with_other_bytes_damaged_and_joined() {
    let aac = encode(ADTS);
    let mono = encode("-ac 1 -c:a aac -b:a 96k -f adts");
    let half = aac.len() / 2;
    let is_frame = |at: &usize| aac[*at..].starts_with(&aac[..3]);
    let frame = (half..aac.len()).find(is_frame).unwrap();
    let next = (frame + 1..aac.len()).find(is_frame).unwrap();
    let mut without_header = aac.clone();
    without_header[frame] = 0;
    let picture = noise(50_000, 7);
    let cases = [
        reported(like(
            "ADTS with noise after",
            [aac.clone(), noise(100_000, 1)].concat(),
            &aac,
        )),
        like(
            "ADTS with tags",
            [id3v2(&picture, picture.len() + 10), aac.clone(), id3v1()].concat(),
            &aac,
        ),
        like(
            "ADTS with noise before",
            [noise(10_000, 2), aac.clone()].concat(),
            &aac,
        ),
        Case {
            tolerance: CONCEALED,
            ..reported(like(
                "ADTS with a damaged header",
                without_header,
                &[&aac[..frame], &aac[next..]].concat(),
            ))
        },
        same("ADTS cut off", aac[..half].to_vec()),
        like(
            "ADTS, stereo, then mono",
            [aac.clone(), mono.clone()].concat(),
            &joined_audio(&[&aac, &mono]),
        ),
        same("plain AAC at 22.05 kHz", encode("-ar 22050 -c:a aac -f adts")),
        Case {
            tolerance: Tolerance {
                frames: 1_882,
                ..STREAM
            },
            ..same(
                "plain AAC at 24 kHz in MP4",
                encode("-ar 24000 -ac 1 -c:a aac -f ipod"),
            )
        },
        same(
            "plain AAC at 16 kHz in Matroska",
            encode("-ar 16000 -c:a aac -f matroska"),
        ),
    ];
    check_all(&cases);
}

#[test]
fn flac_with_tags_cut_off_and_damaged() {
    let flac = encode(FLAC);
    let mono = encode("-ac 1 -ar 32000 -c:a flac -sample_fmt s16 -f flac");
    let exact = |name, file| Case {
        reference: Some(flac.clone()),
        ..Case::new(name, file)
    };
    let half = flac.len() / 2;
    let mut damaged = flac.clone();
    damaged[half..half + 10].fill(0xaa);
    let block = Tolerance {
        frames: 4_608,
        ..EXACT
    };
    let cases = [
        exact("FLAC with ID3v1 after", [flac.clone(), id3v1()].concat()),
        exact(
            "FLAC with APEv2 and ID3v1 after",
            [flac.clone(), ape(&noise(9_000, 3)), id3v1()].concat(),
        ),
        Case {
            reference: Some(joined_audio(&[&flac, &flac])),
            ..Case::new("two FLACs joined", flac.repeat(2))
        },
        Case {
            reference: Some(joined_audio(&[&flac, &mono])),
            ..Case::new(
                "FLACs of other channels and rates joined",
                [flac.clone(), mono.clone()].concat(),
            )
        },
        exact(
            "FLAC with ID3v2 before",
            [id3v2(&noise(9_000, 3), 9_010), flac.clone(), id3v1()].concat(),
        ),
        Case {
            tolerance: block,
            ..reported(Case::new("FLAC cut off", flac[..half].to_vec()))
        },
        Case {
            tolerance: Tolerance {
                min_snr_db: -10.0,
                ..block
            },
            ..reported(Case::new("FLAC damaged", damaged))
        },
    ];
    check_all(&cases);
}

#[test]
fn no_damage_makes_more_audio_than_a_file_has_packets() {
    for (arguments, frames) in [(MP3, 1_152), (ADTS, 1_024), (FLAC, 4_608)] {
        let file = encode(arguments);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song");
        std::fs::write(&path, &file).unwrap();
        let (undamaged, _) = read(&path, FfmpegUse::Forbidden).unwrap();
        for seed in 1..40 {
            let mut damaged = file.clone();
            for bytes in noise(60, seed).chunks_exact(3) {
                let at = usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
                let at = at % damaged.len();
                damaged[at] = bytes[2];
            }
            damaged.extend(id3v2(&noise(60_000, seed), 60_010));
            std::fs::write(&path, &damaged).unwrap();
            if let Ok((found, _)) = read(&path, FfmpegUse::Forbidden) {
                assert!(
                    found.frames() <= undamaged.frames() + 2 * frames,
                    "{arguments}, {seed}: {} frames for {}",
                    found.frames(),
                    undamaged.frames()
                );
            }
        }
    }
}

#[test]
fn an_estimated_length_refuses_no_file() {
    // Frames of silence at 32 kbit/s, then some at 320: 6 minutes, estimated as 18 from the first megabyte.
    let frame = |header: [u8; 4], bytes: usize| [&header[..], &vec![0; bytes - 4]].concat();
    let low = frame([0xff, 0xfb, 0x10, 0xc0], 104);
    let high = frame([0xff, 0xfb, 0xe0, 0xc0], 1_044);
    let file = [low.repeat(11_000), high.repeat(3_000)].concat();
    let options = SourceOptions {
        max_duration: Some(Duration::from_secs(400)),
        ..SourceOptions::default()
    };
    let source = open_bytes(file, &options).unwrap();
    assert!(source.info().expected_frames > Some(400 * 44_100));
    assert!(source.is_length_estimated());
}

/// The most memory for reading a file of any length: 64 MiB.
const MAX_MEMORY_KIB: u64 = 65_536;

#[test]
fn junk_without_end_takes_no_memory() {
    for arguments in [MP3, ADTS, FLAC] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song");
        std::fs::write(&path, encode(arguments)).unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        // A hole of 128 MiB that takes no disk space.
        file.set_len(file.metadata().unwrap().len() + (128 << 20))
            .unwrap();
        // A separate process, because memory is counted per process.
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "streams::junk_without_end_child"])
            .env("JUNK_FILE", &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{arguments}: {text}");
    }
}

#[test]
fn junk_without_end_child() {
    let Some(path) = std::env::var_os("JUNK_FILE") else {
        return;
    };
    let (found, _) = read(Path::new(&path), FfmpegUse::Forbidden).unwrap();
    assert!(found.frames() < 110_000, "{} frames", found.frames());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}
