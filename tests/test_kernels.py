"""Every function of fm.kernels against the reference: sizes, layouts, extremes, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import reference as ref
from support import LAYOUTS, assert_accurate, assert_same_bits

import fastmlp as fm

K = fm.kernels
NAMES = list(K.ACTIVATIONS)
FROM_OUTPUT = [name for name in NAMES if K.ACTIVATIONS[name]["from_output"]]

# (m, k, n): vectors and tiles are never filled exactly; tall, wide, thin, empty.
PRODUCTS = [
    (1, 1, 1),
    (7, 33, 257),
    (33, 257, 7),
    (257, 7, 33),
    (257, 1, 1),
    (1, 257, 1),
    (1, 1, 257),
    (65, 64, 63),
    (0, 7, 33),
    (7, 33, 0),
    (7, 0, 33),
]
ROWS = [(1, 1), (1, 257), (7, 33), (33, 7), (257, 10), (257, 1), (0, 7), (3, 5, 33)]


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def poisoned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.full(shape, np.nan, dtype)


# Matrix products.


@pytest.mark.parametrize("transpose_b", [False, True], ids=["b", "bT"])
@pytest.mark.parametrize("transpose_a", [False, True], ids=["a", "aT"])
@pytest.mark.parametrize("product", PRODUCTS, ids=str)
def test_matmul(product, transpose_a, transpose_b, dtype):
    m, k, n = product
    a = normal(*((k, m) if transpose_a else (m, k)), dtype=dtype, seed=1)
    b = normal(*((n, k) if transpose_b else (k, n)), dtype=dtype, seed=2)
    out = poisoned((m, n), dtype)
    got = K.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, out=out)
    assert got is out
    assert_accurate(
        got,
        lambda a, b: (a.T if transpose_a else a) @ (b.T if transpose_b else b),
        a,
        b,
    )


@pytest.mark.parametrize(
    "shape_a, shape_b",
    [
        ((3, 7, 33), (3, 33, 5)),
        ((7, 33), (3, 33, 5)),
        ((3, 7, 33), (33, 5)),
        ((3, 1, 7, 33), (4, 33, 5)),
        ((2, 3, 1, 5), (1, 3, 5, 1)),
        ((0, 7, 33), (33, 5)),
        ((2, 7, 0), (0, 5)),
        ((1, 7, 3), (0, 3, 5)),
    ],
    ids=str,
)
def test_matmul_broadcasts_leading_dimensions(shape_a, shape_b, dtype):
    a, b = normal(*shape_a, dtype=dtype, seed=1), normal(*shape_b, dtype=dtype, seed=2)
    assert_accurate(K.matmul(a, b), np.matmul, a, b)


def test_matmul_transposes_the_last_two_of_many_dimensions():
    a, b = normal(2, 33, 7, seed=1), normal(2, 5, 33, seed=2)
    got = K.matmul(a, b, transpose_a=True, transpose_b=True)
    assert_accurate(got, lambda a, b: np.swapaxes(a, 1, 2) @ np.swapaxes(b, 1, 2), a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_matmul_takes_any_layout(layout, dtype):
    a, b = normal(33, 7, dtype=dtype, seed=1), normal(7, 9, dtype=dtype, seed=2)
    expected = K.matmul(a, b)
    assert_same_bits([K.matmul(LAYOUTS[layout](a), LAYOUTS[layout](b))], [expected])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "bool", "float16"])
def test_matmul_takes_any_real_dtype(kind):
    a = np.random.RandomState(0).randint(2, size=(7, 5)).astype(kind)
    b = normal(5, 3)
    assert_accurate(np.float32(K.matmul(a, b)), np.matmul, a.astype("float32"), b)


# Activations.


@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_activation(name, shape, dtype):
    x = 3 * normal(*shape, dtype=dtype)
    assert_accurate(getattr(K, name)(x), lambda x: ref.activation(name, x), x)


@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_activation_backward(name, shape, dtype):
    x, dy = 3 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype, seed=1)
    kept = getattr(K, name)(x) if name in FROM_OUTPUT else x
    got = getattr(K, f"{name}_backward")(dy, kept)
    # A derivative taken from the output, as y (1 - y), is as exact as the output is: a unit of
    # rounding is one of dy, however small the derivative.
    scale = np.abs(dy).max(initial=0)
    assert_accurate(got, lambda dy, x: dy * ref.derivative(name, x), dy, x, scale=scale)


@pytest.mark.parametrize(
    "name, parameter", [("leaky_relu", 0.2), ("elu", 0.5), ("swish", 1.7)], ids=str
)
def test_activation_parameter(name, parameter, dtype):
    x, dy = normal(7, 33, dtype=dtype), normal(7, 33, dtype=dtype, seed=1)
    y = getattr(K, name)(x, parameter)
    assert_accurate(y, lambda x: ref.activation(name, x, parameter), x)
    kept = y if name in FROM_OUTPUT else x
    got = getattr(K, f"{name}_backward")(dy, kept, parameter)
    assert_accurate(got, lambda dy, x: dy * ref.derivative(name, x, parameter), dy, x)


def test_the_default_parameter_of_each_activation_is_the_reference_s():
    defaults = {n: i["default"] for n, i in K.ACTIVATIONS.items() if i["parameter"] is not None}
    assert defaults == ref.DEFAULT_PARAMETER
    assert set(K.ACTIVATIONS) == set(ref.ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_activation_passes_nan_on(name, dtype):
    # At every place of a vector: a maximum with zero, or one lane's select, could hide it.
    for place in range(19):
        x = normal(19, dtype=dtype)
        x[place] = np.nan
        assert np.flatnonzero(np.isnan(getattr(K, name)(x))).tolist() == [place]
        backward = getattr(K, f"{name}_backward")
        one = np.ones_like(x)
        assert np.flatnonzero(np.isnan(backward(one, x))).tolist() == [place]
        assert np.flatnonzero(np.isnan(backward(x, one))).tolist() == [place]


# f(-inf), f(-1e4), f(1e4), f(inf), with the default parameter.
LIMITS = {
    "identity": (-np.inf, -1e4, 1e4, np.inf),
    "relu": (0, 0, 1e4, np.inf),
    "leaky_relu": (-np.inf, -100, 1e4, np.inf),
    "elu": (-1, -1, 1e4, np.inf),
    "selu": (
        -ref.SELU_SCALE * ref.SELU_ALPHA,
        -ref.SELU_SCALE * ref.SELU_ALPHA,
        ref.SELU_SCALE * 1e4,
        np.inf,
    ),
    "silu": (0, 0, 1e4, np.inf),
    "swish": (0, 0, 1e4, np.inf),
    "gelu": (0, 0, 1e4, np.inf),
    "softplus": (0, 0, 1e4, np.inf),
    "sigmoid": (0, 0, 1, 1),
    "tanh": (-1, -1, 1, 1),
    "step": (0, 0, 1, 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_activation_saturates_without_overflow(name, dtype):
    x = np.array([-np.inf, -1e4, 1e4, np.inf], dtype)
    np.testing.assert_allclose(getattr(K, name)(x), LIMITS[name], rtol=1e-6)


def test_sigmoid_and_tanh_stay_in_range_and_increase():
    x = np.linspace(-120, 120, 24_001, dtype="float32")
    for function, low in ((K.sigmoid, 0), (K.tanh, -1)):
        y = function(x)
        assert y.min() >= low
        assert y.max() <= 1
        # 4 eps: two neighbours may each be rounded, but never visibly out of order.
        assert np.diff(y).min() >= -4 * np.finfo("float32").eps


# Softmax.


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_softmax(shape, dtype):
    x = 5 * normal(*shape, dtype=dtype)
    y = K.softmax(x)
    assert_accurate(y, ref.softmax, x)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_softmax_backward(shape, dtype):
    y, dy = K.softmax(normal(*shape, dtype=dtype)), normal(*shape, dtype=dtype, seed=1)
    assert_accurate(K.softmax_backward(dy, y), ref.softmax_backward, dy, y)


def test_softmax_of_extreme_logits(dtype):
    x = np.array(
        [[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, -np.inf], [-np.inf, 0, -np.inf]], dtype
    )
    third = 1 / 3
    expected = [[1, 0, 0], [third, third, third], [0.5, 0.5, 0], [0, 1, 0]]
    np.testing.assert_allclose(K.softmax(x), expected, rtol=1e-6)


def test_softmax_passes_nan_on_to_its_row_only(dtype):
    for place in range(19):
        x = normal(3, 19, dtype=dtype)
        x[1, place] = np.nan
        y = K.softmax(x)
        assert np.isnan(y[1]).all()
        assert np.isfinite(y[[0, 2]]).all()


# Softmax and cross-entropy in one.


@pytest.mark.parametrize("rows, classes", [(1, 1), (1, 257), (7, 33), (257, 10), (0, 7)], ids=str)
def test_softmax_cross_entropy(rows, classes, dtype):
    logits = 3 * normal(rows, classes, dtype=dtype)
    labels = np.random.RandomState(1).randint(classes, size=rows)
    loss, gradient = K.softmax_cross_entropy(logits, labels)
    assert_accurate(loss, lambda z: ref.LOSSES["cross_entropy"](z, labels)[0], logits)
    assert_accurate(gradient, lambda z: ref.LOSSES["cross_entropy"](z, labels)[1], logits)


def test_softmax_cross_entropy_of_extreme_logits(dtype):
    # loss = log sum exp(z) - z[label]: 0 when the largest is right, its lead when it is wrong.
    logits = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4], [1e4, 0, -1e4]], dtype)
    loss, gradient = K.softmax_cross_entropy(logits, np.array([0, 1, 2]))
    np.testing.assert_array_equal(loss, [0, 1e4, 2e4])
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [1, -1, 0], [1, 0, -1]])


def test_softmax_cross_entropy_passes_nan_on(dtype):
    logits = normal(3, 19, dtype=dtype)
    logits[1, 7] = np.nan
    loss, gradient = K.softmax_cross_entropy(logits, np.array([0, 0, 0]))
    assert np.isnan(loss).tolist() == [False, True, False]
    assert np.isnan(gradient[1]).all()
    assert np.isfinite(gradient[[0, 2]]).all()


# Dense layers.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("m, k, n", PRODUCTS, ids=str)
def test_dense_forward(m, k, n, name, dtype):
    x, kernel = normal(m, k, dtype=dtype, seed=1), normal(k, n, dtype=dtype, seed=2)
    kernel /= max(k, 1) ** 0.5
    bias = normal(n, dtype=dtype, seed=3)
    got = K.dense_forward(x, kernel, bias, name)
    assert_accurate(got, lambda x, w, b: ref.dense_forward(x, w, b, name), x, kernel, bias)


@pytest.mark.parametrize("name", FROM_OUTPUT)
@pytest.mark.parametrize("m, k, n", PRODUCTS, ids=str)
def test_dense_backward(m, k, n, name, dtype):
    x, kernel = normal(m, k, dtype=dtype, seed=1), normal(k, n, dtype=dtype, seed=2)
    kernel /= max(k, 1) ** 0.5
    bias, dy = normal(n, dtype=dtype, seed=3), normal(m, n, dtype=dtype, seed=4)
    y = K.dense_forward(x, kernel, bias, name)
    got = K.dense_backward(dy, x, y, kernel, name)
    for i, array in enumerate(got):
        assert_accurate(
            array,
            lambda dy, x, w, b, i=i: ref.dense_backward(dy, x, w, b, name)[i],
            dy,
            x,
            kernel,
            bias,
        )


def test_dense_forward_without_bias(dtype):
    x, kernel = normal(7, 5, dtype=dtype, seed=1), normal(5, 3, dtype=dtype, seed=2)
    assert_accurate(K.dense_forward(x, kernel, None, "identity"), np.matmul, x, kernel)


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (257, 1), (0, 7), (7, 0), (3, 5, 33)], ids=str)
def test_bias_add(shape, dtype):
    x, bias = normal(*shape, dtype=dtype), normal(shape[-1], dtype=dtype, seed=1)
    assert_same_bits([K.bias_add(x, bias)], [x + bias])


def test_dense_kernels_take_any_layout(dtype):
    x, kernel = normal(7, 6, dtype=dtype, seed=1), normal(6, 4, dtype=dtype, seed=2)
    bias, dy = normal(4, dtype=dtype, seed=3), normal(7, 4, dtype=dtype, seed=4)
    y = K.dense_forward(x, kernel, bias, "tanh")
    gradients = K.dense_backward(dy, x, y, kernel, "tanh")
    for lay in LAYOUTS.values():
        assert_same_bits([K.dense_forward(lay(x), lay(kernel), lay(bias), "tanh")], [y])
        assert_same_bits(K.dense_backward(lay(dy), lay(x), lay(y), lay(kernel), "tanh"), gradients)


def test_products_pass_nan_on_even_against_zero(dtype):
    x, kernel = np.zeros((5, 7), dtype), np.zeros((7, 3), dtype)
    x[2, 6] = np.nan
    for y in (K.matmul(x, kernel), K.dense_forward(x, kernel, np.zeros(3, dtype), "relu")):
        assert np.isnan(y[2]).all()
        assert (np.delete(y, 2, axis=0) == 0).all()


# Updates, in place.

SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "weight_decay": 0.1},
    {"weight_decay": 0.1},
]
ADAM = [
    {},
    {"betas": (0.5, 0.6)},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled": True},
]


@pytest.mark.parametrize("size", [1, 7, 33, 257, 0])
@pytest.mark.parametrize("settings", SGD, ids=str)
def test_sgd_update(settings, size, dtype):
    p = normal(size, dtype=dtype)
    velocity = np.zeros(size, dtype) if settings.get("momentum") else None
    exact, stepper = [p.astype("float64")], ref.SGD(learning_rate=0.1, **settings)
    for step in range(4):
        g = normal(size, dtype=dtype, seed=step + 1)
        K.sgd_update(p, g, velocity, learning_rate=0.1, **settings)
        stepper.step(exact, [g.astype("float64")])
    np.testing.assert_allclose(p, exact[0], rtol=0, atol=16 * np.finfo(dtype).eps)
    if velocity is not None:
        np.testing.assert_allclose(
            velocity, stepper.velocity[0], rtol=0, atol=32 * np.finfo(dtype).eps
        )


@pytest.mark.parametrize("size", [1, 7, 33, 257, 0])
@pytest.mark.parametrize("settings", ADAM, ids=str)
def test_adam_update(settings, size, dtype):
    p, m, v = normal(size, dtype=dtype), np.zeros(size, dtype), np.zeros(size, dtype)
    exact, stepper = [p.astype("float64")], ref.Adam(learning_rate=0.1, **settings)
    for step in range(1, 5):
        g = normal(size, dtype=dtype, seed=step)
        K.adam_update(p, g, m, v, step=step, learning_rate=0.1, **settings)
        stepper.step(exact, [g.astype("float64")])
    np.testing.assert_allclose(p, exact[0], rtol=0, atol=32 * np.finfo(dtype).eps)
    for got, expected in zip((m, v), stepper.moments[0]):
        np.testing.assert_allclose(got, expected, rtol=0, atol=32 * np.finfo(dtype).eps)


RMSPROP = [
    {},
    {"alpha": 0.5, "momentum": 0.9},
    {"alpha": 0.5, "centered": True, "epsilon": 0.1},
    {"alpha": 0.6, "momentum": 0.5, "centered": True, "epsilon": 0.1, "weight_decay": 0.1},
]


@pytest.mark.parametrize("size", [1, 7, 33, 257, 0])
@pytest.mark.parametrize("settings", RMSPROP, ids=str)
def test_rmsprop_update(settings, size, dtype):
    p = normal(size, dtype=dtype)
    v, mean, velocity = (np.zeros(size, dtype) for _ in range(3))
    exact, stepper = [p.astype("float64")], ref.RMSprop(learning_rate=0.1, **settings)
    for step in range(4):
        g = normal(size, dtype=dtype, seed=step + 1)
        K.rmsprop_update(p, g, v, mean, velocity, learning_rate=0.1, **settings)
        stepper.step(exact, [g.astype("float64")])
    np.testing.assert_allclose(p, exact[0], rtol=0, atol=64 * np.finfo(dtype).eps)
    used = (True, settings.get("centered"), settings.get("momentum"))
    for got, expected, touched in zip((v, mean, velocity), stepper.moments[0], used):
        if touched:
            np.testing.assert_allclose(
                got,
                expected,
                rtol=1e-5 if dtype == "float32" else 1e-13,
                atol=64 * np.finfo(dtype).eps,
            )
        else:
            assert not got.any()


def test_updates_pass_nan_on():
    p, g = np.ones(19, "float32"), np.ones(19, "float32")
    g[13] = np.nan
    velocity = np.zeros_like(p)
    K.sgd_update(p, g, velocity, learning_rate=0.1, momentum=0.9)
    assert np.flatnonzero(np.isnan(p)).tolist() == [13]
    p, m, v = np.ones(19, "float32"), np.zeros(19, "float32"), np.zeros(19, "float32")
    K.adam_update(p, g, m, v, step=1)
    assert np.flatnonzero(np.isnan(p)).tolist() == [13]
    p, v, mean = np.ones(19, "float32"), np.zeros(19, "float32"), np.zeros(19, "float32")
    K.rmsprop_update(p, g, v, mean, centered=True)
    assert np.flatnonzero(np.isnan(p)).tolist() == [13]


# Writing into `out`: all of it, nothing beside it, and also where an input lies.

INTO_OUT = {
    "matmul": (K.matmul, [normal(9, 9, seed=1), normal(9, 9, seed=2)]),
    "bias_add": (K.bias_add, [normal(9, 9, seed=1), normal(9, seed=2)]),
    "relu": (K.relu, [normal(9, 9)]),
    "tanh_backward": (K.tanh_backward, [normal(9, 9, seed=1), np.tanh(normal(9, 9, seed=2))]),
    "dense_forward": (K.dense_forward, [normal(9, 9, seed=1), normal(9, 9, seed=2)]),
    "softmax": (K.softmax, [normal(9, 9)]),
    "softmax_backward": (K.softmax_backward, [normal(9, 9, seed=1), K.softmax(normal(9, 9))]),
}
into_out = pytest.mark.parametrize("function, arrays", INTO_OUT.values(), ids=INTO_OUT)


@into_out
def test_out_is_filled_and_returned(function, arrays):
    out = poisoned((9, 9), "float32")
    assert function(*arrays, out=out) is out
    assert_same_bits([out], [function(*arrays)])


@into_out
def test_out_may_have_any_strides(function, arrays):
    expected = function(*arrays)
    wall = poisoned((9, 18), "float32")
    function(*arrays, out=wall[:, ::2])
    assert_same_bits([wall[:, ::2].copy()], [expected])
    assert np.isnan(wall[:, 1::2]).all()
    wall = poisoned((11, 13), "float32")
    function(*arrays, out=wall[1:-1, 2:-2])
    assert_same_bits([wall[1:-1, 2:-2].copy()], [expected])
    assert np.isnan(wall).sum() == 11 * 13 - 81
    fortran = np.asfortranarray(poisoned((9, 9), "float32"))
    function(*arrays, out=fortran)
    assert_same_bits([fortran.copy(order="C")], [expected])


@into_out
def test_out_may_be_an_input_or_overlap_it(function, arrays):
    expected = function(*arrays)
    memory = np.empty(100, "float32")
    for start in (0, 9):
        x = memory[9:90].reshape(9, 9)
        x[...] = arrays[0]
        out = memory[start : start + 81].reshape(9, 9)
        function(x, *arrays[1:], out=out)
        assert_same_bits([out.copy()], [expected])


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


BAD_OUTS = {
    "float64": (np.empty((9, 9), "float64"), TypeError, "float64"),
    "int32": (np.empty((9, 9), "int32"), TypeError, "int32"),
    "big-endian": (np.empty((9, 9), ">f4"), TypeError, ">f4"),
    "shape": (np.empty((9, 8), "float32"), ValueError, r"\(9, 8\)"),
    "rank": (np.empty(81, "float32"), ValueError, r"\(81,\)"),
    "read-only": (read_only(np.empty((9, 9), "float32")), ValueError, "read-only"),
    "list": ([[0.0] * 9] * 9, TypeError, "list"),
}


@pytest.mark.parametrize("out, error, says", BAD_OUTS.values(), ids=BAD_OUTS)
@pytest.mark.parametrize("name", INTO_OUT)
def test_out_must_be_right(name, out, error, says):
    function, arrays = INTO_OUT[name]
    with pytest.raises(error, match=f"{name}: out .*{says}"):
        function(*arrays, out=out)


@pytest.mark.parametrize("name", ["p", "velocity"])
def test_sgd_update_refuses_what_it_cannot_write_to(name):
    for change, error in ((read_only, ValueError), (np.float64, TypeError), (list, TypeError)):
        arrays = {key: normal(7) for key in ("p", "g", "velocity")}
        before = arrays["p"].copy()
        arrays[name] = change(arrays[name])
        with pytest.raises(error, match="sgd_update"):
            K.sgd_update(*arrays.values(), momentum=0.9)
        if name != "p":
            assert_same_bits([arrays["p"]], [before])


@pytest.mark.parametrize("name", ["p", "m", "v"])
def test_adam_update_refuses_what_it_cannot_write_to(name):
    for change, error in ((read_only, ValueError), (np.float64, TypeError), (list, TypeError)):
        arrays = {key: np.abs(normal(7)) for key in ("p", "g", "m", "v")}
        arrays[name] = change(arrays[name])
        with pytest.raises(error, match="adam_update"):
            K.adam_update(*arrays.values(), step=1)


@pytest.mark.parametrize("name", ["p", "v", "mean", "velocity"])
def test_rmsprop_update_refuses_what_it_cannot_write_to(name):
    for change, error in ((read_only, ValueError), (np.float64, TypeError), (list, TypeError)):
        arrays = {key: np.abs(normal(7)) for key in ("p", "g", "v", "mean", "velocity")}
        arrays[name] = change(arrays[name])
        with pytest.raises(error, match="rmsprop_update"):
            K.rmsprop_update(*arrays.values(), momentum=0.9, centered=True)


# The machine.


def test_the_caller_s_floating_point_mode_is_put_back(threads):
    # Native code flushes subnormal numbers to zero while it runs, on its own threads and this one.
    tiny = np.array([1e-40, 1e-41], "float32")
    for count in (1, 2):
        fm.set_num_threads(count)
        K.matmul(normal(300, 300), normal(300, 300))
        assert ((tiny * np.float32(0.5)) > 0).all()


def test_several_python_threads_at_once():
    a, b = normal(257, 129, seed=1), normal(129, 65, seed=2)
    expected = K.dense_forward(a, b, None, "tanh")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: K.dense_forward(a, b, None, "tanh"), range(150)))
    assert_same_bits(results, [expected] * 150)


# In place; packed, with one slab and several, one block of rows and several, more columns than stay
# packed, narrow last panels; few rows; few products; where a is transposed, turned round: with few
# rows, in two blocks; with many; with ends of strips.
CHAINS = [
    (33, 70, 65), (120, 33, 1111), (299, 900, 163), (4, 150, 131), (90, 4, 70), (90, 1, 17),
    (2100, 70, 3), (301, 600, 100), (97, 90, 9),
]  # fmt: skip


@pytest.mark.skipif(fm.show_config()["matmul"] != "native", reason="a BLAS has sums of its own")
@pytest.mark.parametrize("transpose_b", [False, True], ids=["b", "bT"])
@pytest.mark.parametrize("transpose_a", [False, True], ids=["a", "aT"])
@pytest.mark.parametrize("m, k, n", CHAINS, ids=str)
def test_products_are_the_same_chains_on_other_paths(m, k, n, transpose_a, transpose_b, dtype):
    """Each element is one chain of multiply-adds: a row alone, in a few columns, has its bits."""
    a, b = normal(m, k, dtype=dtype, seed=1), normal(k, n, dtype=dtype, seed=2)
    given = [np.ascontiguousarray(x.T) if t else x for x, t in ((a, transpose_a), (b, transpose_b))]
    out = poisoned((m, n), dtype)
    K.matmul(*given, transpose_a=transpose_a, transpose_b=transpose_b, out=out)
    assert_accurate(out, np.matmul, a, b)
    for first in range(0, n, 13):
        columns = np.ascontiguousarray(b[:, first : first + 13])
        for row in {0, m // 2, m - 1}:
            assert_same_bits(
                [K.matmul(a[row : row + 1], columns)], [out[row : row + 1, first : first + 13]]
            )


INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]
NARROWER = INSTRUCTION_SETS[: INSTRUCTION_SETS.index(fm.show_config()["instruction_set"])]
OTHER_PATHS = [("FASTMLP_ISA", name) for name in NARROWER] + [("FASTMLP_GEMM", "blas")]


@pytest.mark.skipif(
    "FASTMLP_ISA" in os.environ or "FASTMLP_GEMM" in os.environ, reason="one path is forced already"
)
@pytest.mark.parametrize("variable, value", OTHER_PATHS)
def test_other_paths(variable, value):
    """Kernels, losses and gradients again: as on a lesser machine, and with the BLAS."""
    names = (
        "kernels",
        "losses",
        "gradients",
        *(["elementary"] if variable == "FASTMLP_ISA" else []),
    )
    files = [Path(__file__).with_name(f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, env={**os.environ, variable: value}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


# Refusals.

BAD_CALLS = {
    "matmul inner sizes": (lambda: K.matmul(normal(5, 7), normal(6, 3)), ValueError, "7.*6"),
    "matmul leading sizes": (
        lambda: K.matmul(normal(2, 5, 7), normal(3, 7, 3)), ValueError, "2.*3"
    ),
    "matmul scalar": (lambda: K.matmul(np.float32(1), normal(7, 3)), ValueError, "matmul"),
    "matmul object": (
        lambda: K.matmul(np.array([[None]]), normal(1, 1)), TypeError, "matmul.*object"
    ),
    "matmul string": (lambda: K.matmul(np.array([["1"]]), normal(1, 1)), TypeError, "matmul"),
    "matmul complex": (
        lambda: K.matmul(np.array([[1j]]), normal(1, 1)), TypeError, "matmul.*complex"
    ),
    "bias_add width": (lambda: K.bias_add(normal(5, 7), normal(6)), ValueError, "bias_add.*7.*6"),
    "relu object": (lambda: K.relu(np.array([None])), TypeError, "relu.*object"),
    "backward shapes": (
        lambda: K.relu_backward(normal(5), normal(6)), ValueError, "relu_backward.*5.*6"
    ),
    "softmax scalar": (lambda: K.softmax(np.float32(1)), ValueError, "softmax"),
    "dense_forward width": (
        lambda: K.dense_forward(normal(5, 7), normal(6, 3), normal(3), "relu"),
        ValueError, "dense_forward.*7.*6|dense_forward.*6.*7",
    ),
    "dense_forward bias": (
        lambda: K.dense_forward(normal(5, 7), normal(7, 3), normal(4), "relu"),
        ValueError, "dense_forward.*bias",
    ),
    "dense_forward name": (
        lambda: K.dense_forward(normal(5, 7), normal(7, 3), normal(3), "rleu"),
        ValueError, "rleu.*relu",
    ),
    "dense_backward rows": (
        lambda: K.dense_backward(normal(4, 3), normal(5, 7), normal(5, 3), normal(7, 3), "relu"),
        ValueError, "dense_backward",
    ),
    "label too large": (
        lambda: K.softmax_cross_entropy(normal(3, 10), np.array([0, 9, 12])),
        ValueError, r"label 12 at row 2 is outside 0\.\.9",
    ),
    "label negative": (
        lambda: K.softmax_cross_entropy(normal(3, 10), np.array([0, -1, 2])),
        ValueError, r"label -1 at row 1 is outside 0\.\.9",
    ),
    "label fractional": (
        lambda: K.softmax_cross_entropy(normal(3, 10), np.array([0, 1.5, 2])),
        ValueError, r"label 1\.5 at row 1",
    ),
    "label count": (
        lambda: K.softmax_cross_entropy(normal(3, 10), np.array([0, 1])), ValueError, "3.*2"
    ),
    "adam step": (
        lambda: K.adam_update(
            normal(3), normal(3), normal(3), np.abs(normal(3)), step=0
        ),
        ValueError, "adam_update.*step",
    ),
    "adam beta": (
        lambda: K.adam_update(
            normal(3), normal(3), normal(3), np.abs(normal(3)), step=1, betas=(0.9, 1.0)
        ),
        ValueError, "adam_update.*betas.*1",
    ),
    "sgd shapes": (lambda: K.sgd_update(normal(3), normal(4)), ValueError, "sgd_update.*3.*4"),
    "sgd velocity": (
        lambda: K.sgd_update(normal(3), normal(3), momentum=0.9), ValueError, "sgd_update.*velocity"
    ),
    "rmsprop alpha": (
        lambda: K.rmsprop_update(normal(3), normal(3), normal(3), alpha=1.0),
        ValueError, "rmsprop_update: alpha.*below 1",
    ),
    "rmsprop mean": (
        lambda: K.rmsprop_update(normal(3), normal(3), normal(3), centered=True),
        ValueError, "rmsprop_update: centered needs a mean",
    ),
    "rmsprop velocity": (
        lambda: K.rmsprop_update(normal(3), normal(3), normal(3), momentum=0.9),
        ValueError, "rmsprop_update: momentum needs a velocity",
    ),
    "permutation": (lambda: K.permutation(-1, 0, 0), ValueError, "-1|negative"),
    "random kind": (lambda: K.random_uniform((3,), "int32"), (TypeError, ValueError), "int32"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, says", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_refused_in_words(call, error, says):
    with pytest.raises(error, match=says):
        call()
