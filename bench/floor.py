"""The time that no program beats, from what this machine was measured to do.

``(FLOPs / FMA peak + elementwise work) / threads + bytes / bandwidth``: the roofline of Williams,
Waterman, Patterson 2009, doi:10.1145/1498765.1498785, with its parts one after the other.

The FLOPs are those of the matrix products with their rows filled up to whole vectors; elementwise
work is activations, their derivatives and the loss, at the rates of `fastmlp.kernels` on arrays in
a core's own cache; bytes are Adam's 28 a parameter and those of the activations. The *simple
floor*, which leaves out padding, elementwise work and activations, is also there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np

import fastmlp as fm

from .workloads import Workload

# Up to this share of the data each core works in a cache of its own.
_OWN_CACHE = 1 << 20
# With less, the time of NumPy's call counts, not the memory.
_LEAST = 128 << 10
_SECONDS = 0.02
_SAMPLES = 5

# In the registers of a product that is being finished these cost nothing that can be measured.
_FREE = {"identity", "relu", "leaky_relu"}
_LANES = {"avx512": 16, "avx2": 8}  # floats in a vector; 4 elsewhere
# Elements of the two arrays whose difference in time is that of elements alone, not of the call.
_FEW, _MANY = 512, 8192
_OUTPUTS = 64  # of a loss: what a shorter row adds is not the machine's
_TURNS = 100  # of both, so that each has a quiet moment


@dataclass(frozen=True)
class Floor:
    """What a step needs at least on this machine.

    Attributes
    ----------
    peak : float
        Floating-point operations a second, one core.
    bandwidth : float
        Bytes a second, all threads together.
    threads : int
    lanes : int
        Floats in a vector.
    elementwise : float
        Seconds of one thread for all activations, derivatives and losses of a step.
    """

    peak: float
    bandwidth: float
    threads: int
    lanes: int = 1
    elementwise: float = 0.0

    def seconds(self, workload: Workload) -> float:
        """Return the floor of a training step."""
        arithmetic = workload.padded_flops(self.lanes) / self.peak + self.elementwise
        moved = workload.adam_bytes + workload.activation_bytes
        return arithmetic / self.threads + moved / self.bandwidth

    def simple(self, workload: Workload) -> float:
        """Return FLOPs at the peak and Adam's bytes alone."""
        arithmetic = workload.flops / (self.peak * self.threads)
        return arithmetic + workload.adam_bytes / self.bandwidth

    @property
    def rates(self) -> dict[str, float]:
        """What was measured, for a record."""
        return {
            "gigaflops_per_core": self.peak / 1e9,
            "gigabytes_per_second": self.bandwidth / 1e9,
        }


@dataclass(frozen=True)
class GpuFloor:
    """What a step needs at least on a GPU, which computes and moves bytes at the same time.

    Attributes
    ----------
    peak : float
        Floating-point operations a second of a large product, in the workload's precision.
    bandwidth : float
        Bytes a second of a large copy, read and written. What a small network's step moves stays in
        the cache, which is faster.
    """

    peak: float
    bandwidth: float

    def seconds(self, workload: Workload) -> float:
        """Return the floor of a training step."""
        moved = workload.adam_bytes + workload.activation_bytes
        return max(workload.flops / self.peak, moved / self.bandwidth)

    def simple(self, workload: Workload) -> float:
        """Return that of the FLOPs and Adam's bytes alone."""
        return max(workload.flops / self.peak, workload.adam_bytes / self.bandwidth)

    @property
    def rates(self) -> dict[str, float]:
        """What was measured, for a record."""
        return {"teraflops": self.peak / 1e12, "gigabytes_per_second": self.bandwidth / 1e9}


def measure(workload: Workload, threads: int, samples: int = _SAMPLES) -> Floor:
    """Measure the peak, the bandwidth for as much memory as a step goes through, and the rates."""
    footprint = 4 * 4 * workload.parameters + 4 * workload.batch * sum(workload.dims)  # p, g, m, v
    peaks = [fm.kernels.fma_peak("float32") * 1e9 for _ in range(samples)]
    rates = [bandwidth(footprint, threads) for _ in range(samples)]
    return Floor(
        median(peaks),
        median(rates),
        threads,
        _LANES.get(fm.show_config()["instruction_set"], 4),
        workload.hidden_elements * activation_seconds(workload.activation)
        + workload.batch * workload.dims[-1] * loss_seconds(workload.loss),
    )


def bandwidth(footprint: int, threads: int) -> float:
    """Return the bytes a second, read and written, of threads that scale arrays in place.

    As Adam does, each reads and writes the same cache lines; together they cover the footprint.
    """
    share = max(footprint // threads, _LEAST)
    if share <= _OWN_CACHE:  # cores do not meet, but calls as short as these meet at the GIL
        return threads * _scale_in_place(share)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_scale_in_place, [share] * threads))


def _scale_in_place(size: int) -> float:
    array, one = np.ones(size // 4, np.float32), np.float32(1)
    np.multiply(array, one, out=array)
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS:
        np.multiply(array, one, out=array)
        calls += 1
    return 2 * array.nbytes * calls / elapsed


@lru_cache
def activation_seconds(name: str) -> float:
    """Return one thread's time for an element's activation and its derivative."""
    if name in _FREE:
        return 0.0
    forward, backward = (getattr(fm.kernels, f"{name}{end}") for end in ("", "_backward"))

    def prepare(elements: int) -> Callable[[], object]:
        x = np.random.default_rng(0).standard_normal(elements, np.float32)
        y, dz, dy = np.empty_like(x), np.empty_like(x), np.ones_like(x)

        def call() -> None:
            forward(x, out=y)
            backward(dy, y, out=dz)

        return call

    return _seconds(prepare(_MANY), prepare(_FEW), _MANY - _FEW)


@lru_cache
def loss_seconds(name: str) -> float:
    """Return one thread's time for an output's share of the loss and its gradient, in wide rows."""
    outputs = _OUTPUTS

    def prepare(rows: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        z = rng.standard_normal((rows, outputs), np.float32)
        y = rng.integers(0, 2, z.shape).astype(np.float32)
        if name == "cross_entropy":
            y = rng.integers(0, outputs, rows).astype(np.int32)
        return lambda: fm.kernels.loss_and_gradient(name, z, y, None, float(rows))

    few, many = _FEW // outputs, _MANY // outputs
    return _seconds(prepare(many), prepare(few), (many - few) * outputs)


def _seconds(long: Callable[[], object], short: Callable[[], object], elements: int) -> float:
    """Return the time of an element: the least that was seen, as befits a floor."""
    threads = fm.get_num_threads()
    fm.set_num_threads(1)
    try:
        times = [(_time(long), _time(short)) for _ in range(_TURNS)]
    finally:
        fm.set_num_threads(threads)
    least_long, least_short = (min(column) for column in zip(*times))
    return max(0.0, least_long - least_short) / elements


def _time(call: Callable[[], object], calls: int = 5) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
