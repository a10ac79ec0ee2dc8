"""What nvcc makes of each kernel, held against a budget: registers, spills and shared memory.

A kernel that begins to spill, or needs a few more registers, may run at half its speed and still
give the right numbers; no GPU is needed to see it. `cuda_budget.json` names every kernel with the
most that it may need on any architecture. Dynamic shared memory is not in
it, since the compiler does not know it. After a change that is meant: python
tests/test_cuda_build.py > budget.json, and read the difference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import fastmlp as fm
from fastmlp import _core

ROOT = Path(__file__).resolve().parents[1]
BUDGET = Path(__file__).with_name("cuda_budget.json")
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
ARCHITECTURES = ("80", "90")

Resources = dict[str, int]


def options() -> list[str]:
    """Return how the build calls nvcc: CMakeLists.txt reads the same file."""
    lines = (ROOT / "cmake" / "nvcc_options.txt").read_text().splitlines()
    return " ".join(line for line in lines if not line.startswith("#")).split()


def nvcc_version() -> str:
    assert NVCC
    printed = subprocess.run([NVCC, "--version"], check=True, capture_output=True, text=True)
    match = re.search(r"release (\d+\.\d+)", printed.stdout)
    assert match
    return match[1]


def compiled(source: Path) -> str:
    """Compile the device's half of a source; return what ptxas says, with names demangled."""
    assert NVCC
    generate = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        command = [NVCC, "-std=c++17", "-O2", "-DNDEBUG", f"-I{ROOT / 'csrc'}", *options()]
        command += ["-fatbin", "--threads=0", "-Xptxas=-v", *generate, "-o", f"{folder}/fatbin"]
        done = subprocess.run([*command, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = subprocess.run(
        ["c++filt"], input=done.stdout + done.stderr, check=True, capture_output=True, text=True
    )
    return names.stdout


def short_name(demangled: str) -> str:
    """Return a kernel's name and template arguments, without namespaces and parameters."""
    plain = re.sub(r"\(anonymous namespace\)::|\w+::", "", demangled.removeprefix("void "))
    return plain.partition("(")[0]


def resources(log: str) -> dict[str, Resources]:
    """Return the most that each kernel needs, over its instantiations and architectures."""
    patterns = {
        "registers": r"Used (\d+) registers",
        "shared": r"(\d+) bytes smem",
        "stack": r"(\d+) bytes stack frame",
        "spilled": r"(\d+) bytes spill (?:stores|loads)",
    }
    found: dict[str, Resources] = {}
    for entry in log.split("Compiling entry function '")[1:]:
        needs = found.setdefault(short_name(entry.partition("'")[0]), dict.fromkeys(patterns, 0))
        for what, pattern in patterns.items():
            needs[what] = max([needs[what], *map(int, re.findall(pattern, entry))])
    return found


def excesses(needs: Resources, allowed: Resources | None, same_compiler: bool = True) -> list[str]:
    """Return what a kernel needs too much of. No spill is ever allowed."""
    if allowed is None:
        return ["is not in the budget"]
    limits = {"shared": 0, "stack": 0, **allowed, "spilled": 0}
    if not same_compiler:  # another version allots registers differently
        del limits["registers"]
    return [
        f"{what}: {needs[what]}, allowed are {limit}"
        for what, limit in limits.items()
        if needs[what] > limit
    ]


@pytest.mark.skipif(not NVCC, reason="needs nvcc")
def test_kernels_stay_within_their_budget() -> None:
    budget = json.loads(BUDGET.read_text())
    same = nvcc_version() == budget["nvcc"]
    needs = resources("".join(map(compiled, SOURCES)))
    over = {
        name: found
        for name, need in needs.items()
        if (found := excesses(need, budget["kernels"].get(name), same))
    }
    assert over == {}
    assert sorted(budget["kernels"]) == sorted(needs), "the budget names kernels that are gone"


@pytest.mark.skipif(not fm.cuda.is_built(), reason="built without CUDA")
def test_the_module_loads_without_a_gpu_and_hands_over_a_backend() -> None:
    from fastmlp import _cuda

    assert set(_cuda.describe()) < set(fm.show_config()["cuda"])
    assert bool(_cuda.describe()["device"]) or _cuda.unavailable()
    references = sys.getrefcount(_cuda)
    capsule = _cuda.backend(lambda: 0)
    _core.check_backend(capsule)
    assert sys.getrefcount(_cuda) == references + 1  # alive as long as its backend
    del capsule
    assert sys.getrefcount(_cuda) == references


# What nvcc 13.0 said about a template in an anonymous namespace, and a kernel that spills.
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'void fastmlp::cuda::(anonymous namespace)::\
scale<double, 64>(double*, double)' for 'sm_80'
ptxas info    : Function properties for void fastmlp::cuda::(anonymous namespace)::\
scale<double, 64>(double*, double)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 512 bytes smem, 368 bytes cmem[0]
ptxas info    : Compile time = 11.686 ms
ptxas info    : Compiling entry function 'void fastmlp::cuda::(anonymous namespace)::\
scale<float, 128>(float*, float)' for 'sm_90'
ptxas info    : Function properties for void fastmlp::cuda::(anonymous namespace)::\
scale<float, 128>(float*, float)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compile time = 1.201 ms
ptxas info    : Compiling entry function 'fastmlp::cuda::heavy(float*, int)' for 'sm_80'
ptxas info    : Function properties for fastmlp::cuda::heavy(float*, int)
    24 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 24 bytes cumulative stack size
ptxas info    : Compile time = 118.294 ms
"""


def test_what_ptxas_says_is_understood() -> None:
    assert resources(LOG) == {
        "scale<double, 64>": {"registers": 12, "shared": 512, "stack": 0, "spilled": 0},
        "scale<float, 128>": {"registers": 10, "shared": 1024, "stack": 0, "spilled": 0},
        "heavy": {"registers": 32, "shared": 0, "stack": 24, "spilled": 28},
    }


def test_every_excess_is_named() -> None:
    needs = resources(LOG)
    scale = needs["scale<double, 64>"]
    assert excesses(scale, {"registers": 12, "shared": 512}) == []
    assert excesses(scale, {"registers": 11, "shared": 256}) == [
        "shared: 512, allowed are 256",
        "registers: 12, allowed are 11",
    ]
    assert excesses(scale, {"registers": 11, "shared": 512}, same_compiler=False) == []
    assert excesses(needs["heavy"], {"registers": 32, "stack": 24, "spilled": 99}) == [
        "spilled: 28, allowed are 0"
    ]
    assert excesses(needs["heavy"], None) == ["is not in the budget"]


@pytest.mark.skipif(not NVCC, reason="needs nvcc")
def test_the_words_of_this_nvcc_are_understood(tmp_path: Path) -> None:
    source = tmp_path / "planted.cu"
    source.write_text(
        "namespace fastmlp::cuda { namespace {\n"
        "template <int N> __global__ void planted(float* x) {\n"
        "  __shared__ float tile[N];\n"
        "  tile[threadIdx.x] = x[threadIdx.x];\n"
        "  __syncthreads();\n"
        "  x[threadIdx.x] = tile[N - 1 - threadIdx.x];\n"
        "}\n"
        "} void use(float* x) { planted<64><<<1, 64>>>(x); planted<128><<<1, 128>>>(x); } }\n"
    )
    found = resources(compiled(source))
    assert sorted(found) == ["planted<128>", "planted<64>"] or sorted(found) == [
        "planted<(int)128>",
        "planted<(int)64>",
    ]
    assert all(needs["registers"] > 0 and needs["spilled"] == 0 for needs in found.values())
    assert sorted(needs["shared"] for needs in found.values()) == [256, 512]


def measured() -> dict[str, object]:
    """Return a budget that allows just what the kernels need now; stack and spills stay at 0."""
    kernels = {
        name: {what: needs[what] for what in ("registers", "shared")}
        for name, needs in sorted(resources("".join(map(compiled, SOURCES))).items())
    }
    return {"nvcc": nvcc_version(), "kernels": kernels}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured(), indent=2) + "\n")
