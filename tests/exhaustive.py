"""How exact the elementary functions are: over every float32 there is, in two minutes or so each.

``python tests/exhaustive.py [function ...]`` prints the largest error of each in units in the last
place (ulp); ``FASTMLP_ISA=baseline`` before it measures another instruction set. The tests take a
part of the numbers by the same functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

import fastmlp as fm

# What each function should give, in float64 for arguments in float32. NumPy has no erf, so its
# reference is fastmlp's own in float64, which test_elementary.py compares with mpmath's.
EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": lambda x: fm.kernels.erf(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return |got - exact| in units in the last place that `exact` has in got's dtype.

    A result of 0 is right where the exact one is subnormal, since the core flushes those, and an
    infinite one counts as the power of two after the largest number. NaN must stand where it
    belongs.
    """
    info = np.finfo(got.dtype)
    top = exact.dtype.type(2) ** info.maxexp
    wide, exact = np.clip(got.astype(exact.dtype), -top, top), np.clip(exact, -top, top)
    error = np.abs(wide - exact) / (np.maximum(_power_of_two(exact), info.tiny) * info.eps)
    error[(got == 0) & (np.abs(exact) < info.tiny)] = 0
    both = np.isnan(wide) & np.isnan(exact)
    return np.where(np.isnan(error), np.where(both, 0, np.inf), error)


def _power_of_two(x: np.ndarray) -> np.ndarray:
    """Return the largest power of two that is not above |x|."""
    if x.dtype == np.float64:  # the exponent's bits: ten times as quick
        return (x.view(np.int64) & 0x7FF0000000000000).view(np.float64)
    return np.ldexp(x.dtype.type(0.5), np.frexp(x)[1])


def float32_error(name: str, bits: np.ndarray) -> float:
    """Return the largest error in ulp over the float32 of these bits; subnormal ones count as 0."""
    x = bits.astype(np.uint32).view(np.float32)
    x[np.abs(x) < np.finfo(np.float32).tiny] = 0
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
        return float(ulps(getattr(fm.kernels, name)(x), exact).max(initial=0))


def main(names: list[str]) -> None:
    chunk = np.arange(1 << 13)  # larger arrays would be given back and faulted in again each time
    for name in names or EXACT:
        starts = range(0, 1 << 32, len(chunk))
        worst = max(float32_error(name, start + chunk) for start in starts)
        print(f"{name:10} {worst:.2f} ulp", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
