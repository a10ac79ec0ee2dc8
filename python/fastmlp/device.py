"""Where arrays live and which backend computes on them: the one door to the native core."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import _core
from fastmlp._config import check_integer

version = _core.version

Array = Any  # NumPy's on the CPU, CuPy's on the GPU

_MAX_RANK = 8  # of the core's views (csrc/core/view.h)

# DLPack's numbers for memory that a GPU's kernels read: its own, and managed memory.
_DLPACK_CUDA = (2, 13)

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

    def check_precision(self, operation: str, precision: str | None, dtype: str) -> None:
        """Refuse a precision of products that there is not, or not here.

        Raises
        ------
        ValueError
            If it is unknown, or `dtype` is not float32.
        RuntimeError
            If this device does not have it.
        """
        if precision is None:
            return
        if precision not in ("tf32", "bfloat16"):
            raise ValueError(
                f"{operation}: precision must be None, 'tf32' or 'bfloat16', got {precision!r}"
            )
        if dtype != "float32":
            raise ValueError(
                f"{operation}: precision {precision!r} needs dtype 'float32', got {dtype!r}"
            )
        here = _core.precisions(self.backend)
        if precision not in here:
            needs = "tensor cores (device 'cuda')"
            if precision == "bfloat16":
                needs += " or a CPU with AVX512_BF16"
            raise RuntimeError(
                f"{operation}: precision {precision!r} needs {needs}; device {self.name!r} "
                f"computes with precision={' or '.join(['None', *map(repr, here)])}"
            )

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

    def step_states(self, count: int) -> Any:
        """Make records of `StepState`, all zero, for the core to work on; read them by field."""
        return _StepStates(self.xp, count) if self.name == "cuda" else np.zeros(count, StepState)

    def put(self, array: Array) -> Array:
        """Return an array with the same values in this device's memory; itself if it lies there."""
        if self.name == "cpu":
            return array if isinstance(array, np.ndarray) else to_host(array)
        if isinstance(array, np.ndarray):  # CuPy has no other byte order and no wider numbers
            wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
            plain = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
            array = array.astype(plain, copy=False)
        return self.xp.asarray(array)

    def real_array(self, operation: str, name: str, values: Any) -> Array:
        """Return `values` as an array of real numbers in this device's memory.

        What lies on the host is moved to the GPU. The other way is an error: it would be slow, and
        wait for all that the GPU has to do, where nobody can see it.

        Raises
        ------
        TypeError
            If they lie on the GPU and this is the CPU; and what the function `real_array` raises.
        """
        if self.name == "cpu" and _on_gpu(values):
            raise TypeError(
                f"{operation}: {name} lies on the GPU, but this computes on the CPU; "
                "move the array to the host (x.get() in CuPy, x.cpu() in PyTorch), "
                "or the model to the GPU (model.to('cuda'))"
            )
        return self.put(real_array(operation, name, values))


class _StepStates:
    """Records of `StepState` in the GPU's memory, by field as NumPy has them: CuPy has none.

    Reading waits for the GPU and copies everything; writing a field does neither.
    """

    def __init__(self, xp: Any, count: int) -> None:
        self._xp = xp
        self._bytes = xp.zeros((count, StepState.itemsize), np.uint8)

    @property
    def __cuda_array_interface__(self) -> Any:
        return self._bytes.__cuda_array_interface__

    def __getitem__(self, key: str | int) -> Any:
        return self._bytes.get().view(StepState)[:, 0][key]

    def __setitem__(self, field: str, values: Any) -> None:
        dtype, offset = StepState.fields[field][:2]
        count = len(self._bytes)
        host = np.empty(count, dtype)
        host[...] = values
        raw = self._xp.asarray(host.reshape(count, -1).view(np.uint8))
        self._bytes[:, offset : offset + dtype.itemsize] = raw


def _aligned(make: Any, shape: int | tuple[int, ...], dtype: Any) -> Array:
    line = 64
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = make(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(shape)


_CPU = Device("cpu", np, _core.cpu())


@cache
def _cuda() -> Device:
    """Return the GPU; a RuntimeError says which part is missing and how to get it."""
    if not cuda_is_built():
        raise RuntimeError(
            "device 'cuda': this fastmlp was built without its CUDA backend; where NVIDIA's nvcc "
            "is installed, build it again: pip install . -C cmake.define.FASTMLP_CUDA=ON"
        )
    native = _native_cuda()
    reason = native.unavailable()
    if reason:
        raise RuntimeError(f"device 'cuda': {reason}")
    cupy = _working_cupy()
    native.use_blas(_cublaslt(), _choices())
    backend = native.backend(lambda: cupy.cuda.get_current_stream().ptr)
    _core.check_backend(backend)
    return Device("cuda", cupy, backend)


def _native_cuda() -> Any:
    try:
        return import_module("fastmlp._cuda")  # at first use, never by importing fastmlp
    except ImportError as error:
        raise RuntimeError(f"device 'cuda': fastmlp._cuda does not load: {error}") from error


def _working_cupy() -> Any:
    """Return CuPy, whose arrays hold the GPU's memory, if it can compute."""
    try:
        import cupy

        cupy.arange(2).sum().get()  # needs memory and the compiler that CuPy brings along
    except Exception as error:  # ImportError, or whatever CuPy and its libraries have to say
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise RuntimeError(
                "device 'cuda': CuPy, whose arrays hold the GPU's memory, is not installed: "
                'pip install "fastmlp[cuda]"'
            ) from None
        raise RuntimeError(f"device 'cuda': CuPy does not work here: {error}") from error
    return cupy


def _cublaslt() -> list[str]:
    """Return where cuBLASLt may be: as a system has it, and in NVIDIA's packages."""
    spec = find_spec("nvidia")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    found = []
    for major, package in (("13", "cu13"), ("12", "cublas")):
        name = f"libcublasLt.so.{major}"
        packaged = [folder / package / "lib" / name for folder in folders]
        found += [name, *(str(path) for path in packaged if path.is_file())]
    return found


def _choices() -> str:
    """Return the file in the user's cache that keeps how products are computed; "" for none."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return ""
    return str(cache / "fastmlp" / f"cuda-products-{version}.txt")


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


def _on_gpu(values: Any) -> bool:
    if isinstance(values, np.ndarray):
        return False
    if hasattr(values, "__dlpack_device__"):
        return values.__dlpack_device__()[0] in _DLPACK_CUDA
    return hasattr(values, "__cuda_array_interface__")


def of(array: Any) -> Device:
    """Return the device that an array lies on."""
    return get("cuda") if _on_gpu(array) else _CPU


def to_host(values: Any) -> np.ndarray[Any, Any]:
    """Return a NumPy array, the same one where it is one; arrays on the GPU are copied."""
    host: np.ndarray[Any, Any] = _gpu_array(values).get() if _on_gpu(values) else np.asarray(values)
    return host


def _gpu_array(values: Any) -> Array:
    """Return a CuPy array of memory on the GPU, without a copy."""
    xp = get("cuda").xp
    if isinstance(values, xp.ndarray) or not hasattr(values, "__dlpack__"):
        return xp.asarray(values)
    # DLPack first: it makes CuPy's stream wait for the other library's, without the host. PyTorch
    # gives no tensor away that its autograd still watches.
    return xp.from_dlpack(values.detach() if hasattr(values, "detach") else values)


def real_array(operation: str, name: str, values: Any) -> Array:
    """Return `values` as an array of real numbers on the device where they are.

    Raises
    ------
    TypeError
        If they are objects, strings, complex numbers or dates.
    ValueError
        If nested lists are ragged, or there are more dimensions than the core takes.
    """
    if type(values) is np.ndarray:  # the usual case, kept short
        array = values
    elif _on_gpu(values):
        array = _gpu_array(values)
    else:
        try:
            bare = hasattr(values, "__dlpack__") and not hasattr(values, "__array__")
            array = np.from_dlpack(values) if bare else np.asarray(values)
        except ValueError as error:  # ragged lists
            raise ValueError(f"{operation}: {name} is no regular array: {error}") from None
    if array.dtype.kind not in "biuf":
        hint = ""
        if array.size and isinstance(array.flat[0], str):
            encode = "np.unique(y, return_inverse=True)[1] makes labels of names"
            hint = f"; {encode if name in ('y', 'target') else 'encode texts as numbers'}"
        raise TypeError(f"{operation}: {name} must be real numbers, got dtype {array.dtype}{hint}")
    if array.ndim > _MAX_RANK:
        raise ValueError(
            f"{operation}: {name} must have at most {_MAX_RANK} dimensions, got {array.ndim}"
        )
    return array


def like(result: Array, given: Any) -> Any:
    """Return `result` as the kind of array that `given` is, where that is; without a copy then.

    What was given on the host comes back to the host.
    """
    if not _on_gpu(given):
        result = to_host(result)
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
    """Return whether this build has the CUDA backend. It is not loaded for that."""
    return find_spec("fastmlp._cuda") is not None


def cuda_is_available() -> bool:
    """Return whether ``device="cuda"`` works here."""
    return not _why_not_cuda()


def _why_not_cuda() -> str:
    try:
        get("cuda")
    except RuntimeError as error:
        return str(error).removeprefix("device 'cuda': ")
    return ""


def show_config() -> dict[str, Any]:
    """Tell how this build runs on this machine.

    Returns
    -------
    dict
        ``version``; ``instruction_set`` in use; ``matmul``, "native" or "blas"; ``blas``, a dict
        of the library, its version, the core whose kernels it runs, where that choice came from,
        and a warning (empty if none);
        ``threads``; ``cuda``, a dict of ``built``, ``available``, the ``reason`` where it is not,
        and, empty where there is none, the GPU as ``device``, its ``compute_capability``, the
        versions of CUDA of the build and of the driver, ``runtime`` and ``driver``, the library
        for large products as ``blas``, and ``large_products``, a dict of which way each of them
        went in this process: by "own kernels", or by an algorithm of the library.

    Examples
    --------
    >>> import fastmlp as fm
    >>> sorted(fm.show_config())
    ['bfloat16', 'blas', 'cuda', 'instruction_set', 'matmul', 'threads', 'version']
    """
    config = _core.show_config()
    reason = _why_not_cuda()
    native = sys.modules.get("fastmlp._cuda")  # loaded by now where it can be
    names = ("device", "compute_capability", "runtime", "driver", "blas")
    details = (
        dict.fromkeys(names, "") | {"large_products": {}} | (native.describe() if native else {})
    )
    if not reason:
        details["blas"] = details["blas"] or "cuBLASLt not found: own kernels"
    config["cuda"] = {
        "built": cuda_is_built(),
        "available": not reason,
        "reason": reason,
        **details,
    }
    return config
