"""The CUDA backend on an emulator of CUDA's threads, in the place of the CPU's.

With FASTMLP_EMULATE_CUDA=1 in the environment, conftest.py calls `take_over`, and any test file
runs on the CUDA backend's own sources, on NumPy arrays:
``FASTMLP_EMULATE_CUDA=1 pytest tests/test_kernels.py``; with FASTMLP_CUDA_BLAS=always its products
go by a stand-in for cuBLASLt. That proves the kernels' logic, and neither
their speed nor what only a GPU has: see csrc/cuda/emulator.h.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp import device

ROOT = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CXX", "c++")


def build(library: Path, root: Path = ROOT) -> None:
    """Compile the backend of a tree of sources as plain C++."""
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wno-unknown-pragmas"]
    sources = ["-x", "c++", root / "csrc/cuda/backend.cu", "-x", "none"]
    sources += sorted((root / "csrc/cuda").glob("*.cpp"))
    flags += ["-DFASTMLP_EMULATE_CUDA", f"-I{root / 'csrc'}", "-o", str(library)]
    subprocess.run(
        [COMPILER, *flags, *sources, root / "tests/emulated_cuda.cpp", "-ldl"],
        check=True,
    )


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


def take_over() -> None:
    """Build the emulated backend and have it compute what the CPU's would."""
    folder = Path(tempfile.mkdtemp())
    build(folder / "cuda.so")
    device._CPU = load(folder / "cuda.so")
    if os.environ.get("FASTMLP_CUDA_BLAS") == "always":
        build_fake_cublaslt(folder / "cublaslt.so")
        Blas(folder / "cuda.so").use(folder / "cublaslt.so")
