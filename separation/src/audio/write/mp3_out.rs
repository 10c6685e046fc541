//! Writes MP3 with LAME, which the ffmpeg program contains, and with the header that lets players drop the
//! encoder's delay.
//!
//! Samples go to ffmpeg through a pipe. ffmpeg writes the part file itself, because it completes that header at
//! the end.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use super::output_format::Mp3Bitrate;
use super::sink::{PartFile, UnpublishedFile};
use crate::audio::ffmpeg::{self, FfmpegMessages};
use crate::audio::{AudioError, StereoBlock, StereoSink};

/// Blocks that are queued for ffmpeg, besides the one that is being sent: 2 x 16,384 frames x 8 bytes = 256 KiB.
const QUEUED_BLOCKS: usize = 1;

const ENCODER: &str = "libmp3lame";

pub(super) struct Mp3Sink {
    part: PartFile,
    encoding: Encoding,
    frames: u64,
    clipped_samples: u64,
}

/// Checks that ffmpeg is installed and contains LAME.
pub(super) fn check() -> Result<(), AudioError> {
    let listed = ffmpeg::command().arg("-encoders").stdin(Stdio::null()).output();
    let listed = listed.map_err(|_| AudioError::Mp3NeedsFfmpeg)?;
    let has_encoder = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(ENCODER));
    if has_encoder {
        Ok(())
    } else {
        Err(AudioError::Mp3NeedsLame)
    }
}

impl Mp3Sink {
    pub(super) fn create(path: &Path, bitrate: Mp3Bitrate, rate_hz: u32) -> Result<Self, AudioError> {
        let part = PartFile::create(path)?;
        let encoding = Encoding::start(part.temporary(), bitrate, rate_hz).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                AudioError::Mp3NeedsFfmpeg
            } else {
                AudioError::write(path)(source)
            }
        })?;
        Ok(Self {
            part,
            encoding,
            frames: 0,
            clipped_samples: 0,
        })
    }

    fn not_encoded(&self, detail: String) -> AudioError {
        AudioError::FfmpegEncode {
            path: self.part.destination().to_owned(),
            detail,
        }
    }
}

impl StereoSink for Mp3Sink {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.frames += block.frames() as u64;
        self.clipped_samples += beyond_full_scale(block);
        let samples = block.interleaved().flat_map(f32::to_le_bytes).collect();
        self.encoding
            .send(samples)
            .map_err(|detail| self.not_encoded(detail))
    }

    fn finish(mut self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        self.encoding.end().map_err(|detail| self.not_encoded(detail))?;
        let Self {
            part,
            frames,
            clipped_samples,
            ..
        } = *self;
        part.complete(&[], frames, clipped_samples)
    }
}

/// Samples that players clip: LAME encodes them unchanged, and nearly every decoder outputs 16-bit integers.
fn beyond_full_scale(block: &StereoBlock) -> u64 {
    let samples = block.left.iter().chain(&block.right);
    samples.filter(|sample| sample.abs() > 1.0).count() as u64
}

/// A running ffmpeg, which ends with this value.
struct Encoding {
    child: Child,
    /// `None` after the last samples.
    samples: Option<Sender<Vec<u8>>>,
    /// Disconnected once ffmpeg has ended.
    running: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
    messages: FfmpegMessages,
}

impl Encoding {
    fn start(path: &Path, bitrate: Mp3Bitrate, rate_hz: u32) -> io::Result<Self> {
        let mut url = OsString::from("file:");
        url.push(std::path::absolute(path)?);
        let name = format!("{}: ", url.to_string_lossy());
        let quality = match bitrate {
            Mp3Bitrate::Variable => ["-q:a".to_owned(), "0".to_owned()],
            Mp3Bitrate::Constant(kbps) => ["-b:a".to_owned(), format!("{kbps}k")],
        };
        let mut child = ffmpeg::command()
            .args(["-xerror", "-y", "-protocol_whitelist", "pipe", "-f", "f32le"])
            .args(["-ar", &rate_hz.to_string(), "-ac", "2", "-i", "pipe:0"])
            .args(["-codec:a", ENCODER])
            .args(quality)
            .args(["-map_metadata", "-1", "-id3v2_version", "0", "-f", "mp3"])
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let (samples, queued) = bounded(QUEUED_BLOCKS);
        let (ended, running) = bounded(0);
        let messages = FfmpegMessages::default();
        let mut threads = Vec::new();
        if let Some(stdin) = child.stdin.take() {
            threads.push(std::thread::spawn(move || send_samples(stdin, &queued)));
        }
        if let Some(stderr) = child.stderr.take() {
            let messages = messages.clone();
            threads.push(std::thread::spawn(move || {
                messages.collect(stderr, &name);
                drop(ended);
            }));
        }
        Ok(Self {
            child,
            samples: Some(samples),
            running,
            threads,
            messages,
        })
    }

    /// Queues samples; returns why ffmpeg accepts no more.
    fn send(&mut self, samples: Vec<u8>) -> Result<(), String> {
        let Some(sender) = &self.samples else {
            return Err("it has ended".to_owned());
        };
        match sender.send_timeout(samples, ffmpeg::TIMEOUT) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(_)) => Err(self.stalled()),
            // ffmpeg has closed its input, before the last samples.
            Err(SendTimeoutError::Disconnected(_)) => {
                self.end()?;
                Err("it ended before the last samples".to_owned())
            }
        }
    }

    /// Ends the input and waits until the file is complete; returns why it is not.
    fn end(&mut self) -> Result<(), String> {
        self.samples = None;
        if let Err(RecvTimeoutError::Timeout) = self.running.recv_timeout(ffmpeg::TIMEOUT) {
            return Err(self.stalled());
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        match self.messages.error() {
            None if status.success() => Ok(()),
            None => Err(format!("it ended with {status}")),
            Some(error) => Err(error.to_string()),
        }
    }

    fn stalled(&mut self) -> String {
        self.stop();
        format!("it stalled for {} seconds", ffmpeg::TIMEOUT.as_secs())
    }

    fn stop(&mut self) {
        self.samples = None;
        // Fails only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends samples until there are no more, or ffmpeg accepts no more.
fn send_samples(mut stdin: ChildStdin, queued: &Receiver<Vec<u8>>) {
    for samples in queued {
        if stdin.write_all(&samples).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{SourceOptions, StereoSource, open, read_all};

    #[test]
    fn samples_beyond_full_scale_are_counted_in_an_mp3_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.mp3");
        let mut sink = Box::new(Mp3Sink::create(&path, Mp3Bitrate::Variable, 44_100).unwrap());
        for _ in 0..2 {
            sink.write(&StereoBlock {
                left: vec![1.0, 1.01, 0.0],
                right: vec![-1.0, -0.5, -3.0],
            })
            .unwrap();
        }
        assert_eq!(sink.finish().unwrap().report().clipped_samples, 4);
    }

    /// Encodes a tone, checks that it reads back in place and with its exact length, and returns the size of the file.
    fn check_read_back(bitrate: Mp3Bitrate, rate_hz: u32) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.mp3");
        let frames = 5 * rate_hz as usize + 1;
        let tone = |frames: usize, rate_hz: f32| -> Vec<f32> {
            (0..frames)
                .map(|n| (n as f32 / rate_hz * 2_205.0).sin() * 0.5)
                .collect()
        };
        let wave = tone(frames, rate_hz as f32);
        let mut sink = Box::new(Mp3Sink::create(&path, bitrate, rate_hz).unwrap());
        for piece in wave.chunks(10_000) {
            sink.write(&StereoBlock {
                left: piece.to_vec(),
                right: piece.to_vec(),
            })
            .unwrap();
        }
        let report = sink.finish().unwrap().publish().unwrap();
        assert_eq!(report.frames, frames as u64);
        assert_eq!(report.bytes, path.metadata().unwrap().len());
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        assert_eq!(source.info().rate_hz, rate_hz);
        let back = read_all(&mut source);
        assert_eq!(source.file_frames(), Some(frames as u64));
        assert_eq!(source.expected_frames(), Some(back.frames() as u64));
        let expected = tone(back.frames(), 44_100.0);
        let middle = 22_050..198_450;
        let noise: f32 = middle.clone().map(|n| (back.left[n] - expected[n]).powi(2)).sum();
        let signal: f32 = middle.map(|n| expected[n].powi(2)).sum();
        assert!(noise < signal * 1e-3, "{rate_hz}: {}", noise / signal);
        report.bytes
    }

    #[test]
    fn an_mp3_reads_back_with_its_exact_length_and_in_place() {
        check().unwrap();
        let variable = check_read_back(Mp3Bitrate::Variable, 44_100);
        let constant = check_read_back(Mp3Bitrate::Constant(320), 44_100);
        // 5 s x 320 kbit/s = 200 kB.
        assert!((195_000..=205_000).contains(&constant), "{constant}");
        assert!(variable < constant, "{variable}");
        check_read_back(Mp3Bitrate::Variable, 48_000);
        check_read_back(Mp3Bitrate::Variable, 22_050);
    }

    #[test]
    fn an_encoding_that_is_dropped_or_fails_leaves_no_file_and_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.mp3");
        let create = || Box::new(Mp3Sink::create(&path, Mp3Bitrate::Variable, 44_100).unwrap());
        let block = StereoBlock::silence(100_000);
        let mut dropped = create();
        dropped.write(&block).unwrap();
        drop(dropped);
        let mut killed = create();
        killed.encoding.child.kill().unwrap();
        let error = (0..10).try_for_each(|_| killed.write(&block)).unwrap_err();
        assert!(
            error.to_string().contains("out.mp3: it ended with signal"),
            "{error}"
        );
        drop(killed);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
