"""The benchmark's own logic: it times only what agrees, counts work rightly, quotes its results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import __main__ as bench
from bench import (
    ablation,
    compare,
    floor,
    gpu,
    gpu_sides,
    kernels,
    landscape,
    measure,
    precisions,
    profile,
    readme,
    report,
    suite,
    untuned,
)
from bench.__main__ import parse
from bench.floor import Floor, GpuFloor
from bench.sides import GPU_PEERS, OURS, PEERS, SIDES, Entry, missing, side_class
from bench.worker import ONE_THREAD_OF_XLA, Session, Task, Worker, WorkerError, environment
from bench.workloads import ACTIVATIONS, LOSSES, STANDARD, Array, Workload
from support import gpu_stand_in

import fastmlp as fm
from fastmlp import _core, training
from fastmlp import device as devices

TRAIN, ONE = Task("train", 4), Task("infer", 1)


class Scripted:
    """A worker that answers as it is told; a step of it takes `step` seconds."""

    def __init__(
        self,
        side: str,
        *,
        losses: list[float],
        step: float = 1.0,
        tasks: tuple[str, ...] = ("train", "infer"),
    ) -> None:
        self.side, self.threads, self.tasks = side, 1, tasks
        self.losses, self.step = losses, step
        self.timed: list[int] = []

    def can(self, task: Task) -> bool:
        return task.kind in self.tasks

    def call(self, method: str, *args: Any) -> Any:
        return {"reset": None, "outputs": np.ones((1, 2)), "losses": self.losses}[method]

    def elapsed(self, task: Task, repeats: int) -> float:
        self.timed.append(repeats)
        return self.step * repeats * 10  # ten steps an epoch


def scripted(**steps: float) -> list[Scripted]:
    return [Scripted(side, losses=[1.0], step=step) for side, step in steps.items()]


# ---- correctness before timing


def test_equal_losses_pass() -> None:
    workers = [Scripted("a", losses=[2.0, 1.0]), Scripted("b", losses=[2.0, 1.00001])]
    found = measure.check(workers, [TRAIN, ONE])
    assert found["losses"] == pytest.approx(1e-5)
    assert found[ONE.text] == 0


@pytest.mark.parametrize("wrong", [1.001, float("nan"), float("inf")])
def test_a_side_that_computes_something_else_is_refused(wrong: float) -> None:
    workers = [Scripted("a", losses=[2.0, 1.0]), Scripted("b", losses=[2.0, wrong])]
    with pytest.raises(measure.DisagreementError, match="a .* and b .* not timed"):
        measure.check(workers, [TRAIN])
    assert workers[0].timed == []


def test_a_side_is_asked_only_for_what_it_can() -> None:
    workers = [Scripted("a", losses=[1.0]), Scripted("b", losses=[2.0], tasks=("infer",))]
    found = measure.check(workers, [TRAIN, ONE])
    assert found == {ONE.text: 0, "losses": 0}
    timings = measure.interleave(workers, TRAIN, steps=10, rounds=1, budget=0.5)
    assert [timing.side for timing in timings] == ["a"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.usefixtures("threads")
def test_numpy_computes_what_fastmlp_does(activation: str, loss: str) -> None:
    workload = Workload("own", (5, 8, 7, 3), 4, activation, loss)
    data = workload.data(4 * measure.STEPS_CHECKED)
    sides = [side_class(name) for name in (OURS, "NumPy")]
    made = [side(workload, data, workload.weights, threads=1) for side in sides]
    outputs = {side.describe(): side.infer(data[0]) for side in made}
    assert measure.agree("outputs", outputs, relative_to_all=True) < measure.TOLERANCE
    first = {side.describe(): np.array(side.losses(measure.STEPS_CHECKED)) for side in made}
    assert measure.agree("losses", first) < measure.TOLERANCE
    for side in made:
        side.train(1)
        side.reset()
    again = {side.describe(): np.array(side.losses(measure.STEPS_CHECKED)) for side in made}
    for name, losses in first.items():
        np.testing.assert_allclose(losses, again[name], rtol=measure.TOLERANCE)


# In workers, since a library may start threads, or change how the process treats denormals.
# torch.compile takes too long.
@pytest.mark.parametrize("name", [name for name in PEERS if not SIDES[name].compiles])
def test_peers_compute_what_fastmlp_does(name: str) -> None:
    if package := missing(name):
        pytest.skip(f"{package} is not installed")
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker.of(side, 1))) for side in (OURS, name)]
        few = LOSSES if name == "JAX" else ACTIVATIONS  # it compiles for seconds each time
        for i, (activation, _) in enumerate(zip(ACTIVATIONS, few)):
            workload = Workload("own", (5, 8, 7, 3), 4, activation, LOSSES[i % len(LOSSES)])
            tasks = [task for task in (TRAIN, ONE) if SIDES[name].can(workload, *task)]
            for worker in workers if tasks else []:
                worker.load(workload, 4 * measure.STEPS_CHECKED)
            assert not tasks or measure.check(workers, tasks)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIDES, "other", Entry("", ("numpy", "no_such_package")))
    assert missing("other") == "no_such_package"
    assert missing("NumPy") is None


def test_a_compiling_side_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIDES, "other", Entry("", ("numpy",), compiles=True))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert missing("other") == "a C++ compiler"


def test_what_a_side_can_do() -> None:
    relu, tanh = (Workload("own", (2, 3, 1), 4, name, "mae") for name in ("relu", "tanh"))
    assert SIDES["mlpfile"].can(relu, "infer", 1)
    assert not SIDES["mlpfile"].can(relu, "infer", 2)
    assert not SIDES["mlpfile"].can(tanh, "infer", 1)
    assert not SIDES["scikit-learn"].can(relu, "train", 4)
    assert all(SIDES[OURS].can(tanh, kind, 4) for kind in ("train", "epoch", "infer"))


# ---- timing


def test_sides_take_turns_and_the_figures_are_times_of_a_step() -> None:
    workers = scripted(fastmlp=0.01, other=0.02)
    timings = measure.interleave(workers, TRAIN, steps=10, rounds=3, budget=0.5)
    assert [t.median for t in timings] == pytest.approx([0.01, 0.02])
    assert [worker.timed[-3:] for worker in workers] == [[5] * 3, [2] * 3]


def test_spread_is_half_the_quartiles_distance() -> None:
    timing = measure.Timing("a", 1, (1.0, 2.0, 3.0, 4.0, 5.0))
    assert timing.median == 3
    assert timing.spread == pytest.approx(1 / 3)


def test_each_side_counts_at_its_best_number_of_threads() -> None:
    timings = [measure.Timing("fastmlp", 2, (2.0,))]
    timings += [measure.Timing("other", n, (seconds,)) for n, seconds in ((1, 5.0), (2, 6.0))]
    record = report.record(STANDARD["A"], TRAIN, timings, None)
    assert record["sides"]["other"]["threads"] == 1
    assert record["ratios"] == {"other": 2.5}
    assert record["best_peer"] == 2.5


def test_a_child_inherits_its_threads_and_no_slower_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    before = dict(os.environ)
    with environment(3, {"FASTMLP_ISA": "avx2"}):
        assert "OPENBLAS_CORETYPE" not in os.environ
        assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
        assert os.environ["FASTMLP_ISA"] == "avx2"
    with environment(1, {}):
        assert os.environ["XLA_FLAGS"] == ONE_THREAD_OF_XLA
    assert dict(os.environ) == before


# ---- work and floor


def test_work_of_a_step() -> None:
    """2-3-1 at batch 4: products of 6 and 3, three each but for the first's input gradient."""
    workload = Workload("own", (2, 3, 1), 4, loss="mse")
    assert workload.parameters == (2 * 3 + 3) + (3 * 1 + 1)
    assert workload.flops == 2 * 4 * (2 * 6 + 3 * 3)
    assert workload.adam_bytes == 28 * 13


def test_the_simple_floor_adds_arithmetic_and_memory() -> None:
    """Of A: 104.7 MFLOP at 2 x 256 GFLOP/s, 5.7 MB at 390 GB/s."""
    floor = Floor(peak=256e9, bandwidth=390e9, threads=2)
    assert floor.simple(STANDARD["A"]) == pytest.approx(204.5e-6 + 14.6e-6, rel=1e-2)


def test_the_floor_counts_whole_vectors_activations_and_elementwise_work() -> None:
    """2-3-1 at batch 4 in vectors of 8: two products of 2x8, then 3x8 twice and 1x8 once."""
    workload = Workload("own", (2, 3, 1), 4, loss="mse")
    assert workload.padded_flops(1) == workload.flops
    assert workload.padded_flops(8) == 2 * 4 * (2 * 2 * 8 + 2 * 3 * 8 + 1 * 8)
    assert workload.activation_bytes == 4 * (4 * 2 + 4 * 4 * 3)
    floor = Floor(peak=1e3, bandwidth=1e3, threads=2, lanes=8, elementwise=10.0)
    moved = workload.adam_bytes + workload.activation_bytes
    assert floor.seconds(workload) == pytest.approx(
        (workload.padded_flops(8) / 1e3 + 10) / 2 + moved / 1e3
    )


def test_rates_are_measured() -> None:
    before = fm.get_num_threads()
    assert floor.activation_seconds("relu") == 0
    # Not negative, where a busy machine makes it nothing.
    assert 0 <= floor.activation_seconds("tanh") < 1e-6
    assert 0 <= floor.loss_seconds("cross_entropy") < 1e-6
    assert fm.get_num_threads() == before
    least = floor.measure(STANDARD["D"], threads=1, samples=1)
    assert least.seconds(STANDARD["D"]) > least.simple(STANDARD["D"]) > 0


def test_an_epoch_has_whole_batches_within_bounds() -> None:
    for workload in STANDARD.values():
        assert workload.rows() % workload.batch == 0
        assert workload.rows(least=4096) >= 4096
        assert workload.epoch_rows() % workload.batch == 0
    assert STANDARD["B"].epoch_rows() == 60_000
    assert all(STANDARD[name].rows() // STANDARD[name].batch == 10_000 for name in "CDE")


def test_data_and_weights_are_the_same_everywhere() -> None:
    one, other = (Workload("own", (3, 4, 2), 4) for _ in range(2))
    for a, b in zip([*one.data(8), *one.weights], [*other.data(8), *other.weights]):
        np.testing.assert_array_equal(a, b)


# ---- the command line


def test_letters_and_a_network_by_name() -> None:
    options = parse(["ac", "--dims", "123-77-33-5", "--batch", "50", "--activation", "tanh"])
    assert [w.text for w in options.workloads][1:] == [
        STANDARD["C"].text,
        "123-77-33-5, batch 50, tanh, cross_entropy",
    ]
    assert len(parse([]).workloads) == 8
    assert parse(["--quick"]).effort == suite.QUICK


def test_tasks_of_a_workload() -> None:
    texts = [task.text for task in suite.tasks(STANDARD["B"], STANDARD["B"].tasks, suite.FULL)]
    inferences = ["inference, 1", "inference, 64", "inference, 4096"]
    assert texts == ["training step", *inferences, "epoch, 60,000 rows"]
    assert [task.rows for task in suite.tasks(STANDARD["H"], ["infer"], suite.SHORT)] == [1]


@pytest.mark.parametrize("arguments", ["AZ", "--dims 5", "--dims 5-x", "--dims 5-0"])
def test_bad_arguments_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(arguments.split())
    assert "error" in capsys.readouterr().err


# ---- figures for people


@pytest.fixture
def record() -> report.Record:
    timings = [measure.Timing("fastmlp", 2, (232e-6,)), measure.Timing("NumPy", 1, (572e-6,))]
    return report.record(STANDARD["A"], TRAIN, timings, Floor(256e9, 390e9, 2))


def test_a_line_of_the_table(record: report.Record) -> None:
    sides = ["fastmlp", "NumPy"]
    line = report.line(record, sides)
    text = "training step 219 222 232 ±0% (2) 95% 572 (1) 2.47x 2.47x"
    assert " ".join(line.split()) == text
    assert len(line) == len(report.header(sides))


def test_a_plot_is_written(record: report.Record, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    report.plot([record], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_figures_are_quoted_from_results(record: report.Record, tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(json.dumps({"records": [record]}))
    text = "before\n<!-- bench: speed.json training -->\nold\n<!-- /bench -->\nafter\n"
    filled = readme.filled(text, "en", tmp_path)
    assert "| A | 784-256-10 | 128 | 222 | **232** | 572 | 2.5 |" in filled
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- /bench -->\nafter\n")
    assert "old" not in filled
    assert readme.filled(filled, "en", tmp_path) == filled


def test_other_figures_are_sentences_and_a_table(tmp_path: Path) -> None:
    epoch = report.record(
        STANDARD["B"],
        Task("epoch", 60_000),
        [measure.Timing("fastmlp", 2, (0.25,)), measure.Timing("NumPy", 1, (1.0,))],
        None,
    )
    cells = [{"width": 8, "batch": 1, "fraction": 0.5}, {"width": 8, "batch": 2, "fraction": 0.7}]
    networks = [
        {"best_peer": 0.9, "missed": ["slower than the best peer"]},
        {"best_peer": 1.2, "missed": []},
    ]
    steps = {label: 2.0 for label, _, _ in ablation.VARIANTS} | {"one thread": 4.0}
    results = {
        "epoch": {"records": [epoch]},
        "landscape": {"records": cells, "steepest": 1.4},
        "untuned": {"records": networks},
        "ablation": {"records": [{"workload": "A", "microseconds": steps}]},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    views = "".join(f"<!-- bench: {name}.json {name} -->\n<!-- /bench -->\n" for name in results)
    filled = readme.filled(views, "en", tmp_path)
    assert "784-128-10, batch 32, 60,000 rows: fastmlp 0.25 s, NumPy 1.00 s." in filled
    assert "50% to 70% of the floor over 2 sizes; at most 1.4 times between neighbours." in filled
    assert (
        "1 of 2 random networks reach the goals; the least ratio to the best peer is 0.9." in filled
    )
    assert "| everything on, µs | 2.00 |\n| one thread | 2.00× |" in filled
    assert readme.filled(views, "ko", tmp_path).count("fastmlp 0.25") == 1


def test_the_readmes_quote_the_committed_results() -> None:
    assert readme.stale() == []


# ---- the programs, from end to end: what they print and write, not how fast anything is


def written(path: Path) -> list[dict[str, Any]]:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["machine"]["processor"]
    records: list[dict[str, Any]] = result["records"]
    return records


def test_the_benchmark_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "E --dims 3-5-2 --activation silu --short --peers NumPy --threads 1 --rounds 1"
    path = tmp_path / "speed.json"
    assert bench.main([*arguments.split(), "--json", str(path)]) == 0
    assert [(r["workload"], r["task"]) for r in written(path)] == [
        ("E", "training step"),
        ("E", "inference, 1"),
        ("own", "training step"),
        ("own", "inference, 1"),
    ]
    assert "losses agree to" in capsys.readouterr().out


def test_a_failing_side_tells_why() -> None:
    worker = Worker.of("NumPy", 1)
    try:
        with pytest.raises(WorkerError, match="(?s)NumPy, 1 threads: .*no workload"):
            worker.call("reset")
        worker.load(Workload("own", (2, 3, 1), 4, loss="mse"), 8)  # it goes on
        assert len(worker.call("losses", 2)) == 2
    finally:
        worker.close()


def test_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kernels.json"
    arguments = "--match D3 --quick --threads 1 --peers NumPy --dtypes float64 --json"
    assert kernels.main([*arguments.split(), str(path)]) == 0
    names = ["D3 forward", "D3 kernel gradient", "D3 input gradient"]
    assert [record["name"] for record in written(path)] == names
    assert all("GFLOP/s" in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("library", ["NumPy", "PyTorch"])
def test_libraries_have_the_same_kernels(library: str) -> None:
    if package := missing(library):
        pytest.skip(f"{package} is not installed")
    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(closing(Worker(name, 1, partial(kernels.KERNELS[name], 1))))
            for name in (OURS, library)
        )
        for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
            cases = [case._replace(shape=(5, 7)) for case in kernels.elementwise(dtype)]
            cases += [case._replace(shape=(3, 4, 5)) for case in kernels.products(dtype)]
            for case in set(cases):
                outputs = []
                for worker in (ours, theirs):
                    worker.call("load", case)
                    outputs.append(worker.call("output"))
                np.testing.assert_allclose(*outputs, tolerance, tolerance, err_msg=case.name)


def test_landscape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "landscape.json"
    arguments = "--widths 8 17 --batches 1 4 --rounds 1 --threads 1 --json"
    landscape.main([*arguments.split(), str(path)])
    cells = [(record["width"], record["batch"]) for record in written(path)]
    assert cells == [(8, 1), (8, 4), (17, 1), (17, 4)]
    assert "steepest step" in capsys.readouterr().out


def test_the_steepest_step_is_between_neighbours() -> None:
    fractions = {(8, 1): 0.1, (8, 2): 0.2, (8, 4): 0.8, (16, 1): 0.5, (16, 2): 0.5}
    assert landscape.steepest(fractions) == (pytest.approx(5), (16, 1), (8, 1))
    assert landscape.table(fractions).splitlines()[1:] == [
        "    8   10%   20%   80%",
        "   16   50%   50%     -",
    ]


def test_a_heat_map_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "map.png"
    landscape.plot({(8, 1): 0.1, (8, 2): 0.2, (16, 1): 0.9}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_untuned_networks_are_drawn_from_everything() -> None:
    networks = untuned.networks(40, seed=0)
    assert networks == untuned.networks(40, seed=0)
    assert {w.activation for w in networks} == set(ACTIVATIONS)
    assert {w.loss for w in networks} == set(LOSSES)
    assert all(1 <= n <= 3000 for w in networks for n in w.dims)
    assert {1, 12} <= {len(w.layers) for w in untuned.networks(200, seed=0)} <= set(range(1, 13))
    assert all(1 <= w.batch <= 4096 for w in networks)


@pytest.mark.parametrize(
    ("microseconds", "fraction", "peer", "missed"),
    [
        (10, 0.1, 1.1, []),
        (10, 0.1, 0.9, ["slower than the best peer"]),
        (100, 0.5, None, ["below 60% of the floor"]),
        (100, 0.7, None, []),
        (2000, 0.7, 1.5, ["below 75% of the floor"]),
    ],
)
def test_goals_of_untuned_networks(
    microseconds: float, fraction: float, peer: float | None, missed: list[str]
) -> None:
    floor = {"microseconds": microseconds, "fraction": fraction}
    assert untuned.shortfalls({"best_peer": peer, "floor": floor}) == missed


def test_untuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untuned, "_WIDEST", 20)
    monkeypatch.setattr(untuned, "_LARGEST_BATCH", 20)
    path = tmp_path / "untuned.json"
    untuned.main(
        ["--count", "2", "--quick", "--peers", "NumPy", "--threads", "1", "--json", str(path)]
    )
    assert [record["workload"] for record in written(path)] == ["0", "1"]


def test_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ablation.json"
    assert ablation.main(["E", "--quick", "--threads", "1", "--json", str(path)]) == 0
    labels = [label for label, _, _ in ablation.VARIANTS]
    assert list(written(path)[0]["microseconds"]) == labels
    assert len(capsys.readouterr().out.splitlines()) == len(labels) + 2


@pytest.mark.skipif(fm.show_config()["bfloat16"] == "none", reason="needs AVX512_BF16")
def test_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "precisions.json"
    assert precisions.main(["E", "--quick", "--threads", "1", "--json", str(path)]) == 0
    labels = [v.label for v in precisions.VARIANTS if v.side == OURS or not missing(v.side)]
    assert list(written(path)[0]["microseconds"]) == labels
    assert len(capsys.readouterr().out.splitlines()) == len(labels) + 5


@pytest.mark.parametrize("threads", [1, 2])
def test_profile(threads: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["--dims", "5-40-3", "--batch", "7", "--threads", str(threads)]) == 0
    lines = capsys.readouterr().out.splitlines()
    forward, gradient = (
        next(line for line in lines if line.startswith(f"MatMul              {shape} "))
        for shape in ("7 x 40 x 5", "40 x 3 x 7, a transposed")
    )
    assert forward.endswith("%")  # of the peak
    assert gradient.endswith("%")
    assert sum(line.startswith("Gather") for line in lines) == 1
    together, unwatched = (float(line.split()[-1]) for line in lines[-2:])
    assert together > 0
    assert unwatched > 0


def test_profile_takes_the_steps_of_fit() -> None:
    x, y = np.ones((20, 3), np.float32), np.zeros(20, np.int32)

    def trained(train: Callable[[fm.Sequential], object]) -> list[Array]:
        model = fm.Sequential([fm.Input(3), fm.Dense(4, "tanh"), fm.Dense(2)], seed=0)
        model.compile(loss="cross_entropy")
        train(model)
        return model.get_weights()

    records: list[tuple[str, str, int]] = []
    profiled = trained(lambda model: records.extend(training.profile(model, x, y, 5, 4)[0]))
    fitted = trained(lambda model: model.fit(x, y, batch_size=5, verbose=0))
    assert all(np.array_equal(a, b) for a, b in zip(profiled, fitted))
    assert ("MatMul", "5 x 4 x 3", 2 * 5 * 4 * 3) in records
    with pytest.raises(ValueError, match="1 to 4 steps"):
        trained(lambda model: training.profile(model, x, y, 5, 5))


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "fastmlp"
    shutil.copytree(Path(fm.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(_core.__file__, package)  # an editable installation keeps it elsewhere
    assert compare.main([str(tmp_path)] * 2 + ["E", "--seconds", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("MatMul 4 x 10 x 2" in line for line in lines)
    assert lines[-1].startswith("a step ")
    assert all(0.1 < float(line.split()[-1]) < 10 for line in lines[3:])


def test_compare_takes_what_only_one_build_has() -> None:
    text = compare.table({"a": [2e-6], "b": [1e-6]}, {"a": [1e-6], "c": [1e-6]})
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["a", "c", "b"]
    assert text.splitlines()[1].split() == ["a", "2.00", "1.00", "2.00"]


# ---- on a GPU: what needs none

ON_GPU = Workload("own", (5, 8, 3), 4, device="cuda")


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> devices.Device:
        raise RuntimeError("device 'cuda': there is none")

    monkeypatch.setattr(devices, "_cuda", none)
    assert gpu.main(["--quick"]) == 1
    assert capsys.readouterr().err == "bench.gpu: device 'cuda': there is none\n"


def test_the_gpu_s_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    parts = ["tests", "sanitizer", "speed", "latency", "modes", "products", "profiles"]
    assert gpu.parse([]).only == parts
    options = gpu.parse(["--quick", "--only", "speed,modes", "--json", "x.json"])
    assert (options.only, options.effort) == (["speed", "modes"], suite.QUICK)
    with pytest.raises(SystemExit, match="2"):
        gpu.parse(["--only", "speed,magic"])
    assert "no part 'magic'" in capsys.readouterr().err


def test_a_part_that_fails_does_not_lose_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(effort: suite.Effort) -> Iterator[report.Record]:
        yield {"records": [1]}
        assert json.loads(path.read_text())["results"]["speed"] == {"records": [1]}  # by now
        raise ZeroDivisionError("by zero")

    parts: dict[str, gpu.Part] = {
        "tests": lambda _: iter([{"passed": 3, "failures": ["one"]}]),
        "speed": broken,
        "modes": lambda effort: iter([{"rounds": effort.rounds}]),
    }
    monkeypatch.setattr(devices, "_cuda", gpu_stand_in)
    monkeypatch.setattr(gpu, "PARTS", parts)
    path = tmp_path / "gpu.json"
    assert gpu.main(["--quick", "--only", "tests,speed,modes", "--json", str(path)]) == 1
    found = json.loads(path.read_text())
    assert found["results"] == {
        "tests": {"passed": 3},
        "speed": {"records": [1]},
        "modes": {"rounds": suite.QUICK.rounds},
    }
    assert [failure["part"] for failure in found["failures"]] == ["tests", "speed"]
    assert "ZeroDivisionError: by zero" in found["failures"][1]["error"]
    assert found["quick"]
    assert {"commit", "card", "driver", "versions", "date"} <= found["machine"].keys()
    assert "2 failures" in capsys.readouterr().out
    assert gpu.main(["--only", "modes", "--json", str(path)]) == 0


def test_where_a_gpu_s_results_go() -> None:
    path = gpu.default_path({"card": "NVIDIA H100 80GB HBM3", "date": "2026-01-02"})
    assert path.name == "gpu-h100-80gb-hbm3-2026-01-02.json"
    assert path.parent.name == "results"


def test_the_floor_of_a_gpu_is_the_longer_of_arithmetic_and_memory() -> None:
    busy, idle = GpuFloor(peak=1e3, bandwidth=1e9), GpuFloor(peak=1e12, bandwidth=1e3)
    moved = ON_GPU.adam_bytes + ON_GPU.activation_bytes
    assert busy.seconds(ON_GPU) == busy.simple(ON_GPU) == pytest.approx(ON_GPU.flops / 1e3)
    assert idle.seconds(ON_GPU) == pytest.approx(moved / 1e3)
    assert idle.simple(ON_GPU) == pytest.approx(ON_GPU.adam_bytes / 1e3)
    timings = [measure.Timing(OURS, 1, (10 * idle.seconds(ON_GPU),))]
    found = report.record(ON_GPU, TRAIN, timings, idle)["floor"]
    assert found["fraction"] == pytest.approx(0.1)
    assert found["teraflops"] == 1


def test_an_epoch_on_a_gpu_is_whole_graphs() -> None:
    for workload in [*gpu.WORKLOADS, *gpu.STEPS]:
        steps, rest = divmod(gpu.epoch(workload), workload.batch)
        assert rest == 0
        assert steps % gpu_sides.CAPTURED == 0 or steps == 4
    assert len({workload.text for workload in gpu.WORKLOADS}) == len(gpu.WORKLOADS)
    assert gpu.WORKLOADS[2].text.startswith("132 of 17-64-64-6, batch 64, tanh, mse, float32 on")


def last(part: gpu.Part) -> report.Record:
    """Return all that a part has found."""
    return list(part(suite.QUICK))[-1]


def answers(monkeypatch: pytest.MonkeyPatch, status: int, printed: str) -> list[list[str]]:
    """Have programs answer so; return the list of those that are asked to run."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, status, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_tests_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 0, "...\n7 passed, 2 skipped in 1.2s\n")
    assert last(gpu.tests) == {"passed": 7, "failed": 0, "skipped": 2}
    answers(monkeypatch, 1, "F.\nE  oh no\n1 failed, 6 passed in 1.2s\n")
    found = last(gpu.tests)
    assert (found["passed"], found["failed"]) == (6, 1)
    assert "oh no" in found["failures"][0]
    answers(monkeypatch, 0, "2 skipped in 1.2s\n")
    assert last(gpu.tests)["failures"]


def test_a_program_that_takes_too_long_is_ended() -> None:
    done = gpu._run([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(9)"], 2)
    assert done.returncode == 124
    assert done.stdout.splitlines() == ["1", "", "not done after 2 s"]


def test_the_sanitizer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert last(gpu.sanitizer) == {"found": False}
    assert "compute-sanitizer is not installed" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "which", lambda name: f"/{name}")
    asked = answers(monkeypatch, 0, "========= ERROR SUMMARY: 0 errors\n")
    found = last(gpu.sanitizer)
    assert found["memcheck"] == found["racecheck"] == "ERROR SUMMARY: 0 errors"
    assert [command[:3] for command in asked] == [
        ["/compute-sanitizer", "--tool", tool] for tool in ("memcheck", "racecheck")
    ]
    assert found["failures"] == []
    answers(monkeypatch, 1, "========= ERROR SUMMARY: 2 errors\n")
    assert len(last(gpu.sanitizer)["failures"]) == 2


def test_what_the_sanitizer_watches_runs(
    emulated_cuda: devices.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cuda", lambda: emulated_cuda)
    monkeypatch.setattr(devices, "_CPU", emulated_cuda)  # as it is called, which ensembles go by
    monkeypatch.setenv(gpu_sides.STEP, "")  # put back behind it
    exec(gpu_sides.SANITIZED, {})


class ScriptedWorker(Scripted):
    """One that can be loaded, closed, and asked for more."""

    def load(self, workload: Workload, rows: int) -> None:
        if np.isinf(self.losses[0]):
            raise WorkerError(f"{self.side}: Traceback\nno such device")

    def call(self, method: str, *args: Any) -> Any:
        return self.side if method == "describe" else super().call(method, *args)

    def close(self) -> None: ...


def scripted_sides(monkeypatch: pytest.MonkeyPatch, **losses: float) -> gpu.Sides:
    names = {"ours": OURS, "torch": "PyTorch", "graphs": "CUDA graphs", "jax": "JAX"}
    workers = {
        names[key]: ScriptedWorker(names[key], losses=[loss], step=1e-3 * (i + 1))
        for i, (key, loss) in enumerate(losses.items())
    }
    monkeypatch.setattr(Worker, "of", lambda name, *_: workers[name])
    return gpu.Sides(list(workers))


def test_sides_that_fail_or_disagree_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = scripted_sides(monkeypatch, ours=1.0, torch=1.00001, graphs=1.5, jax=np.inf)
    record = sides.measure(ON_GPU, TRAIN, suite.SHORT, GpuFloor(1e9, 1e9))
    assert record
    assert record["best_peer"] == pytest.approx(2)
    assert list(record["sides"]) == [OURS, "PyTorch"]
    assert record["agreement"] == {"PyTorch": pytest.approx(1e-5, rel=1e-3)}
    disagrees, fails = sides.failures
    assert "CUDA graphs" in disagrees
    assert "differ by" in disagrees
    assert "no such device" in fails
    sides.close()


def test_without_fastmlp_s_own_side_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = scripted_sides(monkeypatch, ours=np.inf, torch=1.0)
    assert sides.measure(ON_GPU, TRAIN, suite.SHORT) is None
    assert len(sides.failures) == 1


def test_parts_gather_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(self: gpu.Sides, workload: Workload, task: Task, *_: Any) -> report.Record | None:
        if workload.name == "A":
            return report.record(workload, task, [measure.Timing(OURS, 1, (1e-5,))], None)
        self.failures.append(f"{workload.name} fails")
        return None

    monkeypatch.setattr(gpu.Sides, "measure", measured)
    monkeypatch.setattr(gpu, "peaks", lambda _: {None: GpuFloor(1e12, 1e12)})
    found = last(gpu.speed)
    assert [record["workload"] for record in found["records"]] == ["A"]
    assert len(found["failures"]) == len(gpu.WORKLOADS) - 1
    assert found["peaks"]["float32"] == {"teraflops": 1, "gigabytes_per_second": 1e3}
    assert len(last(gpu.latency)["records"]) == 1
    assert "inference, 1" in capsys.readouterr().out


def test_a_profile_on_a_gpu_is_of_each_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Profiled(ScriptedWorker):
        """Knows one product and an update, and nothing of the second workload."""

        def call(self, method: str, *arguments: Any) -> Any:
            assert method == "profile"
            if self.loaded == gpu.WORKLOADS[1].name:
                raise WorkerError("no such device")
            seconds = np.array([[2e-6, 1e-6], [2e-6, 1e-6]])
            records = [("MatMul", "2 x 3 x 4", 4_000_000), ("ApplyUpdate", "1 x 9", 0)]
            return records, seconds, 0 * seconds, 3e-6

        def load(self, workload: Workload, rows: int) -> None:
            self.loaded = workload.name

    monkeypatch.setattr(Worker, "of", lambda name, *_: Profiled(name, losses=[], step=0))
    found = last(gpu.profiles)
    assert len(found["records"]) == sum(w.replicas == 1 for w in gpu.WORKLOADS) - 1
    assert found["failures"] == [f"{gpu.WORKLOADS[1].text}: no such device"]
    record = found["records"][0]
    assert record["microseconds"] == pytest.approx(3)
    product, update = record["parts"]
    assert product["teraflops"] == pytest.approx(2)
    assert update == {"record": "ApplyUpdate", "shape": "1 x 9", "microseconds": pytest.approx(1)}
    assert "2 x 3 x 4" in capsys.readouterr().out


def test_a_session_on_a_gpu_can_be_profiled(
    emulated_cuda: devices.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cuda", lambda: emulated_cuda)
    session = Session(OURS, 1)
    session.load(Workload("own", (5, 4, 3), 8, device="cuda"), 24)
    records, working, waiting, seconds = session.profile()
    assert working.shape == waiting.shape == (3, len(records))
    assert ("MatMul", "8 x 4 x 5", 2 * 8 * 4 * 5) in records
    assert seconds > 0


def test_peers_that_are_not_installed_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "lacks", lambda name: "jax" if name == "JAX" else None)
    assert gpu.peers(suite.QUICK) == ["PyTorch", "CUDA graphs"]
    assert gpu.peers(suite.FULL) == [name for name in GPU_PEERS if name != "JAX"]
    assert "JAX is left out: jax is not installed" in capsys.readouterr().out
    monkeypatch.setattr(gpu, "lacks", lambda _: "torch")
    assert gpu.peaks([None]) == {}


def test_what_a_peer_lacks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"jax_cuda12_plugin"}
    monkeypatch.setattr(gpu, "missing", lambda name: "torch" if name == "CUDA graphs" else None)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(gpu.importlib.metadata, "version", lambda _: version)
    version = "2.9.0+cpu"
    assert gpu.lacks("CUDA graphs") == "torch"
    assert gpu.lacks("PyTorch") == "a build of PyTorch with CUDA"
    assert gpu.lacks("JAX") is None
    installed.clear()
    version = "2.9.0"
    assert gpu.lacks("PyTorch") is None
    assert gpu.lacks("JAX") == "JAX's plugin for CUDA"


def test_the_line_of_a_traceback_that_counts() -> None:
    assert gpu._essence("Traceback\n  x\njax.errors.OneError: no\n----\nmore") == (
        "jax.errors.OneError: no"
    )
    assert gpu._essence("its process ended with status 1") == "its process ended with status 1"


def test_pytorch_s_graphs_make_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    if package := missing("PyTorch"):
        pytest.skip(f"{package} is not installed")
    import torch

    class Graph:
        """Makes what was captured once more, eagerly."""

        def replay(self) -> None:
            for i in range(len(graphed.rows)):
                graphed._gathered_step(i)

    class Stream:
        def wait_stream(self, other: Stream) -> None: ...

    for name, stand_in in {
        "CUDAGraph": Graph,
        "Stream": Stream,
        "current_stream": Stream,
        "graph": nullcontext,
        "stream": nullcontext,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    workload = Workload("own", (5, 8, 3), 4, "tanh")
    data = workload.data(4 * 12)
    eager = side_class("PyTorch")(workload, data, workload.weights, threads=1)
    graphed = side_class("CUDA graphs")(workload, data, workload.weights, threads=1)
    assert graphed.rows.shape == (12, 4)
    expected = eager.losses(10)
    for _ in range(2):
        assert graphed.losses(10) == pytest.approx(expected, rel=1e-6)
        graphed.train(2)
        graphed.reset()


def test_ways_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cuda", gpu_stand_in)
    monkeypatch.setenv(gpu_sides.STEP, "")
    ways = gpu_sides.Ways()
    assert ways.same_bits(ON_GPU)
    assert 0 < ways.seconds(ON_GPU, gpu_sides.STEP, "launches", steps=3, epochs=2, rounds=2) < 1
    assert os.environ[gpu_sides.STEP] == "launches"


def test_modes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Answers:
        def __init__(self, *_: Any) -> None: ...
        def call(self, method: str, workload: Workload, *_: Any) -> Any:
            return 1e-6 if method == "seconds" else workload.batch != 4

        def close(self) -> None: ...

    monkeypatch.setattr(gpu, "Worker", Answers)
    found = last(gpu.modes)
    assert [record["network"] for record in found["records"]][:2] == ["2-10-10-1", "17-64-64-6"]
    assert set(found["records"][0]["microseconds"].values()) == {1.0}
    assert len(found["failures"]) == 1
    assert "17-64-64-6" in capsys.readouterr().out


def test_products_say_which_way_they_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answers:
        def __init__(self, *_: Any) -> None: ...
        def call(self, method: str, *asked: Any) -> Any:
            if method == "large_products":
                return {"a product": "own kernels"}
            workload, variable, way, *_ = asked
            if workload.precision == "tf32":
                raise WorkerError("no such device")
            assert variable == gpu_sides.BLAS
            return {"never": 3e-3, "always": 1e-3, "": 2e-3}[way]

        def close(self) -> None: ...

    monkeypatch.setattr(gpu, "Worker", Answers)
    found = last(gpu.products)
    assert [record["workload"] for record in found["records"]] == ["W", "Wb"]
    assert found["records"][0]["milliseconds"] == {"own": 3, "library": 1, "measured": 2}
    assert found["large_products"] == {"a product": "own kernels"}
    assert len(found["failures"]) == 1
    assert "milliseconds a step" in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", [OURS, "PyTorch", "JAX"])
@pytest.mark.usefixtures("threads")
def test_several_networks_at_once_are_as_each_alone(name: str, loss: str) -> None:
    if package := missing(name):
        pytest.skip(f"{package} is not installed")
    alone = Workload("own", (5, 8, 7, 3), 4, "tanh", loss)
    losses = {}
    for workload in (alone, replace(alone, replicas=3)):
        data = workload.data(40)
        made = side_class(name)(workload, data, workload.weights, threads=1)
        losses[workload.text] = np.array(made.losses(10))
        made.train(1)
    assert measure.agree("losses", losses) < measure.TOLERANCE


def test_pytorch_in_bfloat16_is_near() -> None:
    if package := missing("PyTorch"):
        pytest.skip(f"{package} is not installed")
    losses = {}
    for precision in (None, "bfloat16"):
        workload = Workload("own", (5, 8, 3), 4, loss="mse", precision=precision)
        side = side_class("PyTorch")(workload, workload.data(40), workload.weights, threads=1)
        losses[str(precision)] = np.array(side.losses(10))
    error = measure.agree("losses", losses, tolerance=gpu.TOLERANCES["bfloat16"])
    assert error > 1e-5
