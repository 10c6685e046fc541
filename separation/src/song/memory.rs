//! The memory that separating a song needs, measured by running the model on silence before the first song, and kept
//! below a limit.

use std::fmt;
use std::fs;

use super::SongError;
use crate::audio::SAMPLE_RATE_HZ;
use crate::engine::{Network, NetworkError, Plan, SeparateError};
use crate::onnx::Provider;

/// What decoders, resamplers and encoders hold, with all formats and five stems.
const MARGIN_BYTES: u64 = 8 << 20;

/// The share of the measured memory that the allocator may need in addition: its threads take freed memory from different
/// arenas in each run. One run of seven exceeded the measured memory by 1 %.
const ARENA_SHARE: u64 = 32;

/// Runs after which ONNX Runtime holds as much memory as after any number: the free parts that the first one leaves may be
/// too small for the second one.
const RUNS: usize = 2;

/// The shortest chunk to which a limit may shorten chunks: a second. With less of a song, models do not separate.
pub(super) const SHORTEST_CHUNK_FRAMES: usize = SAMPLE_RATE_HZ as usize;

/// The most memory that separating a song needs, however long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// Bytes of this process, or with CUDA of the model on the GPU.
    pub bytes: u64,
    /// The device.
    pub provider: Provider,
    /// Frames of a chunk.
    pub chunk_frames: usize,
    /// Chunks in one run of the model.
    pub batch: usize,
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.provider {
            Provider::Cpu => "memory",
            Provider::Cuda => "GPU memory",
        };
        write!(
            out,
            "a song needs at most {} MB of {memory}, with chunks of {:.1} s",
            self.bytes.div_ceil(1_000_000),
            self.chunk_frames as f64 / f64::from(SAMPLE_RATE_HZ)
        )?;
        match self.batch {
            1 => Ok(()),
            batch => write!(out, ", {batch} of them at a time"),
        }
    }
}

/// The largest batch, at most `batch`, that the network can run: half as many chunks as long as it fails, down to one.
/// A GPU may have less memory than the usual batch needs.
pub(super) fn largest_batch(network: &mut dyn Network, batch: usize) -> Result<usize, NetworkError> {
    let mut batch = batch;
    loop {
        match run_silence(network, batch, 1) {
            Ok(()) => return Ok(batch),
            Err(_) if batch > 1 => batch /= 2,
            Err(error) => return Err(error),
        }
    }
}

/// Bytes of this process's memory while it separates songs by `plan`: those after runs of the network, which keeps its
/// memory between runs, and the buffers of a separation. `None` if this system does not measure them.
pub(super) fn needed_bytes(network: &mut dyn Network, plan: &Plan) -> Result<Option<u64>, SongError> {
    run_silence(network, plan.batch, RUNS).map_err(SeparateError::from)?;
    let queued = super::encoding::queued_bytes(plan.stems.len(), plan.grid.step_frames());
    let buffers = plan.buffer_bytes() + queued + MARGIN_BYTES;
    Ok(status_bytes("VmRSS:").map(|resident| resident + resident / ARENA_SHARE + buffers))
}

/// Runs the network on silence some times, in the same memory.
pub(super) fn run_silence(network: &mut dyn Network, batch: usize, runs: usize) -> Result<(), NetworkError> {
    let tensors = network.tensors();
    let outputs: Vec<usize> = (0..tensors.stems).collect();
    let mut values = Vec::new();
    for _ in 0..runs {
        values.clear();
        values.resize(batch * tensors.chunk.values(), 0.0);
        network.run(batch, &mut values, &outputs)?;
    }
    Ok(())
}

/// Peak resident memory of this process, in bytes; none if the kernel does not report it.
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// A line of the kernel's report about this process.
fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{ChunkTensor, Tensors};
    use crate::error::ErrorClass;

    /// A network that runs at most `room` chunks at once.
    struct Small {
        room: usize,
    }

    impl Network for Small {
        fn tensors(&self) -> Tensors {
            Tensors {
                chunk: ChunkTensor::Waveform { frames: 1_024 },
                stems: 1,
            }
        }

        fn run(&mut self, batch: usize, _: &mut Vec<f32>, _: &[usize]) -> Result<(), NetworkError> {
            if batch > self.room {
                return Err(NetworkError::new(ErrorClass::Transient, "out of memory", None));
            }
            Ok(())
        }
    }

    #[test]
    fn a_batch_that_does_not_fit_is_halved_down_to_one_chunk() {
        let largest = |room| largest_batch(&mut Small { room }, 4);
        assert_eq!(largest(8).unwrap(), 4);
        assert_eq!(largest(3).unwrap(), 2);
        assert_eq!(largest(1).unwrap(), 1);
        assert_eq!(largest(0).unwrap_err().to_string(), "out of memory");
    }
}
