//! The reference result of a separation in full arrays and double precision, written from the definitions of Demucs and
//! of ZFTurbo's training program. Shares no code with the engine.

/// Left and right.
pub(crate) type Stereo = [Vec<f64>; 2];

/// A model: from the audio of a chunk to that of each stem.
pub(crate) type Model<'m> = &'m dyn Fn(&Stereo) -> Vec<Stereo>;

/// How a song is cut and joined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheme {
    pub(crate) chunking: Chunking,
    /// Frames of a chunk.
    pub(crate) chunk: usize,
    /// Frames between the starts of two chunks.
    pub(crate) step: usize,
    /// Whether the song is normalized first.
    pub(crate) is_normalized: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Chunking {
    Demucs,
    Roformer,
}

/// The stems of the song `x`.
pub(crate) fn separate(x: &Stereo, scheme: Scheme, model: Model<'_>) -> Vec<Stereo> {
    let (mean, divisor) = if scheme.is_normalized {
        level(x)
    } else {
        (0.0, 1.0)
    };
    let mix = map(x, |sample| (sample - mean) / divisor);
    let stems = match scheme.chunking {
        Chunking::Demucs => demucs(&mix, scheme, model),
        Chunking::Roformer => roformer(&mix, scheme, model),
    };
    let restore = |stem: &Stereo| map(stem, |sample| sample * divisor + mean);
    stems.iter().map(restore).collect()
}

/// (f(x) - f(-x)) / 2 for each stem.
pub(crate) fn denoised(chunk: &Stereo, model: Model<'_>) -> Vec<Stereo> {
    let plus = model(chunk);
    let minus = model(&map(chunk, |sample| -sample));
    let half = |(plus, minus): (&Stereo, &Stereo)| {
        [0, 1].map(|c| {
            let pairs = plus[c].iter().zip(&minus[c]);
            pairs.map(|(plus, minus)| 0.5 * plus - 0.5 * minus).collect()
        })
    };
    plus.iter().zip(&minus).map(half).collect()
}

fn map(x: &Stereo, change: impl Fn(f64) -> f64) -> Stereo {
    [0, 1].map(|c| x[c].iter().map(|sample| change(*sample)).collect())
}

/// Mean and standard deviation of the average of both channels: `ref.mean()` and `ref.std() + 1e-8`; but 1 if the
/// average is constant.
fn level(x: &Stereo) -> (f64, f64) {
    let average: Vec<f64> = x[0].iter().zip(&x[1]).map(|(l, r)| (l + r) / 2.0).collect();
    let n = average.len() as f64;
    let mean = average.iter().sum::<f64>() / n;
    let squares: f64 = average.iter().map(|a| (a - mean) * (a - mean)).sum();
    let deviation = if n > 1.0 {
        (squares / (n - 1.0)).sqrt()
    } else {
        0.0
    };
    let is_constant = deviation < 1e-6;
    (mean, if is_constant { 1.0 } else { deviation + 1e-8 })
}

/// `apply_model` of demucs/apply.py with `split`, without shifts.
fn demucs(mix: &Stereo, scheme: Scheme, model: Model<'_>) -> Vec<Stereo> {
    let length = mix[0].len();
    let segment = scheme.chunk;
    let rising = 1..segment / 2 + 1;
    let falling = (1..=segment - segment / 2).rev();
    let weight: Vec<f64> = rising.chain(falling).map(|w| w as f64).collect();
    assert_eq!(weight.len(), segment);
    let mut sums = Sums::new(length);
    for offset in (0..length).step_by(scheme.step) {
        let chunk_length = segment.min(length - offset);
        let delta = segment - chunk_length;
        let start = offset as i64 - (delta / 2) as i64;
        let padded = [0, 1].map(|c| {
            (start..start + segment as i64)
                .map(|at| {
                    usize::try_from(at)
                        .ok()
                        .and_then(|at| mix[c].get(at))
                        .copied()
                        .unwrap_or(0.0)
                })
                .collect()
        });
        let trimmed = |k: usize| k + delta / 2;
        sums.add(&model(&padded), offset, chunk_length, trimmed, |k| weight[k]);
    }
    sums.quotients(0, length)
}

/// `demix` of utils/model_utils.py in its generic mode with one chunk per run; but a chunk that is the first and the
/// last one does not fade, and without overlap none does.
fn roformer(mix: &Stereo, scheme: Scheme, model: Model<'_>) -> Vec<Stereo> {
    let init_length = mix[0].len();
    let (chunk, step) = (scheme.chunk, scheme.step);
    let border = chunk - step;
    let is_padded = init_length > 2 * border && border > 0;
    let mix = if is_padded {
        mix.clone().map(|channel| reflect(&channel, border, border))
    } else {
        mix.clone()
    };
    let length = mix[0].len();
    let fade = chunk / 10;
    let mut sums = Sums::new(length);
    let mut i = 0;
    while i < length {
        let part_length = chunk.min(length - i);
        let missing = chunk - part_length;
        let part = [0, 1].map(|c| {
            let part = &mix[c][i..i + part_length];
            if part_length > chunk / 2 {
                reflect(part, 0, missing)
            } else {
                [part, &vec![0.0; missing]].concat()
            }
        });
        let (is_first, is_last) = (i == 0, i + step >= length);
        let mut window = vec![1.0; chunk];
        for k in 0..fade {
            // linspace(0, 1, fade)
            let rise = k as f64 / (fade - 1) as f64;
            if !is_first && border > 0 {
                window[k] = rise;
            }
            if !is_last && border > 0 {
                window[chunk - 1 - k] = rise;
            }
        }
        sums.add(&model(&part), i, part_length, |k| k, |k| window[k]);
        i += step;
    }
    let first = if is_padded { border } else { 0 };
    sums.quotients(first, init_length)
}

/// numpy's and torch's `reflect`.
fn reflect(samples: &[f64], left: usize, right: usize) -> Vec<f64> {
    let last = samples.len() - 1;
    let before = (1..=left).rev().map(|k| samples[k]);
    let after = (1..=right).map(|k| samples[last - k]);
    before.chain(samples.iter().copied()).chain(after).collect()
}

/// Weighted sums of all stems, and the sum of the weights.
struct Sums {
    stems: Vec<Stereo>,
    weights: Vec<f64>,
}

impl Sums {
    fn new(length: usize) -> Self {
        Self {
            stems: Vec::new(),
            weights: vec![0.0; length],
        }
    }

    fn add(
        &mut self,
        stems: &[Stereo],
        offset: usize,
        length: usize,
        place: impl Fn(usize) -> usize,
        weight: impl Fn(usize) -> f64,
    ) {
        let total = self.weights.len();
        self.stems
            .resize_with(stems.len(), || [vec![0.0; total], vec![0.0; total]]);
        for k in 0..length {
            for (sums, stem) in self.stems.iter_mut().zip(stems) {
                for c in 0..2 {
                    sums[c][offset + k] += weight(k) * stem[c][place(k)];
                }
            }
            self.weights[offset + k] += weight(k);
        }
    }

    fn quotients(&self, first: usize, length: usize) -> Vec<Stereo> {
        let quotient = |sum: &[f64], at: usize| {
            assert!(self.weights[at] > 0.0, "every frame has a weight");
            sum[at] / self.weights[at]
        };
        let stem = |stem: &Stereo| {
            [0, 1].map(|c| (first..first + length).map(|at| quotient(&stem[c], at)).collect())
        };
        self.stems.iter().map(stem).collect()
    }
}
