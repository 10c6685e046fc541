//! Files that are not songs: the reason names their format, and recommends ffmpeg only where it helps.

use crate::support::{Case, Expected, check_all, encode, encode_source};

const FILM: &str = "testsrc=duration=0.2:size=64x64";

#[test]
fn a_file_that_is_not_a_song_is_named_with_its_kind() {
    let page = "<!DOCTYPE html><html lang=\"fr\"><body>Fichier supprimé à la demande</body></html>\n";
    let text = |text: &str| text.repeat(50).into_bytes();
    check_all(&[
        Case::refused("web page", text(page), "it is a web page"),
        Case::refused(
            "web page, Latin-1",
            page.chars().map(|c| c as u8).collect(),
            "it is a web page",
        ),
        Case::refused(
            "web page, UTF-16",
            [0xfeff]
                .into_iter()
                .chain(page.encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect(),
            "it is a web page",
        ),
        Case::refused(
            "error of an API",
            text("{\"error\": \"Accès refusé\"}"),
            "it is JSON",
        ),
        Case::refused(
            "error of S3",
            text("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>"),
            "it is an XML document",
        ),
        Case::refused(
            "pointer of Git LFS",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n".to_vec(),
            "it is a Git LFS pointer",
        ),
        Case::refused("playlist", text("#EXTM3U\nété.mp3\n"), "it is a playlist"),
        Case::refused(
            "WebP image",
            encode_source(FILM, "-frames:v 1 -c:v libwebp -f webp"),
            "it is a WebP image",
        ),
        Case::refused(
            "PNG image",
            encode_source(FILM, "-frames:v 1 -c:v png -f image2pipe"),
            "it is a PNG image",
        ),
        Case::refused(
            "BMP image",
            encode_source(FILM, "-frames:v 1 -c:v bmp -f image2pipe"),
            "it is a BMP image",
        ),
        Case::refused(
            "TIFF image",
            encode_source(FILM, "-frames:v 1 -c:v tiff -f image2pipe"),
            "it is a TIFF image",
        ),
        Case::refused(
            "MIDI",
            b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\0\0\0\0".to_vec(),
            "it is a MIDI file",
        ),
        Case::refused("zeros", vec![0; 300_000], "a download that was not finished"),
        Case::refused(
            "bytes without a meaning",
            (0..=255).rev().cycle().take(70_000).collect(),
            "no known audio format",
        ),
    ]);
}

#[test]
fn films_without_sound_and_files_without_an_index_are_named() {
    let song = encode("-c:a aac -f ipod");
    let without_index = song[..song.len() / 2].to_vec();
    let track = "no audio track";
    check_all(&[
        Case::refused(
            "mp4 without sound",
            encode_source(FILM, "-c:v mpeg4 -f mp4"),
            track,
        ),
        Case::refused(
            "mkv without sound",
            encode_source(FILM, "-c:v mpeg4 -f matroska"),
            track,
        ),
        Case {
            alone: Expected::Refused("it is AVI"),
            ..Case::refused(
                "avi without sound",
                encode_source(FILM, "-c:v mpeg4 -f avi"),
                track,
            )
        },
        Case::refused(
            "ogg without sound",
            encode_source(FILM, "-c:v libtheora -f ogg"),
            "",
        ),
        Case::refused("m4a without its index", without_index, "moov"),
        Case {
            alone: Expected::Refused("it is WavPack"),
            ..Case::refused(
                "wavpack, almost nothing of it",
                encode("-c:a wavpack -f wv")[..30].to_vec(),
                "it is WavPack",
            )
        },
    ]);
}

#[test]
fn formats_of_ffmpeg_are_named_where_it_may_not_be_used() {
    check_all(&[
        Case::for_ffmpeg("wavpack", encode("-c:a wavpack -f wv"), "it is WavPack"),
        Case::for_ffmpeg("true audio", encode("-c:a tta -f tta"), "it is True Audio"),
        Case::for_ffmpeg("ac-3", encode("-c:a ac3 -f ac3"), "it is AC-3"),
        Case::for_ffmpeg("e-ac-3", encode("-c:a eac3 -f eac3"), "it is AC-3"),
        Case::for_ffmpeg("sun audio", encode("-c:a pcm_s16be -f au"), "it is Sun audio"),
        Case::for_ffmpeg(
            "transport stream",
            encode("-c:a mp2 -f mpegts"),
            "MPEG transport stream",
        ),
        Case::for_ffmpeg("avi", encode("-c:a pcm_s16le -f avi"), "it is AVI"),
        Case::for_ffmpeg("voice", encode("-c:a pcm_s16le -f voc"), "it is Creative Voice"),
    ]);
}
