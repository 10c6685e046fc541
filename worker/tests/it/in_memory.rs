//! Synthetic songs, read from memory and separated into memory.

use separation_worker::audio::{AudioError, StereoBlock, StereoSource};
use separation_worker::engine::{
    ChunkGrid, ChunkTensor, Chunking, Control, Network, Overlap, Plan, Progress, SeparateError,
    SpectrumShape, SpectrumTensor, StemFormula, StemSource, Tensors, separate,
};

/// Longer songs repeat after this length: 17.3 s, not a multiple of any chunk, step or hop.
const LONGEST_TUNE_FRAMES: usize = 762_841;

/// Pseudo-random numbers that are the same on every machine (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// At least 0 and below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn signed(&mut self) -> f64 {
        2.0 * self.fraction() - 1.0
    }
}

/// Music-like audio with a peak of 0.9: decaying harmonics of many notes, noise bursts and a hiss, each at its own
/// position between left and right.
pub(crate) fn music(frames: usize, seed: u64) -> StereoBlock {
    let tune = frames.min(LONGEST_TUNE_FRAMES);
    let mut dice = Dice::new(seed);
    let mut left: Vec<f64> = (0..tune).map(|_| 0.02 * dice.signed()).collect();
    let mut right: Vec<f64> = left
        .iter()
        .map(|sample| 0.5 * sample + 0.01 * dice.signed())
        .collect();
    for onset in (0..tune).step_by(5_013) {
        let pan = dice.fraction();
        let tone_hz = 55.0 * 2.0_f64.powf((dice.fraction() * 48.0).floor() / 12.0);
        for harmonic in 1..=6 {
            let gain = 0.5 / f64::from(harmonic);
            let turn = std::f64::consts::TAU * tone_hz * f64::from(harmonic) / 44_100.0;
            for k in 0..30_000.min(tune - onset) {
                let sample = gain * (turn * k as f64).sin() * (-3e-4 * k as f64).exp();
                left[onset + k] += (1.0 - pan) * sample;
                right[onset + k] += pan * sample;
            }
        }
        let pan = dice.fraction();
        for k in 0..2_000.min(tune - onset) {
            let sample = 0.8 * dice.signed() * (-4e-3 * k as f64).exp();
            left[onset + k] += (1.0 - pan) * sample;
            right[onset + k] += pan * sample;
        }
    }
    let peak = left
        .iter()
        .chain(&right)
        .fold(0.0_f64, |peak, sample| peak.max(sample.abs()));
    let repeated = |tune: &[f64]| {
        let scaled: Vec<f32> = tune.iter().map(|sample| (sample * 0.9 / peak) as f32).collect();
        scaled.into_iter().cycle().take(frames).collect()
    };
    StereoBlock {
        left: repeated(&left),
        right: repeated(&right),
    }
}

/// A song in memory that is read in blocks of the given sizes, repeated in turn.
pub(crate) struct SongSource<'s> {
    song: &'s StereoBlock,
    block_frames: &'s [usize],
    at: usize,
    blocks: usize,
}

impl<'s> SongSource<'s> {
    pub(crate) fn new(song: &'s StereoBlock, block_frames: &'s [usize]) -> Self {
        Self {
            song,
            block_frames,
            at: 0,
            blocks: 0,
        }
    }
}

impl StereoSource for SongSource<'_> {
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
        let frames = self.block_frames[self.blocks % self.block_frames.len()];
        let end = (self.at + frames).min(self.song.frames());
        block.clear();
        block.left.extend_from_slice(&self.song.left[self.at..end]);
        block.right.extend_from_slice(&self.song.right[self.at..end]);
        self.at = end;
        self.blocks += 1;
        Ok(())
    }

    fn expected_frames(&self) -> Option<u64> {
        Some(self.song.frames() as u64)
    }
}

/// What a model with spectra of this shape takes and returns.
pub(crate) fn mdx_net(shape: SpectrumShape) -> Tensors {
    Tensors {
        chunk: ChunkTensor::Spectrum(SpectrumTensor::mdx_net(shape)),
        stems: 1,
    }
}

/// A plan for both stems of a model with spectra of this shape.
pub(crate) fn plan(shape: SpectrumShape, overlap: f64, formula: StemFormula) -> Plan {
    let overlap = Overlap::new(overlap).expect("a fraction");
    let chunking = Chunking::MdxNet { n_fft: shape.n_fft() };
    Plan {
        tensors: mdx_net(shape),
        grid: ChunkGrid::new(chunking, shape.chunk_frames(), overlap).expect("windows that meet"),
        stems: vec![StemSource::Found(0), StemSource::Rest(0)],
        formula,
        level: None,
        denoise: false,
        batch: 1,
    }
}

/// Both stems of a song.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StemBlocks {
    pub(crate) primary: StereoBlock,
    pub(crate) secondary: StereoBlock,
}

/// Stems and progress of a separation.
#[derive(Default)]
pub(crate) struct Delivered {
    pub(crate) stems: StemBlocks,
    pub(crate) progress: Vec<Progress>,
    pub(crate) frames: u64,
}

/// Separates `song`, read in blocks of `block_frames`, from start to end.
pub(crate) fn separate_song(
    network: &mut dyn Network,
    plan: &Plan,
    song: &StereoBlock,
    block_frames: &[usize],
) -> Result<Delivered, SeparateError> {
    let mut source = SongSource::new(song, block_frames);
    let mut stems = StemBlocks::default();
    let mut progress = Vec::new();
    let frames = separate(
        network,
        plan,
        &mut source,
        &mut |blocks| {
            let [primary, secondary] = &*blocks else {
                panic!("two stems")
            };
            stems.primary.append(primary);
            stems.secondary.append(secondary);
            Ok(())
        },
        &mut |step| progress.push(step),
        &Control::default(),
    )?;
    Ok(Delivered {
        stems,
        progress,
        frames,
    })
}
