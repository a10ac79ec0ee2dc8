"""Kernel by kernel, each device against the CPU: what a GPU has to show, and its stand-in's wiring.

The CPU's own kernels are held against float64 in test_kernels.py, and those of the CUDA backend,
emulated, by the same tests (tests/emulated.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import device as devices
from fastmlp import kernels
from fastmlp.device import to_host
from fastmlp.kernels import ACTIVATIONS, LOSSES

Array = np.ndarray
SIZES = [(1, 1, 1), (7, 33, 5), (33, 7, 257), (130, 64, 65)]


@pytest.fixture
def assert_as_on_the_cpu(device: str, dtype: str) -> Callable[..., None]:
    """Call f on the device's arrays and on NumPy's; results and what is updated in place agree."""
    put = devices.get(device).put
    tolerance = 1e-5 if dtype == "float32" else 1e-13

    def check(f: Callable[..., Any], *arrays: Array) -> None:
        found = []
        for move in (put, np.array):
            own = [
                move(array.astype(dtype) if array.dtype.kind == "f" else array) for array in arrays
            ]
            result = f(*own)
            results = result if isinstance(result, tuple) else (result,)
            found.append([to_host(each) for each in (*results, *own) if each is not None])
        for got, expected in zip(*found, strict=True):
            scale = max(float(np.abs(expected).max(initial=0)), 1.0)
            np.testing.assert_allclose(got, expected, tolerance, tolerance * scale)

    return check


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_products(m: int, k: int, n: int, assert_as_on_the_cpu: Callable[..., None]) -> None:
    for a, b, transposed in (
        (normal(m, k), normal(k, n), {}),
        (normal(k, m), normal(k, n), {"transpose_a": True}),
        (normal(m, k), normal(n, k), {"transpose_b": True}),
        (normal(3, m, k), normal(k, n), {}),
    ):
        assert_as_on_the_cpu(lambda a, b, t=transposed: kernels.matmul(a, b, **t), a, b)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_and_dense_layers(name: str, assert_as_on_the_cpu: Callable[..., None]) -> None:
    def layer(x: Any, kernel: Any, bias: Any, dy: Any) -> tuple[Any, ...]:
        y = kernels.dense_forward(x, kernel, bias, name)
        if ACTIVATIONS[name]["from_output"]:
            return y, *kernels.dense_backward(dy, x, y, kernel, name)
        z = kernels.dense_forward(x, kernel, bias)  # no dense layer keeps it
        return y, getattr(kernels, f"{name}_backward")(dy, z)

    for m, k, n in SIZES:
        assert_as_on_the_cpu(layer, normal(m, k), normal(k, n), normal(n), normal(m, n))


def test_softmax(assert_as_on_the_cpu: Callable[..., None]) -> None:
    def all_of_it(x: Any, dy: Any) -> tuple[Any, ...]:
        y, logarithm = kernels.softmax(x), kernels.log_softmax(x)
        return (
            y,
            kernels.softmax_backward(dy, y),
            logarithm,
            kernels.log_softmax_backward(dy, logarithm),
        )

    assert_as_on_the_cpu(all_of_it, normal(33, 70), normal(70, 33).T.copy())


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses(name: str, assert_as_on_the_cpu: Callable[..., None]) -> None:
    def loss(z: Any, y: Any, weight: Any) -> Any:
        return kernels.loss_and_gradient(name, z, y, weight, 33.0)

    y = np.random.default_rng(0).integers(0, 2, (33, 7)).astype("float64")
    assert_as_on_the_cpu(loss, normal(33, 7), y, np.abs(normal(33)))


def test_labels(assert_as_on_the_cpu: Callable[..., None]) -> None:
    labels = np.arange(33, dtype=np.int32) % 7
    assert_as_on_the_cpu(kernels.softmax_cross_entropy, normal(33, 7), labels)


def test_updates(assert_as_on_the_cpu: Callable[..., None]) -> None:
    def sgd(p: Any, g: Any, velocity: Any) -> None:
        kernels.sgd_update(p, g, velocity, learning_rate=0.1, momentum=0.9, weight_decay=0.01)

    def adam(p: Any, g: Any, m: Any, v: Any) -> None:
        kernels.adam_update(p, g, m, v, step=3, learning_rate=0.1)

    assert_as_on_the_cpu(sgd, normal(257), normal(257), normal(257))
    assert_as_on_the_cpu(adam, normal(257), normal(257), normal(257), np.abs(normal(257)))


def test_nan_comes_through(device: str) -> None:
    x = devices.get(device).put(np.array([[np.nan, 1.0], [2.0, 3.0]], np.float32))
    for kernel in (fm.kernels.relu, fm.kernels.sigmoid, fm.kernels.softmax):
        assert np.isnan(to_host(kernel(x))[0, 0])
