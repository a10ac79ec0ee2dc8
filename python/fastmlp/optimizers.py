"""Optimizers: the rules that turn gradients into new parameters."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fastmlp import schedules
from fastmlp._config import check_number, lookup
from fastmlp.device import Array
from fastmlp.kernels import check_beta, check_decay

if TYPE_CHECKING:
    from fastmlp.sequential import Model


@dataclass(eq=False)
class Optimizer:
    """What all optimizers have: a learning rate, clipping, and moments for the model they step.

    Attributes
    ----------
    learning_rate : float or Schedule
        May be set at any time; a schedule is a function of the number of updates so far.
    clip_norm : float or None
        The whole gradient is scaled down to this Euclidean norm where it is larger.
    clip_value : float or None
        Each element of the gradient is limited to plus or minus this, after `clip_norm`.
    """

    learning_rate: float | schedules.Schedule

    def __post_init__(self) -> None:
        self._model: weakref.ref[Model[Any]] | None = None
        self.moments: list[
            Array
        ] = []  # of the model's flat parameters, each (replicas, parameters)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "learning_rate":
                schedules.get(value)
            elif field.name in ("clip_norm", "clip_value"):
                if value is not None:
                    self._number(field.name, above=0)
            elif field.name == "betas":
                for index in range(2):
                    check_beta(type(self).__name__, value, index)
            elif field.name == "alpha":
                check_decay(f"{type(self).__name__}: alpha", value)
            elif field.name == "epsilon":
                self._number(field.name, above=0)
            elif not isinstance(value, bool):
                self._number(field.name, at_least=0)

    def _number(self, name: str, **bounds: float) -> None:
        check_number(f"{type(self).__name__}: {name}", getattr(self, name), **bounds)

    def step(self, model: Model[Any]) -> None:
        """Update a model's parameters from the gradients that its `backward` left.

        Parameters
        ----------
        model : Sequential or Ensemble
            A built one; it need not be compiled. An optimizer belongs to the first model it steps.

        Raises
        ------
        RuntimeError
            If the optimizer belongs to another model, or there are no gradients.
        """
        model._step(self)

    def rule(self) -> dict[str, Any]:
        """Return the update as the core takes it."""
        raise NotImplementedError

    def _common(self, clip_norm: float | None, clip_value: float | None) -> dict[str, Any]:
        return {"clip_norm": clip_norm or 0.0, "clip_value": clip_value or 0.0}

    def _claim(self, model: Model[Any]) -> None:
        """Make this the optimizer of `model`, or refuse."""
        owner = self._model() if self._model else None
        if owner is not None and owner is not model:
            raise RuntimeError(
                f"{type(self).__name__}: this optimizer belongs to another model; make a new one"
            )
        self._model = weakref.ref(model)


@dataclass(eq=False)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013, in PyTorch's form).

    ``v = momentum * v + g + weight_decay * p``, then ``p -= learning_rate * v``; with `nesterov`,
    ``p -= learning_rate * (g + momentum * v)``.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
    momentum : float, default 0
    nesterov : bool, default False
    weight_decay : float, default 0
        L2 penalty, on biases too.
    clip_norm, clip_value : float, optional
        Limits on the gradient's norm and on each of its elements.

    Raises
    ------
    TypeError, ValueError
        If a setting is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.SGD(0.1, momentum=0.9).momentum
    0.9
    """

    learning_rate: float | schedules.Schedule = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")

    def rule(self) -> dict[str, Any]:
        """Return the update as the core takes it."""
        return {
            "rule": "sgd",
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
            **self._common(self.clip_norm, self.clip_value),
        }


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    learning_rate : float or Schedule, default 1e-3
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the first and second moment.
    epsilon : float, default 1e-8
        Positive; added to the root of the corrected second moment.
    weight_decay : float, default 0
        L2 penalty, on biases too. For decoupled decay use `AdamW`.
    amsgrad : bool, default False
        Divide by the largest second moment so far (Reddi, Kale, Kumar 2018).
    clip_norm, clip_value : float, optional
        Limits on the gradient's norm and on each of its elements.

    Raises
    ------
    TypeError, ValueError
        If a setting is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Adam(fm.schedules.CosineDecay(1e-3, 1000)).betas
    (0.9, 0.999)
    """

    learning_rate: float | schedules.Schedule = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None

    _decoupled = False

    def rule(self) -> dict[str, Any]:
        """Return the update as the core takes it."""
        return {
            "rule": "adam",
            "beta1": self.betas[0],
            "beta2": self.betas[1],
            "epsilon": self.epsilon,
            "weight_decay": self.weight_decay,
            "decoupled": self._decoupled,
            "amsgrad": self.amsgrad,
            **self._common(self.clip_norm, self.clip_value),
        }


@dataclass(eq=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Each update also multiplies the parameters, biases too, by ``1 - learning_rate * weight_decay``.

    Parameters
    ----------
    learning_rate, betas, epsilon, amsgrad, clip_norm, clip_value
        As in `Adam`.
    weight_decay : float, default 0.01

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.AdamW().weight_decay
    0.01
    """

    weight_decay: float = 0.01

    _decoupled = True


@dataclass(eq=False)
class RMSprop(Optimizer):
    """RMSprop (Hinton and Tieleman 2012, Coursera, lecture 6.5; in PyTorch's form).

    ``v = alpha * v + (1 - alpha) * g**2``, then ``p -= learning_rate * g / (sqrt(v) + epsilon)``.
    With momentum, ``b = momentum * b + g / (sqrt(v) + epsilon)`` and ``p -= learning_rate * b``.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
    alpha : float, default 0.99
        Decay rate of the mean square, from 0 up to but not including 1; Keras calls it rho.
    momentum : float, default 0
    epsilon : float, default 1e-8
        Positive; added to the root of the mean square.
    centered : bool, default False
        Take the variance in place of the mean square (Graves 2013, arXiv:1308.0850).
    weight_decay : float, default 0
        L2 penalty, on biases too.
    clip_norm, clip_value : float, optional
        Limits on the gradient's norm and on each of its elements.

    Raises
    ------
    TypeError, ValueError
        If a setting is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(1)])
    >>> model.compile(fm.RMSprop(1e-3, momentum=0.9), "mse")
    """

    learning_rate: float | schedules.Schedule = 0.01
    alpha: float = 0.99
    momentum: float = 0.0
    epsilon: float = 1e-8
    centered: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_value: float | None = None

    def rule(self) -> dict[str, Any]:
        """Return the update as the core takes it."""
        return {
            "rule": "rmsprop",
            "alpha": self.alpha,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
            "weight_decay": self.weight_decay,
            **self._common(self.clip_norm, self.clip_value),
        }


CLASSES: dict[str, type[Optimizer]] = {
    "SGD": SGD,
    "Adam": Adam,
    "AdamW": AdamW,
    "RMSprop": RMSprop,
}
_BY_NAME: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def get(identifier: str | Optimizer) -> Optimizer:
    """Return the optimizer that a name means, with default settings, or the object itself.

    Raises
    ------
    TypeError
        If it is neither, or a class in place of an object.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.optimizers.get("adam").epsilon
    1e-08
    """
    if isinstance(identifier, Optimizer):
        return identifier
    return lookup("optimizer", identifier, _BY_NAME)()
