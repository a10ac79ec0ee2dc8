"""Whole training runs with numbers known in advance: a worked example, XOR, and PyTorch's steps."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import reference as ref
from golden import cases
from support import relative_distance

import fastmlp as fm
from fastmlp.device import to_host

# A worked example: a 2-2-2 network of sigmoids without biases. The rows of W1 and W2 are output
# units; a kernel has them as columns.
X = np.array([[0.1, 0.2]])
TARGET = np.array([[0.4, 0.6]])
W1 = np.array([[0.3, 0.25], [0.4, 0.35]])
W2 = np.array([[0.45, 0.4], [0.7, 0.6]])


def half_squares(prediction, target, sample_weight=None):
    """The sum over outputs of (prediction - target)^2 / 2, a loss of one's own."""
    difference = to_host(prediction) - to_host(target)
    return 0.5 * float((difference**2).sum()), difference


def worked_example(device: str) -> fm.Sequential:
    layers = [fm.Dense(2, "sigmoid", use_bias=False), fm.Dense(2, "sigmoid", use_bias=False)]
    model = fm.Sequential(layers, dtype="float64", device=device)
    model.build(2)
    model.set_weights([W1.T, W2.T])
    return model


def assert_to_8_decimals(got, expected):
    np.testing.assert_allclose(to_host(got), expected, rtol=0, atol=0.6e-8)


def test_worked_example_forward_and_backward(device):
    model = worked_example(device)
    output = model.forward(X)
    loss, gradient = half_squares(output, TARGET)
    model.backward(gradient)
    # z1 = 0.1 * 0.3 + 0.2 * 0.25 = 0.08 and h1 = sigmoid(0.08), and so on.
    hidden = fm.kernels.dense_forward(X, W1.T, None, "sigmoid")
    assert_to_8_decimals(hidden, [[0.51998934, 0.52747230]])
    assert_to_8_decimals(output, [[0.60944600, 0.66384491]])
    assert_to_8_decimals(loss, 0.02397190)
    # dL/dW5 = (o1 - t1) o1 (1 - o1) h1, with W5 = W2[0, 0].
    assert_to_8_decimals(model.layers[1].gradients["kernel"][0, 0], 0.02592286)


def test_worked_example_step(device):
    model = worked_example(device)
    model.compile(fm.SGD(0.5), half_squares)
    assert_to_8_decimals(model.train_on_batch(X, TARGET), 0.02397190)
    first, second = (kernel.T for kernel in model.get_weights())
    assert_to_8_decimals(first, [[0.29959556, 0.24919112], [0.39964496, 0.34928991]])
    assert_to_8_decimals(second[0, 0], 0.43703857)


XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
XOR_TARGET = np.array([[0], [1], [1], [0]], dtype=float)


def test_xor():
    """2-10-10-10-1, all sigmoid: solved within 10,001 steps from 9 of 10 seeds, a second each."""
    solved, seconds = 0, []
    for seed in range(10):
        layers = [fm.Dense(10, "sigmoid") for _ in range(3)] + [fm.Dense(1, "sigmoid")]
        model = fm.Sequential(layers, seed=seed)
        model.compile(fm.SGD(1.0), "binary_cross_entropy")
        start = time.process_time()  # what others do on a busy machine does not count
        model.fit(XOR, XOR_TARGET, batch_size=4, epochs=10_001, verbose=0)
        seconds.append(time.process_time() - start)
        solved += bool(((model.predict(XOR) > 0.5) == XOR_TARGET).all())
    assert solved >= 9
    assert np.median(seconds) < 1


# Ten steps against PyTorch.

CASES = [cases.case(index) for index in range(cases.CASES)]
RUNS = [(c, optimizer) for c in CASES for optimizer in c.optimizers]


@pytest.fixture(scope="module")
def golden():
    with np.load(cases.FILE) as file:
        return dict(file)


def expected_weights(golden, case: cases.Case, optimizer: str) -> list[np.ndarray]:
    return [golden[cases.key(case.index, optimizer, i)] for i in range(len(case.weights))]


@pytest.mark.parametrize("case, optimizer", RUNS, ids=[f"{c.name}-{o}" for c, o in RUNS])
def test_ten_steps_agree_with_pytorch(case, optimizer, golden, dtype, device):
    kind, arguments = cases.OPTIMIZERS[optimizer]
    units = [bias.size for bias in case.weights[1::2]]
    l1, l2 = case.penalty
    layers = [fm.Dense(n, name, l1=l1, l2=l2) for n, name in zip(units, case.activations)]
    model = fm.Sequential(layers, dtype=dtype, device=device)
    model.build(case.x.shape[-1])
    model.set_weights(case.weights)
    loss = replace(fm.losses.get(case.loss), **case.settings)
    model.compile(getattr(fm, kind)(**arguments), loss)
    for x, target in zip(case.x, case.target):
        model.train_on_batch(x, target)
    # PyTorch's own float32 is within 1.5e-6 of its float64 on these cases (golden/make_golden.py).
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    for got, expected in zip(model.get_weights(), expected_weights(golden, case, optimizer)):
        assert relative_distance(got, expected) < tolerance


@pytest.mark.parametrize("case, optimizer", RUNS, ids=[f"{c.name}-{o}" for c, o in RUNS])
def test_the_reference_agrees_with_pytorch(case, optimizer, golden):
    kind, arguments = cases.OPTIMIZERS[optimizer]
    arguments = dict(arguments)
    clip_norm, clip_value = arguments.pop("clip_norm", None), arguments.pop("clip_value", None)
    stepper = ref.optimizer(kind, **arguments)
    weights = [w.copy() for w in case.weights]
    layers = list(map(ref.Dense, weights[::2], weights[1::2], case.activations))
    for x, target in zip(case.x, case.target):
        outputs = ref.mlp_forward(layers, x)
        _, dy = ref.loss(case.loss, outputs[-1], target, **case.settings)
        _, gradients = ref.mlp_backward(layers, outputs, dy)
        for kernel, gradient in zip(weights[::2], gradients[::2]):
            gradient += ref.penalty(kernel, *case.penalty)[1]
        if clip_norm is not None:
            gradients = ref.clip_by_norm(gradients, clip_norm)
        if clip_value is not None:
            gradients = ref.clip_by_value(gradients, clip_value)
        stepper.step(weights, gradients)
    for got, expected in zip(weights, expected_weights(golden, case, optimizer)):
        assert relative_distance(got, expected) < 1e-12


# Each activation and each loss alone against PyTorch, forward and backward.

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.mark.parametrize("run", range(len(cases.ACTIVATION_RUNS)))
def test_activations_agree_with_pytorch(run, golden, dtype, device):
    name, parameter = cases.ACTIVATION_RUNS[run]
    x, dy = cases.activation_data()
    model = fm.Sequential([fm.Activation(name, parameter)], dtype=dtype, device=device)
    results = {"y": to_host(model.forward(x)), "dx": to_host(model.backward(dy))}
    for part, got in results.items():
        expected = golden[f"activation.{run}.{part}"]
        assert np.linalg.norm(got - expected) <= TOLERANCE[dtype] * np.linalg.norm(expected)


@pytest.mark.parametrize("run", range(len(cases.LOSS_RUNS)))
def test_losses_agree_with_pytorch(run, golden, dtype):
    name, settings, _ = cases.LOSS_RUNS[run]
    prediction, target = cases.loss_data(run)
    value, gradient = getattr(fm.losses, name)(prediction.astype(dtype), target, **settings)
    assert gradient.dtype == dtype
    assert value == pytest.approx(float(golden[f"loss.{run}.value"]), rel=TOLERANCE[dtype])
    assert relative_distance(gradient, golden[f"loss.{run}.gradient"]) < TOLERANCE[dtype]


def test_every_activation_and_every_loss_is_compared_with_pytorch():
    activations = {name for name, _ in cases.ACTIVATION_RUNS}
    assert activations == {*fm.kernels.ACTIVATIONS, "softmax"}
    assert {name for name, *_ in cases.LOSS_RUNS} == set(fm.kernels.LOSSES)
    assert {c.loss for c in CASES} == set(fm.kernels.LOSSES)
    trained = {name for c in CASES for name in c.activations}
    assert trained == set(fm.kernels.ACTIVATIONS)
