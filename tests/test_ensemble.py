"""`Ensemble`: n networks trained at once are, bit for bit, the n networks trained one by one."""

from __future__ import annotations

import copy
import re
import time

import numpy as np
import pytest
from support import assert_same_bits, same_bits

import fastmlp as fm

rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((45, 6)), rng.randint(3, size=45)
WEIGHT = rng.uniform(0.5, 2.0, size=45)
VALIDATION = (rng.standard_normal((11, 6)), rng.randint(3, size=11))
SEEDS = [7, 3, 2**63 + 5]

# Batches of 8 leave 5 rows for the last step of each epoch.
FIT = {"batch_size": 8, "epochs": 3, "verbose": 0}


def template(optimizer=None, dtype="float32", seed=7, width=33, **compiled) -> fm.Sequential:
    layers = [fm.Dense(width, "tanh"), fm.Dropout(0.25), fm.Dense(17, "silu"), fm.Dense(3)]
    model = fm.Sequential(layers, seed=seed, dtype=dtype)
    if optimizer is not None:
        model.compile(optimizer, **{"loss": "cross_entropy", "metrics": ["accuracy"], **compiled})
    return model


def everything(model) -> list[np.ndarray]:
    """What a model is and does, as arrays; of an ensemble, with a leading dimension."""
    return [
        *model.get_weights(),
        model.predict(X),
        model.predict(X, batch_size=7),
        model(X),
        model(X[0]),
        *map(np.asarray, model.evaluate(X, LABELS).values()),
        *map(np.asarray, model.evaluate(X, LABELS, batch_size=7, sample_weight=WEIGHT).values()),
    ]


def assert_is_network(ensemble_arrays, i, single_arrays) -> None:
    assert_same_bits([array[i] for array in ensemble_arrays], single_arrays)


# R = n gives the bits of n single runs.

OPTIMIZERS = {
    "sgd": lambda: fm.SGD(0.05),
    "momentum": lambda: fm.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda: fm.Adam(0.01, amsgrad=True, clip_norm=0.5),
    "adamw": lambda: fm.AdamW(0.01, clip_value=0.01),
    "rmsprop": lambda: fm.RMSprop(0.01, momentum=0.5, centered=True),
    "schedule": lambda: fm.Adam(fm.schedules.WarmUp(fm.schedules.CosineDecay(0.02, 10), 3)),
}
SETTINGS = {
    "plain": {},
    "in order": {"shuffle": False},
    "weights": {"sample_weight": WEIGHT, "class_weight": {1: 3.0}},
    "validation": {"validation_data": VALIDATION},
    "one batch": {"batch_size": 64},
}


def assert_equals_single_runs(ensemble, optimizers, settings, **kind) -> None:
    history = ensemble.fit(X, LABELS, **{**FIT, **settings}).history
    arrays = everything(ensemble)
    for i, (seed, optimizer) in enumerate(zip(ensemble.seeds, optimizers)):
        single = template(optimizer, seed=seed, **kind)
        alone = single.fit(X, LABELS, **{**FIT, **settings}).history
        assert_is_network(arrays, i, everything(single))
        assert list(history) == list(alone)
        for name, values in alone.items():
            assert [figure[i] for figure in history[name]] == values
    assert not same_bits(arrays[0][0], arrays[0][1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_optimizer_gives_the_bits_of_single_runs(optimizer, dtype, threads):
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        ensemble = fm.Ensemble(template(optimizer(), dtype), 3, seeds=SEEDS)
        assert_equals_single_runs(ensemble, [optimizer() for _ in SEEDS], {}, dtype=dtype)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_each_setting_of_fit_gives_the_bits_of_single_runs(settings, dtype):
    ensemble = fm.Ensemble(template(fm.Adam(0.01), dtype), 3, seeds=SEEDS)
    assert_equals_single_runs(ensemble, [fm.Adam(0.01) for _ in SEEDS], settings, dtype=dtype)


def test_networks_large_enough_for_a_team_give_the_bits_of_single_runs(dtype, threads):
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        kind = {"dtype": dtype, "width": 700}
        ensemble = fm.Ensemble(template(fm.Adam(), **kind), 3, seeds=SEEDS)
        settings = {"batch_size": 32, "epochs": 1}
        assert_equals_single_runs(ensemble, [fm.Adam() for _ in SEEDS], settings, **kind)


RATES = {
    "numbers": [0.1, 0.02, 0.003],
    "schedules": [fm.schedules.CosineDecay(0.1, 12), 0.02, fm.schedules.StepDecay(0.05, 4)],
}


@pytest.mark.parametrize("kind", [fm.SGD, fm.Adam, fm.AdamW])
@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
def test_own_learning_rates_give_the_bits_of_single_runs(rates, kind, dtype):
    ensemble = fm.Ensemble(template(kind(), dtype), 3, seeds=SEEDS, learning_rates=rates)
    assert ensemble.learning_rates == rates
    assert_equals_single_runs(ensemble, [kind(rate) for rate in rates], {}, dtype=dtype)


def test_callbacks_after_each_step_change_no_bit():
    losses = []

    class EachStep(fm.callbacks.Callback):
        def on_batch_end(self, step, logs):
            losses.append(logs["loss"])

    slow, quick = (
        fm.Ensemble(template("adam"), 3, learning_rates=RATES["schedules"]) for _ in "12"
    )
    slow.fit(X, LABELS, **FIT, callbacks=[EachStep()])
    quick.fit(X, LABELS, **FIT)
    assert_same_bits(slow.get_weights(), quick.get_weights())
    assert [loss.shape for loss in losses] == [(3,)] * 3 * 6


def test_train_on_batch_and_the_open_box_give_the_bits_of_single_runs(dtype):
    rates = RATES["schedules"]
    ensemble = fm.Ensemble(template("adam", dtype), 3, learning_rates=rates)
    opened = fm.Ensemble(template(dtype=dtype), 3, learning_rates=rates)
    optimizer = fm.Adam()
    singles = [template(fm.Adam(rate), dtype, seed=7 + i) for i, rate in enumerate(rates)]
    for rows in (slice(0, 20), slice(20, 45), slice(0, 20)):
        x, labels = X[rows], LABELS[rows]
        losses = ensemble.train_on_batch(x, labels, WEIGHT[rows])
        assert losses.tolist() == [s.train_on_batch(x, labels, WEIGHT[rows]) for s in singles]
        logits = opened.forward(x, training=True)
        gradients = [fm.losses.cross_entropy(one, labels, WEIGHT[rows])[1] for one in logits]
        assert opened.backward(gradients).shape == (3, *x.shape)
        assert opened.gradients()[0].shape == (3, 6, 33)
        optimizer.step(opened)
    assert_same_bits(opened.get_weights(), ensemble.get_weights())
    for i, single in enumerate(singles):
        assert_is_network(everything(ensemble), i, everything(single))


def test_every_loss_and_metric_of_the_core_gives_the_figures_of_single_runs(dtype):
    targets = rng.uniform(size=(45, 3))
    for loss, ending in (
        ("mse", "sigmoid"),
        ("mae", None),
        ("binary_cross_entropy", "sigmoid"),
        (fm.losses.Huber(0.25), None),
        (fm.losses.MSE(reduction="sum"), None),
        (fm.losses.CrossEntropy(label_smoothing=0.1), "softmax"),
    ):
        model = fm.Sequential([fm.Dense(8, "relu"), fm.Dense(3, ending)], seed=4, dtype=dtype)
        model.compile("adam", loss, metrics=["mae", "rmse", "accuracy"])
        ensemble = fm.Ensemble(model, 2)
        singles = list(ensemble)
        history = ensemble.fit(X, targets, **FIT, validation_data=(X, targets)).history
        for i, single in enumerate(singles):
            alone = single.fit(X, targets, **FIT, validation_data=(X, targets)).history
            assert {name: [v[i] for v in values] for name, values in history.items()} == alone


# What it looks like from outside.


def test_everything_has_a_leading_dimension_even_of_one():
    for n in (1, 4):
        ensemble = fm.Ensemble(template("sgd"), n)
        ensemble.build(6)
        assert len(ensemble) == len(list(ensemble)) == n
        assert [p.shape for p in ensemble.parameters()[:2]] == [(n, 6, 33), (n, 33)]
        assert ensemble.layers[0].kernel.shape == (n, 6, 33)
        assert ensemble.state_dict()["0.bias"].shape == (n, 33)
        assert ensemble.predict(X).shape == ensemble(X).shape == (n, 45, 3)
        assert ensemble.predict(X[0]).shape == ensemble(X[0]).shape == (n, 3)
        assert ensemble.predict(X[:0]).shape == (n, 0, 3)
        assert ensemble.evaluate(X, LABELS)["accuracy"].shape == (n,)
        assert ensemble.train_on_batch(X, LABELS).shape == (n,)
        history = ensemble.fit(X, LABELS, **FIT)
        assert {name: np.shape(values) for name, values in history.history.items()} == {
            "loss": (3, n), "accuracy": (3, n), "learning_rate": (3, n)
        }  # fmt: skip
        assert ensemble.epochs_trained == 3
        assert ensemble.count_params() == n * ensemble[0].count_params()


def test_seeds_follow_the_template_s():
    assert fm.Ensemble(template(seed=5), 3).seeds == [5, 6, 7]
    given = fm.Ensemble(template(seed=5), 2, seeds=np.array([9, 9]))
    assert given.seeds == [9, 9]
    given.build(6)
    assert_same_bits(*([w[i] for w in given.get_weights()] for i in range(2)))


def test_the_template_is_not_changed():
    model, twin = (template("adam") for _ in range(2))
    for m in (model, twin):
        m.fit(X, LABELS, **FIT)
    ensemble = fm.Ensemble(model, 2)
    assert ensemble.input_shape == (6,)
    assert not ensemble.epochs_trained
    ensemble.fit(X, LABELS, **FIT)
    for m in (model, twin):
        m.fit(X, LABELS, **FIT)
    assert_same_bits(everything(model), everything(twin))


def test_a_template_without_data_or_optimizer_will_do():
    ensemble = fm.Ensemble(fm.Sequential([fm.Input((2, 3)), fm.Flatten(), fm.Dense(3)]), 2)
    assert ensemble.built
    ensemble.compile("sgd", "cross_entropy")
    ensemble.fit(X.reshape(-1, 2, 3), LABELS, **FIT)
    late = fm.Ensemble(template(), 2)
    assert not late.built
    late.compile("sgd", "cross_entropy")
    late.fit(X, LABELS, **FIT)
    assert late.input_shape == (6,)


def test_calls_write_into_an_array_of_the_caller():
    ensemble = fm.Ensemble(template(), 2)
    expected, out = ensemble(X), np.empty((2, 45, 3), "float32")
    assert ensemble(X, out=out) is out
    assert_same_bits([out], [expected])


def test_weights_go_in_as_they_come_out():
    first, second = (fm.Ensemble(template(seed=seed), 2) for seed in (1, 5))
    for ensemble in (first, second):
        ensemble.build(6)
    second.set_weights(first.get_weights())
    assert_same_bits(first.get_weights(), second.get_weights())
    first.layers[0].kernel[1, 2, 3] = 40.0
    second.load_state_dict(first.state_dict())
    assert second.get_weights()[0][1, 2, 3] == 40.0


def test_a_network_taken_out_goes_on_as_in_the_ensemble():
    ensemble = fm.Ensemble(template("adam"), 3, learning_rates=RATES["numbers"])
    ensemble.fit(X, LABELS, **FIT)
    networks, arrays = list(ensemble), everything(ensemble)
    for i, network in enumerate(networks):
        assert_is_network(arrays, i, everything(network))
        network.fit(X, LABELS, **FIT)
    assert_same_bits(everything(ensemble), arrays)  # what was taken out is a copy
    ensemble.fit(X, LABELS, **FIT)
    for i, network in enumerate(networks):
        assert network.seed == 7 + i
        assert network.optimizer.learning_rate == RATES["numbers"][i]
        assert_is_network(everything(ensemble), i, everything(network))
    assert_same_bits(ensemble[-1].get_weights(), networks[2].get_weights())
    assert not fm.Ensemble(template(), 2)[0].built


def test_summary_and_repr_tell_of_one_network(capsys):
    fm.Ensemble(template(), 3).summary()
    assert capsys.readouterr().out.splitlines()[0] == "3 networks, each:"
    assert repr(fm.Ensemble(fm.Sequential([fm.Dense(2)]), 3)) == "3 of <Ensemble [Dense]>"


# Files.


@pytest.mark.parametrize("rates", [None, RATES["schedules"]], ids=["one rate", "own rates"])
def test_an_ensemble_goes_on_from_a_file_as_if_never_stopped(rates, tmp_path, dtype):
    path = tmp_path / "ensemble.safetensors"
    ensemble = fm.Ensemble(template("adam", dtype), 3, seeds=SEEDS, learning_rates=rates)
    ensemble.fit(X, LABELS, **FIT)
    ensemble.save(path, metadata={"note": "half way"})
    loaded, twin = fm.Ensemble.load(path), copy.deepcopy(ensemble)
    assert loaded.extra_metadata == {"note": "half way"}
    assert loaded.seeds == SEEDS
    for model in (ensemble, loaded, twin):
        model.fit(X, LABELS, **FIT)
    assert_same_bits(everything(loaded), everything(ensemble))
    assert_same_bits(everything(twin), everything(ensemble))


def test_files_hold_one_or_the_other(tmp_path):
    one, several = tmp_path / "one.safetensors", tmp_path / "several.safetensors"
    fm.Sequential([fm.Input(2), fm.Dense(1)]).save(one)
    fm.Ensemble(fm.Sequential([fm.Input(2), fm.Dense(1)]), 2).save(several)
    with pytest.raises(ValueError, match=r"holds an Ensemble; use fastmlp\.Ensemble\.load"):
        fm.load(several)
    with pytest.raises(ValueError, match=r"holds a Sequential; use fastmlp\.load"):
        fm.Ensemble.load(one)


# Callbacks: figures are arrays, of which those that need one number take the mean.


def test_early_stopping_watches_the_mean_and_restores_all_networks():
    ensemble = fm.Ensemble(template(fm.SGD(0.5, momentum=0.9)), 3)
    weights = []
    stopping = fm.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    history = ensemble.fit(
        X, LABELS, batch_size=8, epochs=100, verbose=0, validation_data=VALIDATION,
        callbacks=[lambda epoch, logs: weights.append(ensemble.get_weights()), stopping],
    )  # fmt: skip
    means = np.mean(history.history["val_loss"], axis=1)
    assert stopping.best_epoch == means.argmin() == len(means) - 3
    assert stopping.best == means.min()
    assert_same_bits(ensemble.get_weights(), weights[stopping.best_epoch])


def test_the_other_callbacks_take_means_too(tmp_path, capsys):
    ensemble = fm.Ensemble(template(fm.SGD(0.1)), 3)
    history = ensemble.fit(
        X, LABELS, batch_size=8, epochs=2, verbose=2,
        callbacks=[
            fm.callbacks.CSVLogger(tmp_path / "log.csv"),
            fm.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{loss:.4f}.safetensors"),
            fm.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
        ],
    )  # fmt: skip
    means = np.mean(history.history["loss"], axis=1)
    table = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    assert table["loss"].tolist() == means.tolist()
    assert np.array_equal(history.history["learning_rate"], [[0.05] * 3, [0.025] * 3])
    assert f"loss {means[1]:.4f}" in capsys.readouterr().err
    saved = fm.Ensemble.load(tmp_path / f"2-{means[1]:.4f}.safetensors")
    assert_same_bits(saved.get_weights(), ensemble.get_weights())


def test_a_callback_can_end_the_training_of_all():
    class Stop(fm.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            self.model.stop_training = bool((logs["loss"] < 100).all())

    ensemble = fm.Ensemble(template("sgd"), 2)
    assert ensemble.fit(X, LABELS, **FIT, callbacks=[Stop()]).epoch == [0]


# A loss that is not finite.


@pytest.mark.parametrize("network", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2])
def test_a_network_whose_loss_is_not_finite_is_named(network, count, threads):
    fm.set_num_threads(count)
    rates = [0.01] * 3
    rates[network] = 1e12
    start = time.perf_counter()

    def ensemble():
        model = fm.Sequential([fm.Dense(300, "relu"), fm.Dense(1)], seed=0)
        model.compile("sgd", "mse")
        return fm.Ensemble(model, 3, learning_rates=rates)

    failed, shorter = ensemble(), ensemble()
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    with pytest.raises(FloatingPointError) as caught:
        failed.fit(X, LABELS, **settings)
    found = re.fullmatch(
        rf"fit: the loss of network {network} at epoch 0, step (\d+) is not finite; the networks "
        r"are as after the step before\. Try a smaller learning rate \(it was 1000000000000\.0\).*",
        str(caught.value),
    )
    assert found
    steps = int(found[1])
    assert steps > 0
    shorter.fit(X[: 4 * steps], LABELS[: 4 * steps], **settings)
    assert_same_bits(failed.get_weights(), shorter.get_weights())
    assert all(np.isfinite(weights).all() for weights in failed.get_weights())
    with pytest.raises(FloatingPointError, match=f"train_on_batch: the loss of network {network}"):
        failed.train_on_batch(X, LABELS)
    assert_same_bits(failed.get_weights(), shorter.get_weights())
    assert time.perf_counter() - start < 30  # it must not try the same step for ever


# Wrong calls are answered in one sentence, before anything has changed.


def own_loss(prediction, target, sample_weight=None):
    return 0.0, np.zeros_like(prediction)


def own_metric(prediction, target):
    return 0.0


MAKING = {
    "no template": (lambda: fm.Ensemble([fm.Dense(2)], 2), TypeError, "must be a Sequential.*list"),
    "an ensemble": (
        lambda: fm.Ensemble(fm.Ensemble(template(), 2), 2), TypeError, "must be a Sequential.*Ens"
    ),
    "none": (lambda: fm.Ensemble(template(), 0), ValueError, "n must be at least 1, got 0"),
    "a half": (lambda: fm.Ensemble(template(), 1.5), TypeError, r"n must be an integer, got 1\.5"),
    "seeds: two of three": (
        lambda: fm.Ensemble(template(), 3, seeds=[1, 2]), ValueError, "3 seeds, one for each.*got 2"
    ),
    "seeds: a number": (lambda: fm.Ensemble(template(), 3, seeds=1), TypeError, "list of 3, got 1"),
    "seeds: negative": (
        lambda: fm.Ensemble(template(), 2, seeds=[1, -1]), ValueError, "seed must be at least 0.*-1"
    ),
    "seeds: fraction": (lambda: fm.Ensemble(template(), 1, seeds=[0.5]), TypeError, "integer"),
    "seeds: too large": (lambda: fm.Ensemble(template(seed=2**64 - 1), 2), ValueError, "2\\*\\*64"),
    "rates: one of two": (
        lambda: fm.Ensemble(template(), 2, learning_rates=[0.1]), ValueError,
        "2 learning rates, one for each.*got 1",
    ),
    "rates: zero": (
        lambda: fm.Ensemble(template(), 2, learning_rates=[0.1, 0]), ValueError,
        "learning rate must be greater than 0, got 0",
    ),
    "rates: nan": (
        lambda: fm.Ensemble(template(), 1, learning_rates=[np.nan]), ValueError, "finite"
    ),
    "rates: text": (
        lambda: fm.Ensemble(template(), 1, learning_rates=["0.1"]), TypeError, "a number, got '0.1'"
    ),
    "rates: and a schedule": (
        lambda: fm.Ensemble(template(OPTIMIZERS["schedule"]()), 1, learning_rates=[0.1]),
        ValueError, "follows a schedule, WarmUp",
    ),
    "a loss of one's own": (
        lambda: fm.Ensemble(template("sgd", loss=own_loss), 2), ValueError, "core.*loss own_loss"
    ),
    "a metric of one's own": (
        lambda: fm.Ensemble(template("sgd", metrics=["accuracy", own_metric]), 2), ValueError,
        "core.*metric own_metric",
    ),
}  # fmt: skip


@pytest.mark.parametrize("call, error, says", MAKING.values(), ids=MAKING)
def test_what_makes_no_ensemble_is_refused(call, error, says):
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def trained() -> fm.Ensemble:
    ensemble = fm.Ensemble(template("adam"), 2, learning_rates=[0.01, 0.02])
    ensemble.fit(X, LABELS, **FIT)
    return ensemble


FIVE = np.zeros((45, 5))
ADDED = fm.Dense(2)
CALLS = {
    "fit: features": (lambda e: e.fit(FIVE, LABELS), ValueError, "Dense: input has 5 features.*6"),
    "fit: x for each": (lambda e: e.fit([X, X], [LABELS] * 2), ValueError, r"\(2, 45, 6\)"),
    "fit: label": (lambda e: e.fit(X, LABELS + 1), ValueError, r"label 3 at row \d+"),
    "fit: no rows": (lambda e: e.fit(X[:0], LABELS[:0]), ValueError, "no rows"),
    "predict: features": (lambda e: e.predict(FIVE), ValueError, "5 features"),
    "evaluate: rows": (lambda e: e.evaluate(X, LABELS[1:]), ValueError, "45 rows.*44"),
    "call: out": (
        lambda e: e(X, out=np.empty((45, 3), "float32")), ValueError, r"Ensemble: out.*\(2, 45, 3\)"
    ),
    "set_weights: of one network": (
        lambda e: e.set_weights(e[0].get_weights()), ValueError,
        r"0\.kernel must have shape \(2, 6, 33\), got \(6, 33\)",
    ),
    "load_state_dict: of one network": (
        lambda e: e.load_state_dict(e[0].state_dict()), ValueError, r"\(2, 6, 33\).*\(6, 33\)"
    ),
    "backward: of one network": (
        lambda e: (e.forward(X), e.backward(np.zeros((45, 3)))), ValueError, r"\(2, 45, 3\)"
    ),
    "compile: loss": (lambda e: e.compile("sgd", own_loss), ValueError, "own_loss"),
    "compile: schedule": (
        lambda e: e.compile(OPTIMIZERS["schedule"]()), ValueError, "schedule, WarmUp"
    ),
    "compile: another's optimizer": (
        lambda e: e.compile(OTHER.optimizer), RuntimeError, "another model"
    ),
    "scheduler": (
        lambda e: e.fit(
            X, LABELS, verbose=0,
            callbacks=[fm.callbacks.LearningRateScheduler(lambda epoch, rate: rate)],
        ),
        ValueError, "learning rates of their own",
    ),
    "index: too large": (lambda e: e[2], IndexError, "no network 2 of 2"),
    "index: too small": (lambda e: e[-3], IndexError, "no network -3 of 2"),
    "index: a slice": (lambda e: e[:1], TypeError, "index must be an integer"),
    "a layer in two models": (
        lambda e: fm.Sequential([e.layers[0]]), ValueError, "already belongs to a model"
    ),
}  # fmt: skip
OTHER = trained()


@pytest.mark.parametrize("call, error, says", CALLS.values(), ids=CALLS)
def test_a_refused_call_changes_nothing(call, error, says):
    ensemble, twin = trained(), trained()
    with pytest.raises(error, match=says) as caught:
        call(ensemble)
    assert "\n" not in str(caught.value)
    for e in (ensemble, twin):
        e.fit(X, LABELS, **FIT)
    assert_same_bits(everything(ensemble), everything(twin))


def test_an_ensemble_on_any_device(device, tmp_path):
    x = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
    y = np.arange(30) % 2
    model = fm.Sequential(
        [fm.Input(3), fm.Dense(5, "tanh"), fm.Dropout(0.2), fm.Dense(2)], seed=4, device=device
    )
    model.compile(fm.Adam(0.01), loss="cross_entropy", metrics=["accuracy"])
    ensemble = fm.Ensemble(model, 3, learning_rates=[0.1, 0.01, 0.001])
    ensemble.fit(x, y, batch_size=8, epochs=2, verbose=0)
    outputs = np.asarray(ensemble.predict(x))
    path = tmp_path / "ensemble.safetensors"
    ensemble.save(path)
    again = fm.Ensemble.load(path, device=device)
    assert_same_bits([np.asarray(again.predict(x))], [outputs])
    for i, rate in enumerate([0.1, 0.01, 0.001]):
        alone = fm.Sequential(
            [fm.Input(3), fm.Dense(5, "tanh"), fm.Dropout(0.2), fm.Dense(2)],
            seed=4 + i,
            device=device,
        )
        alone.compile(fm.Adam(rate), loss="cross_entropy")
        alone.fit(x, y, batch_size=8, epochs=2, verbose=0)
        assert_same_bits([outputs[i]], [np.asarray(alone.predict(x))])
        one = ensemble[i]
        assert_same_bits([np.asarray(one.predict(x))], [outputs[i]])
        one.fit(x, y, batch_size=8, epochs=1, verbose=0)  # and it goes on as the single one does
        alone.fit(x, y, batch_size=8, epochs=1, verbose=0)
        assert_same_bits(
            *([np.asarray(w) for w in network.get_weights()] for network in (one, alone))
        )
    moved = ensemble.to("cpu")
    np.testing.assert_allclose(np.asarray(moved.predict(x)), outputs, rtol=1e-5, atol=1e-6)
