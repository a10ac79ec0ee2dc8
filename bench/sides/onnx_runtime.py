"""Inference by ONNX Runtime, of a graph of Gemm and activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..workloads import Array
from . import Side

# Operators and their attributes; SiLU is two of them.
_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "identity": ("Identity", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {}),
    "selu": ("Selu", {}),
    "softplus": ("Softplus", {}),
}
# Old enough for every ONNX Runtime that has these operators in this form.
_OPSET, _IR = 13, 8


class OnnxRuntime(Side):
    """A session with all of its optimisations, from a NumPy array to a NumPy array."""

    def prepare(self) -> None:
        """Build the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self._model().SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _model(self) -> Any:
        nodes, constants, name = [], [], "x"
        for i, (kernel, bias) in enumerate(zip(self.weights[::2], self.weights[1::2])):
            if i:
                nodes += self._activation(name, f"y{i}")
                name = f"y{i}"
            constants += [
                numpy_helper.from_array(kernel, f"kernel{i}"),
                numpy_helper.from_array(bias, f"bias{i}"),
            ]
            nodes.append(helper.make_node("Gemm", [name, f"kernel{i}", f"bias{i}"], [f"z{i}"]))
            name = f"z{i}"
        ends = [
            helper.make_tensor_value_info(end, TensorProto.FLOAT, ["rows", width])
            for end, width in (("x", self.workload.dims[0]), (name, self.workload.dims[-1]))
        ]
        graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
        )

    def _activation(self, x: str, y: str) -> list[Any]:
        if self.workload.activation in ("silu", "swish"):
            return [
                helper.make_node("Sigmoid", [x], [f"{y}_sigmoid"]),
                helper.make_node("Mul", [x, f"{y}_sigmoid"], [y]),
            ]
        operator, attributes = _ACTIVATIONS[self.workload.activation]
        return [helper.make_node(operator, [x], [y], **attributes)]

    def describe(self) -> str:
        """Return the version."""
        return str(onnxruntime.__version__)

    def reset(self) -> None:
        """Nothing: the weights are constants."""

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Run the session; binding its input and output beforehand was no faster."""
        feed = {"x": x}
        for _ in range(calls):
            (y,) = self.session.run(None, feed)
        return np.asarray(y)
