"""Kernels touch nothing behind an array: each ends where the memory of the process ends.

What is read or written there ends the process, so a failure is a crash.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from support import guarded

import fastmlp as fm
from fastmlp import _core
from fastmlp import device as devices

K = fm.kernels
# Below, at and above a vector of each instruction set, and several of them.
WIDTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 130]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")


def normal(dtype: str, *shape: int) -> np.ndarray:
    return guarded(np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype))


@pytest.fixture
def backend() -> _core.Backend:
    return devices.get("cpu").backend


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 17, 50])
def test_products(
    m: int, transpose_a: bool, transpose_b: bool, dtype: str, backend: _core.Backend
) -> None:
    for n in WIDTHS:
        for k in (1, 5, 33):
            a = normal(dtype, *((k, m) if transpose_a else (m, k)))
            b = normal(dtype, *((n, k) if transpose_b else (k, n)))
            _core.matmul(backend, normal(dtype, m, n), a, b, transpose_a, transpose_b)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_products_of_packed_and_turned_operands(
    transpose_a: bool, transpose_b: bool, dtype: str, backend: _core.Backend
) -> None:
    packed = (170, 37, 257), (299, 401, 163), (50, 33, 1111)
    turned = (2100, 40, 3), (301, 600, 100), (97, 90, 9)
    for m, k, n in packed + turned:
        a = normal(dtype, *((k, m) if transpose_a else (m, k)))
        b = normal(dtype, *((n, k) if transpose_b else (k, n)))
        _core.matmul(backend, normal(dtype, m, n), a, b, transpose_a, transpose_b)


@pytest.mark.parametrize("rows", [1, 3, 18])
@pytest.mark.parametrize("cols", WIDTHS)
def test_rows_of_any_width(cols: int, rows: int, dtype: str, backend: _core.Backend) -> None:
    x, y, dx = (normal(dtype, rows, cols) for _ in range(3))
    bias, of_rows, weight = normal(dtype, cols), normal(dtype, rows), normal(dtype, rows)
    for name in K.ACTIVATIONS:
        getattr(K, name)(x, out=y)
        getattr(K, f"{name}_backward")(x, y, out=dx)
    K.bias_add(x, bias, out=y)
    K.dense_forward(normal(dtype, rows, 5), normal(dtype, 5, cols), bias, "relu", out=y)
    K.softmax(x, out=y)
    K.softmax_backward(x, y, out=dx)
    K.log_softmax(x, out=y)
    K.log_softmax_backward(x, y, out=dx)
    for name in _core.losses():
        _core.loss(backend, of_rows, dx, x, y, weight, name, 0.5, False, 1.0)
    labels = guarded(np.arange(rows, dtype=np.int32) % cols)
    for smoothing in (0.0, 0.5):
        name = "cross_entropy"
        _core.loss(backend, of_rows, dx, x, labels, weight, name, smoothing, False, 1.0)


@pytest.mark.parametrize("size", WIDTHS)
def test_updates(size: int, dtype: str) -> None:
    p, g, m, v = (normal(dtype, size) for _ in range(4))
    K.sgd_update(p, g)
    K.sgd_update(p, g, m, momentum=0.9)
    K.adam_update(p, g, m, np.abs(v, out=v), step=1)
