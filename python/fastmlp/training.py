"""The loops behind `Sequential.fit`, `train_on_batch` and `evaluate`."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, isfinite
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastmlp import kernels
from fastmlp._config import check_integer, check_number
from fastmlp.callbacks import Callback, CallbackList, History, Progress
from fastmlp.device import Array, to_host
from fastmlp.engine import Engine
from fastmlp.layers import Dense, Dropout, Flatten
from fastmlp.losses import Loss, Reduction, row_weights
from fastmlp.metrics import Metric
from fastmlp.metrics import get as get_metric
from fastmlp.optimizers import Optimizer

if TYPE_CHECKING:
    from fastmlp.sequential import Model

Verbosity = Literal["auto", 0, 1, 2]

# Training comes back to Python this often, for the progress bar, callbacks and Ctrl-C.
_SECONDS_PER_CALL = 0.05
# Learning rates are computed for this many steps at a time where they vary.
_RATES_PER_CALL = 1 << 16


@dataclass
class _Data:
    """Rows with their targets and weights, as the core takes them."""

    x: Array
    target: Array  # for a loss of one's own, as given
    weight: Array | None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Any) -> _Data:
        """Return some of the rows."""
        return _Data(
            self.x[index], self.target[index], None if self.weight is None else self.weight[index]
        )


def _compiled(model: Model[Any], operation: str) -> tuple[Loss, Optimizer]:
    if model.loss is None or model.optimizer is None:
        raise RuntimeError(f"{operation}: call compile first")
    return model.loss, model.optimizer


def _prepare(
    model: Model[Any],
    operation: str,
    x: Any,
    y: Any,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None = None,
    check_finite: bool = False,
) -> _Data:
    """Check and convert what the caller gave."""
    loss, _ = _compiled(model, operation)
    device = model._device
    target = device.real_array(operation, "y", y)
    if target.ndim == 0:
        raise ValueError(f"{operation}: y must have a target for each row, got a single value")
    rows = device.real_array(operation, "x", x)
    if rows.ndim and len(rows) != len(target):
        raise ValueError(f"{operation}: x has {len(rows)} rows, but y has {len(target)}")
    if rows.ndim and not len(rows):
        raise ValueError(f"{operation}: there are no rows")
    weight = row_weights(operation, sample_weight, len(target), model.dtype, device)
    rows = model._rows(operation, rows, finite=check_finite)
    if check_finite and target.dtype.kind == "f":
        model._check_finite(operation, "y", target.reshape(len(target), -1))
    if loss.native:
        target = loss.target(target, len(rows), model._engine.outputs, model.dtype)
        _check_ending(model, loss, target)
    if class_weight is not None:
        by_class = _class_weights(model, operation, class_weight, target, loss.signed)
        weight = by_class if weight is None else weight * by_class
    return _Data(rows, target, weight)


def _check_ending(model: Model[Any], loss: Loss, target: Array) -> None:
    """Have the core refuse a loss or a metric that does not go with the network's ending."""
    model._engine.check(target, loss, _native_names(model.metrics))


def _class_weights(
    model: Model[Any],
    operation: str,
    class_weight: Mapping[int, float],
    target: Array,
    signed: bool,
) -> Array:
    """Return a weight for each row by its class: a label, the largest probability, or 0 and 1.

    Of signed targets, -1 and 1, the classes are 0 and 1 as well.
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"{operation}: class_weight must be a dict of class to weight, "
            f"got {type(class_weight).__name__}"
        )
    one_hot = target.ndim == 2 and target.shape[1] > 1
    labels = target.argmax(axis=1) if one_hot else target.reshape(len(target))
    if signed:
        labels = labels > 0
    classes = max(model._engine.outputs, 2)
    weight = model._device.xp.ones(len(labels), model.dtype)
    for label, value in class_weight.items():
        if label not in range(classes):
            raise ValueError(f"{operation}: class_weight has {label!r}, outside 0..{classes - 1}")
        weight[labels == label] = check_number(
            f"{operation}: class_weight of {label}", value, at_least=0
        )
    return weight


def _native_names(metrics: Iterable[Metric]) -> list[str]:
    """Return what the core is asked to sum, after the loss."""
    return [name for metric in metrics if (name := metric.native)]


class _Sums:
    """Sums over rows of the loss and of each metric, and the logs made of them."""

    def __init__(self, metrics: list[Metric], reduction: Reduction = "mean") -> None:
        self.metrics = metrics
        self.reduction = reduction  # of the loss
        self.native = [i for i, metric in enumerate(metrics) if metric.native]
        self.own = [i for i, metric in enumerate(metrics) if not metric.native]
        self.rows = 0
        self.loss: Any = 0.0  # as the totals: of an ensemble, an array of a number each
        self.penalty: Any = 0.0  # of the weights; always averaged over rows
        self.totals: list[Any] = [0.0] * len(metrics)

    def take(self, rows: int, sums: Any, penalty: Any) -> None:
        """Replace the native sums by those over the rows so far: (sums,) or (networks, sums)."""
        self.rows, self.penalty = rows, penalty
        self.loss, *totals = sums.tolist() if sums.ndim == 1 else sums.T.copy()
        for i, total in zip(self.native, totals, strict=False):
            self.totals[i] = total

    def add(self, which: list[int], prediction: Array, target: Array) -> None:
        """Count some of the metrics on one batch."""
        for i in which:
            metric = self.metrics[i]
            function = get_metric(metric.native) if metric.native else metric
            self.totals[i] += function(prediction, target) * len(prediction)

    def logs(self) -> dict[str, Any]:
        """Return the averages so far, and the loss as its reduction says."""
        rows = max(self.rows, 1)
        loss = self.loss if self.reduction == "sum" else self.loss / rows
        averages = zip(self.metrics, self.totals, strict=True)
        return {"loss": loss + self.penalty / rows} | {
            m.name: _finish(m, t / rows) for m, t in averages
        }


def _finish(metric: Metric, mean: Any) -> Any:
    if isinstance(mean, np.ndarray):
        return np.array([metric.finish(each) for each in mean])
    return metric.finish(mean)


class _Interrupt:
    """While it is entered, the first Ctrl-C only sets `seen`; a second one raises as usual."""

    def __init__(self) -> None:
        self.seen = False
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


class _Steps:
    """One way of making steps: on the core alone, or with a loss or metrics of one's own."""

    def __init__(
        self, model: Model[Any], data: _Data, batch_size: int, shuffle: bool, one_by_one: bool
    ) -> None:
        self.loss, self.optimizer = _compiled(model, "fit")
        self.model, self.data = model, data
        self.batch_size, self.shuffle = batch_size, shuffle
        self.engine: Engine = model._engine
        own_metrics = any(metric.native is None for metric in model.metrics)
        self.in_python = not self.loss.native
        self.needs_batches = self.in_python or own_metrics
        self.one_by_one = one_by_one or self.needs_batches
        self._order: Array | None = None
        self.total = ceil(len(data) / batch_size)  # in an epoch

    def begin_epoch(self) -> _Sums:
        """Start at the first row."""
        self.engine.begin_epoch()
        if self.needs_batches and self.shuffle:
            epoch = int(self.engine.state["epoch"][0])
            self._order = kernels.permutation(len(self.data), self.engine.seeds[0], epoch)
        return self.sums()

    def sums(self) -> _Sums:
        """Return sums over no rows yet."""
        return _Sums(self.model.metrics, self.loss.reduction)

    def advance(self, done: int, sums: _Sums, seconds: float) -> int:
        """Make some steps from step `done` of the epoch on; return how many."""
        steps = 1 if self.one_by_one else min(self.total - done, _RATES_PER_CALL)
        if self.needs_batches:
            first = done * self.batch_size
            index: Any = slice(first, first + self.batch_size)
            batch = self.data.rows(index if self._order is None else self._order[index])
            if self.in_python:
                return self._python_step(batch, sums)
            sums.add(sums.own, self.engine.infer(batch.x), batch.target)
        plan = self.engine.training_plan(
            self.data.x,
            self.data.target,
            self.data.weight,
            self.loss,
            _native_names(sums.metrics),
            self.optimizer,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            steps=steps,
        )
        made = self.engine.train(plan, len(self.data), steps, seconds)
        if made < steps and self.engine.stopped:
            raise _NotFinite(made)
        sums.take(int(self.engine.state["row"][0]), self.engine.sums, self.engine.penalties)
        return made

    def _python_step(self, batch: _Data, sums: _Sums) -> int:
        """Make one step with a loss of one's own: the open box."""
        prediction = self.engine.forward(batch.x, True)
        value, grad = call_loss(self.loss, prediction, batch.target, batch.weight)
        value += self.engine.penalty()
        if not isfinite(value):
            self.engine.state["forward"] -= 1
            raise _NotFinite(0)
        self.model.backward(grad)
        self.engine.update(self.optimizer)
        self.engine.has_gradients = False
        sums.loss += value * len(batch)
        sums.rows += len(batch)
        sums.add([*sums.native, *sums.own], prediction, batch.target)
        return 1


class _NotFinite(Exception):
    """The loss of a step was NaN or infinite; `steps` were made before it in this call."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps


def call_loss(
    loss: Loss, prediction: Array, target: Array, weight: Array | None
) -> tuple[float, Array]:
    """Call a loss of one's own and check what it returns.

    Raises
    ------
    TypeError
        If it is not (loss, gradient).
    ValueError
        If the gradient's shape is not that of the prediction.
    """
    result: Any = loss(prediction, target, weight)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{loss.name}: a loss must return (loss, gradient), got {result!r}")
    value, gradient = result
    shape = gradient.shape if hasattr(gradient, "shape") else np.shape(gradient)
    if shape != prediction.shape:
        flat = prediction.ndim == 2 and target.shape == prediction.shape[:1]
        hint = f"; the target has shape {target.shape}: does it broadcast?" if flat else ""
        raise ValueError(
            f"{loss.name}: its gradient must have shape {prediction.shape}, got {shape}{hint}"
        )
    if getattr(value, "ndim", 0) != 0 or not hasattr(value, "__float__"):
        raise TypeError(f"{loss.name}: a loss must be a number, got {value!r}")
    return float(value), gradient


def fit(
    model: Model[Any],
    x: Any,
    y: Any,
    *,
    batch_size: int,
    epochs: int,
    validation_split: float,
    validation_data: tuple[Any, ...] | None,
    shuffle: bool,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    callbacks: Iterable[Callback | Callable[..., Any]],
    initial_epoch: int,
    check_finite: bool,
    verbose: Verbosity,
) -> History:
    """Train; see `Sequential.fit`."""
    model._check_idle("fit")
    _compiled(model, "fit")
    batch_size = check_integer("fit: batch_size", batch_size, at_least=1)
    epochs = check_integer("fit: epochs", epochs, at_least=0)
    initial_epoch = check_integer("fit: initial_epoch", initial_epoch, at_least=0)
    data = _prepare(model, "fit", x, y, sample_weight, class_weight, check_finite)
    if not model.parameters():
        raise RuntimeError("fit: this model has no parameters to train")
    _warn_of_large_inputs(model, data.x)
    data, validation = _validation(model, data, validation_split, validation_data, check_finite)

    callback = CallbackList(callbacks, model)
    history = callback.history
    steps = _Steps(model, data, batch_size, shuffle, callback.per_batch)
    progress = Progress(verbose)
    engine = model._engine
    model.history, model.stop_training = history, False
    logs: dict[str, Any] = {}
    model._fitting = True
    try:
        with _Interrupt() as interrupt:
            callback.on_train_begin({})
            for epoch in range(initial_epoch, epochs):
                callback.on_epoch_begin(epoch, {})
                progress.begin_epoch(epoch, epochs, len(data))
                sums, done = steps.begin_epoch(), 0
                while done < steps.total and not interrupt.seen:
                    try:
                        made = steps.advance(done, sums, _SECONDS_PER_CALL)
                    except _NotFinite as error:
                        where = f" at epoch {epoch}, step {done + error.steps}"
                        raise _not_finite_error("fit", where, model) from None
                    done += made
                    logs = sums.logs()
                    progress.update(sums.rows, logs)
                    if callback.per_batch:
                        callback.on_batch_end(done - 1, logs)
                if done < steps.total:
                    break
                engine.state["epoch"] += 1
                if validation is not None:
                    figures = _figures(model, validation, None)
                    logs |= {f"val_{name}": value for name, value in figures.items()}
                logs["learning_rate"] = engine.learning_rate
                progress.end_epoch(logs)
                callback.on_epoch_end(epoch, logs)
                if model.stop_training or interrupt.seen:
                    break
            history.interrupted = interrupt.seen
            callback.on_train_end(logs)
    finally:
        model._fitting = False
        progress.close()
        engine.begin_epoch()
    return history


def _warn_of_large_inputs(model: Model[Any], x: Array) -> None:
    """Warn where a dense layer would meet raw pixels, or numbers as large."""
    first = next(layer for layer in model.layers if not isinstance(layer, (Dropout, Flatten)))
    if not isinstance(first, Dense):
        return  # it may normalise
    some = to_host(x[:: max(len(x) // 256, 1)])  # all rows would take as long as some steps
    with np.errstate(invalid="ignore"):  # infinite values, where nobody checks for them
        largest = float(np.abs(some).max())
        # A single outlier among scaled numbers is no reason, nor is a large constant.
        large = largest > 100 and float(some.std(dtype=np.float64)) > 30
    if large:
        warnings.warn(
            f"fit: x has values as large as {largest:.4g}, but networks learn well from numbers "
            "near 1: divide pixels by 255, or scale each column to mean 0 and deviation 1",
            stacklevel=4,
        )


def _not_finite_error(operation: str, where: str, model: Model[Any]) -> FloatingPointError:
    _, optimizer = _compiled(model, operation)
    engine = model._engine
    owner, whole, rate = "", "model is", optimizer.learning_rate
    if engine.lead:
        network = engine.stopped[0]
        owner, whole = f" of network {network}", "networks are"
        rate = engine.learning_rates[network] if engine.learning_rates else rate
    return FloatingPointError(
        f"{operation}: the loss{owner}{where} is not finite; the {whole} as after the step before. "
        f"Try a smaller learning rate (it was {rate}) or clip_norm, and scale the inputs"
    )


def _validation(
    model: Model[Any],
    data: _Data,
    split: float,
    given: tuple[Any, ...] | None,
    check_finite: bool,
) -> tuple[_Data, _Data | None]:
    """Return the rows to train on and those to validate on, if any."""
    if given is not None:
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            raise ValueError("fit: validation_data must be (x, y) or (x, y, sample_weight)")
        x, y, weight = (*given, None)[:3]
        held_out = _prepare(model, "validation_data", x, y, weight, None, check_finite)
        return data, held_out
    split = check_number("fit: validation_split", split, at_least=0)
    if split >= 1:
        raise ValueError(f"fit: validation_split must be below 1, got {split:g}")
    if not split:
        return data, None
    kept = len(data) - round(len(data) * split)
    if not 0 < kept < len(data):
        raise ValueError(
            f"fit: validation_split {split:g} of {len(data)} rows leaves none to "
            f"{'validate' if kept else 'train'} on"
        )
    return data.rows(slice(kept)), data.rows(slice(kept, None))


def train_on_batch(model: Model[Any], x: Any, y: Any, sample_weight: Any) -> Any:
    """Make one step; see `Sequential.train_on_batch`."""
    model._check_idle("train_on_batch")
    _compiled(model, "train_on_batch")
    data = _prepare(model, "train_on_batch", x, y, sample_weight)
    steps = _Steps(model, data, len(data), False, True)
    sums = steps.sums()
    try:
        steps.advance(0, sums, 0.0)
    except _NotFinite:
        raise _not_finite_error("train_on_batch", "", model) from None
    finally:
        model._engine.begin_epoch()
    return sums.logs()["loss"]


def profile(
    model: Model[Any], x: Any, y: Any, batch_size: int, steps: int
) -> tuple[list[tuple[str, str, int]], Array, Array]:
    """Make whole steps as `fit` does and say where their time goes: see `Engine.profile`."""
    model._check_idle("profile")
    loss, optimizer = _compiled(model, "profile")
    data = _prepare(model, "profile", x, y, None)
    plan = model._engine.training_plan(
        data.x,
        data.target,
        data.weight,
        loss,
        _native_names(model.metrics),
        optimizer,
        batch_size=batch_size,
        shuffle=True,
        steps=steps,
    )
    return model._engine.profile(plan, len(data), steps)


def evaluate(
    model: Model[Any], x: Any, y: Any, sample_weight: Any, chunk: int | None
) -> dict[str, Any]:
    """Compute loss and metrics; see `Sequential.evaluate`."""
    return _figures(model, _prepare(model, "evaluate", x, y, sample_weight), chunk)


def _figures(model: Model[Any], data: _Data, chunk: int | None) -> dict[str, Any]:
    loss, _ = _compiled(model, "evaluate")
    engine = model._engine
    sums = _Sums(model.metrics, loss.reduction)
    if loss.native:
        totals = engine.evaluate(
            data.x, data.target, data.weight, loss, _native_names(model.metrics), chunk
        )
        sums.take(len(data), totals, 0.0)
        logs = sums.logs()
    else:
        logs = {"loss": call_loss(loss, engine.infer(data.x, chunk), data.target, data.weight)[0]}
    logs["loss"] = logs["loss"] + engine.penalty()
    needed = [m for m in model.metrics if m.native is None or not loss.native]
    if needed:
        prediction = engine.infer(data.x, chunk)
        logs |= {metric.name: metric(prediction, data.target) for metric in needed}
    return logs
