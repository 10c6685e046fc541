"""A model with the architecture of BS-RoFormer and random weights, for measuring time and memory. Its output is noise.

Band-Split RoFormer (2023) as trained by viperx: 62 bands of the spectra, of width 512 each; blocks of a transformer along time
and one along the bands, with 8 heads and rotary positions; a network for each band that computes its mask, by which the model
multiplies the spectra. It has 3 blocks in place of 12, so that a chunk takes a quarter of the time; the memory of a run, besides
the weights, is that of any number of blocks.
"""

import numpy as np

from generator.graph import sidecar
from generator.layers import Layers

ROWS = 1_025
COLUMNS = 801
HOP = 441
CHANNELS = 2
PARTS = 2
BANDS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]
WIDTH = 512
HEADS = 8
HEAD_WIDTH = 64
BLOCKS = 3
HIDDEN = 4 * WIDTH


def build() -> tuple[bytes, bytes]:
    """The bytes of the model and of its sidecar."""
    net = Network()
    shape = [1, CHANNELS, ROWS, COLUMNS]
    spectra = [net.graph.input(name, shape) for name in ["spec_real", "spec_imag"]]
    masks = [net.reshape(mask, *shape) for mask in net.masks(spectra)]
    # (a + bi)(c + di)
    products = [[net.op("Mul", x, mask) for mask in masks] for x in spectra]
    parts = {
        "out_spec_real": net.op("Sub", products[0][0], products[1][1]),
        "out_spec_imag": net.op("Add", products[0][1], products[1][0]),
    }
    for name, part in parts.items():
        net.op("Reshape", part, net.constant([1, 1, *shape[1:]], np.int64), output=name)
        net.graph.output(name, [1, 1, *shape[1:]])
    model = net.graph.serialize("BS-RoFormer with random weights, for benchmarks.")
    return model, sidecar(hop=HOP, stems=["vocals"])


class Network(Layers):
    def masks(self, spectra: list[str]) -> list[str]:
        """Real and imaginary part."""
        # [columns, rows x channels x parts]
        values = [self.reshape(self.transpose(x, 3, 2, 1, 0), COLUMNS, ROWS * CHANNELS, 1) for x in spectra]
        values = self.reshape(self.op("Concat", *values, axis=2), COLUMNS, ROWS * CHANNELS * PARTS)
        edges = np.cumsum([0, *BANDS]) * CHANNELS * PARTS
        bands = []
        for first, end in zip(edges, edges[1:]):
            band = self.root_mean_square_norm(self.slice(values, 1, int(first), int(end)), int(end - first))
            bands.append(self.reshape(self.linear(band, int(end - first), WIDTH), COLUMNS, 1, WIDTH))
        x = self.op("Concat", *bands, axis=1)
        for _ in range(BLOCKS):
            x = self.transpose(x, 1, 0, 2)
            x = self.transpose(self.layer(x, len(BANDS), COLUMNS), 1, 0, 2)
            x = self.layer(x, COLUMNS, len(BANDS))
        x = self.root_mean_square_norm(x, WIDTH)
        masks = []
        for band, rows in enumerate(BANDS):
            y = self.reshape(self.slice(x, 1, band, band + 1), COLUMNS, WIDTH)
            y = self.op("Tanh", self.linear(y, WIDTH, HIDDEN))
            masks.append(self.glu(self.linear(y, HIDDEN, 2 * rows * CHANNELS * PARTS), 1))
        flat = self.reshape(self.op("Concat", *masks, axis=1), COLUMNS, ROWS, CHANNELS, PARTS)
        flat = self.transpose(flat, 3, 2, 1, 0)
        return [self.slice(flat, 0, part, part + 1) for part in range(PARTS)]

    def layer(self, x: str, batch: int, length: int) -> str:
        """A layer of the transformer along the second axis of [batch, length, width]."""
        norm = self.root_mean_square_norm(x, WIDTH)
        q, k, v = (
            self.heads(self.linear(norm, WIDTH, WIDTH, bias=False), batch, length, HEADS, HEAD_WIDTH) for _ in range(3)
        )
        y = self.attention(self.rotated(q, length), self.rotated(k, length), v, HEAD_WIDTH)
        gates = self.op("Sigmoid", self.linear(norm, WIDTH, HEADS))
        gates = self.reshape(self.transpose(gates, 0, 2, 1), batch, HEADS, length, 1)
        y = self.transpose(self.op("Mul", y, gates), 0, 2, 1, 3)
        y = self.linear(self.reshape(y, batch, length, WIDTH), WIDTH, WIDTH, bias=False)
        x = self.add(x, y)
        y = self.gelu(self.linear(self.root_mean_square_norm(x, WIDTH), WIDTH, HIDDEN))
        return self.add(x, self.linear(y, HIDDEN, WIDTH))

    def rotated(self, x: str, length: int) -> str:
        """Rotary positions: pairs of values, half a head apart, turned by an angle that grows along the axis."""
        half = HEAD_WIDTH // 2
        angles = np.outer(np.arange(length), 10_000.0 ** (-np.arange(half) / half))
        cosine, sine = (self.constant(np.tile(wave(angles), 2)) for wave in (np.cos, np.sin))
        first, second = self.slice(x, 3, 0, half), self.slice(x, 3, half, HEAD_WIDTH)
        turned = self.op("Concat", self.op("Neg", second), first, axis=3)
        return self.add(self.op("Mul", x, cosine), self.op("Mul", turned, sine))
