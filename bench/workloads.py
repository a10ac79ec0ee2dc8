"""What is timed: networks with a batch size, the data and the initial weights, and their work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ACTIVATIONS = (
    "relu",
    "tanh",
    "sigmoid",
    "identity",
    "leaky_relu",
    "elu",
    "selu",
    "softplus",
    "silu",
    "swish",
)
LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae")
_CLASSIFICATION = ("cross_entropy", "binary_cross_entropy")

# Of the inferences.
INFERENCE_ROWS = (1, 64, 4096)
# Of the epoch that is timed as a whole: as many as MNIST has.
EPOCH_ROWS = 60_000

# An epoch: enough steps for what it costs by itself to vanish, few enough bytes for memory.
_MOST_STEPS = 10_000
_MOST_BYTES = 64 << 20
# In operations, a byte as four of them: some tenths of a second.
_MOST_WORK = 4e10


@dataclass(frozen=True)
class Workload:
    """A fully connected network, linear at its end, trained by Adam on batches of one size.

    `tasks` are those that are timed unless the caller asks for others. `precision` is that of its
    matrix products, as in `fastmlp.Sequential`; of several `replicas` each is such a network, on
    the same rows and from the same weights.
    """

    name: str
    dims: tuple[int, ...]
    batch: int
    activation: str = "relu"
    loss: str = "cross_entropy"
    learning_rate: float = 1e-3
    tasks: tuple[str, ...] = ("train", "infer")
    device: str = "cpu"
    precision: str | None = None
    replicas: int = 1

    @property
    def network(self) -> str:
        """The widths as text: 784-256-10, or 256 x 8 layers where all are equal."""
        if len(self.dims) > 4 and len(set(self.dims)) == 1:
            return f"{self.dims[0]} x {len(self.dims) - 1} layers"
        return "-".join(map(str, self.dims))

    @property
    def text(self) -> str:
        """All of it, for people."""
        text = f"{self.network}, batch {self.batch}, {self.activation}, {self.loss}"
        if self.device != "cpu":
            text += f", {self.precision or 'float32'} on {self.device}"
        elif self.precision:
            text += f", {self.precision}"
        return f"{self.replicas} of {text}" if self.replicas > 1 else text

    @property
    def classifies(self) -> bool:
        """Whether accuracy means something."""
        return self.loss in _CLASSIFICATION

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        return list(pairwise(self.dims))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return self.replicas * sum((n + 1) * m for n, m in self.layers)

    @property
    def flops(self) -> int:
        """Multiplications and additions of a step's matrix products.

        Three products a layer (output, weight gradient, input gradient), the first without the
        last of them.
        """
        products = [n * m for n, m in self.layers]
        return 2 * self.batch * (3 * sum(products) - products[0]) * self.replicas

    def padded_flops(self, lanes: int) -> int:
        """Return those of `flops`, each product's rows filled up to whole vectors of so many."""

        def filled(width: int) -> int:
            return ceil(width / lanes) * lanes

        # x @ kernel and x.T @ dz have rows of m, dz @ kernel.T has rows of n.
        products = [2 * n * filled(m) + m * filled(n) for n, m in self.layers]
        first_inputs, first_outputs = self.layers[0]
        return 2 * self.batch * (sum(products) - first_outputs * filled(first_inputs))

    @property
    def hidden_elements(self) -> int:
        """How many activations a step computes, the outputs aside."""
        return self.batch * sum(self.dims[1:-1]) * self.replicas

    @property
    def activation_bytes(self) -> int:
        """What a step moves besides parameters: its rows once; y and dz written and read, float32.

        The outputs are left out: their loss is elementwise work that moves them itself.
        """
        return 4 * (self.batch * self.dims[0] + 4 * self.hidden_elements)

    @property
    def adam_bytes(self) -> int:
        """What an update moves: reads p, g, m and v, writes p, m and v, float32."""
        return 7 * 4 * self.parameters

    def epoch_rows(self, scale: float = 1.0) -> int:
        """Return `EPOCH_ROWS`, or the scaled part of it, in whole batches: at least ten."""
        return self.batch * max(10, int(EPOCH_ROWS * scale) // self.batch)

    def rows(self, scale: float = 1.0, least: int = 0) -> int:
        """Return rows to time steps on, whole batches: at least ten, and so many rows."""
        steps = min(
            _MOST_STEPS,
            _MOST_BYTES // (4 * self.batch * self.dims[0]),
            int(_MOST_WORK / (self.flops + 4 * self.adam_bytes)),
        )
        return self.batch * max(10, ceil(least / self.batch), int(steps * scale))

    def data(self, rows: int) -> tuple[Array, Array]:
        """Return inputs and targets without meaning, the same in every process."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal((rows, self.dims[0]), np.float32)
        if self.loss == "cross_entropy":
            return x, rng.integers(0, self.dims[-1], rows)
        shape = (rows, self.dims[-1])
        if self.loss == "binary_cross_entropy":
            return x, rng.integers(0, 2, shape).astype(np.float32)
        return x, rng.standard_normal(shape, np.float32)

    @cached_property
    def weights(self) -> list[Array]:
        """He-normal kernels (in, out) and small biases in turn, the same in every process."""
        rng = np.random.default_rng(0)
        weights = []
        for n, m in self.layers:
            weights.append(rng.standard_normal((n, m), np.float32) * np.float32((2 / n) ** 0.5))
            weights.append(rng.standard_normal(m, np.float32) * np.float32(0.01))
        return weights


STANDARD = {
    workload.name: workload
    for workload in (
        Workload("A", (784, 256, 10), 128),
        Workload("B", (784, 128, 10), 32, tasks=("train", "infer", "epoch")),
        Workload("C", (4, 128, 64, 32, 16, 3), 4),
        Workload("D", (17, 64, 64, 6), 64, "tanh", "mse"),
        Workload("E", (2, 10, 10, 10, 1), 4, "sigmoid", "mse"),
        # At 1e-3, ten steps of a network this wide make 1e-4 of the last bit of a float.
        Workload("F", (1024, 2048, 2048, 1000), 512, learning_rate=1e-4),
        Workload("G", (256,) * 9, 256, "relu", "mse"),
        # A controller's network: one row at a time, and as fast as can be.
        Workload("H", (8, 64, 64, 4), 32, "relu", "mse", tasks=("infer",)),
    )
}


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Let a command line name workloads, or describe one of its own."""
    parser.add_argument("workloads", nargs="*", help="letters, such as A or ABC; all by default")
    parser.add_argument("--dims", help="a network of your own, such as 123-77-33-5")
    parser.add_argument("--batch", type=int, default=32, help="with --dims (default: 32)")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="with --dims")
    parser.add_argument("--loss", choices=LOSSES, default="cross_entropy", help="with --dims")


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Read a command line; `workloads` are those that it names, and an unknown one ends it."""
    options = parser.parse_args(arguments)
    try:
        options.workloads = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def chosen(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that a command line names.

    Raises
    ------
    ValueError
        If there is no such workload.
    """
    letters = "".join(options.workloads).upper()
    if unknown := sorted(set(letters) - STANDARD.keys()):
        raise ValueError(f"no workload {', '.join(unknown)}; there are {', '.join(STANDARD)}")
    found = [STANDARD[letter] for letter in letters]
    if options.dims:
        dims = tuple(int(width) for width in options.dims.split("-"))
        if len(dims) < 2 or min(*dims, options.batch) < 1:
            raise ValueError("--dims needs at least two widths; they and --batch at least 1")
        found.append(Workload("own", dims, options.batch, options.activation, options.loss))
    return found or list(STANDARD.values())
