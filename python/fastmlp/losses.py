"""Losses: functions of predictions and targets that return the mean loss and its gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp import kernels
from fastmlp._config import lookup
from fastmlp.device import Array, Device, of, real_array

Function = Callable[..., tuple[float, Array]]


def cross_entropy(prediction: Any, target: Any, sample_weight: Any = None) -> tuple[float, Array]:
    """Softmax and cross-entropy in one, on logits.

    Parameters
    ----------
    prediction : array, shape (n, classes)
        Logits: what a network without a final activation puts out. Where every one of several
        rows holds probabilities, there is a `UserWarning`; their logarithms are logits too.
    target : array of integers, shape (n,) or (n, 1), or of probabilities, shape (n, classes)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.

    Returns
    -------
    loss : float
        The mean over rows of ``log(sum(exp(z))) - z[label]``.
    gradient : array, shape (n, classes)
        ``(softmax(z) - onehot(label)) / n``.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label is fractional or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.cross_entropy([[0.0, 0.0]], [1])
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    """
    _warn_of_probabilities(prediction)
    return _evaluate(CROSS_ENTROPY, prediction, target, sample_weight)


def _warn_of_probabilities(prediction: Any) -> None:
    """Warn where logits look as if softmax had been applied already: once more changes the loss."""
    z = np.asarray(prediction) if isinstance(prediction, (list, tuple)) else prediction
    if not isinstance(z, np.ndarray) or z.ndim != 2 or z.shape[1] < 2 or len(z) < 2:
        return  # a single row sums to 1 by chance, and looking at a GPU's would wait for it

    def probable(rows: Array) -> bool:
        return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < 1e-4).all())

    if probable(z[:1]) and probable(z):  # logits are found out by their first row
        warnings.warn(
            "cross_entropy: every row of the prediction holds probabilities, but it takes logits; "
            "leave the softmax out of the network, or give it their logarithm",
            stacklevel=3,
        )


def binary_cross_entropy(
    prediction: Any, target: Any, sample_weight: Any = None
) -> tuple[float, Array]:
    """Sigmoid and cross-entropy in one, on logits, for outputs that are each a yes or a no.

    Parameters
    ----------
    prediction : array, shape (n,) or (n, outputs)
        Logits z.
    target : array of that shape
        Probabilities t of "yes", from 0 to 1.
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.

    Returns
    -------
    loss : float
        The mean over all elements of ``max(z, 0) - z t + log(1 + exp(-|z|))``.
    gradient : array, shape of `prediction`

    Raises
    ------
    ValueError
        If shapes do not fit, or a target is outside 0..1.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.binary_cross_entropy([0.0], [1.0])
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [-0.5])
    """
    return _evaluate(BINARY_CROSS_ENTROPY, prediction, target, sample_weight)


def mse(prediction: Any, target: Any, sample_weight: Any = None) -> tuple[float, Array]:
    """Mean squared error, over all elements.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.

    Returns
    -------
    loss : float
    gradient : array, shape of `prediction`
        ``2 (prediction - target) / (n outputs)``.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.mse([3.0, 1.0], [1.0, 1.0])
    >>> loss, gradient.tolist()
    (2.0, [2.0, 0.0])
    """
    return _evaluate(MSE, prediction, target, sample_weight)


def mae(prediction: Any, target: Any, sample_weight: Any = None) -> tuple[float, Array]:
    """Mean absolute error, over all elements; its derivative at 0 is taken as 0.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.

    Returns
    -------
    loss : float
    gradient : array, shape of `prediction`

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.mae([3.0, 1.0], [1.0, 1.0])
    >>> loss, gradient.tolist()
    (1.0, [0.5, 0.0])
    """
    return _evaluate(MAE, prediction, target, sample_weight)


@dataclass(frozen=True)
class Loss:
    """A loss as `compile` keeps it.

    Parameters
    ----------
    name : str
        Under which errors speak of it.
    function : callable
        ``(prediction, target, sample_weight=None)`` -> ``(loss, gradient)``.
    native : bool
        Whether the core computes it inside a step; otherwise `function` runs between native calls.
    """

    name: str
    function: Function
    native: bool = False

    def target(self, target: Array, rows: int, outputs: int, dtype: Any) -> Array:
        """Return targets as the core takes them: int32 labels (n,), or `dtype` (n, outputs).

        Raises
        ------
        ValueError
            If their shape does not fit the outputs, or a value is not allowed.
        """
        if self is CROSS_ENTROPY:
            if outputs < 2:
                raise ValueError(
                    "cross_entropy: needs at least 2 outputs, one for each class, got 1; "
                    "for one output use binary_cross_entropy"
                )
            if target.shape != (rows, outputs):
                return kernels.class_labels(self.name, target, rows, outputs)
        elif target.shape == (rows,) and outputs == 1:
            target = target.reshape(rows, 1)
        if target.shape != (rows, outputs):
            raise ValueError(
                f"{self.name}: expected targets of shape ({rows}, {outputs}), got {target.shape}"
            )
        if self is BINARY_CROSS_ENTROPY:
            outside = ~((target >= 0) & (target <= 1)) & (target == target)
            if outside.any():
                row = int(outside.any(axis=1).argmax())
                raise ValueError(f"{self.name}: target {target[row]} at row {row} is outside 0..1")
        return of(target).xp.ascontiguousarray(target, dtype)


CROSS_ENTROPY = Loss("cross_entropy", cross_entropy, native=True)
BINARY_CROSS_ENTROPY = Loss("binary_cross_entropy", binary_cross_entropy, native=True)
MSE = Loss("mse", mse, native=True)
MAE = Loss("mae", mae, native=True)

_BY_NAME = {loss.name: loss for loss in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, MSE, MAE)}
_ALIASES = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "bce": "binary_cross_entropy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "l1": "mae",
}


def get(identifier: str | Loss | Function) -> Loss:
    """Return the loss that a name, an object or a function means.

    Parameters
    ----------
    identifier : str, Loss or callable
        A name of fastmlp's or Keras', or a function ``(prediction, target, sample_weight=None)``
        -> ``(loss, gradient)`` of one's own.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.losses.get("sparse_categorical_crossentropy").name
    'cross_entropy'
    """
    if isinstance(identifier, Loss):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        for loss in _BY_NAME.values():
            if loss.function is identifier:
                return loss
        return Loss(getattr(identifier, "__name__", type(identifier).__name__), identifier)
    return lookup("loss", identifier, _BY_NAME, _ALIASES)


def _evaluate(loss: Loss, prediction: Any, target: Any, sample_weight: Any) -> tuple[float, Array]:
    z = real_array(loss.name, "prediction", prediction)
    if z.ndim not in (1, 2):
        raise ValueError(f"{loss.name}: predictions must have shape (n, outputs), got {z.shape}")
    if not len(z):
        raise ValueError(f"{loss.name}: there are no rows")
    rows = z.reshape(len(z), -1).astype(kernels.result_dtype(z), copy=False)
    count, outputs = rows.shape
    device = of(z)
    given = device.real_array(loss.name, "target", target)
    t = loss.target(given, count, outputs, rows.dtype)
    weight = row_weights(loss.name, sample_weight, len(rows), rows.dtype, device)
    each, gradient = kernels.loss_and_gradient(loss.name, rows, t, weight, float(len(rows)))
    return float(each.sum(dtype=np.float64)) / len(rows), gradient.reshape(z.shape)


def row_weights(
    operation: str, weights: Any, rows: int, dtype: Any, device: Device
) -> Array | None:
    """Return a weight for each row, on a device, or None where there are none.

    Raises
    ------
    ValueError
        If their number is wrong, or one is negative, NaN or infinite.
    """
    if weights is None:
        return None
    array = device.real_array(operation, "sample_weight", weights)
    if array.shape not in ((rows,), (rows, 1)):
        raise ValueError(
            f"{operation}: expected {rows} sample weights, one for each row, got {array.shape}"
        )
    array = array.reshape(rows)
    bad = ~((array >= 0) & (array < np.inf))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{operation}: sample weight {array[row]} at row {row} is not a finite number from 0 up"
        )
    return device.xp.ascontiguousarray(array, dtype)
