"""Traces hold the values that NumPy computes; the check of gradients finds what is wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference as ref
from support import assert_same_bits

import fastmlp as fm
from fastmlp.device import to_host

ACTIVATIONS = list(fm.kernels.ACTIVATIONS)
RNG = np.random.RandomState(0)
X = RNG.standard_normal((9, 4))
LABELS = RNG.randint(3, size=9)


def build(*layers, dtype="float64", device="cpu", shape=4, **compiled) -> fm.Sequential:
    """A model whose biases are not all zero."""
    model = fm.Sequential(copy.deepcopy(layers), seed=3, dtype=dtype, device=device)
    model.build(shape)
    rng = np.random.RandomState(5)
    for parameter in model.parameters():
        parameter[...] = model._device.put(0.5 * rng.standard_normal(parameter.shape))
    if compiled:
        model.compile(**compiled)
    return model


# ---- trace


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_value_is_that_of_numpy(name, device):
    model = build(fm.Dense(7, name), fm.Dense(3), device=device)
    kernel0, bias0, kernel1, bias1 = model.get_weights()
    grad = RNG.standard_normal((9, 3))
    trace = model.trace(X, grad=grad)
    before = X @ kernel0 + bias0
    hidden = ref.activation(name, before)
    d_hidden = grad @ kernel1.T
    d_before = d_hidden * ref.derivative(name, before)
    first, second = trace.layers
    expected = [
        (first.input, X),
        (first.before, before),
        (first.output, hidden),
        (first.d_output, d_hidden),
        (first.d_before, d_before),
        (first.d_input, d_before @ kernel0.T),
        (first.gradients["kernel"], X.T @ d_before),
        (first.gradients["bias"], d_before.sum(axis=0)),
        (second.input, hidden),
        (second.before, hidden @ kernel1 + bias1),
        (second.output, hidden @ kernel1 + bias1),
        (second.d_output, grad),
        (second.d_before, grad),
        (second.d_input, d_hidden),
        (second.gradients["kernel"], hidden.T @ grad),
        (second.gradients["bias"], grad.sum(axis=0)),
        (trace.output, hidden @ kernel1 + bias1),
    ]
    for got, value in expected:
        np.testing.assert_allclose(to_host(got), value, rtol=0, atol=1e-13)
    assert (first.index, first.layer) == (0, model.layers[0])
    assert trace.loss is None


NETWORKS = {
    "layers": (fm.Dense(6), fm.Tanh(), fm.Dropout(0.5), fm.Dense(3), fm.Softmax()),
    "no bias": (fm.Dense(6, "gelu", use_bias=False), fm.Dense(3, "sigmoid")),
    "nothing to do": (fm.Dropout(0.0), fm.Dense(3), fm.Activation("identity")),
    "parameter": (fm.Dense(6), fm.Activation("elu", 0.5), fm.Dense(3)),
}


class Double(fm.Custom):
    def forward(self, x, training):
        return 2 * x

    def backward(self, dy, x, y):
        return 2 * dy


# Of the last two, training takes statistics of the batch, and tracing must not keep them.
LATER = {
    "prelu": (fm.Dense(6), fm.PReLU(), fm.Dense(3)),
    "maxout": (fm.Maxout(6, pieces=3), fm.Dense(3)),
    "log-softmax": (fm.Dense(3), fm.LogSoftmax()),
    "in Python": (fm.Dense(6), Double(), fm.Dense(3)),
    "row by row": (fm.Dense(6), fm.LayerNorm(), fm.Dense(3, "tanh")),
    "batch": (fm.BatchNorm(), fm.Dense(6), fm.BatchNorm(affine=False), fm.Dense(3)),
}
NETWORKS |= LATER


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_the_gradients_are_those_of_backward(layers, training, dtype, device):
    model = build(*layers, dtype=dtype, device=device)
    grad = RNG.standard_normal((9, 3))
    trace = model.trace(X, grad=grad, training=training)
    output = model.forward(X, training=training)
    dx = model.backward(grad)
    tolerance = {"rtol": 0, "atol": 2e-6 if dtype == "float32" else 1e-14}
    np.testing.assert_allclose(to_host(trace.output), to_host(output), **tolerance)
    np.testing.assert_allclose(to_host(trace.layers[0].d_input), to_host(dx), **tolerance)
    traced = [array for layer in trace.layers for array in layer.gradients.values()]
    for got, expected in zip(traced, model.gradients(), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(to_host(got), to_host(expected), **tolerance)
    for layer, following in zip(trace.layers, trace.layers[1:]):
        assert_same_bits([layer.output, layer.d_output], [following.input, following.d_input])


@pytest.mark.parametrize("layers", LATER.values(), ids=LATER)
def test_every_kind_of_layer_is_checked(layers):
    model = build(*layers, loss="cross_entropy")
    model.forward(X, training=True)  # so that running averages are not those of a fresh layer
    kept = model.state_dict()
    assert max(fm.check_gradients(model, X, LABELS).values()) < 1e-7
    model.trace(X, LABELS, training=True)
    assert_same_bits(model.state_dict().values(), kept.values())


def test_before_of_a_maxout_has_all_pieces():
    model = build(fm.Maxout(2, pieces=3))
    (layer,) = model.trace(X).layers
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(layer.before, X @ kernel + bias, atol=1e-14)
    np.testing.assert_array_equal(layer.before.reshape(9, 3, 2).max(axis=1), layer.output)
    assert layer.d_before.shape == (9, 6)


ENDINGS = {
    "cross_entropy": (fm.Dense(3, "softmax"), LABELS),
    "binary_cross_entropy": (fm.Dense(3, "sigmoid"), RNG.randint(2, size=(9, 3))),
}


@pytest.mark.parametrize("apart", [False, True], ids=["activation=", "layer"])
@pytest.mark.parametrize("loss", ENDINGS)
def test_an_ending_that_belongs_to_the_loss(loss, apart):
    ending, y = ENDINGS[loss]
    layers = [ending] if not apart else [fm.Dense(3), fm.Activation(ending.activation)]
    model = build(fm.Dense(5, "tanh"), *layers, loss=loss)
    trace = model.trace(X, y)
    last = trace.layers[-1]
    value, gradient = ref.loss(loss, to_host(last.before), y)
    assert trace.loss == pytest.approx(value, rel=1e-12)
    assert last.d_output is None
    np.testing.assert_allclose(last.d_before, gradient, rtol=0, atol=1e-15)
    np.testing.assert_allclose(trace.output, model(X), rtol=1e-14)
    steps = build(fm.Dense(5, "tanh"), *layers, loss=loss, optimizer=fm.SGD(1.0))
    weights = steps.get_weights()
    assert steps.train_on_batch(X, y) == pytest.approx(trace.loss, rel=1e-12)
    traced = [array for layer in trace.layers for array in layer.gradients.values()]
    for w, after, gradient in zip(weights, steps.get_weights(), traced, strict=True):
        np.testing.assert_allclose(w - after, gradient, rtol=0, atol=1e-14)


def test_an_ending_that_the_loss_does_not_know():
    model = build(fm.Dense(3, "softmax"), loss="mse")
    y = RNG.standard_normal((9, 3))
    trace = model.trace(X, y)
    value, gradient = ref.loss(
        "mse", ref.softmax(X @ model.get_weights()[0] + model.get_weights()[1]), y
    )
    assert trace.loss == pytest.approx(value)
    np.testing.assert_allclose(trace.layers[0].d_output, gradient, atol=1e-15)


def test_a_loss_of_ones_own_and_the_sum_of_the_outputs():
    def sum_of_outputs(prediction, target):
        return float(prediction.sum()), np.ones_like(prediction)

    model = build(fm.Dense(5, "tanh"), fm.Dense(3), loss=sum_of_outputs)
    own, default = model.trace(X, LABELS), model.trace(X)
    assert own.loss == pytest.approx(float(own.output.sum()))
    assert_same_bits([own.layers[0].d_input], [default.layers[0].d_input])


def test_images_keep_their_shape():
    model = build(fm.Flatten(), fm.Dense(3), shape=(2, 3))
    trace = model.trace(np.ones((5, 2, 3)))
    flatten, dense = trace.layers
    assert flatten.input.shape == flatten.d_input.shape == (5, 2, 3)
    assert flatten.output.shape == flatten.before.shape == dense.input.shape == (5, 6)


def test_the_model_is_untouched():
    model = build(fm.Dropout(0.5), fm.Dense(3, "tanh"), loss="mse")
    y = RNG.standard_normal((9, 3))
    model.train_on_batch(X, y)
    output = model.forward(X, training=True)
    model.backward(np.ones_like(output))
    before = [
        *model.get_weights(),
        *(g.copy() for g in model.gradients()),
        *model.optimizer.moments,
    ]
    state = model._engine.state.copy()
    model.trace(X[:2], y[:2], training=True)
    fm.check_gradients(model, X[:2], y[:2])
    assert model._engine.state.tobytes() == state.tobytes()
    assert_same_bits([*model.get_weights(), *model.gradients(), *model.optimizer.moments], before)
    dx = model.backward(np.ones_like(output))  # of the forward that was there before
    assert dx.shape == X.shape


def test_it_prints_few_numbers_one_by_one_and_many_in_short():
    model = build(fm.Dense(20, "relu"), fm.Dense(1), loss="mse")
    text = str(model.trace(X[:1], [[0.0]]))
    lines = text.splitlines()
    assert lines[0].startswith("1 row, loss ")
    passes = ["input", "before", "output", "d_output", "d_before", "d_input"]
    names = [*passes, "d_kernel", "d_bias"]
    assert [line.split()[0] for line in lines[2:10]] == names
    assert lines[2].split()[1:4] == ["1", "x", "4"]
    assert lines[2].count("[[") == 1
    assert lines[3].endswith("% zeros")
    assert [line.split()[0] for line in lines[11:]] == [n for n in names if "before" not in n]


def test_what_trace_refuses():
    model = build(fm.Dense(3))
    with pytest.raises(RuntimeError, match="trace: call compile first"):
        model.trace(X, LABELS)
    with pytest.raises(ValueError, match="trace: give y for the compiled loss, or grad"):
        model.trace(X, LABELS, grad=np.ones((9, 3)))
    with pytest.raises(ValueError, match=r"trace: grad must have the shape of the outputs, \(9, 3"):
        model.trace(X, grad=np.ones(9))
    with pytest.raises(ValueError, match="input has 2 features"):
        model.trace(X[:, :2])


# ---- check_gradients


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_right_gradients_are_found_right(name, dtype, device):
    model = build(fm.Dense(6, name), fm.Dense(3), dtype=dtype, device=device, loss="cross_entropy")
    errors = fm.check_gradients(model, X, LABELS)
    assert list(errors) == ["0.kernel", "0.bias", "1.kernel", "1.bias"]
    assert max(errors.values()) < 1e-7


LOSSES = {
    "cross_entropy": ("softmax", None),
    "binary_cross_entropy": ("sigmoid", None),
    "mse": ("softmax", "sigmoid", "tanh", None),
    "mae": ("softmax", None),
    "huber": ("tanh", None),
    "hinge": (None,),
    "perceptron": (None,),
}


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("loss, ending", [(loss, e) for loss, es in LOSSES.items() for e in es])
def test_losses_and_endings(loss, ending, rows):
    y = ref.random_target(np.random.RandomState(1), loss, rows, 3)
    inside = build(fm.Dense(5, "tanh"), fm.Dropout(0.5), fm.Dense(3, ending), loss=loss)
    apart = build(fm.Dense(5, "tanh"), fm.Dense(3), fm.Activation(ending or "identity"), loss=loss)
    for model in (inside, apart):
        assert max(fm.check_gradients(model, X[:rows], y).values()) < 1e-7


LAYERS = {
    "batch norm": [fm.Dense(6, use_bias=False), fm.BatchNorm(), fm.Tanh()],
    "layer norm": [fm.LayerNorm(), fm.Dense(6), fm.LayerNorm(affine=False)],
    "prelu": [fm.Dense(6), fm.PReLU(), fm.Dense(5), fm.PReLU(shared=True)],
    "maxout": [fm.Maxout(6, 3)],
    "log-softmax": [fm.Dense(6, "log_softmax")],
    "penalties": [fm.Dense(6, "tanh", l1=0.1, l2=0.2)],
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("ending", [None, "softmax", "log_softmax"])
def test_layers_and_penalties(layers, ending):
    model = build(*copy.deepcopy(layers), fm.Dense(3, ending, l2=0.1), loss="cross_entropy")
    assert max(fm.check_gradients(model, X, LABELS).values()) < 1e-7
    trace = model.trace(X, LABELS)
    assert trace.loss == pytest.approx(model.evaluate(X, LABELS)["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        fm.losses.CrossEntropy(label_smoothing=0.2, reduction="sum"),
        fm.losses.MSE(reduction="sum"),
        fm.losses.Huber(delta=0.3),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_settings_of_losses(loss):
    model = build(fm.Dense(6, "tanh"), fm.Dense(3), loss=loss)
    y = LABELS if loss.name == "cross_entropy" else RNG.standard_normal((9, 3))
    assert max(fm.check_gradients(model, X, y).values()) < 1e-7


def test_a_loss_of_one_s_own_has_no_ending_inside_whatever_its_name():
    def cross_entropy(prediction, target):
        return fm.losses.mse(prediction, target)

    model = build(fm.Dense(3, "softmax"), loss=cross_entropy)
    y = RNG.standard_normal((9, 3))
    assert max(fm.check_gradients(model, X, y).values()) < 1e-7
    assert model.trace(X, y).loss == pytest.approx(model.evaluate(X, y)["loss"])


def wrong_by_a_half(prediction, target):
    """The mean of squares, with the derivative of half of it."""
    loss, gradient = fm.losses.mse(prediction, target)
    return loss, gradient / 2


def test_a_wrong_gradient_is_found_wrong():
    y = RNG.standard_normal((9, 3))
    model = build(fm.Dense(5, "tanh"), fm.Dense(3), loss=wrong_by_a_half)
    assert min(fm.check_gradients(model, X, y).values()) > 0.4
    model.compile(loss=lambda prediction, target: fm.losses.mse(prediction, target))
    assert max(fm.check_gradients(model, X, y).values()) < 1e-7


def test_a_gradient_that_is_not_a_number_is_found_wrong():
    model = build(fm.Dense(3), loss=lambda p, t: (0.0, np.full_like(p, np.nan)))
    assert np.isnan(list(fm.check_gradients(model, X, LABELS).values())).all()


def test_samples_limit_what_is_tried_and_the_seed_draws_them():
    calls = []

    def counted(prediction, target):
        calls.append(1)
        return fm.losses.mse(prediction, target)

    model = build(fm.Dense(5, "tanh"), fm.Dense(3), loss=counted)
    y = RNG.standard_normal((9, 3))
    errors = fm.check_gradients(model, X, y, samples=4)
    assert len(calls) == 1 + 2 * (4 + 4 + 4 + 3)
    assert errors == fm.check_gradients(model, X, y, samples=4, seed=0)
    assert errors != fm.check_gradients(model, X, y, samples=4, seed=1)


def test_a_large_step_errs_by_curvature():
    model = build(fm.Dense(5, "tanh"), fm.Dense(3), loss="cross_entropy")
    assert max(fm.check_gradients(model, X, LABELS, step=0.1).values()) > 1e-5


def test_a_network_that_learns_nothing_from_its_data():
    model = build(fm.Dense(3), loss="mse")
    model.set_weights([np.zeros((4, 3)), np.zeros(3)])
    assert fm.check_gradients(model, X, np.zeros((9, 3))) == {"0.kernel": 0.0, "0.bias": 0.0}


def test_it_builds_the_model_where_this_is_the_first_data():
    model = fm.Sequential([fm.Dense(3)], seed=0)
    model.compile(loss="cross_entropy")
    assert max(fm.check_gradients(model, X, LABELS).values()) < 1e-7
    assert model.built


def test_what_check_gradients_refuses():
    model = build(fm.Dense(3))
    with pytest.raises(RuntimeError, match="check_gradients: call compile first"):
        fm.check_gradients(model, X, LABELS)
    with pytest.raises(TypeError, match=r"needs a Sequential, got Ensemble; ensemble\[i\]"):
        fm.check_gradients(fm.Ensemble(model, 2), X, LABELS)
    model.compile()
    with pytest.raises(ValueError, match="check_gradients: step must be greater than 0"):
        fm.check_gradients(model, X, LABELS, step=0)
    with pytest.raises(ValueError, match="check_gradients: samples must be at least 1"):
        fm.check_gradients(model, X, LABELS, samples=0)
