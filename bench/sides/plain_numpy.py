"""The same in NumPy, written with care: arrays made beforehand, BLAS, Adam in the cache."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from math import sqrt

import numpy as np

from ..workloads import Array
from . import Side

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Elements of parameters that Adam takes at a time: four arrays of them stay in a core's own cache.
_BLOCK = 32_768


Forward = Callable[[Array, Array], object]  # x, out; out may be x
Backward = Callable[[Array, Array, Array], object]  # dy, kept, out; out may be kept

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _sigmoid(x: Array, out: Array) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)


def _sigmoid_backward(dy: Array, y: Array, out: Array) -> None:
    np.subtract(y, np.square(y), out=out)
    out *= dy


def _tanh_backward(dy: Array, y: Array, out: Array) -> None:
    np.square(y, out=out)
    np.subtract(1, out, out=out)
    out *= dy


def _leaky_relu_backward(dy: Array, y: Array, out: Array) -> None:
    np.multiply(dy, np.where(y > 0, y.dtype.type(1), y.dtype.type(0.01)), out=out)


def _elu(x: Array, out: Array) -> None:
    below = np.minimum(x, 0)
    np.expm1(below, out=below)
    np.maximum(x, 0, out=out)
    out += below


def _elu_backward(dy: Array, y: Array, out: Array) -> None:
    np.minimum(y, 0, out=out)
    out += 1
    out *= dy


def _selu(x: Array, out: Array) -> None:
    below = np.minimum(x, 0)
    np.expm1(below, out=below)
    below *= _SELU_ALPHA
    np.maximum(x, 0, out=out)
    out += below
    out *= _SELU_SCALE


def _selu_backward(dy: Array, y: Array, out: Array) -> None:
    below = y <= 0
    np.minimum(y, 0, out=out)
    out += _SELU_SCALE
    np.add(out, _SELU_SCALE * (_SELU_ALPHA - 1), out=out, where=below)
    out *= dy


def _softplus(x: Array, out: Array) -> None:
    below = np.abs(x)
    np.negative(below, out=below)
    np.exp(below, out=below)
    np.log1p(below, out=below)
    np.maximum(x, 0, out=out)
    out += below


def _softplus_backward(dy: Array, y: Array, out: Array) -> None:
    np.negative(y, out=out)
    np.expm1(out, out=out)
    np.negative(out, out=out)
    out *= dy


def _silu(x: Array, out: Array) -> None:
    sigmoid = np.empty_like(x)
    _sigmoid(x, sigmoid)
    np.multiply(x, sigmoid, out=out)


def _silu_backward(dy: Array, x: Array, out: Array) -> None:
    sigmoid = np.empty_like(x)
    _sigmoid(x, sigmoid)
    slope = 1 - sigmoid
    slope *= x
    slope += 1
    slope *= sigmoid
    np.multiply(dy, slope, out=out)


# The derivative is taken from the output, or from the input for those in FROM_INPUT.
ACTIVATIONS: dict[str, tuple[Forward, Backward]] = {
    "relu": (
        lambda x, out: np.maximum(x, 0, out=out),
        lambda dy, y, out: np.multiply(dy, y > 0, out=out),
    ),
    "tanh": (lambda x, out: np.tanh(x, out=out), _tanh_backward),
    "sigmoid": (_sigmoid, _sigmoid_backward),
    "identity": (
        lambda x, out: None if x is out else np.copyto(out, x),
        lambda dy, y, out: np.copyto(out, dy),
    ),
    "leaky_relu": (
        lambda x, out: np.maximum(x, x.dtype.type(0.01) * x, out=out),
        _leaky_relu_backward,
    ),
    "elu": (_elu, _elu_backward),
    "selu": (_selu, _selu_backward),
    "softplus": (_softplus, _softplus_backward),
    "silu": (_silu, _silu_backward),
    "swish": (_silu, _silu_backward),
}
FROM_INPUT = {"silu", "swish"}


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
    _sigmoid(z, z)
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


def adam(p: Array, g: Array, m: Array, v: Array, rate: float, epsilon: float) -> None:
    """Update p, m and v in place; g is scratch afterwards. Rate and epsilon are corrected ones."""
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


class PlainNumPy(Side):
    """All parameters in one flat array, and all arrays of a step made beforehand."""

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        workload = self.workload
        self.rng = np.random.default_rng(self.seed)
        self.activate, self.derive = ACTIVATIONS[workload.activation]
        self.loss = _LOSSES[workload.loss]
        arrays = np.zeros((4, workload.parameters), np.float32)
        self.flat, self.gradient, self.mean, self.square = arrays
        self.kernels, self.biases = self._views(self.flat)
        self.kernel_gradients, self.bias_gradients = self._views(self.gradient)
        self.blocks = [arrays[:, i : i + _BLOCK] for i in range(0, workload.parameters, _BLOCK)]
        self.inputs = np.empty((workload.batch, workload.dims[0]), np.float32)
        self.outputs = self._outputs(workload.batch)
        self.deltas = self._outputs(workload.batch)
        # What each activation's derivative is taken from.
        self.kept = self.outputs
        if workload.activation in FROM_INPUT:
            self.kept = self._outputs(workload.batch)

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

    def _forward(self, x: Array, sums: list[Array], outputs: list[Array]) -> None:
        """Compute the activations' inputs, then their outputs, which may be the same arrays."""
        for kernel, bias, z, out in zip(self.kernels, self.biases, sums, outputs):
            np.matmul(x, kernel, out=z)
            z += bias
            if out is not outputs[-1]:
                self.activate(z, out)
            x = out

    def _step(self, x: Array, y: Array) -> float:
        self._forward(x, self.kept, self.outputs)
        delta = self.kept[-1]
        loss = self.loss(delta, y)
        for i in range(len(self.kernels) - 1, 0, -1):
            before = self.outputs[i - 1]
            np.matmul(before.T, delta, out=self.kernel_gradients[i])
            delta.sum(axis=0, out=self.bias_gradients[i])
            dy = np.matmul(delta, self.kernels[i].T, out=self.deltas[i - 1])
            delta = self.kept[i - 1]
            self.derive(dy, delta, delta)
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
            adam(p, g, m, v, rate, epsilon)

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
            self._forward(x, outputs, outputs)
        return outputs[-1]
