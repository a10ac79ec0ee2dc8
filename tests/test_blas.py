"""The BLAS: opened on first use, with the kernels that suit the CPU, and the environment kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastmlp as fm

pytestmark = pytest.mark.skipif(
    fm.show_config()["blas"]["library"] != "OpenBLAS", reason="built with another BLAS"
)

VARIABLES = ["OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"]
# The cores that are right for each instruction set: Zen 4 runs 512-bit vectors in two halves.
CORES = {"avx512": {"SkylakeX", "Haswell"}, "avx2": {"Haswell"}}

# Multiplies, and prints what the C library sees: os.environ is only Python's copy.
PROGRAM = """
import ctypes, json, os
import numpy as np
import fastmlp as fm

getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p

def environment():
    values = [getenv(name) for name in (b"OPENBLAS_CORETYPE", b"OPENBLAS_NUM_THREADS")]
    return [None if value is None else value.decode() for value in values]

fm.set_num_threads(1)
a, b = np.random.default_rng(0).standard_normal((2, 200, 200), dtype="float32")
tasks = "/proc/self/task"
before = environment(), len(os.listdir(tasks)) if os.path.isdir(tasks) else 0
product = fm.kernels.matmul(a, b)
after = environment(), len(os.listdir(tasks)) if os.path.isdir(tasks) else 0
error = float(np.abs(product - a.astype("float64") @ b.astype("float64")).max())
print(json.dumps({"before": before, "after": after, "error": error, **fm.show_config()["blas"]}))
"""


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["FASTMLP_GEMM"] = "blas"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def multiply(**variables: str) -> dict[str, object]:
    done = run(PROGRAM, **variables)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def widest_instruction_set() -> str:
    done = run("import fastmlp as fm; print(fm.show_config()['instruction_set'])", FASTMLP_ISA="")
    return done.stdout.strip()


def test_the_core_follows_the_cpu() -> None:
    got = multiply()
    widest = widest_instruction_set()
    if widest in CORES:
        assert got["core"] in CORES[widest]
        assert got["origin"] == "the CPU's features"
    assert got["version"]
    assert got["warning"] == ""
    assert got["error"] < 1e-4


def test_the_environment_is_left_as_it_was() -> None:
    for variables in [{}, {"OPENBLAS_NUM_THREADS": "3"}, {"OPENBLAS_CORETYPE": ""}]:
        got = multiply(**variables)
        assert got["after"] == got["before"]
        assert got["before"][0] == [variables.get(name) for name in VARIABLES]


def test_the_blas_starts_no_threads() -> None:
    got = multiply(OPENBLAS_NUM_THREADS="4")
    assert got["after"][1] == got["before"][1]


@pytest.mark.skipif(widest_instruction_set() not in CORES, reason="no core is chosen on this CPU")
def test_a_setting_of_the_users_own_is_respected() -> None:
    fastest = str(multiply()["core"])
    forced = multiply(OPENBLAS_CORETYPE="Sandybridge")
    assert forced["core"] == "Sandybridge"
    assert forced["origin"] == "OPENBLAS_CORETYPE in the environment"
    assert f"slower on this CPU than {fastest}; unset OPENBLAS_CORETYPE" in str(forced["warning"])
    assert forced["after"] == forced["before"]
    assert forced["error"] < 1e-4

    same = multiply(OPENBLAS_CORETYPE=fastest)
    assert same["origin"] == "OPENBLAS_CORETYPE in the environment"
    assert same["warning"] == ""


def test_many_threads_may_be_first() -> None:
    done = run(
        """
import threading
import numpy as np
import fastmlp as fm

a = np.eye(64, dtype="float32") * 3
start, products = threading.Barrier(8), []
def work():
    start.wait()
    products.append(fm.kernels.matmul(a, a))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(products) == 8
for product in products: np.testing.assert_array_equal(product, a * 3)
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("used_before", [False, True])
def test_a_forked_child_multiplies(used_before: bool) -> None:
    done = run(
        f"""
import os
import numpy as np
import fastmlp as fm

a = np.eye(300, dtype="float32") * 3
if {used_before}: fm.kernels.matmul(a, a)
child = os.fork()
if child == 0:
    os._exit(not np.array_equal(fm.kernels.matmul(a, a), a * 3))
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_matmul_path_is_an_error() -> None:
    done = run(
        "import numpy as np, fastmlp as fm; fm.kernels.matmul(*np.ones((2, 3, 3), 'float32'))",
        FASTMLP_GEMM="mkl",
    )
    assert done.returncode == 1
    assert "RuntimeError: FASTMLP_GEMM: needs blas or native, got 'mkl'" in done.stderr


@pytest.mark.parametrize("instruction_set", ["sse9", "AVX2"])
def test_an_unknown_instruction_set_is_an_error(instruction_set: str) -> None:
    done = run(
        "import numpy as np, fastmlp as fm; fm.kernels.relu(np.ones(3, 'float32'))",
        FASTMLP_ISA=instruction_set,
    )
    assert done.returncode == 1
    assert "RuntimeError: FASTMLP_ISA: this CPU can run baseline" in done.stderr
    assert f"got '{instruction_set}'" in done.stderr


def test_a_missing_library_is_an_error(tmp_path: Path) -> None:
    import fastmlp._core

    package, core = Path(fm.__file__).parent, Path(fastmlp._core.__file__)
    if package != core.parent:
        pytest.skip("an editable install always finds its own files first")
    (tmp_path / "fastmlp").mkdir()
    for path in [*package.glob("*.py"), core]:
        (tmp_path / "fastmlp" / path.name).write_bytes(path.read_bytes())
    done = run(
        "import numpy as np, fastmlp as fm; fm.kernels.matmul(*np.ones((2, 300, 300), 'float32'))",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 1
    assert "RuntimeError: BLAS: cannot open the library beside fastmlp._core" in done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_shapes_that_a_blas_treats_apart(dtype: str, transpose_a: bool, transpose_b: bool) -> None:
    rng = np.random.default_rng(0)
    for m, n, k in [(1, 1, 1), (1, 33, 7), (33, 1, 7), (5, 7, 0), (0, 3, 2), (257, 65, 1)]:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        out = np.full((m, n), np.nan, dtype)
        fm.kernels.matmul(
            np.ascontiguousarray(a.T) if transpose_a else a,
            np.ascontiguousarray(b.T) if transpose_b else b,
            transpose_a=transpose_a,
            transpose_b=transpose_b,
            out=out,
        )
        floor = 8 * np.finfo(dtype).eps * max(k, 1)
        np.testing.assert_allclose(out, a @ b, rtol=8 * np.finfo(dtype).eps, atol=floor)
