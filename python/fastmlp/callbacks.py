"""What may happen at the beginning and end of training, epochs and batches."""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np

from fastmlp import metrics, schedules
from fastmlp._config import check_integer, check_number

if TYPE_CHECKING:
    from fastmlp.sequential import Model

Logs = dict[str, Any]  # of floats; of an ensemble, of arrays of a number for each network
Function = Callable[[int, Logs], Any]


class Callback:
    """Something that `fit` calls as training goes on; override what is of interest.

    Each method is called between two steps, so the model is whole and may be read, saved, or given
    other weights. A callback ends training after the current epoch by setting
    `self.model.stop_training = True`. A plain function `f(epoch, logs)` serves as a callback too,
    called at each epoch's end.

    Attributes
    ----------
    model : Sequential or Ensemble
        The model being trained.

    Notes
    -----
    `logs` is a dict such as ``{"loss": ..., "accuracy": ..., "val_loss": ..., "learning_rate":
    ...}``. Epochs and steps count from 0. The figures of an `Ensemble` are arrays of n, one number
    for each network; where the callbacks of this module need one, they take the mean.

    Examples
    --------
    >>> import fastmlp as fm
    >>> class StopWhenGood(fm.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         self.model.stop_training = logs["loss"] < 0.1
    """

    model: Model[Any]

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch; `logs` is empty."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch, also when training was stopped or interrupted."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch; `logs` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_batch_end(self, step: int, logs: Logs) -> None:
        """After a step; a callback that overrides this makes `fit` run one step at a time."""


class _FunctionCallback(Callback):
    """A plain function, called at each epoch's end."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.function(epoch, logs)


class CallbackList(Callback):
    """Several callbacks as one: each is called in the order given, a `History` after them all.

    Parameters
    ----------
    callbacks : iterable of Callback or function, or a single one, or None
        A function is called as `f(epoch, logs)` at each epoch's end.
    model : Sequential or Ensemble
        What each callback finds as `model`.

    Attributes
    ----------
    history : History
        The last of the callbacks, so that figures which others add to `logs` are kept as well.
    per_batch : bool
        Whether one of them wants to hear of every step.

    Raises
    ------
    TypeError
        If something is no callback, or a class in place of an object.

    Examples
    --------
    >>> import fastmlp as fm
    >>> losses = []
    >>> callbacks = fm.callbacks.CallbackList(
    ...     [lambda epoch, logs: losses.append(logs["loss"])], model=fm.Sequential()
    ... )
    >>> callbacks.on_epoch_end(0, {"loss": 0.5})
    >>> losses, callbacks.per_batch
    ([0.5], False)
    """

    def __init__(
        self,
        callbacks: Callback | Function | Iterable[Callback | Function] | None,
        model: Model[Any],
    ) -> None:
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, Iterable):
            callbacks = [callbacks]
        self.history = History()
        self.callbacks = [*map(self._as_callback, callbacks), self.history]
        self.model = model
        for callback in self.callbacks:
            callback.model = model
        self.per_batch = any(
            type(callback).on_batch_end is not Callback.on_batch_end for callback in self.callbacks
        )

    @staticmethod
    def _as_callback(callback: Callback | Function) -> Callback:
        if isinstance(callback, Callback):
            return callback
        if callable(callback) and not isinstance(callback, type):
            return _FunctionCallback(callback)
        kind = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
        raise TypeError(f"callbacks: expected a Callback or a function f(epoch, logs), got {kind}")

    def on_train_begin(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_train_end(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def on_batch_end(self, step: int, logs: Logs) -> None:
        for callback in self.callbacks:
            callback.on_batch_end(step, logs)


class History(Callback):
    """What training reported, epoch by epoch; `fit` returns one.

    Attributes
    ----------
    epoch : list of int
        The epochs that were completed.
    history : dict of list of float
        For each figure its values, in the order of `epoch`; of an `Ensemble`, arrays of n.
    interrupted : bool
        Whether Ctrl-C ended the training.

    Examples
    --------
    >>> import fastmlp as fm
    >>> history = fm.callbacks.History()
    >>> history.on_epoch_end(0, {"loss": 0.5, "val_loss": 0.6})
    >>> history.on_epoch_end(1, {"loss": 0.4, "val_loss": 0.5})
    >>> history.epoch, history.history
    ([0, 1], {'loss': [0.5, 0.4], 'val_loss': [0.6, 0.5]})
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


def _means(logs: Logs) -> dict[str, float]:
    """Return one number for each figure: of an ensemble, the mean over its networks."""
    return {name: _mean(value) for name, value in logs.items()}


def _mean(figure: Any) -> Any:
    return float(figure.mean()) if isinstance(figure, np.ndarray) else figure


class _Monitor:
    """The best value so far of one of the figures in `logs`."""

    def __init__(self, owner: str, name: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{owner}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        self.owner, self.name, self.min_delta = owner, name, min_delta
        self.sign = 1 if (self._usual_mode() if mode == "auto" else mode) == "max" else -1
        self.best = -self.sign * math.inf

    def _usual_mode(self) -> str:
        figure = self.name.removeprefix("val_")
        mode = "min" if figure == "loss" else metrics.mode(figure)
        if mode is None:
            raise ValueError(
                f"{self.owner}: cannot tell whether '{self.name}' should fall or rise; "
                "give mode='min' or mode='max'"
            )
        return mode

    def improves(self, logs: Logs) -> bool:
        """Take in an epoch's value; NaN is never an improvement."""
        if self.name not in logs:
            known = ", ".join(logs) or "nothing"
            raise ValueError(f"{self.owner}: nothing reports '{self.name}'; available: {known}")
        value = _mean(logs[self.name])
        if self.sign * value > self.sign * self.best + self.min_delta:
            self.best = value
            return True
        return False


class EarlyStopping(Callback):
    """End training when a figure has stopped getting better.

    In an `Ensemble` that is the mean over its networks, which all end together.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The entry of `logs` to watch.
    min_delta : float, default 0.0
        By how much a value must beat the best one to count as better.
    patience : int, default 0
        How many epochs in a row may pass without a better value; one more ends training.
    mode : {"auto", "min", "max"}, default "auto"
        Whether small or large values are good; "auto" knows losses and the metrics of `fm.metrics`.
    restore_best_weights : bool, default False
        Whether to give the model, at the end of training however it came about, the weights of its
        best epoch. The optimizer's moments stay those of the last step.

    Attributes
    ----------
    best : float
        The best value so far, infinity (of the bad sign) before the first.
    best_epoch : int or None
        Its epoch.
    stopped_epoch : int or None
        The epoch after which training was ended, None if it was not.

    Raises
    ------
    ValueError
        If an argument makes no sense, "auto" cannot know, or nothing reports `monitor`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> model = fm.Sequential([fm.Dense(8, activation="relu"), fm.Dense(1)], seed=0)
    >>> model.compile(optimizer="adam", loss="mse")
    >>> stopping = fm.callbacks.EarlyStopping("loss", min_delta=0.5, patience=3)
    >>> history = model.fit(x, x.sum(axis=1), epochs=1000, callbacks=[stopping], verbose=0)
    >>> stopping.stopped_epoch == history.epoch[-1] == stopping.best_epoch + 3
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        self.monitor = monitor
        self.min_delta = check_number("EarlyStopping: min_delta", min_delta, at_least=0)
        self.patience = check_integer("EarlyStopping: patience", patience, at_least=0)
        self.mode = mode
        self.restore_best_weights = restore_best_weights
        self._reset()

    def _reset(self) -> None:
        self._monitor = _Monitor("EarlyStopping", self.monitor, self.mode, self.min_delta)
        self._waited = 0
        self._best_weights: list[Any] | None = None
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self._monitor.improves(logs):
            self._waited = 0
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._best_weights = self.model.get_weights()
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)


class ModelCheckpoint(Callback):
    """Save the model after each epoch.

    Parameters
    ----------
    path : str or path
        Where to; may hold `{epoch}` (counted from 1) and figures, with formats: a path such as
        ``"digits-{epoch:03d}-{val_loss:.4f}.safetensors"``.
    monitor : str, default "val_loss"
        The entry of `logs` that `save_best_only` watches.
    save_best_only : bool, default False
        Whether to save only after an epoch that is better than all before it, also in earlier calls
        of `fit` with the same callback.
    mode : {"auto", "min", "max"}, default "auto"
        Whether small or large values are good; "auto" knows losses and the metrics of `fm.metrics`.

    Raises
    ------
    ValueError
        If an argument makes no sense, "auto" cannot know, or nothing reports `monitor` or a figure
        in `path`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1)], seed=0)
    >>> model.compile(optimizer="sgd", loss="mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = fm.callbacks.ModelCheckpoint(folder + "/{epoch:02d}.safetensors")
    ...     _ = model.fit(np.eye(4), np.ones(4), epochs=2, callbacks=[checkpoint], verbose=0)
    ...     sorted(os.listdir(folder))
    ['01.safetensors', '02.safetensors']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: Literal["auto", "min", "max"] = "auto",
    ) -> None:
        self.path = os.fspath(path)
        self._monitor = _Monitor("ModelCheckpoint", monitor, mode) if save_best_only else None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        try:
            path = self.path.format(**{**_means(logs), "epoch": epoch + 1})
        except (KeyError, IndexError) as error:
            known = ", ".join(["epoch", *logs])
            raise ValueError(
                f"ModelCheckpoint: nothing reports {{{error.args[0]}}} in '{self.path}'; "
                f"available: {known}"
            ) from None
        if self._monitor is None or self._monitor.improves(logs):
            self.model.save(path)


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    A schedule of `fm.schedules` changes it from step to step and is stored with the model; this is
    for a rule of one's own.

    Parameters
    ----------
    function : callable
        (epoch, learning rate so far) -> learning rate.

    Raises
    ------
    TypeError
        If the function returns no number.
    ValueError
        If it returns NaN or less than 0, the optimizer follows a schedule already, or the model is
        an `Ensemble` with learning rates of its own for each network.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1)], seed=0)
    >>> model.compile(optimizer=fm.SGD(0.1), loss="mse")
    >>> halve = fm.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    >>> history = model.fit(np.eye(4), np.ones(4), epochs=3, callbacks=[halve], verbose=0)
    >>> history.history["learning_rate"]
    [0.1, 0.05, 0.025]
    """

    def __init__(self, function: Callable[[int, float], float]) -> None:
        self.function = function

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        if self.model._learning_rates is not None:
            raise ValueError(
                "LearningRateScheduler: the networks of this Ensemble have learning rates of their "
                "own"
            )
        optimizer: Any = self.model.optimizer
        current = schedules.get(optimizer.learning_rate)
        if not isinstance(current, schedules.Constant):
            name = type(current).__name__
            raise ValueError(f"LearningRateScheduler: the optimizer follows a schedule, {name}")
        rate = self.function(epoch, current.learning_rate)
        optimizer.learning_rate = check_number(
            "LearningRateScheduler: the new learning rate", rate, at_least=0
        )


class CSVLogger(Callback):
    """Write each epoch as a row of a CSV file, which is complete whenever it is read.

    Parameters
    ----------
    path : str or path
        Where to; an existing file is replaced.
    append : bool, default False
        Whether to add rows to an existing file instead, whose columns must be the same.

    Raises
    ------
    ValueError
        If the columns of the file are others.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastmlp as fm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "log.csv"
    ...     logger = fm.callbacks.CSVLogger(path)
    ...     logger.on_train_begin({})
    ...     logger.on_epoch_end(0, {"loss": 0.5, "val_loss": 0.25})
    ...     print(path.read_text(), end="")
    epoch,loss,val_loss
    0,0.5,0.25
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = Path(path)
        self.append = append
        self._columns: list[str] | None = None

    def on_train_begin(self, logs: Logs) -> None:
        # Opened at once, so that a bad path is known before training and not after an epoch.
        with self.path.open("a+" if self.append else "w", newline="", encoding="utf-8") as file:
            file.seek(0)
            self._columns = next(csv.reader(file), None) if self.append else None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        row = {"epoch": epoch, **_means(logs)}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            if self._columns is None:
                self._columns = list(row)
                csv.writer(file, lineterminator="\n").writerow(self._columns)
            if set(self._columns) != set(row):
                raise ValueError(
                    f"CSVLogger: {self.path} has the columns {', '.join(self._columns)}, "
                    f"but this training reports {', '.join(row)}"
                )
            csv.writer(file, lineterminator="\n").writerow(row[name] for name in self._columns)


class Progress:
    """What is seen of training: a bar in a terminal, lines, or nothing.

    The bar covers all epochs and shows the epoch, loss and metrics so far, samples per second and
    the time left. Each epoch that took a while leaves a line, and so does the last.

    Parameters
    ----------
    verbose : {"auto", 0, 1, 2}, default "auto"
        0: nothing. 1: the bar. 2: a line an epoch. "auto": the bar if `file` is a terminal, else
        nothing.
    file : text file, default sys.stderr
        Where to write.

    Raises
    ------
    ValueError
        If `verbose` is something else.

    Examples
    --------
    >>> import sys
    >>> import fastmlp as fm
    >>> progress = fm.callbacks.Progress(verbose=2, file=sys.stdout)
    >>> progress.begin_epoch(0, epochs=1, samples=100)
    >>> progress.update(100, {"loss": 0.5})
    >>> progress.end_epoch({"loss": 0.5, "val_loss": 0.25})  # doctest: +ELLIPSIS
    epoch 1/1: loss 0.5000, val_loss 0.2500, ... samples/s
    >>> progress.close()
    """

    BAR_SECONDS = 0.1  # between two looks of the bar: drawing it takes longer than a small epoch
    LINE_SECONDS = 0.5  # epochs faster than this share a line, so that thousands do not scroll by

    def __init__(
        self, verbose: Literal["auto", 0, 1, 2] = "auto", file: TextIO | None = None
    ) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2, got {verbose!r}")
        self._file = sys.stderr if file is None else file
        if self._file is None:  # Python without a console, as under pythonw
            verbose = 0
        elif verbose == "auto":
            verbose = 1 if self._file.isatty() else 0
        self._verbose = verbose
        self._bar: Any = None
        self._bar_time = -math.inf
        self._ended: tuple[str, Logs] | None = None  # the last epoch, while it has no line
        self._line_time = time.perf_counter()

    def begin_epoch(self, epoch: int, epochs: int, samples: int) -> None:
        """Say that an epoch begins.

        Parameters
        ----------
        epoch : int
            Its index, from 0.
        epochs : int
            Index of the last one plus 1.
        samples : int
            Rows in an epoch.
        """
        self._title = f"epoch {epoch + 1}/{epochs}"
        self._samples = samples
        self._begun = self._trained = time.perf_counter()
        if self._verbose == 1 and self._bar is None:
            from tqdm import tqdm  # here, since it takes a while and most programs need none

            self._first = epoch
            self._bar = tqdm(
                total=(epochs - epoch) * samples,
                desc=self._title,
                unit=" samples",
                unit_scale=True,
                mininterval=0,
                miniters=0,
                leave=False,
                dynamic_ncols=True,
                file=self._file,
                bar_format="{desc} {bar} {rate_noinv_fmt}, {remaining} left{postfix}",
            )
        self._before = 0 if self._bar is None else (epoch - self._first) * samples

    def update(self, samples_done: int, logs: Logs) -> None:
        """Say how many of the epoch's rows are done, and the figures so far."""
        self._trained = time.perf_counter()
        if self._bar is not None and self._trained - self._bar_time >= self.BAR_SECONDS:
            self._bar_time = self._trained
            self._bar.set_description_str(self._title, refresh=False)
            self._bar.set_postfix_str(_figures(logs), refresh=False)
            self._bar.update(self._before + samples_done - self._bar.n)

    def end_epoch(self, logs: Logs) -> None:
        """Say that the epoch and its validation are over, and with which figures."""
        if self._verbose == 2:
            rate = self._samples / max(self._trained - self._begun, 1e-9)
            line = f"{self._title}: {_figures(logs)}, {rate:,.0f} samples/s"
            print(line, file=self._file, flush=True)
        elif self._verbose == 1:
            self._ended = self._title, dict(logs)
            if time.perf_counter() - self._line_time >= self.LINE_SECONDS:
                self._leave_line()

    def _leave_line(self) -> None:
        if self._ended is not None:
            title, logs = self._ended
            # Without the rate, which the bar shows, an accuracy and both losses fit 80 columns.
            self._bar.write(f"{title}: {_figures(logs)}", file=self._file)
            self._ended = None
            self._line_time = time.perf_counter()

    def close(self) -> None:
        """Take the bar away and leave the last epoch's line; safe to call twice."""
        self._leave_line()
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _figures(logs: Logs) -> str:
    """Format figures like Keras: four decimals, or an exponent for what they would hide."""
    return ", ".join(
        f"{name} {value:.4f}" if value == 0 or abs(value) > 1e-3 else f"{name} {value:.4e}"
        for name, value in _means(logs).items()
        if name != "learning_rate"
    )
