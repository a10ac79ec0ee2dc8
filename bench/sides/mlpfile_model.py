"""Inference of one row by mlpfile, a small C++ library on Eigen, for ReLU networks."""

from __future__ import annotations

import struct
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlpfile
import numpy as np

from ..workloads import Array
from . import Side

_LINEAR, _RELU = 2, 3


class MlpFile(Side):
    """`Model.forward`, of a file in mlpfile's format."""

    def prepare(self) -> None:
        """Write the network to a file and load it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.mlp"
            path.write_bytes(self._content())
            self.model = mlpfile.Model.load(str(path))

    def _content(self) -> bytes:
        """Number of layers, inputs, each layer's kind and outputs, then rows of kernel.T, bias."""
        dims, relu = self.workload.dims, self.workload.activation == "relu"
        between = [_RELU] if relu else []
        header = [0, dims[0], _LINEAR, dims[1]]
        for width in dims[2:]:
            header += [*between, _LINEAR, width]
        layers = len(dims) - 1
        header[0] = layers + len(between) * (layers - 1)
        content = struct.pack(f"<{len(header)}I", *header)
        for kernel, bias in zip(self.weights[::2], self.weights[1::2]):
            content += np.ascontiguousarray(kernel.T).tobytes() + bias.tobytes()
        return content

    def describe(self) -> str:
        """Return the version."""
        return version("mlpfile")

    def reset(self) -> None:
        """Nothing: the weights are in the file."""

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Go forward with one row."""
        row = x[0]
        for _ in range(calls):
            y = self.model.forward(row)
        return np.asarray(y).reshape(1, -1)
