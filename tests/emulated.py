"""The CUDA backend on an emulator of CUDA's threads, or AVX-512 on AVX2, in the place of the CPU's.

With FASTMLP_EMULATE_CUDA=1 or FASTMLP_EMULATE_AVX512=1 in the environment, conftest.py calls
`take_over`, and any test file runs on the sources of the CUDA backend, or on those that are
compiled for AVX-512, with NumPy arrays: ``FASTMLP_EMULATE_CUDA=1 pytest tests/test_kernels.py``.
With FASTMLP_CUDA_BLAS=always beside it, products go by a stand-in for cuBLASLt. That proves the
kernels' logic, and neither their speed nor what only the hardware has: see csrc/cuda/emulator.h and
emulated_avx512.h. The path of a library that `build_cuda` or `build_avx512` made saves compiling it
again: ``FASTMLP_EMULATE_AVX512=/tmp/avx512.so``.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import _core, device

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX", "c++")


def build_cuda(library: Path, root: Path = ROOT) -> None:
    """Compile the CUDA backend of a tree of sources as plain C++."""
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas"]
    sources = ["-x", "c++", root / "csrc/cuda/backend.cu", "-x", "none"]
    sources += sorted((root / "csrc/cuda").glob("*.cpp"))
    flags += ["-DFASTMLP_EMULATE_CUDA", f"-I{root / 'csrc'}", "-o", str(library)]
    subprocess.run(
        [COMPILER, *flags, *sources, root / "tests/emulated_cuda.cpp", "-ldl"],
        check=True,
    )


def avx512_flags(root: Path = ROOT) -> list[str]:
    """Return how to compile what lies in csrc/cpu/isa of a tree for AVX-512, as code for AVX2.

    It is the only instruction set there, so it takes the name and the place of `baseline`.
    """
    return [
        *_cpu_flags(root),
        *["-mavx2", "-mfma", "-Wno-psabi", "-DFASTMLP_ISA=baseline"],
        *["-include", os.fspath(ROOT / "tests/emulated_avx512.h")],
    ]


def _cpu_flags(root: Path) -> list[str]:
    flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-fno-math-errno"]
    flags.append("-DFASTMLP_EMULATE_AVX512")  # the CPU has what emulated_avx512.h has
    return [*flags, "-fvisibility=hidden", "-fvisibility-inlines-hidden", f"-I{root / 'csrc'}"]


def build_avx512(library: Path) -> None:
    """Compile the CPU backend with that instruction set alone, and without a BLAS."""
    table, cpu = avx512_flags(), [*_cpu_flags(ROOT), '-DFASTMLP_VENDORED_BLAS="none"']
    folder = library.with_suffix("")
    folder.mkdir()

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        flags = table if source.parent.name == "isa" else cpu
        subprocess.run([COMPILER, *flags, "-c", source, "-o", target], check=True)
        return target

    # The table first: it takes longer than all others together.
    sources = [*(ROOT / "csrc/cpu/isa").glob("*.cpp"), *(ROOT / "csrc/cpu").glob("*.cpp")]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, [*sources, ROOT / "tests/emulated_cpu.cpp"]))
    subprocess.run([COMPILER, "-shared", *objects, "-o", library, "-pthread", "-ldl"], check=True)


def build_fake_cublaslt(library: Path) -> None:
    """Compile the stand-in for NVIDIA's library: see its source."""
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-o", str(library)]
    subprocess.run([COMPILER, *flags, ROOT / "tests/fake_cublaslt.cpp"], check=True)


def load(library: Path) -> device.Device:
    """Return a device of NumPy arrays with that backend."""
    header = (ROOT / "csrc/core/backend.h").read_text()
    name = re.search(r'backend_capsule = "([^"]+)"', header)
    assert name
    address = ctypes.CDLL(os.fspath(library)).fastmlp_backend
    address.restype = ctypes.c_void_p
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    text = ctypes.create_string_buffer(name[1].encode())
    _kept.append(text)  # a capsule does not copy its name
    capsule = make(address(), ctypes.addressof(text), None)
    # Its name has the Python code treat its arrays as the CPU's, which they are.
    return device.Device("cpu", np, capsule)


class Blas:
    """What an emulated backend knows of cuBLASLt."""

    def __init__(self, backend: Path) -> None:
        self.native = ctypes.CDLL(os.fspath(backend))
        self.native.fastmlp_clock.restype = ctypes.POINTER(ctypes.c_double)
        self.native.fastmlp_blas_version.restype = ctypes.c_char_p
        self.native.fastmlp_large_products.restype = ctypes.c_char_p

    def use(self, library: Path | str, choices: Path | str = "") -> None:
        """Have products go by this library, and keep in the file which way they go."""
        self.native.fastmlp_use_blas(os.fsencode(library), os.fsencode(choices))

    @property
    def version(self) -> str:
        return self.native.fastmlp_blas_version().decode()

    @property
    def products(self) -> dict[str, str]:
        """Which way each product went."""
        lines = self.native.fastmlp_large_products().decode().splitlines()
        return dict(line.split(": ") for line in lines)


_kept: list[Any] = []
BACKENDS = {"FASTMLP_EMULATE_CUDA": build_cuda, "FASTMLP_EMULATE_AVX512": build_avx512}


def take_over(build: Callable[[Path], None], given: str) -> None:
    """Have that backend compute what the CPU's would: build it, unless its path is given."""
    library = Path(given)
    if given == "1":
        library = Path(tempfile.mkdtemp()) / "backend.so"
        build(library)
    device._CPU = load(library)
    _share_threads(ctypes.CDLL(os.fspath(library)))
    if build is build_cuda and os.environ.get("FASTMLP_CUDA_BLAS") == "always":
        blas = Path(tempfile.mkdtemp()) / "cublaslt.so"
        build_fake_cublaslt(blas)
        Blas(library).use(blas)


def _share_threads(library: ctypes.CDLL) -> None:
    """A second CPU backend has a number of threads of its own: set it with the core's."""
    of_core = _core.set_num_threads

    def set_both(n: int) -> None:
        of_core(n)
        library.fastmlp_set_num_threads(n)

    if hasattr(library, "fastmlp_set_num_threads"):
        _core.set_num_threads = set_both
