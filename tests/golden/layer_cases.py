"""What layers.npz holds: networks of normalisation, PReLU, Maxout and log-softmax.

As in cases.py, numbers that are not stored follow from the case's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from golden.cases import STEPS, rounded

FILE = Path(__file__).with_name("layers.npz")
LEARNING_RATE = 1e-3  # of Adam, on cross-entropy

# Each layer's class in fastmlp and its arguments.
Spec = tuple[str, dict[str, Any]]
FEATURES, CLASSES, ROWS = 6, 5, 24


def dense(units: int) -> Spec:
    return "Dense", {"units": units}


# In front of batch normalisation a bias changes nothing: its gradient is rounding, of which Adam
# would make whole steps.
def before_batch_norm(units: int) -> Spec:
    return "Dense", {"units": units, "use_bias": False}


NETWORKS: dict[str, tuple[Spec, ...]] = {
    "batch norm": (before_batch_norm(9), ("BatchNorm", {}), ("ReLU", {}), dense(CLASSES)),
    "batch norm, settings": (
        before_batch_norm(33),
        ("BatchNorm", {"momentum": 0.5, "epsilon": 1e-2}),
        ("Tanh", {}),
        before_batch_norm(17),
        ("BatchNorm", {"affine": False}),
        ("Tanh", {}),
        dense(CLASSES),
    ),
    "layer norm": (
        ("LayerNorm", {}),
        dense(17),
        ("LayerNorm", {"epsilon": 1e-3}),
        ("GELU", {}),
        dense(9),
        ("LayerNorm", {"affine": False}),
        dense(CLASSES),
    ),
    "prelu": (
        ("PReLU", {"shared": True}),
        dense(17),
        ("PReLU", {}),
        dense(9),
        ("PReLU", {"shared": True}),
        dense(CLASSES),
    ),
    "maxout": (
        ("Maxout", {"units": 7, "pieces": 3}),
        ("Maxout", {"units": 9, "pieces": 2}),
        dense(CLASSES),
    ),
    "log-softmax": (dense(9), ("LogSoftmax", {}), dense(CLASSES), ("LogSoftmax", {})),
    "all": (
        before_batch_norm(16),
        ("BatchNorm", {}),
        ("PReLU", {}),
        ("Maxout", {"units": 11, "pieces": 2}),
        ("LayerNorm", {}),
        ("Sigmoid", {}),
        dense(CLASSES),
    ),
}


@dataclass(frozen=True)
class LayerCase:
    name: str
    layers: tuple[Spec, ...]
    weights: tuple[np.ndarray, ...]  # of each layer: kernel and bias, gamma and beta, or slopes
    x: np.ndarray  # (STEPS, ROWS, FEATURES)
    labels: np.ndarray  # (STEPS, ROWS)
    dy: np.ndarray  # (ROWS, CLASSES)


def layer_case(name: str) -> LayerCase:
    rng = np.random.RandomState(list(NETWORKS).index(name))
    weights, width = [], FEATURES
    for kind, settings in NETWORKS[name]:
        if kind in ("Dense", "Maxout"):
            columns = settings["units"] * settings.get("pieces", 1)
            weights.append(rounded(rng.standard_normal((width, columns)) / np.sqrt(width)))
            if settings.get("use_bias", True):
                weights.append(rounded(rng.uniform(-0.5, 0.5, columns)))
            width = settings["units"]
        elif kind == "PReLU":
            weights.append(rounded(rng.uniform(-0.5, 0.5, 1 if settings.get("shared") else width)))
        elif kind in ("BatchNorm", "LayerNorm") and settings.get("affine", True):
            weights += [rounded(rng.uniform(0.5, 2, width)), rounded(rng.uniform(-1, 1, width))]
    x = rounded(rng.standard_normal((STEPS, ROWS, FEATURES)))
    labels = rng.randint(CLASSES, size=(STEPS, ROWS))
    dy = rounded(rng.standard_normal((ROWS, CLASSES)))
    return LayerCase(name, NETWORKS[name], tuple(weights), x, labels, dy)
