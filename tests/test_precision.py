"""Matrix products of rounded operands: what they round, where they lie, what stays in float32.

On tensor cores they run on the emulator, which has PTX's layout of fragments and its rounding, and
on a GPU where there is one; on the CPU where that has AVX512_BF16, which it also has where
test_avx512_emulated.py runs this file.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import GPU, real_gpu
from support import assert_same_bits, gpu_stand_in, guarded, relative_distance

import fastmlp as fm
from fastmlp import _core
from fastmlp import device as devices
from fastmlp.device import Device, to_host

PRECISIONS = ["tf32", "bfloat16"]
ON_CPU = _core.precisions(devices.get("cpu").backend)
EMULATED = "FASTMLP_EMULATE_AVX512" in os.environ
# Whether AMX makes the CPU's products, or AVX512_BF16, whose sums have another order.
TILES = (
    "amx" not in os.environ.get("FASTMLP_DISABLE", "")
    if EMULATED
    else fm.show_config()["bfloat16"] == "amx"
)
BITS = {"tf32": 11, "bfloat16": 8}  # of a significand
EPS = np.finfo(np.float32).eps

Arrays = list[np.ndarray]


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["emulated", *GPU, *(["cpu"] if ON_CPU else [])])
def cuda(request: pytest.FixtureRequest, precision: str) -> Device:
    """The CUDA backend, on the emulator and on a GPU; or, in its place, the CPU."""
    if request.param == "emulated":
        emulator: Device = request.getfixturevalue("emulated_cuda")
        return emulator
    if request.param == "cuda":
        return real_gpu()
    if precision not in ON_CPU:
        pytest.skip(f"the CPU has no {precision}")
    return devices.get("cpu")


def rounded(x: np.ndarray, precision: str) -> np.ndarray:
    """Round to the nearest; of two equally near ones to the larger in size, or to the even one."""
    unit = np.uint32(1 << (24 - BITS[precision]))
    bits = x.view(np.uint32)
    up = unit // 2 if precision == "tf32" else unit // 2 - 1 + (bits // unit & 1)
    nearest = ((bits + up) & ~(unit - 1)).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), x, nearest)


def dense(cuda: Device, precision: str | None, k: int, n: int) -> fm.Sequential:
    model = fm.Sequential([fm.Input(k), fm.Dense(n)], seed=0, device=cuda, precision=precision)
    model.layers[0].bias[...] = cuda.put(normal(n))
    return model


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def assert_product(got: np.ndarray, a: np.ndarray, b: np.ndarray, precision: str, bias=0.0) -> None:
    """The operands rounded, then at most a rounding of float32 for each eight of the sum.

    The CPU makes more, which cancel.
    """
    a, b = (rounded(x, precision).astype(np.float64) for x in (a, b))
    size = np.abs(a) @ np.abs(b) + np.abs(bias)
    error = np.abs(to_host(got) - (a @ b + bias))
    assert (error <= (a.shape[1] / 8 + 4) * EPS * size).all()


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 1, 1), (7, 33, 1), (33, 7, 257), (257, 257, 33), (1, 257, 7), (64, 32, 64), (130, 40, 90)],
)
def test_the_three_products_of_a_layer(
    m: int, k: int, n: int, precision: str, cuda: Device
) -> None:
    model, x, grad = dense(cuda, precision, k, n), normal(m, k), normal(m, n)
    kernel, bias = model.get_weights()
    assert_product(model.forward(x), x, kernel, precision, bias)
    assert_product(model.backward(grad), grad, kernel.T, precision)
    assert_product(model.layers[0].gradients["kernel"], x.T, grad, precision)
    in_full = to_host(model.layers[0].gradients["bias"])
    np.testing.assert_allclose(in_full, grad.sum(axis=0), 1e-5, 1e-5)


def test_of_the_largest_tiles(precision: str, cuda: Device) -> None:
    model, x = dense(cuda, precision, 40, 1100), normal(1500, 40)
    kernel, bias = model.get_weights()
    assert_product(model.predict(x), x, kernel, precision, bias)


def test_how_numbers_are_rounded(precision: str, cuda: Device) -> None:
    unit = 1 << (24 - BITS[precision])
    bits = np.random.default_rng(0).integers(0, 1 << 32, 300, np.uint64).astype(np.uint32)
    ties = bits // np.uint32(unit) * np.uint32(unit) + np.uint32(unit // 2)
    x = np.concatenate([bits, ties, ties - 1, ties + 1]).view(np.float32)
    exact = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5], np.float32)
    x = np.concatenate([x[np.abs(x) > 1e-37], exact])  # subnormal numbers may be 0
    model = dense(cuda, precision, 1, 1)
    model.set_weights([np.ones((1, 1)), np.zeros(1)])
    np.testing.assert_array_equal(model.predict(x[:, None])[:, 0], rounded(x, precision))


def small(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-1, 2, shape).astype(np.float32)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_numbers_that_need_no_rounding_give_the_bits_of_float32(
    activation: str | None, precision: str, cuda: Device
) -> None:
    def passed(device: str | Device, precision: str | None) -> Arrays:
        rng = np.random.default_rng(0)
        model = fm.Sequential(
            [fm.Input(33), fm.Dense(70, activation), fm.Dense(9, activation), fm.Dense(7)],
            device=device,
            precision=precision,
            seed=0,
        )
        model.set_weights([small(rng, *w.shape) for w in model.get_weights()])
        model.set_weights([w * (rng.random(w.shape) < 0.2) for w in model.get_weights()])
        y = model.forward(small(rng, 45, 33))
        dx = model.backward(small(rng, 45, 7))
        return [to_host(array) for array in (y, dx, *model.gradients())]

    expected = passed("cpu", None)
    assert max(float(np.abs(array).max()) for array in expected) > 3
    for got, sound in zip(passed(cuda, precision), expected, strict=True):
        np.testing.assert_array_equal(got, sound)


def test_nan_and_infinity_come_through(precision: str, cuda: Device) -> None:
    x = normal(40, 33)
    x[3, 5], x[17, 32], x[39, 0] = np.nan, np.inf, -np.inf
    y, full = (dense(cuda, p, 33, 20).predict(x) for p in (precision, None))
    finite = np.isfinite(full)
    np.testing.assert_array_equal(np.isfinite(y), finite)
    np.testing.assert_array_equal(y[~finite], full[~finite])
    assert np.isnan(y[3]).all()


def network(device: str | Device, precision: str | None, seed: int = 0) -> fm.Sequential:
    model = fm.Sequential(
        [fm.Input(20), fm.Dense(40, "tanh"), fm.Dropout(0.2), fm.Dense(35, "gelu"), fm.Dense(3)],
        device=device,
        precision=precision,
        seed=seed,
    )
    model.compile(fm.SGD(0.05, momentum=0.9), "cross_entropy")
    return model


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    return normal(rows, 20), np.random.default_rng(0).integers(0, 3, rows)


def learned(model: fm.Sequential, steps: int = 10) -> Arrays:
    model.fit(*data(16 * steps - 5), batch_size=16, verbose=0)
    return model.get_weights()


def test_ten_steps_go_where_float32_goes(
    precision: str, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sound = network("cpu", None).get_weights(), learned(network("cpu", None))
    results = []
    for way in ("launches", "kernel", "launches"):
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        results.append(learned(network(cuda, precision)))
        for got, full, start in zip(results[-1], sound, before, strict=True):
            # An update is off by some roundings of its factors.
            assert relative_distance(got - start, full - start) <= 4 * 2.0 ** -BITS[precision]
            assert not np.array_equal(got, full)
    for other in results[1:]:  # the same bits again, and both ways
        assert_same_bits(results[0], other)


def test_steps_of_a_graph(precision: str, cuda: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for way in ("launches", "kernel"):
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        results.append(learned(network(cuda, precision), steps=70))
    assert_same_bits(*results)


@pytest.mark.usefixtures("by_name")
def test_an_ensemble_has_the_bits_of_single_networks(precision: str, cuda: Device) -> None:
    ensemble = fm.Ensemble(network(cuda, precision, seed=4), 3)
    assert ensemble.precision == precision
    ensemble.fit(*data(90), batch_size=16, verbose=0)
    for i in range(3):
        alone = network(cuda, precision, seed=4 + i)
        alone.fit(*data(90), batch_size=16, verbose=0)
        assert ensemble[i].precision == precision
        assert_same_bits(ensemble[i].get_weights(), alone.get_weights())


def test_evaluate_and_the_call_compute_in_it(precision: str, cuda: Device) -> None:
    x, y = data(50)
    model, full = network(cuda, precision), network(cuda, None)
    assert_same_bits([model(x)], [model.predict(x)])
    assert not np.array_equal(model(x), full(x))
    one, other = (each.evaluate(x, y)["loss"] for each in (model, full))
    assert one != other
    assert one == pytest.approx(other, rel=0.01)


def test_it_may_be_changed_at_any_time(precision: str, cuda: Device) -> None:
    x, _ = data(50)
    model, full = network(cuda, precision), network(cuda, None)
    rounding, plain = model.predict(x), full.predict(x)
    model.precision, full.precision = None, precision
    assert_same_bits([model.predict(x), model(x), full.predict(x)], [plain, plain, rounding])


@pytest.mark.usefixtures("by_name")
def test_copies_and_files_keep_it(precision: str, cuda: Device, tmp_path: Path) -> None:
    model, path = network(cuda, precision), tmp_path / "model.safetensors"
    assert copy.deepcopy(model).precision == precision
    model.save(path)
    again = fm.load(path, device="cuda")
    assert again.precision == precision
    assert_same_bits([again.predict(data(9)[0])], [model.predict(data(9)[0])])
    assert fm.load(path, device="cuda", precision=None).precision is None
    ensemble = fm.Ensemble(model, 2)
    ensemble.save(path)
    assert fm.Ensemble.load(path, device="cuda").precision == precision


# ---- on the CPU

on_cpu = pytest.mark.skipif("bfloat16" not in ON_CPU, reason="needs AVX512_BF16")


def chain(a: np.ndarray, b: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """A sum as the instructions add."""
    a, b = (rounded(np.ascontiguousarray(x), "bfloat16").astype(np.float64) for x in (a, b))
    total = np.zeros((len(a), b.shape[1]), np.float32) + np.float32(bias)

    def added(total: np.ndarray, numbers: Iterable[int]) -> np.ndarray:
        for i in numbers:
            total = (total + np.outer(a[:, i], b[i])).astype(np.float32)
        return total

    k = range(len(b))
    if TILES:  # of each 32 the first numbers of all pairs and the second ones
        for first in k[::32]:
            part = k[first : first + 32]
            total += added(np.zeros_like(total), part[::2]) + added(
                np.zeros_like(total), part[1::2]
            )
        return total
    # In ascending pairs, and of each the second first.
    return added(total, (i for first in k[::2] for i in k[first : first + 2][::-1]))


# Few rows and columns, blocks of depth and of rows, last panels that are narrower.
@on_cpu
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 21, 10), (5, 2, 33), (70, 1101, 90), (500, 40, 7), (241, 130, 300), (600, 2100, 20)],
)
def test_on_the_cpu_every_sum_is_one_chain(m: int, k: int, n: int) -> None:
    model = dense(devices.get("cpu"), "bfloat16", k, n)
    x, grad = guarded(normal(m, k)), guarded(normal(m, n))
    kernel, bias = model.get_weights()
    # Of many rows a gradient is the sum of parts (test_parts.py), each of them one chain.
    parts = np.split(np.arange(m), 4 if m >= 512 else 2 if m >= 256 else 1)
    gradient = sum(chain(x[rows].T, grad[rows]) for rows in parts)
    # Of many features a sum is that of its halves (test_halves.py).
    half = -(-k // 16) // 2 * 16 if k >= 512 else k
    forward = chain(x[:, :half], kernel[:half], bias)
    if half < k:
        forward = forward + chain(x[:, half:], kernel[half:])
    expected = [forward, chain(grad, kernel.T), gradient]
    for threads in (1, 2, 3):
        fm.set_num_threads(threads)
        results = [model.forward(x), model.backward(grad), model.layers[0].gradients["kernel"]]
        assert_same_bits(results, expected)


@on_cpu
@pytest.mark.usefixtures("threads")
def test_on_the_cpu_threads_change_no_bit() -> None:
    results = []
    for threads in (1, 2, 3):
        fm.set_num_threads(threads)
        model = network("cpu", "bfloat16")
        model.fit(*data(1000), batch_size=128, verbose=0)
        results.append(model.get_weights())
    for other in results[1:]:
        assert_same_bits(results[0], other)


# Below, at and above a tile's sides and what is packed at a time; and sums of nothing.
AWKWARD = [(1, 1, 1), (15, 31, 17), (16, 32, 16), (33, 65, 47), (40, 513, 260), (300, 2100, 49)]


def awkward_products() -> Arrays:
    results = []
    for m, k, n in AWKWARD:
        model = dense(devices.get("cpu"), "bfloat16", k, n)
        results += [model.forward(guarded(normal(m, k))), model.backward(guarded(normal(m, n)))]
        results += [model.layers[0].gradients["kernel"].copy()]
    return results


@pytest.mark.skipif(not TILES or EMULATED, reason="needs AMX")
def test_both_instructions_agree(tmp_path: Path) -> None:
    path, tests = tmp_path / "without.npz", Path(__file__).parent
    program = (
        f"import sys; sys.path.insert(0, {str(tests)!r})\n"
        "import numpy as np, test_precision as here\n"
        f"assert not here.TILES; np.savez({str(path)!r}, *here.awkward_products())"
    )
    environment = os.environ | {"FASTMLP_DISABLE": "amx"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    with np.load(path) as without:
        for got, other in zip(awkward_products(), without.values(), strict=True):
            np.testing.assert_allclose(got, other, 1e-5, 1e-4 * np.abs(other).max())


@pytest.mark.skipif(not TILES or EMULATED, reason="needs AMX")
def test_without_tiles_the_cpu_passes_as_well() -> None:
    wanted = "on_the_cpu or cpu and not says and not tf32"
    subprocess.run(
        [*f"{sys.executable} -m pytest -q -p no:cacheprovider -k".split(), wanted, __file__],
        check=True,
        cwd=Path(__file__).parent,
        env=os.environ | {"FASTMLP_DISABLE": "amx"},
    )


# ---- where it is missing


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p not in ON_CPU])
def test_the_cpu_says_what_to_do(precision: str, tmp_path: Path, emulated_cuda: Device) -> None:
    or_cpu = " or a CPU with AVX512_BF16" if precision == "bfloat16" else ""
    says = (
        rf"precision '{precision}' needs tensor cores \(device 'cuda'\){or_cpu}; "
        "device 'cpu' computes with precision=None"
    )
    with pytest.raises(RuntimeError, match=f"Sequential: {says}"):
        fm.Sequential(precision=precision)
    model, path = network(emulated_cuda, precision), tmp_path / "model.safetensors"
    with pytest.raises(RuntimeError, match=f"to: {says}"):
        model.to("cpu")
    model.save(path)
    with pytest.raises(RuntimeError, match=says):
        fm.load(path)
    plain = fm.load(path, precision=None)
    assert plain.precision is None
    with pytest.raises(RuntimeError, match=says):
        plain.precision = precision
    model.precision = None
    assert_same_bits([model.to("cpu").predict(data(9)[0])], [plain.predict(data(9)[0])])


def test_it_is_refused_where_it_makes_no_sense(emulated_cuda: Device) -> None:
    with pytest.raises(ValueError, match="precision 'tf32' needs dtype 'float32', got 'float64'"):
        fm.Sequential(device=emulated_cuda, dtype="float64", precision="tf32")
    with pytest.raises(ValueError, match="precision must be None, 'tf32' or 'bfloat16', got 'fp4'"):
        fm.Sequential(device=emulated_cuda, precision="fp4")


def test_the_core_refuses_it_too() -> None:
    stand_in = gpu_stand_in()
    network = stand_in.network([], 3, "float32", 1)
    with pytest.raises(ValueError, match="precision: needs one that the device has.*got tf32"):
        network.plan("infer", 1, precision="tf32")
