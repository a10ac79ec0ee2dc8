"""The random architectures of the golden files: the script that writes them and the tests share it.

Inputs, targets and first weights are not stored. They follow from the case's number through
`numpy.random.RandomState`, whose stream NumPy keeps frozen for ever, and are rounded to float32,
so that float32 and float64 start from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("steps.npz")
STEPS = 10
ARCHITECTURES = 24
LOSSES = ("cross_entropy", "mse", "binary_cross_entropy")
ACTIVATIONS = ("relu", "sigmoid", "tanh")

# name: (class, arguments). Every architecture runs Adam, SGD with momentum, and one of the others.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("Adam", {"learning_rate": 1e-3}),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "sgd": ("SGD", {"learning_rate": 0.1}),
    "nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd_decay": ("SGD", {"learning_rate": 0.05, "momentum": 0.5, "weight_decay": 0.1}),
    "adam_decay": ("Adam", {"learning_rate": 3e-3, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"learning_rate": 1e-2, "weight_decay": 0.5, "betas": (0.8, 0.99)}),
    "amsgrad": ("Adam", {"learning_rate": 1e-2, "betas": (0.5, 0.6), "amsgrad": True}),
    "clip_norm": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "clip_norm": 0.05}),
    "clip_value": ("Adam", {"learning_rate": 1e-3, "clip_value": 0.002}),
}
ALWAYS = ("adam", "momentum")
OTHERS = tuple(name for name in OPTIMIZERS if name not in ALWAYS)


@dataclass(frozen=True)
class Case:
    index: int
    loss: str
    activations: tuple[str, ...]  # one a layer; the last is "identity"
    x: np.ndarray  # (STEPS, batch, features)
    target: np.ndarray  # (STEPS, batch) labels or (STEPS, batch, outputs)
    weights: tuple[np.ndarray, ...]  # kernel0 (in, out), bias0, kernel1, ...

    @property
    def optimizers(self) -> tuple[str, ...]:
        return (*ALWAYS, OTHERS[self.index % len(OTHERS)])

    @property
    def name(self) -> str:
        widths = [self.weights[0].shape[0], *(bias.size for bias in self.weights[1::2])]
        return "-".join([f"{self.index:02}", *map(str, widths), self.loss])


def case(index: int) -> Case:
    """Widths 1 to 65, small ones as likely as large ones; depth 1 to 5; batch 1 to 64."""
    rng = np.random.RandomState(index)

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32).astype(np.float64)

    def width() -> int:
        return int(66 ** rng.uniform())

    loss = LOSSES[index % len(LOSSES)]
    depth = rng.randint(1, 6)
    batch = int(65 ** rng.uniform())
    widths = [width() for _ in range(depth + 1)]
    if loss == "cross_entropy":
        widths[-1] += 1  # at least two classes
    names = [ACTIVATIONS[rng.randint(len(ACTIVATIONS))] for _ in range(depth - 1)]

    weights = []
    for fan_in, units in pairwise(widths):
        weights.append(rounded(rng.standard_normal((fan_in, units)) / np.sqrt(fan_in)))
        weights.append(rounded(rng.uniform(-0.5, 0.5, units)))
    x = rounded(rng.standard_normal((STEPS, batch, widths[0])))
    if loss == "cross_entropy":
        target = rng.randint(widths[-1], size=(STEPS, batch))
    elif loss == "binary_cross_entropy":
        target = rng.randint(2, size=(STEPS, batch, widths[-1])).astype(np.float64)
    else:
        target = rounded(rng.standard_normal((STEPS, batch, widths[-1])))
    return Case(index, loss, (*names, "identity"), x, target, tuple(weights))


def key(index: int, optimizer: str, tensor: int) -> str:
    return f"{index:02}.{optimizer}.{tensor}"
