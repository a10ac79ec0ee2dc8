"""Callbacks: when they are called, what they decide, and in what state they leave the model."""

import csv
import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support import assert_same_bits

import fastmlp as fm
from fastmlp.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LearningRateScheduler,
    ModelCheckpoint,
    Progress,
)

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = np.tanh(X.sum(axis=1))


def small_model(learning_rate=0.05):
    model = fm.Sequential([fm.Dense(8, activation="tanh"), fm.Dense(1)], seed=0)
    model.compile(optimizer=fm.SGD(learning_rate), loss="mse", metrics=["mae"])
    return model


def train(model, *callbacks, **arguments):
    usual = {"epochs": 3, "batch_size": 16, "verbose": 0, "callbacks": list(callbacks)}
    return model.fit(X, Y, **{**usual, **arguments})


class Recorder:
    """Stands for a model: its weights are the number of the epoch, and it notes what is saved."""

    def __init__(self):
        self.weights, self.stop_training, self.saved = None, False, []
        self.optimizer = SimpleNamespace(learning_rate=0.1)

    def get_weights(self):
        return [np.array(self.weights)]

    def set_weights(self, weights):
        self.weights = weights[0].item()

    def save(self, path):
        self.saved.append(path)


def replay(callback, values, name="val_loss", model=None):
    """Act out a training in which `name` takes these values; return the model."""
    model = Recorder() if model is None else model
    model.stop_training = False
    callback.model = model
    callback.on_train_begin({})
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch, {})
        model.weights = epoch
        callback.on_epoch_end(epoch, {"loss": 9.0, name: value})
        if model.stop_training:
            break
    callback.on_train_end({})
    return model


class TestOrder:
    def test_what_fit_calls(self):
        calls = []

        class Spy(Callback):
            def on_train_begin(self, logs):
                calls.append(("train begin", sorted(logs)))

            def on_epoch_begin(self, epoch, logs):
                calls.append(("epoch begin", epoch, sorted(logs)))

            def on_epoch_end(self, epoch, logs):
                calls.append(("epoch end", epoch, sorted(logs)))

            def on_train_end(self, logs):
                calls.append(("train end",))

        train(small_model(), Spy(), initial_epoch=1, validation_split=0.25)
        figures = ["learning_rate", "loss", "mae", "val_loss", "val_mae"]
        assert calls == [
            ("train begin", []),
            ("epoch begin", 1, []),
            ("epoch end", 1, figures),
            ("epoch begin", 2, []),
            ("epoch end", 2, figures),
            ("train end",),
        ]

    def test_batches_are_told_where_somebody_listens(self):
        steps = []

        class Spy(Callback):
            def on_batch_end(self, step, logs):
                steps.append(step)
                assert np.isfinite(logs["loss"])

        train(small_model(), Spy(), epochs=2)  # 64 rows in batches of 16
        assert steps == [0, 1, 2, 3, 0, 1, 2, 3]

    def test_listening_to_batches_changes_no_bit(self):
        class Spy(Callback):
            def on_batch_end(self, step, logs):
                pass

        plain, spied = small_model(), small_model()
        train(plain)
        train(spied, Spy())
        assert_same_bits(plain.get_weights(), spied.get_weights())

    def test_stop_training_ends_after_the_epoch(self):
        class Stop(Callback):
            def on_epoch_end(self, epoch, logs):
                self.model.stop_training = epoch == 1

        assert train(small_model(), Stop(), epochs=10).epoch == [0, 1]

    def test_a_stop_is_forgotten_by_the_next_fit(self):
        model = small_model()
        model.stop_training = True
        assert train(model, epochs=2).epoch == [0, 1]

    def test_an_exception_leaves_the_last_completed_step(self):
        model, reference = small_model(), small_model()

        def fails(epoch, logs):
            if epoch == 1:
                raise RuntimeError("own trouble")

        with pytest.raises(RuntimeError, match="^own trouble$"):
            train(model, fails, epochs=5)
        train(reference, epochs=2)
        assert_same_bits(model.get_weights(), reference.get_weights())


class TestCallbackList:
    def test_all_are_called_in_order_with_the_same_arguments(self):
        calls = []

        class Spy(Callback):
            def __init__(self, name):
                self.name = name

            def on_train_begin(self, logs):
                calls.append((self.name, "train begin", logs))

            def on_train_end(self, logs):
                calls.append((self.name, "train end", logs))

            def on_epoch_begin(self, epoch, logs):
                calls.append((self.name, "epoch begin", epoch, logs))

            def on_epoch_end(self, epoch, logs):
                calls.append((self.name, "epoch end", epoch, logs))

            def on_batch_end(self, step, logs):
                calls.append((self.name, "batch end", step, logs))

        model = Recorder()
        first, second = Spy("a"), Spy("b")
        both = CallbackList([first, second], model)
        both.on_train_begin({})
        both.on_epoch_begin(4, {})
        both.on_batch_end(7, {"loss": 1.0})
        both.on_epoch_end(4, {"loss": 2.0})
        both.on_train_end({"loss": 3.0})
        one = [
            ("train begin", {}),
            ("epoch begin", 4, {}),
            ("batch end", 7, {"loss": 1.0}),
            ("epoch end", 4, {"loss": 2.0}),
            ("train end", {"loss": 3.0}),
        ]
        assert calls == [(name, *call) for call in one for name in "ab"]
        assert first.model is second.model is model

    def test_a_function_is_called_at_an_epochs_end_only(self):
        calls = []
        callbacks = CallbackList([lambda *arguments: calls.append(arguments)], Recorder())
        callbacks.on_train_begin({})
        callbacks.on_epoch_begin(0, {})
        callbacks.on_batch_end(0, {})
        assert calls == []
        callbacks.on_epoch_end(0, {"loss": 1.0})
        callbacks.on_train_end({})
        assert calls == [(0, {"loss": 1.0})]

    @pytest.mark.parametrize("single", [History(), lambda epoch, logs: None])
    def test_a_single_one_needs_no_list(self, single):
        callbacks = CallbackList(single, Recorder())
        assert len(callbacks.callbacks) == 2
        assert callbacks.callbacks[1] is callbacks.history
        assert train(small_model(), epochs=1, callbacks=single).epoch == [0]

    def test_none_is_none(self):
        callbacks = CallbackList(None, Recorder())
        assert callbacks.callbacks == [callbacks.history]

    def test_history_keeps_what_a_callback_adds(self):
        def adds(epoch, logs):
            logs["epoch squared"] = epoch**2

        assert train(small_model(), adds).history["epoch squared"] == [0, 1, 4]

    def test_per_batch(self):
        class Listens(Callback):
            def on_batch_end(self, step, logs):
                pass

        class Inherits(Listens):
            pass

        assert not CallbackList([History(), print], Recorder()).per_batch
        assert not CallbackList([], Recorder()).per_batch
        assert CallbackList([History(), Inherits()], Recorder()).per_batch

    @pytest.mark.parametrize(
        ("wrong", "shown"),
        [
            (3, "3"),
            ("early", "'early'"),
            (None, "None"),
            (EarlyStopping, "the class EarlyStopping"),
        ],
    )
    def test_what_is_no_callback(self, wrong, shown):
        message = rf"^callbacks: expected a Callback or a function f\(epoch, logs\), got {shown}$"
        with pytest.raises(TypeError, match=message):
            CallbackList([wrong], Recorder())
        with pytest.raises(TypeError, match=message):
            train(small_model(), wrong)


def test_history_of_fit():
    history = train(small_model(), initial_epoch=2, epochs=4, validation_data=(X, Y))
    assert history.epoch == [2, 3]
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae", "learning_rate"}
    assert all(len(values) == 2 for values in history.history.values())
    assert all(type(value) is float for values in history.history.values() for value in values)
    assert history.interrupted is False


class TestEarlyStopping:
    @pytest.mark.parametrize(
        ("arguments", "values", "stopped", "best"),
        [
            # As in Keras: the first epoch that is no better stops, unless there is patience.
            ({}, [3, 2, 2, 1], 2, 1),
            ({"patience": 1}, [3, 2, 2, 1], 2, 1),
            ({"patience": 2}, [3, 2, 2, 1, 1, 1], 5, 3),
            ({"patience": 3}, [3, 2, 2.5, 2.4, 1, 4, 4], None, 4),
            # Improvements of at most min_delta do not count, and do not move the best value.
            ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.5, 2.4], 2, 0),
            ({"patience": 3, "min_delta": 0.5}, [3, 2.6, 2.5, 2.4, 9], None, 3),
            ({"mode": "max"}, [1, 2, 3, 3], 3, 2),
            ({"mode": "max", "patience": 2, "min_delta": 0.5}, [1, 1.4, 1.6, 1.7, 1.8], 4, 2),
            # NaN is never better, not even than nothing.
            ({"patience": 2}, [float("nan"), float("nan"), 1], 1, None),
            ({"patience": 2}, [1, float("nan"), 0.5, 0.6], None, 2),
            ({"patience": 2, "mode": "max"}, [-5, -4, -6, -6], 3, 1),
        ],
    )
    def test_when_it_stops(self, arguments, values, stopped, best):
        stopping = EarlyStopping(**arguments)
        model = replay(stopping, values)
        assert stopping.stopped_epoch == stopped
        assert stopping.best_epoch == best
        assert model.stop_training is (stopped is not None)
        if best is not None:
            assert stopping.best == values[best]

    @pytest.mark.parametrize(
        ("monitor", "rises"),
        [
            ("loss", False),
            ("val_loss", False),
            ("val_mae", False),
            ("mse", False),
            ("val_accuracy", True),
            ("acc", True),
            ("val_r2", True),
        ],
    )
    def test_auto_mode(self, monitor, rises):
        rising = EarlyStopping(monitor)
        replay(rising, [1.0, 2.0], monitor)
        assert (rising.stopped_epoch is None) is rises
        falling = EarlyStopping(monitor)
        replay(falling, [2.0, 1.0], monitor)
        assert (falling.stopped_epoch is None) is not rises

    def test_auto_mode_does_not_guess(self):
        message = (
            "^EarlyStopping: cannot tell whether 'val_score' should fall or rise; "
            "give mode='min' or mode='max'$"
        )
        with pytest.raises(ValueError, match=message):
            EarlyStopping("val_score")
        EarlyStopping("val_score", mode="max")

    @pytest.mark.parametrize("values", [[3, 1, 2, 2], [3, 1, 2]])
    def test_best_weights_come_back_whether_stopped_or_not(self, values):
        stopping = EarlyStopping(patience=2, restore_best_weights=True)
        assert replay(stopping, values).weights == 1

    def test_last_weights_stay_unless_asked(self):
        assert replay(EarlyStopping(patience=2), [3, 1, 2, 2]).weights == 3

    def test_nothing_to_restore_without_a_best_epoch(self):
        stopping = EarlyStopping(patience=5, restore_best_weights=True)
        assert replay(stopping, [float("nan"), float("nan")]).weights == 1

    def test_a_second_training_starts_afresh(self):
        stopping = EarlyStopping(patience=1, restore_best_weights=True)
        replay(stopping, [0.1, 0.2])
        model = replay(stopping, [5, 4, 6])
        assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (4, 1, 2)
        assert model.weights == 1

    def test_missing_figure(self):
        message = "^EarlyStopping: nothing reports 'val_loss'; available: loss, mae, learning_rate$"
        with pytest.raises(ValueError, match=message):
            train(small_model(), EarlyStopping())

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"patience": -1}, ValueError, "EarlyStopping: patience must be at least 0, got -1"),
            ({"patience": 1.5}, TypeError, "EarlyStopping: patience must be an integer, got 1.5"),
            ({"min_delta": -1}, ValueError, "EarlyStopping: min_delta must be at least 0, got -1"),
            (
                {"mode": "up"},
                ValueError,
                "EarlyStopping: mode must be 'auto', 'min' or 'max', got 'up'",
            ),
        ],
    )
    def test_arguments_refused(self, arguments, error, message):
        with pytest.raises(error, match=f"^{message}$"):
            EarlyStopping(**arguments)

    def test_the_model_of_fit_has_the_best_weights(self):
        model = small_model(learning_rate=0.9)  # too fast to improve in every epoch
        stopping = EarlyStopping(patience=3, restore_best_weights=True)
        history = train(model, stopping, epochs=200, validation_data=(X, Y))
        losses = history.history["val_loss"]
        best = int(np.argmin(losses))
        assert stopping.stopped_epoch == history.epoch[-1] == best + 3 < 199
        loss = model.evaluate(X, Y)["loss"]
        assert loss == pytest.approx(losses[best], rel=1e-6)
        assert loss < losses[-1]


class TestModelCheckpoint:
    def test_every_epoch(self, tmp_path):
        path = tmp_path / "m-{epoch:02d}-{val_loss:.2f}-{{x}}"
        model = replay(ModelCheckpoint(path), [0.5, 0.25, 0.75])
        names = ["m-01-0.50-{x}", "m-02-0.25-{x}", "m-03-0.75-{x}"]
        assert model.saved == [str(tmp_path / name) for name in names]

    @pytest.mark.parametrize(
        ("arguments", "values", "epochs"),
        [
            ({}, [3, 2, 2, 4, 1], [1, 2, 5]),
            ({"mode": "max"}, [3, 2, 4, 4, 5], [1, 3, 5]),
            ({"monitor": "val_accuracy"}, [0.5, 0.4, 0.6], [1, 3]),
            ({}, [float("nan"), 2, float("nan")], [2]),
        ],
    )
    def test_best_only(self, arguments, values, epochs):
        checkpoint = ModelCheckpoint("{epoch}", save_best_only=True, **arguments)
        model = replay(checkpoint, values, arguments.get("monitor", "val_loss"))
        assert model.saved == [str(epoch) for epoch in epochs]

    def test_the_best_outlives_a_training(self):
        # As in Keras, so that a continued training does not overwrite a better model.
        checkpoint = ModelCheckpoint("{val_loss}", save_best_only=True)
        model = replay(checkpoint, [2.0, 1.0])
        assert replay(checkpoint, [1.5, 0.5], model=model).saved == ["2.0", "1.0", "0.5"]

    def test_nothing_is_monitored_unless_asked(self):
        model = replay(ModelCheckpoint("m", monitor="anything"), [1.0])
        assert model.saved == ["m"]

    def test_missing_figure(self):
        message = "^ModelCheckpoint: nothing reports 'val_mae'; available: loss, val_loss$"
        with pytest.raises(ValueError, match=message):
            replay(ModelCheckpoint("m", monitor="val_mae", save_best_only=True), [1.0])

    @pytest.mark.parametrize(("path", "field"), [("m-{val_mae}", "val_mae"), ("m-{}", ".*")])
    def test_missing_figure_in_the_path(self, path, field):
        message = (
            rf"^ModelCheckpoint: nothing reports {{{field}}} in '.*'; available: epoch, loss, "
        )
        with pytest.raises(ValueError, match=message):
            replay(ModelCheckpoint(path), [1.0])

    def test_arguments_refused(self):
        with pytest.raises(ValueError, match=r"^ModelCheckpoint: mode must be 'auto', 'min' or"):
            ModelCheckpoint("m", save_best_only=True, mode="best")
        with pytest.raises(ValueError, match=r"^ModelCheckpoint: cannot tell whether 'x' should"):
            ModelCheckpoint("m", monitor="x", save_best_only=True)

    def test_the_file_is_the_model_of_its_epoch(self, tmp_path):
        seen = []
        model = small_model()
        train(
            model,
            ModelCheckpoint(tmp_path / "{epoch}.safetensors"),
            lambda epoch, logs: seen.append(model.predict(X)),
        )
        for epoch, expected in enumerate(seen):
            loaded = fm.load(tmp_path / f"{epoch + 1}.safetensors")
            np.testing.assert_array_equal(loaded.predict(X), expected)

    def test_a_path_that_cannot_be_written(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            train(small_model(), ModelCheckpoint(tmp_path / "nowhere" / "m.safetensors"))


class TestLearningRateScheduler:
    def test_it_acts_before_the_epoch(self):
        seen = []

        def rule(epoch, rate):
            seen.append((epoch, rate))
            return rate * 0.5

        model = small_model(learning_rate=0.8)
        history = train(model, LearningRateScheduler(rule))
        assert seen == [(0, 0.8), (1, 0.4), (2, 0.2)]
        assert history.history["learning_rate"] == [0.4, 0.2, 0.1]

    def test_the_rate_is_the_one_that_trains(self):
        model, reference = small_model(0.1), small_model(0.1)
        train(model, LearningRateScheduler(lambda epoch, rate: [0.1, 0.0, 0.0][epoch]))
        train(reference, epochs=1)
        assert_same_bits(model.get_weights(), reference.get_weights())

    @pytest.mark.parametrize(
        ("rate", "error", "message"),
        [
            (-1.0, ValueError, "the new learning rate must be at least 0, got -1"),
            (float("nan"), ValueError, "the new learning rate must be finite, got nan"),
            (None, TypeError, "the new learning rate must be a number, got None"),
        ],
    )
    def test_a_bad_rate_changes_nothing(self, rate, error, message):
        model = small_model(0.25)
        with pytest.raises(error, match=f"^LearningRateScheduler: {message}$"):
            train(model, LearningRateScheduler(lambda epoch, current: rate))
        assert fm.schedules.get(model.optimizer.learning_rate)(0) == 0.25

    def test_a_schedule_is_not_overruled(self):
        model = small_model(fm.schedules.CosineDecay(0.1, 100))
        message = "^LearningRateScheduler: the optimizer follows a schedule, CosineDecay$"
        with pytest.raises(ValueError, match=message):
            train(model, LearningRateScheduler(lambda epoch, rate: rate))


class TestCSVLogger:
    def test_what_fit_writes(self, tmp_path):
        path = tmp_path / "log.csv"
        history = train(small_model(), CSVLogger(path), validation_data=(X, Y))
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [int(line.pop("epoch")) for line in lines] == history.epoch
        for i, line in enumerate(lines):  # in full precision
            assert {k: float(v) for k, v in line.items()} == {
                k: v[i] for k, v in history.history.items()
            }

    def test_each_row_is_there_at_once(self, tmp_path):
        path = tmp_path / "log.csv"
        logger = CSVLogger(path)
        logger.on_train_begin({})
        for epoch in range(3):
            logger.on_epoch_end(epoch, {"loss": 0.5})
            assert path.read_text() == "epoch,loss\n" + "".join(
                f"{e},0.5\n" for e in range(epoch + 1)
            )

    def test_replace_or_append(self, tmp_path):
        path = tmp_path / "log.csv"
        replay(CSVLogger(path), [1.0])
        replay(CSVLogger(path), [2.0, 3.0])
        assert path.read_text() == "epoch,loss,val_loss\n0,9.0,2.0\n1,9.0,3.0\n"
        replay(CSVLogger(path, append=True), [4.0])
        assert path.read_text() == "epoch,loss,val_loss\n0,9.0,2.0\n1,9.0,3.0\n0,9.0,4.0\n"

    def test_append_to_nothing_begins_with_the_columns(self, tmp_path):
        path = tmp_path / "log.csv"
        replay(CSVLogger(path, append=True), [1.0])
        assert path.read_text() == "epoch,loss,val_loss\n0,9.0,1.0\n"

    def test_append_keeps_the_order_of_the_columns(self, tmp_path):
        path = tmp_path / "log.csv"
        path.write_text("val_loss,epoch,loss\n")
        replay(CSVLogger(path, append=True), [1.0])
        assert path.read_text() == "val_loss,epoch,loss\n1.0,0,9.0\n"

    def test_other_columns_leave_the_file_alone(self, tmp_path):
        path = tmp_path / "log.csv"
        path.write_text("epoch,loss\n0,1.0\n")
        message = (
            "log.csv has the columns epoch, loss, but this training reports epoch, loss, val_loss$"
        )
        with pytest.raises(ValueError, match=message):
            replay(CSVLogger(path, append=True), [1.0])
        assert path.read_text() == "epoch,loss\n0,1.0\n"

    def test_a_bad_path_is_known_before_training(self, tmp_path):
        logger = CSVLogger(tmp_path / "nowhere" / "log.csv")
        model = small_model()
        model.build(4)
        before = model.get_weights()
        with pytest.raises(FileNotFoundError, match="nowhere"):
            train(model, logger)
        assert_same_bits(model.get_weights(), before)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def show(progress, epochs=2, first=0, samples=100):
    """Report a training whose loss is 0.5, 0.25, ..., and validation loss twice that."""
    for epoch in range(first, epochs):
        progress.begin_epoch(epoch, epochs, samples)
        loss = 0.5 ** (epoch + 1)
        for done in (samples // 2, samples):
            progress.update(done, {"loss": loss, "accuracy": 0.75, "learning_rate": 0.1})
        progress.end_epoch({"loss": loss, "val_loss": 2 * loss, "learning_rate": 0.1})


class TestProgress:
    def test_lines(self):
        file = io.StringIO()
        progress = Progress(2, file)
        show(progress, epochs=3, first=1)
        progress.close()
        first, second = file.getvalue().splitlines()
        assert first.startswith("epoch 2/3: loss 0.2500, val_loss 0.5000, ")
        assert second.startswith("epoch 3/3: loss 0.1250, val_loss 0.2500, ")
        assert first.endswith(" samples/s")

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0.0, "0.0000"),
            (1 / 3, "0.3333"),
            (123.456, "123.4560"),
            (0.0002, "2.0000e-04"),
            (-0.0002, "-2.0000e-04"),
            (float("nan"), "nan"),
        ],
    )
    def test_small_values_are_not_hidden(self, value, shown):
        file = io.StringIO()
        progress = Progress(2, file)
        progress.begin_epoch(0, 1, 10)
        progress.update(10, {"loss": value})
        progress.end_epoch({"loss": value})
        assert file.getvalue().startswith(f"epoch 1/1: loss {shown}, ")

    def test_samples_per_second_leave_validation_out(self, monkeypatch):
        now = iter([0.0, 0.0, 1.0, 2.0, 2.0, *[50.0] * 9])  # 100 rows took 2 s of training
        monkeypatch.setattr("time.perf_counter", lambda: next(now))
        file = io.StringIO()
        progress = Progress(2, file)
        show(progress, epochs=1)
        assert file.getvalue().endswith(", 50 samples/s\n")

    def test_the_bar_shows_all_there_is(self):
        file = Terminal()
        progress = Progress("auto", file)
        progress.begin_epoch(0, 4, 100)
        progress.update(100, {"loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1})
        shown = file.getvalue().rpartition("\r")[2]
        progress.close()
        assert shown.startswith("epoch 1/4 ")
        assert "samples/s, " in shown
        assert " left, loss 0.5000, accuracy 0.7500" in shown
        assert "learning_rate" not in shown
        # A quarter of all epochs: of the ten characters two are full and one is half full.
        assert shown.split()[2] == "██▌"

    def test_the_bar_covers_the_epochs_that_are_to_come(self, monkeypatch):
        monkeypatch.setattr(Progress, "BAR_SECONDS", 0.0)
        file = Terminal()
        progress = Progress("auto", file)
        progress.begin_epoch(2, 7, 100)
        progress.update(100, {})
        progress.begin_epoch(3, 7, 100)
        progress.update(50, {})
        shown = file.getvalue().rpartition("\r")[2]
        progress.close()
        assert shown.startswith("epoch 4/7 ")
        assert shown.split()[2] == "███"  # 150 of 500 rows

    def test_the_bar_is_gone_in_the_end_and_the_last_epoch_stays(self):
        file = Terminal()
        progress = Progress("auto", file)
        show(progress, epochs=5)
        progress.close()
        lines = file.getvalue().splitlines()
        assert any(line == "epoch 5/5: loss 0.0312, val_loss 0.0625" for line in lines)
        assert lines[-1].strip() == ""
        before = file.getvalue()
        progress.close()
        assert file.getvalue() == before

    @pytest.mark.parametrize(
        ("seconds", "lines"),
        # Half a second apart at least: of epochs of 0.3 s every other one, and the last.
        [(0.6, [1, 2, 3, 4, 5, 6, 7]), (0.3, [2, 4, 6, 7]), (0.01, [7])],
    )
    def test_fast_epochs_share_a_line(self, monkeypatch, seconds, lines):
        now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: now)
        file = Terminal()
        progress = Progress("auto", file)
        for epoch in range(7):
            progress.begin_epoch(epoch, 7, 100)
            progress.update(50, {"loss": 1.0})
            now += seconds
            progress.update(100, {"loss": 1.0})
            progress.end_epoch({"loss": 1.0, "val_loss": 1.0})
        progress.close()
        shown = [line for line in file.getvalue().splitlines() if "val_loss" in line]
        assert [line.split("/")[0] for line in shown] == [f"epoch {epoch}" for epoch in lines]

    def test_fast_steps_share_a_drawing_of_the_bar(self, monkeypatch):
        now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: now)
        file = Terminal()
        progress = Progress("auto", file)
        progress.begin_epoch(0, 1, 1000)
        before = file.getvalue().count("\r")
        for step in range(1000):
            now += 0.01
            progress.update(step + 1, {"loss": 1.0})
        drawn = file.getvalue().count("\r") - before
        progress.close()
        assert 80 <= drawn <= 101  # ten a second, in ten seconds

    def test_figures_added_later_are_not_shown(self):
        file = Terminal()
        progress = Progress("auto", file)
        logs = {"loss": 1.0}
        progress.begin_epoch(0, 1, 10)
        progress.end_epoch(logs)
        logs["a callback's own"] = "no number"
        progress.close()
        assert "epoch 1/1: loss 1.0000" in file.getvalue()

    def test_quiet_without_a_terminal(self):
        file = io.StringIO()
        progress = Progress("auto", file)
        show(progress)
        progress.close()
        assert file.getvalue() == ""

    def test_quiet_when_told(self):
        file = Terminal()
        progress = Progress(0, file)
        show(progress)
        progress.close()
        assert file.getvalue() == ""

    @pytest.mark.parametrize("verbose", ["auto", 1, 2])
    def test_quiet_without_a_console(self, monkeypatch, capsys, verbose):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", None)
            progress = Progress(verbose)
            show(progress)
            progress.close()
        assert capsys.readouterr() == ("", "")

    def test_standard_error_is_the_default(self, capsys):
        show(Progress(2), epochs=1)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("epoch 1/1: loss 0.5000, ")

    @pytest.mark.parametrize("verbose", [3, -1, "yes", None])
    def test_arguments_refused(self, verbose):
        with pytest.raises(ValueError, match=r"^verbose must be 'auto', 0, 1 or 2, got "):
            Progress(verbose)

    def test_a_fit_that_fails_takes_the_bar_away(self, monkeypatch):
        file = Terminal()
        monkeypatch.setattr(sys, "stderr", file)

        def fails(epoch, logs):
            raise RuntimeError("own trouble")

        with pytest.raises(RuntimeError, match="^own trouble$"):
            train(small_model(), fails, verbose=1)
        assert file.getvalue().splitlines()[-1].strip() == ""

    def test_tqdm_is_imported_by_a_bar_alone(self):
        program = (
            "import sys, fastmlp as fm; p = fm.callbacks.Progress(2); p.begin_epoch(0, 1, 1); "
            "p.end_epoch({}); p.close(); sys.exit('tqdm' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
