//! Reads and writes song files.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use separation::audio::{self, OutputFormat, SourceOptions, StereoBlock, StereoSource, WavSamples};

/// The longest song held in memory: 10 minutes x 44,100 frames x 8 bytes = 212 MB.
const MAX_FRAMES: usize = 600 * audio::SAMPLE_RATE_HZ as usize;

/// Opens a song for reading block by block.
///
/// # Errors
/// If it cannot be read as audio.
pub fn open(path: &Path) -> Result<audio::FileSource> {
    audio::open(path, &SourceOptions::default()).with_context(|| format!("cannot open {}", path.display()))
}

/// Reads a complete song of at most ten minutes.
///
/// # Errors
/// If it cannot be read as audio or is longer.
pub fn read(path: &Path) -> Result<StereoBlock> {
    let mut source = open(path)?;
    let (mut song, mut block) = (StereoBlock::default(), StereoBlock::default());
    loop {
        source
            .read(&mut block)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if block.is_empty() {
            return Ok(song);
        }
        song.append(&block);
        ensure!(
            song.frames() <= MAX_FRAMES,
            "{} is longer than ten minutes",
            path.display()
        );
    }
}

/// Writes a WAV file, which appears once `fill` has succeeded; creates its directory if missing.
///
/// # Errors
/// If it cannot be written or `fill` fails.
pub fn write_wav(
    path: &Path,
    samples: WavSamples,
    fill: impl FnOnce(&mut dyn audio::StereoSink) -> Result<()>,
) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(context)?;
    }
    let mut sink = audio::create(path, OutputFormat::Wav(samples)).with_context(context)?;
    fill(sink.as_mut())?;
    sink.finish()
        .and_then(audio::UnpublishedFile::publish)
        .with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_reads_back_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/song.wav");
        let song = StereoBlock {
            left: vec![0.5; 20_000],
            right: vec![-0.25; 20_000],
        };
        write_wav(&path, WavSamples::Float32, |sink| Ok(sink.write(&song)?)).unwrap();
        assert_eq!(read(&path).unwrap(), song);
    }

    #[test]
    fn a_file_that_could_not_be_filled_does_not_appear() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("song.wav");
        let failed = write_wav(&path, WavSamples::Int16, |_| anyhow::bail!("no more"));
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_song_is_named() {
        let refused = read(Path::new("/no/song.wav")).unwrap_err();
        assert_eq!(refused.to_string(), "cannot open /no/song.wav");
    }
}
