"""Where arrays live and which backend computes on them: the one door to the native core."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from fastmlp import _core
from fastmlp._config import check_integer

version = _core.version

Array = Any  # NumPy's on the CPU, CuPy's on the GPU

_MAX_RANK = 8  # of the core's views (csrc/core/view.h)

StepState = _core.step_state_dtype
Arguments = _core.Arguments
FastCall = _core.FastCall
Inference = _core.Inference
Network = _core.Network
Plan = _core.Plan
Update = _core.Update


class Device:
    """Memory of one kind and the backend that computes in it.

    Attributes
    ----------
    name : str
        "cpu" or "cuda".
    xp : module
        numpy or cupy.
    backend : capsule
        What the native core takes as its first argument.
    """

    def __init__(self, name: str, xp: Any, backend: Any) -> None:
        self.name = name
        self.xp = xp
        self.backend = backend

    def __repr__(self) -> str:
        return f"<Device {self.name}>"

    def network(
        self, stages: list[dict[str, Any]], features: int, dtype: str, replicas: int
    ) -> _core.Network:
        """Lay out a network's parameters for this device."""
        return _core.Network(stages, features, dtype, replicas, self.backend)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Make an array for the core to work in: it starts on a cache line.

        NumPy's own start 16 bytes behind one. Half of all vectors would then lie on two lines, and
        a training step would take up to twice as long.
        """
        return (
            self.xp.empty(shape, dtype) if self.xp is not np else _aligned(np.empty, shape, dtype)
        )

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Make such an array of zeros."""
        return (
            self.xp.zeros(shape, dtype) if self.xp is not np else _aligned(np.zeros, shape, dtype)
        )

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Return a NumPy array: the same one on the CPU."""
        return array if isinstance(array, np.ndarray) else array.get()


def _aligned(make: Any, shape: int | tuple[int, ...], dtype: Any) -> Array:
    line = 64
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = make(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(shape)


_CPU = Device("cpu", np, _core.cpu())


@cache
def _cuda() -> Device:
    raise RuntimeError(
        "device 'cuda': this fastmlp was built without its CUDA backend; use device='cpu'"
    )


def get(name: str | Device) -> Device:
    """Return the device of that name.

    Raises
    ------
    ValueError
        If the name is unknown.
    RuntimeError
        If this machine or this build has no such device; the message says what is missing.

    Examples
    --------
    >>> from fastmlp import device
    >>> device.get("cpu").xp.__name__
    'numpy'
    """
    if isinstance(name, Device):
        return name
    if name == "cpu":
        return _CPU
    if name == "cuda":
        return _cuda()
    raise ValueError(f"device: expected 'cpu' or 'cuda', got {name!r}")


def of(array: Any) -> Device:
    """Return the device that an array lies on."""
    return get("cuda") if hasattr(array, "__cuda_array_interface__") else _CPU


def real_array(operation: str, name: str, values: Any) -> Array:
    """Return `values` as an array of real numbers on the device where they are.

    Raises
    ------
    TypeError
        If they are objects, strings, complex numbers or dates.
    ValueError
        If nested lists are ragged, or there are more dimensions than the core takes.
    """
    if hasattr(values, "__cuda_array_interface__"):
        array = of(values).xp.asarray(values)
    else:
        try:
            bare = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
            array = np.from_dlpack(values) if bare else np.asarray(values)
        except ValueError as error:  # ragged lists
            raise ValueError(f"{operation}: {name} is no regular array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{operation}: {name} must be real numbers, got dtype {array.dtype}")
    if array.ndim > _MAX_RANK:
        raise ValueError(
            f"{operation}: {name} must have at most {_MAX_RANK} dimensions, got {array.ndim}"
        )
    return array


def like(result: Array, given: Any) -> Any:
    """Return `result` as the kind of array that `given` is, where that needs no copy."""
    if isinstance(given, type(result)) or not hasattr(given, "__dlpack__"):
        return result
    if hasattr(given, "__array_namespace__"):
        return given.__array_namespace__().from_dlpack(result)
    library = sys.modules[type(given).__module__.partition(".")[0]]
    return library.from_dlpack(result) if hasattr(library, "from_dlpack") else result


def set_num_threads(n: int) -> None:
    """Set how many threads a large computation on the CPU may use. Results do not depend on it.

    Parameters
    ----------
    n : int
        From 1 to 1024. At first it is the number of CPUs that the process may keep busy: by its
        affinity, and by the quota of its control groups, rounded down.

    Raises
    ------
    TypeError
        If `n` is no integer.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.set_num_threads(1)
    >>> fm.get_num_threads()
    1
    """
    _core.set_num_threads(check_integer("set_num_threads: n", n, at_least=1))


def get_num_threads() -> int:
    """Return how many threads a large computation on the CPU may use.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def cuda_is_built() -> bool:
    """Return whether this build has the CUDA backend."""
    return False


def cuda_is_available() -> bool:
    """Return whether ``device="cuda"`` works here."""
    try:
        get("cuda")
    except RuntimeError:
        return False
    return True


def show_config() -> dict[str, Any]:
    """Tell how this build runs on this machine.

    Returns
    -------
    dict
        ``version``; ``instruction_set`` in use; ``matmul``, "native" or "blas"; ``blas``, a dict
        of the library, its version, the core whose kernels it runs, where that choice came from,
        and a warning (empty if none);
        ``threads``; ``cuda``, a dict of ``built`` and ``available``.

    Examples
    --------
    >>> import fastmlp as fm
    >>> sorted(fm.show_config())
    ['blas', 'cuda', 'instruction_set', 'matmul', 'threads', 'version']
    """
    config = _core.show_config()
    config["cuda"] = {"built": cuda_is_built(), "available": cuda_is_available()}
    return config
