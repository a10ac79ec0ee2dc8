"""What `bench.gpu` has done in processes of their own: a GPU's peaks, and the ways of a step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import fastmlp as fm

from .sides import OURS, side_class
from .workloads import Workload

# How a step and its large products are made: see csrc/cuda/backend.cu and library.cuh.
STEP, BLAS = "FASTMLP_CUDA_STEP", "FASTMLP_CUDA_BLAS"
WAYS = ("kernel", "kernel-global", "launches")
CAPTURED = 32  # steps of a graph

# A training step for compute-sanitizer, every way, with each kind of product and record, of a
# network and of three at once, of which one stops the others.
SANITIZED = """\
import os
import numpy as np
import fastmlp as fm

x, y = np.random.default_rng(0).standard_normal((150, 33)).astype(np.float32), np.arange(150) % 7
bad = x.copy()
bad[140] = np.inf
settings = {"batch_size": 40, "verbose": 0, "check_finite": False}
for way in ("launches", "kernel", "kernel-global"):
    os.environ["FASTMLP_CUDA_STEP"] = way
    for precision in (None, "tf32", "bfloat16"):
        layers = [fm.Dense(70, "tanh"), fm.LayerNorm(), fm.Dropout(0.2), fm.Dense(7)]
        model = fm.Sequential(layers, device="cuda", precision=precision, seed=0)
        model.compile(fm.Adam(clip_norm=1.0), "cross_entropy", ["accuracy"])
        several = fm.Ensemble(model, 3)
        model.fit(x, y, **settings)
        several.fit(x, y, **settings)
        try:
            several.fit(bad, y, **settings)
        except FloatingPointError:
            continue
        raise AssertionError("a loss was not finite, and nobody noticed")
"""


class Peaks:
    """What PyTorch reaches on this GPU: of a large product, and of a large copy."""

    size, megabytes, repeats = 8192, 1024, 5

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def product(self, precision: str | None) -> float:
        """Return the operations a second of a square product."""
        torch, n = self.torch, self.size
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
        return 2 * n**3 / self._seconds(lambda: torch.mm(a, b))

    def bandwidth(self) -> float:
        """Return the bytes a second, read and written, of a copy."""
        size = self.megabytes << 20
        a, b = (self.torch.empty(size, dtype=self.torch.uint8, device="cuda") for _ in range(2))
        return 2 * size / self._seconds(lambda: b.copy_(a))

    def _seconds(self, call: Callable[[], object]) -> float:
        """Return the median time of a call, once it has warmed up."""
        times = []
        for _ in range(self.repeats + 2):
            start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return median(times[2:])


class Ways:
    """One network's step in every way that the backend knows.

    An epoch of 33 batches is one step by launches, after which the time of a step is known, and 32
    that are one replay of the graph; an epoch of 32 batches has all by launches.
    """

    def seconds(
        self, workload: Workload, variable: str, way: str, steps: int, epochs: int, rounds: int
    ) -> float:
        """Return the median time of a step, of epochs of so many."""
        side = self._side(workload, steps)
        os.environ[variable] = way
        times = []
        for _ in range(rounds + 1):
            side.reset()
            start = time.perf_counter()
            side.train(epochs)
            times.append((time.perf_counter() - start) / (epochs * steps))
        return median(times[1:])  # the first one measures products and captures

    def large_products(self) -> dict[str, str]:
        """Return which way each of them has gone, in all workloads so far."""
        ways: dict[str, str] = fm.show_config()["cuda"]["large_products"]
        return ways

    def same_bits(self, workload: Workload) -> bool:
        """Return whether one kernel, either way, launches and graphs train to the same weights."""
        found = []
        side = self._side(workload, 2 * CAPTURED)
        for way in WAYS:
            os.environ[STEP] = way
            side.reset()
            side.train(1)
            found.append([w.tobytes() for w in side.model.get_weights()])
            side.model._engine.state["epoch"] = 0  # the same order of rows
        same = all(each == found[0] for each in found)
        return same and all(np.isfinite(w).all() for w in side.model.get_weights())

    @staticmethod
    def _side(workload: Workload, steps: int) -> Any:
        data = workload.data(steps * workload.batch)
        return side_class(OURS)(workload, data, workload.weights, threads=1)
