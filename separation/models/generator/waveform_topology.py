"""A model with the architecture of HTDemucs and random weights, for measuring time and memory. Its output is noise.

Hybrid Transformer Demucs (2022) as published: two U-nets of four levels, 48 channels that double at each level, on samples
and on spectra; a convolution of 8 to a quarter of the length, two dilated residual convolutions and a gated 1 x 1 convolution
in each; between them five layers of a transformer of width 512, of which every second one attends to the other branch. The
transforms are left out: frames of 4,096 samples, 1,024 apart, take the places of their spectra.
"""

from generator.layers import Layers

SAMPLES = 343_980
STEMS = 4
HOP = 1_024
N_FFT = 4_096
COLUMNS = 336
MARGIN = ((COLUMNS + 3) * HOP - SAMPLES) // 2
CHANNELS = [48, 96, 192, 384]
KERNEL, STRIDE, PAD = 8, 4, 2
COMPRESSION = 8
WIDTH = 512
HEADS = 8
LAYERS = 5
HIDDEN = 4 * WIDTH


def build() -> tuple[bytes, None]:
    """The bytes of the model, which needs no sidecar."""
    net = Network()
    mix = net.graph.input("mix", [1, 2, SAMPLES])
    spectra, samples = frames_of(net, mix), mix
    rows, length, skips = N_FFT // 2, SAMPLES, []
    inputs = (4, 2)
    for channels in CHANNELS:
        skips.append([rows, length])
        spectra, samples, rows, length = net.encode(spectra, samples, inputs, channels, rows, length)
        skips[-1] += [spectra, samples]
        inputs = (channels, channels)
    spectra, samples = net.transformer(spectra, samples, CHANNELS[-1], rows, length)
    outputs = [(channels, channels) for channels in CHANNELS[:-1]]
    for channels, outputs in zip(reversed(CHANNELS), [*reversed(outputs), (4 * STEMS, 2 * STEMS)]):
        target_rows, target_length, *skip = skips.pop()
        spectra, samples = net.decode(spectra, samples, skip, channels, outputs, (rows, length), target_length)
        rows, length = target_rows, target_length
        if skips:
            spectra, samples = net.gelu(spectra), net.gelu(samples)
    samples = net.reshape(samples, 1, STEMS, 2, SAMPLES)
    net.op("Add", samples, samples_of(net, spectra), output="sources")
    net.graph.output("sources", [1, STEMS, 2, SAMPLES])
    return net.graph.serialize("HTDemucs with random weights, for benchmarks."), None


def frames_of(net: Layers, mix: str) -> str:
    """[1, 4, 2048, 336]: both halves of each frame of both channels."""
    padded = net.pad(mix, 3, MARGIN, MARGIN)
    parts = [net.slice(padded, 2, k * HOP, (k + COLUMNS) * HOP) for k in range(N_FFT // HOP)]
    parts = [net.reshape(part, 1, 2, COLUMNS, HOP) for part in parts]
    frames = net.reshape(net.op("Concat", *parts, axis=3), 1, 2, COLUMNS, 2, N_FFT // 2)
    return net.reshape(net.transpose(frames, 0, 1, 3, 4, 2), 1, 4, N_FFT // 2, COLUMNS)


def samples_of(net: Layers, spectra: str) -> str:
    """[1, stems, 2, samples]: the sum of overlapping frames."""
    frames = net.reshape(spectra, STEMS, 2, 2, N_FFT // 2, COLUMNS)
    frames = net.reshape(net.transpose(frames, 0, 1, 4, 2, 3), STEMS, 2, COLUMNS, N_FFT)
    parts = []
    for k in range(N_FFT // HOP):
        part = net.reshape(net.slice(frames, 3, k * HOP, (k + 1) * HOP), STEMS, 2, COLUMNS * HOP)
        parts.append(net.pad(part, 3, k * HOP, (N_FFT // HOP - 1 - k) * HOP))
    return net.reshape(net.slice(net.add(*parts), 2, MARGIN, MARGIN + SAMPLES), 1, STEMS, 2, SAMPLES)


class Network(Layers):
    def encode(self, spectra, samples, inputs: tuple, channels: int, rows: int, length: int):
        """One level of both branches, and their new rows and length."""
        missing = -length % STRIDE
        spectra = self.convolution(
            spectra, inputs[0], channels, [KERNEL, 1], strides=[STRIDE, 1], pads=[PAD, 0, PAD, 0]
        )
        samples = self.convolution(
            samples, inputs[1], channels, [KERNEL], strides=[STRIDE], pads=[PAD, PAD + missing]
        )
        rows, length = rows // STRIDE, (length + missing) // STRIDE
        spectra = self.rows_residual(self.gelu(spectra), channels, rows)
        samples = self.residual(self.gelu(samples), 1, channels, length)
        spectra = self.glu(self.convolution(spectra, channels, 2 * channels, [1, 1]), 1)
        samples = self.glu(self.convolution(samples, channels, 2 * channels, [1]), 1)
        return spectra, samples, rows, length

    def decode(self, spectra, samples, skip, channels: int, outputs: tuple, sizes: tuple, target_length: int):
        rows, length = sizes
        spectra, samples = self.add(spectra, skip[0]), self.add(samples, skip[1])
        spectra = self.glu(self.convolution(spectra, channels, 2 * channels, [3, 3], pads=[1] * 4), 1)
        samples = self.glu(self.convolution(samples, channels, 2 * channels, [3], pads=[1, 1]), 1)
        spectra = self.rows_residual(spectra, channels, rows)
        samples = self.residual(samples, 1, channels, length)
        spectra = self.transposed(
            spectra, channels, outputs[0], [KERNEL, 1], strides=[STRIDE, 1], pads=[PAD, 0, PAD, 0]
        )
        samples = self.transposed(samples, channels, outputs[1], [KERNEL], strides=[STRIDE], pads=[PAD, PAD])
        return spectra, self.slice(samples, 2, 0, target_length)

    def rows_residual(self, x: str, channels: int, rows: int) -> str:
        """The residual convolutions along time, of each row."""
        by_row = self.reshape(self.transpose(x, 0, 2, 1, 3), rows, channels, COLUMNS)
        by_row = self.residual(by_row, rows, channels, COLUMNS)
        return self.transpose(self.reshape(by_row, 1, rows, channels, COLUMNS), 0, 2, 1, 3)

    def residual(self, x: str, batch: int, channels: int, length: int) -> str:
        hidden = channels // COMPRESSION
        for dilation in [1, 2]:
            y = self.convolution(x, channels, hidden, [3], pads=[dilation] * 2, dilations=[dilation])
            y = self.gelu(self.group_norm(y, batch, hidden, length))
            y = self.convolution(y, hidden, 2 * channels, [1])
            y = self.glu(self.group_norm(y, batch, 2 * channels, length), 1)
            x = self.add(x, self.scale(y, (channels, 1), 0.1))
        return x

    def transformer(self, spectra, samples, channels: int, rows: int, length: int):
        tokens = [rows * COLUMNS, length]
        flat = [self.reshape(spectra, 1, channels, tokens[0]), samples]
        x = [self.transpose(self.convolution(branch, channels, WIDTH, [1]), 0, 2, 1) for branch in flat]
        x = [self.layer_norm(branch, WIDTH) for branch in x]
        for layer in range(LAYERS):
            others = reversed(x) if layer % 2 else x
            x = [self.layer(branch, other, WIDTH) for branch, other in zip(x, list(others))]
        flat = [self.convolution(self.transpose(branch, 0, 2, 1), WIDTH, channels, [1]) for branch in x]
        return self.reshape(flat[0], 1, channels, rows, COLUMNS), flat[1]

    def layer(self, x: str, other: str, width: int) -> str:
        """A layer in which `x` attends to `other`."""
        norm = self.layer_norm(x, width)
        attended = norm if x == other else self.layer_norm(other, width)
        q, k, v = (
            self.heads(self.linear(source, width, width), 1, -1, HEADS, width // HEADS)
            for source in (norm, attended, attended)
        )
        y = self.transpose(self.attention(q, k, v, width // HEADS), 0, 2, 1, 3)
        y = self.linear(self.reshape(y, 1, -1, width), width, width)
        x = self.add(x, self.scale(y, (width,), 0.1))
        y = self.gelu(self.linear(self.layer_norm(x, width), width, HIDDEN))
        return self.add(x, self.scale(self.linear(y, HIDDEN, width), (width,), 0.1))
