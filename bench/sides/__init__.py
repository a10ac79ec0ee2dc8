"""The libraries that are compared, one file each, and what each must be able to do."""

from __future__ import annotations

import os
import shutil
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

from ..workloads import ACTIVATIONS, LOSSES, Array, Workload


@dataclass(frozen=True)
class Entry:
    """A side's class, and what it can do; known without importing the library.

    Attributes
    ----------
    where : str
        File of this folder and class: ``"pytorch:PyTorch"``.
    packages : tuple of str
        What it imports.
    tasks : collection of str
        Of "train", "epoch" and "infer".
    most_rows : int or None
        Of an inference.
    activations, losses : collection of str
    threaded : bool
        Whether a second thread can help.
    compiles : bool
        Whether it needs a C++ compiler while it runs, and minutes: left out with --quick.
    devices : collection of str
        Of "cpu" and "cuda".
    """

    where: str
    packages: tuple[str, ...]
    tasks: Collection[str] = ("train", "epoch", "infer")
    most_rows: int | None = None
    activations: Collection[str] = ACTIVATIONS
    losses: Collection[str] = LOSSES
    threaded: bool = True
    compiles: bool = False
    devices: Collection[str] = ("cpu",)

    def can(self, workload: Workload, kind: str, rows: int) -> bool:
        """Return whether it can do this kind of task, on so many rows, with this network."""
        return (
            kind in self.tasks
            and workload.device in self.devices
            and (kind != "infer" or self.most_rows is None or rows <= self.most_rows)
            and workload.activation in self.activations
            and (kind == "infer" or workload.loss in self.losses)
        )


_BOTH = ("cpu", "cuda")
SIDES = {
    "fastmlp": Entry("ours:FastMLP", ("fastmlp",), devices=_BOTH),
    "NumPy": Entry("plain_numpy:PlainNumPy", ("numpy",)),
    "PyTorch": Entry("pytorch:PyTorch", ("torch",), devices=_BOTH),
    "torch.compile": Entry(
        "pytorch:CompiledPyTorch",
        ("torch",),
        tasks=("train", "epoch"),
        compiles=True,
        devices=_BOTH,
    ),
    "CUDA graphs": Entry(
        "pytorch:GraphedPyTorch", ("torch",), tasks=("train", "epoch"), devices=("cuda",)
    ),
    "JAX": Entry("jax_scan:Jax", ("jax",), devices=_BOTH),
    "scikit-learn": Entry(
        "scikit_learn:ScikitLearn",
        ("sklearn",),
        tasks=("train", "epoch"),
        activations=("identity", "relu", "tanh", "sigmoid"),
        losses=("cross_entropy", "binary_cross_entropy", "mse"),
    ),
    "ONNX Runtime": Entry("onnx_runtime:OnnxRuntime", ("onnxruntime", "onnx"), tasks=("infer",)),
    "mlpfile": Entry(
        "mlpfile_model:MlpFile",
        ("mlpfile",),
        tasks=("infer",),
        most_rows=1,
        activations=("relu", "identity"),
        threaded=False,
    ),
}
OURS = "fastmlp"
PEERS = [name for name, entry in SIDES.items() if name != OURS and "cpu" in entry.devices]
GPU_PEERS = [name for name, entry in SIDES.items() if name != OURS and "cuda" in entry.devices]


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

    def losses(self, steps: int) -> list[float]:
        """Make steps on the first batches in order; return the loss before each."""
        raise NotImplementedError

    def train(self, epochs: int) -> None:
        """Make whole epochs of shuffled batches, each row once an epoch."""
        raise NotImplementedError

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Compute the outputs of some rows, as many times; return the last."""
        raise NotImplementedError


def missing(name: str) -> str | None:
    """Return what a side lacks here, if anything: a package or a compiler."""
    entry = SIDES[name]
    for package in entry.packages:
        if not find_spec(package):
            return package
    if entry.compiles:
        if not shutil.which(os.environ.get("CXX", "g++")):
            return "a C++ compiler"
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            return "Python.h"
    return None


def side_class(name: str) -> type[Side]:
    """Import a side's class, and with it the library."""
    found: type[Side] = resolve_name(f"{__name__}.{SIDES[name].where}")
    return found
