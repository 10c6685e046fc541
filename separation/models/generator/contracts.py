"""Toy models of the tensor contracts other than MDX-Net's: small known functions in the shapes of public exports.

Each stem has its own function. The functions of waveforms also depend on the position in the chunk, and those of
spectra on the neighbors in row and column, so that a wrong layout, order, alignment or padding changes the result.
"""

import json

import numpy as np
from onnx import TensorProto

from generator.graph import Graph, sidecar

CHANNELS = 2
PARTS = 2

# All weights are exact in float32.
WEIGHT_SCALE = 256.0

# The gain of a waveform model repeats after this many samples: a prime, no part of any step.
PERIOD = 997

# Scale of the spectra in front of a mask's nonlinearity; spectra of music reach a few hundred.
MASK_SCALE = 64.0

ROWS = 1025
N_FFT = 2048

DEMUCS_STEMS = ["drums", "bass", "other", "vocals"]


def build() -> dict[str, bytes]:
    """Every file, by name."""
    files = {}
    for name, (_, model, keys) in sorted(models().items()):
        files[f"{name}.onnx"] = model
        if keys is not None:
            files[f"{name}.json"] = sidecar(**keys)
    return files


def models() -> dict[str, tuple]:
    """name -> (its tensors, bytes of the model, keys of the sidecar)."""
    half = TensorProto.FLOAT16
    return {
        "wave_demucs": ("`mix` [1,2,343980] -> `sources` [1,4,2,343980]", waveform(343_980, 4), None),
        "wave_demucs_small": (
            "`mix` [B,2,4095] -> `sources` [B,4,2,4095]",
            waveform(4_095, 4, batch="batch"),
            {"chunking": "demucs", "stems": DEMUCS_STEMS},
        ),
        "wave_demucs_half": (
            "the same with N = 4410 in float16",
            waveform(4_410, 4, element_type=half),
            {"chunking": "demucs", "stems": DEMUCS_STEMS},
        ),
        "wave_roformer": (
            "`mix` [1,2,352800] -> `sources` [1,2,352800]",
            waveform(352_800, 1, has_stem_axis=False),
            {"stems": ["vocals"]},
        ),
        "wave_roformer_small": (
            "`mix` [1,2,N] -> `sources` [1,2,2,N], N = 4410 by the sidecar",
            waveform("frames", 2),
            {"chunk": 4_410, "chunking": "roformer", "stems": ["vocals", "instrumental"]},
        ),
        "spectrum": (
            "`spec_real`, `spec_imag` [1,2,1025,801] -> `out_spec_*` [1,2,2,1025,801]",
            real_imaginary(801, 2),
            {"hop": 441, "stems": ["vocals", "drums"]},
        ),
        "spectrum_small": (
            "the same with T = 11 and 3 stems, the contract in metadata of Unblend's exporter",
            real_imaginary(
                11,
                3,
                metadata={
                    "model_family": "roformer",
                    "sources": json.dumps(["vocals", "drums", "bass"]),
                    "num_stems": "3",
                    "output_complement": "false",
                    "sample_rate": "44100",
                    "segment_samples": "4410",
                    "stft_n_fft": "2048",
                    "stft_hop_length": "441",
                    "stft_win_length": "2048",
                    "stft_normalized": "false",
                    "stft_window": "hann",
                },
            ),
            None,
        ),
        "spectrum_half": (
            "the same with 2 stems in float16",
            real_imaginary(11, 2, element_type=half),
            {"hop": 441, "stems": ["vocals", "drums"]},
        ),
        "interleaved_small": (
            "`stft_in` [1,2,1025,T,2] -> `masked_stft` [1,2,2,1025,T,2], T = 9 by the sidecar, normalized STFT",
            interleaved("columns", 2),
            {"chunk": 4_400, "hop": 512, "stems": ["vocals", "drums"], "stft_normalized": True},
        ),
        "rows_mask_small": (
            "`stft_repr` [1,2050,11,2] -> `masks` of the same shape, the contract in `sep_meta`",
            rows_mask(
                11,
                metadata={
                    "sep_meta": json.dumps(
                        {
                            "model_config": {
                                "audio": {"chunk_size": 4_410, "hop_length": 441, "n_fft": N_FFT},
                                "model": {"stft_n_fft": N_FFT, "stft_hop_length": 441, "stft_normalized": False},
                                "training": {"instruments": ["vocals", "other"], "target_instrument": "vocals"},
                                "inference": {"num_overlap": 4, "normalize": True},
                            }
                        }
                    )
                },
            ),
            None,
        ),
        "planes_small": (
            "`input` [1,4,1000,5] -> `output` [1,2,4,1000,5], n_fft 2048, hop 1024",
            planes(1_000, 5, 2),
            {"hop": 1_024, "n_fft": N_FFT, "stems": ["vocals", "instrumental"]},
        ),
    }


def waveform(frames: int | str, stems: int, *, batch=1, has_stem_axis=True, element_type=TensorProto.FLOAT) -> bytes:
    """y = g bend(u): u = a convolution over 3 samples of both channels, g = 1 + sin(2 pi (k mod 997) / 997) / 4."""
    graph = Graph("fixture")
    outputs = stems * CHANNELS
    graph.input("mix", [batch, CHANNELS, frames], element_type)
    x = cast(graph, "mix", "x", element_type)
    graph.constant("weights", waveform_weights(outputs))
    graph.add("Conv", [x, "weights"], "u", kernel_shape=[3], pads=[1, 1])
    bend(graph, "u", "bent")
    gain(graph, x)
    graph.add("Mul", ["bent", "gain"], "flat")
    y = "flat"
    if has_stem_axis:
        # At most one axis is open.
        sizes = [size if isinstance(size, int) else -1 for size in [batch, stems, CHANNELS, frames]]
        graph.integers("stem_shape", *sizes)
        y = graph.add("Reshape", ["flat", "stem_shape"], "y")
    shape = [batch, stems, CHANNELS, frames] if has_stem_axis else [batch, CHANNELS, frames]
    uncast(graph, y, "sources", shape, element_type)
    return graph.serialize()


def gain(graph: Graph, x: str) -> None:
    """1 + sin(2 pi (k mod 997) / 997) / 4 at sample k of a chunk; the remainder keeps the angle exact."""
    graph.constant("zero", 0, np.int64)
    graph.constant("one_step", 1, np.int64)
    graph.constant("period", PERIOD, np.int64)
    graph.constant("turn", 2 * np.pi / PERIOD)
    graph.constant("quarter_gain", 0.25)
    graph.constant("whole", 1.0)
    graph.constant("last_axis", 2, np.int64)
    graph.add("Shape", [x], "x_shape")
    graph.add("Gather", ["x_shape", "last_axis"], "length")
    graph.add("Range", ["zero", "length", "one_step"], "k")
    graph.add("Mod", ["k", "period"], "phase")
    graph.add("Cast", ["phase"], "phase_float", to=TensorProto.FLOAT)
    graph.add("Mul", ["phase_float", "turn"], "angle")
    graph.add("Sin", ["angle"], "sine")
    graph.add("Mul", ["sine", "quarter_gain"], "swing")
    graph.add("Add", ["swing", "whole"], "gain")


def real_imaginary(columns: int, stems: int, *, element_type=TensorProto.FLOAT, metadata=None) -> bytes:
    graph = Graph("fixture")
    shape = [1, CHANNELS, ROWS, columns]
    # Channels of the convolution: [part][channel], as in the inputs.
    for name in ["spec_real", "spec_imag"]:
        graph.input(name, shape, element_type)
    parts = [cast(graph, name, f"{name}_float", element_type) for name in ["spec_real", "spec_imag"]]
    graph.add("Concat", parts, "x", axis=1)
    convolution(graph, "x", "bent", stems)
    graph.integers("split_shape", 1, stems, PARTS, CHANNELS, ROWS, columns)
    graph.add("Reshape", ["bent", "split_shape"], "split")
    for part, name in enumerate(["out_spec_real", "out_spec_imag"]):
        graph.constant(f"part_{part}", part, np.int64)
        graph.add("Gather", ["split", f"part_{part}"], f"{name}_float", axis=2)
        uncast(graph, f"{name}_float", name, [1, stems, CHANNELS, ROWS, columns], element_type)
    return graph.serialize(metadata=metadata)


def interleaved(columns: int | str, stems: int) -> bytes:
    graph = Graph("fixture")
    graph.input("stft_in", [1, CHANNELS, ROWS, columns, PARTS])
    graph.add("Transpose", ["stft_in"], "planes", perm=[0, 1, 4, 2, 3])
    graph.integers("flat_shape", 1, CHANNELS * PARTS, ROWS, -1)
    graph.add("Reshape", ["planes", "flat_shape"], "x")
    convolution(graph, "x", "bent", stems)
    graph.integers("stem_shape", 1, stems, CHANNELS, PARTS, ROWS, -1)
    graph.add("Reshape", ["bent", "stem_shape"], "cube")
    graph.add("Transpose", ["cube"], "masked_stft", perm=[0, 1, 2, 4, 5, 3])
    graph.output("masked_stft", [1, stems, CHANNELS, ROWS, columns, PARTS])
    return graph.serialize()


def rows_mask(columns: int, *, metadata=None) -> bytes:
    """mask = (v + |v| / 2) / (1 + |v|), v = the convolution of the spectra divided by 64."""
    graph = Graph("fixture")
    shape = [1, ROWS * CHANNELS, columns, PARTS]
    graph.input("stft_repr", shape)
    graph.integers("row_shape", 1, ROWS, CHANNELS, columns, PARTS)
    graph.add("Reshape", ["stft_repr", "row_shape"], "rows")
    graph.add("Transpose", ["rows"], "planes", perm=[0, 2, 4, 1, 3])
    graph.integers("flat_shape", 1, CHANNELS * PARTS, ROWS, columns)
    graph.add("Reshape", ["planes", "flat_shape"], "x")
    graph.constant("weights", spectrum_weights(1))
    graph.add("Conv", ["x", "weights"], "u", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.constant("scale", 1 / MASK_SCALE)
    graph.constant("one", 1.0)
    graph.add("Mul", ["u", "scale"], "v")
    graph.add("Abs", ["v"], "v_abs")
    graph.add("Add", ["v_abs", "one"], "v_one")
    graph.constant("half", 0.5)
    graph.add("Mul", ["v_abs", "half"], "v_even")
    graph.add("Add", ["v", "v_even"], "v_both")
    graph.add("Div", ["v_both", "v_one"], "mask")
    graph.integers("cube_shape", 1, CHANNELS, PARTS, ROWS, columns)
    graph.add("Reshape", ["mask", "cube_shape"], "cube")
    graph.add("Transpose", ["cube"], "mask_rows", perm=[0, 3, 1, 4, 2])
    graph.integers("out_shape", *shape)
    graph.add("Reshape", ["mask_rows", "out_shape"], "masks")
    graph.output("masks", shape)
    return graph.serialize(metadata=metadata)


def planes(rows: int, columns: int, stems: int) -> bytes:
    graph = Graph("fixture")
    graph.input("input", [1, CHANNELS * PARTS, rows, columns])
    convolution(graph, "input", "bent", stems)
    graph.integers("stem_shape", 1, stems, CHANNELS * PARTS, rows, columns)
    graph.add("Reshape", ["bent", "stem_shape"], "output")
    graph.output("output", [1, stems, CHANNELS * PARTS, rows, columns])
    return graph.serialize()


def convolution(graph: Graph, x: str, output: str, stems: int) -> None:
    """bend(u), u = a 3 x 3 convolution of 4 channels to 4 for each stem."""
    graph.constant("weights", spectrum_weights(stems))
    graph.add("Conv", [x, "weights"], "u", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    bend(graph, "u", output)


def bend(graph: Graph, u: str, output: str) -> None:
    """0.5 u + 0.25 |u| + 0.25 u |u| / (8 + |u|)"""
    graph.constant("half", 0.5)
    graph.constant("quarter", 0.25)
    graph.constant("knee", 8.0)
    graph.add("Abs", [u], "u_abs")
    graph.add("Add", ["u_abs", "knee"], "u_knee")
    graph.add("Mul", [u, "u_abs"], "u_signed_square")
    graph.add("Div", ["u_signed_square", "u_knee"], "bend_odd")
    graph.add("Add", ["u_abs", "bend_odd"], "bend_sum")
    graph.add("Mul", ["bend_sum", "quarter"], "bend_share")
    graph.add("Mul", [u, "half"], "line_share")
    graph.add("Add", ["line_share", "bend_share"], output)


def cast(graph: Graph, x: str, output: str, element_type: int) -> str:
    return x if element_type == TensorProto.FLOAT else graph.add("Cast", [x], output, to=TensorProto.FLOAT)


def uncast(graph: Graph, x: str, output: str, shape: list, element_type: int) -> None:
    if element_type == TensorProto.FLOAT:
        graph.add("Identity", [x], output)
    else:
        graph.add("Cast", [x], output, to=element_type)
    graph.output(output, shape, element_type)


def waveform_weights(outputs: int) -> np.ndarray:
    """[output, channel, offset + 1]"""
    o, i, a = np.ogrid[:outputs, :CHANNELS, :3]
    small = ((7 * o + 5 * i + 3 * a) % 23 - 11) / WEIGHT_SCALE
    return small + 0.5 * ((o % CHANNELS == i) & (a == 1))


def spectrum_weights(stems: int) -> np.ndarray:
    """[output, channel, row offset + 1, column offset + 1]"""
    channels = CHANNELS * PARTS
    o, i, a, b = np.ogrid[: stems * channels, :channels, :3, :3]
    small = ((7 * o + 5 * i + 3 * a + 11 * b) % 23 - 11) / WEIGHT_SCALE
    return small + 0.5 * ((o % channels == i) & (a == 1) & (b == 1))


README_TOP = """
## Models of other tensor contracts
With bend(u) = 0.5 u + 0.25 |u| + 0.25 u |u| / (8 + |u|) and x = 0 outside its axes, for output channel o:

    waveforms (o = 2 stem + channel), at sample k of a chunk:
        u = sum over i = 0..1, a = 0..2 of  w[o, i, a] * x[i, k + a - 1]
        w[o, i, a] = ((7 o + 5 i + 3 a) mod 23 - 11) / 256,  plus 0.5 where o mod 2 = i and a = 1
        y = bend(u) * (1 + sin(2 pi (k mod 997) / 997) / 4)
    spectra (o = 4 stem + c), where c = 0..3 is L.re, R.re, L.im, R.im for `spec_real` and `spec_imag`, else L.re, L.im, R.re, R.im:
        u = the convolution of the `conv_*` models, with 0.5 where o mod 4 = i
        y = bend(u), or for masks (v + |v| / 2) / (1 + |v|), v = u / 64

"""


def readme() -> str:
    lines = ["| model | tensors | sidecar |", "|---|---|---|"]
    for name, (tensors, _, keys) in sorted(models().items()):
        declared = "none" if keys is None else f"`{json.dumps(keys, sort_keys=True)}`"
        lines.append(f"| {name} | {tensors} | {declared} |")
    return README_TOP + "\n".join(lines) + "\n"
