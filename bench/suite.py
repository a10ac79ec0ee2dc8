"""The sides that take part, each in its workers, and one workload after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import floor, report
from .measure import check, interleave
from .sides import OURS, SIDES
from .worker import Task, Worker
from .workloads import INFERENCE_ROWS, Workload


class Effort(NamedTuple):
    """How much is measured: share of the data, rounds, seconds of each, inferences, epochs."""

    scale: float
    rounds: int
    budget: float
    inference_rows: tuple[int, ...] = INFERENCE_ROWS
    epochs: bool = True


FULL = Effort(1.0, 7, 0.5)
QUICK = Effort(0.1, 3, 0.1)
SHORT = Effort(0.02, 3, 0.02, (1,), epochs=False)


def tasks(workload: Workload, kinds: Sequence[str], effort: Effort) -> list[Task]:
    """Return the tasks of these kinds, in the order of the table."""
    found = [Task("train", workload.batch)]
    found += [Task("infer", rows) for rows in effort.inference_rows]
    if effort.epochs:
        found.append(Task("epoch", workload.epoch_rows(effort.scale)))
    return [task for task in found if task.kind in kinds]


class Suite:
    """Workers of some sides: fastmlp on all threads, each peer on one and on all.

    Parameters
    ----------
    sides : sequence of str
        Names in `SIDES`, fastmlp among them.
    threads : int
        The most.

    Attributes
    ----------
    descriptions : dict of str
        By side, each one's version, once it has loaded a workload.
    """

    def __init__(self, sides: Sequence[str], threads: int) -> None:
        self.threads = threads
        self.descriptions = dict.fromkeys(sides, "")
        self.workers: list[Worker] = []
        try:
            for side in sides:
                for count in self._counts(side):
                    self.workers.append(Worker.of(side, count))
        except BaseException:
            self.close()
            raise

    def _counts(self, side: str) -> list[int]:
        if side == OURS:
            return [self.threads]
        return sorted({1, self.threads}) if SIDES[side].threaded else [1]

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.close()

    def measure(
        self, workload: Workload, tasks: Sequence[Task], effort: Effort
    ) -> Iterator[report.Record]:
        """Check one workload, then time it, task by task.

        Raises
        ------
        DisagreementError
            If the sides do not compute the same.
        """
        epochs = [task.rows for task in tasks if task.kind == "epoch"]
        least = max((task.rows for task in tasks if task.kind == "infer"), default=0)
        rows = epochs[0] if epochs else workload.rows(effort.scale, least)
        able = [worker for worker in self.workers if _can_any(worker.side, workload, tasks)]
        for worker in able:
            worker.load(workload, rows)
        self.descriptions |= {worker.side: worker.call("describe") for worker in able}
        agreement = check(able, tasks)
        print("; ".join(f"{what} agree to {error:.0e}" for what, error in agreement.items()))
        for task in tasks:
            limit = floor.measure(workload, self.threads) if task.kind == "train" else None
            steps = rows // workload.batch if task.kind == "train" else 1
            timings = interleave(able, task, steps, effort.rounds, effort.budget)
            yield report.record(workload, task, timings, limit) | {"agreement": agreement}


def _can_any(side: str, workload: Workload, tasks: Sequence[Task]) -> bool:
    return any(SIDES[side].can(workload, task.kind, task.rows) for task in tasks)
