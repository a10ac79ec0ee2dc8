"""What the golden file holds: the script that writes it and the tests share this.

Ten training steps of random architectures, and each activation and each loss alone.

Inputs, targets and first weights are not stored. They follow from the case's number through
`numpy.random.RandomState`, whose stream NumPy keeps frozen for ever, and are rounded to float32,
so that float32 and float64 start from the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("steps.npz")
STEPS = 10
ARCHITECTURES = 24  # of the losses and activations below; then those of FURTHER
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


# Only in FURTHER, so that those above stay with the architectures that they have.
OPTIMIZERS |= {
    "slow": ("SGD", {"learning_rate": 1e-3, "momentum": 0.9}),  # for losses that are sums
    "rmsprop": ("RMSprop", {"learning_rate": 1e-2}),
    "rmsprop_momentum": (
        "RMSprop",
        {"learning_rate": 1e-3, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.1},
    ),
    "rmsprop_centered": (
        "RMSprop",
        {"learning_rate": 1e-3, "alpha": 0.8, "centered": True, "epsilon": 1e-3},
    ),
    "rmsprop_all": (
        "RMSprop",
        {"learning_rate": 1e-3, "alpha": 0.9, "momentum": 0.5, "centered": True, "epsilon": 1e-3},
    ),
}


@dataclass(frozen=True)
class Further:
    """A loss, an activation and an optimizer to train with, and their settings."""

    loss: str
    activation: str
    optimizer: str
    settings: dict[str, Any] = field(default_factory=dict)  # of the loss
    probabilities: bool = False  # targets of cross-entropy, in place of labels
    penalty: tuple[float, float] = (0.0, 0.0)  # l1 and l2 of each kernel


FURTHER = (
    Further("huber", "leaky_relu", "rmsprop"),
    Further("huber", "elu", "rmsprop_momentum", {"delta": 0.5}),
    Further("huber", "relu", "slow", {"delta": 2.0, "reduction": "sum"}),
    Further("mae", "selu", "rmsprop_centered"),
    Further("mae", "identity", "slow", {"reduction": "sum"}),
    Further("mse", "softplus", "slow", {"reduction": "sum"}),
    Further("cross_entropy", "silu", "rmsprop_all", {"label_smoothing": 0.1}),
    Further("cross_entropy", "swish", "adam", {"label_smoothing": 0.3}, probabilities=True),
    Further("cross_entropy", "gelu", "momentum", probabilities=True),
    Further("cross_entropy", "tanh", "slow", {"reduction": "sum", "label_smoothing": 0.2}),
    Further("binary_cross_entropy", "sigmoid", "slow", {"reduction": "sum"}),
    Further("hinge", "gelu", "nesterov"),
    Further("hinge", "tanh", "slow", {"reduction": "sum"}),
    Further("perceptron", "step", "sgd"),
    Further("perceptron", "silu", "amsgrad"),
    Further("mse", "tanh", "momentum", penalty=(0.01, 0.02)),
    Further("cross_entropy", "relu", "adam", penalty=(0.0, 0.05)),
    Further("binary_cross_entropy", "elu", "clip_norm", penalty=(0.003, 0.0)),
)
CASES = ARCHITECTURES + len(FURTHER)


@dataclass(frozen=True)
class Case:
    index: int
    loss: str
    activations: tuple[str, ...]  # one a layer; the last is "identity"
    x: np.ndarray  # (STEPS, batch, features)
    target: np.ndarray  # (STEPS, batch) labels or (STEPS, batch, outputs)
    weights: tuple[np.ndarray, ...]  # kernel0 (in, out), bias0, kernel1, ...
    further: Further | None = None

    @property
    def optimizers(self) -> tuple[str, ...]:
        if self.further:
            return (self.further.optimizer,)
        return (*ALWAYS, OTHERS[self.index % len(OTHERS)])

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.further.settings) if self.further else {}

    @property
    def penalty(self) -> tuple[float, float]:
        return self.further.penalty if self.further else (0.0, 0.0)

    @property
    def name(self) -> str:
        widths = [self.weights[0].shape[0], *(bias.size for bias in self.weights[1::2])]
        return "-".join([f"{self.index:02}", *map(str, widths), self.loss])


def case(index: int) -> Case:
    """Widths 1 to 65, small ones as likely as large ones; depth 1 to 5; batch 1 to 64."""
    rng = np.random.RandomState(index)
    further = FURTHER[index - ARCHITECTURES] if index >= ARCHITECTURES else None

    def width() -> int:
        return int(66 ** rng.uniform())

    loss = further.loss if further else LOSSES[index % len(LOSSES)]
    depth = rng.randint(1, 6)
    batch = int(65 ** rng.uniform())
    widths = [width() for _ in range(depth + 1)]
    if loss == "cross_entropy":
        widths[-1] += 1  # at least two classes
    names = [ACTIVATIONS[rng.randint(len(ACTIVATIONS))] for _ in range(depth - 1)]
    if further:
        names = [further.activation] * (depth - 1)

    weights = []
    for fan_in, units in pairwise(widths):
        weights.append(rounded(rng.standard_normal((fan_in, units)) / np.sqrt(fan_in)))
        weights.append(rounded(rng.uniform(-0.5, 0.5, units)))
    x = rounded(rng.standard_normal((STEPS, batch, widths[0])))
    target = random_target(rng, loss, (STEPS, batch, widths[-1]))
    if further and further.probabilities:
        target = probabilities(rng, (STEPS, batch, widths[-1]))
    return Case(index, loss, (*names, "identity"), x, target, tuple(weights), further)


def rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def random_target(rng: np.random.RandomState, loss: str, shape: tuple[int, ...]) -> np.ndarray:
    if loss == "cross_entropy":
        return rng.randint(shape[-1], size=shape[:-1])
    if loss == "binary_cross_entropy":
        return rng.randint(2, size=shape).astype(np.float64)
    if loss in ("hinge", "perceptron"):
        return 2.0 * rng.randint(2, size=shape) - 1
    return rounded(rng.standard_normal(shape))


def probabilities(rng: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.uniform(size=shape)
    return rounded(values / values.sum(axis=-1, keepdims=True))


def key(index: int, optimizer: str, tensor: int) -> str:
    return f"{index:02}.{optimizer}.{tensor}"


# ---- each activation and each loss alone, forward and backward

# (name, parameter), which is None where there is none.
ACTIVATION_RUNS: tuple[tuple[str, float | None], ...] = (
    ("identity", None),
    ("relu", None),
    ("leaky_relu", 0.01),
    ("leaky_relu", 0.3),
    ("elu", 1.0),
    ("elu", 0.5),
    ("selu", None),
    ("sigmoid", None),
    ("tanh", None),
    ("softplus", None),
    ("swish", 1.0),
    ("swish", -1.5),
    ("silu", None),
    ("gelu", None),
    ("step", None),
    ("softmax", None),
)
# (name, settings, whether the targets are class probabilities)
LOSS_RUNS: tuple[tuple[str, dict[str, Any], bool], ...] = (
    *(
        (name, {"reduction": reduction}, False)
        for name in (*LOSSES, "mae", "huber", "hinge", "perceptron")
        for reduction in ("mean", "sum")
    ),
    ("cross_entropy", {"label_smoothing": 0.1}, False),
    ("cross_entropy", {"label_smoothing": 1.0, "reduction": "sum"}, False),
    ("cross_entropy", {}, True),
    ("cross_entropy", {"label_smoothing": 0.2}, True),
    ("huber", {"delta": 0.25}, False),
    ("huber", {"delta": 3.0, "reduction": "sum"}, False),
)


def activation_data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs from far below to far above 0, and derivatives by the outputs."""
    rng = np.random.RandomState(0)
    scale = np.array([[0.1], [1], [1], [3], [10]])
    return rounded(scale * rng.standard_normal((5, 19))), rounded(rng.standard_normal((5, 19)))


def loss_data(run: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets."""
    name, _, with_probabilities = LOSS_RUNS[run]
    rng = np.random.RandomState(run)
    prediction = rounded(2 * rng.standard_normal((9, 7)))
    if with_probabilities:
        return prediction, probabilities(rng, (9, 7))
    return prediction, random_target(rng, name, (9, 7))
