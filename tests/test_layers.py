"""Layers with a state or a formula of their own: normalisation, PReLU, Maxout, log-softmax, and
layers in Python."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import reference as ref
from golden import layer_cases
from support import assert_accurate, assert_same_bits, relative_distance

import fastmlp as fm
from fastmlp.device import to_host

rng = np.random.RandomState(0)

SIZES = [(2, 1), (7, 7), (33, 33), (64, 64), (65, 129), (130, 8), (257, 300), (1000, 17)]


def single(layer: fm.layers.Layer, features: int, device: str, dtype: str) -> fm.Sequential:
    """A network of this layer alone, whose tensors are random and, as variances, positive."""
    model = fm.Sequential([fm.Input(features), layer], seed=0, device=device, dtype=dtype)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    return model


def rows(shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Columns and rows whose means and spreads differ."""
    x = rng.standard_normal(shape) * rng.uniform(0.5, 2, shape[1]) + rng.standard_normal(shape[1])
    return (x * rng.uniform(0.5, 2, (shape[0], 1))).astype(dtype)


# ---- normalisation


def steepness(x: np.ndarray, axis: int) -> float:
    """How far a rounding error in x goes: centred and divided, values keep fewer digits."""
    if not x.size:
        return 1.0
    return float(4 * max(np.abs(x).max(), 1) / max(x.std(axis=axis).min(), 3e-3))


def assert_near(got, backward, dy, x, gamma, scale) -> None:
    """Gradients, of which much may cancel, are near those of float64 on the scale of dy."""
    exact = backward(*(a.astype("float64") for a in (dy, x, gamma)))
    unit = 8 * np.finfo(x.dtype).eps * scale
    for i, (g, e) in enumerate(zip(map(to_host, got), exact, strict=True)):
        steep = scale if i == 0 else 1  # the derivative by x is divided by the deviation
        assert np.linalg.norm(g - e) <= unit * (np.linalg.norm(e) + steep * np.linalg.norm(dy))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_batch_norm_agrees_with_the_reference(shape, dtype, device):
    model = single(fm.BatchNorm(), shape[1], device, dtype)
    x, dy = rows(shape, dtype), rows(shape, dtype)
    gamma, beta, mean, variance = model.get_weights()
    scale = steepness(x, axis=0)
    y = to_host(model.forward(x, training=True))
    dx = to_host(model.backward(dy))
    assert_accurate(y, ref.batch_norm, x, gamma, beta, scale=scale)
    assert_near([dx, *model.gradients()], ref.batch_norm_backward, dy, x, gamma, scale)
    # The running averages, with the unbiased variance, and what inference makes of them.
    after = [0.9 * mean + 0.1 * x.mean(axis=0), 0.9 * variance + 0.1 * x.var(axis=0, ddof=1)]
    for got, expected in zip(model.get_weights()[2:], after):
        np.testing.assert_allclose(got, expected, rtol=1e-5 if dtype == "float32" else 1e-12)
    mean, variance = model.get_weights()[2:]
    inferred = to_host(model.predict(x))
    assert_accurate(inferred, ref.normalise, x, mean, variance, gamma, beta, scale=scale)


@pytest.mark.parametrize("shape", [(1, 7), (1, 1), (0, 3), *SIZES], ids=str)
def test_layer_norm_agrees_with_the_reference(shape, dtype, device):
    model = single(fm.LayerNorm(), shape[1], device, dtype)
    x, dy = rows(shape, dtype), rows(shape, dtype)
    gamma, beta = model.get_weights()
    y = to_host(model.forward(x, training=True))
    dx = to_host(model.backward(dy))
    scale = steepness(x, axis=1)
    assert_accurate(y, ref.layer_norm, x, gamma, beta, scale=scale)
    assert_near([dx, *model.gradients()], ref.layer_norm_backward, dy, x, gamma, scale)
    assert_same_bits([model.predict(x)], [y])


def test_of_no_rows_the_gradients_are_zero(device):
    model = fm.Sequential([fm.Input(3), fm.LayerNorm(), fm.BatchNorm()], device=device)
    for rows in (4, 0):  # the second time nothing is left of the first
        model.forward(np.ones((rows, 3)))
        model.backward(np.ones((rows, 3)))
    assert all((to_host(g) == 0).all() for g in model.gradients())


def test_normalisation_without_gamma_and_beta(dtype, device):
    x = rows((9, 5), dtype)
    for layer, axis in ((fm.BatchNorm(affine=False), 0), (fm.LayerNorm(affine=False), 1)):
        model = fm.Sequential([fm.Input(5), layer], device=device, dtype=dtype)
        y = to_host(model.forward(x, training=True))
        np.testing.assert_allclose(y.mean(axis=axis), 0, atol=1e-6)
        np.testing.assert_allclose(y.std(axis=axis), 1, atol=1e-4)
        assert layer.gamma is None
        assert layer.beta is None
        assert not layer.parameters
        assert model.count_params() == 0
        with pytest.raises(ValueError, match=f"{type(layer).__name__}: this layer has no gamma"):
            layer.gamma = 1


def test_batch_norm_needs_two_rows_to_train(device):
    model = fm.Sequential([fm.Dense(3), fm.BatchNorm(), fm.Dense(1)], seed=0, device=device)
    model.compile("sgd", "mse")
    x, y = rng.standard_normal((5, 2)), rng.standard_normal((5, 1))
    model.build(2)
    before = model.get_weights()
    for call in (
        lambda: model.fit(x, y, batch_size=1, verbose=0),
        lambda: model.fit(x[:1], y[:1], verbose=0),
        lambda: model.train_on_batch(x[:1], y[:1]),
        lambda: model.forward(x[:1], training=True),
    ):
        with pytest.raises(ValueError, match="BatchNorm: a training batch needs at least 2 rows"):
            call()
    assert_same_bits(model.get_weights(), before)
    assert model.predict(x[:1]).shape == model.forward(x[:1]).shape == (1, 1)


def test_a_last_batch_of_one_row_moves_no_statistics(device):
    x, y = rng.standard_normal((9, 2)), rng.standard_normal((9, 2))
    statistics = []
    for count in (8, 9):
        model = fm.Sequential([fm.BatchNorm(), fm.Dense(2)], seed=0, device=device)
        model.compile(fm.SGD(1e-3), "mse")
        model.fit(x[:count], y[:count], batch_size=4, shuffle=False, verbose=0)
        statistics.append([to_host(a) for a in model.layers[0]._statistics.values()])
    assert_same_bits(*statistics)


def test_a_step_that_is_given_up_leaves_the_statistics(device):
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 1))
    model = fm.Sequential([fm.BatchNorm(), fm.Dense(1)], seed=0, device=device)
    model.compile("sgd", "mse")
    model.build(2)
    before = model.get_weights()
    x[3] = np.inf
    with pytest.raises(FloatingPointError):
        model.fit(x, y, check_finite=False, verbose=0)
    assert_same_bits(model.get_weights(), before)


def test_the_open_box_normalises_as_fit_does(dtype, device):
    x, y = rng.standard_normal((40, 3)).astype(dtype), rng.randint(0, 3, 40)
    results = []
    for by_hand in (False, True):
        layers = [fm.Dense(8), fm.BatchNorm(), fm.ReLU(), fm.LayerNorm(), fm.PReLU(), fm.Dense(3)]
        model = fm.Sequential(layers, seed=0, device=device, dtype=dtype)
        if by_hand:
            optimizer = fm.Adam(0.01)
            for xb, yb in fm.data.DataLoader(x, y, batch_size=8):
                _, gradient = fm.losses.cross_entropy(model.forward(xb, training=True), yb)
                model.backward(gradient)
                optimizer.step(model)
        else:
            model.compile(fm.Adam(0.01), "cross_entropy")
            model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        results.append(model.get_weights())
    assert_same_bits(*results)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: fm.BatchNorm(momentum=1.5), "BatchNorm: momentum must be at most 1, got 1.5"),
        (lambda: fm.BatchNorm(momentum=-1), "BatchNorm: momentum must be at least 0, got -1"),
        (lambda: fm.BatchNorm(epsilon=0), "BatchNorm: epsilon must be greater than 0, got 0"),
        (lambda: fm.LayerNorm(epsilon=-1), "LayerNorm: epsilon must be greater than 0, got -1"),
        (lambda: fm.PReLU(initial=np.nan), "PReLU: initial must be finite, got nan"),
        (lambda: fm.Maxout(0), "Maxout: units must be at least 1, got 0"),
        (lambda: fm.Maxout(2, pieces=0), "Maxout: pieces must be at least 1, got 0"),
        (lambda: fm.Sequential([fm.Input((2, 2)), fm.Maxout(2)]), "Maxout: needs rows of one dim"),
        (lambda: fm.BatchNorm().running_mean, "BatchNorm: no running_mean yet; call the model's"),
    ],
)
def test_settings_that_make_no_sense(make, words):
    with pytest.raises((ValueError, RuntimeError), match=words):
        make()


# ---- PReLU, Maxout, log-softmax


@pytest.mark.parametrize("shared", [False, True], ids=["each", "shared"])
@pytest.mark.parametrize("shape", [(1, 1), (0, 3), *SIZES, (3, 700)], ids=str)
def test_prelu_agrees_with_the_reference(shape, shared, dtype, device):
    model = single(fm.PReLU(shared=shared), shape[1], device, dtype)
    alpha = -model.get_weights()[0]  # a slope may be negative
    model.set_weights([alpha])
    x, dy = rows(shape, dtype), rows(shape, dtype)
    y = to_host(model.forward(x))
    dx = to_host(model.backward(dy))
    assert_same_bits([y, dx], [np.where(x > 0, x, alpha * x), np.where(x > 0, 1, alpha) * dy])
    slopes = (dy.astype("float64") * np.minimum(x, 0)).sum(axis=None if shared else 0)
    (gradient,) = model.gradients()
    bound = np.abs(dy * x).sum() * np.finfo(dtype).eps + 1e-30
    assert gradient.shape == alpha.shape
    np.testing.assert_allclose(to_host(gradient).ravel(), slopes.ravel(), rtol=0, atol=bound)


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("units", [1, 7, 33])
def test_maxout_agrees_with_the_reference(pieces, units, dtype, device):
    layer = fm.Maxout(units, pieces)
    model = fm.Sequential([fm.Input(4), layer], seed=0, device=device, dtype=dtype)
    dense = fm.Sequential([fm.Input(4), fm.Dense(units * pieces)], device=device, dtype=dtype)
    dense.set_weights(model.get_weights())
    x, dy = rows((13, 4), dtype), rows((13, units), dtype)
    z = to_host(dense.forward(x)).reshape(13, pieces, units)
    assert_same_bits([model.forward(x)], [z.max(axis=1)])
    assert_same_bits([model.predict(x)], [z.max(axis=1)])
    # The gradient goes to the largest, and from there the dense way.
    dx = model.backward(dy)
    chosen = (np.arange(pieces)[:, None] == z.argmax(axis=1)[:, None]) * dy[:, None]
    expected = dense.backward(chosen.reshape(13, -1))
    np.testing.assert_allclose(to_host(dx), to_host(expected), rtol=1e-5, atol=1e-7)
    for got, e in zip(model.gradients(), dense.gradients()):
        np.testing.assert_allclose(to_host(got), to_host(e), rtol=1e-5, atol=1e-7)


def test_maxout_of_equal_pieces_and_of_nan(device):
    model = fm.Sequential([fm.Input(2), fm.Maxout(1, 3)], device=device)
    model.layers[0].kernel = np.ones((2, 3))
    assert to_host(model.forward([[1.0, 2.0]])) == 3
    model.backward([[5.0]])
    gradient = to_host(model.layers[0].gradients["kernel"])
    assert gradient.tolist() == [[5, 0, 0], [10, 0, 0]]  # to the first of them, not three times
    for piece in range(3):
        kernel = np.ones((2, 3))
        kernel[0, piece] = np.nan
        model.layers[0].kernel = kernel
        assert np.isnan(to_host(model.forward([[1.0, 2.0]]))).all()
        assert np.isnan(to_host(model.backward([[5.0]]))).all()


@pytest.mark.parametrize("cols", [1, 7, 33, 257])
def test_log_softmax_agrees_with_the_reference(cols, dtype, device):
    x, dy = rows((17, cols), dtype), rows((17, cols), dtype)
    y = fm.kernels.log_softmax(x)
    exact = ref.softmax(x.astype("float64"))
    np.testing.assert_allclose(y, np.log(exact), rtol=0, atol=16 * np.finfo(dtype).eps)
    expected = dy - exact * dy.astype("float64").sum(axis=1, keepdims=True)
    tolerance = 64 * np.finfo(dtype).eps * np.abs(dy).sum(axis=1).max()
    np.testing.assert_allclose(
        fm.kernels.log_softmax_backward(dy, y), expected, rtol=0, atol=tolerance
    )
    layer = fm.Sequential([fm.LogSoftmax()], device=device, dtype=dtype)
    assert_accurate(to_host(layer.forward(x)), lambda a: np.log(ref.softmax(a)), x, scale=4)
    np.testing.assert_allclose(to_host(layer.backward(dy)), expected, rtol=0, atol=tolerance)
    # In place, as any kernel.
    again = x.copy()
    assert_same_bits([fm.kernels.log_softmax(again, out=again)], [y])


def test_log_softmax_where_probabilities_are_too_small(device):
    y = to_host(fm.Sequential([fm.LogSoftmax()], device=device)([[0.0, 1e4, -np.inf]]))
    assert y.tolist() == [[-1e4, 0, -np.inf]]
    assert np.isnan(to_host(fm.Sequential([fm.LogSoftmax()], device=device)([[np.nan, 1.0]]))).all()


def test_log_softmax_belongs_to_cross_entropy(device):
    x, y = rng.standard_normal((30, 4)), rng.randint(0, 3, 30)
    weights = []
    for ending in (None, "log_softmax"):
        model = fm.Sequential([fm.Dense(8, "tanh"), fm.Dense(3, ending)], seed=0, device=device)
        model.compile("adam", "cross_entropy", metrics=["accuracy"])
        model.fit(x, y, epochs=3, verbose=0)
        weights.append(model.get_weights())
    assert_same_bits(*weights)
    np.testing.assert_allclose(np.exp(to_host(model.predict(x))).sum(axis=1), 1, rtol=1e-5)


# ---- beside PyTorch, in float64: what golden/make_layers.py has written


@pytest.fixture(scope="module")
def golden():
    with np.load(layer_cases.FILE) as file:
        return dict(file)


@pytest.mark.parametrize("name", layer_cases.NETWORKS)
def test_networks_agree_with_pytorch(name, golden, dtype, device):
    case = layer_cases.layer_case(name)
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]

    def build() -> fm.Sequential:
        layers = [getattr(fm, kind)(**settings) for kind, settings in case.layers]
        model = fm.Sequential(layers, dtype=dtype, device=device)
        model.build(layer_cases.FEATURES)
        for parameter, weight in zip(model.parameters(), case.weights, strict=True):
            parameter[...] = model._device.put(weight.astype(dtype))
        return model

    def check(kind, arrays) -> None:
        keys = [key for key in golden if key.startswith(f"{name}.{kind}")]
        for got, key in zip(arrays, keys, strict=True):
            assert relative_distance(to_host(got), golden[key]) <= tolerance

    model = build()
    check("y", [model.forward(case.x[0], training=True)])
    check("dx", [model.backward(case.dy)])
    check("gradient", model.gradients())

    model = build()
    model.compile(fm.Adam(layer_cases.LEARNING_RATE), "cross_entropy")
    for x, labels in zip(case.x, case.labels):
        model.train_on_batch(x, labels)
    check("statistic", [a for layer in model.layers for a in layer._statistics.values()])
    check("weight", model.parameters())
    check("inferred", [model.predict(case.x[0])])


# ---- several networks, files, copies

EVERY = [
    fm.Dense(6),
    fm.BatchNorm(momentum=0.3, epsilon=1e-3),
    fm.PReLU(0.1),
    fm.Maxout(5, 3),
    fm.LayerNorm(epsilon=1e-4),
    fm.PReLU(shared=True),
    fm.Dense(4),
    fm.BatchNorm(affine=False),
    fm.Dense(3, "log_softmax"),
]


def every(**settings) -> fm.Sequential:
    model = fm.Sequential(copy.deepcopy(EVERY), **({"seed": 4} | settings))
    model.compile(fm.Adam(0.01), "cross_entropy", metrics=["accuracy"])
    return model


X, LABELS = rng.standard_normal((50, 5)), rng.randint(0, 3, 50)


def test_an_ensemble_has_the_bits_of_single_networks(dtype, device):
    ensemble = fm.Ensemble(every(device=device, dtype=dtype), 3)
    ensemble.fit(X, LABELS, batch_size=16, epochs=2, verbose=0)
    for i, network in enumerate(ensemble):
        alone = every(seed=4 + i, device=device, dtype=dtype)
        alone.fit(X, LABELS, batch_size=16, epochs=2, verbose=0)
        assert_same_bits(network.get_weights(), alone.get_weights())
        assert_same_bits([ensemble.predict(X)[i]], [alone.predict(X)])


def test_files_keep_everything(tmp_path, device):
    straight, broken = every(device=device), every(device=device)
    straight.fit(X, LABELS, batch_size=16, epochs=4, verbose=0)
    broken.fit(X, LABELS, batch_size=16, epochs=2, verbose=0)
    broken.save(tmp_path / "model.safetensors")
    loaded = fm.load(tmp_path / "model.safetensors", device=device)
    assert_same_bits([loaded.predict(X)], [broken.predict(X)])
    for model in (loaded, copy.deepcopy(broken), broken):
        model.fit(X, LABELS, batch_size=16, initial_epoch=2, epochs=4, verbose=0)
        assert_same_bits(model.get_weights(), straight.get_weights())


def test_tensors_have_names(device):
    model = every(device=device)
    model.build(5)
    names = ["gamma", "beta", "running_mean", "running_variance"]
    assert [n for n in model.state_dict() if n.startswith("1.")] == [f"1.{n}" for n in names]
    assert [w.shape for w in model.get_weights()[2:6]] == [(6,)] * 4
    assert model.layers[1].parameters.keys() == {"gamma", "beta"}  # what it learns
    assert len(model.parameters()) == len(model.get_weights()) - 4
    other = every(device=device, seed=9)
    other.fit(X, LABELS, verbose=0)
    model.load_state_dict(other.state_dict())
    assert_same_bits([model.predict(X)], [other.predict(X)])
    model.layers[1].running_variance = 4.0
    assert to_host(model.layers[1].running_variance).tolist() == [4] * 6
    with pytest.raises(ValueError, match=r"BatchNorm: gamma must have shape \(6,\), got \(3,\)"):
        model.layers[1].gamma = np.ones(3)


def test_a_layer_added_keeps_the_statistics_of_the_others(device):
    model = fm.Sequential([fm.Input(5), fm.BatchNorm()], device=device)
    model.forward(X, training=True)
    before = model.get_weights()
    model.add(fm.Dense(2))
    assert_same_bits(model.get_weights()[:4], before)
    model.pop()
    assert_same_bits(model.get_weights(), before)


def test_early_stopping_restores_the_statistics(device):
    class Worse(fm.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["val_loss"] = float(epoch)  # the first was the best

    stopping = fm.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    model, best = every(device=device), every(device=device)
    model.fit(
        X, LABELS, epochs=9, validation_data=(X, LABELS), callbacks=[Worse(), stopping], verbose=0
    )
    best.fit(X, LABELS, epochs=1, verbose=0)
    assert_same_bits(model.get_weights(), best.get_weights())


# ---- layers in Python


class Sine(fm.Custom):
    def forward(self, x, training):
        return np.sin(x)

    def backward(self, dy, x, y):
        return dy * np.cos(x)


@dataclass(eq=False)
class Affine(fm.Custom):
    """A dense layer once more, with a setting and parameters."""

    units: int
    start: float = 0.1

    def build(self, input_shape):
        values = np.sin(np.arange(input_shape[0] * self.units)).reshape(-1, self.units)
        return {"kernel": self.start * values, "bias": np.zeros(self.units)}

    def infer_shape(self, input_shape):
        return (self.units,)

    def forward(self, x, training):
        return fm.kernels.matmul(x, self.parameters["kernel"]) + self.parameters["bias"]

    def backward(self, dy, x, y):
        dx = fm.kernels.matmul(dy, self.parameters["kernel"], transpose_b=True)
        dkernel = fm.kernels.matmul(x, dy, transpose_a=True)
        return dx, {"kernel": dkernel, "bias": dy.sum(axis=0)}


class Sign(fm.Custom):
    """What the core must not see: it counts, and looks whether it trains."""

    calls: list

    def forward(self, x, training):
        self.calls.append(("forward", training, x.shape))
        return x

    def backward(self, dy, x, y):
        self.calls.append(("backward", x.shape))
        return dy


def test_a_layer_of_one_s_own_trains_as_the_core_s(dtype, device):
    x = rng.standard_normal((37, 5)).astype(dtype)
    y = rng.standard_normal((37, 2)).astype(dtype)
    models = [
        fm.Sequential(layers, seed=1, dtype=dtype, device=device)
        for middle in (Affine(4), fm.Dense(4))
        for layers in [[fm.Dense(6), middle, fm.Tanh(), fm.Dense(2)]]
    ]
    for model in models:
        model.build(5)
        model.compile(fm.Adam(0.01, clip_norm=1.0), "mse", metrics=["mae"])
    own, core = models
    core.set_weights(own.get_weights())
    histories = [m.fit(x, y, batch_size=8, epochs=4, verbose=0).history for m in models]
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for a, b in zip(own.get_weights(), core.get_weights()):
        assert relative_distance(a, b) <= tolerance
    for name in ("loss", "mae"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)
    np.testing.assert_allclose(
        to_host(own.predict(x)), to_host(core.predict(x)), rtol=1e-3, atol=1e-4
    )
    assert own.evaluate(x, y)["loss"] == pytest.approx(core.evaluate(x, y)["loss"], rel=1e-4)
    assert own.count_params() == core.count_params()


def test_fit_and_the_open_box_call_it_alike():
    x, y = rng.standard_normal((24, 3)).astype("float32"), rng.randint(0, 2, 24)
    results = []
    for by_hand in (False, True):
        layers = [Sine(), fm.Dense(6), fm.Dropout(0.3), Sine(), fm.Dense(2)]
        model = fm.Sequential(layers, seed=3)
        if by_hand:
            optimizer = fm.SGD(0.1)
            for xb, yb in fm.data.DataLoader(x, y, batch_size=8, shuffle=True, seed=3):
                _, gradient = fm.losses.cross_entropy(model.forward(xb, training=True), yb)
                model.backward(gradient)
                optimizer.step(model)
        else:
            model.compile(fm.SGD(0.1), "cross_entropy", metrics=["accuracy"])
            model.fit(x, y, batch_size=8, verbose=0)
        results.append(model.get_weights())
    assert_same_bits(*results)


def test_when_it_is_called_and_with_what():
    layer = Sign()
    layer.calls = calls = []
    model = fm.Sequential([fm.Input((2, 3)), layer, fm.Flatten(), fm.Dense(1)], seed=0)
    x = np.zeros((5, 2, 3), "float32")
    model.predict(x)
    model(x[0])
    model.forward(x[:2], training=True)
    model.backward(np.ones((2, 1)))
    assert calls == [
        ("forward", False, (5, 2, 3)),
        ("forward", False, (1, 2, 3)),
        ("forward", True, (2, 2, 3)),
        ("backward", (2, 2, 3)),
    ]
    calls.clear()
    model.compile("sgd", "mse")
    model.fit(x, np.zeros(5), batch_size=3, verbose=0)  # below it nobody learns: no backward
    assert calls == [("forward", True, (3, 2, 3)), ("forward", True, (2, 2, 3))]


def test_files_keep_its_settings_and_parameters(tmp_path):
    path = tmp_path / "model.safetensors"
    model = fm.Sequential([fm.Dense(3), Affine(4, start=0.5), Sine(), fm.Dense(3)], seed=0)
    model.compile("adam", "cross_entropy")
    model.fit(X, LABELS, verbose=0)
    model.save(path)
    loaded = fm.load(path, custom_layers={"Affine": Affine, "Sine": Sine})
    assert loaded.layers[1].start == 0.5
    assert_same_bits(loaded.get_weights(), model.get_weights())
    twins = [loaded, copy.deepcopy(model), model]
    for twin in twins:
        twin.fit(X, LABELS, initial_epoch=1, epochs=2, verbose=0)
    for twin in twins[1:]:
        assert_same_bits(twin.get_weights(), loaded.get_weights())
    with pytest.raises(ValueError, match="unknown class 'Affine'"):
        fm.load(path)


def test_settings_that_a_file_would_lose_are_refused(tmp_path):
    class Lost(Sine):
        def __init__(self, factor):
            self.factor = factor

    model = fm.Sequential([fm.Input(2), Lost(3), fm.Dense(1)])
    with pytest.raises(TypeError, match="Lost: .*make it a dataclass"):
        model.save(tmp_path / "model.safetensors")


def returns(forward=None, backward=None, build=None) -> fm.Custom:
    """A layer whose methods return these."""

    class Wrong(fm.Custom):
        def forward(self, x, training):
            return x if forward is None else forward(x)

        def backward(self, dy, x, y):
            return dy if backward is None else backward(dy)

        def build(self, input_shape):
            return {} if build is None else build

    return Wrong()


@pytest.mark.parametrize(
    "layer, words",
    [
        (fm.Custom(), "Custom: a Custom layer needs a method forward"),
        (returns(lambda x: x[:, :1]), r"Wrong: forward must return an array of shape \(4, 3\), go"),
        (returns(lambda x: "x"), "Wrong: forward: the result must"),
        (returns(backward=lambda dy: dy[:2]), r"Wrong: backward must return an array of shape"),
        (returns(backward=lambda dy: (dy, {"a": 1})), r"Wrong: backward must return derivatives b"),
        (returns(build={"a": np.ones(2)}), r"Wrong: backward must return derivatives by \['a'\]"),
        (returns(build={"a": np.ones((2, 2, 2))}), "Wrong: build must return arrays of one or two"),
        (returns(build=[1]), "Wrong: build must return a dict of arrays"),
    ],
)
def test_methods_that_return_nonsense(layer, words):
    x, y = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    model = fm.Sequential([fm.Dense(3), layer], seed=0)
    model.compile("sgd", "mse")
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=words):
        model.fit(x, y, verbose=0)


def test_an_exception_in_it_leaves_the_last_whole_step():
    class Stops(fm.Custom):
        left = 2

        def forward(self, x, training):
            if training:
                self.left -= 1
            if self.left < 0:
                raise KeyError("stop")
            return x

        def backward(self, dy, x, y):
            return dy

    x, y = rng.standard_normal((12, 3)).astype("float32"), rng.randint(0, 2, 12)
    stopped, short = (
        fm.Sequential([fm.Dense(6), fm.Dropout(0.5), Stops(), fm.Dense(2)], seed=0)
        for _ in range(2)
    )
    for model in (stopped, short):
        model.compile("adam", "cross_entropy")
    with pytest.raises(KeyError, match="stop"):
        stopped.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    short.fit(x[:8], y[:8], batch_size=4, shuffle=False, verbose=0)
    assert_same_bits(stopped.get_weights(), short.get_weights())
    for model in (stopped, short):  # and it goes on as if nothing had been
        model.layers[2].left = 9
        model.train_on_batch(x, y)
    assert_same_bits(stopped.get_weights(), short.get_weights())


def test_a_loss_that_is_not_finite_stops_in_front_of_the_update():
    class Breaks(fm.Custom):
        left = 3

        def forward(self, x, training):
            self.left -= 1
            return x if self.left > 0 else x * np.nan

        def backward(self, dy, x, y):
            return dy

    x, y = rng.standard_normal((24, 3)).astype("float32"), rng.randint(0, 2, 24)
    models = [fm.Sequential([fm.Dense(6), Breaks(), fm.Dense(2)], seed=0) for _ in range(2)]
    for model in models:
        model.compile("adam", "cross_entropy")
    with pytest.raises(FloatingPointError, match="step 2"):
        models[0].fit(x, y, batch_size=4, shuffle=False, verbose=0)
    models[1].fit(x[:8], y[:8], batch_size=4, shuffle=False, verbose=0)
    assert_same_bits(models[0].get_weights(), models[1].get_weights())


def test_it_cannot_write_to_what_backward_needs():
    class Writes(Sine):
        def forward(self, x, training):
            x *= 2
            return x

    with pytest.raises(ValueError, match="read-only"):
        fm.Sequential([Writes()]).forward(np.ones((2, 3)))


def test_an_ensemble_has_the_core_s_layers_only():
    with pytest.raises(ValueError, match="Ensemble: needs layers that the core computes, got Sine"):
        fm.Ensemble(fm.Sequential([fm.Dense(3), Sine()]), 2)
