"""A model with the real MDX-Net architecture and random weights, for measuring time and memory. Its output is noise.

ConvTDFNet of the KUIELab MDX-Net (2021), as exported for UVR: a 1x1 convolution to g channels; then, on [B, C, T, F],
five times a TFC-TDF block and a 2x2 convolution of stride 2 that adds g channels; a block at the bottom; five times
back up by a transposed convolution, a multiplication with the block's output of the same size on the way down, and a
block; a 1x1 convolution to 4 channels. A block is l = 3 3x3 convolutions (TFC), plus, added to their result, two
dense layers over frequency, F -> F/bn -> F (TDF). Each layer but the last ends in normalization and ReLU. After a
convolution the normalization is folded into its weights and bias; after a dense layer it is per channel and stays.
"""

import numpy as np

from generator.graph import Graph, sidecar

ROWS = 2048
N_FFT = 6144
FRAMES = 256
LOG2_FRAMES = 8
GROWTH = 32
BLOCKS = 11
LAYERS = 3
BOTTLENECK = 8
KERNEL = 3
SCALE = 2
SEED = 2021

# Spectra of music reach a few hundred; the five multiplications would raise that to the sixth power.
INPUT_SHARE = 0.002


def build() -> tuple[bytes, bytes]:
    """The bytes of the model and of its sidecar."""
    shape = ["batch", 4, ROWS, FRAMES]
    net = Net()
    graph = net.graph
    x = graph.input("input", shape)

    channels, rows, skips = GROWTH, ROWS, []
    x = net.convolution("first", x, 4, channels, kernel=1, share=INPUT_SHARE)
    x = graph.add("Transpose", [x], "by_frame", perm=[0, 1, 3, 2])
    for level in range(BLOCKS // 2):
        x = net.block(f"down{level}", x, channels, rows)
        skips.append(x)
        x = net.convolution(f"down{level}_half", x, channels, channels + GROWTH, kernel=SCALE, stride=SCALE)
        channels, rows = channels + GROWTH, rows // SCALE
    x = net.block("bottom", x, channels, rows)
    for level in reversed(range(BLOCKS // 2)):
        x = net.transposed(f"up{level}_double", x, channels, channels - GROWTH)
        channels, rows = channels - GROWTH, rows * SCALE
        x = graph.add("Mul", [x, skips.pop()], f"up{level}_skip")
        x = net.block(f"up{level}", x, channels, rows)
    x = graph.add("Transpose", [x], "by_row", perm=[0, 1, 3, 2])
    net.last("output", x, channels)
    graph.output("output", shape)

    return graph.serialize("ConvTDFNet with random weights, for benchmarks."), sidecar(
        compensate=1.0,
        mdx_dim_f_set=ROWS,
        mdx_dim_t_set=LOG2_FRAMES,
        mdx_n_fft_scale_set=N_FFT,
        primary_stem="Vocals",
    )


class Net:
    """Layers with seeded weights. Methods take the name of their input and return that of their result."""

    def __init__(self):
        self.graph = Graph("topology")
        self._random = np.random.RandomState(SEED)

    def block(self, name: str, x: str, channels: int, rows: int) -> str:
        """TFC-TDF."""
        for layer in range(LAYERS):
            x = self.convolution(f"{name}_tfc{layer}", x, channels, channels, kernel=KERNEL, pad=KERNEL // 2)
        y = self.dense(f"{name}_tdf0", x, channels, rows, rows // BOTTLENECK)
        y = self.dense(f"{name}_tdf1", y, channels, rows // BOTTLENECK, rows)
        return self.graph.add("Add", [x, y], name)

    def convolution(self, name, x, inputs, outputs, *, kernel, stride=1, pad=0, share=1.0) -> str:
        weights = self._weights((outputs, inputs, kernel, kernel), inputs * kernel * kernel) * share
        self.graph.constant(f"{name}_weights", weights)
        self.graph.constant(f"{name}_bias", self._bias(outputs))
        self.graph.add(
            "Conv",
            [x, f"{name}_weights", f"{name}_bias"],
            f"{name}_linear",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )
        return self.graph.add("Relu", [f"{name}_linear"], name)

    def transposed(self, name: str, x: str, inputs: int, outputs: int) -> str:
        # Kernel = stride: every output cell uses each input channel once.
        self.graph.constant(f"{name}_weights", self._weights((inputs, outputs, SCALE, SCALE), inputs))
        self.graph.constant(f"{name}_bias", self._bias(outputs))
        self.graph.add(
            "ConvTranspose",
            [x, f"{name}_weights", f"{name}_bias"],
            f"{name}_linear",
            kernel_shape=[SCALE, SCALE],
            strides=[SCALE, SCALE],
        )
        return self.graph.add("Relu", [f"{name}_linear"], name)

    def dense(self, name: str, x: str, channels: int, inputs: int, outputs: int) -> str:
        """A matrix over the last axis, then the normalization of each channel: its own gain and offset."""
        self.graph.constant(f"{name}_weights", self._weights((inputs, outputs), inputs))
        for part, value in {
            "scale": self._random.uniform(0.8, 1.2, channels),
            "offset": self._bias(channels),
            "mean": self._bias(channels),
            "variance": self._random.uniform(0.8, 1.2, channels),
        }.items():
            self.graph.constant(f"{name}_{part}", value)
        self.graph.add("MatMul", [x, f"{name}_weights"], f"{name}_linear")
        parts = [f"{name}_{part}" for part in ("scale", "offset", "mean", "variance")]
        self.graph.add("BatchNormalization", [f"{name}_linear", *parts], f"{name}_normal")
        return self.graph.add("Relu", [f"{name}_normal"], name)

    def last(self, name: str, x: str, inputs: int) -> None:
        self.graph.constant(f"{name}_weights", self._weights((4, inputs, 1, 1), inputs))
        self.graph.constant(f"{name}_bias", self._bias(4))
        self.graph.add("Conv", [x, f"{name}_weights", f"{name}_bias"], name, kernel_shape=[1, 1])

    def _weights(self, shape: tuple, fan_in: int) -> np.ndarray:
        """Uniform with variance 2 / fan_in (He): ReLU layers keep the size of their signal."""
        limit = (6.0 / fan_in) ** 0.5
        return self._random.uniform(-limit, limit, shape)

    def _bias(self, count: int) -> np.ndarray:
        return self._random.uniform(-0.05, 0.05, count)
