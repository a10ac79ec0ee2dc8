"""Lesson 7's network on iris beside PyTorch: the same splits, initial weights and settings.

4-128-64-32-16-3 with batch normalisation after the first three layers, batches of 4, SGD, 20
epochs. Only the order of the batches differs, which is chance: so means over seeds are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastmlp as fm

from .workloads import Array

_WIDTHS = (128, 64, 32, 16)
_BATCH, _EPOCHS = 4, 20
_RATES = (1e-3, 1e-2)
_ALLOWED = 0.05


def network(seed: int) -> fm.Sequential:
    """Make the network, with PyTorch's initial values: uniform, up to 1 / sqrt(inputs)."""
    layers: list[Any] = [fm.Input(4)]
    for inputs, units in zip((4, *_WIDTHS), (*_WIDTHS, 3), strict=True):
        uniform = fm.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5)
        layers.append(fm.Dense(units, kernel_initializer=uniform, bias_initializer=uniform))
        if units > 16:
            layers.append(fm.BatchNorm())
        if units != 3:
            layers.append("relu")
    return fm.Sequential(layers, seed=seed)


def ours(data: Sequence[Array], rate: float, seed: int) -> float:
    """Return fastmlp's accuracy on the rows not trained on."""
    x, x_test, y, y_test = data
    model = network(seed)
    model.compile(fm.SGD(rate), "cross_entropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=_BATCH, epochs=_EPOCHS, verbose=0)
    return model.evaluate(x_test, y_test)["accuracy"]


def pytorch(data: Sequence[Array], rate: float, seed: int) -> float:
    """Return PyTorch's, from the same weights."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    x, x_test, y, y_test = (torch.from_numpy(a) for a in data)
    model = network(seed)
    parts: list[nn.Module] = []
    for layer in model.layers:
        if isinstance(layer, fm.Dense):
            linear = nn.Linear(*layer.kernel.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer.kernel.T.copy()))
                linear.bias.copy_(torch.from_numpy(np.array(layer.bias)))
            parts.append(linear)
        else:
            batch_norm = isinstance(layer, fm.BatchNorm)
            parts.append(nn.BatchNorm1d(layer.output_shape[0]) if batch_norm else nn.ReLU())
    twin = nn.Sequential(*parts)
    optimizer = torch.optim.SGD(twin.parameters(), lr=rate)
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(x)).split(_BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(twin(x[rows]), y[rows]).backward()
            optimizer.step()
    twin.train(False)
    return float((twin(x_test).argmax(dim=1) == y_test).float().mean())


def main() -> int:
    """Print means and spreads; return 1 if the means are too far apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    x, y = fm.datasets.load("iris")
    x = x.astype(np.float32)
    worst = 0.0
    for rate in _RATES:
        means = []
        for side in (ours, pytorch):
            accuracies = []
            for seed in range(options.seeds):
                split = fm.data.train_test_split(x, y, test_size=0.25, seed=seed, stratify=y)
                accuracies.append(side(split, rate, seed))
            means.append(np.mean(accuracies))
            name = "fastmlp" if side is ours else "PyTorch"
            low, high = min(accuracies), max(accuracies)
            print(f"rate {rate}: {name} {means[-1]:.3f}, from {low:.2f} to {high:.2f}", flush=True)
        worst = max(worst, abs(means[0] - means[1]))
    print(f"the means differ by at most {worst:.3f}")
    return 0 if worst <= _ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
