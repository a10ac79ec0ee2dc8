"""The same in JAX: a whole epoch is one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jaxlib
import numpy as np
from jax import numpy as jnp

from ..workloads import Array
from . import Side

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
}
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# On a GPU its products would be in tf32 unless told otherwise.
_PRECISIONS = {None: "highest", "tf32": "TF32_TF32_F32", "bfloat16": "BF16_BF16_F32"}
# Steps in the body of the loop: 2 saved some percent on small networks, more gave nothing.
_UNROLL = 2

State = tuple[Any, Any, Any, Any]  # parameters, means, squares, updates


def _cross_entropy(z: Any, labels: Any) -> Any:
    picked = jnp.take_along_axis(z, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - picked)


_LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": lambda z, y: jnp.mean(jax.nn.softplus(z) - z * y),
    "mse": lambda z, y: jnp.mean(jnp.square(z - y)),
    "mae": lambda z, y: jnp.mean(jnp.abs(z - y)),
}


class Jax(Side):
    """An epoch is one `lax.scan` over the batches' rows, gathered inside; its state is donated."""

    def prepare(self) -> None:
        """Build what is kept between the tasks; the first epoch and inference compile."""
        if self.workload.device != "cpu":
            jax.config.update("jax_default_matmul_precision", _PRECISIONS[self.workload.precision])
        x, y = self.data
        self.x = jnp.asarray(x)
        self.y = jnp.asarray(y.astype(np.int32) if y.dtype == np.int64 else y)
        self.rng = np.random.default_rng(self.seed)
        # The data are arguments: as constants they would become part of the program.
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.forward = jax.jit(self._forward)

    def describe(self) -> str:
        """Return the versions."""
        return f"{jax.__version__} (jaxlib {jaxlib.__version__}, lax.scan)"

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""

        def zeros() -> list[Any]:
            return [jnp.zeros(w.shape, jnp.float32) for w in parameters]

        # Copies: what is donated must be nobody else's.
        parameters = [jnp.array(self._stacked(w)) for w in self.weights]
        self.state: State = (parameters, zeros(), zeros(), jnp.zeros((), jnp.float32))
        jax.block_until_ready(self.state)

    def _stacked(self, weight: Array) -> Array:
        """Return a kernel or bias, one for each network where there are several."""
        if self.workload.replicas == 1:
            return weight
        matrix = weight if weight.ndim == 2 else weight[None]
        return np.broadcast_to(matrix, (self.workload.replicas, *matrix.shape))

    def _forward(self, parameters: list[Any], x: Any) -> Any:
        activation = _ACTIVATIONS[self.workload.activation]
        for i in range(0, len(parameters), 2):
            if i:
                x = activation(x)
            x = x @ parameters[i] + parameters[i + 1]
        return x

    def _step(self, x: Any, y: Any, state: State, rows: Any) -> tuple[State, Any]:
        def loss_of(parameters: list[Any]) -> Any:
            # "clip" leaves out the check of each index, as in the NumPy side.
            outputs = self._forward(parameters, jnp.take(x, rows, axis=0, mode="clip"))
            targets = jnp.take(y, rows, axis=0, mode="clip")
            if replicas > 1:
                outputs = outputs.reshape(-1, outputs.shape[-1])
                targets = jnp.tile(targets, (replicas, *[1] * (targets.ndim - 1)))
            return replicas * _LOSSES[self.workload.loss](outputs, targets)  # the sum of theirs

        replicas = self.workload.replicas
        parameters, means, squares, updates = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters)
        updates = updates + 1
        rate = self.workload.learning_rate / (1 - _BETA1**updates)
        correction = 1 / jnp.sqrt(1 - _BETA2**updates)
        means = [_BETA1 * m + (1 - _BETA1) * g for m, g in zip(means, gradients)]
        squares = [_BETA2 * v + (1 - _BETA2) * g * g for v, g in zip(squares, gradients)]
        parameters = [
            p - rate * m / (jnp.sqrt(v) * correction + _EPSILON)
            for p, m, v in zip(parameters, means, squares)
        ]
        return (parameters, means, squares, updates), loss / replicas

    def _epoch(self, state: State, x: Any, y: Any, order: Any) -> tuple[State, Any]:
        return jax.lax.scan(partial(self._step, x, y), state, order, unroll=_UNROLL)

    def _run(self, order: Array) -> Any:
        rows = order.astype(np.int32).reshape(-1, self.workload.batch)
        self.state, losses = self.epoch(self.state, self.x, self.y, rows)
        return losses

    def losses(self, steps: int) -> list[float]:
        """Run an epoch in order, of which the first steps count: another length compiles anew."""
        return [float(loss) for loss in self._run(np.arange(len(self.x)))[:steps]]

    def train(self, epochs: int) -> None:
        """Run epochs, each in an order of NumPy's: its shuffle is faster than JAX's sort."""
        for _ in range(epochs):
            losses = self._run(self.rng.permutation(len(self.x)))
        losses.block_until_ready()

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Go forward, compiled for this number of rows; to a GPU and back with each call."""
        rows, parameters = jnp.asarray(x), self.state[0]
        for _ in range(calls):
            if self.workload.device == "cpu":
                y = self.forward(parameters, rows).block_until_ready()
            else:
                y = np.asarray(self.forward(parameters, jnp.asarray(x)))
        return np.asarray(y)
