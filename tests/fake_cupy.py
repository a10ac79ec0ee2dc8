"""A stand-in for CuPy whose arrays lie in NumPy's memory, for machines without a GPU.

It is strict where CuPy is: nothing turns into a NumPy array by itself, arrays of both kinds do not
mix, a NumPy array goes in only by `asarray` and out only by `get`, and there are no structured
dtypes, no wide floats and no foreign byte order. It has just the functions that fastmlp calls, so
that a call of any other fails here and not on the first machine with a GPU.
"""

from __future__ import annotations

import operator
from types import SimpleNamespace

import numpy as np

_SUPPORTED = "?bhilqBHILQefd"


def _dtype(dtype):
    dtype = np.dtype(dtype)
    if dtype.char not in _SUPPORTED or not dtype.isnative:
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def _inside(value):
    """Return the NumPy array of a fake one; scalars as they are; NumPy's own are refused."""
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")
    return value._memory if isinstance(value, ndarray) else value


def _index(key):
    """Return an index with fake arrays opened; CuPy takes NumPy arrays here too."""
    if isinstance(key, tuple):
        return tuple(map(_index, key))
    return key._memory if isinstance(key, ndarray) else key


class ndarray:  # noqa: N801 - CuPy's name
    """An array "on the GPU"."""

    __array_priority__ = 100

    def __init__(self, memory):
        self._memory = memory

    @property
    def __cuda_array_interface__(self):
        return {**self._memory.__array_interface__, "version": 3}

    def __dlpack__(self, **_):
        raise AssertionError("only the fake itself can take a fake array apart")

    def __dlpack_device__(self):
        return (2, 0)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, *_, **__):
        raise TypeError("a NumPy function was called on an array on the GPU")

    __array_function__ = __array_ufunc__

    def get(self):
        return self._memory.copy()

    # A scalar may leave, as with CuPy, though it waits for the GPU.

    def __bool__(self):
        return bool(self._memory)

    def __int__(self):
        return int(self._memory)

    def __float__(self):
        return float(self._memory)

    def __format__(self, specification):
        return format(self._memory, specification)

    def __len__(self):
        return len(self._memory)

    def __getitem__(self, key):
        return ndarray(np.asarray(self._memory[_index(key)]))

    def __setitem__(self, key, value):
        self._memory[_index(key)] = _inside(value)

    def __invert__(self):
        return ndarray(~self._memory)

    def nonzero(self):
        return tuple(map(ndarray, self._memory.nonzero()))

    def astype(self, dtype, copy=True):
        dtype = _dtype(dtype)
        return self if dtype == self.dtype and not copy else ndarray(self._memory.astype(dtype))


def _forward_attributes():
    for name in ("shape", "dtype", "ndim", "size", "itemsize", "strides", "flags", "nbytes"):
        setattr(ndarray, name, property(lambda self, name=name: getattr(self._memory, name)))

    def method(name):
        def call(self, *arguments, **settings):
            return ndarray(np.asarray(getattr(self._memory, name)(*arguments, **settings)))

        return call

    for name in ("all", "any", "argmax", "copy", "max", "mean", "min", "ravel", "reshape", "sum"):
        setattr(ndarray, name, method(name))

    def binary(function, swapped):
        def call(self, other):
            pair = (_inside(other), self._memory) if swapped else (self._memory, _inside(other))
            return ndarray(np.asarray(function(*pair)))

        return call

    for name in ("add", "sub", "mul", "truediv", "and", "or"):
        function = getattr(operator, f"__{name}__")
        setattr(ndarray, f"__{name}__", binary(function, False))
        setattr(ndarray, f"__r{name}__", binary(function, True))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(ndarray, f"__{name}__", binary(getattr(operator, name), False))
    ndarray.__hash__ = None


_forward_attributes()


def empty(shape, dtype=np.float64):
    """Poisoned, so that what nobody writes is seen."""
    dtype = _dtype(dtype)
    return ndarray(np.full(shape, np.nan if dtype.kind == "f" else 85, dtype))


def zeros(shape, dtype=np.float64):
    return ndarray(np.zeros(shape, _dtype(dtype)))


def ones(shape, dtype=np.float64):
    return ndarray(np.ones(shape, _dtype(dtype)))


copies_from_host = []  # the shape of each array that `asarray` brought over


def asarray(values, dtype=None):
    if isinstance(values, ndarray):
        return values if dtype is None else values.astype(dtype, copy=False)
    host = np.array(values, dtype)
    _dtype(host.dtype)
    copies_from_host.append(host.shape)
    return ndarray(host)


def ascontiguousarray(values, dtype=None):
    assert isinstance(values, ndarray), "CuPy would move it, but then nobody says so"
    return ndarray(np.ascontiguousarray(values._memory, dtype))


def from_dlpack(tensor):
    return tensor if isinstance(tensor, ndarray) else ndarray(tensor.memory_for_dlpack())


def isfinite(x):
    return ndarray(np.isfinite(_inside(x)))


def floor(x):
    return ndarray(np.floor(_inside(x)))


def may_share_memory(a, b):
    return np.may_share_memory(_inside(a), _inside(b))


cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=0))
