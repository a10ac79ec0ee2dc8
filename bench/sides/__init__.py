"""The libraries that are compared, one file each, and what each must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.util import find_spec
from pkgutil import resolve_name

from bench.workloads import Array, Workload

# Name -> the package that it needs, where its class is.
SIDES = {
    "fastmlp": ("fastmlp", "bench.sides.ours:FastMLP"),
    "NumPy": ("numpy", "bench.sides.plain_numpy:PlainNumPy"),
    "PyTorch": ("torch", "bench.sides.pytorch:PyTorch"),
}
OURS = "fastmlp"
PEERS = [name for name in SIDES if name != OURS]


class Side(ABC):
    """One library with one workload's network, on its data, at a number of threads.

    Parameters
    ----------
    workload : Workload
    data : tuple of array
        Inputs (n, features) and targets, n a multiple of the batch size.
    weights : list of array
        [kernel0, bias0, kernel1, ...], kernels (in, out).
    threads : int
    seed : int
        Decides about the order of rows.
    """

    def __init__(
        self,
        workload: Workload,
        data: tuple[Array, Array],
        weights: list[Array],
        threads: int,
        seed: int = 0,
    ) -> None:
        self.workload, self.data, self.weights = workload, data, weights
        self.threads, self.seed = threads, seed
        self.prepare()
        self.reset()

    @abstractmethod
    def prepare(self) -> None:
        """Build what is kept between the tasks."""

    @abstractmethod
    def describe(self) -> str:
        """Return its version, and what decides about its speed."""

    @abstractmethod
    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""

    @abstractmethod
    def losses(self, steps: int) -> list[float]:
        """Make steps on the first batches in order; return the loss before each."""

    @abstractmethod
    def train(self, epochs: int) -> None:
        """Make whole epochs of shuffled batches, each row once an epoch."""

    @abstractmethod
    def infer(self, x: Array, calls: int = 1) -> Array:
        """Compute the outputs of some rows, as many times; return the last."""


def missing(name: str) -> str | None:
    """Return the package that a side lacks here, if any."""
    package, _ = SIDES[name]
    return None if find_spec(package) else package


def side_class(name: str) -> type[Side]:
    """Import a side's class, and with it the library."""
    _, where = SIDES[name]
    found: type[Side] = resolve_name(where)
    return found
