//! Runs the ffmpeg program, in a child process, for formats that our own decoders do not support.
//!
//! The child may open only that one file: no network, no playlist. It never outlives the stream that reads
//! it.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::fallback::FfmpegError;

/// Demuxers of single self-contained files. Excluded: playlists and other formats that refer to files, text
/// formats, and MPEG audio, which ffmpeg also detects in noise and which we detect ourselves.
const FORMATS: &str = "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,flac,flv,iff,matroska,webm,\
    mlp,mov,mp4,m4a,3gp,mpc,mpc8,mpeg,mpegts,mxf,ogg,oma,qcp,rm,sox,tak,truehd,tta,voc,w64,wav,wv";

/// Bytes sent at a time; at most 8 such pieces are queued: 8 x 64 KiB = 512 KiB.
const PIECE_BYTES: usize = 65_536;
const MAX_QUEUED_PIECES: usize = 8;

/// Characters kept of a line that ffmpeg wrote.
const MAX_LINE_CHARS: usize = 300;

/// Last lines of ffmpeg's output that are kept; the reason for its failure is among them.
const MAX_LINES: usize = 8;

/// Bytes read of one line before it counts as ended.
const MAX_LINE_BYTES: u64 = 4_096;

pub(super) struct Decoding {
    /// The samples, as a WAV file.
    pub(super) stream: FfmpegStream,
    /// Its messages and exit status.
    pub(super) messages: FfmpegMessages,
}

/// ffmpeg's messages, shared with the thread that reads them.
#[derive(Clone, Default)]
pub(super) struct FfmpegMessages(Arc<Mutex<LastLines>>);

#[derive(Default)]
struct LastLines {
    /// The last lines, oldest first.
    lines: VecDeque<String>,
    /// Count of all lines.
    count: u64,
}

impl FfmpegMessages {
    /// Why it failed, complete once its stream has ended; `None` where it reported nothing.
    pub(super) fn error(&self) -> Option<FfmpegError> {
        FfmpegError::from_lines(self.last_lines().lines.make_contiguous())
    }

    /// Lines that it wrote so far; it writes only errors.
    pub(super) fn errors(&self) -> u64 {
        self.last_lines().count
    }

    fn add(&self, line: String) {
        let mut last = self.last_lines();
        if last.lines.len() == MAX_LINES {
            last.lines.pop_front();
        }
        last.lines.push_back(line);
        last.count += 1;
    }

    fn last_lines(&self) -> MutexGuard<'_, LastLines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    let mut child = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "error"])
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
            keep_last_lines(stderr, &name, &messages);
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

fn keep_last_lines(stderr: ChildStderr, name: &str, messages: &FfmpegMessages) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        // The error that contains the line already names the file.
        let text = text.trim().replacen(name, "", 1);
        if !text.is_empty() {
            messages.add(text.chars().take(MAX_LINE_CHARS).collect());
        }
        line.clear();
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
