"""The same in PyTorch: eager, with its fused Adam; a whole step compiled; steps in a CUDA graph."""

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
_MOST_CAPTURED = 32  # steps of a CUDA graph
_WARM_UP = 3  # steps before a graph is captured, as PyTorch asks for


class PyTorch(Side):
    """A training loop of one's own on bare tensors, which saves what `nn.Module` adds to a call.

    Kernels are (in, out) tensors; rows are gathered with index_select. On a GPU the data lie there,
    and bfloat16 is autocast's. Several networks are one, with a leading dimension.
    """

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        torch.manual_seed(self.seed)
        self.device = torch.device(self.workload.device)
        self.on_gpu = self.device.type == "cuda"
        tf32 = self.workload.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.x, self.y = (torch.from_numpy(array).to(self.device) for array in self.data)
        self.parameters = [
            torch.empty_like(w).requires_grad_() for w in map(self._tensor, self.weights)
        ]
        self.activation = ACTIVATIONS[self.workload.activation]
        self.loss = _LOSSES[self.workload.loss]

    def _tensor(self, weight: Array) -> Tensor:
        """Return a kernel or bias on the device, one for each network."""
        tensor, replicas = torch.from_numpy(weight).to(self.device), self.workload.replicas
        if replicas == 1:
            return tensor
        matrix = tensor if tensor.ndim == 2 else tensor[None]
        return matrix.expand(replicas, *matrix.shape).contiguous()

    def describe(self) -> str:
        """Return the version, and the GPU or the instruction set."""
        machine = (
            torch.cuda.get_device_name() if self.on_gpu else torch.backends.cpu.get_cpu_capability()
        )
        return f"{torch.__version__} ({machine})"

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self.weights):
                parameter.copy_(self._tensor(weight))
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=self.workload.learning_rate,
            fused=True,
            capturable=self.on_gpu,  # its counters lie on the GPU: nothing is read from the host
        )
        self._wait()

    def _wait(self) -> None:
        """Wait for all that the GPU has to do."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def _forward(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        replicas = self.workload.replicas
        if replicas > 1:
            x = x.expand(replicas, *x.shape)
        product = torch.addmm if replicas == 1 else torch.baddbmm
        for i in range(0, len(parameters), 2):
            if i:
                x = self.activation(x)
            x = product(parameters[i + 1], x, parameters[i])
        return x

    def _loss(self, parameters: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the networks' losses."""
        replicas = self.workload.replicas
        if replicas == 1:
            return self.loss(self._forward(parameters, x), y)
        outputs = self._forward(parameters, x).flatten(0, 1)
        return replicas * self.loss(outputs, y.repeat(replicas, *[1] * (y.ndim - 1)))

    def _rounded_loss(self, parameters: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        if self.workload.precision != "bfloat16":
            return self._loss(parameters, x, y)
        # Without the cache of rounded weights, which a graph would keep from before the update.
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            return self._loss(parameters, x, y)

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = self._rounded_loss(self.parameters, x, y)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss

    def losses(self, steps: int) -> list[float]:
        """Step on the batches in order."""
        batch = self.workload.batch
        found = []
        for start in range(0, steps * batch, batch):
            rows = slice(start, start + batch)
            found.append(self._step(self.x[rows], self.y[rows]).item() / self.workload.replicas)
        return found

    def train(self, epochs: int) -> None:
        """Step on shuffled batches; the loss is computed and not read."""
        for _ in range(epochs):
            order = torch.randperm(len(self.x), device=self.device)
            for start in range(0, len(order), self.workload.batch):
                rows = order[start : start + self.workload.batch]
                self._step(self.x.index_select(0, rows), self.y.index_select(0, rows))
        self._wait()

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Go forward without autograd; to a GPU and back with each call."""
        rows = torch.from_numpy(x)
        with torch.inference_mode():
            for _ in range(calls):
                if self.on_gpu:
                    y = self._forward(self.parameters, rows.to(self.device)).cpu()
                else:
                    y = self._forward(self.parameters, rows)
        result: Array = y.numpy()
        return result


class GraphedPyTorch(PyTorch):
    """Eager steps captured once and replayed: as many in a CUDA graph as divide an epoch.

    What varies lies in tensors that stay: the rows of the steps' batches, and their losses.
    """

    graph: torch.cuda.CUDAGraph | None = None

    def reset(self) -> None:
        """Go back to the initial weights and moments of zero; the first time, capture."""
        if self.graph is None:
            super().reset()
            self._capture()
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, self.weights):
                parameter.copy_(self._tensor(weight))
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
        self._wait()

    def _capture(self) -> None:
        steps = len(self.x) // self.workload.batch
        captured = max(n for n in range(1, _MOST_CAPTURED + 1) if steps % n == 0)
        self.rows = torch.arange(captured * self.workload.batch, device=self.device)
        self.rows = self.rows.reshape(captured, -1)
        self.captured_losses = torch.zeros(captured, device=self.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._gathered_step(0)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(captured):
                self._gathered_step(i)
        self.graph = graph

    def _gathered_step(self, i: int) -> None:
        x, y = (array.index_select(0, self.rows[i]) for array in (self.x, self.y))
        self.captured_losses[i].copy_(self._step(x, y).detach())

    def _replay(self, rows: Tensor) -> None:
        assert self.graph is not None
        self.rows.copy_(rows)
        self.graph.replay()

    def losses(self, steps: int) -> list[float]:
        """Replay on the batches in order, as many as it takes."""
        found: list[float] = []
        for rows in torch.arange(len(self.x), device=self.device).view(-1, *self.rows.shape):
            self._replay(rows)
            found += (self.captured_losses / self.workload.replicas).tolist()
            if len(found) >= steps:
                break
        return found[:steps]

    def train(self, epochs: int) -> None:
        """Replay on shuffled batches; losses are not read."""
        for _ in range(epochs):
            order = torch.randperm(len(self.x), device=self.device)
            for rows in order.view(-1, *self.rows.shape):
                self._replay(rows)
        self._wait()


class CompiledPyTorch(PyTorch):
    """Gradients and Adam in one graph of `torch.compile`, so that Python runs once a step."""

    def prepare(self) -> None:
        """Build what is kept between the tasks; the first step compiles."""
        super().prepare()
        torch.compiler.reset()
        mode = "reduce-overhead" if self.on_gpu else None  # by CUDA graphs
        self.compiled = torch.compile(self._update, fullgraph=True, dynamic=False, mode=mode)

    def reset(self) -> None:
        """Go back to the initial weights and no moments."""
        with torch.no_grad():
            self.state = [self._tensor(weight).clone() for weight in self.weights]
            self.means = [torch.zeros_like(p) for p in self.state]
            self.squares = [torch.zeros_like(p) for p in self.state]
            self.updates = torch.zeros((), device=self.device)
        if self.on_gpu:  # what is updated in place stays where it is, so a graph may do it
            for tensor in (*self.state, *self.means, *self.squares, self.updates):
                torch._dynamo.mark_static_address(tensor)
        self._wait()

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
            return self._rounded_loss(parameters, x, y)

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
