"""The same in PyTorch: eager, with its fused Adam, on tensors made beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.sides import Side
from bench.workloads import Array

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}
_LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "binary_cross_entropy": nn.functional.binary_cross_entropy_with_logits,
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
}


class PyTorch(Side):
    """A training loop as in PyTorch's tutorials; rows are gathered with index_select."""

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        workload = self.workload
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        torch.manual_seed(self.seed)
        self.x, self.y = (torch.from_numpy(array) for array in self.data)
        modules: list[nn.Module] = []
        for n, m in workload.layers:
            modules += [nn.Linear(n, m), _ACTIVATIONS[workload.activation]()]
        self.net = nn.Sequential(*modules[:-1])
        self.loss = _LOSSES[workload.loss]

    def describe(self) -> str:
        """Return the version and the instruction set."""
        return f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        with torch.no_grad():
            for parameter, weight in zip(self.net.parameters(), self.weights):
                parameter.copy_(torch.from_numpy(weight.T))
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=self.workload.learning_rate, fused=True
        )

    def _step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.net(x), y)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss

    def losses(self, steps: int) -> list[float]:
        """Step on the batches in order."""
        batch = self.workload.batch
        starts = range(0, steps * batch, batch)
        return [self._step(self.x[i : i + batch], self.y[i : i + batch]).item() for i in starts]

    def train(self, epochs: int) -> None:
        """Step on shuffled batches; the loss is computed and not read."""
        for _ in range(epochs):
            order = torch.randperm(len(self.x))
            for start in range(0, len(order), self.workload.batch):
                rows = order[start : start + self.workload.batch]
                self._step(self.x.index_select(0, rows), self.y.index_select(0, rows))

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Call the module without autograd."""
        rows = torch.from_numpy(x)
        with torch.inference_mode():
            for _ in range(calls):
                y = self.net(rows)
        result: Array = y.numpy()
        return result
