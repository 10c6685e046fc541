"""The models of the worker's tests: a small known function in every supported model shape, and invalid models.

The function mixes all four channels and their neighbors in row and frame, then applies a nonlinearity: a wrong layout,
channel order, padding, sign or crop changes the result. It is smooth enough (slope of the nonlinearity at most 1) that
float32 and double agree after the inverse STFT. `build` writes its formula to the README of the models.
"""

import numpy as np
from onnx import TensorProto

from generator import contracts
from generator.graph import Graph, sidecar

CHANNELS = 4
FRAMES = 256

# One weight in 256ths, so that every weight is exact in float32: the formula of the README.
WEIGHT_SCALE = 256.0

# The tiny models have T = 4, so a chunk of 3072 samples. n_fft must be below that, and above the hop of 1024,
# because otherwise the windows leave gaps that no inverse STFT can fill.
TINY_N_FFT = 2048


def build() -> dict[str, bytes]:
    """Every file of worker/tests/models, by name."""
    files = {}
    for name, (_, model, sidecar_keys) in sorted({**good_models(), **bad_models()}.items()):
        files[f"{name}.onnx"] = model
        files[f"{name}.json"] = sidecar(**sidecar_keys)
    files.update(contracts.build())
    files["README.md"] = readme().encode()
    return files


def good_models() -> dict[str, tuple]:
    """name -> (what it is for, bytes of the model, keys of the sidecar)."""
    return {
        "conv_f3072_n7680": ("usual shape", convolution(3072), keys(3072, 7680, 1.035, "Vocals")),
        "conv_f3072_n6144": ("usual shape", convolution(3072), keys(3072, 6144, 1.022, "Instrumental")),
        "conv_f2048_n6144": ("usual shape", convolution(2048), keys(2048, 6144, 1.043, "Vocals")),
        "conv_f2048_n5120": ("usual shape", convolution(2048), keys(2048, 5120, 1.009, "Instrumental")),
        "conv_f2560_n5120": ("usual shape", convolution(2560), keys(2560, 5120, 1.065, "Bass")),
        "conv_tiny": ("smallest and fastest, T = 4", convolution(64, 4), keys(64, TINY_N_FFT, 1.035, "Vocals", 2)),
        "conv_fixed_batch": (
            "batch fixed at 1",
            convolution(64, 4, batch=1),
            keys(64, TINY_N_FFT, 1.0, "Instrumental", 2),
        ),
        "conv_dynamic_frames": (
            "T dynamic in the file, 4 by the sidecar",
            convolution(64, "frames"),
            keys(64, TINY_N_FFT, 1.0, "Vocals", 2),
        ),
        "identity_full": ("output = input, all rows", identity(2049), keys(2049, 4096, 1.0, "Vocals")),
        "identity_tiny": (
            "output = input, all rows, T = 4",
            identity(1025, 4),
            keys(1025, TINY_N_FFT, 1.0, "Vocals", 2),
        ),
    }


def bad_models() -> dict[str, tuple]:
    """name -> (why it must be refused, bytes of the model, keys of the sidecar)."""
    tiny = convolution(64, 4)
    tiny_keys = keys(64, TINY_N_FFT, 1.0, "Vocals", 2)
    return {
        "bad_rank": ("input and output of rank 3", plain([["batch", 4, 64]]), tiny_keys),
        "bad_channels": ("3 channels instead of 4", plain([["batch", 3, 64, 4]]), tiny_keys),
        "bad_batch": ("batch fixed at 2", plain([[2, 4, 64, 4]]), tiny_keys),
        "bad_two_inputs": ("two inputs", plain([["batch", 4, 64, 4]] * 2), tiny_keys),
        "bad_element_type": (
            "float64 spectra",
            plain([["batch", 4, 64, 4]], element_type=TensorProto.DOUBLE),
            tiny_keys,
        ),
        "bad_output_shape": ("output with half the rows", half_rows(64, 4), tiny_keys),
        "bad_f_above_n_fft": ("F = 2048 > n_fft/2 + 1 = 1025", convolution(2048), keys(2048, 2048, 1.0, "Vocals")),
        "bad_n_fft_above_chunk": ("n_fft = 4096 >= 1024 (T - 1) = 3072", tiny, keys(64, 4096, 1.0, "Vocals", 2)),
        "bad_n_fft_below_hop": ("n_fft = 256 <= 1024: windows leave gaps", tiny, keys(64, 256, 1.0, "Vocals", 2)),
        "bad_sidecar_rows": ("file has F = 64, sidecar 48", tiny, keys(48, TINY_N_FFT, 1.0, "Vocals", 2)),
        "bad_sidecar_frames": ("file has T = 4, sidecar 8", tiny, keys(64, TINY_N_FFT, 1.0, "Vocals", 3)),
        "bad_sidecar_config_yaml": ("sidecar of another kind of model", tiny, {"config_yaml": "model_2_stem.yaml"}),
        "bad_sidecar_compensate": ("compensate = 0", tiny, keys(64, TINY_N_FFT, 0.0, "Vocals", 2)),
        "bad_not_onnx": ("text, not ONNX", b"this is not an ONNX file\n", tiny_keys),
    }


def keys(rows: int, n_fft: int, compensate: float, stem: str, log2_frames: int = 8) -> dict:
    return {
        "compensate": compensate,
        "mdx_dim_f_set": rows,
        "mdx_dim_t_set": log2_frames,
        "mdx_n_fft_scale_set": n_fft,
        "primary_stem": stem,
    }


def convolution(rows: int, frames: int | str = FRAMES, batch: int | str = "batch") -> bytes:
    """The test function: y = 0.5 u + 0.25 |u| + 0.25 u |u| / (8 + |u|), u = 3 x 3 convolution of x."""
    graph = Graph("fixture")
    shape = [batch, CHANNELS, rows, frames]
    graph.input("input", shape)
    graph.constant("weights", convolution_weights())
    graph.constant("half", 0.5)
    graph.constant("quarter", 0.25)
    graph.constant("knee", 8.0)
    graph.add("Conv", ["input", "weights"], "u", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.add("Abs", ["u"], "u_abs")
    graph.add("Add", ["u_abs", "knee"], "u_knee")
    graph.add("Mul", ["u", "u_abs"], "u_signed_square")
    graph.add("Div", ["u_signed_square", "u_knee"], "bend_odd")
    graph.add("Add", ["u_abs", "bend_odd"], "bend")
    graph.add("Mul", ["bend", "quarter"], "bend_share")
    graph.add("Mul", ["u", "half"], "line_share")
    graph.add("Add", ["line_share", "bend_share"], "output")
    graph.output("output", shape)
    return graph.serialize()


def convolution_weights() -> np.ndarray:
    """[out channel, in channel, row offset + 1, frame offset + 1], every value a multiple of 1/256."""
    o, i, a, b = np.ogrid[:CHANNELS, :CHANNELS, :3, :3]
    small = ((7 * o + 5 * i + 3 * a + 11 * b) % 23 - 11) / WEIGHT_SCALE
    return small + 0.5 * ((o == i) & (a == 1) & (b == 1))


def identity(rows: int, frames: int = FRAMES) -> bytes:
    return plain([["batch", CHANNELS, rows, frames]])


def plain(shapes: list[list], element_type: int = TensorProto.FLOAT) -> bytes:
    """The sum of inputs of the given shapes; a single input is returned unchanged."""
    graph = Graph("fixture")
    names = ["input", "input_2"][: len(shapes)]
    for name, shape in zip(names, shapes):
        graph.input(name, shape, element_type)
    graph.add("Identity" if len(names) == 1 else "Add", names, "output")
    graph.output("output", shapes[0], element_type)
    return graph.serialize()


def half_rows(rows: int, frames: int) -> bytes:
    graph = Graph("fixture")
    graph.input("input", ["batch", CHANNELS, rows, frames])
    graph.integers("first", 0)
    graph.integers("end", rows // 2)
    graph.integers("axis", 2)
    graph.add("Slice", ["input", "first", "end", "axis"], "output")
    graph.output("output", ["batch", CHANNELS, rows // 2, frames])
    return graph.serialize()


README_TOP = """\
# Test models

Written by `separation/models/generate.py fixtures`; never edit. `generate.py fixtures --check` checks that they are up to date.
All valid MDX-Net models have input `input` and output `output`, [batch, 4, F, T] float32, channels L.re, L.im, R.re, R.im.

## The function of the `conv_*` models
For output channel o, row f, frame t of an input x[i, f, t], where x is 0 outside its rows and frames:

    u[o, f, t] = sum over i = 0..3, a = 0..2, b = 0..2 of  w[o, i, a, b] * x[i, f + a - 1, t + b - 1]
    w[o, i, a, b] = ((7 o + 5 i + 3 a + 11 b) mod 23 - 11) / 256,  plus 0.5 where o = i and a = b = 1
    y = 0.5 u + 0.25 |u| + 0.25 u |u| / (8 + |u|)

This is a cross-correlation, as in every neural network: the kernel is not flipped. `mod` gives 0..22. All weights are exact in
float32. The slope of the nonlinearity is between 0.25 and 1, so errors of float32 do not grow. The |u| term makes
0.5 f(x) - 0.5 f(-x) differ from f(x), so tests detect the denoise pass too. The `identity_*` models give y = x.

"""


def readme() -> str:
    lines = ["| model | F | T | n_fft | compensate | primary_stem | purpose |", "|---|---|---|---|---|---|---|"]
    for name, (purpose, _, k) in sorted(good_models().items()):
        lines.append(
            f"| {name} | {k['mdx_dim_f_set']} | {2 ** k['mdx_dim_t_set']} | {k['mdx_n_fft_scale_set']} "
            f"| {k['compensate']} | {k['primary_stem']} | {purpose} |"
        )
    lines += ["", "## Invalid models, which must be refused", "| model | why |", "|---|---|"]
    for name, (reason, _, _) in sorted(bad_models().items()):
        lines.append(f"| {name} | {reason} |")
    return README_TOP + "\n".join(lines) + "\n" + contracts.readme()
