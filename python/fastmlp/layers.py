"""Layers: what a network is made of, each a description that the core lowers to programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from fastmlp import initializers
from fastmlp._config import check_integer, check_number, lookup
from fastmlp.device import Array
from fastmlp.kernels import ACTIVATIONS, resolve_activation

Shape = tuple[int, ...]
Stage = dict[str, Any]
Initial = str | initializers.Initializer | Callable[..., Any]


class Layer:
    """A layer: its settings are its constructor's arguments, its arrays come when it is built.

    Attributes
    ----------
    input_shape, output_shape : tuple of int
        Of one row; known once the model is built.
    """

    _owner: Any = None  # the model it belongs to
    _gradients: Callable[[], dict[str, Array]] | None = None
    input_shape: Shape = ()
    output_shape: Shape = ()

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return type(self).__name__

    def _infer(self, shape: Shape) -> Shape:
        """Return the shape of a row that comes out, or refuse the one that goes in."""
        return shape

    def _stages(self) -> list[Stage]:
        """Return what the core does for it."""
        return []

    @property
    def parameters(self) -> dict[str, Array]:
        """Its arrays by name; empty for a layer that learns nothing."""
        return {}


@dataclass
class Input:
    """The shape of one row of data; not a layer itself.

    Parameters
    ----------
    shape : int or tuple of int
        Such as 4 or (28, 28).

    Raises
    ------
    TypeError, ValueError
        If it is not made of positive integers.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Input(4), fm.Dense(3)]).count_params()
    15
    """

    shape: int | Sequence[int]

    def __post_init__(self) -> None:
        self.shape = row_shape("Input", self.shape)


def row_shape(owner: str, shape: Any) -> Shape:
    """Return the shape of a row as a tuple of positive integers."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not sizes:
        raise ValueError(f"{owner}: shape must have at least one dimension, got ()")
    return tuple(check_integer(f"{owner}: shape", size, at_least=1) for size in sizes)


_ACTIVATIONS = {name: name for name in (*ACTIVATIONS, "softmax")}


def _activation_stages(name: str | None, parameter: float | None = None) -> list[Stage]:
    """Return what the core does for an activation; nothing for none."""
    if name is None:
        return []
    key = lookup("activation", name, _ACTIVATIONS, {"linear": "identity"})
    if key == "softmax":
        return [{"kind": "softmax"}]
    key, value = resolve_activation(key, parameter)
    if key == "identity":
        return []
    return [{"kind": "activation", "name": key, "parameter": value}]


@dataclass(eq=False)
class Dense(Layer):
    """A fully connected layer, ``activation(x @ kernel + bias)``.

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        The name of an activation, or "softmax"; none by default.
    use_bias : bool, default True
    kernel_initializer : str, Initializer or callable, default "he_normal"
    bias_initializer : str, Initializer or callable, default "zeros"
    l1, l2 : float, default 0
        Penalties on the kernel: ``l1 * sum(abs(kernel)) + l2 * sum(kernel**2)`` is part of the
        loss, as by Keras's regularizers, in its gradient and in every figure called "loss".

    Attributes
    ----------
    kernel : array, shape (in, units)
        A writable view of the model's parameters.
    bias : array, shape (units,), or None
        Likewise.
    gradients : dict of array
        "kernel" and "bias", as the last `backward` left them.

    Raises
    ------
    TypeError, ValueError
        If `units` is no positive integer, a name is unknown, or a penalty is negative or not
        finite.

    Examples
    --------
    >>> import fastmlp as fm
    >>> layer = fm.Dense(2, activation="tanh")
    >>> model = fm.Sequential([layer], seed=0)
    >>> model.build(3)
    >>> layer.kernel.shape, layer.bias.tolist()
    ((3, 2), [0.0, 0.0])
    """

    units: int
    activation: str | None = None
    use_bias: bool = True
    kernel_initializer: Initial = "he_normal"
    bias_initializer: Initial = "zeros"
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        self.units = check_integer("Dense: units", self.units, at_least=1)
        self.l1 = check_number("Dense: l1", self.l1, at_least=0)
        self.l2 = check_number("Dense: l2", self.l2, at_least=0)
        _activation_stages(self.activation)
        for name in ("kernel_initializer", "bias_initializer"):
            given = getattr(self, name)
            if not isinstance(given, str):
                setattr(self, name, initializers.get(given))
            else:
                initializers.get(given)
        self._views: dict[str, Array] = {}

    def _infer(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise ValueError(
                f"Dense: needs rows of one dimension, got {shape}; put Flatten() before it"
            )
        return (self.units,)

    def _stages(self) -> list[Stage]:
        dense = {"kind": "dense", "units": self.units, "use_bias": self.use_bias}
        dense |= {"l1": self.l1, "l2": self.l2}
        return [dense, *_activation_stages(self.activation)]

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Dense ({self.activation})" if self.activation else "Dense"

    @property
    def parameters(self) -> dict[str, Array]:
        """ "kernel" and, where there is one, "bias"."""
        return self._views

    @property
    def kernel(self) -> Array:
        """The kernel, (in, units), a writable view."""
        return self._built("kernel")

    @kernel.setter
    def kernel(self, value: Any) -> None:
        self._assign("kernel", value)

    @property
    def bias(self) -> Array | None:
        """The bias, (units,), a writable view; None without one."""
        return self._built("bias") if self.use_bias else None

    @bias.setter
    def bias(self, value: Any) -> None:
        self._assign("bias", value)

    @property
    def gradients(self) -> dict[str, Array]:
        """The gradients that the last `backward` left."""
        if self._gradients is None:
            raise RuntimeError("Dense: not built yet; call build, or give the model data")
        return self._gradients()

    def _built(self, name: str) -> Array:
        if name not in self._views:
            raise RuntimeError(f"Dense: no {name} yet; call the model's build, or give it data")
        return self._views[name]

    def _assign(self, name: str, value: Any) -> None:
        view = self._built(name)
        shape = getattr(value, "shape", None)
        if shape is not None and shape != () and tuple(shape) != view.shape:
            raise ValueError(f"Dense: {name} must have shape {view.shape}, got {tuple(shape)}")
        view[...] = value


@dataclass(eq=False)
class Activation(Layer):
    """An elementwise activation, or softmax, as a layer of its own.

    Parameters
    ----------
    name : str
        Such as "relu", "tanh" or "softmax".
    parameter : float, optional
        For an activation that has one: the negative slope, alpha or beta.

    Raises
    ------
    ValueError
        If the name is unknown, or the activation has no parameter.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Activation("relu")])([-1.0, 2.0])
    array([0., 2.], dtype=float32)
    """

    name: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        self._stages()

    def _stages(self) -> list[Stage]:
        return _activation_stages(self.name, self.parameter)

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Activation ({self.name})"


@dataclass(eq=False)
class ReLU(Layer):
    """``max(x, 0)``, with derivative 0 at 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.ReLU()])([-1.0, 2.0])
    array([0., 2.], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("relu")


@dataclass(eq=False)
class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Sigmoid()])([0.0])
    array([0.5], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("sigmoid")


@dataclass(eq=False)
class Tanh(Layer):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Tanh()])([0.0])
    array([0.], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("tanh")


@dataclass(eq=False)
class GELU(Layer):
    """``x * Phi(x)``, with Phi the normal distribution (Hendrycks and Gimpel, arXiv:1606.08415).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.GELU()])([0.0])
    array([0.], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("gelu")


@dataclass(eq=False)
class LeakyReLU(Layer):
    """``x`` where it is positive, else ``negative_slope * x`` (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float, default 0.01
        From 0 up.

    Raises
    ------
    TypeError, ValueError
        If it is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.LeakyReLU()])([-1.0, 2.0])
    array([-0.01,  2.  ], dtype=float32)
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        self._stages()

    def _stages(self) -> list[Stage]:
        return _activation_stages("leaky_relu", self.negative_slope)

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"LeakyReLU ({self.negative_slope:g})"


@dataclass(eq=False)
class ELU(Layer):
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., arXiv:1511.07289).

    Parameters
    ----------
    alpha : float, default 1
        From 0 up.

    Raises
    ------
    TypeError, ValueError
        If it is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.ELU()])([float("-inf"), 2.0])
    array([-1.,  2.], dtype=float32)
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        self._stages()

    def _stages(self) -> list[Stage]:
        return _activation_stages("elu", self.alpha)

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"ELU ({self.alpha:g})"


@dataclass(eq=False)
class SELU(Layer):
    """ELU scaled such that activations normalise themselves (Klambauer et al., arXiv:1706.02515).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.SELU()])([0.0, 1.0]).round(3)
    array([0.   , 1.051], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("selu")


@dataclass(eq=False)
class SiLU(Layer):
    """``x * sigmoid(x)`` (Elfwing, Uchibe, Doya 2018, arXiv:1702.03118).

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.SiLU()])([0.0, 2.0]).round(3)
    array([0.   , 1.762], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("silu")


@dataclass(eq=False)
class Swish(Layer):
    """``x * sigmoid(beta * x)`` (Ramachandran, Zoph, Le 2017, arXiv:1710.05941).

    Parameters
    ----------
    beta : float, default 1
        With 1 it is SiLU.

    Raises
    ------
    TypeError, ValueError
        If it is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Swish(2.0)])([0.0, 1.0]).round(3)
    array([0.   , 0.881], dtype=float32)
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        self._stages()

    def _stages(self) -> list[Stage]:
        return _activation_stages("swish", self.beta)

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Swish ({self.beta:g})"


@dataclass(eq=False)
class Softplus(Layer):
    """``log(1 + exp(x))``, a smooth ReLU.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Softplus()])([0.0]).round(3)
    array([0.693], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("softplus")


@dataclass(eq=False)
class Step(Layer):
    """1 where ``x > 0``, else 0 (Heaviside), for perceptrons; its derivative is 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Step()])([-1.0, 0.0, 2.0])
    array([0., 0., 1.], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("step")


@dataclass(eq=False)
class Softmax(Layer):
    """Probabilities from logits, ``exp(x - max) / sum``.

    At the end of a network that is trained on "cross_entropy" it costs nothing and loses nothing:
    the loss is computed from the logits.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Softmax()])([0.0, 0.0])
    array([0.5, 0.5], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return [{"kind": "softmax"}]


@dataclass(eq=False)
class Flatten(Layer):
    """Rows of several dimensions, such as images, as vectors.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Input((28, 28)), fm.Flatten(), fm.Dense(10)]).count_params()
    7850
    """

    def _infer(self, shape: Shape) -> Shape:
        return (prod(shape),)


@dataclass(eq=False)
class Dropout(Layer):
    """Sets elements to 0 at random while training and scales the others up (Srivastava 2014).

    Parameters
    ----------
    rate : float
        Share of elements that are dropped, from 0 up to but not including 1.

    Raises
    ------
    TypeError, ValueError
        If the rate is no number or out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.Dropout(0.5)])([1.0, 2.0])
    array([1., 2.], dtype=float32)
    """

    rate: float

    def __post_init__(self) -> None:
        self.rate = check_number("Dropout: rate", self.rate, at_least=0)
        if self.rate >= 1:
            raise ValueError(f"Dropout: rate must be below 1, got {self.rate:g}")

    def _stages(self) -> list[Stage]:
        return [{"kind": "dropout", "rate": self.rate}] if self.rate else []

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Dropout ({self.rate:g})"


# Layers that need no settings, which a name alone makes.
_PLAIN: tuple[type[Layer], ...] = (
    ReLU,
    Sigmoid,
    Tanh,
    GELU,
    Softmax,
    Flatten,
    LeakyReLU,
    ELU,
    SELU,
    SiLU,
    Swish,
    Softplus,
    Step,
)
CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls for cls in (Dense, Activation, Dropout, *_PLAIN)
}


def get(identifier: str | Layer) -> Layer:
    """Return a layer object, or the one that needs no settings and has that name.

    Raises
    ------
    TypeError
        If it is neither, or a class in place of an object.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.layers.get("flatten")
    Flatten()
    """
    if isinstance(identifier, Layer):
        return identifier
    return lookup("layer", identifier, {cls.__name__: cls for cls in _PLAIN})()
