"""What is compiled for AVX-512, on a machine that has AVX2 alone: see emulated_avx512.h.

Where there is AVX-512, the ordinary tests run on it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import emulated
import numpy as np
import pytest
from support import assert_same_bits, printed_by

import fastmlp as fm
from fastmlp import _core

TESTS = Path(__file__).resolve().parent

pytestmark = [
    pytest.mark.skipif(
        fm.show_config()["instruction_set"] != "avx2", reason="needs AVX2, and no AVX-512"
    ),
    pytest.mark.skipif(not shutil.which(emulated.COMPILER), reason="needs a C++ compiler"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("avx512") / "cpu.so"
    emulated.build_avx512(path)
    return path


FILES = [
    ("", ["test_kernels.py", "test_bounds.py", "test_elementary.py", "-k", "not other_paths"]),
    ("", ["test_losses.py", "test_layers.py", "test_gradients.py", "test_optimizers.py"]),
    ("", ["test_precision.py", "-k", "cpu and not says and not tf32"]),
    ("amx", ["test_precision.py", "-k", "cpu and not says and not tf32"]),
]


def test_what_other_sets_have_to_pass(library: Path) -> None:
    # All at once: with the compiler's time it is the longest test there is.
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
            cwd=TESTS,
            env={
                **os.environ,
                "FASTMLP_EMULATE_AVX512": str(library),
                "FASTMLP_DISABLE": switched_off,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for switched_off, files in FILES
    ]
    printed = [run.communicate()[0] for run in runs]
    assert not any(run.returncode for run in runs), "".join(text[-5000:] for text in printed)


# Through blocks of depth and of rows, packed operands, last panels that are narrower, few rows.
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 700, 33), (3, 1030, 300), (17, 1025, 129), (64, 1024, 513), (250, 530, 2100)],
)
def test_products_have_the_bits_of_avx2(m: int, k: int, n: int, dtype: str, library: Path) -> None:
    rng, backends = np.random.default_rng(0), (emulated.load(library).backend, _core.cpu())
    for transpose_a, transpose_b in itertools.product((False, True), repeat=2):
        a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
        got, expected = (np.empty((m, n), dtype) for _ in backends)
        for out, backend in zip((got, expected), backends, strict=True):
            _core.matmul(backend, out, a, b, transpose_a, transpose_b)
        assert_same_bits([got], [expected])


@pytest.mark.parametrize(("gemm", "expected"), [("native", ["bfloat16"]), ("blas", [])])
def test_rounded_products_need_our_own_kernels(
    gemm: str, expected: list[str], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMLP_GEMM", gemm)
    printed = printed_by(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        f"import emulated; from fastmlp import _core\n"
        f"print(_core.precisions(emulated.load({str(library)!r}).backend))"
    )
    assert printed.strip() == str(expected)


KERNEL = """
#include "cpu/isa/reduce.h"
extern "C" __attribute__((visibility("default"))) void column_sum(
    float* out, const float* x, std::int64_t rows, std::int64_t cols) {
  fastmlp::cpu::baseline::column_sum<float>(out, {x, cols}, rows, cols);
}
"""

PROGRAM = """
import ctypes, sys
import numpy as np
from support import guarded
sums = ctypes.CDLL(sys.argv[1]).column_sum
for cols in range(1, 35):
    x, out = guarded(np.ones((3, cols), "float32")), guarded(np.zeros(cols, "float32"))
    size = ctypes.c_int64
    sums(ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(x.ctypes.data), size(3), size(cols))
    assert (out == 3).all(), out
"""


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("return Mask((1u << n) - 1);", False),
        ("return Mask((2u << n) - 1);", True),
        ("return Mask((1u << n) / 2);", True),
    ],
    ids=["as it is", "a lane too many", "a wrong lane"],
)
def test_a_broken_mask_is_found(wrong: str, found: bool, tmp_path: Path) -> None:
    shutil.copytree(TESTS.parent / "csrc", tmp_path / "csrc")
    vectors = tmp_path / "csrc/cpu/isa/vec.h"
    right = "return Mask((1u << n) - 1);"
    assert right in vectors.read_text()
    vectors.write_text(vectors.read_text().replace(right, wrong))
    source, library = tmp_path / "kernel.cpp", tmp_path / "kernel.so"
    source.write_text(KERNEL)
    command = [emulated.COMPILER, *emulated.avx512_flags(tmp_path), "-shared", source]
    subprocess.run([*command, "-o", library], check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, library], cwd=TESTS, capture_output=True, check=False
    )
    assert (done.returncode != 0) == found, done.stderr
