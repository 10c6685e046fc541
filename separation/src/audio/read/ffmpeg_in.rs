//! Decodes formats that our own decoders do not support, with the ffmpeg program in a child process.
//!
//! The child may open only that one file: no network, no playlist. It never outlives the stream that reads
//! it.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::audio::ffmpeg::{self, FfmpegMessages};

/// Demuxers of single self-contained files. Excluded: playlists and other formats that refer to files, text
/// formats, and MPEG audio, which ffmpeg also detects in noise and which we detect ourselves.
const FORMATS: &str = "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,flac,flv,iff,matroska,webm,\
    mlp,mov,mp4,m4a,3gp,mpc,mpc8,mpeg,mpegts,mxf,ogg,oma,qcp,rm,sox,tak,truehd,tta,voc,w64,wav,wv";

/// Bytes sent at a time; at most 8 such pieces are queued: 8 x 64 KiB = 512 KiB.
const PIECE_BYTES: usize = 65_536;
const MAX_QUEUED_PIECES: usize = 8;

pub(super) struct Decoding {
    /// The samples, as a WAV file.
    pub(super) stream: FfmpegStream,
    /// Its messages and exit status.
    pub(super) messages: FfmpegMessages,
}

/// The output of ffmpeg. Reading fails if ffmpeg exits with an error or sends nothing within the limit.
pub(super) struct FfmpegStream {
    child: Child,
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
    piece: Vec<u8>,
    read_from: usize,
    messages: FfmpegMessages,
}

/// Starts decoding an audio track of `path`, counted from 0. An error of kind `NotFound` means that ffmpeg is
/// not installed.
pub(super) fn decode(path: &Path, track: usize, timeout: Duration) -> io::Result<Decoding> {
    let mut url = std::ffi::OsString::from("file:");
    url.push(std::path::absolute(path)?);
    let name = format!("{}: ", url.to_string_lossy());
    let mut child = ffmpeg::command()
        .args([
            "-protocol_whitelist",
            "file,pipe",
            "-format_whitelist",
            FORMATS,
            "-i",
        ])
        .arg(url)
        .args([
            "-map",
            &format!("0:a:{track}"),
            "-vn",
            "-sn",
            "-dn",
            "-map_metadata",
            "-1",
        ])
        .args(["-c:a", "pcm_f32le", "-f", "wav", "pipe:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, receiver) = bounded(MAX_QUEUED_PIECES);
    let messages = FfmpegMessages::default();
    let mut threads = Vec::new();
    if let Some(output) = child.stdout.take() {
        threads.push(std::thread::spawn(move || send_pieces(output, &sender)));
    }
    if let Some(stderr) = child.stderr.take() {
        let messages = messages.clone();
        threads.push(std::thread::spawn(move || {
            messages.collect(stderr, &name);
        }));
    }
    let stream = FfmpegStream {
        child,
        pieces: Some(receiver),
        threads,
        timeout,
        piece: Vec::new(),
        read_from: 0,
        messages: messages.clone(),
    };
    Ok(Decoding { stream, messages })
}

fn send_pieces(mut output: ChildStdout, sender: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = output
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map(|_| piece);
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        // The receiver is gone once the stream is dropped.
        if sender.send(read).is_err() || is_last {
            return;
        }
    }
}

impl FfmpegStream {
    fn next_piece(&mut self) -> io::Result<()> {
        let Some(pieces) = &self.pieces else {
            return Ok(());
        };
        self.piece = match pieces.recv_timeout(self.timeout) {
            Ok(piece) => piece?,
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
            Err(RecvTimeoutError::Timeout) => {
                self.stop();
                let detail = format!("ffmpeg sent nothing for {} seconds", self.timeout.as_secs_f64());
                self.messages.add(detail.clone());
                return Err(io::Error::new(io::ErrorKind::TimedOut, detail));
            }
        };
        self.read_from = 0;
        if self.piece.is_empty() {
            self.pieces = None;
            self.end()?;
        }
        Ok(())
    }

    /// The output has ended; the exit status decides whether it is complete.
    fn end(&mut self) -> io::Result<()> {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        if self.messages.errors() == 0 {
            self.messages.add(format!("it ended with {status}"));
        }
        Err(io::Error::other("ffmpeg failed"))
    }

    fn stop(&mut self) {
        self.pieces = None;
        // Fails only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Read for FfmpegStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read_from == self.piece.len() {
            self.next_piece()?;
        }
        let got = buffer.len().min(self.piece.len() - self.read_from);
        buffer[..got].copy_from_slice(&self.piece[self.read_from..self.read_from + got]);
        self.read_from += got;
        Ok(got)
    }
}

impl Drop for FfmpegStream {
    fn drop(&mut self) {
        self.stop();
    }
}
