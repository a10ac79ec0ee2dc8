"""The house rules: which part may include or import which, and what the linker may share."""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each folder of csrc/ may include, besides the C++ standard library.
ALLOWED_INCLUDES = {
    "core": r"core/",
    "nn": r"(core|nn)/",
    "cpu": r"(core|cpu)/|(cpuid|dlfcn|pthread|sched|sys/syscall|unistd|immintrin|arm_neon)\.h$",
    "cuda": r"(core|cuda)/|(cuda|nvrtc)|(dlfcn|fcntl|immintrin|sys/file|ucontext|unistd)\.h$",
    "bindings": r"(core|nn|bindings|pybind11)/|(cpu|cuda)/(backend|machine)\.h$",
}
THREAD_HEADERS = {"atomic", "condition_variable", "future", "mutex", "shared_mutex", "thread"}
MAY_USE_THREADS = {"cpu", "cuda", "bindings"}
# Only these two modules may import the native core, or the arrays of the GPU.
NATIVE_MODULES = {"_core", "_cuda", "cupy"}
MAY_IMPORT_NATIVE = {"device.py", "kernels.py"}


def forbidden_includes(folder: str, source: str) -> list[str]:
    """Return the headers that a source of this folder of csrc/ includes against the rules."""
    headers = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', source, flags=re.MULTILINE)
    standard = re.compile(r"[a-z0-9_]+$")  # <vector>, <cstdint>: no folder and no suffix
    return [
        header
        for header in headers
        if not re.match(ALLOWED_INCLUDES[folder], header)
        and (
            not standard.match(header)
            or (header in THREAD_HEADERS and folder not in MAY_USE_THREADS)
        )
    ]


def forbidden_imports(module: str, source: str) -> list[str]:
    """Return the names that a module of python/fastmlp imports against the rules."""
    if module in MAY_IMPORT_NATIVE:
        return []
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [f"{node.module or ''}.{alias.name}" for alias in node.names]
    return [name for name in imported if NATIVE_MODULES & set(name.split("."))]


def sources(folder: str) -> list[Path]:
    return sorted(
        path
        for path in (ROOT / "csrc" / folder).rglob("*")
        if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
    )


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "csrc").iterdir()))
def test_includes(folder: str) -> None:
    found = {str(path): forbidden_includes(folder, path.read_text()) for path in sources(folder)}
    assert {path: headers for path, headers in found.items() if headers} == {}


def test_imports() -> None:
    modules = (ROOT / "python" / "fastmlp").glob("*.py*")
    found = {path.name: forbidden_imports(path.name, path.read_text()) for path in modules}
    assert {name: imports for name, imports in found.items() if imports} == {}


@pytest.mark.parametrize(
    ("folder", "include"),
    [
        ("core", "<thread>"),
        ("core", "<pybind11/pybind11.h>"),
        ("core", '"nn/layers.h"'),
        ("nn", '"cpu/blas.h"'),
        ("nn", "<mutex>"),
        ("cpu", '"nn/layers.h"'),
        ("cpu", "<cuda_runtime.h>"),
        ("cuda", '"cpu/blas.h"'),
        ("bindings", '"cpu/blas.h"'),
    ],
)
def test_a_forbidden_include_is_found(folder: str, include: str) -> None:
    assert forbidden_includes(folder, f"#include <vector>\n  # include {include}\n")
    assert not forbidden_includes(folder, '#include <vector>\n#include "core/view.h"\n')


@pytest.mark.parametrize(
    "line",
    [
        "import cupy as cp",
        "import fastmlp._core",
        "from . import _core",
        "from fastmlp._core import matmul",
        "from fastmlp import _cuda",
        "def f():\n    from cupy.cuda import Stream",
    ],
)
def test_a_forbidden_import_is_found(line: str) -> None:
    assert forbidden_imports("layers.py", line)
    assert not forbidden_imports("kernels.py", line)
    assert not forbidden_imports("layers.py", "import numpy as np\nfrom . import kernels")


# Files compiled for one instruction set. The linker keeps one copy of a weak symbol for everybody,
# perhaps the one with instructions that this machine lacks: a weak symbol must name its set.

COMPILER = os.environ.get("CXX", "c++")
IS_X86 = platform.machine() in {"x86_64", "AMD64"}
needs_compiler = pytest.mark.skipif(
    not (IS_X86 and shutil.which(COMPILER) and shutil.which("nm")),
    reason="needs x86-64, a C++ compiler and nm",
)


def instruction_sets() -> dict[str, list[str]]:
    """Return the compiler flags of each set, from the file that CMakeLists.txt reads too."""
    lines = (ROOT / "cmake" / "instruction_sets.txt").read_text().splitlines()
    return {words[0]: words[1:] for words in map(str.split, lines) if words and words[0] != "#"}


def shared_symbols(source: Path, instruction_set: str, folder: Path) -> list[str]:
    """Compile `source` as the build does; return what would be shared or run at load time."""
    target = folder / "object.o"
    flags = ["-std=c++17", "-O2", "-DNDEBUG", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-w"]
    flags += ["-fvisibility=hidden", "-fvisibility-inlines-hidden", f"-I{ROOT / 'csrc'}"]
    flags += ["-DFASTMLP_X86=1", f"-DFASTMLP_ISA={instruction_set}"]
    flags += instruction_sets()[instruction_set]
    subprocess.run([COMPILER, *flags, "-c", source, "-o", target], check=True)
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", target], check=True, capture_output=True, text=True
    )
    symbols = re.findall(r"^[0-9a-f]* ?(\w) (.+)$", listing.stdout, flags=re.MULTILINE)
    return [
        name
        for kind, name in symbols
        if (kind in "WVu" and f"::{instruction_set}::" not in name)
        or name.startswith("_GLOBAL__sub_I")
    ]


@needs_compiler
@pytest.mark.parametrize("instruction_set", sorted(instruction_sets()))
@pytest.mark.parametrize(
    "source", sorted((ROOT / "csrc/cpu/isa").glob("*.cpp")), ids=lambda p: p.name
)
def test_nothing_is_shared_between_instruction_sets(
    source: Path, instruction_set: str, tmp_path: Path
) -> None:
    assert shared_symbols(source, instruction_set, tmp_path) == []


@needs_compiler
@pytest.mark.parametrize(
    "code",
    [
        "inline int shared(int x) { return x; }  int (*use())(int) { return shared; }",
        "#include <vector>\n void use(std::vector<int>& v, int n) { v.resize(n); }",
        "int compute();  int initialised_when_loaded = compute();",
    ],
    ids=["inline", "container", "initialiser"],
)
def test_a_shared_symbol_is_found(code: str, tmp_path: Path) -> None:
    source = tmp_path / "planted.cpp"
    source.write_text(code)
    assert shared_symbols(source, "avx2", tmp_path)
    inside = tmp_path / "inside.cpp"
    inside.write_text(
        "namespace fastmlp::cpu::FASTMLP_ISA {\n"
        "inline int own(int x) { return x; }\nint (*use())(int) { return own; }\n}"
    )
    assert not shared_symbols(inside, "avx2", tmp_path)
