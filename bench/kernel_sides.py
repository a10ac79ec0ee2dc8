"""The kernels of fastmlp, NumPy and PyTorch, each as a call on arrays made beforehand."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import fastmlp as fm

from .sides.plain_numpy import ACTIVATIONS, FROM_INPUT, adam
from .workloads import Array

Call = Callable[[], Any]

LEARNING_RATE = 1e-3
# Kernels that are not activations: functions of `fastmlp.kernels`, methods of `Kernels`.
OTHERS = ("softmax", "softmax_cross_entropy", "bias_add", "adam_update", "sgd_update")
# Arrays that must be read or written once; of the others, two forward and three backward.
_ARRAYS = {"adam_update": 7, "sgd_update": 3}


class Case(NamedTuple):
    """One kernel on arrays of one size.

    Attributes
    ----------
    name : str
        For the table.
    operation : str
        "matmul", or the name of a function of `fastmlp.kernels`.
    shape : tuple of int
        (m, n, k) of a product, else that of the arrays.
    dtype : str
    transposed : str
        "a" or "b" if that factor is stored the other way round, else "".
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    transposed: str = ""

    @property
    def work(self) -> float:
        """FLOPs of a product, elements of the others."""
        return float(np.prod(self.shape)) * (2 if self.operation == "matmul" else 1)

    @property
    def element_bytes(self) -> int:
        """What must be moved for an element."""
        arrays = _ARRAYS.get(self.operation, 3 if self.operation.endswith("_backward") else 2)
        return arrays * np.dtype(self.dtype).itemsize


class Kernels(ABC):
    """A library's kernels, served by a worker. Each method returns a call, which returns a result.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int) -> None:
        self.prepare(threads)
        self.call: Call = lambda: None

    def load(self, case: Case) -> None:
        """Make the arrays, the same for each library, and the call."""
        rng = np.random.default_rng(0)

        def draw(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(case.dtype)

        if case.operation == "matmul":
            m, n, k = case.shape
            a = draw(k, m) if case.transposed == "a" else draw(m, k)
            b = draw(n, k) if case.transposed == "b" else draw(k, n)
            self.call = self.matmul(a, b, np.empty((m, n), case.dtype), case.transposed)
            return
        x, dy = draw(*case.shape), draw(*case.shape)
        name = case.operation.removesuffix("_backward")
        if case.operation in OTHERS:
            self.call = getattr(self, case.operation)(x, dy)
        elif name == case.operation:
            self.call = self.forward(name, x)
        else:
            self.call = self.backward(name, dy, x, getattr(fm.kernels, name)(x))

    def output(self) -> Array:
        """Return the result of one call."""
        return np.array(self.call())

    def elapsed(self, case: Case, repeats: int) -> float:
        """Return the seconds of so many calls."""
        call, start = self.call, time.perf_counter()
        for _ in range(repeats):
            call()
        return time.perf_counter() - start

    @abstractmethod
    def prepare(self, threads: int) -> None:
        """Set the number of threads."""

    @abstractmethod
    def describe(self) -> str:
        """Return the version."""

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array, transposed: str) -> Call:
        """Multiply."""

    @abstractmethod
    def forward(self, name: str, x: Array) -> Call:
        """Apply an activation."""

    @abstractmethod
    def backward(self, name: str, dy: Array, x: Array, y: Array) -> Call:
        """Multiply dy by the derivative of an activation, from its input x or its output y."""

    @abstractmethod
    def softmax(self, x: Array, _: Array) -> Call:
        """Turn rows into probabilities."""

    @abstractmethod
    def softmax_cross_entropy(self, x: Array, _: Array) -> Call:
        """Return the gradient of each row's loss, of which the losses are a by-product."""

    @abstractmethod
    def bias_add(self, x: Array, _: Array) -> Call:
        """Add the first row of x to all."""

    @abstractmethod
    def adam_update(self, p: Array, g: Array) -> Call:
        """Make an update."""

    @abstractmethod
    def sgd_update(self, p: Array, g: Array) -> Call:
        """Make an update."""


def _labels(x: Array) -> Array:
    return np.arange(len(x)) % x.shape[1]


class OurKernels(Kernels):
    """`fastmlp.kernels`."""

    def prepare(self, threads: int) -> None:
        fm.set_num_threads(threads)

    def describe(self) -> str:
        config = fm.show_config()
        return f"{config['version']} ({config['instruction_set']}, {config['matmul']} matmul)"

    def matmul(self, a: Array, b: Array, out: Array, transposed: str) -> Call:
        flags = {f"transpose_{transposed}": True} if transposed else {}
        return lambda: fm.kernels.matmul(a, b, out=out, **flags)

    def forward(self, name: str, x: Array) -> Call:
        kernel, out = getattr(fm.kernels, name), np.empty_like(x)
        return lambda: kernel(x, out=out)

    def backward(self, name: str, dy: Array, x: Array, y: Array) -> Call:
        kernel, out = getattr(fm.kernels, f"{name}_backward"), np.empty_like(x)
        kept = x if name in FROM_INPUT else y
        return lambda: kernel(dy, kept, out=out)

    def softmax(self, x: Array, _: Array) -> Call:
        out = np.empty_like(x)
        return lambda: fm.kernels.softmax(x, out=out)

    def softmax_cross_entropy(self, x: Array, _: Array) -> Call:
        labels = _labels(x).astype(np.int32)
        return lambda: fm.kernels.softmax_cross_entropy(x, labels)[1]

    def bias_add(self, x: Array, _: Array) -> Call:
        bias, out = x[0].copy(), np.empty_like(x)
        return lambda: fm.kernels.bias_add(x, bias, out=out)

    def adam_update(self, p: Array, g: Array) -> Call:
        m, v = np.zeros_like(p), np.zeros_like(p)

        def call() -> Array:
            fm.kernels.adam_update(p, g, m, v, step=1, learning_rate=LEARNING_RATE)
            return p

        return call

    def sgd_update(self, p: Array, g: Array) -> Call:
        def call() -> Array:
            fm.kernels.sgd_update(p, g, learning_rate=LEARNING_RATE)
            return p

        return call


class NumPyKernels(Kernels):
    """NumPy, with `out` wherever it helps."""

    def prepare(self, threads: int) -> None:
        """The environment has set it."""

    def describe(self) -> str:
        return str(np.__version__)

    def matmul(self, a: Array, b: Array, out: Array, transposed: str) -> Call:
        a, b = a.T if transposed == "a" else a, b.T if transposed == "b" else b
        return lambda: np.matmul(a, b, out=out)

    def forward(self, name: str, x: Array) -> Call:
        kernel, out = ACTIVATIONS[name][0], np.empty_like(x)

        def call() -> Array:
            kernel(x, out)
            return out

        return call

    def backward(self, name: str, dy: Array, x: Array, y: Array) -> Call:
        kernel, out = ACTIVATIONS[name][1], np.empty_like(x)
        kept = x if name in FROM_INPUT else y

        def call() -> Array:
            kernel(dy, kept, out)
            return out

        return call

    def softmax(self, x: Array, _: Array) -> Call:
        out = np.empty_like(x)

        def call() -> Array:
            np.subtract(x, x.max(axis=1, keepdims=True), out=out)
            np.exp(out, out=out)
            return np.divide(out, out.sum(axis=1, keepdims=True), out=out)

        return call

    def softmax_cross_entropy(self, x: Array, dy: Array) -> Call:
        softmax, rows, labels = self.softmax(x, dy), np.arange(len(x)), _labels(x)

        def call() -> Array:
            gradient: Array = softmax()
            np.log(gradient[rows, labels])  # the losses
            gradient[rows, labels] -= 1
            return gradient

        return call

    def bias_add(self, x: Array, _: Array) -> Call:
        bias, out = x[0].copy(), np.empty_like(x)
        return lambda: np.add(x, bias, out=out)

    def adam_update(self, p: Array, g: Array) -> Call:
        m, v, scratch = np.zeros_like(p), np.zeros_like(p), np.empty_like(p)
        correction = (1 - 0.999) ** 0.5

        def call() -> Array:
            np.copyto(scratch, g)
            adam(p, scratch, m, v, LEARNING_RATE * correction / (1 - 0.9), 1e-8 * correction)
            return p

        return call

    def sgd_update(self, p: Array, g: Array) -> Call:
        scratch = np.empty_like(p)

        def call() -> Array:
            np.multiply(g, LEARNING_RATE, out=scratch)
            return np.subtract(p, scratch, out=p)

        return call


class PyTorchKernels(Kernels):
    """PyTorch's operators, in place or with `out`, and its fused optimizers."""

    _SELU = (1.6732632423543772, 1.0507009873554805, 1)  # alpha, scale, scale of the input

    def prepare(self, threads: int) -> None:
        self.torch: Any = import_module("torch")
        self.aten = self.torch.ops.aten
        self.torch.set_num_threads(threads)
        self.torch.set_flush_denormal(True)

    def describe(self) -> str:
        return str(self.torch.__version__)

    def _tensors(self, *arrays: Array) -> list[Any]:
        return [self.torch.from_numpy(array) for array in arrays]

    def matmul(self, a: Array, b: Array, out: Array, transposed: str) -> Call:
        first, second, result = self._tensors(a, b, out)
        first = first.t() if transposed == "a" else first
        second = second.t() if transposed == "b" else second
        return lambda: self.torch.mm(first, second, out=result)

    def forward(self, name: str, array: Array) -> Call:
        (x,) = self._tensors(array)
        torch, aten, out = self.torch, self.aten, self.torch.empty_like(x)
        calls: dict[str, Call] = {
            "relu": lambda: torch.clamp_min(x, 0, out=out),
            "tanh": lambda: torch.tanh(x, out=out),
            "sigmoid": lambda: torch.sigmoid(x, out=out),
            "identity": lambda: out.copy_(x),
            "leaky_relu": lambda: aten.leaky_relu.out(x, 0.01, out=out),
            "elu": lambda: aten.elu.out(x, out=out),
            "selu": lambda: aten.elu.out(x, *self._SELU, out=out),
            "softplus": lambda: aten.softplus.out(x, out=out),
            "silu": lambda: aten.silu.out(x, out=out),
        }
        return calls["silu" if name == "swish" else name]

    def backward(self, name: str, gradient: Array, inputs: Array, outputs: Array) -> Call:
        dy, x, y = self._tensors(gradient, inputs, outputs)
        aten, out = self.aten, self.torch.empty_like(x)
        calls: dict[str, Call] = {
            "relu": lambda: aten.threshold_backward.grad_input(dy, y, 0, grad_input=out),
            "tanh": lambda: aten.tanh_backward.grad_input(dy, y, grad_input=out),
            "sigmoid": lambda: aten.sigmoid_backward.grad_input(dy, y, grad_input=out),
            "identity": lambda: out.copy_(dy),
            "leaky_relu": lambda: aten.leaky_relu_backward.grad_input(
                dy, y, 0.01, True, grad_input=out
            ),
            "elu": lambda: aten.elu_backward.grad_input(dy, 1, 1, 1, True, y, grad_input=out),
            "selu": lambda: aten.elu_backward.grad_input(dy, *self._SELU, True, y, grad_input=out),
            "softplus": lambda: aten.softplus_backward.grad_input(dy, x, 1, 20, grad_input=out),
            "silu": lambda: aten.silu_backward.grad_input(dy, x, grad_input=out),
        }
        return calls["silu" if name == "swish" else name]

    def softmax(self, array: Array, _: Array) -> Call:
        (x,) = self._tensors(array)
        out = self.torch.empty_like(x)
        return lambda: self.aten._softmax.out(x, 1, False, out=out)

    def softmax_cross_entropy(self, array: Array, _: Array) -> Call:
        x, labels = self._tensors(array, _labels(array))
        x.requires_grad_()

        def call() -> Any:
            loss = self.torch.nn.functional.cross_entropy(x, labels, reduction="sum")
            return self.torch.autograd.grad(loss, x)[0]

        return call

    def bias_add(self, array: Array, _: Array) -> Call:
        x, bias = self._tensors(array, array[0].copy())
        out = self.torch.empty_like(x)
        return lambda: self.torch.add(x, bias, out=out)

    def adam_update(self, parameters: Array, gradient: Array) -> Call:
        return self._update(self.torch.optim.Adam, parameters, gradient)

    def sgd_update(self, parameters: Array, gradient: Array) -> Call:
        return self._update(self.torch.optim.SGD, parameters, gradient)

    def _update(self, optimizer: Any, parameters: Array, gradient: Array) -> Call:
        p, g = self._tensors(parameters, gradient)
        p.requires_grad_()
        p.grad = g
        step = optimizer([p], lr=LEARNING_RATE, fused=True).step

        def call() -> Any:
            step()
            return p.detach()

        return call


KERNELS: dict[str, type[Kernels]] = {
    "fastmlp": OurKernels,
    "NumPy": NumPyKernels,
    "PyTorch": PyTorchKernels,
}
