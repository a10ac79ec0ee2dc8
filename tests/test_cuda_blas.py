"""Large products by cuBLASLt: what goes that way, that it gives the same, and who decides.

A stand-in for the library (fake_cublaslt.cpp) computes on the host what the real one would, by the
rules of its API, so wrong transposes, strides and alignments are found here. It says nothing about
speed. Where there is a GPU, the last test compares the real one with our own kernels.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import emulated
import numpy as np
import pytest
from support import assert_same_bits, relative_distance

import fastmlp as fm
from fastmlp import _core
from fastmlp import device as devices
from fastmlp.device import Device, to_host

TESTS = Path(__file__).resolve().parent

# What ten steps may differ by from our own kernels': the order of sums, and tf32, which the
# library may cut where we round.
APART = {None: 5e-6, "tf32": 2.0**-7, "bfloat16": 5e-6}

Arrays = list[np.ndarray]


@pytest.fixture(scope="session")
def fake_file(emulated_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cublaslt") / "cublaslt.so"
    emulated.build_fake_cublaslt(file)
    return file


class Fake:
    """The stand-in, as the backend has opened it, and what tests set in it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._library = ctypes.CDLL(os.fspath(file))

    def __getattr__(self, name: str) -> int:
        return ctypes.c_int.in_dll(self._library, f"fake_{name}").value

    def set(self, **values: int) -> None:
        for name, value in values.items():
            ctypes.c_int.in_dll(self._library, f"fake_{name}").value = value

    def takes(self, seconds: tuple[float, float], backend: emulated.Blas) -> None:
        """Have the two algorithms take so long, by the emulator's clock.

        A time of -1 beats our own kernels, whatever the epilogue takes behind the library's.
        """
        (ctypes.c_double * 2).in_dll(self._library, "fake_seconds")[:] = seconds
        clock = ctypes.cast(backend.native.fastmlp_clock(), ctypes.c_void_p)
        ctypes.c_void_p.in_dll(self._library, "fake_clock").value = clock.value


@pytest.fixture
def fake(fake_file: Path, tmp_path: Path) -> Fake:
    """A copy of its own for each test."""
    return Fake(shutil.copy(fake_file, tmp_path / "libcublasLt.so"))


class Backend(emulated.Blas):
    """A backend of its own on the emulator, which knows of no library yet."""

    def __init__(self, library: Path) -> None:
        super().__init__(library)
        self.device = emulated.load(library)


@pytest.fixture
def backend(emulated_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setenv("FASTMLP_CUDA_STEP", "launches")
    monkeypatch.delenv("FASTMLP_CUDA_BLAS", raising=False)
    return Backend(shutil.copy(emulated_library, tmp_path / "cuda.so"))


@pytest.fixture
def always(backend: Backend, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """One whose products all go by the stand-in."""
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "always")
    backend.use(fake.file)
    return backend


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def network(device: Device | str, precision: str | None = None, seed: int = 0) -> fm.Sequential:
    model = fm.Sequential(
        [
            fm.Input(21),
            fm.Dense(40, "relu"),
            fm.Dense(33, "gelu"),
            fm.Dropout(0.2),
            fm.Dense(17, "tanh"),
            fm.Dense(3),
        ],
        device=device,
        precision=precision,
        seed=seed,
    )
    model.compile(fm.SGD(0.05, momentum=0.9), "cross_entropy")
    return model


def learned(model: fm.Sequential, steps: int = 10) -> Arrays:
    rows = 16 * steps - 5
    y = np.random.default_rng(0).integers(0, 3, rows)
    model.fit(normal(rows, 21), y, batch_size=16, verbose=0)
    return model.get_weights()


def predicted(device: Device) -> np.ndarray:
    return network(device).predict(normal(16, 21))


# ---- the same results


def test_what_the_cpu_has_to_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_gradients.py"],
        cwd=TESTS,
        env=os.environ
        | {
            "FASTMLP_EMULATE_CUDA": "1",
            "FASTMLP_CUDA_STEP": "launches",
            "FASTMLP_CUDA_BLAS": "always",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products_with_leading_dimensions(
    dtype: str, transposed: tuple[bool, bool], always: Backend, fake: Fake
) -> None:
    for m, k, n in [(1, 1, 1), (7, 33, 5), (33, 7, 64), (40, 64, 48)]:
        shapes = [(m, k), (k, n)]
        a, b = (
            normal(3, *(shape[::-1] if turned else shape)).astype(dtype)
            for shape, turned in zip(shapes, transposed, strict=True)
        )
        out = always.device.empty((3, m, n), dtype)
        made = fake.products
        _core.matmul(always.device.backend, out, a, b, *transposed)
        assert fake.products - made == 3 + 1  # each replica's, and one to see whether it works
        a, b = (
            x.transpose(0, 2, 1) if turned else x
            for x, turned in zip((a, b), transposed, strict=True)
        )
        exact = a.astype("longdouble") @ b.astype("longdouble")
        np.testing.assert_allclose(out, exact.astype(dtype), 0, 200 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", sorted(fm.kernels.ACTIVATIONS))
def test_every_epilogue(name: str, always: Backend) -> None:
    found = []
    for device in (always.device, "cpu"):
        model = fm.Sequential([fm.Input(9), fm.Dense(24, name), fm.Dense(5)], seed=0, device=device)
        model.layers[0].bias[...] = normal(24)
        y = model.forward(normal(20, 9))
        found.append([y, model.backward(normal(20, 5)), *model.gradients()])
    for got, expected in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, 1e-5, 1e-5)


@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16"])
def test_ten_steps_equal_those_of_our_own_kernels(
    precision: str | None, always: Backend, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found = network("cpu").get_weights(), learned(network(always.device, precision))
    assert fake.products > 100
    assert set(always.products.values()) == {"algorithm 0"}
    assert all((precision or "float32") in product for product in always.products)
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "never")
    sound = learned(network(always.device, precision))
    for got, own, start in zip(found, sound, before, strict=True):
        assert relative_distance(got - start, own - start) <= APART[precision]


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_steps_of_a_graph(precision: str | None, always: Backend) -> None:
    whole, apart = (network(always.device, precision) for _ in range(2))
    x, y = normal(16 * 70, 21), np.arange(16 * 70) % 3
    whole.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    for first in range(0, len(x), 16):  # one by one, without a graph
        apart.train_on_batch(x[first : first + 16], y[first : first + 16])
    assert_same_bits(whole.get_weights(), apart.get_weights())


def test_bfloat16_is_rounded_as_by_our_own_kernels(
    always: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A power of two has one factor's rounding as the result: of 1,000 numbers, and of ties.
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1000, np.uint64).astype(np.uint32)
    x = np.concatenate([bits, bits & ~np.uint32(0xFFFF) | np.uint32(0x8000)]).view(np.float32)
    x = x[(np.abs(x) > 1e-37) & np.isfinite(x)][:, None]
    results = []
    for wanted in ("always", "never"):
        monkeypatch.setenv("FASTMLP_CUDA_BLAS", wanted)
        model = fm.Sequential(
            [fm.Input(1), fm.Dense(1)], device=always.device, precision="bfloat16"
        )
        model.set_weights([np.ones((1, 1)), np.zeros(1)])
        results.append(model.predict(x))
    assert_same_bits(*([result] for result in results))


def test_an_ensemble_has_the_bits_of_single_networks(
    always: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastmlp.device._CPU", always.device)
    for precision in (None, "bfloat16"):
        ensemble = fm.Ensemble(network(always.device, precision, seed=4), 3)
        x, y = normal(90, 21), np.arange(90) % 3
        ensemble.fit(x, y, batch_size=16, verbose=0)
        for i in range(3):
            alone = network(always.device, precision, seed=4 + i)
            alone.fit(x, y, batch_size=16, verbose=0)
            assert_same_bits(ensemble[i].get_weights(), alone.get_weights())


def test_gradients_of_many_rows_are_whole_products(always: Backend) -> None:
    rng = np.random.default_rng(0)
    model = fm.Sequential([fm.Input(7), fm.Dense(35)], seed=0, device=always.device)
    x, grad = (rng.integers(-3, 4, (5000, width)).astype(np.float32) for width in (7, 35))
    model.forward(x)
    model.backward(grad)
    np.testing.assert_array_equal(to_host(model.gradients()[0]), x.T @ grad)


def test_nan_is_not_hidden(always: Backend) -> None:
    x = normal(20, 21)
    x[3] = np.nan
    y = network(always.device).predict(x)
    np.testing.assert_array_equal(np.isnan(y).any(axis=1), np.arange(20) == 3)


def test_a_loss_that_is_not_finite_ends_before_its_update(always: Backend) -> None:
    x, y = normal(64, 21), np.zeros(64, np.int32)
    model, sound = network(always.device), network(always.device)
    sound.fit(x[:16], y[:16], batch_size=16, shuffle=False, verbose=0)
    x[20] = np.inf
    with pytest.raises(FloatingPointError, match="step 1"):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0, check_finite=False)
    assert_same_bits(model.get_weights(), sound.get_weights())


# ---- without it, or when it fails


def test_without_a_library_our_own_kernels_do_it(backend: Backend) -> None:
    backend.use("libcublasLt.so.of.nobody")
    sound = predicted(backend.device)
    assert backend.version == ""
    assert backend.products == {}
    np.testing.assert_allclose(sound, network("cpu").predict(normal(16, 21)), 1e-4, 1e-5)


def test_a_file_that_is_another_library(backend: Backend, emulated_library: Path) -> None:
    backend.use(emulated_library)
    assert backend.version == ""


def test_a_library_that_does_not_start(backend: Backend, fake: Fake) -> None:
    fake.set(create_status=1)
    backend.use(fake.file)
    assert backend.version == ""


def test_its_version(backend: Backend, fake: Fake) -> None:
    backend.use(fake.file)
    assert backend.version == "cuBLASLt 13.2.3"


def test_never(always: Backend, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "never")
    predicted(always.device)
    assert fake.products == 0


def test_an_unknown_wish(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "magic")
    with pytest.raises(RuntimeError, match="FASTMLP_CUDA_BLAS: needs always or never, got 'magic'"):
        predicted(backend.device)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_product_that_fails_is_our_own_kernels(
    at_once: bool, always: Backend, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(always.device, "bfloat16"), normal(16, 21)
    if not at_once:
        model.predict(x)
    fake.set(status=13)
    found = model.predict(x)
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "never")
    assert_same_bits([found], [model.predict(x)])
    if at_once:
        assert set(always.products.values()) == {"own kernels"}


@pytest.mark.parametrize("every", [2, 3, 5])
def test_products_that_fail_now_and_then(
    every: int, always: Backend, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the first step none does, or our own kernels would be settled on.
    model, sound = (network(always.device, "bfloat16") for _ in range(2))
    y = np.arange(32) % 3
    model.train_on_batch(normal(32, 21), y)
    fake.set(fails_every=every)
    model.train_on_batch(normal(32, 21), y)
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "never")
    for _ in range(2):
        sound.train_on_batch(normal(32, 21), y)
    for got, expected in zip(model.get_weights(), sound.get_weights(), strict=True):
        assert relative_distance(got, expected) <= APART["bfloat16"]


# ---- by measurement, and the same on every run


@pytest.mark.parametrize(
    ("seconds", "way"),
    [((1, 1), "own kernels"), ((-1, 1), "algorithm 0"), ((1, -1), "algorithm 1")],
)
def test_the_fastest_is_taken_and_kept(
    seconds: tuple[float, float], way: str, backend: Backend, fake: Fake, tmp_path: Path
) -> None:
    file = tmp_path / "cache" / "fastmlp" / "choices.txt"
    fake.takes(seconds, backend)
    backend.use(fake.file, file)
    first = predicted(backend.device)
    assert len(backend.products) == 4
    assert set(backend.products.values()) == {way}
    kept = file.read_text()
    assert kept.count("\n") == 4
    # Later processes read it, however long what takes by then.
    fake.takes(seconds[::-1], backend)
    backend.use(fake.file, file)
    assert_same_bits([first], [predicted(backend.device)])
    assert set(backend.products.values()) == {way}
    assert file.read_text() == kept


def test_measuring_leaves_the_model_alone(
    backend: Backend, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.takes((-1, 1), backend)
    backend.use(fake.file, tmp_path / "choices.txt")
    for precision in (None, "bfloat16"):
        measured = learned(network(backend.device, precision))
        assert set(backend.products.values()) == {"algorithm 0"}
        again = learned(network(backend.device, precision))
        monkeypatch.setenv("FASTMLP_CUDA_BLAS", "always")
        assert_same_bits(measured, again)
        assert_same_bits(measured, learned(network(backend.device, precision)))
        monkeypatch.delenv("FASTMLP_CUDA_BLAS")


def test_what_another_process_has_kept_meanwhile_counts(
    backend: Backend, fake: Fake, tmp_path: Path
) -> None:
    file = tmp_path / "choices.txt"
    fake.takes((-1, 1), backend)
    backend.use(fake.file, file)
    predicted(backend.device)
    lines = file.read_text().splitlines()
    file.write_text("".join(f"1{line[1:]}\n" for line in lines) + "".join(f"{x}\n" for x in lines))
    backend.use(fake.file, file)
    predicted(backend.device)
    assert set(backend.products.values()) == {"algorithm 1"}


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "x y z\n7 ", "99999999999999999999 a\n"])
def test_a_damaged_file(text: str, backend: Backend, fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "choices.txt"
    file.write_text(text)
    fake.takes((-1, 1), backend)
    backend.use(fake.file, file)
    predicted(backend.device)
    assert set(backend.products.values()) == {"algorithm 0"}


def test_a_way_that_is_no_longer_there(backend: Backend, fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "choices.txt"
    fake.takes((-1, 1), backend)
    backend.use(fake.file, file)
    predicted(backend.device)
    file.write_text(file.read_text().replace("0 emulator", "7 emulator"))
    backend.use(fake.file, file)
    predicted(backend.device)
    assert set(backend.products.values()) == {"own kernels"}


def test_what_cannot_be_kept_is_not_measured(backend: Backend, fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    fake.takes((1, -1), backend)
    backend.use(fake.file, tmp_path / "a file" / "choices.txt")
    predicted(backend.device)
    assert set(backend.products.values()) == {"algorithm 0"}  # the library's own first choice


# ---- a factor in bfloat16 serves all products until it changes


def test_copies_are_made_once(always: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fm.Sequential(
        [fm.Input(64), fm.Dense(64, "relu"), fm.Dense(64)],
        seed=0,
        device=always.device,
        precision="bfloat16",
    )
    model.compile(fm.SGD(0.1), "mse")
    x = normal(64, 64)

    def blocks() -> float:
        before = always.native.fastmlp_clock().contents.value
        model.train_on_batch(x, x)
        return always.native.fastmlp_clock().contents.value - before

    blocks()
    by_library = blocks()
    monkeypatch.setenv("FASTMLP_CUDA_BLAS", "never")
    blocks()
    # Five products have ten factors. Of 8 blocks each are the copies of x, two kernels and the
    # loss's gradient, and three epilogues, which also copy h and its gradient; our own kernels
    # would have taken 4 for each product.
    assert round(1e6 * (by_library - blocks())) == 4 * 8 + 3 * 8 - 5 * 4


# ---- what Python does


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "cu13" / "lib" / "libcublasLt.so.13"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    nvidia = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(devices, "find_spec", lambda _: nvidia)
    assert devices._cublaslt() == ["libcublasLt.so.13", str(packaged), "libcublasLt.so.12"]
    monkeypatch.setattr(devices, "find_spec", lambda _: None)
    assert devices._cublaslt() == ["libcublasLt.so.13", "libcublasLt.so.12"]


def test_where_choices_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    name = f"cuda-products-{fm.__version__}.txt"
    assert devices._choices() == str(tmp_path / ".cache" / "fastmlp" / name)
    monkeypatch.setattr(Path, "home", no_home)
    assert devices._choices() == ""
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert devices._choices() == f"/cache/fastmlp/{name}"


def test_the_configuration_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, object] = {"blas": "", "large_products": {}}
    monkeypatch.setattr(devices, "_why_not_cuda", lambda: "")
    monkeypatch.setattr(devices, "cuda_is_built", lambda: True)
    monkeypatch.setitem(sys.modules, "fastmlp._cuda", SimpleNamespace(describe=lambda: found))
    assert fm.show_config()["cuda"]["blas"] == "cuBLASLt not found: own kernels"
    found |= {"blas": "cuBLASLt 13.2.3", "large_products": {"a product": "algorithm 0"}}
    assert fm.show_config()["cuda"].items() >= found.items()


# ---- on a GPU


@pytest.mark.cuda
@pytest.mark.skipif(
    not (fm.cuda.is_available() or os.environ.get("FASTMLP_REQUIRE_CUDA") == "1"),
    reason="needs a GPU",
)
@pytest.mark.parametrize("precision", [None, "tf32", "bfloat16"])
def test_on_a_gpu(precision: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fm.show_config()["cuda"]["blas"].startswith("cuBLASLt "):
        pytest.skip("there is no cuBLASLt")
    x, y = normal(4096, 512), np.arange(4096) % 10

    def trained(way: str) -> Arrays:
        monkeypatch.setenv("FASTMLP_CUDA_BLAS", way)
        layers = [fm.Input(512), fm.Dense(1024, "relu"), fm.Dense(1024, "tanh"), fm.Dense(10)]
        model = fm.Sequential(layers, seed=0, device="cuda", precision=precision)
        model.compile(fm.SGD(0.05), "cross_entropy")
        start = model.get_weights()
        model.fit(x, y, batch_size=1024, epochs=3, verbose=0)
        return [w - s for w, s in zip(model.get_weights(), start, strict=True)]

    own, by_library = trained("never"), trained("always")
    assert not any(map(np.array_equal, own[::2], by_library[::2]))
    for got, sound in zip(by_library, own, strict=True):
        assert relative_distance(got, sound) <= 10 * APART[precision]
    assert_same_bits(by_library, trained("always"))
    assert_same_bits(trained(""), trained(""))  # measured once, and kept
    ways = fm.show_config()["cuda"]["large_products"]
    assert any(name.endswith(", always") and way != "own kernels" for name, way in ways.items())
