"""`fit`: the same as the loop written out, what it reports, and how it ends, well or badly."""

from __future__ import annotations

import _thread
import copy
import signal
import threading
import time

import numpy as np
import pytest
import reference as ref
from support import LAYOUTS, assert_same_bits, train_by_hand

import fastmlp as fm
from fastmlp import training
from fastmlp.device import to_host

ROWS, BATCH, EPOCHS = 103, 16, 3  # 103 = 6 * 16 + 7: the last batch is short
rng = np.random.RandomState(0)
X = rng.standard_normal((ROWS, 5))
LABELS = rng.randint(3, size=ROWS)
NUMBERS = rng.standard_normal((ROWS, 2))


def classifier(optimizer=None, *, dropout: float = 0.0, dtype="float32", device="cpu", **compile):
    layers = [fm.Dense(9, "relu"), fm.Dropout(dropout), fm.Dense(7, "tanh"), fm.Dense(3)]
    model = fm.Sequential(layers, seed=7, dtype=dtype, device=device)
    model.compile(optimizer or fm.Adam(0.01), "cross_entropy", **compile)
    return model


def regressor(optimizer="sgd", loss="mse", *, dtype="float64", device="cpu", **compile):
    layers = [fm.Dense(9, "tanh"), fm.Dense(2)]
    model = fm.Sequential(layers, seed=7, dtype=dtype, device=device)
    model.compile(optimizer, loss, **compile)
    return model


class Events(fm.callbacks.Callback):
    """Writes down what it is told, and does something at one of the events."""

    def __init__(self, at: tuple[str, int] | None = None, action=None) -> None:
        self.events: list[tuple[str, int | None]] = []
        self.logs: list[dict[str, float]] = []
        self.at, self.action = at, action

    def note(self, *event) -> None:
        self.events.append(event)
        if event == self.at:
            self.action()

    def on_train_begin(self, logs):
        self.note("train begin", None)

    def on_train_end(self, logs):
        self.note("train end", None)

    def on_epoch_begin(self, epoch, logs):
        self.note("epoch begin", epoch)

    def on_epoch_end(self, epoch, logs):
        self.logs.append(dict(logs))
        self.note("epoch end", epoch)


class BatchEvents(Events):
    def on_batch_end(self, step, logs):
        self.logs.append(dict(logs))
        self.note("batch end", step)


# The open box: the loop written out gives the bits of `fit`.

OPTIMIZERS = {
    "sgd": lambda: fm.SGD(0.1),
    "momentum": lambda: fm.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: fm.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: fm.Adam(0.01),
    "adam decay": lambda: fm.Adam(0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda: fm.AdamW(0.01, weight_decay=0.1),
    "clip_norm": lambda: fm.Adam(0.01, clip_norm=0.1),
    "clip_value": lambda: fm.SGD(0.1, momentum=0.9, clip_value=0.01),
    "schedule": lambda: fm.Adam(
        fm.schedules.WarmUp(fm.schedules.CosineDecay(0.05, decay_steps=20), steps=5)
    ),
    "exponential": lambda: fm.SGD(fm.schedules.ExponentialDecay(0.1, 4, 0.7), momentum=0.5),
}


@pytest.mark.parametrize("shuffle", [True, False], ids=["shuffled", "in order"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loop_written_out_gives_the_bits_of_fit(name, shuffle, dtype, device):
    settings = {"dropout": 0.3, "dtype": dtype, "device": device}
    fitted = classifier(OPTIMIZERS[name](), **settings)
    fitted.fit(X, LABELS, batch_size=BATCH, epochs=EPOCHS, shuffle=shuffle, verbose=0)
    by_hand = classifier(**settings)
    optimizer, loss = OPTIMIZERS[name](), fm.losses.cross_entropy
    train_by_hand(by_hand, optimizer, loss, X, LABELS, BATCH, epochs=EPOCHS, shuffle=shuffle)
    assert_same_bits(by_hand.get_weights(), fitted.get_weights())


@pytest.mark.parametrize("loss", ["mse", "mae", "binary_cross_entropy"])
def test_the_loop_written_out_for_other_losses(loss, device):
    target = (NUMBERS > 0).astype(float)
    fitted = regressor(fm.Adam(0.01), loss, device=device)
    fitted.fit(X, target, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    by_hand = regressor(device=device)
    train_by_hand(by_hand, fm.Adam(0.01), getattr(fm.losses, loss), X, target, BATCH, epochs=EPOCHS)
    assert_same_bits(by_hand.get_weights(), fitted.get_weights())


def own_mse(prediction, target, sample_weight=None):
    return fm.losses.mse(prediction, target, sample_weight)


def test_a_loss_of_one_s_own_gives_the_bits_of_the_loop_and_of_the_built_in_one(device):
    models = [regressor(fm.Adam(0.01), loss, device=device) for loss in (own_mse, "mse")]
    histories = [m.fit(X, NUMBERS, batch_size=BATCH, epochs=EPOCHS, verbose=0) for m in models]
    by_hand = regressor(device=device)
    train_by_hand(by_hand, fm.Adam(0.01), own_mse, X, NUMBERS, BATCH, epochs=EPOCHS)
    for model in models:
        assert_same_bits(model.get_weights(), by_hand.get_weights())
    own, built_in = (history.history["loss"] for history in histories)
    assert own == pytest.approx(built_in, rel=1e-14)


def test_metrics_and_weights_beside_a_loss_of_one_s_own():
    weight = np.random.RandomState(1).uniform(size=ROWS)
    histories = []
    for loss in (own_mse, "mse"):
        model = regressor(fm.SGD(0.0), loss, metrics=["mae", "rmse"])
        histories.append(
            model.fit(
                X, NUMBERS, batch_size=BATCH, sample_weight=weight, validation_split=0.2, verbose=0
            ).history
        )
    own, built_in = histories
    assert own.keys() == built_in.keys()
    for name in own:
        assert own[name] == pytest.approx(built_in[name], rel=1e-12)


def test_train_on_batch_gives_the_bits_of_fit(device):
    fitted, stepped = classifier(device=device), classifier(device=device)
    fitted.fit(X, LABELS, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    losses = [
        stepped.train_on_batch(X[i : i + BATCH], LABELS[i : i + BATCH])
        for i in range(0, ROWS, BATCH)
    ]
    assert all(isinstance(loss, float) for loss in losses)
    assert_same_bits(stepped.get_weights(), fitted.get_weights())


def test_a_callback_for_every_step_changes_no_bit(device):
    quiet, watched = classifier(dropout=0.3, device=device), classifier(dropout=0.3, device=device)
    history = quiet.fit(X, LABELS, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    again = watched.fit(
        X, LABELS, batch_size=BATCH, epochs=EPOCHS, callbacks=[BatchEvents()], verbose=0
    )
    assert_same_bits(watched.get_weights(), quiet.get_weights())
    assert again.history == history.history


def test_several_calls_give_the_bits_of_one(device):
    once, often = classifier(dropout=0.3, device=device), classifier(dropout=0.3, device=device)
    whole = once.fit(X, LABELS, batch_size=BATCH, epochs=6, verbose=0)
    parts = [
        often.fit(X, LABELS, batch_size=BATCH, initial_epoch=a, epochs=b, verbose=0)
        for a, b in ((0, 2), (2, 3), (3, 6))
    ]
    assert_same_bits(often.get_weights(), once.get_weights())
    assert [h.epoch for h in parts] == [[0, 1], [2], [3, 4, 5]]
    assert [loss for h in parts for loss in h.history["loss"]] == whole.history["loss"]


def test_a_batch_larger_than_the_data_is_the_data():
    whole, larger = classifier(), classifier()
    whole.fit(X, LABELS, batch_size=ROWS, epochs=2, verbose=0)
    larger.fit(X, LABELS, batch_size=10 * ROWS, epochs=2, verbose=0)
    assert_same_bits(larger.get_weights(), whole.get_weights())


# What comes back.


def test_history_averages_over_samples_and_not_over_batches(dtype, device):
    # With a learning rate of 0 nothing moves, so the mean over all rows is known: evaluate's.
    metrics = ["accuracy"]
    model = classifier(fm.SGD(0.0), dtype=dtype, device=device, metrics=metrics)
    expected = model.evaluate(X, LABELS)
    history = model.fit(X, LABELS, batch_size=BATCH, epochs=2, verbose=0).history
    rel = 1e-6 if dtype == "float32" else 1e-12
    assert history["loss"] == pytest.approx([expected["loss"]] * 2, rel=rel)
    assert history["accuracy"] == pytest.approx([expected["accuracy"]] * 2, rel=rel)
    exact, _ = ref.loss("cross_entropy", model.predict(X).astype(float), LABELS)
    assert expected["loss"] == pytest.approx(exact, rel=rel)
    assert expected["accuracy"] == pytest.approx((model.predict(X).argmax(1) == LABELS).mean())


def test_metrics_of_numbers(device):
    def worst(prediction, target):
        return float(np.abs(to_host(prediction) - to_host(target)).max())

    model = regressor(device=device, metrics=["mse", "mae", "rmse", worst])
    got = model.evaluate(X, NUMBERS)
    d = model.predict(X) - NUMBERS
    assert got["mse"] == pytest.approx((d**2).mean(), rel=1e-12)
    assert got["mae"] == pytest.approx(np.abs(d).mean(), rel=1e-12)
    assert got["rmse"] == pytest.approx(np.sqrt((d**2).mean()), rel=1e-12)
    assert got["worst"] == pytest.approx(np.abs(d).max(), rel=1e-12)
    assert list(got) == ["loss", "mse", "mae", "rmse", "worst"]

    model.compile(fm.SGD(0.0), "mse", metrics=["rmse", "mae", worst])
    history = model.fit(X, NUMBERS, batch_size=BATCH, shuffle=False, verbose=0).history
    assert history["rmse"] == pytest.approx([np.sqrt((d**2).mean())], rel=1e-12)
    assert history["mae"] == pytest.approx([np.abs(d).mean()], rel=1e-12)
    # A function of one's own is averaged over batches, by their rows.
    batches = [np.abs(d[i : i + BATCH]) for i in range(0, ROWS, BATCH)]
    mean = sum(b.max() * len(b) for b in batches) / ROWS
    assert history["worst"] == pytest.approx([mean], rel=1e-12)


def test_validation_data(device):
    model = classifier(metrics=["accuracy"], device=device)
    history = model.fit(
        X[:80], LABELS[:80], validation_data=(X[80:], LABELS[80:]), epochs=2, verbose=0
    )
    after = model.evaluate(X[80:], LABELS[80:])
    assert history.history["val_loss"][-1] == pytest.approx(after["loss"], rel=1e-6)
    assert history.history["val_accuracy"][-1] == pytest.approx(after["accuracy"], rel=1e-6)
    assert len(history.history["val_loss"]) == 2


def test_validation_data_with_weights():
    model = regressor()
    weight = np.random.RandomState(1).uniform(size=23)
    history = model.fit(
        X[:80], NUMBERS[:80], validation_data=(X[80:], NUMBERS[80:], weight), verbose=0
    )
    expected = model.evaluate(X[80:], NUMBERS[80:], sample_weight=weight)["loss"]
    assert history.history["val_loss"] == pytest.approx([expected], rel=1e-12)


def test_validation_split_takes_the_last_rows():
    # As in Keras: the last rows before shuffling, and training sees none of them.
    split, given = classifier(), classifier()
    a = split.fit(X, LABELS, batch_size=BATCH, validation_split=0.25, epochs=2, verbose=0)
    cut = int(ROWS * 0.75)
    b = given.fit(
        X[:cut], LABELS[:cut], batch_size=BATCH, validation_data=(X[cut:], LABELS[cut:]), epochs=2,
        verbose=0,
    )  # fmt: skip
    assert a.history == b.history
    assert_same_bits(split.get_weights(), given.get_weights())


def test_validation_split_with_weights_takes_their_last_rows_too():
    split, given = regressor(), regressor()
    weight = np.random.RandomState(1).uniform(size=ROWS)
    a = split.fit(X, NUMBERS, sample_weight=weight, validation_split=0.25, verbose=0)
    b = given.fit(
        X[:77], NUMBERS[:77], sample_weight=weight[:77],
        validation_data=(X[77:], NUMBERS[77:], weight[77:]), verbose=0,
    )  # fmt: skip
    assert a.history == b.history


def test_validation_changes_no_bit_of_training():
    plain, validated = classifier(dropout=0.3), classifier(dropout=0.3)
    plain.fit(X, LABELS, batch_size=BATCH, epochs=3, verbose=0)
    validated.fit(
        X, LABELS, batch_size=BATCH, epochs=3, validation_data=(X[:9], LABELS[:9]), verbose=0
    )
    assert_same_bits(validated.get_weights(), plain.get_weights())


# Weights of rows and classes.


def test_a_weight_of_two_is_a_row_twice(device):
    # Both losses are sums over rows; weights divide by the 4 rows given, copies by 6. Scaling the
    # learning rate by 4/6 makes the steps equal.
    x, y = X[:4], NUMBERS[:4]
    weighted = regressor(fm.SGD(0.1), device=device)
    doubled = regressor(fm.SGD(0.1 * 6 / 4), device=device)
    a = weighted.train_on_batch(x, y, sample_weight=np.array([1, 2, 1, 2]))
    rows = [0, 1, 1, 2, 3, 3]
    b = doubled.train_on_batch(x[rows], y[rows])
    assert a == pytest.approx(b * 6 / 4, rel=1e-12)
    for p, q in zip(weighted.get_weights(), doubled.get_weights()):
        np.testing.assert_allclose(p, q, atol=1e-14)


def test_weights_of_one_change_no_bit():
    plain, weighted = classifier(), classifier()
    plain.fit(X, LABELS, batch_size=BATCH, epochs=2, verbose=0)
    weighted.fit(X, LABELS, batch_size=BATCH, epochs=2, sample_weight=np.ones(ROWS), verbose=0)
    assert_same_bits(weighted.get_weights(), plain.get_weights())


def test_a_weight_of_zero_takes_a_row_out_of_the_gradient():
    # The same batch with another, absurd row at weight 0.
    x, y, weight = X[:4].copy(), NUMBERS[:4].copy(), np.array([1.0, 1, 0, 1])
    first, second = regressor(), regressor()
    first.train_on_batch(x, y, sample_weight=weight)
    x[2], y[2] = 1e3, -1e3
    second.train_on_batch(x, y, sample_weight=weight)
    assert_same_bits(second.get_weights(), first.get_weights())


def test_class_weight_is_a_sample_weight_by_label():
    by_class, by_row = classifier(), classifier()
    weights = {0: 1.0, 1: 0.5, 2: 3.0}
    a = by_class.fit(X, LABELS, batch_size=BATCH, class_weight=weights, epochs=2, verbose=0)
    rows = np.array([weights[label] for label in LABELS])
    b = by_row.fit(X, LABELS, batch_size=BATCH, sample_weight=rows, epochs=2, verbose=0)
    assert a.history == b.history
    assert_same_bits(by_class.get_weights(), by_row.get_weights())


def test_class_and_sample_weights_multiply():
    both, product = classifier(), classifier()
    rows = np.random.RandomState(1).uniform(0.5, 2, ROWS)
    both.fit(X, LABELS, class_weight={0: 2.0}, sample_weight=rows, verbose=0)
    product.fit(X, LABELS, sample_weight=np.where(LABELS == 0, 2 * rows, rows), verbose=0)
    assert_same_bits(both.get_weights(), product.get_weights())


# Callbacks.


def test_callbacks_are_called_in_order():
    first, second = Events(), BatchEvents()
    model = classifier()
    model.fit(X, LABELS, batch_size=52, epochs=2, callbacks=[first, second], verbose=0)
    epochs = [(when, epoch) for epoch in (0, 1) for when in ("epoch begin", "epoch end")]
    assert first.events == [("train begin", None), *epochs, ("train end", None)]
    steps = [("batch end", 0), ("batch end", 1)]
    assert second.events == [
        ("train begin", None),
        ("epoch begin", 0), *steps, ("epoch end", 0),
        ("epoch begin", 1), *steps, ("epoch end", 1),
        ("train end", None),
    ]  # fmt: skip


def test_logs_hold_what_history_holds():
    events, seen = Events(), []
    model = classifier(fm.Adam(0.01), metrics=["accuracy"])
    history = model.fit(
        X, LABELS, epochs=3, validation_split=0.2, verbose=0,
        callbacks=[events, lambda epoch, logs: seen.append((epoch, logs["loss"]))],
    )  # fmt: skip
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} == set(events.logs[0])
    assert history.history == {key: [log[key] for log in events.logs] for key in events.logs[0]}
    assert seen == list(enumerate(history.history["loss"]))
    assert history.history["learning_rate"] == [0.01] * 3


def test_stop_training_ends_after_the_epoch():
    model = classifier()
    stop = Events(("epoch end", 1), lambda: setattr(model, "stop_training", True))
    history = model.fit(X, LABELS, epochs=10, callbacks=stop, verbose=0)
    assert history.epoch == [0, 1]
    assert not history.interrupted
    assert stop.events[-1] == ("train end", None)
    assert model.fit(X, LABELS, epochs=2, verbose=0).epoch == [0, 1]  # the request is forgotten


def test_an_exception_in_a_callback_leaves_the_last_completed_step():
    def trouble():
        raise KeyError("trouble")

    model, twin = classifier(), classifier()
    with pytest.raises(KeyError, match="trouble"):
        model.fit(
            X, LABELS, batch_size=BATCH, shuffle=False,
            callbacks=[BatchEvents(("batch end", 2), trouble)], verbose=0,
        )  # fmt: skip
    for i in range(3):
        twin.train_on_batch(*(a[i * BATCH : (i + 1) * BATCH] for a in (X, LABELS)))
    assert_same_bits(model.get_weights(), twin.get_weights())
    # And both go on alike: the optimizer is where the weights are.
    for m in (model, twin):
        m.train_on_batch(X, LABELS)
    assert_same_bits(model.get_weights(), twin.get_weights())


def test_a_callback_may_change_the_learning_rate_and_the_weights():
    model, twin = regressor(fm.SGD(0.1)), regressor(fm.SGD(0.1))
    model.build(5)
    start = model.get_weights()

    def reset():
        model.set_weights(start)
        model.optimizer.learning_rate = 0.01

    model.fit(X, NUMBERS, epochs=2, callbacks=[Events(("epoch begin", 1), reset)], verbose=0)
    twin.fit(X, NUMBERS, epochs=1, verbose=0)
    twin.set_weights(start)
    twin.optimizer.learning_rate = 0.01
    twin.fit(X, NUMBERS, initial_epoch=1, epochs=2, verbose=0)
    assert_same_bits(model.get_weights(), twin.get_weights())


# Ctrl-C.


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "kind, at", [(Events, ("epoch end", 1)), (BatchEvents, ("batch end", 1))], ids=["epoch", "step"]
)
def test_ctrl_c_in_a_callback_ends_fit_and_keeps_the_history(kind, at):
    model = classifier()
    events = kind(at, interrupt)
    history = model.fit(X, LABELS, batch_size=52, epochs=9, callbacks=[events], verbose=0)
    assert history.interrupted
    assert len(history.epoch) <= 2
    assert events.events[-1] == ("train end", None)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert not model.fit(X, LABELS, verbose=0).interrupted


def test_ctrl_c_ends_a_long_fit_at_once():
    model = classifier()
    timer = threading.Timer(0.3, _thread.interrupt_main)
    start = time.perf_counter()
    timer.start()
    history = model.fit(X, LABELS, batch_size=BATCH, epochs=10**6, verbose=0)
    assert history.interrupted
    assert time.perf_counter() - start < 3
    assert len(history.epoch) == len(history.history["loss"])
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_ctrl_c_in_the_middle_of_one_long_epoch():
    x = np.random.RandomState(0).standard_normal((2_000_000, 4)).astype("float32")
    model = fm.Sequential([fm.Dense(16, "relu"), fm.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    timer = threading.Timer(0.1, _thread.interrupt_main)
    soon = Events(("epoch begin", 0), timer.start)
    history = model.fit(x, x[:, 0], batch_size=1, callbacks=[soon], verbose=0)
    assert history.interrupted
    assert history.epoch == []
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_ctrl_c_twice_raises():
    class Impatient(fm.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            interrupt()

        def on_train_end(self, logs):
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        classifier().fit(X, LABELS, epochs=5, callbacks=[Impatient()], verbose=0)


def test_the_handler_for_ctrl_c_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    classifier().fit(X, LABELS, verbose=0)
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_works_outside_the_main_thread():
    model, twin = classifier(), classifier()
    thread = threading.Thread(target=model.fit, args=(X, LABELS), kwargs={"verbose": 0})
    thread.start()
    thread.join()
    twin.fit(X, LABELS, verbose=0)
    assert_same_bits(model.get_weights(), twin.get_weights())


# Numbers that are none.


def test_a_loss_that_becomes_nan_stops_before_its_update():
    # In float32 the squares of errors above 1.9e19 overflow. A target of 1e30 in the third batch.
    # Dropout shows that the random numbers of the step that was given up are drawn again.
    y = NUMBERS.astype("float32")
    y[2 * BATCH + 3] = 1e30
    model, twin = (
        fm.Sequential([fm.Dense(9, "tanh"), fm.Dropout(0.5), fm.Dense(2)], seed=7) for _ in range(2)
    )
    for m in (model, twin):
        m.compile(fm.Adam(0.01), "mse")
    with pytest.raises(FloatingPointError, match="epoch 0.*step 2"):
        model.fit(X, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    for i in range(2):
        twin.train_on_batch(*(a[i * BATCH : (i + 1) * BATCH] for a in (X, y)))
    assert_same_bits(model.get_weights(), twin.get_weights())
    for m in (model, twin):
        m.fit(X[:20], y[:20], batch_size=8, epochs=2, verbose=0)
    assert_same_bits(model.get_weights(), twin.get_weights())


def test_a_learning_rate_that_is_far_too_large():
    # The first step moves the weights by some 1e30, and the second loss is infinite.
    model, twin = regressor(fm.SGD(1e30), dtype="float32"), regressor(fm.SGD(1e30), dtype="float32")
    with pytest.raises(FloatingPointError, match="epoch 1.*step 0"):
        model.fit(X, NUMBERS, batch_size=ROWS, epochs=5, shuffle=False, verbose=0)
    assert model.history.epoch == [0]
    twin.train_on_batch(X, NUMBERS)
    assert_same_bits(model.get_weights(), twin.get_weights())


def test_a_nan_loss_in_train_on_batch():
    model = regressor(dtype="float32")
    model.build(5)
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="loss"):
        model.train_on_batch(X[:3], np.full((3, 2), 1e30))
    assert_same_bits(model.get_weights(), before)


def test_a_nan_loss_of_one_s_own():
    model = regressor(loss=lambda p, t, sample_weight=None: (float("nan"), np.zeros_like(p)))
    model.build(5)
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match="epoch 0.*step 0"):
        model.fit(X, NUMBERS, verbose=0)
    assert_same_bits(model.get_weights(), before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "y", "sample_weight", "validation"])
def test_data_that_is_not_finite_is_refused(where, value):
    arrays = {
        "x": X.copy(), "y": NUMBERS.copy(), "sample_weight": np.ones(ROWS),
        "validation": X.copy(),
    }  # fmt: skip
    arrays[where][17] = value
    model = regressor()
    model.build(5)
    before = model.get_weights()
    with pytest.raises(ValueError, match="(?i)nan|inf|finite"):
        model.fit(
            arrays["x"], arrays["y"], sample_weight=arrays["sample_weight"],
            validation_data=(arrays["validation"], NUMBERS), verbose=0,
        )  # fmt: skip
    assert_same_bits(model.get_weights(), before)


def test_numbers_too_large_for_float32_are_refused():
    x = X.copy()
    x[17, 2] = 1e300
    with pytest.raises(ValueError, match="(?i)nan|inf|finite|large"):
        regressor(dtype="float32").fit(x, NUMBERS, verbose=0)


def test_check_finite_can_be_turned_off():
    # The check is off, so the third batch's loss is what stops training.
    x = X.copy()
    x[2 * BATCH] = np.nan
    model, twin = regressor(), regressor()
    with pytest.raises(FloatingPointError, match="epoch 0.*step 2"):
        model.fit(x, NUMBERS, batch_size=BATCH, shuffle=False, check_finite=False, verbose=0)
    for i in range(2):
        twin.train_on_batch(*(a[i * BATCH : (i + 1) * BATCH] for a in (X, NUMBERS)))
    assert_same_bits(model.get_weights(), twin.get_weights())


# What is given.


def test_unusual_but_honest_input_gives_the_same_bits():
    x = np.random.RandomState(3).randint(-8, 8, size=(ROWS, 5))  # exact in every dtype below
    results = []
    kinds = ["float64", "float32", "float16", "int8", "int64"]
    for change in [*LAYOUTS.values(), *(lambda a, k=k: a.astype(k) for k in kinds)]:
        model = classifier()
        model.fit(change(x), change(LABELS), batch_size=BATCH, verbose=0)
        results.append(model.get_weights())
    model = classifier()
    model.fit(x.tolist(), LABELS.tolist(), batch_size=BATCH, verbose=0)
    results.append(model.get_weights())
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_labels_or_one_hot_rows_train_alike():
    labels, rows = classifier(dtype="float64"), classifier(dtype="float64")
    labels.fit(X, LABELS, verbose=0)
    rows.fit(X, ref.one_hot(LABELS, 3), verbose=0)
    for a, b in zip(rows.get_weights(), labels.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_the_data_is_not_written_to():
    x, y, weight = X.copy(), LABELS.copy(), np.ones(ROWS)
    classifier(dropout=0.5, dtype="float64").fit(x, y, sample_weight=weight, epochs=2, verbose=0)
    assert_same_bits([x, y, weight], [X, LABELS, np.ones(ROWS)])


def test_a_vector_of_targets_is_a_column():
    results = []
    for y in (X[:, 0], X[:, :1]):
        model = fm.Sequential([fm.Dense(1)], seed=0)
        model.compile("sgd", "mse")
        model.fit(X, y, verbose=0)
        results.append(model.get_weights())
    assert_same_bits(*results)


# What is shown.


def test_silence(capfd):
    model = classifier()
    model.fit(X, LABELS, epochs=2, verbose=0)
    model.fit(X, LABELS, epochs=2)  # "auto" is quiet where there is no terminal
    assert capfd.readouterr() == ("", "")


def test_a_bar_with_loss_and_metrics(capfd):
    classifier(metrics=["accuracy"]).fit(X, LABELS, epochs=2, verbose=1)
    text = capfd.readouterr().err
    assert "loss" in text
    assert "accuracy" in text


def test_one_line_an_epoch(capfd):
    classifier(metrics=["accuracy"]).fit(X, LABELS, epochs=2, verbose=2)
    text = "".join(capfd.readouterr())
    lines = text.strip().splitlines()
    assert len(lines) == 2
    assert all("loss" in line and "accuracy" in line for line in lines)


# ---- a model may not change under fit, and a copy is one of its own


@pytest.mark.parametrize("change", ["add", "pop", "fit", "train_on_batch"])
def test_a_callback_may_not_change_the_network_or_train_it(change):
    model = classifier()
    calls = {
        "add": lambda: model.add(fm.Dense(2)),
        "pop": model.pop,
        "fit": lambda: model.fit(X, LABELS, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(X, LABELS),
    }
    layers = model.layers
    with pytest.raises(RuntimeError, match=f"{change}: not while fit is running"):
        model.fit(X, LABELS, callbacks=[lambda epoch, logs: calls[change]()], verbose=0)
    assert model.layers == layers
    calls[change]()  # afterwards it may


def test_a_deep_copy_goes_on_training_alike_and_apart():
    model = classifier()
    model.fit(X, LABELS, epochs=2, verbose=0)
    before = [w.copy() for w in model.get_weights()]
    twin = copy.deepcopy(model)
    twin.fit(X, LABELS, epochs=3, verbose=0)
    assert_same_bits(model.get_weights(), before)
    model.fit(X, LABELS, epochs=3, verbose=0)
    assert_same_bits(twin.get_weights(), model.get_weights())
    assert twin.evaluate(X, LABELS) == model.evaluate(X, LABELS)


def test_every_thread_sees_a_loss_that_is_not_finite(threads):
    # More threads than cores, so that some run late: a thread that looked for the end at another
    # point than its fellows would leave them waiting forever.
    fm.set_num_threads(5)
    x = rng.standard_normal((256, 64))
    model = fm.Sequential([fm.Dense(64, "relu"), fm.Dense(1)], seed=0)
    model.compile(fm.SGD(1e30), "mse")
    model.build(64)
    start = model.get_weights()
    for _ in range(30):
        model.set_weights(start)
        with pytest.raises(FloatingPointError):
            model.fit(x, x[:, 0], batch_size=128, epochs=9, verbose=0)


def test_a_callback_may_go_through_the_network_between_steps(device):
    class Looks(fm.callbacks.Callback):
        def __init__(self, look):
            self.look = look

        def on_batch_end(self, batch, logs):
            if self.look:  # with other rows, fewer and more than a batch has
                for rows in (3, 40):
                    self.model.forward(np.ones((rows, 4)))
                    self.model.backward(np.ones((rows, 3)))
                self.model.predict(np.ones((5, 4)))

    x, y = np.random.RandomState(0).standard_normal((30, 4)), np.arange(30) % 3
    weights = []
    for look in (False, True):
        model = fm.Sequential([fm.Dense(8, "tanh"), fm.Dense(3)], seed=0, device=device)
        model.compile("adam", "cross_entropy")
        model.fit(x, y, batch_size=8, epochs=2, callbacks=[Looks(look)], verbose=0)
        weights.append(model.get_weights())
    assert_same_bits(*weights)


def test_an_optimizer_compiled_anew_starts_from_nothing():
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model, fresh = (fm.Sequential([fm.Input(2), fm.Dense(1)], seed=0) for _ in range(2))
    model.compile("adam", "mse")
    model.train_on_batch(x, y)
    model.compile("adam", "mse")
    model.compile("adam", "mse")  # may lie in memory where the first one lay
    model.set_weights(fresh.get_weights())
    fresh.compile("adam", "mse")
    for _ in range(2):
        for each in (model, fresh):
            each.train_on_batch(x, y)
    assert_same_bits(model.get_weights(), fresh.get_weights())


def test_the_learning_rate_may_change_between_steps():
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model = fm.Sequential([fm.Input(2), fm.Dense(1, kernel_initializer="zeros")])
    model.compile(fm.SGD(0.1), "mse")
    used = []
    for rate in (0.1, 0.0, fm.schedules.StepDecay(0.3, every=1, factor=0.5)):
        model.optimizer.learning_rate = rate
        for _ in range(2):
            before = model.get_weights()[1]
            gradient = 2 * (model(x)[0] - y[0])
            model.train_on_batch(x, y)
            used.append(float(((before - model.get_weights()[1]) / gradient)[0]))
    assert used == pytest.approx([0.1, 0.1, 0, 0, 0.3 / 16, 0.3 / 32], rel=1e-4)


def test_a_profile_leaves_the_next_step_its_rows():
    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model = fm.Sequential([fm.Input(2), fm.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    training.profile(model, x, y, 2, 2)
    before = model.get_weights()[1]
    assert model.train_on_batch(x, y) > 0
    assert (model.get_weights()[1] != before).any()
