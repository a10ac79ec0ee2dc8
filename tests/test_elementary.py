"""The elementary functions, in units in the last place (ulp): float32 and float64, all paths."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from exhaustive import float32_error, ulps

import fastmlp as fm

K = fm.kernels

# The largest errors allowed, in float32 (measured over all numbers: `python tests/exhaustive.py`)
# and float64. With two roundings for each multiply-add (baseline) they are a little larger.
LIMITS = {
    "exp": (1.1, 1.6),
    "log": (0.9, 0.9),
    "tanh": (2.9, 3.5),
    "erf": (3.0, 2.6),
    "sigmoid": (2.6, 2.4),
    "softplus": (1.7, 1.7),
}
MPMATH: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "erf": mpmath.erf,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)) if x < 50 else x + mpmath.exp(-x),
}
# Where a formula changes, saturates, or rounds to another power of two: odd halves of log 2 (exp),
# sqrt(1/2) and sqrt(2) (log), sqrt(2) - 1 (log1p), 1 (erf), and the ends of each range.
BREAKS = [
    *(np.log(2) * np.arange(0.5, 8)),
    *(np.log(2) * (np.array([126, 127, 128, 1022, 1023, 1024]) - 0.5)),
    np.sqrt(0.5), np.sqrt(2), np.sqrt(2) - 1, -np.log(np.sqrt(2) - 1),
    0.25, 0.5, 1, 2, 4, 4.1, 6, 8, 9, 9.1, 16, 19.1, 20, 37, 40, 64,
    87.33654, 88, 88.72283, 103.3, 708.39642, 709, 709.78271, 745.2,
]  # fmt: skip
names = pytest.mark.parametrize("name", LIMITS)


@names
def test_float32_over_all_exponents(name):
    # Every 499th of all there are; 499 is prime, so all low bits occur.
    for start in range(0, 1 << 32, 499 << 18):
        bits = np.arange(start, min(start + (499 << 18), 1 << 32), 499)
        assert float32_error(name, bits) <= LIMITS[name][0]


@names
def test_float32_around_breaks(name):
    near = np.arange(-2048, 2048)
    for value in BREAKS:
        for sign in (1, -1):
            bits = int(np.float32(sign * value).view(np.uint32)) + near
            assert float32_error(name, bits) <= LIMITS[name][0], sign * value


@names
def test_float64_against_mpmath(name):
    rng = np.random.RandomState(0)
    breaks = np.array(BREAKS)
    x = np.concatenate(
        [
            np.exp(rng.uniform(np.log(1e-20), np.log(750), 9000)),
            np.exp(rng.uniform(np.log(1e-3), np.log(10), 4000)),
            np.exp(rng.uniform(-708, 709, 2000)),
            *(breaks * (1 + k * rng.rand(len(breaks)) * 2.0**-50) for k in range(-10, 10)),
        ]
    )
    if name != "log":
        x = np.concatenate([x, -x])
    got = getattr(K, name)(x)
    with mpmath.workprec(90):
        exact = np.array([_long_double(MPMATH[name](mpmath.mpf(value))) for value in x.tolist()])
    assert ulps(got, exact).max() <= LIMITS[name][1]


def _long_double(x: mpmath.mpf) -> np.longdouble:
    """Of more precision than float64 even where a long double is no more than that."""
    high = float(x)
    return np.longdouble(high) + (float(x - high) if np.isfinite(high) else 0)
