"""Fixtures that every test file may ask for: the device to run on, and the number of threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from support import gpu_stand_in

import fastmlp as fm
from fastmlp import device as devices

# Needs PyTorch; run by hand to renew the golden files.
collect_ignore = ["golden/make_golden.py", "golden/make_layers.py"]

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if os.environ.get("FASTMLP_EMULATE_CUDA") == "1":
    import emulated

    emulated.take_over()

REQUIRE_CUDA = os.environ.get("FASTMLP_REQUIRE_CUDA") == "1"
DEVICES = ["cpu", "cuda"] if REQUIRE_CUDA or fm.cuda.is_available() else ["cpu"]


@pytest.fixture(params=[*DEVICES, "stand-in"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each device that a model can run on; FASTMLP_REQUIRE_CUDA=1 makes a missing GPU a failure.

    "stand-in" is a GPU's way through Python with the CPU's arithmetic: see test_gpu_path.py.
    """
    if request.param == "stand-in":
        gpu = gpu_stand_in()
        monkeypatch.setattr(devices, "_cuda", lambda: gpu)
        return "cuda"
    if request.param == "cuda" and not fm.cuda.is_available():
        pytest.fail("FASTMLP_REQUIRE_CUDA=1, but there is no GPU that fastmlp can use")
    return str(request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back after a test that sets it."""
    before = fm.get_num_threads()
    yield
    fm.set_num_threads(before)
