"""The time that no program beats: arithmetic at the measured peak, then Adam's bytes.

``FLOPs / (FMA peak of a core * threads) + bytes / bandwidth``: the roofline of Williams, Waterman,
Patterson 2009, doi:10.1145/1498765.1498785, with its two parts one after the other.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np

import fastmlp as fm
from bench.workloads import Workload

# Up to this share of the data each core works in a cache of its own.
_OWN_CACHE = 1 << 20
# With less, the time of NumPy's call counts, not the memory.
_LEAST = 128 << 10
_SECONDS = 0.02
_SAMPLES = 5


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
    """

    peak: float
    bandwidth: float
    threads: int

    def seconds(self, workload: Workload) -> float:
        """Return the floor of a training step."""
        arithmetic = workload.flops / (self.peak * self.threads)
        return arithmetic + workload.adam_bytes / self.bandwidth


def measure(workload: Workload, threads: int) -> Floor:
    """Measure the peak, and the bandwidth for as much memory as Adam goes through."""
    footprint = 4 * 4 * workload.parameters  # p, g, m, v
    peaks = [fm.kernels.fma_peak("float32") * 1e9 for _ in range(_SAMPLES)]
    rates = [bandwidth(footprint, threads) for _ in range(_SAMPLES)]
    return Floor(median(peaks), median(rates), threads)


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
