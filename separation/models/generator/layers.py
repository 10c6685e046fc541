"""Layers of neural networks with seeded random weights, for models whose time and memory are measured.

They are written as exporters write them for opset 13: normalization, GELU and attention as their elementary operators.
Methods take names of tensors and return that of their result.
"""

import numpy as np

from generator.graph import Graph

SEED = 2021


class Layers:
    def __init__(self):
        self.graph = Graph("topology")
        self._random = np.random.RandomState(SEED)
        self._count = 0

    def op(self, operator: str, *inputs: str, output: str | None = None, **attributes) -> str:
        return self.graph.add(operator, list(inputs), output or self._name(operator), **attributes)

    def constant(self, value, dtype=np.float32) -> str:
        return self.graph.constant(self._name("constant"), value, dtype)

    def weights(self, shape: tuple, fan_in: int) -> str:
        """Uniform with variance 1 / fan_in: layers keep the size of their signal."""
        limit = (3.0 / fan_in) ** 0.5
        return self.constant(self._random.uniform(-limit, limit, shape))

    def reshape(self, x: str, *sizes: int) -> str:
        return self.op("Reshape", x, self.constant(sizes, np.int64))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=list(perm))

    def slice(self, x: str, axis: int, first: int, end: int) -> str:
        return self.op("Slice", x, *(self.constant([at], np.int64) for at in (first, end, axis)))

    def pad(self, x: str, axes: int, before: int, after: int) -> str:
        """Zeros at both ends of the last of `axes`."""
        sizes = np.zeros((2, axes), np.int64)
        sizes[:, -1] = before, after
        return self.op("Pad", x, self.constant(sizes.ravel(), np.int64))

    def convolution(self, x, inputs: int, outputs: int, kernel: list, *, strides=None, pads=None, dilations=None) -> str:
        ones = [1] * len(kernel)
        weights = self.weights((outputs, inputs, *kernel), inputs * int(np.prod(kernel)))
        return self.op(
            "Conv",
            x,
            weights,
            self.weights((outputs,), outputs),
            kernel_shape=kernel,
            strides=strides or ones,
            dilations=dilations or ones,
            pads=pads or [0, 0] * len(kernel),
        )

    def transposed(self, x, inputs: int, outputs: int, kernel: list, *, strides: list, pads: list) -> str:
        weights = self.weights((inputs, outputs, *kernel), inputs * 2)
        bias = self.weights((outputs,), outputs)
        return self.op("ConvTranspose", x, weights, bias, kernel_shape=kernel, strides=strides, pads=pads)

    def linear(self, x: str, inputs: int, outputs: int, bias: bool = True) -> str:
        y = self.op("MatMul", x, self.weights((inputs, outputs), inputs))
        return self.op("Add", y, self.weights((outputs,), outputs)) if bias else y

    def scale(self, x: str, shape: tuple, value: float = 1.0) -> str:
        return self.op("Mul", x, self.constant(np.full(shape, value)))

    def add(self, *inputs: str) -> str:
        total, *rest = inputs
        for x in rest:
            total = self.op("Add", total, x)
        return total

    def gelu(self, x: str) -> str:
        bent = self.op("Erf", self.op("Div", x, self.constant(2.0**0.5)))
        return self.op("Mul", self.op("Mul", x, self.op("Add", bent, self.constant(1.0))), self.constant(0.5))

    def glu(self, x: str, axis: int) -> str:
        value, gate = self.graph.split(x, [self._name("half"), self._name("half")], axis)
        return self.op("Mul", value, self.op("Sigmoid", gate))

    def layer_norm(self, x: str, width: int) -> str:
        centered = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centered, self.constant(2.0)), axes=[-1])
        deviation = self.op("Sqrt", self.op("Add", variance, self.constant(1e-5)))
        scaled = self.scale(self.op("Div", centered, deviation), (width,))
        return self.op("Add", scaled, self.weights((width,), width))

    def root_mean_square_norm(self, x: str, width: int) -> str:
        norm = self.op("Clip", self.op("ReduceL2", x, axes=[-1]), self.constant(1e-12))
        return self.scale(self.op("Div", x, norm), (width,), width**0.5)

    def group_norm(self, x: str, batch: int, channels: int, length: int) -> str:
        """One group of [batch, channels, length]."""
        flat = self.reshape(x, batch, 1, channels * length)
        flat = self.op("InstanceNormalization", flat, self.constant([1.0]), self.constant([0.0]), epsilon=1e-5)
        return self.scale(self.reshape(flat, batch, channels, length), (channels, 1))

    def heads(self, x: str, batch: int, length: int, heads: int, width: int) -> str:
        """[batch, length, heads x width] to [batch, heads, length, width]."""
        return self.transpose(self.reshape(x, batch, length, heads, width), 0, 2, 1, 3)

    def attention(self, q: str, k: str, v: str, width: int) -> str:
        """Of [batch, heads, length, width]."""
        scores = self.op("MatMul", self.scale(q, (), width**-0.5), self.transpose(k, 0, 1, 3, 2))
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"
