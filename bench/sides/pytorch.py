"""The same in PyTorch: eager, with its fused Adam; and a whole step in one compiled graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from ..workloads import Array
from . import Side

Tensor = torch.Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": torch.selu,
    "softplus": functional.softplus,
    "silu": functional.silu,
    "swish": functional.silu,
}
_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
}
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class PyTorch(Side):
    """A training loop of one's own on bare tensors, which saves what `nn.Module` adds to a call.

    Kernels are (in, out) tensors; rows are gathered with index_select.
    """

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        torch.manual_seed(self.seed)
        self.x, self.y = (torch.from_numpy(array) for array in self.data)
        self.parameters = [torch.empty(w.shape, requires_grad=True) for w in self.weights]
        self.activation = ACTIVATIONS[self.workload.activation]
        self.loss = _LOSSES[self.workload.loss]

    def describe(self) -> str:
        """Return the version and the instruction set."""
        return f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self.weights):
                parameter.copy_(torch.from_numpy(weight))
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=self.workload.learning_rate, fused=True
        )

    def _forward(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        for i in range(0, len(parameters), 2):
            if i:
                x = self.activation(x)
            x = torch.addmm(parameters[i + 1], x, parameters[i])
        return x

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self.loss(self._forward(self.parameters, x), y)
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
        """Go forward without autograd."""
        rows = torch.from_numpy(x)
        with torch.inference_mode():
            for _ in range(calls):
                y = self._forward(self.parameters, rows)
        result: Array = y.numpy()
        return result


class CompiledPyTorch(PyTorch):
    """Gradients and Adam in one graph of `torch.compile`, so that Python runs once a step."""

    def prepare(self) -> None:
        """Build what is kept between the tasks; the first step compiles."""
        super().prepare()
        torch.compiler.reset()
        self.compiled = torch.compile(self._update, fullgraph=True, dynamic=False)

    def reset(self) -> None:
        """Go back to the initial weights and no moments."""
        with torch.no_grad():
            self.state = [torch.from_numpy(weight).clone() for weight in self.weights]
            self.means = [torch.zeros_like(p) for p in self.state]
            self.squares = [torch.zeros_like(p) for p in self.state]
            self.updates = torch.zeros(())

    def _update(
        self,
        parameters: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        updates: Tensor,
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        def loss_of(parameters: list[Tensor]) -> Tensor:
            return self.loss(self._forward(parameters, x), y)

        gradients, loss = torch.func.grad_and_value(loss_of)(parameters)
        updates.add_(1)
        rate = self.workload.learning_rate / (1 - _BETA1**updates)
        correction = torch.rsqrt(1 - _BETA2**updates)
        for p, m, v, g in zip(parameters, means, squares, gradients):
            m.lerp_(g, 1 - _BETA1)
            v.mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
            p.sub_(rate * m / (v.sqrt() * correction + _EPSILON))
        return loss

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            loss: Tensor = self.compiled(self.state, self.means, self.squares, self.updates, x, y)
        return loss
