"""Optimizers: each against the reference, clipping, schedules, and who owns the moments."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from support import assert_same_bits

import fastmlp as fm

SETTINGS = [
    ("SGD", {"learning_rate": 0.1}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Adam", {"learning_rate": 0.01}),
    ("Adam", {"learning_rate": 0.01, "betas": (0.5, 0.6), "epsilon": 1e-3}),
    ("Adam", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ("Adam", {"learning_rate": 0.1, "betas": (0.5, 0.5), "amsgrad": True}),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.5}),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.5, "amsgrad": True}),
    ("RMSprop", {"learning_rate": 0.01}),
    ("RMSprop", {"learning_rate": 0.01, "alpha": 0.5, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"learning_rate": 0.01, "alpha": 0.5, "centered": True, "epsilon": 1e-3}),
    ("RMSprop", {"learning_rate": 0.01, "alpha": 0.0}),
    (
        "RMSprop",
        {"learning_rate": 0.01, "alpha": 0.6, "momentum": 0.5, "centered": True, "clip_norm": 0.5},
    ),
    ("RMSprop", {"learning_rate": 0.01, "clip_value": 1e-3, "epsilon": 1e-3}),
    ("SGD", {"learning_rate": 0.1, "clip_norm": 0.5}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1, "clip_value": 0.05}),
    ("Adam", {"learning_rate": 0.01, "clip_norm": 1e-3, "epsilon": 1e-3}),
    ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1, "clip_value": 1e-3, "epsilon": 1e-3}),
]
IDS = [
    f"{name}-" + "-".join(f"{k}={v}" for k, v in settings.items()) for name, settings in SETTINGS
]

rng = np.random.RandomState(0)
X, DY = rng.standard_normal((6, 9, 5)), rng.standard_normal((6, 9, 3))


def network(dtype: str = "float64", device: str = "cpu") -> fm.Sequential:
    model = fm.Sequential([fm.Dense(7, "tanh"), fm.Dense(3)], seed=1, dtype=dtype, device=device)
    model.build(5)
    return model


def reference_step(stepper, weights, x, dy, clip_norm=None, clip_value=None):
    layers = list(map(ref.Dense, weights[::2], weights[1::2], ("tanh", "identity")))
    _, gradients = ref.mlp_backward(layers, ref.mlp_forward(layers, x), dy)
    if clip_norm is not None:
        gradients = ref.clip_by_norm(gradients, clip_norm)
    if clip_value is not None:
        gradients = ref.clip_by_value(gradients, clip_value)
    stepper.step(weights, gradients)


@pytest.mark.parametrize("name, settings", SETTINGS, ids=IDS)
def test_steps_against_the_reference(name, settings, device):
    model, optimizer = network(device=device), getattr(fm, name)(**settings)
    weights = model.get_weights()
    settings = dict(settings)
    clip = {key: settings.pop(key, None) for key in ("clip_norm", "clip_value")}
    stepper = ref.optimizer(name, **settings)
    for x, dy in zip(X, DY):
        model.forward(x, training=True)
        model.backward(dy)
        optimizer.step(model)  # needs no compile
        reference_step(stepper, weights, x, dy, **clip)
    for got, expected in zip(model.get_weights(), weights):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def one_step(optimizer, scale: float = 1.0) -> list[np.ndarray]:
    """How far one step on a given gradient moves the weights."""
    model = network()
    before = model.get_weights()
    model.forward(X[0])
    model.backward(scale * DY[0])
    optimizer.step(model)
    return [b - a for b, a in zip(before, model.get_weights())]


def global_norm(arrays) -> float:
    return float(np.sqrt(sum((a**2).sum() for a in arrays)))


def test_clip_norm_is_of_all_gradients_together():
    free = one_step(fm.SGD(1.0))
    clipped = one_step(fm.SGD(1.0, clip_norm=0.25))
    assert global_norm(free) > 1
    assert global_norm(clipped) == pytest.approx(0.25, rel=1e-6)
    ratio = 0.25 / (global_norm(free) + 1e-6)  # PyTorch's guard against a norm of 0
    for a, b in zip(clipped, free):
        np.testing.assert_allclose(a, ratio * b, atol=1e-14)


def test_clipping_leaves_small_gradients_alone():
    free = one_step(fm.SGD(1.0), scale=1e-3)
    assert_same_bits(one_step(fm.SGD(1.0, clip_norm=1.0), scale=1e-3), free)
    assert_same_bits(one_step(fm.SGD(1.0, clip_value=1.0), scale=1e-3), free)


def test_clip_norm_of_zero_gradients():
    for step in one_step(fm.SGD(1.0, clip_norm=1.0), scale=0.0):
        assert (step == 0).all()


def test_clip_value():
    free = one_step(fm.SGD(1.0))
    for a, b in zip(one_step(fm.SGD(1.0, clip_value=0.1)), free):
        np.testing.assert_allclose(a, np.clip(b, -0.1, 0.1), atol=1e-14)


def test_weight_decay_covers_biases_and_works_without_a_gradient():
    model = network()
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    model.forward(X[0])
    model.backward(np.zeros_like(DY[0]))
    # g = 0.5 * 1, lr = 0.1: every weight loses 0.05.
    fm.SGD(0.1, weight_decay=0.5).step(model)
    for w in model.get_weights():
        np.testing.assert_allclose(w, 0.95, rtol=1e-14)
    # Decoupled: p * (1 - 0.1 * 0.5), and Adam's own step is 0.
    model.backward(np.zeros_like(DY[0]))
    fm.AdamW(0.1, weight_decay=0.5).step(model)
    for w in model.get_weights():
        np.testing.assert_allclose(w, 0.95**2, rtol=1e-14)


def test_the_first_step_of_adam_is_the_learning_rate():
    # m / (1 - b1) = g and v / (1 - b2) = g^2, so the step is lr * g / (|g| + epsilon).
    for step in one_step(fm.Adam(0.01, epsilon=1e-12)):
        np.testing.assert_allclose(np.abs(step), 0.01, rtol=1e-6)


SCHEDULES = {
    "constant": fm.schedules.Constant(0.1),
    "step": fm.schedules.StepDecay(0.1, every=2, factor=0.5),
    "exponential": fm.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5),
    "cosine": fm.schedules.CosineDecay(0.1, decay_steps=4),
    "warm-up": fm.schedules.WarmUp(fm.schedules.CosineDecay(0.1, decay_steps=4), steps=3),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_asked_for_each_step(schedule):
    model, optimizer = network(), fm.SGD(schedule)
    weights = model.get_weights()
    for step, (x, dy) in enumerate(zip(X, DY)):
        model.forward(x)
        model.backward(dy)
        optimizer.step(model)
        reference_step(ref.SGD(float(schedule(step))), weights, x, dy)
    for got, expected in zip(model.get_weights(), weights):
        np.testing.assert_allclose(got, expected, atol=1e-13)


KINDS = {
    "nesterov": lambda rate: fm.SGD(rate, momentum=0.9, nesterov=True),
    "amsgrad": lambda rate: fm.Adam(rate, betas=(0.5, 0.6), amsgrad=True),
    "adamw": lambda rate: fm.AdamW(rate, weight_decay=0.1),
    "rmsprop": lambda rate: fm.RMSprop(rate, alpha=0.9, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_open_box_makes_the_steps_of_fit_bit_for_bit(kind, schedule, dtype, device):
    x, y = X.reshape(54, 5), rng.standard_normal((54, 3))
    fitted, stepped = network(dtype, device), network(dtype, device)
    fitted.compile(kind(schedule), "mse")
    fitted.fit(x, y, batch_size=9, epochs=2, shuffle=False, verbose=0)
    optimizer = kind(schedule)
    for _ in range(2):
        for first in range(0, 54, 9):
            rows = slice(first, first + 9)
            _, gradient = fm.losses.mse(stepped.forward(x[rows], training=True), y[rows])
            stepped.backward(gradient)
            optimizer.step(stepped)
    assert_same_bits(stepped.get_weights(), fitted.get_weights())


def test_a_centered_rmsprop_of_one_gradient_stays_finite():
    # The mean square and the square of the mean are equal but for rounding: no root of less than 0.
    p, v, mean = np.zeros(1000, "float32"), np.zeros(1000, "float32"), np.zeros(1000, "float32")
    g = np.random.RandomState(1).standard_normal(1000)
    for _ in range(50):
        fm.kernels.rmsprop_update(p, g, v, mean, alpha=0.3, centered=True)
    assert np.isfinite(p).all()


def test_the_learning_rate_can_be_set_between_steps():
    model, optimizer = network(), fm.SGD(0.1)
    weights = model.get_weights()
    for x, dy, rate in zip(X, DY, (0.1, 0.01, 0.0)):
        optimizer.learning_rate = rate
        model.forward(x)
        model.backward(dy)
        optimizer.step(model)
        reference_step(ref.SGD(rate), weights, x, dy)
    for got, expected in zip(model.get_weights(), weights):
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_a_step_needs_gradients():
    with pytest.raises(RuntimeError, match="backward"):
        fm.SGD(0.1).step(network())


@pytest.mark.parametrize(
    "optimizer",
    [fm.SGD(0.1, momentum=0.9), fm.Adam(), fm.RMSprop()],
    ids=["sgd", "adam", "rmsprop"],
)
def test_an_optimizer_belongs_to_the_first_model_it_steps(optimizer):
    first, second = network(), network()
    for model in (first, second):
        model.forward(X[0])
        model.backward(DY[0])
    optimizer.step(first)
    before = second.get_weights()
    with pytest.raises(RuntimeError, match="another model"):
        optimizer.step(second)
    assert_same_bits(second.get_weights(), before)
    optimizer.step(first)


def test_names():
    for name, kind in (
        ("sgd", fm.SGD),
        ("Adam", fm.Adam),
        ("ADAMW", fm.AdamW),
        ("rmsprop", fm.RMSprop),
    ):
        model = network()
        model.compile(name, "mse")
        assert type(model.optimizer) is kind


def test_defaults():
    sgd, adam = fm.SGD(), fm.Adam()
    assert (sgd.learning_rate, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.01, 0, False, 0)
    assert (adam.learning_rate, adam.betas, adam.epsilon) == (1e-3, (0.9, 0.999), 1e-8)
    assert (adam.weight_decay, adam.amsgrad) == (0, False)
    rmsprop = fm.RMSprop()
    assert (rmsprop.learning_rate, rmsprop.alpha, rmsprop.epsilon) == (0.01, 0.99, 1e-8)
    assert (rmsprop.momentum, rmsprop.centered, rmsprop.weight_decay) == (0, False, 0)


BAD_SETTINGS = {
    "negative learning rate": (lambda: fm.SGD(-0.1), ValueError, "learning_rate.*-0.1"),
    "nan learning rate": (lambda: fm.Adam(float("nan")), ValueError, "learning_rate.*nan"),
    "text learning rate": (lambda: fm.Adam("fast"), TypeError, "learning_rate.*fast"),
    "negative momentum": (lambda: fm.SGD(momentum=-0.5), ValueError, "momentum.*-0.5"),
    "nesterov alone": (lambda: fm.SGD(nesterov=True), ValueError, "nesterov.*momentum"),
    "negative decay": (lambda: fm.Adam(weight_decay=-1), ValueError, "weight_decay.*-1"),
    "beta of 1": (lambda: fm.Adam(betas=(0.9, 1.0)), ValueError, "betas.*1"),
    "one beta": (lambda: fm.Adam(betas=(0.9,)), ValueError, "betas"),
    "alpha of 1": (lambda: fm.RMSprop(alpha=1), ValueError, "RMSprop: alpha.*below 1.*1"),
    "negative alpha": (lambda: fm.RMSprop(alpha=-0.1), ValueError, "RMSprop: alpha.*-0.1"),
    "rmsprop epsilon": (lambda: fm.RMSprop(epsilon=0), ValueError, "RMSprop: epsilon.*0"),
    "rmsprop momentum": (lambda: fm.RMSprop(momentum=-1), ValueError, "RMSprop: momentum.*-1"),
    "epsilon of 0": (lambda: fm.Adam(epsilon=0), ValueError, "epsilon.*0"),
    "clip_norm of 0": (lambda: fm.Adam(clip_norm=0), ValueError, "clip_norm.*0"),
    "negative clip_value": (lambda: fm.SGD(clip_value=-1), ValueError, "clip_value.*-1"),
}


@pytest.mark.parametrize("call, error, says", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_in_words(call, error, says):
    with pytest.raises(error, match=says):
        call()
