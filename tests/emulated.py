"""The CUDA backend on an emulator of CUDA's threads, in the place of the CPU's.

With FASTMLP_EMULATE_CUDA=1 in the environment, conftest.py calls `take_over`, and any test file
runs on the CUDA backend's own sources, on NumPy arrays:
``FASTMLP_EMULATE_CUDA=1 pytest tests/test_kernels.py``. That proves the kernels' logic, and neither
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
    flags += ["-DFASTMLP_EMULATE_CUDA", f"-I{root / 'csrc'}", "-o", str(library)]
    subprocess.run(
        [COMPILER, *flags, *sources, root / "tests/emulated_cuda.cpp"],
        check=True,
    )


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


_kept: list[Any] = []


def take_over() -> None:
    """Build the emulated backend and have it compute what the CPU's would."""
    folder = Path(tempfile.mkdtemp())
    build(folder / "cuda.so")
    device._CPU = load(folder / "cuda.so")
