"""What the native core computes, written plainly in NumPy: every test compares against this.

Nothing here is fast or clever. A formula works in the dtype of its input, so the same lines give
the exact values (float64, or long double as the yardstick for float64) and NumPy's own rounding
error in float32, which is the unit that the tests measure errors in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# Not tabulated in NumPy: the C library's, in double precision.
erf = np.vectorize(math.erf, otypes=[np.float64])
SQRT_2_PI = math.sqrt(2 * math.pi)


def normal_distribution(x: Array) -> Array:
    return ((1 + erf(x / math.sqrt(2))) / 2).astype(x.dtype)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _elu_derivative(x: Array, alpha: float) -> Array:
    return np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


def _swish(x: Array, beta: float) -> Array:
    return x * logistic(beta * x)


def _swish_derivative(x: Array, beta: float) -> Array:
    s = logistic(beta * x)
    return s + beta * x * s * (1 - s)


# name: (f(x, parameter), f'(x, parameter)); at a kink the derivative is PyTorch's.
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (lambda x, a: x, lambda x, a: np.ones_like(x)),
    "relu": (lambda x, a: np.maximum(x, 0), lambda x, a: np.where(x > 0, 1, 0)),
    "leaky_relu": (lambda x, a: np.where(x > 0, x, a * x), lambda x, a: np.where(x > 0, 1, a)),
    "elu": (_elu, _elu_derivative),
    "selu": (
        lambda x, a: SELU_SCALE * _elu(x, SELU_ALPHA),
        lambda x, a: SELU_SCALE * _elu_derivative(x, SELU_ALPHA),
    ),
    "silu": (lambda x, a: _swish(x, 1.0), lambda x, a: _swish_derivative(x, 1.0)),
    "swish": (_swish, _swish_derivative),
    "softplus": (lambda x, a: softplus(x), lambda x, a: logistic(x)),
    "sigmoid": (lambda x, a: logistic(x), lambda x, a: logistic(x) * logistic(-x)),
    "gelu": (
        lambda x, a: x * normal_distribution(x),
        lambda x, a: normal_distribution(x) + x * np.exp(-x * x / 2) / SQRT_2_PI,
    ),
    "tanh": (lambda x, a: np.tanh(x), lambda x, a: 1 - np.tanh(x) ** 2),
}

DEFAULT_PARAMETER = {"leaky_relu": 0.01, "elu": 1.0, "swish": 1.0}


def activation(name: str, x: Array, parameter: float | None = None) -> Array:
    a = DEFAULT_PARAMETER.get(name, 0.0) if parameter is None else parameter
    return ACTIVATIONS[name][0](x, a).astype(x.dtype)


def derivative(name: str, x: Array, parameter: float | None = None) -> Array:
    a = DEFAULT_PARAMETER.get(name, 0.0) if parameter is None else parameter
    return ACTIVATIONS[name][1](x, a).astype(x.dtype)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dy: Array, y: Array) -> Array:
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def one_hot(labels: Array, classes: int, dtype: np.dtype | type = np.float64) -> Array:
    return np.eye(classes, dtype=dtype)[labels]


# Losses: per row, and the derivative of each row's loss by that row's prediction.


def _cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    if target.ndim == 1:
        target = one_hot(target, logits.shape[1], logits.dtype)
    # A row of class probabilities may sum to something else than 1; then so does its weight.
    total = target.sum(axis=1, keepdims=True)
    return -(target * log_softmax(logits)).sum(axis=1), total * softmax(logits) - target


def _binary_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    # Not softplus(z) - t z: there both terms are large where the loss is small.
    hinge = np.maximum(logits, 0) - target * logits
    rows = (hinge + np.log1p(np.exp(-np.abs(logits)))).mean(axis=1)
    return rows, (logistic(logits) - target) / logits.shape[1]


def _mse(prediction: Array, target: Array) -> tuple[Array, Array]:
    d = prediction - target
    return (d * d).mean(axis=1), 2 * d / d.shape[1]


def _mae(prediction: Array, target: Array) -> tuple[Array, Array]:
    d = prediction - target
    return np.abs(d).mean(axis=1), np.sign(d) / d.shape[1]


LOSSES = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "mse": _mse,
    "mae": _mae,
}

# A network that ends in this activation is trained on what stands before it.
MATCHING_ENDING = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}


def loss(
    name: str, prediction: Array, target: Array, sample_weight: Array | None = None
) -> tuple[float, Array]:
    """Mean over the batch of weight * loss of each row, and its derivative by the prediction."""
    rows, gradient = LOSSES[name](prediction, target)
    weight = np.ones(len(rows)) if sample_weight is None else sample_weight
    return float((weight * rows).mean()), gradient * weight[:, None] / len(rows)


def random_target(rng: np.random.RandomState, loss: str, rows: int, outputs: int) -> Array:
    """A target that suits the loss."""
    if loss == "cross_entropy":
        return rng.randint(outputs, size=rows)
    if loss == "binary_cross_entropy":
        return rng.randint(2, size=(rows, outputs)).astype(float)
    return rng.standard_normal((rows, outputs))


# Networks: a list of dense layers.


@dataclass
class Dense:
    kernel: Array
    bias: Array
    activation: str = "identity"


def dense_forward(x: Array, kernel: Array, bias: Array, name: str) -> Array:
    return activation(name, x @ kernel + bias)


def dense_backward(
    dy: Array, x: Array, kernel: Array, bias: Array, name: str
) -> tuple[Array, Array, Array]:
    dz = dy * derivative(name, x @ kernel + bias)
    return dz @ kernel.T, x.T @ dz, dz.sum(axis=0)


def mlp_forward(layers: Sequence[Dense], x: Array) -> list[Array]:
    """The input and each layer's output."""
    outputs = [x]
    for layer in layers:
        outputs.append(dense_forward(outputs[-1], layer.kernel, layer.bias, layer.activation))
    return outputs


def mlp_backward(
    layers: Sequence[Dense], outputs: Sequence[Array], dy: Array
) -> tuple[Array, list[Array]]:
    """The derivative by the input, and by [kernel0, bias0, kernel1, ...]."""
    gradients: list[Array] = []
    for layer, x in zip(reversed(layers), reversed(outputs[:-1])):
        dy, dkernel, dbias = dense_backward(dy, x, layer.kernel, layer.bias, layer.activation)
        gradients = [dkernel, dbias, *gradients]
    return dy, gradients


# Updates, in place on lists of arrays.


def clip_by_norm(gradients: Sequence[Array], limit: float) -> list[Array]:
    """Scaled such that the norm of all together is at most `limit`, as PyTorch does it."""
    norm = np.sqrt(sum(float((g * g).sum()) for g in gradients))
    return [g * min(1.0, limit / (norm + 1e-6)) for g in gradients]


def clip_by_value(gradients: Sequence[Array], limit: float) -> list[Array]:
    return [np.clip(g, -limit, limit) for g in gradients]


@dataclass
class SGD:
    """v <- momentum v + g;  p <- p - learning_rate v, or (g + momentum v) with Nesterov."""

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    velocity: list[Array] = field(default_factory=list)

    def step(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> None:
        self.velocity = self.velocity or [np.zeros_like(p) for p in parameters]
        for p, g, v in zip(parameters, gradients, self.velocity):
            g = g + self.weight_decay * p
            v[...] = self.momentum * v + g
            p -= self.learning_rate * (g + self.momentum * v if self.nesterov else v)


@dataclass
class Adam:
    """Kingma and Ba, arXiv:1412.6980; decoupled decay: arXiv:1711.05101; AMSGrad as in PyTorch."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    amsgrad: bool = False
    steps: int = 0
    moments: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def step(self, parameters: Sequence[Array], gradients: Sequence[Array]) -> None:
        self.steps += 1
        b1, b2 = self.betas
        self.moments = self.moments or [
            (np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)) for p in parameters
        ]
        for p, g, (m, v, v_max) in zip(parameters, gradients, self.moments):
            if self.decoupled:
                p *= 1 - self.learning_rate * self.weight_decay
            else:
                g = g + self.weight_decay * p
            m[...] = b1 * m + (1 - b1) * g
            v[...] = b2 * v + (1 - b2) * g * g
            v_max[...] = np.maximum(v_max, v)
            second = (v_max if self.amsgrad else v) / (1 - b2**self.steps)
            p -= self.learning_rate / (1 - b1**self.steps) * m / (np.sqrt(second) + self.epsilon)


# ---- normalisation: statistics are (biased) means over the batch, or over each row


def normalise(
    x: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: float = 1e-5,
) -> np.ndarray:
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def batch_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return normalise(x, x.mean(axis=0), x.var(axis=0), gamma, beta)


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return normalise(x, x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True), gamma, beta)


def normalise_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, axis: int, epsilon: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The derivatives by x, gamma and beta, with statistics over `axis`."""
    deviation = np.sqrt(x.var(axis=axis, keepdims=True) + epsilon)
    normal = (x - x.mean(axis=axis, keepdims=True)) / deviation
    h = dy * gamma
    mean, product = (a.mean(axis=axis, keepdims=True) for a in (h, h * normal))
    return (h - mean - normal * product) / deviation, (dy * normal).sum(axis=0), dy.sum(axis=0)


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return normalise_backward(dy, x, gamma, axis=0)


def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return normalise_backward(dy, x, gamma, axis=1)
