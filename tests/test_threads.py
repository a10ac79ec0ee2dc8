"""The team of threads: how many it has, who may use it, and that it rests when nobody does."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import assert_same_bits, printed_by

import fastmlp as fm
from fastmlp import _core

rng = np.random.RandomState(0)
X, Y = rng.standard_normal((2048, 128)).astype("float32"), rng.randint(10, size=2048)


def trained(epochs: int = 1) -> fm.Sequential:
    model = fm.Sequential([fm.Dense(128, "relu"), fm.Dense(64, "tanh"), fm.Dense(10)], seed=0)
    model.compile("adam", "cross_entropy")
    model.fit(X, Y, batch_size=64, epochs=epochs, verbose=0)
    return model


# How many.

V2 = "/sys/fs/cgroup"
V1 = "/sys/fs/cgroup/cpu,cpuacct"


def v1(path: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {
        f"{V1}{path}/cpu.cfs_quota_us": f"{quota}\n",
        f"{V1}{path}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("0::/", {f"{V2}/cpu.max": "max 100000\n"}, 0),
        ("0::/", {}, 0),
        ("0::/", {f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ("0::/", {f"{V2}/cpu.max": "150000 100000\n"}, 1),
        ("0::/", {f"{V2}/cpu.max": "20000 100000\n"}, 1),
        ("0::/a/b", {f"{V2}/a/b/cpu.max": "max 100000", f"{V2}/a/cpu.max": "30000 10000"}, 3),
        ("0::/a/b", {f"{V2}/a/b/cpu.max": "20000 10000", f"{V2}/a/cpu.max": "50000 10000"}, 2),
        # A container that sees the host's path, but only its own files.
        ("0::/docker/5f3e", {f"{V2}/cpu.max": "250000 100000\n"}, 2),
        ("4:memory:/x\n3:cpu,cpuacct:/", v1("", -1), 0),
        ("4:memory:/x\n3:cpu,cpuacct:/", v1("", 300_000), 3),
        ("3:cpu,cpuacct:/docker/5f3e\n0::/", v1("", 50_000, 20_000), 2),
        ("3:cpu,cpuacct:/a/b\n0::/a", v1("/a/b", 900_000) | v1("/a", 500_000), 5),
        ("3:cpuset:/a", {f"{V2}/cpuset/a/cpu.cfs_quota_us": "100000"}, 0),
        ("nonsense\n0:\n\n0::/", {f"{V2}/cpu.max": "nonsense"}, 0),
        ("0::/", {f"{V2}/cpu.max": "99999999999999 1"}, 1024),
    ],
)  # fmt: skip
def test_the_cpu_quota_of_control_groups(tmp_path: Path, groups, files, expected):
    for name, text in {"/proc/self/cgroup": groups, **files}.items():
        path = Path(f"{tmp_path}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _core.quota_cpus(str(tmp_path)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path):
    assert _core.quota_cpus(str(tmp_path)) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_held_to_one_cpu_uses_one_thread():
    program = (
        "import os; cpu = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, {cpu});"
        "import fastmlp as fm; print(fm.get_num_threads())"
    )
    assert printed_by(program).strip() == "1"


def test_more_threads_than_cpus_only_cost_a_little(threads):
    fm.set_num_threads(1)
    start = time.perf_counter()
    expected = trained(epochs=5).get_weights()
    alone = time.perf_counter() - start
    fm.set_num_threads(8)
    start = time.perf_counter()
    assert_same_bits(trained(epochs=5).get_weights(), expected)
    # Its trials of 8 threads may be slow, but they are few. A spin to the end of each time slice
    # would take a hundred times as long.
    assert time.perf_counter() - start < 10 * alone + 1


# Who.


def test_a_second_caller_does_not_wait_and_both_are_right(threads):
    fm.set_num_threads(2)
    model = trained()
    expected = model.get_weights(), model.predict(X)

    def work(task: int) -> None:
        if task % 2:
            assert_same_bits(trained().get_weights(), expected[0])
        else:
            assert_same_bits([model.predict(X)], [expected[1]])

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work, task) for task in range(12)]:
            future.result(timeout=60)


def test_the_number_of_threads_may_change_at_any_time(threads):
    fm.set_num_threads(1)
    expected = trained(epochs=4).get_weights()

    def change(epoch, logs):
        fm.set_num_threads(1 + epoch % 3)

    model = fm.Sequential([fm.Dense(128, "relu"), fm.Dense(64, "tanh"), fm.Dense(10)], seed=0)
    model.compile("adam", "cross_entropy")
    model.fit(X, Y, batch_size=64, epochs=4, verbose=0, callbacks=[change])
    assert_same_bits(model.get_weights(), expected)


# Rest.


def test_nothing_spins_while_python_runs(threads):
    fm.set_num_threads(2)
    trained(epochs=3)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1
