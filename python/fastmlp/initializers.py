"""Initial values of kernels and biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmlp import kernels
from fastmlp._config import check_number, lookup

Shape = tuple[int, ...]
DType = np.dtype[Any]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Initializer:
    """A way to fill a parameter before training.

    One of one's own defines `values`, and is a dataclass if it has settings; a plain function
    `f(shape, dtype)` serves as well. The numbers depend on the seed and the stream alone, not on
    the device.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> class Identity(fm.initializers.Initializer):
    ...     def values(self, shape, dtype, seed, stream):
    ...         return np.eye(*shape, dtype=dtype)
    >>> Identity()((2, 2), seed=0)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    def __call__(
        self, shape: Sequence[int], dtype: npt.DTypeLike = "float32", *, seed: int, stream: int = 0
    ) -> Array:
        """Return a new array of initial values.

        Parameters
        ----------
        shape : sequence of int
            (in, out) for a kernel, (n,) for a bias.
        dtype : dtype, default "float32"
            "float32" or "float64".
        seed : int
            The model's seed.
        stream : int, default 0
            Tells parameters of one model apart: each has its own independent numbers.

        Raises
        ------
        ValueError
            If an initializer of one's own returns another shape.
        """
        shape, dtype = tuple(shape), np.dtype(dtype)
        values = np.asarray(self.values(shape, dtype, seed, stream), dtype)
        if values.shape != shape:
            raise ValueError(f"initializer {self}: expected shape {shape}, got {values.shape}")
        return values

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        """Return a new array of this shape; what `__call__` stands on."""
        raise NotImplementedError(f"{type(self).__name__} must define values")


class _Normal(Initializer):
    """Normal numbers; a subclass says with which mean and deviation."""

    def _moments(self, shape: Shape) -> tuple[float, float]:
        raise NotImplementedError

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        mean, stddev = self._moments(shape)
        values = kernels.random_normal(shape, dtype, seed, stream)
        values *= stddev
        values += mean
        return values


class _Uniform(Initializer):
    """Uniform numbers; a subclass says between which bounds."""

    def _bounds(self, shape: Shape) -> tuple[float, float]:
        raise NotImplementedError

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        low, high = self._bounds(shape)
        values = kernels.random_uniform(shape, dtype, seed, stream)
        values *= high - low
        values += low
        return values


def _fans(shape: Shape) -> tuple[int, int]:
    """Return how many values meet in an output, and how many outputs a value meets; at least 1."""
    if len(shape) not in (1, 2):
        raise ValueError(f"initializer: shape must be (in, out) or (n,), got {shape}")
    return max(shape[0], 1), max(shape[-1], 1)


def _he(shape: Shape) -> float:
    return 2 / _fans(shape)[0]


def _glorot(shape: Shape) -> float:
    return 2 / sum(_fans(shape))


def _lecun(shape: Shape) -> float:
    return 1 / _fans(shape)[0]


def _symmetric(variance: float) -> tuple[float, float]:
    """Return the bounds between which uniform numbers have this variance, width squared / 12."""
    limit = sqrt(3 * variance)
    return -limit, limit


class HeNormal(_Normal):
    """Normal with variance 2 / in: keeps the variance of signals through ReLU layers.

    PyTorch's `kaiming_normal_`; unlike in Keras, the tails are not cut off. Equation 10 of He et
    al., "Delving Deep into Rectifiers", 2015.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.HeNormal()((200, 300), seed=0)
    >>> kernel.shape, f"{kernel.std():.2f}"
    ((200, 300), '0.10')
    """

    def _moments(self, shape: Shape) -> tuple[float, float]:
        return 0.0, sqrt(_he(shape))


class HeUniform(_Uniform):
    """Uniform within ±sqrt(6 / in), of the variance of `HeNormal`; PyTorch's `kaiming_uniform_`.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.HeUniform()((6, 300), seed=0)
    >>> f"{kernel.min():.2f} to {kernel.max():.2f}"
    '-1.00 to 1.00'
    """

    def _bounds(self, shape: Shape) -> tuple[float, float]:
        return _symmetric(_he(shape))


class GlorotNormal(_Normal):
    """Normal with variance 2 / (in + out): a compromise between signals and gradients.

    PyTorch's `xavier_normal_`; unlike in Keras, the tails are not cut off. Equation 12 of Glorot
    and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.GlorotNormal()((50, 150), seed=0)
    >>> f"{kernel.std():.2f}"
    '0.10'
    """

    def _moments(self, shape: Shape) -> tuple[float, float]:
        return 0.0, sqrt(_glorot(shape))


class GlorotUniform(_Uniform):
    """Uniform within ±sqrt(6 / (in + out)), of the variance of `GlorotNormal`.

    PyTorch's `xavier_uniform_` and the default of Keras' Dense; equation 16 of the same paper.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.GlorotUniform()((100, 500), seed=0)
    >>> f"{kernel.min():.2f} to {kernel.max():.2f}"
    '-0.10 to 0.10'
    """

    def _bounds(self, shape: Shape) -> tuple[float, float]:
        return _symmetric(_glorot(shape))


class LecunNormal(_Normal):
    """Normal with variance 1 / in: keeps the variance of signals through SELU and linear layers.

    LeCun et al., "Efficient BackProp", 1998, section 4.6. Unlike in Keras, the tails are not cut
    off.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.LecunNormal()((100, 300), seed=0)
    >>> f"{kernel.std():.2f}"
    '0.10'
    """

    def _moments(self, shape: Shape) -> tuple[float, float]:
        return 0.0, sqrt(_lecun(shape))


class LecunUniform(_Uniform):
    """Uniform within ±sqrt(3 / in), of the variance of `LecunNormal`.

    Examples
    --------
    >>> import fastmlp as fm
    >>> kernel = fm.initializers.LecunUniform()((300, 200), seed=0)
    >>> f"{kernel.min():.2f} to {kernel.max():.2f}"
    '-0.10 to 0.10'
    """

    def _bounds(self, shape: Shape) -> tuple[float, float]:
        return _symmetric(_lecun(shape))


@dataclass(frozen=True)
class RandomNormal(_Normal):
    """Normal with a given mean and deviation.

    Parameters
    ----------
    mean : float, default 0.0
    stddev : float, default 0.05
        At least 0.

    Examples
    --------
    >>> import fastmlp as fm
    >>> values = fm.initializers.RandomNormal(mean=1.0, stddev=0.1)((200, 300), seed=0)
    >>> f"{values.mean():.2f} and {values.std():.2f}"
    '1.00 and 0.10'
    """

    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        check_number("RandomNormal: mean", self.mean)
        check_number("RandomNormal: stddev", self.stddev, at_least=0)

    def _moments(self, shape: Shape) -> tuple[float, float]:
        return self.mean, self.stddev


@dataclass(frozen=True)
class RandomUniform(_Uniform):
    """Uniform between two bounds.

    Parameters
    ----------
    minval : float, default -0.05
    maxval : float, default 0.05
        At least `minval`.

    Examples
    --------
    >>> import fastmlp as fm
    >>> values = fm.initializers.RandomUniform(2.0, 3.0)((1000,), seed=0)
    >>> f"{values.min():.1f} to {values.max():.1f}"
    '2.0 to 3.0'
    """

    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self) -> None:
        check_number("RandomUniform: minval", self.minval)
        check_number("RandomUniform: maxval", self.maxval, at_least=self.minval)

    def _bounds(self, shape: Shape) -> tuple[float, float]:
        return self.minval, self.maxval


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere.

    Parameters
    ----------
    value : float, default 0.0

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.initializers.Constant(0.5)((2,), seed=0)
    array([0.5, 0.5], dtype=float32)
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        check_number("Constant: value", self.value)

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        return np.full(shape, self.value, dtype)


class Zeros(Initializer):
    """Zero everywhere: the default of biases.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.initializers.Zeros()((2,), seed=0)
    array([0., 0.], dtype=float32)
    """

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """One everywhere.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.initializers.Ones()((2,), seed=0)
    array([1., 1.], dtype=float32)
    """

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        return np.ones(shape, dtype)


@dataclass(frozen=True)
class Function(Initializer):
    """A function of one's own, `f(shape, dtype)`, as an initializer.

    Parameters
    ----------
    name : str
        What it is called; a file keeps this alone, since no file may hold code.
    function : callable, optional
        Called as `function(shape, dtype)`; the array it returns is converted to `dtype`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> fm.initializers.Function("identity", lambda shape, dtype: np.eye(*shape))((2, 2), seed=0)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    name: str
    function: Callable[[Shape, DType], Any] | None = field(
        default=None, repr=False, metadata={"saved": False}
    )

    def values(self, shape: Shape, dtype: DType, seed: int, stream: int) -> Array:
        if self.function is None:
            raise ValueError(
                f"initializer {self}: the function is not stored in files; give it again"
            )
        return np.array(self.function(shape, dtype), dtype)


_BY_NAME: dict[str, type[Initializer]] = {
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "lecun_normal": LecunNormal,
    "lecun_uniform": LecunUniform,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "constant": Constant,
    "zeros": Zeros,
    "ones": Ones,
}
_ALIASES = {
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "normal": "random_normal",
    "uniform": "random_uniform",
}

CLASSES: dict[str, type[Initializer]] = {
    cls.__name__: cls for cls in (*_BY_NAME.values(), Function)
}


def get(identifier: str | Initializer | Callable[..., Any]) -> Initializer:
    """Return the initializer that a name, an object or a function means.

    Parameters
    ----------
    identifier : str, Initializer or callable
        A name as in Keras ("he_normal") or PyTorch ("kaiming_normal"), in any case; an
        initializer; or a function `f(shape, dtype)`.

    Raises
    ------
    TypeError
        If it is none of these, or a class in place of an object.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.initializers.get("xavier_uniform")
    GlorotUniform()
    """
    if isinstance(identifier, Initializer):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        name = getattr(identifier, "__name__", type(identifier).__name__)
        return Function(name, identifier)
    return lookup("initializer", identifier, _BY_NAME, _ALIASES)()
