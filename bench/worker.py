"""A side in a process of its own: its environment and its threads disturb nobody else's."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from .sides import SIDES, Side, side_class
from .workloads import Array, Workload

# What would slow OpenBLAS down, for NumPy and for fastmlp alike.
UNSET = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
THREAD_COUNTS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPROC",  # of XLA's pool of threads
)
# JAX looks for no other device; torch.compile starts no pool of compilers in a worker.
FIXED = {"JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
ONE_THREAD_OF_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

# Libraries' threads go on spinning for a while after their work.
_PAUSE = 0.05
# Seconds of training without clocks between profiles: what `fit` takes by itself must not show.
_UNWATCHED = 0.02


class Task(NamedTuple):
    """Something that is timed: a training step, an epoch, or inference on a number of rows."""

    kind: str
    rows: int

    @property
    def text(self) -> str:
        """For tables."""
        if self.kind == "train":
            return "training step"
        return f"epoch, {self.rows:,} rows" if self.kind == "epoch" else f"inference, {self.rows}"


class WorkerError(RuntimeError):
    """A side raised an exception; the text is its traceback."""


class Session:
    """What a worker's process serves: one side, with one workload after another.

    Parameters
    ----------
    side : str
    threads : int
    """

    def __init__(self, side: str, threads: int) -> None:
        self._class, self._threads = side_class(side), threads
        self._side: Side | None = None

    @property
    def side(self) -> Side:
        """The side, with the workload that was loaded last."""
        if self._side is None:
            raise RuntimeError("no workload has been loaded")
        return self._side

    def load(self, workload: Workload, rows: int) -> None:
        """Prepare the side for a workload with an epoch of so many rows."""
        self._side = None  # before the next one's memory is taken
        self._side = self._class(workload, workload.data(rows), workload.weights, self._threads)

    def describe(self) -> str:
        """Return the side's version, and what decides about its speed."""
        return self.side.describe()

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        self.side.reset()

    def losses(self, steps: int) -> list[float]:
        """Make steps on the first batches in order; return the loss before each."""
        return self.side.losses(steps)

    def outputs(self, rows: int) -> Array:
        """Return the outputs for the first rows."""
        return self.side.infer(self.side.data[0][:rows])

    def profile(self) -> tuple[list[tuple[str, str, int]], Array, Array, float]:
        """Make some epochs, and say where the time of a step goes: fastmlp's side can.

        Returns
        -------
        records : list of tuple
            Each one's name, shape and operations.
        working : array of shape (steps, records)
            The seconds of the slowest thread.
        waiting : array of shape (steps, records)
            The mean of what threads wait for one another before it.
        seconds : float
            Of a step without the clocks that this takes.
        """
        from fastmlp import training

        (x, y), batch = self.side.data, self.side.workload.batch
        steps = len(x) // batch
        model = self.side.model
        records, working, waiting = training.profile(model, x, y, batch, steps)
        epochs = math.ceil(_UNWATCHED / float((working + waiting).sum(axis=2).max(axis=1).sum()))
        seconds = self.elapsed(Task("train", batch), epochs) / (epochs * steps)
        return records, working.max(axis=1), waiting.mean(axis=1), seconds

    def elapsed(self, task: Task, repeats: int) -> float:
        """Time so many epochs, from the initial weights, or calls.

        Where it is the steps that are timed, an epoch comes first: a new optimizer has to find its
        memory, and fastmlp how many threads to use.
        """
        if task.kind == "infer":
            x = self.side.data[0][: task.rows]
            start = time.perf_counter()
            self.side.infer(x, repeats)
        else:
            self.side.reset()
            if task.kind == "train":
                self.side.train(1)
            start = time.perf_counter()
            self.side.train(repeats)
        return time.perf_counter() - start


def session_of_build(folder: str, side: str, threads: int) -> Session:
    """Return a session on what is installed in a folder, whatever else is installed."""
    # An editable installation's finder would come first; the system's own are classes.
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    sys.path.insert(0, folder)
    return Session(side, threads)


class Worker:
    """A process that serves one object's methods. Only one worker should work at a time.

    Parameters
    ----------
    name : str
        Of the side, for messages and tables.
    threads : int
    serve : callable
        Makes the object, in the process; a class or function of a module, or a `partial` of one.
    variables : mapping of str, optional
        More of its environment.

    Attributes
    ----------
    side : str
    threads : int
    workload : Workload or None
        That its side has loaded.
    """

    workload: Workload | None = None

    def __init__(
        self,
        name: str,
        threads: int,
        serve: Callable[[], Any],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.side, self.threads = name, threads
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, serve), daemon=True)
        with environment(threads, variables or {}):
            self._process.start()
        theirs.close()

    @classmethod
    def of(cls, side: str, threads: int, variables: Mapping[str, str] | None = None) -> Worker:
        """Return the worker of one side."""
        return cls(side, threads, partial(Session, side, threads), variables)

    def load(self, workload: Workload, rows: int) -> None:
        """Give the side its next workload, with an epoch of so many rows."""
        self.workload = workload
        self.call("load", workload, rows)

    def can(self, task: Any) -> bool:
        """Return whether the side can do a task of its workload; other objects can do theirs."""
        if not isinstance(task, Task) or self.workload is None:
            return True
        return SIDES[self.side].can(self.workload, task.kind, task.rows)

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the object; the first call waits until it is ready."""
        try:
            self._pipe.send((method, args))
            result = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1)
            result = WorkerError(f"its process ended with status {self._process.exitcode}")
        if isinstance(result, WorkerError):
            raise WorkerError(f"{self.side}, {self.threads} threads: {result}")
        return result

    def elapsed(self, task: Any, repeats: int) -> float:
        """Return how many seconds so many repeats of the task take."""
        result = self.call("elapsed", task, repeats)
        if self.threads > 1:
            time.sleep(_PAUSE)
        return float(result)

    def pin(self, cpus: Iterable[int]) -> None:
        """Have the process and its threads run on these CPUs: Linux can."""
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cpus)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()  # it holds nothing; some libraries take a second to leave
        self._process.join()


@contextmanager
def environment(threads: int, variables: Mapping[str, str]) -> Iterator[None]:
    """Set what a child process inherits: the number of threads, and no slower OpenBLAS."""
    before = dict(os.environ)
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(dict.fromkeys(THREAD_COUNTS, str(threads)) | FIXED)
    if threads == 1:
        os.environ["XLA_FLAGS"] = ONE_THREAD_OF_XLA
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(pipe: Connection, serve: Callable[[], Any]) -> None:
    try:
        served = serve()
    except Exception:
        pipe.send(WorkerError(traceback.format_exc()))
        pipe.poll(None)  # until the parent has written its next call, or gone: it reads this first
        return
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            result = getattr(served, method)(*args)
        except Exception:  # the next workload may do
            result = WorkerError(traceback.format_exc())
        pipe.send(result)
