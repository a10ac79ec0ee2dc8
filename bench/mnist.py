"""The main job on real images, beside PyTorch from the same initial weights: accuracy and seconds.

MNIST-10k is MNIST's own test file: rows 0-7,999 train, 8,000-9,999 test. The network is 784-256-10
with ReLU, trained by Adam at 1e-3 on batches of 128 for 10 epochs, once for each seed. With a
precision, fastmlp trains once more, with its products rounded to that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

import fastmlp as fm

from . import report
from .sides import OURS, missing, side_class
from .workloads import Array, Workload

_TRAIN = 8_000
_ALLOWED = 0.005  # of accuracy: half a point
_PEER = "PyTorch"
_WORKLOAD = Workload("MNIST-10k", (784, 256, 10), 128)


class Contestant(NamedTuple):
    """A side, in a precision of its matrix products."""

    side: str
    precision: str | None = None

    @property
    def text(self) -> str:
        """For the lines that are printed, and their record."""
        return f"{self.side}, {self.precision}" if self.precision else self.side


def load(folder: Path) -> tuple[Array, Array]:
    """Read the images as (10000, 784) float32 from 0 to 1, and the labels."""
    found = sorted(folder.glob("t10k-images*"))
    if not found:
        raise FileNotFoundError(f"{folder}: no t10k-images-idx3-ubyte[.gz] in this folder")
    images, labels = fm.datasets.load(found[0])
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)


def initial_weights(seed: int) -> list[Array]:
    """Return what fastmlp begins with."""
    inputs, hidden, outputs = _WORKLOAD.dims
    return fm.Sequential(
        [fm.Input(inputs), fm.Dense(hidden, activation="relu"), fm.Dense(outputs)], seed=seed
    ).get_weights()


def train(
    one: Contestant, x: Array, y: Array, seed: int, epochs: int, threads: int
) -> tuple[float, float]:
    """Train one side; return its accuracy on the test rows and the seconds that training took."""
    data = x[:_TRAIN], y[:_TRAIN]
    workload = replace(_WORKLOAD, precision=one.precision)
    side = side_class(one.side)(workload, data, initial_weights(seed), threads, seed)
    start = time.perf_counter()
    side.train(epochs)
    seconds = time.perf_counter() - start
    return float(np.mean(side.infer(x[_TRAIN:]).argmax(axis=1) == y[_TRAIN:])), seconds


def best(one: Contestant, x: Array, y: Array, seed: int, epochs: int) -> tuple[float, float]:
    """Train fastmlp on all threads, a peer on one and on all: return the faster run."""
    most = fm.get_num_threads()
    counts = {most} if one.side == OURS else {1, most}
    runs = [train(one, x, y, seed, epochs, n) for n in counts]
    return min(runs, key=lambda run: run[1])


def main() -> int:
    """Print a line for each seed and the means; return 1 if the accuracies are too far apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="with the IDX files"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--precision", choices=["bfloat16"], help="where the CPU has it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()

    x, y = load(options.data)
    rounding = [Contestant(OURS, options.precision)] if options.precision else []
    sides = [Contestant(OURS), *rounding, *([] if missing(_PEER) else [Contestant(_PEER)])]
    results: dict[Contestant, list[tuple[float, float]]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side, runs in results.items():
            runs.append(best(side, x, y, seed, options.epochs))
        print(f"seed {seed}:  {_line({side.text: runs[-1] for side, runs in results.items()})}")
    means = {
        side.text: (mean(a for a, _ in runs), mean(s for _, s in runs))
        for side, runs in results.items()
    }
    print(f"mean:    {_line(means)}")
    record: dict[str, Any] = {
        "machine": report.machine(fm.get_num_threads(), {}),
        "seeds": options.seeds,
        "sides": {side: {"accuracy": a, "seconds": s} for side, (a, s) in means.items()},
    }
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if _PEER not in means:
        print(f"{_PEER} is not installed: nothing to compare with")
    differences = [means[OURS][0] - accuracy for accuracy, _ in list(means.values())[1:]]
    for side, difference in zip(list(means)[1:], differences):
        print(f"difference of the mean accuracies from {side}: {100 * difference:+.2f} points")
    return 0 if all(abs(difference) <= _ALLOWED for difference in differences) else 1


def _line(figures: dict[str, tuple[float, float]]) -> str:
    return "   ".join(f"{side} {a:.2%} in {s:.2f} s" for side, (a, s) in figures.items())


if __name__ == "__main__":
    sys.exit(main())
