"""What an installed fastmlp consists of, how large it is, and how long its import takes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from importlib.metadata import PackagePath, distribution

import pytest

DISTRIBUTION = distribution("fastmlp")
IS_EDITABLE = '"editable": true' in (DISTRIBUTION.read_text("direct_url.json") or "")


def files() -> list[PackagePath]:
    """Return what the wheel held: not what an installer or an interpreter adds."""
    added = {"INSTALLER", "REQUESTED", "direct_url.json"}
    return [
        path
        for path in DISTRIBUTION.files or []
        if path.parts[0].startswith("fastmlp") and path.suffix != ".pyc" and path.name not in added
    ]


@pytest.mark.skipif(IS_EDITABLE, reason="an editable install has its Python files elsewhere")
def test_the_wheel_is_complete() -> None:
    names = {path.name for path in files()}
    assert {"__init__.py", "py.typed", "_core.pyi", "LICENSE"} <= names
    natives = {name.split(".")[0] for name in names if name.endswith((".so", ".dylib"))}
    assert "_core" in natives
    if "libscipy_openblas" in natives:
        assert "LICENSE-OpenBLAS" in names
    # Nothing of the sources, the tests or the build.
    assert {path.suffix for path in files() if path.parts[0] == "fastmlp"} <= {
        ".py",
        ".pyi",
        ".typed",
        ".so",
        ".dylib",
        "",
    }


def test_the_wheel_is_at_most_15_megabytes() -> None:
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files():
            archive.write(str(path.locate()), str(path))
    assert len(wheel.getvalue()) <= 15e6


def test_the_import_is_quick_and_lazy() -> None:
    """At most 150 ms beyond NumPy's, in the best of five: noise only ever adds."""
    program = (
        "import json, numpy, sys, time; start = time.perf_counter(); import fastmlp;"
        "print(json.dumps([time.perf_counter() - start, list(sys.modules)]))"
    )
    results = [
        json.loads(subprocess.check_output([sys.executable, "-c", program])) for _ in range(5)
    ]
    heavy = {
        "fastmlp._cuda",
        "cupy",
        "matplotlib",
        "onnx",
        "pandas",
        "scipy",
        "sklearn",
        "torch",
        "tqdm",
    }
    assert heavy.isdisjoint(results[0][1])
    assert min(seconds for seconds, _ in results) < 0.150


def test_the_requirements_are_few() -> None:
    required = [line for line in DISTRIBUTION.requires or [] if "extra ==" not in line]
    assert {line.split(">")[0] for line in required} == {"numpy", "safetensors", "tqdm"}
