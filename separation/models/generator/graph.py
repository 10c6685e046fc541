"""Writes ONNX graphs: nodes by operator name, constants by value, deterministic bytes.

It contains no audio code. It never reads a clock, a random source or a file.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The worker's supported opset, 13, and the oldest IR version that fits it.
OPSET = 13
IR_VERSION = 8


class Graph:
    """Collects nodes and constants. Every method that adds something returns the name of its result."""

    def __init__(self, name: str):
        self._name = name
        self._nodes = []
        self._constants = []
        self._weights = []
        self._inputs = []
        self._outputs = []

    def input(self, name: str, shape: list, element_type: int = TensorProto.FLOAT) -> str:
        """`shape` holds numbers, and strings for dynamic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, element_type, shape))
        return name

    def output(self, name: str, shape: list, element_type: int = TensorProto.FLOAT) -> str:
        self._outputs.append(helper.make_tensor_value_info(name, element_type, shape))
        return name

    def constant(self, name: str, value, dtype=np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """A list of axes, limits or sizes."""
        return self.constant(name, list(values), np.int64)

    def weights(self, name: str, shape: list[int], element_type: int) -> str:
        """A tensor that the file does not contain: it is appended to the file later."""
        values = np.zeros(shape, helper.tensor_dtype_to_np_dtype(element_type))
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes) -> str:
        """Adds a node named after its result, so that profiles match the formula."""
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, outputs: list[str], axis: int) -> list[str]:
        """Adds a node that splits `x` into equal parts."""
        self._nodes.append(helper.make_node("Split", [x], outputs, name=outputs[0], axis=axis))
        return outputs

    def serialize(self, doc: str = "", metadata: dict[str, str] | None = None) -> bytes:
        """Checks the graph, shapes included, and returns the bytes of the file, with custom metadata."""
        onnx.checker.check_model(self._model(self._constants + self._weights, doc, metadata), full_check=True)
        return self._model(self._constants, doc, metadata).SerializeToString(deterministic=True)

    def _model(self, constants: list, doc: str, metadata: dict[str, str] | None) -> onnx.ModelProto:
        model = helper.make_model(
            helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, constants),
            producer_name="generate.py",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            doc_string=doc,
        )
        if metadata:
            helper.set_model_props(model, metadata)
        return model


def sidecar(**keys) -> bytes:
    """The .json next to a model: sorted keys, one per line, for readable diffs."""
    return (json.dumps(keys, indent=2, sort_keys=True) + "\n").encode()


def rounded(values, digits: int = 6) -> np.ndarray:
    """`values` to `digits` significant digits, as float32.

    exp() and cos() differ in their last bit between C libraries; rounding removes the difference.
    """
    return np.array([float(f"{v:.{digits - 1}e}") for v in np.ravel(values)], np.float32).reshape(np.shape(values))
