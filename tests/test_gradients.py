"""Gradients by finite differences in float64, for every layer, activation, loss and ending."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import reference as ref

import fastmlp as fm
from fastmlp.device import to_host

ACTIVATIONS = list(fm.kernels.ACTIVATIONS)
# A central difference with h = 1e-5 errs by h^2 f'''/6 ~ 1e-10, and by rounding eps/h ~ 1e-11.
H = 1e-5
TOLERANCE = 1e-8


def numerical_gradient(f: Callable[[], float], at: np.ndarray) -> np.ndarray:
    """df/d(at) by central differences, moving the elements of `at` in place."""
    gradient = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        value = float(at[index])
        at[index] = value + H
        above = f()
        at[index] = value - H
        below = f()
        at[index] = value
        gradient[index] = (above - below) / (2 * H)
    return gradient


def check_backward(model: fm.Sequential, x: np.ndarray, training: bool = False) -> None:
    """Every gradient of sum(w * model(x)), w fixed and random, by the input and the parameters."""
    w = np.random.RandomState(9).standard_normal(model.predict(x).shape)

    def value() -> float:
        return float((w * to_host(model.forward(x, training=training))).sum())

    expected = [numerical_gradient(value, p) for p in model.parameters()]
    expected_dx = numerical_gradient(value, x)
    model.forward(x, training=training)
    dx = to_host(model.backward(w))
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=TOLERANCE)
    got = model.gradients()
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        np.testing.assert_allclose(to_host(g), e, rtol=0, atol=TOLERANCE)


def random_input(*shape: int) -> np.ndarray:
    return np.random.RandomState(4).standard_normal(shape)


def build(layers: list, features: int, device: str) -> fm.Sequential:
    """A float64 model whose biases are not all zero."""
    model = fm.Sequential(layers, seed=3, dtype="float64", device=device)
    model.build(features)
    rng = np.random.RandomState(5)
    for parameter in model.parameters():
        parameter[...] = model._device.put(0.5 * rng.standard_normal(parameter.shape))
    return model


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_with_activation(name, device):
    check_backward(build([fm.Dense(7, name), fm.Dense(5, name)], 4, device), random_input(9, 4))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_layer(name, device):
    layers = [fm.Activation(name), fm.Dense(3), fm.Activation(name)]
    check_backward(build(layers, 4, device), random_input(9, 4))


LAYERS = {
    "dense": [fm.Dense(1)],
    "no bias": [fm.Dense(5, "tanh", use_bias=False), fm.Dense(2, use_bias=False)],
    "relu": [fm.Dense(7), fm.ReLU()],
    "sigmoid": [fm.Dense(7), fm.Sigmoid()],
    "tanh": [fm.Dense(7), fm.Tanh()],
    "gelu": [fm.Dense(7), fm.GELU()],
    "softmax": [fm.Dense(7), fm.Softmax()],
    "softmax inside": [fm.Dense(7, "softmax"), fm.Dense(3)],
    "softmax first": [fm.Softmax(), fm.Dense(3)],
    "two activations": [fm.Dense(7, "tanh"), fm.Sigmoid(), fm.Tanh(), fm.Dense(2)],
    "silu then relu": [fm.Dense(7, "silu"), fm.ReLU(), fm.Dense(2)],
    "dropout at inference": [fm.Dense(7, "relu"), fm.Dropout(0.5), fm.Dense(2)],
    "activations only": [fm.Tanh()],
    "log-softmax": [fm.Dense(7), fm.LogSoftmax()],
    "log-softmax inside": [fm.Dense(7, "log_softmax"), fm.Dense(3)],
    "prelu": [fm.Dense(7), fm.PReLU(), fm.Dense(3), fm.PReLU(shared=True)],
    "prelu first": [fm.PReLU(), fm.Dense(3)],
    "maxout": [fm.Maxout(5, 3), fm.Dense(6), fm.Maxout(2)],
    "layer norm": [fm.Dense(7), fm.LayerNorm(), fm.Tanh(), fm.Dense(2)],
    "layer norm first": [fm.LayerNorm(), fm.Dense(3), fm.LayerNorm(affine=False)],
    "batch norm at inference": [fm.Dense(7), fm.BatchNorm(), fm.Tanh(), fm.BatchNorm(affine=False)],
    "deep": [fm.Dense(3, "tanh") for _ in range(6)],
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("rows", [1, 9])
def test_layers(layers, rows, device):
    check_backward(build(copy.deepcopy(layers), 4, device), random_input(rows, 4))


@pytest.mark.parametrize(
    "layers",
    [
        [fm.Dense(7), fm.BatchNorm(), fm.Tanh(), fm.Dense(2)],
        [fm.BatchNorm(), fm.Dense(3), fm.BatchNorm(affine=False)],
        [fm.BatchNorm(), fm.LayerNorm(), fm.PReLU(), fm.Dense(3)],
    ],
    ids=["inside", "at both ends", "in a row"],
)
@pytest.mark.parametrize("rows", [5, 9, 130])
def test_batch_norm_while_training(layers, rows, device):
    model = build(copy.deepcopy(layers), 4, device)
    check_backward(model, random_input(rows, 4), training=True)


def test_flatten(device):
    model = build([fm.Flatten(), fm.Dense(5, "tanh"), fm.Dense(2)], (2, 3), device)
    check_backward(model, random_input(4, 2, 3))


def test_dropout_scales_gradients_by_the_same_mask_as_outputs(device):
    model = build([fm.Dropout(0.4)], 50, device)
    x = random_input(30, 50)
    mask = to_host(model.forward(x, training=True)) / x
    np.testing.assert_allclose(to_host(model.backward(np.ones_like(x))), mask, rtol=1e-12)
    assert set(np.round(np.unique(mask), 9)) == {0, round(1 / 0.6, 9)}


def test_dropout_between_layers(device):
    x = random_input(6, 4)

    def fresh() -> fm.Sequential:  # the same seed: the first training pass draws the same mask
        return build([fm.Dense(8, "tanh"), fm.Dropout(0.5), fm.Dense(1)], 4, device)

    weights = fresh().get_weights()

    def value() -> float:
        model = fresh()
        model.set_weights(weights)
        return float(model.forward(x, training=True).sum())

    expected = [numerical_gradient(value, w) for w in weights]
    model = fresh()
    model.forward(x, training=True)
    model.backward(np.ones((6, 1)))
    for g, e in zip(model.gradients(), expected):
        np.testing.assert_allclose(to_host(g), e, rtol=0, atol=TOLERANCE)


# Losses, behind every ending, through a whole native step: with SGD at 1, the step is the gradient.

ENDINGS = {
    "mse": (None, "softmax", "sigmoid", "tanh", "silu"),
    "mae": (None, "softmax", "sigmoid"),
    "cross_entropy": (None, "softmax"),
    "binary_cross_entropy": (None, "sigmoid"),
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("as_layer", [False, True], ids=["activation=", "layer"])
@pytest.mark.parametrize(
    "loss, ending", [(loss, e) for loss, endings in ENDINGS.items() for e in endings]
)
def test_loss_behind_ending(loss, ending, as_layer, weighted, device):
    if as_layer:
        layers = [fm.Dense(5, "tanh"), fm.Dense(3), fm.Activation(ending or "identity")]
    else:
        layers = [fm.Dense(5, "tanh"), fm.Dense(3, ending)]
    model = build(layers, 4, device)
    model.compile(fm.SGD(1.0), loss)
    rng = np.random.RandomState(6)
    x, y = rng.standard_normal((7, 4)), ref.random_target(rng, loss, 7, 3)
    weight = rng.uniform(0, 2, 7) if weighted else None

    def value() -> float:
        return model.evaluate(x, y, sample_weight=weight)["loss"]

    expected = [numerical_gradient(value, p) for p in model.parameters()]
    before, loss_before = model.get_weights(), value()
    assert model.train_on_batch(x, y, sample_weight=weight) == pytest.approx(loss_before, rel=1e-12)
    for b, a, e in zip(before, model.get_weights(), expected):
        np.testing.assert_allclose(b - a, e, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_gradients_are_near_float64_ones(name, device):
    x = random_input(33, 7)
    gradients = {}
    for dtype in ("float32", "float64"):
        layers = [fm.Dense(33, name), fm.Dense(17, name), fm.Dense(3)]
        model = fm.Sequential(layers, seed=1, dtype=dtype, device=device)
        model.forward(x)
        dx = model.backward(np.ones((33, 3)))
        gradients[dtype] = [to_host(g) for g in (dx, *model.gradients())]
    for single, double in zip(gradients["float32"], gradients["float64"]):
        assert single.dtype == np.float32
        assert np.linalg.norm(single - double) <= 1e-5 * np.linalg.norm(double)


@pytest.mark.parametrize("depth", [1, 3])
def test_backward_agrees_with_the_reference(depth, dtype, device):
    rng = np.random.RandomState(depth)
    layers = [fm.Dense(33, "sigmoid") for _ in range(depth)] + [fm.Dense(7)]
    model = fm.Sequential(layers, seed=1, dtype=dtype, device=device)
    x, dy = rng.standard_normal((17, 9)), rng.standard_normal((17, 7))
    model.forward(x)
    dx = model.backward(dy)
    weights = [w.astype("float64") for w in model.get_weights()]
    exact = [
        ref.Dense(kernel, bias, layer.activation or "identity")
        for kernel, bias, layer in zip(weights[::2], weights[1::2], model.layers)
    ]
    expected_dx, expected = ref.mlp_backward(exact, ref.mlp_forward(exact, x), dy)
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    for got, e in zip(map(to_host, [dx, *model.gradients()]), [expected_dx, *expected]):
        assert np.linalg.norm(got - e) <= tolerance * np.linalg.norm(e)
