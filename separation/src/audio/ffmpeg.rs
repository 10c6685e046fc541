//! Decodes through the ffmpeg program what we cannot: a last resort, in a child process.
//!
//! It may open the one file and nothing else: no network, no playlist. It never outlives the stream that reads it.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::fallback::Complaint;

/// Demuxers of single self-contained files. Left out: playlists and anything that names other files, text formats,
/// and MPEG audio, which takes noise for sound and which we recognise ourselves.
const FORMATS: &str = "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,flac,flv,iff,matroska,webm,\
    mlp,mov,mp4,m4a,3gp,mpc,mpc8,mpeg,mpegts,mxf,ogg,oma,qcp,rm,sox,tak,truehd,tta,voc,w64,wav,wv";

/// Bytes handed over at a time, and how many such pieces wait: 8 x 64 KiB = 512 KiB.
const PIECE_BYTES: usize = 65_536;
const MAX_WAITING_PIECES: usize = 8;

/// Characters kept of a line that ffmpeg wrote.
const MAX_LINE_CHARS: usize = 300;

/// Lines kept of those that ffmpeg wrote, the last ones: what it gives up for is among them.
const MAX_LINES: usize = 8;

/// Bytes of one line that are read before it counts as ended.
const MAX_LINE_BYTES: u64 = 4_096;

/// A running decoder.
pub(super) struct Decoding {
    /// The samples, as a WAV file.
    pub(super) stream: FfmpegStream,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// What ffmpeg complained about, shared with the thread that reads it.
#[derive(Clone, Default)]
pub(super) struct Outcome(Arc<Mutex<Complaints>>);

#[derive(Default)]
struct Complaints {
    /// The last lines, last line last.
    lines: VecDeque<String>,
    /// All lines.
    count: u64,
}

impl Outcome {
    /// Why it failed, once its stream has ended; `None` while it has complained about nothing.
    pub(super) fn complaint(&self) -> Option<Complaint> {
        Complaint::of(self.complaints().lines.make_contiguous())
    }

    /// Lines that it wrote so far; it writes about errors only.
    pub(super) fn errors(&self) -> u64 {
        self.complaints().count
    }

    fn add(&self, line: String) {
        let mut complaints = self.complaints();
        if complaints.lines.len() == MAX_LINES {
            complaints.lines.pop_front();
        }
        complaints.lines.push_back(line);
        complaints.count += 1;
    }

    fn complaints(&self) -> MutexGuard<'_, Complaints> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The output of ffmpeg. An exit with an error and a wait beyond the limit are errors of reading.
pub(super) struct FfmpegStream {
    child: Child,
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
    piece: Vec<u8>,
    read_from: usize,
    outcome: Outcome,
}

/// Starts decoding an audio track of `path`, counted from 0; an error of kind `NotFound` means that there is no ffmpeg.
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
    let (sender, receiver) = bounded(MAX_WAITING_PIECES);
    let outcome = Outcome::default();
    let mut threads = Vec::new();
    if let Some(output) = child.stdout.take() {
        threads.push(std::thread::spawn(move || hand_over(output, &sender)));
    }
    if let Some(complaints) = child.stderr.take() {
        let outcome = outcome.clone();
        threads.push(std::thread::spawn(move || {
            keep_last_lines(complaints, &name, &outcome);
        }));
    }
    let stream = FfmpegStream {
        child,
        pieces: Some(receiver),
        threads,
        timeout,
        piece: Vec::new(),
        read_from: 0,
        outcome: outcome.clone(),
    };
    Ok(Decoding { stream, outcome })
}

fn hand_over(mut output: ChildStdout, sender: &Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = output
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map(|_| piece);
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        // Nobody receives any more once the stream is dropped.
        if sender.send(read).is_err() || is_last {
            return;
        }
    }
}

fn keep_last_lines(complaints: ChildStderr, name: &str, outcome: &Outcome) {
    let mut reader = BufReader::new(complaints);
    let mut line = Vec::new();
    while let Ok(1..) = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        // The error that holds the line names the file already.
        let text = text.trim().replacen(name, "", 1);
        if !text.is_empty() {
            outcome.add(text.chars().take(MAX_LINE_CHARS).collect());
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
                let detail = format!("ffmpeg gave nothing for {} seconds", self.timeout.as_secs_f64());
                self.outcome.add(detail.clone());
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

    /// The output has ended: whether well is what the exit status says.
    fn end(&mut self) -> io::Result<()> {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        if self.outcome.errors() == 0 {
            self.outcome.add(format!("it ended with {status}"));
        }
        Err(io::Error::other("ffmpeg failed"))
    }

    fn stop(&mut self) {
        self.pieces = None;
        // Fails only where it has ended already.
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
