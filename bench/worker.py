"""A side in a process of its own: its environment and its threads disturb nobody else's."""

from __future__ import annotations

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
from bench.workloads import Array, Workload

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

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the side; the first waits until it is ready."""
        self._pipe.send((method, args))
        result = self._pipe.recv()
        if isinstance(result, WorkerError):
            raise WorkerError(f"{self.side}, {self.threads} threads: {result}")
        return result

    def elapsed(self, task: Task, repeats: int) -> float:
        """Return how many seconds so many epochs or calls take."""
        result = self.call("elapsed", task, repeats)
        time.sleep(_PAUSE)
        return float(result)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()  # it holds nothing; some libraries take a second to leave
        self._process.join()


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
    if task.kind == "train":
        side.reset()
        start = time.perf_counter()
        side.train(repeats)
    else:
        x = side.data[0][: task.rows]
        start = time.perf_counter()
        side.infer(x, repeats)
    return time.perf_counter() - start


def outputs(side: Side, rows: int) -> Array:
    """Return the outputs for the first rows."""
    return side.infer(side.data[0][:rows])


def _serve(pipe: Connection, name: str, workload: Workload, rows: int, threads: int) -> None:
    try:
        side = side_class(name)(workload, workload.data(rows), workload.weights, threads)
        functions = {f.__name__: partial(f, side) for f in (elapsed, outputs)}
        while True:
            try:
                method, args = pipe.recv()
            except EOFError:
                return
            pipe.send((functions.get(method) or getattr(side, method))(*args))
    except Exception:
        pipe.send(WorkerError(traceback.format_exc()))
        pipe.poll(None)  # until the parent has written its next call, or gone: it reads this first
