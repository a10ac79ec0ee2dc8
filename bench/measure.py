"""Correctness before timing, then every side in turn, round after round."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from .worker import Task
from .workloads import Array

STEPS_CHECKED = 10
TOLERANCE = 1e-4  # relative, in float32
_REST = 0.06  # seconds


class DisagreementError(RuntimeError):
    """Sides that do not compute the same are not compared in speed."""


class Timed(Protocol):
    """What can be measured: a `Worker`."""

    side: str
    threads: int

    def can(self, task: Any) -> bool: ...
    def call(self, method: str, *args: Any) -> Any: ...
    def elapsed(self, task: Any, repeats: int) -> float: ...


@dataclass(frozen=True)
class Timing:
    """The times of one side's steps or calls, one from each round, in seconds."""

    side: str
    threads: int
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, relative to the median."""
        low, high = np.quantile(self.rounds, [0.25, 0.75])
        return float((high - low) / 2 / self.median)


def check(
    workers: Sequence[Timed],
    tasks: Sequence[Task],
    *,
    steps: int = STEPS_CHECKED,
    tolerance: float = TOLERANCE,
) -> dict[str, float]:
    """Compare the sides' losses over some steps and their outputs, each where it can do the task.

    Returns
    -------
    dict of float
        "losses", and each inference task by its text: the largest relative difference.

    Raises
    ------
    DisagreementError
        If one is above the tolerance.
    """
    found = {}
    for worker in workers:
        worker.call("reset")
    for task in tasks:
        if task.kind == "infer":
            outputs = {_label(w): w.call("outputs", task.rows) for w in workers if w.can(task)}
            found[task.text] = agree(
                f"outputs, {task.rows} rows", outputs, relative_to_all=True, tolerance=tolerance
            )
    training = [task for task in tasks if task.kind != "infer"]
    if training:
        able = [w for w in workers if w.can(training[0])]
        losses = {_label(w): np.array(w.call("losses", steps)) for w in able}
        found["losses"] = agree(f"losses of {steps} steps", losses, tolerance=tolerance)
    return found


def agree(
    what: str,
    results: Mapping[str, Array],
    *,
    relative_to_all: bool = False,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the largest difference between any two results, relative to the values.

    Parameters
    ----------
    what : str
        For the message.
    results : mapping of str to array
        By the side's name.
    relative_to_all : bool, default False
        Whether to divide by the largest value in place of each one's own: for outputs near zero.
    tolerance : float, default 1e-4
        Relative.

    Raises
    ------
    DisagreementError
        If it is above the tolerance, or something is not finite.
    """
    worst = 0.0
    for (one, a), (other, b) in combinations(results.items(), 2):
        scale = np.abs(a).max() if relative_to_all else np.abs(a)
        difference = float(np.max(np.abs(a - b) / scale))
        if not difference <= tolerance:
            raise DisagreementError(
                f"{what}: {one} and {other} differ by {difference:.1e} (relative), more than "
                f"{tolerance:.0e}; not timed"
            )
        worst = max(worst, difference)
    return worst


def interleave(
    workers: Sequence[Timed], task: Any, steps: int, rounds: int, budget: float
) -> list[Timing]:
    """Time every worker that can do the task in each round, each for about `budget` seconds.

    A repeat of the task is an epoch of so many steps, or `steps` = 1 call. Before each turn all
    rest a little: the threads of OpenBLAS, in NumPy and scikit-learn, go on spinning for some 40 ms
    when their work is done, and the next side would be measured on what they leave.
    """
    workers = [worker for worker in workers if worker.can(task)]
    repeats = [_repeats(worker, task, budget) for worker in workers]
    seconds: list[list[float]] = [[] for _ in workers]
    for _ in range(rounds):
        for worker, n, mine in zip(workers, repeats, seconds):
            if len(workers) > 1:
                time.sleep(_REST)
            mine.append(worker.elapsed(task, n) / (n * steps))
    return [Timing(w.side, w.threads, tuple(mine)) for w, mine in zip(workers, seconds)]


def best(timings: Sequence[Timing]) -> dict[str, Timing]:
    """Return each side's timing at the number of threads that suits it best."""
    fastest: dict[str, Timing] = {}
    for timing in timings:
        if timing.side not in fastest or timing.median < fastest[timing.side].median:
            fastest[timing.side] = timing
    return fastest


def _label(worker: Timed) -> str:
    return f"{worker.side} ({worker.threads} threads)"


def _repeats(worker: Timed, task: Any, budget: float) -> int:
    """Return how many epochs or calls take about `budget` seconds; this also warms the side up."""
    repeats = 1
    while (elapsed := worker.elapsed(task, repeats)) < budget / 4:
        repeats *= 10
    return max(1, round(repeats * budget / elapsed))
