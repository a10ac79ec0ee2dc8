"""A side in a process of its own: its environment and its threads disturb nobody else's."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bench.sides import Side, side_class
from bench.workloads import Workload

# What would slow OpenBLAS down, for NumPy and for fastmlp alike.
UNSET = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
THREAD_COUNTS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

# Libraries' threads go on spinning for a while after their work.
_PAUSE = 0.05


class Task(NamedTuple):
    """Something that is timed: training, or inference on a number of rows."""

    kind: str
    rows: int

    @property
    def text(self) -> str:
        """For tables."""
        return "training step" if self.kind == "train" else f"inference, {self.rows}"


class WorkerError(RuntimeError):
    """A side raised an exception; the text is its traceback."""


class Worker:
    """One side at one number of threads. Only one worker should work at a time.

    Attributes
    ----------
    side : str
    threads : int
    description : str
        The library's version and what decides about its speed.
    """

    def __init__(self, side: str, workload: Workload, rows: int, threads: int) -> None:
        self.side, self.threads = side, threads
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, side, workload, rows, threads), daemon=True
        )
        with environment(threads):
            self._process.start()
        theirs.close()
        self.description: str = self._answer()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the side."""
        self._pipe.send((method, args))
        return self._answer()

    def elapsed(self, task: Task, repeats: int) -> float:
        """Return how many seconds so many epochs or calls take."""
        result = self.call("elapsed", task, repeats)
        time.sleep(_PAUSE)
        return float(result)

    def _answer(self) -> Any:
        result = self._pipe.recv()
        if isinstance(result, WorkerError):
            raise WorkerError(f"{self.side}, {self.threads} threads: {result}")
        return result

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """Set what a child process inherits: the number of threads, and no slower OpenBLAS."""
    before = dict(os.environ)
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(dict.fromkeys(THREAD_COUNTS, str(threads)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def elapsed(side: Side, task: Task, repeats: int) -> float:
    """Time so many epochs, from the initial weights, or calls."""
    gc.collect()
    if task.kind == "train":
        side.reset()
        start = time.perf_counter()
        side.train(repeats)
    else:
        start = time.perf_counter()
        side.infer(task.rows, repeats)
    return time.perf_counter() - start


def _serve(pipe: Connection, name: str, workload: Workload, rows: int, threads: int) -> None:
    try:
        side = side_class(name)(workload, workload.data(rows), workload.weights, threads)
        pipe.send(side.describe())
        while True:
            try:
                method, args = pipe.recv()
            except EOFError:
                return
            function = partial(elapsed, side) if method == "elapsed" else getattr(side, method)
            pipe.send(function(*args))
    except Exception:
        pipe.send(WorkerError(traceback.format_exc()))
