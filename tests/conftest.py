"""Fixtures that every test file may ask for: the device to run on, and the number of threads."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import emulated
import pytest
from support import gpu_stand_in

import fastmlp as fm
from fastmlp import device as devices

# Needs PyTorch; run by hand to renew the golden files.
collect_ignore = ["golden/make_golden.py", "golden/make_layers.py"]

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

for variable, build in emulated.BACKENDS.items():
    if os.environ.get(variable):
        emulated.take_over(build, os.environ[variable])

REQUIRE_CUDA = os.environ.get("FASTMLP_REQUIRE_CUDA") == "1"
# "cuda" where there is a GPU, or must be one; `pytest -m cuda` runs what runs on it.
GPU = (
    [pytest.param("cuda", marks=pytest.mark.cuda)] if REQUIRE_CUDA or fm.cuda.is_available() else []
)


@pytest.fixture(params=["cpu", *GPU, "stand-in"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each device that a model can run on; FASTMLP_REQUIRE_CUDA=1 makes a missing GPU a failure.

    "stand-in" is a GPU's way through Python with the CPU's arithmetic: see test_gpu_path.py.
    """
    if request.param == "stand-in":
        gpu = gpu_stand_in()
        monkeypatch.setattr(devices, "_cuda", lambda: gpu)
        return "cuda"
    if request.param == "cuda":
        real_gpu()
    return str(request.param)


def real_gpu() -> devices.Device:
    """Return the GPU, for tests that ask for it only where there is one or must be one."""
    if not fm.cuda.is_available():
        pytest.fail("FASTMLP_REQUIRE_CUDA=1, but there is no GPU that fastmlp can use")
    return devices.get("cuda")


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the CUDA backend's own sources, compiled for the host."""
    if not shutil.which(emulated.COMPILER):
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("cuda") / "cuda.so"
    emulated.build_cuda(library)
    return library


@pytest.fixture(scope="session")
def emulated_cuda(emulated_library: Path) -> devices.Device:
    """The CUDA backend's own sources on NumPy arrays: see csrc/cuda/emulator.h."""
    return emulated.load(emulated_library)


@pytest.fixture(params=["emulated", *GPU])
def cuda(request: pytest.FixtureRequest) -> devices.Device:
    """The CUDA backend, on the emulator and on a GPU."""
    if request.param == "cuda":
        return real_gpu()
    emulator: devices.Device = request.getfixturevalue("emulated_cuda")
    return emulator


@pytest.fixture
def by_name(cuda: devices.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has that device found by its name, be it called "cuda" or, as the emulator is, "cpu"."""
    if cuda.name == "cpu":
        monkeypatch.setattr(devices, "_CPU", cuda)
    monkeypatch.setattr(devices, "_cuda", lambda: cuda)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back after a test that sets it."""
    before = fm.get_num_threads()
    yield
    fm.set_num_threads(before)
