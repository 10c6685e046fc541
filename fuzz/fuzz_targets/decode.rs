//! Audio files: any bytes give bounded audio or an error, never a panic.
//!
//! `cargo +nightly fuzz run decode -- -max_total_time=60 -rss_limit_mb=1024`

#![no_main]

use std::panic;

use libfuzzer_sys::fuzz_target;
use separation_worker::audio::{SourceOptions, StereoBlock, StereoSource as _, open_bytes};

/// Most frames per byte of input: silence in FLAC packs 65,536 frames into a dozen bytes, and at 1 kHz each
/// becomes 44.1 at 44.1 kHz.
const MAX_FRAMES_PER_BYTE: u64 = 400_000;

fuzz_target!(init: {
    // libFuzzer's hook ends the process at the first panic, even at those of decoders, which become errors.
    // Panics that reach the end of the target still count.
    panic::set_hook(Box::new(|_| {}));
}, |file: &[u8]| {
    let limit = MAX_FRAMES_PER_BYTE * (file.len() as u64 + 1);
    let Ok(mut source) = open_bytes(file.to_vec(), &SourceOptions::default()) else {
        return;
    };
    let (mut block, mut frames) = (StereoBlock::default(), 0);
    while source.read(&mut block).is_ok() && !block.is_empty() {
        assert!(block.left.iter().chain(&block.right).all(|sample| sample.is_finite()));
        frames += block.frames() as u64;
        assert!(frames <= limit, "{frames} frames from {} bytes", file.len());
    }
});
