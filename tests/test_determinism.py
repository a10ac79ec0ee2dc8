"""The same numbers every time: threads, seeds, replicas, and the generator itself."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import PoisonedNumPy, assert_same_bits, same_bits

import fastmlp as fm
from fastmlp import _core

rng = np.random.RandomState(0)


# Wide, deep, tall and thin networks, each large enough to be shared between two threads.
NETWORKS = {
    "784-256-10": (784, [256], 10, 128),
    "64-64-64-64": (64, [64, 64, 64], 7, 256),
    "33-257-65": (33, [257, 65], 10, 100),
    "512-2": (512, [512], 2, 64),
    "3-999": (3, [999], 3, 333),
    "700-900-900": (700, [900, 900], 3, 64),  # shared out by columns
}


def train(
    threads: int, features: int, hidden: list[int], outputs: int, batch: int, dtype: str
) -> list[np.ndarray]:
    fm.set_num_threads(threads)
    random = np.random.RandomState(1)
    x = random.standard_normal((3 * batch + 5, features))
    y = random.randint(outputs, size=len(x))
    layers = [fm.Dense(n, activation) for n, activation in zip(hidden, ("relu", "tanh", "silu"))]
    layers += [fm.BatchNorm(), fm.PReLU(), fm.Maxout(20), fm.LayerNorm(), fm.PReLU(shared=True)]
    layers += [fm.Dropout(0.1), fm.Dense(outputs)]
    model = fm.Sequential(layers, seed=5, dtype=dtype)
    model.compile(fm.AdamW(1e-3, clip_norm=0.5), "cross_entropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    return [
        *model.get_weights(),
        model.predict(x),
        np.array(history.history["loss"]),
        np.array(list(model.evaluate(x, y).values())),
    ]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_one_thread_and_several_give_the_same_bits(network, dtype, threads):
    one = train(1, *network, dtype)
    for count in (2, 3):
        assert_same_bits(train(count, *network, dtype), one)


# What a row costs decides how many rows a share has; the last is more than one chunk of `predict`.
@pytest.mark.parametrize(
    "features, hidden, rows", [(300, 200, 1001), (8, 32, 9999), (600, 600, 2600)]
)
def test_many_rows_are_predicted_and_judged_alike_in_any_number_of_shares(
    features, hidden, rows, dtype, threads
):
    x = rng.standard_normal((rows, features)).astype(dtype)
    y = rng.randint(5, size=rows)
    layers = [fm.Dense(hidden, "relu"), fm.LayerNorm(), fm.Dense(hidden, "tanh"), fm.Dense(5)]
    one = fm.Sequential(layers, seed=3, dtype=dtype)
    one.compile("adam", "cross_entropy", metrics=["accuracy"])
    for model in (one, fm.Ensemble(one, 2)):  # whose networks are shared out as well
        model.build(features)
        results = []
        for count in (1, 2, 3):
            fm.set_num_threads(count)
            for _ in range(3):  # some of which the clock may leave to one thread
                outputs, judged = model.predict(x), model.evaluate(x, y)
                results.append([outputs, *(np.array(v) for v in judged.values())])
        for result in results[1:]:
            assert_same_bits(result, results[0])
        for row in range(0, rows, 97):  # alone it has the same bits as among others
            assert_same_bits([model.predict(x[row : row + 1])], [outputs[..., row : row + 1, :]])


# The last is shared out by columns.
SHAPES = [(512, 512, 512), (33, 1025, 257), (2048, 64, 1), (65, 1025, 700)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_give_the_same_bits_on_one_thread_and_two(shape, dtype, threads):
    m, k, n = shape
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    bias, dy = b[0].copy(), rng.standard_normal((m, n)).astype(dtype)
    results = []
    for count in (1, 2):
        fm.set_num_threads(count)
        y = fm.kernels.dense_forward(a, b, bias, "tanh")
        results.append(
            [
                y,
                *fm.kernels.dense_backward(dy, a, y, b, "tanh"),
                fm.kernels.matmul(b, a, transpose_a=True, transpose_b=True),
                fm.kernels.softmax(a),
            ]
        )
    assert_same_bits(results[1], results[0])


# (k, n): within one panel of columns, over several, with a partial last vector, beyond the
# first-level cache, and so large that it is read a few rows at a time.
FEW_ROWS = [(0, 3), (1, 1), (17, 64), (64, 6), (31, 200), (300, 133), (1100, 1030)]


@pytest.mark.skipif(fm.show_config()["matmul"] != "native", reason="the BLAS has its own order")
@pytest.mark.parametrize("shape", FEW_ROWS, ids=str)
@pytest.mark.parametrize("transpose_a", [False, True])
def test_few_rows_give_the_bits_of_many(shape, transpose_a, dtype, threads):
    fm.set_num_threads(1)
    k, n = shape
    a, b = rng.standard_normal((9, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    bias = rng.standard_normal(n).astype(dtype)
    product = fm.kernels.matmul(a, b)
    dense = fm.kernels.dense_forward(a, b, bias, "identity")
    for m in range(1, 9):
        if transpose_a:
            few = fm.kernels.matmul(np.ascontiguousarray(a[:m].T), b, transpose_a=True)
            assert_same_bits([few], [product[:m]])
        else:
            assert_same_bits([fm.kernels.matmul(a[:m], b)], [product[:m]])
            few = fm.kernels.dense_forward(a[:m], b, bias, "identity")
            assert_same_bits([few], [dense[:m]])


def test_the_number_of_threads_can_be_read_back(threads):
    for count in (2, 1):
        fm.set_num_threads(count)
        assert fm.get_num_threads() == count


@pytest.mark.parametrize("count", [0, -1])
def test_there_is_at_least_one_thread(count, threads):
    before = fm.get_num_threads()
    with pytest.raises(ValueError, match=f"set_num_threads.*{count}"):
        fm.set_num_threads(count)
    assert fm.get_num_threads() == before


# Memory and processes.


def test_what_lay_in_memory_before_does_not_matter(monkeypatch, dtype, threads):
    expected = train(1, 9, [33, 7], 5, 16, dtype)
    monkeypatch.setattr(fm.device.get("cpu"), "xp", PoisonedNumPy())
    assert_same_bits(train(1, 9, [33, 7], 5, 16, dtype), expected)


def test_models_in_several_python_threads(threads):
    fm.set_num_threads(2)
    expected = train(2, *NETWORKS["64-64-64-64"], "float32")
    with ThreadPoolExecutor(3) as pool:
        for result in pool.map(lambda _: train(2, *NETWORKS["64-64-64-64"], "float32"), range(3)):
            assert_same_bits(result, expected)


def test_one_model_called_from_several_python_threads():
    model = fm.Sequential([fm.Dense(300, "tanh"), fm.Dense(10)], seed=0)
    x = rng.standard_normal((500, 100)).astype("float32")
    expected = [model.predict(x), model(x), model(x[3])]
    with ThreadPoolExecutor(3) as pool:
        for result in pool.map(lambda _: [model.predict(x), model(x), model(x[3])], range(60)):
            assert_same_bits(result, expected)


def test_one_model_called_at_once_into_arrays_of_the_callers():
    # Small enough to keep the GIL, and large enough to release it.
    for width in (64, 1024):
        model = fm.Sequential([fm.Dense(width, "tanh"), fm.Dense(10)], seed=0)
        x = rng.standard_normal((4, 400)).astype("float32")
        expected = [model(x), *(model(row) for row in x)]

        def calls(_, model=model, x=x):
            out, row_out = np.empty((4, 10), "float32"), np.empty((4, 10), "float32")
            for _ in range(50):
                model(x, out=out)
                for row, target in zip(x, row_out):
                    assert model(row, out=target) is target
            return [out, *row_out]

        with ThreadPoolExecutor(4) as pool:
            for result in pool.map(calls, range(8)):
                assert_same_bits(result, expected)


FORK = """
import os, sys
import numpy as np
import fastmlp as fm

def train():
    model = fm.Sequential([fm.Dense(256, "relu"), fm.Dense(10)], seed=0)
    model.compile("adam", "mse")
    data = np.random.RandomState(0)
    model.fit(data.standard_normal((256, 200)), data.standard_normal((256, 10)), verbose=0)
    return b"".join(w.tobytes() for w in model.get_weights())

fm.set_num_threads(2)
expected = train()
child = os.fork()
if child == 0:
    os._exit(0 if train() == expected else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert train() == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_trains_to_the_same_bits():
    # In a process of its own, since Python warns of forks beside threads; a hang is a failure.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60)


# Replicas: one program for R networks gives the bits of R programs for one.

NORM = {"affine": True, "epsilon": 1e-5, "momentum": 0.1}
STAGES = [
    {"kind": "dense", "layer": 0, "units": 33, "use_bias": True},
    {"kind": "activation", "layer": 0, "name": "tanh", "parameter": 0.0},
    {"kind": "dropout", "layer": 1, "rate": 0.25},
    {"kind": "dense", "layer": 2, "units": 65, "use_bias": False},
    {"kind": "activation", "layer": 2, "name": "silu", "parameter": 0.0},
    {"kind": "maxout", "pieces": 5, "layer": 2},
    {"kind": "normalisation", "layer": 3, "by_row": False, **NORM},
    {"kind": "prelu", "layer": 4, "shared": False},
    {"kind": "normalisation", "layer": 5, "by_row": True, **NORM},
    {"kind": "normalisation", "layer": 6, "by_row": False, **NORM, "affine": False},
    {"kind": "prelu", "layer": 7, "shared": True},
    {"kind": "dense", "layer": 8, "units": 5, "use_bias": True},
    {"kind": "softmax", "layer": 8, "logarithm": False},
]
RULES = {
    "momentum": {"rule": "sgd", "momentum": 0.9, "nesterov": True},
    "adam": {"rule": "adam", "amsgrad": True, "clip_norm": 0.5},
}


def parameter_tensors(network: _core.Network) -> list[dict]:
    return [t for t in network.tensors if t["buffer"] == "parameters"]


def padding(network: _core.Network) -> np.ndarray:
    """Which elements of a flat array belong to no parameter; they are 0 and stay 0."""
    unused = np.ones(network.parameters, bool)
    for t in parameter_tensors(network):
        rows, width = (1, *t["shape"])[-2:]
        block = unused[t["offset"] :][: rows * t["stride"]].reshape(rows, t["stride"])
        block[:, :width] = False
    assert unused.any()
    return unused


def train_replicas(seeds: list[int], dtype: str, rule: dict) -> dict[str, np.ndarray]:
    """Two epochs of 41 rows in batches of 16, for len(seeds) networks at once."""
    replicas, rows, batch, features = len(seeds), 41, 16, 9
    network = _core.Network(STAGES, features, dtype, replicas, _core.cpu())
    update = _core.Update(**rule)
    plan = network.plan(
        "train", batch, loss="cross_entropy", metrics=["accuracy"], update=update, shuffle=True,
        labels=True,
    )  # fmt: skip
    parameters = np.zeros((replicas, network.parameters), dtype)
    for replica, seed in enumerate(seeds):
        for stream, t in enumerate(parameter_tensors(network)):
            rows_of_t, width = (1, *t["shape"])[-2:]
            block = parameters[replica, t["offset"] :][: rows_of_t * t["stride"]]
            values = fm.kernels.random_normal((rows_of_t, width), dtype, seed=seed, stream=stream)
            block.reshape(rows_of_t, t["stride"])[:, :width] = 0.2 * values
    state = np.zeros(replicas, _core.step_state_dtype)
    state["seed"], state["schedule_length"] = seeds, 1
    data = np.random.RandomState(3)
    arrays = {
        "parameters": parameters,
        **{
            name: np.zeros_like(parameters)
            for name in ("gradients", "moment0", "moment1", "moment2")
        },
        "workspace": np.full((replicas, plan.workspace), np.nan, dtype),
        "step_state": state,
        "state": np.ones((replicas, network.state), dtype),
        "input": data.standard_normal((rows, features)).astype(dtype),
        "target": data.randint(5, size=rows).astype("int32"),
        "learning_rates": np.array([0.05]),
    }
    arguments = _core.Arguments(_core.cpu())
    for name, array in arrays.items():
        arguments[name] = array
    for epoch in range(2):
        state["row"], state["epoch"] = 0, epoch
        assert plan.train(arguments, rows, 100, 60.0) == 3
    for name in ("parameters", "gradients", "moment0", "moment1"):
        assert (arrays[name][:, padding(network)] == 0).all()
    return {name: arrays[name] for name in ("parameters", "state", "moment0", "moment1")} | {
        "sums": state["sums"].copy(), "steps": state["step"].copy()
    }  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_three_replicas_give_the_bits_of_three_single_runs(rule, dtype, threads):
    seeds = [5, 6, 7]
    for count in (1, 2):
        fm.set_num_threads(count)
        together = train_replicas(seeds, dtype, rule)
        assert together["steps"].tolist() == [6, 6, 6]
        for replica, seed in enumerate(seeds):
            alone = train_replicas([seed], dtype, rule)
            for name, array in together.items():
                assert_same_bits([array[replica]], [alone[name][0]])
    assert not same_bits(together["parameters"][0], together["parameters"][1])


# Seeds.


def trained(seed: int | None, device: str = "cpu") -> list[np.ndarray]:
    random = np.random.RandomState(1)
    x, y = random.standard_normal((50, 4)), random.randint(3, size=50)
    model = fm.Sequential(
        [fm.Dense(9, "relu"), fm.Dropout(0.5), fm.Dense(3)], seed=seed, device=device
    )
    model.compile("adam", "cross_entropy")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    return model.get_weights()


def test_the_same_seed_gives_the_same_bits(device):
    assert_same_bits(trained(7, device), trained(7, device))


@pytest.mark.parametrize("seeds", [(7, 8), (None, None), (0, 2**32)], ids=str)
def test_other_seeds_give_other_numbers(seeds):
    first, second = map(trained, seeds)
    assert not any(same_bits(a, b) for a, b in zip(first, second))


def test_layers_of_one_shape_start_with_different_numbers():
    model = fm.Sequential([fm.Dense(8), fm.Dense(8), fm.Dense(8)], seed=0)
    model.build(8)
    kernels = model.get_weights()[::2]
    assert not same_bits(kernels[0], kernels[1])
    assert not same_bits(kernels[1], kernels[2])


def test_each_part_of_the_seed_counts():
    for dropout, shuffle, initial in ((0.5, False, False), (0.0, True, False), (0.0, False, True)):
        results = []
        for seed in (1, 2):
            random = np.random.RandomState(1)
            x, y = random.standard_normal((50, 4)), random.standard_normal((50, 1))
            model = fm.Sequential(
                [fm.Dense(9, "relu"), fm.Dropout(dropout), fm.Dense(1)], seed=seed
            )
            model.build(4)
            if not initial:
                start = np.random.RandomState(2)
                model.set_weights([start.standard_normal(w.shape) for w in model.get_weights()])
            model.compile("sgd", "mse")
            model.fit(x, y, batch_size=8, shuffle=shuffle, verbose=0)
            results.append(model.get_weights())
        assert not same_bits(results[0][0], results[1][0])


def test_numpy_s_global_random_state_is_left_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    trained(7)
    trained(None)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


# The generator.


def test_numbers_are_philox_4x32_10():
    # The known answer for key 0 and counter 0 (Random123's kat_vectors) is
    # 6627e8d5 e169c58d bc57ac4c 9b00dbd8; 53 of each 64 bits make a double in [0, 1).
    expected = [(0x6627E8D5E169C58D >> 11) * 2.0**-53, (0xBC57AC4C9B00DBD8 >> 11) * 2.0**-53]
    got = fm.kernels.random_uniform((2,), "float64", seed=0, stream=0)
    assert got.tolist() == expected


def test_uniform_and_normal_numbers_have_their_moments():
    # 4 standard errors: 4 / sqrt(n) times the deviation of what is averaged.
    n = 200_000
    uniform = fm.kernels.random_uniform((n,), "float64", seed=1, stream=2)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4 / np.sqrt(12 * n)
    normal = fm.kernels.random_normal((n,), "float64", seed=1, stream=3)
    assert abs(normal.mean()) < 4 / np.sqrt(n)
    assert abs(normal.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((normal**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.corrcoef(normal[1:], normal[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_uniform_float32_never_rounds_up_to_one():
    assert fm.kernels.random_uniform((1_000_000,), "float32", seed=0, stream=0).max() < 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 33, 256, 257, 1000, 10_007])
def test_a_permutation_has_every_row_once(n):
    order = fm.kernels.permutation(n, seed=3, epoch=0)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_permutations_depend_on_seed_and_epoch_and_look_random():
    orders = [fm.kernels.permutation(1000, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    rows = np.arange(1000)
    for i, order in enumerate(orders):
        # The number of fixed points and of adjacent pairs kept is about 1 in a random order, and
        # the correlation with the identity is 0 within 4 / sqrt(n).
        assert (order == rows).sum() < 8
        assert (np.diff(order) == 1).sum() < 8
        assert abs(np.corrcoef(order, rows)[0, 1]) < 4 / np.sqrt(1000)
        for other in orders[:i]:
            assert (order == other).sum() < 8


def test_every_order_of_three_rows_is_about_as_likely():
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(fm.kernels.permutation(3, seed=0, epoch=epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    # Six orders, 1000 each with a deviation of sqrt(6000 * 1/6 * 5/6) = 29.
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * 29 for count in counts.values())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "batch"), [(5, 2), (7, 7), (300, 64), (1025, 1000), (4096, 300)])
def test_fit_takes_the_rows_in_the_order_of_the_permutation(rows, batch, threads):
    # Gather works its order out by vectors, many at a time; `permutation` does it one by one.
    class Sums(fm.callbacks.Callback):
        def on_train_begin(self, logs):
            self.totals = [0.0]

        def on_batch_end(self, batch_number, logs):
            seen = min((batch_number + 1) * batch, rows)
            self.totals.append(logs["loss"] * seen)

    model = fm.Sequential([fm.Input(1), fm.Dense(1, use_bias=False)], seed=3, dtype="float64")
    model.set_weights([np.zeros((1, 1))])
    model.compile(fm.SGD(1e-300), loss="mae")
    sums = Sums()
    before = fm.get_num_threads()
    fm.set_num_threads(threads)
    try:
        x, y = np.ones((rows, 1)), np.arange(rows, dtype=float)[:, None]
        model.fit(x, y, batch_size=batch, epochs=1, verbose=0, callbacks=[sums])
    finally:
        fm.set_num_threads(before)
    order = fm.kernels.permutation(rows, seed=3, epoch=0)
    expected = [order[start : start + batch].sum() for start in range(0, rows, batch)]
    np.testing.assert_allclose(np.diff(sums.totals), expected, rtol=1e-12)
