//! Short synthetic songs as WAV files: the same bytes for the same arguments, on every machine.

/// Sample rate of every song, in Hz.
const RATE: u32 = 44_100;

/// A stereo WAV of 16-bit samples at 44.1 kHz: a varying voice-like tone in the middle, chords at the sides,
/// and noise. Songs with different seeds differ.
///
/// ```
/// let song = separation_testbed::song(0.5, 1);
/// assert_eq!((&song[..4], song.len()), (&b"RIFF"[..], 44 + 22_050 * 4));
/// assert_ne!(song, separation_testbed::song(0.5, 2));
/// ```
///
/// # Panics
/// If it would not fit in a WAV file (6 hours).
pub fn song(seconds: f32, seed: u64) -> Vec<u8> {
    // Truncation is intended: a partial frame is dropped.
    let frames = (seconds.max(0.0) * RATE as f32) as u32;
    let data_bytes = frames.checked_mul(4).expect("a song of less than six hours");
    let mut bytes = header(data_bytes);
    let mut noise = Noise(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let base = 110.0 * (1.0 + (seed % 12) as f32 / 12.0);
    for frame in 0..frames {
        let time = frame as f32 / RATE as f32;
        let tone = |hertz: f32| (std::f32::consts::TAU * (hertz * time).fract()).sin();
        let voice = 0.3 * tone(base * 4.0 + 3.0 * tone(5.0)) * (0.6 + 0.4 * tone(1.5));
        let left = voice + 0.15 * (tone(base) + tone(base * 1.5)) + 0.05 * noise.next();
        let right = voice + 0.15 * (tone(base * 1.25) + tone(base * 2.0)) + 0.05 * noise.next();
        for sample in [left, right] {
            // Both are below 1 by construction.
            let sample = (sample * f32::from(i16::MAX)) as i16;
            bytes.extend(sample.to_le_bytes());
        }
    }
    bytes
}

/// A tenth of a second: the smallest useful song.
pub fn tiny_song(seed: u64) -> Vec<u8> {
    song(0.1, seed)
}

fn header(data_bytes: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(44 + data_bytes as usize);
    header.extend(b"RIFF");
    header.extend((data_bytes.saturating_add(36)).to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    // Integer samples, two channels.
    header.extend(1_u16.to_le_bytes());
    header.extend(2_u16.to_le_bytes());
    header.extend(RATE.to_le_bytes());
    header.extend((RATE * 4).to_le_bytes());
    header.extend(4_u16.to_le_bytes());
    header.extend(16_u16.to_le_bytes());
    header.extend(b"data");
    header.extend(data_bytes.to_le_bytes());
    header
}

/// Marsaglia's xorshift64.
struct Noise(u64);

impl Noise {
    /// Uniform from -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}
