//! Scales a complete stream by a gain that depends on its peak, in constant memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::sink::UnpublishedFile;
use crate::audio::{AudioError, MAX_BLOCK_FRAMES, StereoBlock, StereoSink};

/// Read and write buffer: 256 KiB.
const BUFFER_BYTES: usize = 262_144;

/// A left and a right sample of four bytes.
const FRAME_BYTES: usize = 8;

/// A sink that stores all samples in an unnamed file until the end, when their peak is known, and only then
/// forwards them. The file takes 8 bytes per frame: 1.3 GB per hour.
pub struct PeakSpool<R> {
    inner: Box<dyn StereoSink>,
    rule: R,
    scratch: PathBuf,
    file: BufWriter<File>,
    frames: u64,
    peak: f32,
    bytes: Vec<u8>,
}

impl<R: Fn(f32) -> f32 + Send> PeakSpool<R> {
    /// Creates the file in the directory `scratch`; `rule` returns the gain for a peak.
    ///
    /// # Errors
    /// If no file can be created in `scratch`.
    pub fn new(inner: Box<dyn StereoSink>, scratch: &Path, rule: R) -> Result<Self, AudioError> {
        let file = tempfile::tempfile_in(scratch).map_err(AudioError::write(scratch))?;
        Ok(Self {
            inner,
            rule,
            scratch: scratch.to_owned(),
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            frames: 0,
            peak: 0.0,
            bytes: Vec::new(),
        })
    }
}

impl<R: Fn(f32) -> f32 + Send> StereoSink for PeakSpool<R> {
    fn write(&mut self, block: &StereoBlock) -> Result<(), AudioError> {
        self.bytes.clear();
        self.bytes.extend(block.interleaved().flat_map(f32::to_le_bytes));
        let written = self.file.write_all(&self.bytes);
        written.map_err(AudioError::write(&self.scratch))?;
        self.frames += block.frames() as u64;
        self.peak = self.peak.max(block.peak());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<UnpublishedFile, AudioError> {
        let Self {
            mut inner,
            rule,
            scratch,
            file,
            frames,
            peak,
            mut bytes,
        } = *self;
        let mut file = rewound(file).map_err(AudioError::write(&scratch))?;
        let gain = rule(peak);
        let mut block = StereoBlock::default();
        let mut frames_left = frames;
        while frames_left > 0 {
            let frames = usize::try_from(frames_left)
                .unwrap_or(MAX_BLOCK_FRAMES)
                .min(MAX_BLOCK_FRAMES);
            bytes.resize(frames * FRAME_BYTES, 0);
            file.read_exact(&mut bytes).map_err(AudioError::read(&scratch))?;
            block.clear();
            let (words, _) = bytes.as_chunks::<4>();
            for frame in words.chunks_exact(2) {
                block.left.push(f32::from_le_bytes(frame[0]) * gain);
                block.right.push(f32::from_le_bytes(frame[1]) * gain);
            }
            inner.write(&block)?;
            frames_left -= frames as u64;
        }
        inner.finish()
    }
}

fn rewound(file: BufWriter<File>) -> io::Result<BufReader<File>> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{OutputFormat, SourceOptions, WavSamples, create, open, read_all};

    #[test]
    fn the_rule_sees_the_peak_of_all_blocks_and_every_sample_is_scaled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.wav");
        let inner = create(&path, OutputFormat::Wav(WavSamples::Float32)).unwrap();
        let mut spool = Box::new(PeakSpool::new(inner, directory.path(), |peak| 1.0 / peak).unwrap());
        spool
            .write(&StereoBlock {
                left: vec![0.5; 20_000],
                right: vec![-0.25; 20_000],
            })
            .unwrap();
        spool
            .write(&StereoBlock {
                left: vec![0.0],
                right: vec![-2.0],
            })
            .unwrap();
        assert_eq!(spool.finish().unwrap().publish().unwrap().frames, 20_001);
        let mut source = open(&path, &SourceOptions::default()).unwrap();
        let back = read_all(&mut source);
        assert_eq!((back.left[0], back.right[19_999]), (0.25, -0.125));
        assert_eq!((back.left[20_000], back.right[20_000]), (0.0, -1.0));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
