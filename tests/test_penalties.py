"""L1 and L2 penalties of Dense: their value in every loss, their gradient in every way to train."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference as ref
from support import assert_padding_is_zero, assert_same_bits

import fastmlp as fm
from fastmlp import training
from fastmlp.device import to_host

rng = np.random.RandomState(0)
X, Y = rng.standard_normal((21, 90)), rng.standard_normal((21, 3))

# A kernel of 90 x 70 is summed in several blocks; one layer has no penalty.
PENALTIES = [(0.01, 0.0), (0.0, 0.0), (0.02, 0.005), (0.0, 0.03)]
UNITS = [70, 9, 5, 3]


def network(penalties=PENALTIES, dtype="float64", device="cpu", seed=1) -> fm.Sequential:
    layers = [
        fm.Dense(units, "tanh" if units > 3 else None, l1=l1, l2=l2)
        for units, (l1, l2) in zip(UNITS, penalties)
    ]
    model = fm.Sequential(layers, seed=seed, dtype=dtype, device=device)
    model.build(90)
    weights = model.get_weights()
    weights[0][3, 5] = weights[2][1] = weights[4][0, 0] = 0.0  # where |w| has no derivative
    model.set_weights(weights)
    return model


def plain(**settings) -> fm.Sequential:
    return network([(0.0, 0.0)] * len(UNITS), **settings)


def exact(model: fm.Sequential) -> float:
    kernels = [w.astype("float64") for w in model.get_weights()[::2]]
    return sum(ref.penalty(w, *penalty)[0] for w, penalty in zip(kernels, PENALTIES))


def test_the_penalty_is_keras_s(dtype, device):
    model = network(dtype=dtype, device=device)
    value = model.penalty()
    assert isinstance(value, float)
    assert value == pytest.approx(exact(model), rel=1e-6 if dtype == "float32" else 1e-14)
    assert plain(device=device).penalty() == 0


def test_backward_adds_the_gradient_to_that_of_the_kernel(dtype, device):
    dy = rng.standard_normal((21, 3))
    gradients = []
    for model in (network(dtype=dtype, device=device), plain(dtype=dtype, device=device)):
        model.forward(X)
        model.backward(dy)
        gradients.append([to_host(g).copy() for g in model.gradients()])
    with_penalty, without = gradients
    assert_same_bits(with_penalty[1::2], without[1::2])  # biases
    for got, own, w, penalty in zip(
        with_penalty[::2], without[::2], model.get_weights()[::2], PENALTIES
    ):
        _, gradient = ref.penalty(w, *penalty)
        np.testing.assert_allclose(got, own + gradient, rtol=0, atol=16 * np.finfo(dtype).eps)
    assert_same_bits([with_penalty[2]], [without[2]])  # the layer without a penalty


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_loss_includes_it(reduction, device):
    model, bare = network(device=device), plain(device=device)
    for each in (model, bare):
        each.compile(fm.SGD(0.0), fm.losses.MSE(reduction=reduction))
    expected = bare.evaluate(X, Y)["loss"] + exact(model)
    assert model.evaluate(X, Y)["loss"] == pytest.approx(expected, rel=1e-13)
    assert model.evaluate(X, Y, batch_size=4)["loss"] == pytest.approx(expected, rel=1e-13)
    assert model.train_on_batch(X, Y) == pytest.approx(expected, rel=1e-13)
    history = model.fit(X, Y, batch_size=8, epochs=1, validation_data=(X, Y), verbose=0).history
    assert history["loss"] == pytest.approx([expected], rel=1e-13)
    assert history["val_loss"] == pytest.approx([expected], rel=1e-13)


def test_history_averages_the_penalty_of_each_step_over_rows(device):
    model = network(device=device)
    model.compile(fm.SGD(0.01), "mse")
    step_by_step = copy.deepcopy(model)
    step_by_step.compile(fm.SGD(0.01), "mse")
    losses = [step_by_step.train_on_batch(X[i : i + 8], Y[i : i + 8]) for i in (0, 8, 16)]
    history = model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([np.average(losses, weights=[8, 8, 5])], rel=1e-13)
    assert_same_bits(model.get_weights(), step_by_step.get_weights())


def test_a_step_is_the_gradient_of_the_loss(device):
    model = network(device=device)
    model.compile(fm.SGD(1.0), "mse")
    # Central differences, where no weight is near 0: there |w| bends.
    h, before = 1e-6, model.get_weights()
    places = [
        (0, (0, 0)),
        (0, (89, 69)),
        (2, (4, 2)),
        (4, (3, 3)),
        (6, (2, 1)),
        (1, (7,)),
        (7, (2,)),
    ]
    expected = []
    for tensor, place in places:
        figures = []
        for change in (h, -h):
            moved = [w.copy() for w in before]
            moved[tensor][place] += change
            model.set_weights(moved)
            figures.append(model.evaluate(X, Y)["loss"])
        expected.append((figures[0] - figures[1]) / (2 * h))
    model.set_weights(before)
    model.train_on_batch(X, Y)
    after = model.get_weights()
    got = [before[tensor][place] - after[tensor][place] for tensor, place in places]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


OPTIMIZERS = {
    "sgd": lambda: fm.SGD(0.01),
    "clip_norm": lambda: fm.SGD(0.01, momentum=0.9, clip_norm=0.5),
    "adam": lambda: fm.Adam(0.01),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_open_box_trains_as_fit_does_bit_for_bit(optimizer, dtype, device):
    fitted, stepped = (network(dtype=dtype, device=device) for _ in range(2))
    fitted.compile(optimizer(), "mse")
    losses = [fitted.train_on_batch(X, Y) for _ in range(4)]
    own = optimizer()
    for expected in losses:
        value, gradient = fm.losses.mse(stepped.forward(X, training=True), Y)
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        assert value + stepped.penalty() == pytest.approx(expected, rel=tolerance)
        stepped.backward(gradient)
        own.step(stepped)
    assert_same_bits(stepped.get_weights(), fitted.get_weights())


def test_a_loss_of_one_s_own_is_penalised_too(device):
    def own(prediction, target, sample_weight=None):
        return fm.losses.mse(prediction, target, sample_weight)

    models = [network(device=device) for _ in range(2)]
    figures = []
    for model, loss in zip(models, ("mse", own)):
        model.compile(fm.SGD(0.01), loss)
        history = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history
        figures.append([*history["loss"], model.evaluate(X, Y)["loss"]])
    np.testing.assert_allclose(*figures, rtol=1e-13)
    assert_same_bits(models[0].get_weights(), models[1].get_weights())


def test_a_network_without_penalties_has_the_same_program_as_ever():
    names = {}
    for kind, model in (("plain", plain()), ("penalised", network())):
        model.compile("sgd", "mse")
        records, *_ = training.profile(model, X, Y, 8, 1)
        names[kind] = [name for name, *_ in records]
    assert names["penalised"].count("Penalize") == 3
    assert [name for name in names["penalised"] if name != "Penalize"] == names["plain"]


def test_padding_stays_zero(dtype, device):
    model = network(dtype=dtype, device=device)
    model.compile(fm.Adam(0.01), "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    assert_padding_is_zero(model)


@pytest.mark.parametrize("own", [False, True], ids=["native", "own loss"])
def test_a_penalty_that_is_not_finite_stops_before_the_update(own, device):
    loss = (lambda prediction, target: fm.losses.mse(prediction, target)) if own else "mse"
    model = fm.Sequential([fm.Dense(1, l2=1.0)], seed=0, device=device)
    model.build(1)
    model.set_weights([[[1e25]], [0.0]])
    model.compile(fm.SGD(0.1), loss)
    x, y = np.zeros((2, 1)), np.zeros((2, 1))
    assert model.penalty() == np.inf
    assert model.evaluate(x, y)["loss"] == np.inf
    before = model.get_weights()
    for call in (
        lambda: model.train_on_batch(x, y),
        lambda: model.fit(x, y, epochs=2, verbose=0),
    ):
        with pytest.raises(FloatingPointError, match="not finite"):
            call()
        assert_same_bits(model.get_weights(), before)


def test_an_ensemble_gives_the_bits_of_single_runs(dtype):
    template = network(dtype=dtype)
    template.compile(fm.Adam(0.01, clip_norm=1.0), "mse")
    ensemble = fm.Ensemble(template, 3)
    singles = list(ensemble)
    assert ensemble.penalty().tolist() == [single.penalty() for single in singles]
    losses = ensemble.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"]
    scores = ensemble.evaluate(X, Y)["loss"]
    for i, single in enumerate(singles):
        alone = single.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"]
        assert [loss[i] for loss in losses] == alone
        assert scores[i] == single.evaluate(X, Y)["loss"]
        assert_same_bits([w[i] for w in ensemble.get_weights()], single.get_weights())


def test_one_thread_and_two_give_the_same_bits(dtype, threads):
    x, y = rng.standard_normal((128, 300)), rng.standard_normal((128, 5))
    results = []
    for count in (1, 2):
        fm.set_num_threads(count)
        layers = [fm.Dense(300, "relu", l1=1e-4, l2=1e-3), fm.Dense(5, l2=0.01)]
        model = fm.Sequential(layers, seed=0, dtype=dtype)
        model.compile(fm.SGD(0.01, clip_norm=1.0), "mse")
        history = model.fit(x, y, batch_size=64, epochs=5, verbose=0).history
        results.append([*model.get_weights(), np.array(history["loss"])])
    assert_same_bits(*results)


def test_files_and_copies_keep_it(tmp_path):
    model = network()
    model.save(tmp_path / "model.safetensors")
    for twin in (fm.load(tmp_path / "model.safetensors"), copy.deepcopy(model)):
        assert [(layer.l1, layer.l2) for layer in twin.layers] == PENALTIES
        assert twin.penalty() == model.penalty()


BAD_SETTINGS = {
    "negative": ({"l1": -0.1}, ValueError, "Dense: l1 must be at least 0, got -0.1"),
    "infinite": ({"l2": np.inf}, ValueError, "Dense: l2 must be finite"),
    "nan": ({"l2": np.nan}, ValueError, "Dense: l2 must be finite"),
    "text": ({"l1": "some"}, TypeError, "Dense: l1 must be a number, got 'some'"),
    "none": ({"l2": None}, TypeError, "Dense: l2 must be a number, got None"),
}


@pytest.mark.parametrize("settings, error, says", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_in_words(settings, error, says):
    with pytest.raises(error, match=says):
        fm.Dense(3, **settings)


def test_the_penalty_of_a_model_that_is_not_built():
    with pytest.raises(RuntimeError, match="not built"):
        fm.Sequential([fm.Dense(3, l1=0.1)]).penalty()
