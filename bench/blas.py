"""How close a large matrix product comes to what one core can do at most.

Multiplies two 1024 x 1024 float32 matrices with `fastmlp.kernels.matmul` on one thread, and times
fused multiply-adds in registers between the products, so that both see the same clock frequency.
Fails below 85%. Run it without OPENBLAS_* in the environment: an explicit setting is respected.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

import fastmlp as fm


def measure(size: int, dtype: str, rounds: int) -> tuple[float, float]:
    """Return the medians of the peak and of the product, in GFLOP/s, measured in turn."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size)).astype(dtype)
    out = np.empty_like(a)
    exact = a.astype("float64") @ b.astype("float64")
    fm.kernels.matmul(a, b, out=out)
    error = np.abs(out - exact).max() / np.abs(exact).max()
    if not error < 1e-5:
        raise SystemExit(f"the product is wrong by {error:.1e}")

    peaks, products = [], []
    for _ in range(rounds):
        peaks.append(fm.kernels.fma_peak(dtype))
        start = time.perf_counter()
        fm.kernels.matmul(a, b, out=out)
        products.append(2 * size**3 / (time.perf_counter() - start) / 1e9)
    return float(np.median(peaks)), float(np.median(products))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--goal", type=float, default=0.85, help="least fraction of the peak")
    options = parser.parse_args()

    forced = sorted(name for name in os.environ if name.startswith("OPENBLAS_"))
    if forced:
        print(f"warning: {', '.join(forced)} in the environment; unset for a fair figure")
    fm.set_num_threads(1)
    peak, product = measure(options.size, options.dtype, options.rounds)
    config = fm.show_config()
    blas = config["blas"]
    fraction = product / peak
    print(f"BLAS             {blas['library']} {blas['version']}, core {blas['core'] or 'unknown'}")
    print(f"core chosen by   {blas['origin']}")
    if blas["warning"]:
        print(f"warning          {blas['warning']}")
    print(f"FMA peak         {peak:8.1f} GFLOP/s ({config['instruction_set']}, one core)")
    print(f"{options.size}^3 {options.dtype}  {product:9.1f} GFLOP/s")
    print(f"fraction         {fraction:8.1%}  (goal: at least {options.goal:.0%})")
    return 0 if fraction >= options.goal else 1


if __name__ == "__main__":
    sys.exit(main())
