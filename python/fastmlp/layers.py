"""Layers: what a network is made of, each a description that the core lowers to programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

from fastmlp import initializers
from fastmlp._config import check_integer, check_number, lookup
from fastmlp.device import Array, real_array
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
    _views: Mapping[str, Array] = MappingProxyType({})  # of what it learns
    _statistics: Mapping[str, Array] = MappingProxyType({})  # of what it only keeps
    _gradients: Callable[[], dict[str, Array]] | None = None
    input_shape: Shape = ()
    output_shape: Shape = ()

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return type(self).__name__

    def _learns(self) -> bool:
        """Return whether it will have parameters."""
        kind = type(self)
        return any(isinstance(getattr(kind, name, None), _Tensor) for name in dir(kind))

    def _infer(self, shape: Shape) -> Shape:
        """Return the shape of a row that comes out, or refuse the one that goes in."""
        return shape

    def _stages(self) -> list[Stage]:
        """Return what the core does for it."""
        return []

    def _initial(self, name: str, shape: Shape, dtype: str, seed: int, stream: int) -> Any:
        """Return a tensor as it is before training."""
        initializer = initializers.get(getattr(self, f"{name}_initializer"))
        return initializer(shape, dtype, seed=seed, stream=stream)

    @property
    def parameters(self) -> dict[str, Array]:
        """What it learns, by name: writable views. Empty for a layer that learns nothing."""
        return dict(self._views)

    @property
    def gradients(self) -> dict[str, Array]:
        """The gradients of its parameters, by name, as the last `backward` left them."""
        if self._gradients is None:
            raise RuntimeError(
                f"{type(self).__name__}: not built yet; call build, or give the model data"
            )
        return self._gradients()


class _Tensor:
    """An attribute of a layer that is one of its arrays: a writable view."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Layer | None, owner: type) -> Any:
        if layer is None:
            return self
        for views in (layer._views, layer._statistics):
            if self.name in views:
                return views[self.name]
        kind = type(layer).__name__
        if layer.output_shape:  # built without it
            return None
        raise RuntimeError(f"{kind}: no {self.name} yet; call the model's build, or give it data")

    def __set__(self, layer: Layer, value: Any) -> None:
        view = self.__get__(layer, type(layer))
        kind = type(layer).__name__
        if view is None:
            raise ValueError(f"{kind}: this layer has no {self.name}")
        array = real_array(kind, self.name, value)
        if array.shape not in ((), view.shape):  # a single value is for all elements
            raise ValueError(f"{kind}: {self.name} must have shape {view.shape}, got {array.shape}")
        view[...] = layer._owner._device.put(array)


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


_ACTIVATIONS = {name: name for name in (*ACTIVATIONS, "softmax", "log_softmax")}


def _activation_stages(name: str | None, parameter: float | None = None) -> list[Stage]:
    """Return what the core does for an activation; nothing for none."""
    if name is None:
        return []
    key = lookup("activation", name, _ACTIVATIONS, {"linear": "identity"})
    if key.endswith("softmax"):
        return [{"kind": "softmax", "logarithm": key == "log_softmax"}]
    key, value = resolve_activation(key, parameter)
    if key == "identity":
        return []
    return [{"kind": "activation", "name": key, "parameter": value}]


def _check_flat(owner: str, shape: Shape) -> None:
    if len(shape) != 1:
        raise ValueError(
            f"{owner}: needs rows of one dimension, got {shape}; put Flatten() before it"
        )


def _check_initializers(layer: Any) -> None:
    """Check a kernel's and a bias's initializer; a name stays a name, for files."""
    for name in ("kernel_initializer", "bias_initializer"):
        given = getattr(layer, name)
        initializer = initializers.get(given)
        if not isinstance(given, str):
            setattr(layer, name, initializer)


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
        If `units` is no positive integer, or a name is unknown.

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

    kernel = _Tensor()
    bias = _Tensor()

    def __post_init__(self) -> None:
        self.units = check_integer("Dense: units", self.units, at_least=1)
        _activation_stages(self.activation)
        _check_initializers(self)

    def _infer(self, shape: Shape) -> Shape:
        _check_flat("Dense", shape)
        return (self.units,)

    def _stages(self) -> list[Stage]:
        dense = {"kind": "dense", "units": self.units, "use_bias": self.use_bias}
        return [dense, *_activation_stages(self.activation)]

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Dense ({self.activation})" if self.activation else "Dense"


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
        return _activation_stages("softmax")


@dataclass(eq=False)
class LogSoftmax(Layer):
    """Logarithms of probabilities from logits, ``x - max - log(sum(exp(x - max)))``.

    Computed without the probabilities, so none is so small that its logarithm is lost.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> np.exp(fm.Sequential([fm.LogSoftmax()])([0.0, 0.0])).round(6)
    array([0.5, 0.5], dtype=float32)
    """

    def _stages(self) -> list[Stage]:
        return _activation_stages("log_softmax")


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


@dataclass(eq=False)
class PReLU(Layer):
    """A ReLU whose slope below 0 is learned (He et al. 2015, arXiv:1502.01852).

    Parameters
    ----------
    initial : float, default 0.25
        The slope before training.
    shared : bool, default False
        Whether all units have one slope; otherwise each has its own.

    Attributes
    ----------
    alpha : array, shape (units,) or (1,)
        The slopes, a writable view of the model's parameters.

    Raises
    ------
    TypeError, ValueError
        If `initial` is no finite number.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.PReLU()])([-4.0, 2.0])
    array([-1.,  2.], dtype=float32)
    """

    initial: float = 0.25
    shared: bool = False

    alpha = _Tensor()

    def __post_init__(self) -> None:
        self.initial = check_number("PReLU: initial", self.initial)

    @property
    def alpha_initializer(self) -> initializers.Initializer:
        """What the slopes are before training."""
        return initializers.Constant(self.initial)

    def _stages(self) -> list[Stage]:
        return [{"kind": "prelu", "shared": bool(self.shared)}]


@dataclass(eq=False)
class Maxout(Layer):
    """The largest of several affine functions of the input, for each unit (arXiv:1302.4389).

    ``y[u] = max over p of (x @ kernel + bias)[p * units + u]``: Goodfellow et al. 2013.

    Parameters
    ----------
    units : int
        Number of outputs.
    pieces : int, default 2
        Affine functions for each.
    use_bias : bool, default True
    kernel_initializer : str, Initializer or callable, default "he_normal"
    bias_initializer : str, Initializer or callable, default "zeros"

    Attributes
    ----------
    kernel : array, shape (in, pieces * units)
        The pieces side by side; a writable view of the model's parameters.
    bias : array, shape (pieces * units,), or None
        Likewise.

    Raises
    ------
    TypeError, ValueError
        If `units` or `pieces` is no positive integer, or a name is unknown.

    Examples
    --------
    The absolute value, as the larger of x and -x:

    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Input(1), fm.Maxout(1, pieces=2)])
    >>> model.layers[0].kernel = [[1.0, -1.0]]
    >>> model([-3.0])
    array([3.], dtype=float32)
    """

    units: int
    pieces: int = 2
    use_bias: bool = True
    kernel_initializer: Initial = "he_normal"
    bias_initializer: Initial = "zeros"

    kernel = _Tensor()
    bias = _Tensor()

    def __post_init__(self) -> None:
        self.units = check_integer("Maxout: units", self.units, at_least=1)
        self.pieces = check_integer("Maxout: pieces", self.pieces, at_least=1)
        _check_initializers(self)

    def _infer(self, shape: Shape) -> Shape:
        _check_flat("Maxout", shape)
        return (self.units,)

    def _stages(self) -> list[Stage]:
        units = self.units * self.pieces
        dense = {"kind": "dense", "units": units, "use_bias": self.use_bias}
        return [dense, {"kind": "maxout", "pieces": self.pieces}]

    @property
    def label(self) -> str:
        """What `summary` and errors call it."""
        return f"Maxout ({self.pieces} pieces)"


@dataclass(eq=False)
class _Normalisation(Layer):
    """What batch and layer normalisation share."""

    gamma = _Tensor()
    beta = _Tensor()
    gamma_initializer = "ones"
    beta_initializer = "zeros"
    affine = True

    def _learns(self) -> bool:
        return self.affine

    def _normalisation(self, epsilon: float, **settings: Any) -> list[Stage]:
        settings = {"by_row": True, "momentum": 0.0, "affine": bool(self.affine)} | settings
        return [{"kind": "normalisation", "epsilon": epsilon, **settings}]


@dataclass(eq=False)
class BatchNorm(_Normalisation):
    """Gives each feature mean 0 and variance 1 over the batch (Ioffe, Szegedy, arXiv:1502.03167).

    ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``. While training, mean and variance
    are those of the batch, of at least 2 rows, and running averages of them are kept, with the
    variance unbiased; elsewhere the running averages take their place. That is PyTorch's
    `BatchNorm1d`, which also has these defaults; Keras counts `momentum` from the other end.

    Parameters
    ----------
    momentum : float, default 0.1
        Share of a new batch in the running averages, from 0 to 1.
    epsilon : float, default 1e-5
    affine : bool, default True
        Whether `gamma` and `beta` are learned; otherwise there are none.

    Attributes
    ----------
    gamma, beta : array, shape (features,), or None
        Writable views of the model's parameters.
    running_mean, running_variance : array, shape (features,)
        The running averages; no optimizer touches them.

    Raises
    ------
    TypeError, ValueError
        If `epsilon` is not positive, or `momentum` is out of range; at training, if a batch has a
        single row.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.BatchNorm()])
    >>> model.forward([[1.0], [3.0]], training=True).round(3).tolist()
    [[-1.0], [1.0]]
    >>> model.layers[0].running_mean.round(3)
    array([0.2], dtype=float32)
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    affine: bool = True

    running_mean = _Tensor()
    running_variance = _Tensor()
    running_mean_initializer = "zeros"
    running_variance_initializer = "ones"

    def __post_init__(self) -> None:
        self.momentum = check_number("BatchNorm: momentum", self.momentum, at_least=0)
        if self.momentum > 1:
            raise ValueError(f"BatchNorm: momentum must be at most 1, got {self.momentum:g}")
        self.epsilon = check_number("BatchNorm: epsilon", self.epsilon, above=0)

    def _stages(self) -> list[Stage]:
        return self._normalisation(self.epsilon, by_row=False, momentum=self.momentum)


@dataclass(eq=False)
class LayerNorm(_Normalisation):
    """Gives the features of each row mean 0 and variance 1 (Ba, Kiros, Hinton, arXiv:1607.06450).

    ``y = (x - mean) / sqrt(variance + epsilon) * gamma + beta``, in training as elsewhere.

    Parameters
    ----------
    epsilon : float, default 1e-5
    affine : bool, default True
        Whether `gamma` and `beta` are learned; otherwise there are none.

    Attributes
    ----------
    gamma, beta : array, shape (features,), or None
        Writable views of the model's parameters.

    Raises
    ------
    TypeError, ValueError
        If `epsilon` is not positive.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.Sequential([fm.LayerNorm()])([1.0, 3.0]).round(3)
    array([-1.,  1.], dtype=float32)
    """

    epsilon: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        self.epsilon = check_number("LayerNorm: epsilon", self.epsilon, above=0)

    def _stages(self) -> list[Stage]:
        return self._normalisation(self.epsilon)


@dataclass(eq=False)
class Custom(Layer):
    """A layer of one's own, written in Python on arrays: make a subclass.

    It works wherever a layer does: `fit` computes it between the core's own work, so a step costs
    a little more. Settings are the fields of a dataclass, so that files keep them;
    ``fm.load(path, custom_layers={"Name": Name})`` reads them back.

    Methods to write
    ----------------
    forward(x, training)
        Return the outputs for x (n, *input_shape), as an array (n, *output_shape).
    backward(dy, x, y)
        Return the derivative of the loss by x, given that by the outputs y that x had; of a layer
        with parameters, a pair: that, and a dict of the derivatives by them.
    build(input_shape)
        Return what the layer learns before training, a dict of arrays of one or two dimensions,
        which are ``self.parameters`` afterwards. By default it learns nothing.
    infer_shape(input_shape)
        Return the shape of one row that comes out; by default, that of one that goes in.

    Arrays are of the model's dtype and on its device, not to be written to or kept.

    Raises
    ------
    TypeError, ValueError
        At the call, if a method returns something else.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> class Sine(fm.Custom):
    ...     def forward(self, x, training):
    ...         return np.sin(x)
    ...     def backward(self, dy, x, y):
    ...         return dy * np.cos(x)
    >>> x = np.linspace(-3, 3, 100)[:, None]
    >>> model = fm.Sequential([fm.Dense(16), Sine(), fm.Dense(1)], seed=0)
    >>> model.compile(optimizer=fm.Adam(0.01), loss="mse")
    >>> history = model.fit(x, x * x, epochs=100, verbose=0)
    >>> history.history["loss"][-1] < 0.1
    True
    """

    def forward(self, x: Array, training: bool) -> Array:
        """Return the outputs for x."""
        raise NotImplementedError(f"{type(self).__name__}: a Custom layer needs a method forward")

    def backward(self, dy: Array, x: Array, y: Array) -> Array | tuple[Array, dict[str, Array]]:
        """Return the derivative by x, and those by the parameters, given that by y."""
        raise NotImplementedError(f"{type(self).__name__}: a Custom layer needs a method backward")

    def build(self, input_shape: Shape) -> Mapping[str, Any]:
        """Return what is learned, as it is before training."""
        return {}

    def infer_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one row that comes out."""
        return input_shape

    def _learns(self) -> bool:
        return type(self).build is not Custom.build

    def _infer(self, shape: Shape) -> Shape:
        name = type(self).__name__
        self._output = row_shape(f"{name}: output", self.infer_shape(shape))
        given = self.build(shape)
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: build must return a dict of arrays, got {given!r}")
        self._given = {key: real_array(name, key, value) for key, value in given.items()}
        for key, value in self._given.items():
            if not key.isidentifier() or value.ndim not in (1, 2) or not value.size:
                raise ValueError(
                    f"{name}: build must return arrays of one or two dimensions by name, "
                    f"got {key!r} of shape {value.shape}"
                )
        return self._output

    def _initial(self, name: str, shape: Shape, dtype: str, seed: int, stream: int) -> Any:
        return self._given[name].astype(dtype)

    def _stages(self) -> list[Stage]:
        shapes = [(name, list(value.shape)) for name, value in self._given.items()]
        return [{"kind": "host", "units": prod(self._output), "parameters": shapes}]

    def _forward(self, out: Array, x: Array, training: bool) -> None:
        """Compute all outputs into `out`, both (n, features)."""
        shape = (len(x), *self.output_shape)
        result = self.forward(x.reshape(len(x), *self.input_shape), training)
        out[...] = self._checked("forward", result, shape).reshape(out.shape)

    def _backward(
        self, dx: Array, x: Array, dy: Array, y: Array, gradients: Mapping[str, Array]
    ) -> None:
        """Compute the derivative by x into `dx`, all (n, features), and those by the parameters."""
        rows, name = len(x), type(self).__name__
        result = self.backward(
            dy.reshape(rows, *self.output_shape),
            x.reshape(rows, *self.input_shape),
            y.reshape(rows, *self.output_shape),
        )
        given: Mapping[str, Any] = {}
        if isinstance(result, tuple):
            result, given = result
        if set(given) != set(gradients):
            raise ValueError(
                f"{name}: backward must return derivatives by {sorted(gradients)}, "
                f"got {sorted(given)}"
            )
        shape = (rows, *self.input_shape)
        checked = self._checked("backward", result, shape).reshape(dx.shape)
        own = {
            key: self._checked("backward", given[key], to.shape) for key, to in gradients.items()
        }
        dx[...] = checked
        for key, to in gradients.items():
            to[...] = own[key]

    def _checked(self, method: str, result: Any, shape: Shape) -> Array:
        owner = f"{type(self).__name__}: {method}"
        array = self._owner._device.real_array(owner, "the result", result)
        if array.shape != shape:
            raise ValueError(f"{owner} must return an array of shape {shape}, got {array.shape}")
        return array


CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Dense,
        Maxout,
        Activation,
        ReLU,
        PReLU,
        Sigmoid,
        Tanh,
        GELU,
        Softmax,
        LogSoftmax,
        BatchNorm,
        LayerNorm,
        Flatten,
        Dropout,
    )
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
    plain = (
        ReLU,
        PReLU,
        Sigmoid,
        Tanh,
        GELU,
        Softmax,
        LogSoftmax,
        BatchNorm,
        LayerNorm,
        Flatten,
    )
    return lookup("layer", identifier, {cls.__name__: cls for cls in plain})()
