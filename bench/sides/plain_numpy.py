"""The same in NumPy, written with care: arrays made beforehand, BLAS, Adam in the cache."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from math import sqrt

import numpy as np

from bench.sides import Side
from bench.workloads import Array

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Elements of parameters that Adam takes at a time: four arrays of them stay in a core's own cache.
_BLOCK = 32_768


def _sigmoid(z: Array) -> None:
    np.negative(z, out=z)
    np.exp(z, out=z)
    z += 1
    np.reciprocal(z, out=z)


# In place: z -> f(z), and y = f(z) -> f'(z).
_ACTIVATIONS: dict[str, tuple[Callable[[Array], object], Callable[[Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0, out=z), lambda y: y > 0),
    "tanh": (lambda z: np.tanh(z, out=z), lambda y: np.subtract(1, np.square(y, out=y), out=y)),
    "sigmoid": (_sigmoid, lambda y: np.subtract(y, np.square(y), out=y)),
    "identity": (lambda z: None, np.ones_like),
}


def _cross_entropy(z: Array, labels: Array) -> float:
    rows = np.arange(len(z))
    z -= z.max(axis=1, keepdims=True)
    picked = z[rows, labels]
    np.exp(z, out=z)
    total = z.sum(axis=1, keepdims=True)
    z /= total
    z[rows, labels] -= 1
    z /= len(z)
    return float(np.mean(np.log(total[:, 0]) - picked))


def _binary_cross_entropy(z: Array, y: Array) -> float:
    loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
    _sigmoid(z)
    z -= y
    z /= z.size
    return float(loss.mean())


def _mse(z: Array, y: Array) -> float:
    z -= y
    loss = np.vdot(z, z) / z.size
    z *= 2 / z.size
    return float(loss)


def _mae(z: Array, y: Array) -> float:
    z -= y
    loss = np.abs(z).mean()
    np.sign(z, out=z)
    z /= z.size
    return float(loss)


# (outputs, targets) -> mean loss; the outputs become its gradient.
_LOSSES = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "mse": _mse,
    "mae": _mae,
}


class PlainNumPy(Side):
    """All parameters in one flat array, and all arrays of a step made beforehand."""

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        workload = self.workload
        self.rng = np.random.default_rng(self.seed)
        self.activate, self.derive = _ACTIVATIONS[workload.activation]
        self.loss = _LOSSES[workload.loss]
        arrays = np.zeros((4, workload.parameters), np.float32)
        self.flat, self.gradient, self.mean, self.square = arrays
        self.kernels, self.biases = self._views(self.flat)
        self.kernel_gradients, self.bias_gradients = self._views(self.gradient)
        self.blocks = [arrays[:, i : i + _BLOCK] for i in range(0, workload.parameters, _BLOCK)]
        self.inputs = np.empty((workload.batch, workload.dims[0]), np.float32)
        self.outputs = self._outputs(workload.batch)
        self.deltas = self._outputs(workload.batch)

    def _views(self, flat: Array) -> tuple[list[Array], list[Array]]:
        ends = np.cumsum([w.size for w in self.weights])[:-1]
        views = [part.reshape(w.shape) for part, w in zip(np.split(flat, ends), self.weights)]
        return views[::2], views[1::2]

    def _outputs(self, rows: int) -> list[Array]:
        return [np.empty((rows, n), np.float32) for n in self.workload.dims[1:]]

    def describe(self) -> str:
        """Return the version and, where threadpoolctl tells, the BLAS."""
        if not find_spec("threadpoolctl"):
            return str(np.__version__)
        libraries = [
            f"{info['internal_api']} {info['version']} {info.get('architecture', '')}".rstrip()
            for info in import_module("threadpoolctl").threadpool_info()
            if info["user_api"] == "blas"
        ]
        return f"{np.__version__} ({', '.join(libraries)})"

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        np.concatenate([w.ravel() for w in self.weights], out=self.flat)
        self.mean[:], self.square[:], self.updates = 0, 0, 0

    def _forward(self, x: Array, outputs: list[Array]) -> None:
        last = len(outputs) - 1
        for i, (kernel, bias, out) in enumerate(zip(self.kernels, self.biases, outputs)):
            np.matmul(x, kernel, out=out)
            out += bias
            if i < last:
                self.activate(out)
            x = out

    def _step(self, x: Array, y: Array) -> float:
        self._forward(x, self.outputs)
        delta = self.outputs[-1]
        loss = self.loss(delta, y)
        for i in range(len(self.kernels) - 1, 0, -1):
            before = self.outputs[i - 1]
            np.matmul(before.T, delta, out=self.kernel_gradients[i])
            delta.sum(axis=0, out=self.bias_gradients[i])
            delta = np.matmul(delta, self.kernels[i].T, out=self.deltas[i - 1])
            delta *= self.derive(before)
        np.matmul(x.T, delta, out=self.kernel_gradients[0])
        delta.sum(axis=0, out=self.bias_gradients[0])
        self._adam()
        return loss

    def _adam(self) -> None:
        self.updates += 1
        correction = sqrt(1 - _BETA2**self.updates)
        rate = self.workload.learning_rate * correction / (1 - _BETA1**self.updates)
        epsilon = _EPSILON * correction
        for p, g, m, v in self.blocks:
            m *= _BETA1
            v *= _BETA2
            m += (1 - _BETA1) * g
            np.square(g, out=g)
            g *= 1 - _BETA2
            v += g
            np.sqrt(v, out=g)
            g += epsilon
            np.divide(m, g, out=g)
            g *= rate
            p -= g

    def losses(self, steps: int) -> list[float]:
        """Step on the batches in order."""
        (x, y), batch = self.data, self.workload.batch
        starts = range(0, steps * batch, batch)
        return [self._step(x[i : i + batch], y[i : i + batch]) for i in starts]

    def train(self, epochs: int) -> None:
        """Gather each batch's rows into the same array, and step."""
        (x, y), batch = self.data, self.workload.batch
        for _ in range(epochs):
            order = self.rng.permutation(len(x))
            for start in range(0, len(x), batch):
                rows = order[start : start + batch]
                # "clip" leaves out the buffer that NumPy fills first in case an index is wrong.
                np.take(x, rows, axis=0, out=self.inputs, mode="clip")
                self._step(self.inputs, y[rows])

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Forward into arrays made beforehand."""
        outputs = self._outputs(len(x))
        for _ in range(calls):
            self._forward(x, outputs)
        return outputs[-1]
