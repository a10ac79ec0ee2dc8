"""Writes steps.npz: the parameters after ten training steps in PyTorch, in float64.

    pip install torch==2.13.0 numpy
    python tests/golden/make_golden.py

It also prints how far PyTorch's own float32 is from its float64, as ||difference|| / ||reference||
per tensor: what the tests' tolerance for float32 has to be read against.
"""

from __future__ import annotations

import numpy as np
import torch
from cases import ARCHITECTURES, FILE, OPTIMIZERS, STEPS, Case, case, key
from torch import nn
from torch.nn import functional

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
LOSSES = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}


def build(c: Case, dtype: torch.dtype) -> nn.Sequential:
    layers: list[nn.Module] = []
    for kernel, bias, name in zip(c.weights[::2], c.weights[1::2], c.activations):
        dense = nn.Linear(*kernel.shape, dtype=dtype)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(kernel.T))  # PyTorch stores (out, in)
            dense.bias.copy_(torch.from_numpy(bias))
        layers += [dense, ACTIVATIONS[name]()]
    return nn.Sequential(*layers)


def train(c: Case, optimizer: str, dtype: torch.dtype) -> list[np.ndarray]:
    """The weights after ten steps, kernels as (in, out)."""
    model = build(c, dtype)
    parameters = list(model.parameters())
    kind, arguments = OPTIMIZERS[optimizer]
    arguments = dict(arguments)
    clip_norm, clip_value = arguments.pop("clip_norm", None), arguments.pop("clip_value", None)
    arguments["lr"] = arguments.pop("learning_rate")
    stepper = getattr(torch.optim, kind)(parameters, **arguments)
    for step in range(STEPS):
        target = torch.from_numpy(c.target[step])
        if target.is_floating_point():
            target = target.to(dtype)
        stepper.zero_grad()
        LOSSES[c.loss](model(torch.from_numpy(c.x[step]).to(dtype)), target).backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        if clip_value is not None:
            nn.utils.clip_grad_value_(parameters, clip_value)
        stepper.step()
    return [p.detach().numpy().T.copy() for p in parameters]


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for index in range(ARCHITECTURES):
        c = case(index)
        for optimizer in c.optimizers:
            exact = train(c, optimizer, torch.float64)
            single = train(c, optimizer, torch.float32)
            worst = max(np.linalg.norm(s - e) / np.linalg.norm(e) for s, e in zip(single, exact))
            print(f"{c.name:45} batch {c.x.shape[1]:3} {optimizer:12} float32 {worst:.1e}")
            for tensor, value in enumerate(exact):
                arrays[key(index, optimizer, tensor)] = value
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {len(arrays)} tensors, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
