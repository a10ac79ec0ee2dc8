"""Losses: functions of predictions and targets that return the loss and its gradient.

Each is there as a function, for a loop of one's own, and as a class that holds its settings, for
`compile`: ``fm.losses.huber(z, y, delta=2.0)`` is ``fm.losses.Huber(delta=2.0)(z, y)``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastmlp import kernels
from fastmlp._config import check_number, lookup
from fastmlp.device import Array, Device, of, real_array

Function = Callable[..., tuple[float, Array]]
Reduction = Literal["mean", "sum"]


class Loss:
    """A loss as `compile` keeps it: one of the classes here, or a function of one's own.

    ``loss(prediction, target, sample_weight=None)`` returns the loss and its gradient.

    Attributes
    ----------
    name : str
        Under which the core and errors know it.
    native : bool
        Whether the core computes it inside a step; otherwise it runs between native calls.
    reduction : {"mean", "sum"}
        Whether the elements' losses are averaged or added up.
    signed : bool
        Whether its targets are -1 and 1.
    """

    name: str
    native = True
    signed = False
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        if self.reduction not in ("mean", "sum"):
            raise ValueError(
                f"{self.name}: reduction must be 'mean' or 'sum', got {self.reduction!r}"
            )

    @property
    def parameter(self) -> float:
        """The one parameter that its formula may have."""
        return 0.0

    def __call__(
        self, prediction: Any, target: Any, sample_weight: Any = None
    ) -> tuple[float, Array]:
        """Return the loss and its gradient, as the function of the same name does."""
        z = real_array(self.name, "prediction", prediction)
        if z.ndim not in (1, 2):
            raise ValueError(
                f"{self.name}: predictions must have shape (n, outputs), got {z.shape}"
            )
        if not len(z):
            raise ValueError(f"{self.name}: there are no rows")
        rows = z.reshape(len(z), -1).astype(kernels.result_dtype(z), copy=False)
        count, outputs = rows.shape
        device = of(z)
        given = device.real_array(self.name, "target", target)
        t = self.target(given, count, outputs, rows.dtype)
        weight = row_weights(self.name, sample_weight, count, rows.dtype, device)
        summed = self.reduction == "sum"
        divisor = 1 if summed else count
        each, gradient = kernels.loss_and_gradient(
            self.name, rows, t, weight, divisor, parameter=self.parameter, summed=summed
        )
        return float(each.sum(dtype=np.float64)) / divisor, gradient.reshape(z.shape)

    def target(self, target: Array, rows: int, outputs: int, dtype: Any) -> Array:
        """Return targets as the core takes them: int32 labels (n,), or `dtype` (n, outputs).

        Raises
        ------
        ValueError
            If their shape does not fit the outputs, or a value is not allowed.
        """
        if target.shape == (rows,) and outputs == 1:
            target = target.reshape(rows, 1)
        if target.shape != (rows, outputs):
            raise ValueError(
                f"{self.name}: expected targets of shape ({rows}, {outputs}), got {target.shape}"
            )
        return of(target).xp.ascontiguousarray(target, dtype)

    def _refuse(self, bad: Array, target: Array, what: str) -> None:
        """Raise a ValueError for the first row of targets with a bad one, if there is any."""
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            raise ValueError(f"{self.name}: target {target[row]} at row {row} {what}")


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Softmax and cross-entropy in one, on logits: see `cross_entropy`.

    Parameters
    ----------
    label_smoothing : float, default 0
        From 0 to 1; the share of each target that is spread evenly over all classes.
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    TypeError, ValueError
        If a setting is of the wrong kind or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(10)])
    >>> model.compile("adam", fm.losses.CrossEntropy(label_smoothing=0.1))
    """

    label_smoothing: float = 0.0
    reduction: Reduction = "mean"

    name = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        what = "cross_entropy: label_smoothing"
        if check_number(what, self.label_smoothing, at_least=0) > 1:
            raise ValueError(f"{what} must be at most 1, got {self.label_smoothing:g}")

    @property
    def parameter(self) -> float:
        """The label smoothing."""
        return float(self.label_smoothing)

    def target(self, target: Array, rows: int, outputs: int, dtype: Any) -> Array:
        """Return targets as the core takes them: labels, or probabilities of each class."""
        if outputs < 2:
            raise ValueError(
                "cross_entropy: needs at least 2 outputs, one for each class, got 1; "
                "for one output use binary_cross_entropy"
            )
        if target.shape != (rows, outputs):
            return kernels.class_labels(self.name, target, rows, outputs)
        return super().target(target, rows, outputs, dtype)


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Sigmoid and cross-entropy in one, on logits: see `binary_cross_entropy`.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.losses.BinaryCrossEntropy()([0.0], [1.0])[1].tolist()
    [-0.5]
    """

    reduction: Reduction = "mean"

    name = "binary_cross_entropy"

    def target(self, target: Array, rows: int, outputs: int, dtype: Any) -> Array:
        """Return targets as the core takes them, all from 0 to 1."""
        target = super().target(target, rows, outputs, dtype)
        outside = ~((target >= 0) & (target <= 1)) & (target == target)
        self._refuse(outside, target, "is outside 0..1")
        return target


@dataclass(frozen=True)
class MSE(Loss):
    """Mean squared error: see `mse`.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", fm.losses.MSE(reduction="sum"))
    >>> model.train_on_batch([[1.0], [1.0]], [[2.0], [2.0]])
    8.0
    """

    reduction: Reduction = "mean"

    name = "mse"


@dataclass(frozen=True)
class MAE(Loss):
    """Mean absolute error: see `mae`.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.losses.MAE(reduction="sum")([3.0, 0.0], [1.0, 1.0])[0]
    3.0
    """

    reduction: Reduction = "mean"

    name = "mae"


@dataclass(frozen=True)
class Huber(Loss):
    """Huber's loss: see `huber`.

    Parameters
    ----------
    delta : float, default 1
        Positive; the error from which on the loss is linear.
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    TypeError, ValueError
        If a setting is of the wrong kind or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1)])
    >>> model.compile("adam", fm.losses.Huber(delta=2.0))
    """

    delta: float = 1.0
    reduction: Reduction = "mean"

    name = "huber"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("huber: delta", self.delta, above=0)

    @property
    def parameter(self) -> float:
        """Delta."""
        return float(self.delta)


class _Signed(Loss):
    """What losses of targets -1 and 1 share."""

    signed = True

    def target(self, target: Array, rows: int, outputs: int, dtype: Any) -> Array:
        """Return targets as the core takes them, -1 and 1; 0 and 1 mean the same."""
        target = super().target(target, rows, outputs, dtype)
        low, zero, high = (target == value for value in (-1, 0, 1))
        self._refuse(~(low | zero | high), target, "is not -1 or 1 (nor 0 or 1)")
        if low.any():
            self._refuse(zero, target, "is 0 where others are -1: use -1 and 1, or 0 and 1")
        return 2 * high.astype(target.dtype) - 1


@dataclass(frozen=True)
class Hinge(_Signed):
    """The hinge loss of support vector machines: see `hinge`.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.losses.Hinge()([0.25], [1.0])
    (0.75, array([-1.]))
    """

    reduction: Reduction = "mean"

    name = "hinge"


@dataclass(frozen=True)
class Perceptron(_Signed):
    """Rosenblatt's criterion: see `perceptron`.

    Parameters
    ----------
    reduction : {"mean", "sum"}, default "mean"

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    One point at a time, gradient descent is the perceptron's rule ``w += learning_rate * t * x``:

    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1, kernel_initializer="zeros", use_bias=False)])
    >>> model.compile(fm.SGD(0.5), fm.losses.Perceptron())
    >>> loss = model.train_on_batch([[3.0, -1.0]], [1])
    >>> model.layers[0].kernel.ravel().tolist()
    [1.5, -0.5]
    """

    reduction: Reduction = "mean"

    name = "perceptron"


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A function of one's own as a loss; `compile` makes one of it.

    Parameters
    ----------
    name : str
    function : callable
        ``(prediction, target, sample_weight=None)`` -> ``(loss, gradient)``.
    """

    name: str
    function: Function

    native = False

    def __call__(
        self, prediction: Any, target: Any, sample_weight: Any = None
    ) -> tuple[float, Array]:
        """Call the function, without a third argument where there are no weights."""
        given = (
            (prediction, target) if sample_weight is None else (prediction, target, sample_weight)
        )
        return self.function(*given)


def cross_entropy(
    prediction: Any,
    target: Any,
    sample_weight: Any = None,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> tuple[float, Array]:
    """Softmax and cross-entropy in one, on logits.

    Parameters
    ----------
    prediction : array, shape (n, classes)
        Logits: what a network without a final activation puts out. Where every one of several
        rows holds probabilities, there is a `UserWarning`; their logarithms are logits too.
    target : array of integers, shape (n,) or (n, 1), or of probabilities, shape (n, classes)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    label_smoothing : float, default 0
        From 0 to 1. With s, probabilities t, of a label 1 and 0, become
        ``(1 - s) t + s / classes`` (Szegedy et al. 2016, arXiv:1512.00567).
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided by n, neither the loss nor its gradient.

    Returns
    -------
    loss : float
        The mean over rows of ``log(sum(exp(z))) - z[label]``.
    gradient : array, shape (n, classes)
        ``(softmax(z) - onehot(label)) / n``.

    Raises
    ------
    ValueError
        If shapes do not fit, or a label is fractional or out of range, or a setting.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.cross_entropy([[0.0, 0.0]], [1])
    >>> round(loss, 6), gradient.tolist()
    (0.693147, [[0.5, -0.5]])
    >>> loss, gradient = fm.losses.cross_entropy([[0.0, 0.0]], [1], label_smoothing=0.5)
    >>> gradient.tolist()
    [[0.25, -0.25]]
    """
    _warn_of_probabilities(prediction)
    return CrossEntropy(label_smoothing, reduction)(prediction, target, sample_weight)


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
    prediction: Any, target: Any, sample_weight: Any = None, *, reduction: Reduction = "mean"
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
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

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
    return BinaryCrossEntropy(reduction)(prediction, target, sample_weight)


def mse(
    prediction: Any, target: Any, sample_weight: Any = None, *, reduction: Reduction = "mean"
) -> tuple[float, Array]:
    """Mean squared error, over all elements.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

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
    >>> loss, gradient = fm.losses.mse([3.0, 1.0], [1.0, 1.0], reduction="sum")
    >>> loss, gradient.tolist()
    (4.0, [4.0, 0.0])
    """
    return MSE(reduction)(prediction, target, sample_weight)


def mae(
    prediction: Any, target: Any, sample_weight: Any = None, *, reduction: Reduction = "mean"
) -> tuple[float, Array]:
    """Mean absolute error, over all elements; its derivative at 0 is taken as 0.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

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
    return MAE(reduction)(prediction, target, sample_weight)


def huber(
    prediction: Any,
    target: Any,
    sample_weight: Any = None,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> tuple[float, Array]:
    """Huber's loss, which outliers cannot dominate: quadratic near 0, linear beyond (Huber 1964).

    Of an error e it is ``e**2 / 2`` where ``abs(e) <= delta``, else
    ``delta * (abs(e) - delta / 2)``.

    Parameters
    ----------
    prediction, target : array, shape (n,) or (n, outputs)
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    delta : float, default 1
        Positive; the error from which on the loss is linear.
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

    Returns
    -------
    loss : float
        The mean over all elements.
    gradient : array, shape of `prediction`

    Raises
    ------
    ValueError
        If shapes do not fit, or `delta` is not positive.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.huber([3.0, 0.5], [0.0, 0.0], delta=2.0)
    >>> loss, gradient.tolist()
    (2.0625, [1.0, 0.25])
    """
    return Huber(delta, reduction)(prediction, target, sample_weight)


def hinge(
    prediction: Any, target: Any, sample_weight: Any = None, *, reduction: Reduction = "mean"
) -> tuple[float, Array]:
    """The hinge loss, ``max(0, 1 - t y)``: right answers are to be right by a margin.

    Parameters
    ----------
    prediction : array, shape (n,) or (n, outputs)
        Scores y, whose sign is the answer.
    target : array of that shape
        t, -1 or 1; where all are 0 or 1, 0 means -1.
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

    Returns
    -------
    loss : float
        The mean over all elements.
    gradient : array, shape of `prediction`
        ``-t / (n outputs)`` where ``t y < 1``, else 0.

    Raises
    ------
    ValueError
        If shapes do not fit, or a target is something else.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.hinge([0.5, 2.0], [-1, 1])
    >>> loss, gradient.tolist()
    (0.75, [0.5, 0.0])
    """
    return Hinge(reduction)(prediction, target, sample_weight)


def perceptron(
    prediction: Any, target: Any, sample_weight: Any = None, *, reduction: Reduction = "mean"
) -> tuple[float, Array]:
    """Rosenblatt's criterion, ``max(0, -t y)``: how far wrong answers are from the line.

    Parameters
    ----------
    prediction : array, shape (n,) or (n, outputs)
        Scores y, whose sign is the answer.
    target : array of that shape
        t, -1 or 1; where all are 0 or 1, 0 means -1.
    sample_weight : array, shape (n,), optional
        Multiplies the rows' losses; their sum is still divided by n.
    reduction : {"mean", "sum"}, default "mean"
        With "sum" nothing is divided, neither by rows nor by outputs.

    Returns
    -------
    loss : float
        The mean over all elements.
    gradient : array, shape of `prediction`
        ``-t / (n outputs)`` where ``t y <= 0``, else 0: a point on the line itself is not right
        yet, so that training can start from zeros.

    Raises
    ------
    ValueError
        If shapes do not fit, or a target is something else.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.losses.perceptron([0.5, 2.0], [-1, 1])
    >>> loss, gradient.tolist()
    (0.25, [0.5, 0.0])
    """
    return Perceptron(reduction)(prediction, target, sample_weight)


_FUNCTIONS = (cross_entropy, binary_cross_entropy, mse, mae, huber, hinge, perceptron)
CLASSES: dict[str, type[Loss]] = {
    cls.__name__: cls
    for cls in (CrossEntropy, BinaryCrossEntropy, MSE, MAE, Huber, Hinge, Perceptron)
}
_BY_NAME: dict[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
    "hinge": Hinge,
    "perceptron": Perceptron,
}
_ALIASES = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "bce": "binary_cross_entropy",
    "mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "l1": "mae",
    "huber_loss": "huber",
    "hinge_loss": "hinge",
}


def get(identifier: str | Loss | Function) -> Loss:
    """Return the loss that a name, an object or a function means.

    Parameters
    ----------
    identifier : str, Loss or callable
        A name of fastmlp's or Keras', for a loss with its default settings; an object of one of
        the classes here; or a function ``(prediction, target, sample_weight=None)`` ->
        ``(loss, gradient)`` of one's own.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.losses.get("sparse_categorical_crossentropy")
    CrossEntropy(label_smoothing=0.0, reduction='mean')
    """
    if isinstance(identifier, Loss):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        name = getattr(identifier, "__name__", type(identifier).__name__)
        if identifier in _FUNCTIONS:
            return _BY_NAME[name]()
        return FunctionLoss(name, identifier)
    return lookup("loss", identifier, _BY_NAME, _ALIASES)()


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
