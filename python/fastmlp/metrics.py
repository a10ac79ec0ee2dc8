"""Figures that tell people how good predictions are, as losses tell training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastmlp._config import lookup
from fastmlp.device import to_host

Array = npt.NDArray[Any]


def _rows(name: str, prediction: Array, target: Array) -> tuple[Array, Array]:
    """Return both as (rows, outputs), so that (n,) never meets (n, 1) in a broadcast."""
    if prediction.ndim == 0 or target.ndim == 0 or len(prediction) != len(target):
        raise ValueError(
            f"{name}: prediction and target must have as many rows as each other, "
            f"got shapes {prediction.shape} and {target.shape}"
        )
    if prediction.size == 0 or target.size == 0:
        raise ValueError(
            f"{name}: there are no values, got shapes {prediction.shape} and {target.shape}"
        )
    return prediction.reshape(len(prediction), -1), target.reshape(len(target), -1)


def _paired(name: str, prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Array, Array]:
    """Return both as (rows, outputs) in float64, of one shape."""
    prediction, target = to_host(prediction), to_host(target)
    p, t = _rows(name, prediction, target)
    if p.shape != t.shape:
        raise ValueError(
            f"{name}: prediction and target must have as many outputs as each other, "
            f"got shapes {prediction.shape} and {target.shape}"
        )
    return p.astype(np.float64), t.astype(np.float64)


def accuracy(prediction: npt.ArrayLike, target: npt.ArrayLike, *, threshold: float = 0.5) -> float:
    """Share of rows whose class is predicted.

    Parameters
    ----------
    prediction : array, shape (n, classes), (n, 1) or (n,)
        Logits or probabilities of each class, of which the largest counts; or one number a row,
        which means the second of two classes where it exceeds `threshold`.
    target : array, shape (n,), (n, 1) or that of `prediction`
        Labels, or a probability (one-hot or soft) of each class.
    threshold : float, default 0.5
        For one number a row: 0.5 for probabilities, 0 for logits.

    Returns
    -------
    float
        Between 0 and 1. A row with NaN in its prediction predicts nothing, so it counts as wrong.

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.accuracy([[0.1, 2.0], [0.3, -1.0], [0.5, 0.6]], [1, 0, 0])
    0.6666666666666666
    >>> fm.metrics.accuracy([0.2, 0.7], [0, 1])
    1.0
    """
    prediction, target = to_host(prediction), to_host(target)
    p, t = _rows("accuracy", prediction, target)
    if p.shape[1] == 1:
        return binary_accuracy(p, t, threshold=threshold)
    if t.shape[1] not in (1, p.shape[1]):
        raise ValueError(
            f"accuracy: target must hold a label or {p.shape[1]} probabilities a row, "
            f"got shape {target.shape}"
        )
    labels = t[:, 0] if t.shape[1] == 1 else t.argmax(axis=1)
    right = (p.argmax(axis=1) == labels) & ~np.isnan(p).any(axis=1)
    return float(right.mean())


def binary_accuracy(
    prediction: npt.ArrayLike, target: npt.ArrayLike, *, threshold: float = 0.5
) -> float:
    """Share of single yes-or-no answers that are right: what several independent outputs need.

    Parameters
    ----------
    prediction : array, shape (n,) or (n, outputs)
        Yes where it exceeds `threshold`; NaN is always wrong.
    target : array, same shape
        1 (or a probability above one half) for yes, 0 (or -1) for no.
    threshold : float, default 0.5
        0.5 for probabilities, 0 for logits.

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.binary_accuracy([[0.9, 0.2], [0.6, 0.7]], [[1, 0], [0, 1]])
    0.75
    """
    p, t = _paired("binary_accuracy", prediction, target)
    right = ((p > threshold) == (t > 0.5)) & ~np.isnan(p)
    return float(right.mean())


def mse(prediction: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Mean squared error, over all elements.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit; (n,) fits (n, 1).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.mse([1.0, 2.0], [0.0, 4.0])
    2.5
    """
    p, t = _paired("mse", prediction, target)
    return float(np.square(p - t).mean())


def mae(prediction: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Mean absolute error, over all elements.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit; (n,) fits (n, 1).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.mae([1.0, 2.0], [0.0, 4.0])
    1.5
    """
    p, t = _paired("mae", prediction, target)
    return float(np.abs(p - t).mean())


def rmse(prediction: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Root of the mean squared error, in the unit of the target.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit; (n,) fits (n, 1).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.rmse([3.0, 0.0], [0.0, 1.0]) == 5 ** 0.5
    True
    """
    p, t = _paired("rmse", prediction, target)
    return sqrt(np.square(p - t).mean())


def r2(prediction: npt.ArrayLike, target: npt.ArrayLike) -> float:
    """Share of the target's variance that is explained: 1 at best, 0 for predicting the mean.

    Several outputs are averaged. An output whose target is constant counts 1 where the prediction
    is exact and 0 elsewhere, as in scikit-learn.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)

    Raises
    ------
    ValueError
        If there are no rows, or the shapes do not fit; (n,) fits (n, 1).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.r2([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    p, t = _paired("r2", prediction, target)
    residual = np.square(p - t).sum(axis=0)
    total = np.square(t - t.mean(axis=0)).sum(axis=0)
    varies = total > 0
    explained = 1 - residual / np.where(varies, total, 1)
    explained[~varies & (residual > 0)] = 0
    return float(explained.mean())


@dataclass(frozen=True)
class Metric:
    """A function of predictions and targets, with what `fit` and callbacks need to know of it.

    Parameters
    ----------
    name : str
        Under which `History` keeps it.
    native : {"accuracy", "mse", "mae"} or None
        The sum that the core can take during training; None for a function to be called.
    function : callable
        (prediction, target) -> float.
    finish : callable, default float
        From the mean of the native sum to the figure; the root for "rmse".
    mode : {"max", "min"} or None, default None
        Whether large or small is good; None if unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> metric = fm.metrics.get("rmse")
    >>> metric.native, metric.finish(9.0), metric([3.0], [0.0])
    ('mse', 3.0, 3.0)
    """

    name: str
    native: Literal["accuracy", "mse", "mae"] | None
    function: Callable[..., float]
    finish: Callable[[float], float] = float
    mode: Literal["max", "min"] | None = None

    def __call__(self, prediction: npt.ArrayLike, target: npt.ArrayLike) -> float:
        """Return the figure for all rows at once."""
        return float(self.function(prediction, target))


_BY_NAME = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", accuracy, mode="max"),
        Metric("binary_accuracy", None, binary_accuracy, mode="max"),
        Metric("mse", "mse", mse, mode="min"),
        Metric("mae", "mae", mae, mode="min"),
        Metric("rmse", "mse", rmse, finish=sqrt, mode="min"),
        Metric("r2", None, r2, mode="max"),
    )
}
_ALIASES = {
    "acc": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "root_mean_squared_error": "rmse",
    "r2_score": "r2",
}


def get(identifier: str | Metric | Callable[..., float]) -> Metric:
    """Return the metric that a name, an object or a function means.

    Parameters
    ----------
    identifier : str, Metric or callable
        A name, under which the figure is then reported, as in Keras ("acc" stays "acc"); a
        metric; or a function (prediction, target) -> float, reported under its `__name__`. `fit`
        averages the values of such a function over batches, weighted by their rows.

    Raises
    ------
    TypeError
        If it is none of these, or a class in place of an object.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.get("acc").name, fm.metrics.get("acc").native
    ('acc', 'accuracy')
    """
    if isinstance(identifier, Metric):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        for metric in _BY_NAME.values():
            if metric.function is identifier:
                return metric
        name = getattr(identifier, "__name__", type(identifier).__name__)
        return Metric(name, None, identifier)
    return replace(lookup("metric", identifier, _BY_NAME, _ALIASES), name=str(identifier))


def mode(name: str) -> Literal["max", "min"] | None:
    """Return whether large or small values of a metric are good, None for a name unknown here.

    Parameters
    ----------
    name : str
        As in `get`.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.metrics.mode("accuracy"), fm.metrics.mode("mae"), fm.metrics.mode("my_own")
    ('max', 'min', None)
    """
    try:
        return get(name).mode
    except ValueError:
        return None
