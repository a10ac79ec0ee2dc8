"""The CUDA backend's logic without a GPU: its own sources, on an emulator of CUDA's threads.

What this proves and what not stands in csrc/cuda/emulator.h. Where there is a GPU, it has to give
the same numbers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import numpy as np
import pytest
from support import assert_same_bits, relative_distance

import fastmlp as fm
from fastmlp import _core, training
from fastmlp.device import Array, Device, StepState, to_host
from fastmlp.kernels import ACTIVATIONS

TESTS = Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif(not shutil.which(emulated.COMPILER), reason="needs a C++ compiler")


# With its networks in shared memory, one kernel, and without; or a kernel for each record.
WAYS = ("kernel", "kernel-global", "launches")


@pytest.fixture(params=WAYS)
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a step runs."""
    monkeypatch.setenv("FASTMLP_CUDA_STEP", request.param)
    return str(request.param)


# Everything that the CPU's kernels, losses, gradients, optimizers and models have to show, on the
# same sizes and against the same float64 reference. Left out: what chooses the CPU's own path.
@pytest.mark.parametrize(
    "files",
    [
        ["test_kernels.py", "-k", "not other_paths"],
        ["test_losses.py", "test_gradients.py", "test_optimizers.py", "test_metrics.py"],
        ["test_layers.py"],
        [
            "test_fit.py",
            "test_sequential.py",
            "test_ensemble.py",
            "test_callbacks.py",
            "test_penalties.py",
        ],
    ],
    ids=["kernels", "formulas", "layers", "models"],
)
def test_what_the_cpu_has_to_pass(files: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=TESTS,
        env=os.environ | {"FASTMLP_EMULATE_CUDA": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


LOSSES = [
    fm.losses.CrossEntropy(),
    fm.losses.MSE(reduction="sum"),
    fm.losses.MAE(),
    fm.losses.BinaryCrossEntropy(),
    fm.losses.Huber(delta=0.5),
    fm.losses.CrossEntropy(label_smoothing=0.1),
    fm.losses.Hinge(),
    fm.losses.MSE(),
    fm.losses.Perceptron(),
]


def trained(device: Device | str, number: int, steps: int = 10) -> list[np.ndarray]:
    """Return the weights of a random network after some steps, the last on a short batch."""
    rng = np.random.default_rng(number)
    sizes = rng.integers(1, 80, rng.integers(2, 6)).tolist()
    batch = int(rng.integers(1, 70))
    rows = batch * (steps - 1) + max(1, batch // 2)
    # Without the step, which makes a difference of 1 out of one by rounding.
    names = sorted(ACTIVATIONS.keys() - {"step"})
    penalty = {"l1": 1e-3, "l2": 1e-2} if number % 2 else {}
    layers: list[fm.layers.Layer] = []
    for units in sizes[1:-1]:
        name = names[int(rng.integers(len(names)))]
        layers.append(fm.Dense(units, activation=name, **penalty))
        if rng.random() < 0.3:
            layers.append(fm.Dropout(0.3))
        if rng.random() < 0.3:
            layers.append([fm.LayerNorm(), fm.PReLU(), fm.Maxout(9)][int(rng.integers(3))])
    loss = LOSSES[number % len(LOSSES)]
    outputs = max(sizes[-1], 2)
    model = fm.Sequential(
        [fm.Input(sizes[0]), *layers, fm.Dense(outputs, **penalty)], seed=number, device=device
    )
    optimizer = [
        fm.Adam(1e-3),
        fm.SGD(1e-3, momentum=0.9),
        fm.Adam(1e-3, clip_norm=0.1),
        fm.RMSprop(1e-3, momentum=0.5, centered=True),
    ]
    model.compile(optimizer[number % 4], loss=loss)
    x = rng.standard_normal((rows, sizes[0])).astype(np.float32)
    if loss.name == "cross_entropy":
        y = rng.integers(0, outputs, rows)
    else:
        y = rng.integers(0, 2, (rows, outputs)).astype(np.float32)
    model.fit(x, y, batch_size=batch, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("number", range(20))
def test_ten_steps_of_random_networks_equal_the_cpu_s(number: int, cuda: Device, step: str) -> None:
    for got, expected in zip(trained(cuda, number), trained("cpu", number), strict=True):
        assert relative_distance(got, expected) <= 1e-5


def test_both_ways_to_make_a_step_give_the_same_bits(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for way in (*WAYS, "launches", ""):
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        results.append(trained(cuda, number=5, steps=70))  # 32 of them in a graph, and again
    for other in results[1:]:
        assert_same_bits(results[0], other)


def test_an_unknown_way_to_make_a_step(cuda: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTMLP_CUDA_STEP", "magic")
    with pytest.raises(
        RuntimeError, match="FASTMLP_CUDA_STEP: needs kernel, kernel-glo.*, got 'mag"
    ):
        trained(cuda, number=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_products_have_the_bits_of_the_cpu(cuda: Device, dtype: str) -> None:
    # Of the widest tiles: both sum in ascending order from the bias on.
    if fm.show_config()["matmul"] != "native":
        pytest.skip("the BLAS has its own order")
    x = np.random.default_rng(0).standard_normal((1500, 40)).astype(dtype)
    results = []
    for device in ("cpu", cuda):
        model = fm.Sequential([fm.Input(40), fm.Dense(1100)], seed=0, device=device, dtype=dtype)
        results.append(model.predict(x))
    assert_same_bits(*([result] for result in results))


# 4,096 rows are one chain, as on the CPU; more are summed in parts of 1,024.
LONG = [4096, 4097, 5 * 1024, 5000]


@pytest.mark.parametrize("rows", LONG)
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_gradients_of_many_rows(rows: int, precision: str | None, cuda: Device) -> None:
    rng = np.random.default_rng(rows)
    model = fm.Sequential([fm.Input(7), fm.Dense(35)], seed=0, device=cuda, precision=precision)
    x, grad = (rng.integers(-3, 4, (rows, width)).astype(np.float32) for width in (7, 35))
    model.forward(x)
    model.backward(grad)
    kernel, bias = (to_host(array) for array in model.gradients())
    np.testing.assert_array_equal(kernel, x.T @ grad)  # whole numbers: nothing is rounded
    np.testing.assert_array_equal(bias, grad.sum(axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_over_many_rows(dtype: str, cuda: Device) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((2, 5000, width)).astype(dtype) for width in (7, 35))
    out = cuda.empty((2, 7, 35), dtype)
    _core.matmul(cuda.backend, out, cuda.put(x), cuda.put(dy), True, False)
    exact = x.transpose(0, 2, 1).astype("longdouble") @ dy.astype("longdouble")
    tolerance = 100 * np.finfo(dtype).eps * 5000**0.5
    np.testing.assert_allclose(to_host(out), exact.astype(dtype), 0, tolerance)


@pytest.mark.usefixtures("by_name")
def test_steps_of_many_rows_have_the_same_bits_both_ways(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((9100, 5)).astype(np.float32)
    results = []
    for way in ("launches", "kernel"):
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        ensemble = fm.Ensemble(
            fm.Sequential([fm.Input(5), fm.Dense(9, "tanh"), fm.Dense(1)], seed=3, device=cuda), 2
        )
        ensemble.compile(fm.SGD(0.1), "mse")
        ensemble.fit(x, x[:, :1], batch_size=4550, verbose=0)
        alone = fm.Sequential([fm.Input(5), fm.Dense(9, "tanh"), fm.Dense(1)], seed=4, device=cuda)
        alone.compile(fm.SGD(0.1), "mse")
        alone.fit(x, x[:, :1], batch_size=4550, verbose=0)
        assert_same_bits(ensemble[1].get_weights(), alone.get_weights())
        results.append(alone.get_weights())
    assert_same_bits(*results)


def test_a_loss_that_is_not_finite_ends_before_its_update(cuda: Device, step: str) -> None:
    x, y = np.ones((40, 3), np.float32), np.zeros((40, 1), np.float32)
    weights = []
    for rows in (10, 40):  # the second time a row makes trouble in the second batch
        model = fm.Sequential([fm.Input(3), fm.Dense(1)], seed=0, device=cuda)
        model.compile(fm.SGD(1e-3), loss="mse")
        x[15] = np.inf if rows == 40 else 1
        if rows == 10:
            model.fit(x[:10], y[:10], batch_size=10, shuffle=False, verbose=0)
        else:
            with pytest.raises(FloatingPointError, match="step 1"):
                model.fit(x, y, batch_size=10, shuffle=False, verbose=0, check_finite=False)
        weights.append(model.get_weights())
    assert_same_bits(weights[0], weights[1])


# Networks of an ensemble: those that go by one kernel run ahead of one another, and one that stops
# has the others put back.

SEEDS = [3, 11, 4]


def ensemble(device: Device | str, learning_rates: list[object], seeds: list[int]) -> fm.Ensemble:
    """Return networks with everything that outlasts a step, or depends on how many there were."""
    layers = [
        fm.Dense(9, "tanh", l2=1e-3),
        fm.BatchNorm(),
        fm.Dropout(0.3),
        fm.Dense(5, "relu"),
        fm.Dense(1),
    ]
    model = fm.Sequential([fm.Input(4), *layers], seed=0, device=device)
    model.compile(fm.Adam(clip_norm=1.0), "mse", ["mae"])
    return fm.Ensemble(model, len(seeds), seeds=seeds, learning_rates=learning_rates)


def steps(
    model: fm.Ensemble | fm.Sequential, x: np.ndarray, count: int
) -> tuple[int, list[int], list[np.ndarray]]:
    """Make steps in as few calls as there can be; return what `Engine` says of them, and has."""
    engine, optimizer, loss = model._engine, model.optimizer, model.loss
    assert optimizer
    assert isinstance(loss, fm.losses.Loss)
    engine.begin_epoch()
    y = engine.device.put(x[:, :1] ** 2)
    plan = engine.training_plan(
        engine.device.put(x), y, None, loss, ["mae"], optimizer,
        batch_size=8, shuffle=True, steps=count,
    )  # fmt: skip
    done = engine.train(plan, len(x), count, 1e9)
    found = [engine.parameters, engine.statistics, *optimizer.moments]
    state = [np.asarray(engine.state[field]) for field in StepState.names]
    return done, engine.stopped, [to_host(array).copy() for array in found] + state


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


RATES = [1e-2, fm.schedules.CosineDecay(0.1, 40), fm.schedules.StepDecay(0.05, 4)]


@pytest.mark.usefixtures("by_name")
def test_networks_have_the_same_bits_both_ways_and_alone(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rows(8 * 50 + 3)  # a short batch at the end
    found = []
    for way in WAYS:
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        networks = ensemble(cuda, RATES, SEEDS)
        assert steps(networks, x, 51)[:2] == (51, [])
        found.append(steps(networks, x, 20)[2])  # and it goes on
        assert_same_bits(found[0], found[-1])
    for i, (seed, rate) in enumerate(zip(SEEDS, RATES, strict=True)):
        alone = ensemble(cuda, [rate], [seed])
        steps(alone, x, 51)
        single = steps(alone, x, 20)[2]
        each = [array[i : i + 1] for array in found[0]]
        schedule = StepState.names.index("schedule_index") - len(StepState.names)
        del single[schedule : schedule + 2], each[schedule : schedule + 2]  # theirs lie elsewhere
        assert_same_bits(each, single)


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize("width", [150, 900], ids=["all but moments", "none"])
def test_networks_of_which_shared_memory_holds_a_part(
    width: int, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((36, 90)).astype(np.float32)
    found = []
    for way in WAYS:
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        model = fm.Sequential([fm.Dense(width, "tanh"), fm.Dense(2)], seed=0, device=cuda)
        model.compile(fm.Adam(), "mse")
        networks = fm.Ensemble(model, 2)
        networks.fit(x, x[:, :2], batch_size=16, verbose=0)
        found.append(networks.get_weights())
        assert_same_bits(found[0], found[-1])


@pytest.mark.parametrize("seeds", [SEEDS, [11, 4, 11]], ids=["one", "two at once"])
@pytest.mark.parametrize("before", [0, 30])
def test_networks_stop_where_the_first_of_them_does(
    before: int,
    seeds: list[int],
    cuda: Device,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # Every network meets the row in another step, in the order of its own seed.
    x = rows(8 * 50 + 3)
    x[17 if before else 250] = np.inf

    def run(device: Device | str, count: int) -> tuple[int, list[int], list[np.ndarray]]:
        networks = ensemble(device, RATES, seeds)
        if before:
            steps(networks, rows(8 * before), before)
        return steps(networks, x, count)

    done, stopped, _ = run("cpu", 51)
    assert 1 < done < 50
    assert stopped == [i for i, seed in enumerate(seeds) if seed == 11]
    request.getfixturevalue("by_name")
    found = []
    for way in WAYS:
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        found.append(run(cuda, 51))
        assert found[-1][:2] == (done, stopped)
        assert_same_bits(found[0][2], found[-1][2])
    kept = -len(StepState.names)
    assert_same_bits(found[0][2][:kept], run(cuda, done)[2][:kept])


@pytest.mark.usefixtures("by_name")
def test_a_penalty_that_is_not_finite_stops_all_networks_at_once(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for way in WAYS:
        monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
        networks = ensemble(cuda, RATES, SEEDS)
        networks.layers[0].kernel[1, 2, 3] = 1e30  # its square is too much, of the tanh it is 1
        before = networks.get_weights()
        found.append(steps(networks, rows(100), 12))
        assert found[-1][:2] == (0, [1])
        assert_same_bits(networks.get_weights(), before)
        assert_same_bits(found[0][2], found[-1][2])


@pytest.mark.parametrize(
    ("name", "right", "wrong", "precision"),
    [
        (
            "matmul.cuh",
            "product.b, left, first, deep);\n      __syncthreads();",
            "product.b, left, first, deep);",
            None,
        ),
        (
            "tensor_cores.cuh",
            "of_b.put(tile_b, next_b);\n      __syncthreads();",
            "of_b.put(tile_b, next_b);",
            "tf32",
        ),
        (
            "tensor_cores.cuh",
            "{from[0], from[8 * padded], from[4], from[8 * padded + 4]}",
            "{from[0], from[4], from[8 * padded], from[8 * padded + 4]}",
            "bfloat16",
        ),
    ],
    ids=["a barrier", "a barrier on tensor cores", "a fragment's layout"],
)
def test_the_emulator_finds_what_is_wrong(
    name: str, right: str, wrong: str, precision: str | None, emulated_cuda: Device, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(TESTS.parent / "csrc", tree / "csrc")
    (tree / "tests").mkdir()
    shutil.copy(TESTS / "emulated_cuda.cpp", tree / "tests")
    source = tree / "csrc/cuda" / name
    text = source.read_text()
    assert right in text
    source.write_text(text.replace(right, wrong))
    emulated.build_cuda(tmp_path / "broken.so", tree)
    broken, sound = (
        fm.Sequential([fm.Input(40), fm.Dense(30)], seed=0, device=device, precision=precision)
        for device in (emulated.load(tmp_path / "broken.so"), emulated_cuda)
    )
    x = np.random.default_rng(0).standard_normal((20, 40)).astype(np.float32)
    assert not np.allclose(broken.predict(x), sound.predict(x))


@pytest.mark.parametrize("way", ["kernel", "launches"])
def test_a_profile_takes_the_steps_of_fit(
    cuda: Device, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMLP_CUDA_STEP", way)
    x, y = np.ones((20, 3)), np.ones((20, 2))

    def trained(train: Callable[[fm.Sequential], object]) -> list[Array]:
        model = fm.Sequential([fm.Input(3), fm.Dense(2)], seed=0, device=cuda)
        model.compile(fm.Adam(clip_norm=1.0), "mse")
        train(model)
        return model.get_weights()

    profiles: list[Any] = []
    profiled = trained(lambda model: profiles.append(training.profile(model, x, y, 5, 4)))
    fitted = trained(lambda model: model.fit(x, y, batch_size=5, verbose=0))
    assert all(np.array_equal(a, b) for a, b in zip(profiled, fitted))
    records, working, waiting = profiles[0]
    assert ("MatMul", "5 x 2 x 3", 2 * 5 * 2 * 3) in records
    assert working.shape == waiting.shape == (4, 1, len(records))
    assert (working > 0).all()
    assert not waiting.any()
