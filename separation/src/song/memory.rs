//! The memory that separating a song needs, measured by running the model on silence before the first song.

use std::fs;

use super::SongError;
use crate::engine::{Network, NetworkError, Plan, SeparateError};

/// Frames that decoders, resamplers and encoders hold, and memory that allocators do not return: measured with all
/// formats, 20 MB at most.
const MARGIN_BYTES: u64 = 32 << 20;

/// Runs after which the memory of ONNX Runtime grows no more: the first one records how tensors are allocated, and the
/// second one allocates by that record.
const RUNS: usize = 2;

/// The largest batch, at most `batch`, that the network can run: half as many chunks as long as it fails, down to one.
/// A GPU may have less memory than the usual batch needs.
pub(super) fn largest_batch(network: &mut dyn Network, batch: usize) -> Result<usize, NetworkError> {
    let mut batch = batch;
    loop {
        match run_silence(network, batch) {
            Ok(()) => return Ok(batch),
            Err(_) if batch > 1 => batch /= 2,
            Err(error) => return Err(error),
        }
    }
}

/// An upper bound of the resident memory of this process while it separates songs by `plan`, however long they are:
/// its peak with the network alone, and the buffers of a separation. `None` if this system does not measure the
/// peak.
pub(super) fn bound_bytes(network: &mut dyn Network, plan: &Plan) -> Result<Option<u64>, SongError> {
    for _ in 0..RUNS {
        run_silence(network, plan.batch).map_err(SeparateError::from)?;
    }
    let queued = super::encoding::queued_bytes(plan.stems.len(), plan.grid.step_frames());
    Ok(peak_memory_bytes().map(|peak| peak + plan.buffer_bytes() + queued + MARGIN_BYTES))
}

fn run_silence(network: &mut dyn Network, batch: usize) -> Result<(), NetworkError> {
    let tensors = network.tensors();
    let outputs: Vec<usize> = (0..tensors.stems).collect();
    let mut values = vec![0.0; batch * tensors.chunk.values()];
    network.run(batch, &mut values, &outputs)
}

/// Peak resident memory of this process (`VmHWM`), in bytes; none if the kernel does not report it.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
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
