"""Writes layers.npz: what PyTorch computes in float64 with the networks of layer_cases.py.

    pip install torch==2.13.0 numpy
    PYTHONPATH=tests python tests/golden/make_layers.py

For each network: the outputs and the gradients of a training pass, then the parameters and the
running statistics after ten steps, and what it infers with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from golden.cases import STEPS
from golden.layer_cases import (
    FEATURES,
    FILE,
    LEARNING_RATE,
    NETWORKS,
    LayerCase,
    layer_case,
)
from torch import nn

Tensor = torch.Tensor


class Maxout(nn.Module):
    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.dense, self.pieces = nn.Linear(inputs, units * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x).reshape(len(x), self.pieces, -1).max(dim=1).values


def module(kind: str, settings: dict[str, Any], width: int) -> nn.Module:
    epsilon = settings.get("epsilon", 1e-5)
    affine = settings.get("affine", True)
    if kind == "Dense":
        return nn.Linear(width, settings["units"], settings.get("use_bias", True))
    if kind == "Maxout":
        return Maxout(width, settings["units"], settings["pieces"])
    if kind == "PReLU":
        return nn.PReLU(1 if settings.get("shared") else width)
    if kind == "BatchNorm":
        return nn.BatchNorm1d(width, epsilon, settings.get("momentum", 0.1), affine)
    if kind == "LayerNorm":
        return nn.LayerNorm(width, epsilon, affine)
    if kind == "LogSoftmax":
        return nn.LogSoftmax(dim=1)
    return getattr(nn, kind)()


def build(c: LayerCase) -> nn.Sequential:
    modules, width = [], FEATURES
    for kind, settings in c.layers:
        modules.append(module(kind, settings, width))
        width = settings.get("units", width)
    model = nn.Sequential(*modules).double()
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), c.weights, strict=True):
            parameter.copy_(torch.from_numpy(weight.T.copy()))  # PyTorch stores (out, in)
    return model


def run(c: LayerCase) -> dict[str, np.ndarray]:
    model = build(c)
    x = torch.from_numpy(c.x[0]).requires_grad_()
    y = model(x)
    y.backward(torch.from_numpy(c.dy))
    arrays = {"y": y.detach(), "dx": x.grad}
    arrays |= {f"gradient.{i}": p.grad.t() for i, p in enumerate(model.parameters())}

    model = build(c)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for step in range(STEPS):
        optimizer.zero_grad()
        output = model(torch.from_numpy(c.x[step]))
        nn.functional.cross_entropy(output, torch.from_numpy(c.labels[step])).backward()
        optimizer.step()
    arrays |= {f"weight.{i}": p.detach().t() for i, p in enumerate(model.parameters())}
    running = [b for name, b in model.named_buffers() if "running" in name]
    arrays |= {f"statistic.{i}": b for i, b in enumerate(running)}
    model.eval()
    arrays["inferred"] = model(torch.from_numpy(c.x[0])).detach()
    return {name: array.numpy() for name, array in arrays.items()}


def main() -> None:
    arrays = {
        f"{name}.{key}": array for name in NETWORKS for key, array in run(layer_case(name)).items()
    }
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {len(arrays)} tensors, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
