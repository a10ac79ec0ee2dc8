"""Writes steps.npz: what PyTorch computes in float64.

The parameters after ten training steps, and each activation and loss, forward and backward.

    pip install torch==2.13.0 numpy
    python tests/golden/make_golden.py

It also prints how far PyTorch's own float32 is from its float64, as ||difference|| / ||reference||
per tensor: what the tests' tolerance for float32 has to be read against.
"""

from __future__ import annotations

import numpy as np
import torch
from cases import (
    ACTIVATION_RUNS,
    CASES,
    FILE,
    LOSS_RUNS,
    OPTIMIZERS,
    STEPS,
    Case,
    activation_data,
    case,
    key,
    loss_data,
)
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor


class Swish(nn.Module):
    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class Step(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.heaviside(x.detach(), torch.zeros((), dtype=x.dtype)) + 0 * x


class Softmax(nn.Softmax):
    def __init__(self) -> None:
        super().__init__(dim=-1)


ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "swish": Swish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "step": Step,
    "softmax": Softmax,
}


def reduced(values: Tensor, reduction: str) -> Tensor:
    return values.sum() if reduction == "sum" else values.mean()


def hinge(y: Tensor, t: Tensor, reduction: str = "mean") -> Tensor:
    return reduced(functional.relu(1 - t * y), reduction)


def perceptron(y: Tensor, t: Tensor, reduction: str = "mean") -> Tensor:
    return reduced(functional.relu(-t * y), reduction)


LOSSES = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "hinge": hinge,
    "perceptron": perceptron,
}
RENAMED = {"learning_rate": "lr", "epsilon": "eps"}


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
    arguments = {RENAMED.get(name, name): value for name, value in arguments.items()}
    l1, l2 = c.penalty
    stepper = getattr(torch.optim, kind)(parameters, **arguments)
    for step in range(STEPS):
        target = torch.from_numpy(c.target[step])
        if target.is_floating_point():
            target = target.to(dtype)
        stepper.zero_grad()
        output = model(torch.from_numpy(c.x[step]).to(dtype))
        loss = LOSSES[c.loss](output, target, **c.settings)
        for p in parameters[::2] if c.penalty != (0, 0) else []:
            loss = loss + l1 * p.abs().sum() + l2 * (p * p).sum()
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        if clip_value is not None:
            nn.utils.clip_grad_value_(parameters, clip_value)
        stepper.step()
    return [p.detach().numpy().T.copy() for p in parameters]


def formulas() -> dict[str, np.ndarray]:
    """Each activation and each loss alone: values and gradients."""
    arrays: dict[str, np.ndarray] = {}
    data, dy = map(torch.from_numpy, activation_data())
    for run, (name, parameter) in enumerate(ACTIVATION_RUNS):
        x = data.clone().requires_grad_()
        y = ACTIVATIONS[name](*[] if parameter is None else [parameter])(x)
        y.backward(dy)
        arrays[f"activation.{run}.y"] = y.detach().numpy()
        arrays[f"activation.{run}.dx"] = x.grad.numpy()
    for run, (name, settings, _) in enumerate(LOSS_RUNS):
        prediction, target = map(torch.from_numpy, loss_data(run))
        prediction.requires_grad_()
        value = LOSSES[name](prediction, target, **settings)
        value.backward()
        arrays[f"loss.{run}.value"] = value.detach().numpy()
        arrays[f"loss.{run}.gradient"] = prediction.grad.numpy()
    return arrays


def main() -> None:
    arrays = formulas()
    for index in range(CASES):
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
