"""Learning rates that change from update to update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from fastmlp._config import check_integer, check_number

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the update, counted from 0 over the life of an optimizer.

    A schedule of one's own is a dataclass that defines `rates`; `fit` asks for many updates at
    once, so that the learning rate costs nothing per step.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import fastmlp as fm
    >>> @dataclass(frozen=True)
    ... class InverseSquareRoot(fm.schedules.Schedule):
    ...     learning_rate: float
    ...     def rates(self, steps):
    ...         return self.learning_rate / (steps + 1) ** 0.5
    >>> InverseSquareRoot(0.1)(3)
    0.05
    """

    @overload
    def __call__(self, step: int) -> float: ...
    @overload
    def __call__(self, step: npt.NDArray[np.int64]) -> Floats: ...
    def __call__(self, step: int | npt.NDArray[np.int64]) -> float | Floats:
        """Return the learning rate of one update, or of each in an array.

        Parameters
        ----------
        step : int or int64 array
            Index of the update, from 0.

        Returns
        -------
        float or float64 array
            A float for an int, else an array of the same shape.

        Raises
        ------
        ValueError
            If a rate comes out negative, infinite or NaN.
        """
        # One step is computed as an array too: NumPy's scalars round otherwise than its arrays, and
        # a step alone must have the very rate that `fit` gives it among thousands.
        steps = np.atleast_1d(np.asarray(step, dtype=np.float64))
        rates = np.empty_like(steps)
        with np.errstate(all="ignore"):  # an overflow is reported below, by its step
            rates[...] = self.rates(steps)
        wrong = ~(np.isfinite(rates) & (rates >= 0))
        if wrong.any():
            name, first = type(self).__name__, wrong.argmax()
            raise ValueError(
                f"{name}: the learning rate must be finite and at least 0, "
                f"got {rates.flat[first]:g} at step {steps.flat[first]:.0f}"
            )
        return float(rates[0]) if np.ndim(step) == 0 else rates

    def rates(self, steps: Floats) -> Floats:
        """Return the learning rates at `steps`, a float64 array of one dimension or more."""
        raise NotImplementedError(f"{type(self).__name__} must define rates(steps)")


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate at every update; what a plain number means.

    Parameters
    ----------
    learning_rate : float
        At least 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.schedules.Constant(0.01)(1000)
    0.01
    """

    learning_rate: float

    def __post_init__(self) -> None:
        check_number("Constant: learning_rate", self.learning_rate, at_least=0)

    def rates(self, steps: Floats) -> Floats:
        return np.full_like(steps, self.learning_rate)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """``learning_rate * factor ** (step // every)``: a staircase.

    Parameters
    ----------
    learning_rate : float
        At the first update; at least 0.
    every : int
        Length of a stair, in updates.
    factor : float, default 0.1
        From one stair to the next; greater than 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> schedule = fm.schedules.StepDecay(0.1, every=100, factor=0.5)
    >>> schedule(99), schedule(100)
    (0.1, 0.05)
    """

    learning_rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_number("StepDecay: learning_rate", self.learning_rate, at_least=0)
        check_integer("StepDecay: every", self.every, at_least=1)
        check_number("StepDecay: factor", self.factor, above=0)

    def rates(self, steps: Floats) -> Floats:
        return self.learning_rate * self.factor ** (steps // self.every)


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """``learning_rate * decay_rate ** (step / decay_steps)``.

    Parameters
    ----------
    learning_rate : float
        At the first update; at least 0.
    decay_steps : int
        Updates over which the rate changes once by `decay_rate`.
    decay_rate : float
        Greater than 0; above 1 the rate grows, as in a search for the largest one that trains.

    Examples
    --------
    >>> import fastmlp as fm
    >>> schedule = fm.schedules.ExponentialDecay(0.1, decay_steps=100, decay_rate=0.25)
    >>> schedule(50), schedule(100)
    (0.05, 0.025)
    """

    learning_rate: float
    decay_steps: int
    decay_rate: float

    def __post_init__(self) -> None:
        check_number("ExponentialDecay: learning_rate", self.learning_rate, at_least=0)
        check_integer("ExponentialDecay: decay_steps", self.decay_steps, at_least=1)
        check_number("ExponentialDecay: decay_rate", self.decay_rate, above=0)

    def rates(self, steps: Floats) -> Floats:
        return self.learning_rate * self.decay_rate ** (steps / self.decay_steps)


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Half a cosine from `learning_rate` down to `final`, which then stays.

    ``final + (learning_rate - final) * (1 + cos(pi * min(step / decay_steps, 1))) / 2``: equation 5
    of Loshchilov and Hutter, "SGDR", 2017, without restarts.

    Parameters
    ----------
    learning_rate : float
        At the first update; at least 0.
    decay_steps : int
        Updates from the first value to the last.
    final : float, default 0.0
        The rate from then on; at least 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> schedule = fm.schedules.CosineDecay(0.1, decay_steps=100, final=0.02)
    >>> schedule(0), schedule(100), schedule(1000)
    (0.1, 0.02, 0.02)
    """

    learning_rate: float
    decay_steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("CosineDecay: learning_rate", self.learning_rate, at_least=0)
        check_integer("CosineDecay: decay_steps", self.decay_steps, at_least=1)
        check_number("CosineDecay: final", self.final, at_least=0)

    def rates(self, steps: Floats) -> Floats:
        share = (1 + np.cos(np.pi * np.minimum(steps / self.decay_steps, 1))) / 2
        return share * self.learning_rate + (1 - share) * self.final


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A straight line from `start` up to a schedule, which begins when the line has ended.

    Parameters
    ----------
    schedule : Schedule or float
        What follows; its step 0 is update `steps`.
    steps : int
        Length of the line, in updates.
    start : float, default 0.0
        The rate of the first update; at least 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> schedule = fm.schedules.WarmUp(fm.schedules.CosineDecay(0.1, decay_steps=100), steps=10)
    >>> schedule(0), schedule(5), schedule(10), schedule(60)
    (0.0, 0.05, 0.1, 0.05)
    """

    schedule: Schedule | float
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        get(self.schedule)
        check_integer("WarmUp: steps", self.steps, at_least=1)
        check_number("WarmUp: start", self.start, at_least=0)

    def rates(self, steps: Floats) -> Floats:
        after = get(self.schedule)
        share = steps / self.steps
        line = (1 - share) * self.start + share * after(0)
        return np.where(share < 1, line, after.rates(np.maximum(steps - self.steps, 0)))


CLASSES: dict[str, type[Schedule]] = {
    cls.__name__: cls for cls in (Constant, StepDecay, ExponentialDecay, CosineDecay, WarmUp)
}


def get(identifier: Schedule | float) -> Schedule:
    """Return a schedule as it is, a number as a `Constant`.

    Parameters
    ----------
    identifier : Schedule or float
        What was given as a learning rate.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If the number is negative, infinite or NaN.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.schedules.get(0.01)
    Constant(learning_rate=0.01)
    """
    if isinstance(identifier, Schedule):
        return identifier
    return Constant(check_number("learning_rate", identifier, at_least=0))


def upcoming(learning_rate: Schedule | float, first: int, count: int) -> Floats:
    """Return the learning rates of `count` updates from `first` on; one number if constant.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.schedules.upcoming(fm.schedules.StepDecay(0.1, every=2, factor=0.5), 1, 3).tolist()
    [0.1, 0.05, 0.05]
    >>> fm.schedules.upcoming(0.1, 1, 3).tolist()
    [0.1]
    """
    if isinstance(learning_rate, (int, float)):  # the usual case, kept short
        return np.array([check_number("learning_rate", learning_rate, at_least=0)])
    schedule = get(learning_rate)
    return np.ascontiguousarray(schedule(np.arange(first, first + count)), np.float64)
