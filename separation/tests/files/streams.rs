//! MP3, AAC, FLAC and MP4: streams of frames with other bytes before, between and behind them, streams that were cut off
//! or joined, and codecs that only look like what our decoders know.

use std::path::Path;
use std::process::Command;

use separation::audio::{FfmpegUse, OutputFormat, StereoBlock, WavSamples, create};

use crate::parts::{Case, EXACT, Expected, Tolerance, check_all, made, place_of, read, reference};

/// Two decoders of one lossy stream: the same samples but for rounding, and a packet more or less at the end.
const STREAM: Tolerance = Tolerance {
    min_snr_db: 60.0,
    frames: 1_152,
};

/// Where a frame is damaged, both decoders conceal it in their own way, and agree in the rest.
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

/// A case that decodes as ffmpeg decodes the same file.
fn same(name: &'static str, file: Vec<u8>) -> Case {
    Case {
        tolerance: STREAM,
        ..Case::new(name, file)
    }
}

/// A case that decodes to what ffmpeg makes of another file.
fn like(name: &'static str, file: Vec<u8>, reference: &[u8]) -> Case {
    Case {
        reference: Some(reference.to_vec()),
        ..same(name, file)
    }
}

fn reported(case: Case) -> Case {
    Case {
        is_reported: true,
        ..case
    }
}

/// Bytes without any order, always the same ones.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn id3v1() -> Vec<u8> {
    [b"TAG".as_slice(), &[b' '; 125]].concat()
}

/// A tag with a picture, that states `size` bytes.
fn id3v2(picture: &[u8], size: usize) -> Vec<u8> {
    let seven = |size: usize| [21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8);
    let frame = [b"APIC".as_slice(), &seven(picture.len()), &[0, 0], picture].concat();
    let head = [b"ID3\x04\0\0".as_slice(), &seven(size)].concat();
    [head, frame].concat()
}

fn ape(picture: &[u8]) -> Vec<u8> {
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

/// The audio that ffmpeg makes of each file, one behind the other, as a file.
fn one_after_the_other(files: &[&[u8]]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut whole = StereoBlock::default();
    for file in files {
        whole.append(&reference(file, directory.path()).unwrap());
    }
    let path = directory.path().join("whole.wav");
    let mut sink = create(&path, OutputFormat::Wav(WavSamples::Float32)).unwrap();
    sink.write(&whole).unwrap();
    sink.finish().unwrap().publish().unwrap();
    std::fs::read(path).unwrap()
}

/// Makes a file by a program that reads one file and writes another, given as `IN` and `OUT`.
fn by(program: &str, arguments: &str, input: &[u8]) -> Vec<u8> {
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

/// Where the frames of an MP3 at 44.1 kHz begin.
fn frames(mp3: &[u8]) -> Vec<usize> {
    const KBPS: [usize; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    let mut places = vec![0];
    let mut at = 0;
    while let Some(&[_, _, third]) = mp3.get(at..at + 3) {
        at += 144_000 * KBPS[usize::from(third >> 4)] / 44_100 + usize::from(third >> 1 & 1);
        places.push(at);
    }
    places
}

#[test]
fn mp3_with_other_bytes_before_and_behind_it() {
    let mp3 = made(MP3);
    let picture = noise(500_000, 7);
    let cases = [
        reported(like(
            "noise behind",
            [mp3.clone(), noise(700_000, 1)].concat(),
            &mp3,
        )),
        like(
            "ID3v2 with a picture behind",
            [mp3.clone(), id3v2(&picture, picture.len() + 10)].concat(),
            &mp3,
        ),
        like(
            "APEv2 with a picture behind",
            [mp3.clone(), ape(&picture)].concat(),
            &mp3,
        ),
        like("ID3v1 behind", [mp3.clone(), id3v1()].concat(), &mp3),
        like(
            "three tags behind",
            [
                mp3.clone(),
                ape(&picture),
                b"LYRICSBEGINwords000016LYRICS200".to_vec(),
                id3v1(),
            ]
            .concat(),
            &mp3,
        ),
        like("zeros behind", [mp3.clone(), vec![0; 3_000]].concat(), &mp3),
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
    let (stereo, bare) = (made(MP3), made(MP3_BARE));
    let (mono, fast) = (made(MP3_MONO), made(MP3_48K));
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
            &one_after_the_other(&[&stereo, &mono]),
        )),
        exact(like(
            "mono, then stereo",
            [mono.clone(), bare.clone()].concat(),
            &one_after_the_other(&[&mono, &bare]),
        )),
        exact(like(
            "44.1 kHz, then 48 kHz",
            [stereo.clone(), fast.clone()].concat(),
            &one_after_the_other(&[&stereo, &fast]),
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
                &one_after_the_other(&[&stereo, &untagged]),
            )
        },
        reported(exact(like(
            "cut in the middle of a frame, then mono",
            [&stereo[..tagged_end + 300], &mono].concat(),
            &one_after_the_other(&[&stereo[..tagged_end], &mono]),
        ))),
        Case {
            tolerance: Tolerance {
                min_snr_db: 20.0,
                frames: 16,
            },
            ..reported(like(
                "cut in the middle of a frame, then another of its kind",
                [&bare[..bare_end + 300], &bare].concat(),
                &one_after_the_other(&[&bare[..bare_end], &bare]),
            ))
        },
        exact(like(
            "a tag with a picture in between",
            [stereo.clone(), tag, mono.clone()].concat(),
            &one_after_the_other(&[&stereo, &mono]),
        )),
    ];
    check_all(&cases);
}

#[test]
fn mp3_that_is_damaged_or_unusual() {
    let (mp3, bare) = (made(MP3), made(MP3_BARE));
    let wav = made("-c:a pcm_s16le -f wav");
    let half = mp3.len() / 2;
    let places = frames(&mp3);
    let (frame, next, fifth) = (places[40], places[41], places[45]);
    let without = |end: usize| [&mp3[..frame], &mp3[end..]].concat();
    let mut without_header = mp3.clone();
    without_header[frame] = 0;
    let mut damaged = mp3.clone();
    damaged[frame + 100..frame + 110].fill(0x55);
    let mut gap = mp3.clone();
    gap[frame..fifth].fill(0);
    let mut killed = mp3[..half].to_vec();
    let tag = place_of(&killed, b"Info");
    // Frames and bytes, which an encoder fills in at its end.
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
        same("VBR by lame", by("lame", "--quiet -V 2 IN OUT", &wav)),
        same(
            "22.05 kHz mono by lame",
            by("lame", "--quiet --resample 22.05 -m m IN OUT", &wav),
        ),
        same("with checksums by lame", by("lame", "--quiet -p IN OUT", &wav)),
        same("8 kHz", made("-ar 8000 -c:a libmp3lame -f mp3")),
        same("MP2", made("-c:a mp2 -b:a 192k -f mp2")),
        Case {
            is_reported: true,
            ..like(
                "MP2 with noise behind",
                [made("-c:a mp2 -b:a 192k -f mp2"), noise(100_000, 5)].concat(),
                &made("-c:a mp2 -b:a 192k -f mp2"),
            )
        },
    ];
    check_all(&cases);
}

#[test]
fn adts_with_other_bytes_damaged_and_joined() {
    let aac = made(ADTS);
    let mono = made("-ac 1 -c:a aac -b:a 96k -f adts");
    let half = aac.len() / 2;
    let is_frame = |at: &usize| aac[*at..].starts_with(&aac[..3]);
    let frame = (half..aac.len()).find(is_frame).unwrap();
    let next = (frame + 1..aac.len()).find(is_frame).unwrap();
    let mut without_header = aac.clone();
    without_header[frame] = 0;
    let picture = noise(50_000, 7);
    let cases = [
        reported(like(
            "ADTS with noise behind",
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
            &one_after_the_other(&[&aac, &mono]),
        ),
        same("plain AAC at 22.05 kHz", made("-ar 22050 -c:a aac -f adts")),
        Case {
            tolerance: Tolerance {
                frames: 1_882,
                ..STREAM
            },
            ..same(
                "plain AAC at 24 kHz in MP4",
                made("-ar 24000 -ac 1 -c:a aac -f ipod"),
            )
        },
        same(
            "plain AAC at 16 kHz in Matroska",
            made("-ar 16000 -c:a aac -f matroska"),
        ),
    ];
    check_all(&cases);
}

#[test]
fn an_aac_packet_without_audio_is_silence_and_not_the_one_before_it() {
    let mut aac = made(ADTS);
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

fn adts_frame_bytes(header: &[u8]) -> usize {
    usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5)
}

/// The decoder's configuration in an MP4 file by ffmpeg replaced by another, of another length.
fn with_configuration(mp4: &[u8], configuration: &[u8]) -> Vec<u8> {
    let old = place_of(mp4, b"\x05\x80\x80\x80");
    let old_bytes = usize::from(mp4[old + 4]);
    let more = configuration.len() - old_bytes;
    let mut file = mp4[..old + 4].to_vec();
    file.push(configuration.len() as u8);
    file.extend_from_slice(configuration);
    file.extend_from_slice(&mp4[old + 5 + old_bytes..]);
    for descriptor in [b"\x03\x80\x80\x80", b"\x04\x80\x80\x80"] {
        file[place_of(mp4, descriptor) + 4] += more as u8;
    }
    for kind in [
        b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4a", b"esds",
    ] {
        let size = place_of(mp4, kind) - 4;
        let bytes = u32::from_be_bytes(file[size..size + 4].try_into().unwrap()) + more as u32;
        file[size..size + 4].copy_from_slice(&bytes.to_be_bytes());
    }
    file
}

#[test]
fn he_aac_is_never_decoded_by_halves() {
    let (first, second) = (
        include_bytes!("he_aac_v1.aac").to_vec(),
        include_bytes!("he_aac_v2.aac").to_vec(),
    );
    let mp4 = |aac: &[u8]| by("ffmpeg", "-v error -i IN -c copy -f ipod OUT", aac);
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
        refused("HE-AAC announced behind the plain codec", announced),
        Case::for_ffmpeg("HE-AAC announced", explicit, "aac too complex"),
        Case::for_ffmpeg("HE-AAC v2 announced", explicit_2, "aac too complex"),
        refused(
            "HE-AAC in Matroska",
            by("ffmpeg", "-v error -i IN -c copy -f matroska OUT", &first),
        ),
    ];
    check_all(&cases);
}

#[test]
fn mp4_that_was_cut_off_or_has_several_tracks() {
    let fast = made("-c:a aac -b:a 192k -movflags faststart -f ipod");
    let slow = made("-c:a aac -b:a 192k -f ipod");
    let fragmented =
        made("-c:a aac -b:a 192k -movflags frag_keyframe+empty_moov -frag_duration 300000 -f mp4");
    let alac = made("-c:a alac -sample_fmt s16p -movflags faststart -f ipod");
    let matroska = made("-c:a aac -b:a 192k -f matroska");
    let webm = made("-ar 48000 -c:a libopus -b:a 192k -f webm");
    let cut = |file: &[u8], percent: usize| file[..file.len() * percent / 100].to_vec();
    let cases = [
        reported(same("M4A without its last hundredth", cut(&fast, 99))),
        reported(same("half of an M4A", cut(&fast, 50))),
        reported(same("half of a fragmented MP4", cut(&fragmented, 50))),
        like(
            "an M4A with ID3v1 behind",
            [fast.clone(), id3v1()].concat(),
            &fast,
        ),
        like(
            "an M4A with noise behind",
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
    let alone = made("-c:a flac -sample_fmt s16 -f flac");
    let lossy = made("-c:a aac -b:a 192k -f ipod");
    let cases = [
        like(
            "the default of MP4",
            made(&format!("{other} -c:a aac -b:a 192k -f ipod")),
            &lossy,
        ),
        like(
            "the default of MOV",
            made(&format!("{other} -c:a pcm_s16le -f mov")),
            &alone,
        ),
        like(
            "the default of Matroska",
            made(&format!("{other} -c:a flac -sample_fmt s16 -f matroska")),
            &alone,
        ),
    ];
    check_all(&cases);
}

#[test]
fn flac_with_tags_cut_off_and_damaged() {
    let flac = made(FLAC);
    let mono = made("-ac 1 -ar 32000 -c:a flac -sample_fmt s16 -f flac");
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
        exact("FLAC with ID3v1 behind", [flac.clone(), id3v1()].concat()),
        exact(
            "FLAC with APEv2 and ID3v1 behind",
            [flac.clone(), ape(&noise(9_000, 3)), id3v1()].concat(),
        ),
        Case {
            reference: Some(one_after_the_other(&[&flac, &flac])),
            ..Case::new("two FLACs joined", flac.repeat(2))
        },
        Case {
            reference: Some(one_after_the_other(&[&flac, &mono])),
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
fn coded_audio_is_not_taken_for_samples() {
    let wrap = |coded: &[u8], rest: &str| {
        let raw = "-v error -f s16le -ar 48000 -ac 2 -i IN";
        by("ffmpeg", &format!("{raw} {rest} OUT"), coded)
    };
    let ac3 = made("-ar 48000 -c:a ac3 -b:a 448k -f spdif");
    let dts = made("-ar 48000 -c:a dca -strict -2 -b:a 754k -f spdif");
    let cases = [
        Case::refused("AC-3 in WAV", wrap(&ac3, "-c:a pcm_s16le -f wav"), "AC-3"),
        Case::refused("AC-3 in FLAC", wrap(&ac3, "-c:a flac -f flac"), "AC-3"),
        Case::refused("AC-3 in AIFF", wrap(&ac3, "-c:a pcm_s16be -f aiff"), "AC-3"),
        Case::refused("DTS in WAV", wrap(&dts, "-c:a pcm_s16le -f wav"), "DTS"),
        Case::for_ffmpeg(
            "MXF",
            made(
                "-f lavfi -i color=size=720x576:rate=25:duration=2.2 -map 1:v -map 0:a -ar 48000 -c:v mpeg2video -c:a pcm_s16le -f mxf",
            ),
            "",
        ),
    ];
    check_all(&cases);
}

#[test]
fn no_damage_makes_more_audio_than_a_file_has_packets() {
    for (arguments, frames) in [(MP3, 1_152), (ADTS, 1_024), (FLAC, 4_608)] {
        let file = made(arguments);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song");
        std::fs::write(&path, &file).unwrap();
        let (whole, _) = read(&path, FfmpegUse::Forbidden).unwrap();
        for seed in 1..40 {
            let mut damaged = file.clone();
            for place in noise(60, seed).chunks_exact(3) {
                let at = usize::from(place[0]) << 8 | usize::from(place[1]);
                let at = at % damaged.len();
                damaged[at] = place[2];
            }
            damaged.extend(id3v2(&noise(60_000, seed), 60_010));
            std::fs::write(&path, &damaged).unwrap();
            if let Ok((found, _)) = read(&path, FfmpegUse::Forbidden) {
                assert!(
                    found.frames() <= whole.frames() + 2 * frames,
                    "{arguments}, {seed}: {} frames for {}",
                    found.frames(),
                    whole.frames()
                );
            }
        }
    }
}
