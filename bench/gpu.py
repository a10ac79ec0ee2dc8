"""The command ``python -m bench.gpu``: all that only a GPU can show, in one run and one file.

Its parts stand alone: where one fails, the file has its error and the others' figures. It is
written anew with each figure, so one that is cut off has all until then.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import fastmlp as fm
from fastmlp import device

from . import profile, report, suite
from .floor import GpuFloor
from .gpu_sides import BLAS, CAPTURED, SANITIZED, STEP, Peaks, Ways
from .measure import DisagreementError, check, interleave
from .report import Record
from .sides import GPU_PEERS, OURS, SIDES, missing
from .worker import Task, Worker, WorkerError
from .workloads import STANDARD, Workload

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")

_A, _D = (replace(STANDARD[name], device="cuda") for name in "AD")
# At 1e-3, ten steps of networks this wide make much of the last bit of a float.
_WIDE = Workload("W", (4096,) * 4, 8192, learning_rate=1e-4, device="cuda")
_NARROW = Workload("N", (64,) * 6, 1 << 17, loss="mse", device="cuda", precision="bfloat16")
WIDE = [
    _WIDE,
    replace(_WIDE, name="Wt", precision="tf32"),
    replace(_WIDE, name="Wb", precision="bfloat16"),
]
WORKLOADS = [_A, _D, replace(_D, name="D132", replicas=132), *WIDE, _NARROW]
# What the limits of `fits_one_block` in csrc/cuda/backend.cu have to decide about.
STEPS = [
    Workload("own", dims, batch, loss="mse", device="cuda", replicas=replicas)
    for dims, batch, replicas in (
        ((2, 10, 10, 1), 4, 1),
        ((17, 64, 64, 6), 64, 1),
        ((17, 64, 64, 6), 64, 132),
        ((17, 64, 64, 6), 64, 133),
        ((32, 128, 10), 32, 1),
        ((64, 64, 64, 64, 10), 64, 1),
        ((64, 256, 10), 64, 1),
        ((256, 256, 10), 32, 1),
        ((784, 256, 10), 128, 1),
        ((784, 256, 10), 128, 10),
        ((256, 256, 256, 10), 256, 1),
    )
]

# Relative, of the losses: what the precision of the products leaves after some steps.
TOLERANCES = {None: 1e-4, "tf32": 2e-3, "bfloat16": 2e-2}
_MOST_STEPS = 960  # of an epoch: whole graphs, of ours and of PyTorch
_MOST_BYTES = 64 << 20  # of an epoch's rows
_LEAST_STEPS = 4
_STEPS_CHECKED = 10
_EPOCHS = 5  # of one graph

# JAX would take most of the GPU's memory for itself.
_ENVIRONMENT = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_TESTS_SECONDS, _TOOL_SECONDS = 200, 40  # with --quick; without it ten times as long
_COUNTS = r"(\d+) (passed|failed|skipped|error|xfailed|xpassed)"

# Whose versions go to the file.
_PACKAGES = ("cupy", "fastmlp", "jax", "nvidia-cublas", "torch", "triton")

# What it finds, again each time that there is more; "failures" in it are apart in the file.
Part = Callable[[suite.Effort], Iterator[Record]]


def tests(effort: suite.Effort) -> Iterator[Record]:
    """Run the device tests, for which a missing GPU is a failure; count what came of them."""
    if not (ROOT / "tests").is_dir():
        raise RuntimeError("tests: needs a copy of the repository")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
    limit = _limit(effort, _TESTS_SECONDS)
    done = _run([*command, "tests"], limit, FASTMLP_REQUIRE_CUDA="1")
    last = done.stdout.strip().rpartition("\n")[2]
    counts = {what: int(number) for number, what in re.findall(_COUNTS, last)}
    found: Record = {"passed": 0, "failed": 0, "skipped": 0} | counts
    print(f"    {last}")
    if done.returncode or not found["passed"]:
        found["failures"] = [done.stdout[-4000:] + done.stderr[-1000:]]
    yield found


def sanitizer(effort: suite.Effort) -> Iterator[Record]:
    """Watch a small training by compute-sanitizer, for wild accesses and for races."""
    program = shutil.which("compute-sanitizer")
    if not program:
        print("    compute-sanitizer is not installed")
        yield {"found": False}
        return
    found: Record = {"found": True, "failures": []}
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "1", sys.executable, "-c"]
        done = _run([*command, SANITIZED], _limit(effort, _TOOL_SECONDS))
        last = done.stdout.strip().rpartition("\n")[2]
        found[tool] = last.strip("= ")
        print(f"    {tool}: {found[tool]}")
        if done.returncode:
            found["failures"].append(f"{tool}: {done.stdout[-4000:]}{done.stderr[-1000:]}")
        yield found


def _limit(effort: suite.Effort, seconds: float) -> float:
    return 10 * seconds if effort == suite.FULL else seconds


def _run(
    command: Sequence[str], limit: float, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program from the repository's root; status 124 where it takes longer than the limit."""
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output if isinstance(output, str) else output.decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, f"{text}\nnot done after {limit} s", "")


@contextmanager
def noted(failures: list[str], what: str) -> Iterator[None]:
    """Go on after a worker's failure, or a disagreement, with its text among the failures."""
    try:
        yield
    except (DisagreementError, WorkerError) as error:
        failures.append(f"{what}: {error}")
        print(f"    {what}: {_essence(str(error))}")


def _essence(error: str) -> str:
    """Return the line of a traceback that says what happened; some libraries put more behind it."""
    lines = error.strip().splitlines()
    return next((line for line in reversed(lines) if re.match(r"[\w.]+Error\b", line)), lines[-1])


class Sides:
    """Workers on the GPU, fastmlp's first; one that fails is started anew for the next workload.

    Attributes
    ----------
    failures : list of str
    descriptions : dict of str
        By side, each one's version, once it has loaded a workload.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.failures: list[str] = []
        self.descriptions = dict.fromkeys(names, "")
        self._workers: dict[str, Worker | None] = dict.fromkeys(names)

    def close(self) -> None:
        """End the processes."""
        for name in self._workers:
            self._drop(name)

    def _drop(self, name: str) -> None:
        worker = self._workers[name]
        if worker is not None:
            worker.close()
        self._workers[name] = None

    def _worker(self, name: str) -> Worker:
        worker = self._workers[name]
        if worker is None:
            worker = self._workers[name] = Worker.of(name, 1, _ENVIRONMENT)
        return worker

    def measure(
        self, workload: Workload, task: Task, effort: suite.Effort, floor: GpuFloor | None = None
    ) -> Record | None:
        """Time a task by every side that agrees with fastmlp; None where that one fails.

        Whatever a side fails by is in `failures`.
        """
        rows = epoch(workload)
        able: list[Worker] = []
        agreement: dict[str, float] = {}
        for name in self._workers:
            if not SIDES[name].can(workload, task.kind, task.rows):
                continue
            with self._recorded(workload, name):
                worker = self._worker(name)
                worker.load(workload, rows)
                self.descriptions[name] = worker.call("describe")
                if name == OURS:
                    worker.call("losses", 1)
                else:
                    agreement |= {name: _agreement(able[0], worker, task, workload)}
                able.append(worker)
            if name == OURS and not able:
                return None
        steps = rows // workload.batch if task.kind == "train" else 1
        with self._recorded(workload, "timing"):
            timings = interleave(able, task, steps, effort.rounds, effort.budget)
            return report.record(workload, task, timings, floor) | {"agreement": agreement}
        return None

    @contextmanager
    def _recorded(self, workload: Workload, name: str) -> Iterator[None]:
        with noted(self.failures, f"{workload.name}, {name}"):
            try:
                yield
            except WorkerError:  # whose it is, timing does not say
                for side in [name] if name in self._workers else list(self._workers):
                    self._drop(side)
                raise


def _agreement(ours: Worker, peer: Worker, task: Task, workload: Workload) -> float:
    found = check(
        [ours, peer],
        [task],
        steps=min(_STEPS_CHECKED, epoch(workload) // workload.batch),
        tolerance=TOLERANCES[workload.precision],
    )
    return max(found.values())


def epoch(workload: Workload) -> int:
    """Return the rows of an epoch: whole graphs of steps, or a few of large batches."""
    steps = min(_MOST_STEPS, _MOST_BYTES // (4 * workload.batch * workload.dims[0]))
    return workload.batch * max(_LEAST_STEPS, steps // CAPTURED * CAPTURED)


def peers(effort: suite.Effort) -> list[str]:
    """Return those of the peers that can run here, and print why others cannot."""
    names = [name for name in GPU_PEERS if effort == suite.FULL or not SIDES[name].compiles]
    lacking = {name: package for name in names if (package := lacks(name))}
    for name, package in lacking.items():
        print(f"    {name} is left out: {package} is not installed")
    return [name for name in names if name not in lacking]


def lacks(name: str) -> str | None:
    """Return what a peer lacks for this GPU, if anything; its library is not loaded for that."""
    if package := missing(name):
        return package
    if name == "JAX":
        plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
        return None if any(map(find_spec, plugins)) else "JAX's plugin for CUDA"
    only_cpu = importlib.metadata.version("torch").endswith("+cpu")
    return "a build of PyTorch with CUDA" if only_cpu else None


def peaks(precisions: Sequence[str | None]) -> dict[str | None, GpuFloor]:
    """Measure what the floors rest on, by PyTorch; nothing where it is not installed."""
    if lacks("PyTorch"):
        return {}
    with closing(Worker("peaks", 1, Peaks)) as worker:
        bandwidth = worker.call("bandwidth")
        return {p: GpuFloor(worker.call("product", p), bandwidth) for p in precisions}


def speed(effort: suite.Effort) -> Iterator[Record]:
    """Time a training step beside the peers, and hold it against the floor."""
    names = [OURS, *peers(effort)]
    records: list[Record] = []
    floors: dict[str | None, GpuFloor] = {}
    with closing(Sides(names)) as sides:
        with noted(sides.failures, "peaks"):
            floors = peaks(list(TOLERANCES))
        print(report.header(names))
        for workload in WORKLOADS:
            print(f"{workload.name:6}{workload.text}", flush=True)
            task = Task("train", workload.batch)
            record = sides.measure(workload, task, effort, floors.get(workload.precision))
            if record:
                records.append(record)
                print(report.line(record, names), flush=True)
            yield {
                "sides": sides.descriptions,
                "peaks": {p or "float32": floor.rates for p, floor in floors.items()},
                "records": records,
                "failures": sides.failures,
            }


def latency(effort: suite.Effort) -> Iterator[Record]:
    """Time ``model(x)`` of one row, from the host's memory and back to it."""
    names = [OURS, *peers(effort)]
    with closing(Sides(names)) as sides:
        print(report.header(names))
        record = sides.measure(_A, Task("infer", 1), effort)
        if record:
            print(report.line(record, names))
        yield {"records": [record] if record else [], "failures": sides.failures}


def modes(effort: suite.Effort) -> Iterator[Record]:
    """Time steps by one kernel, by launches and by graphs: what `fits_one_block` guesses.

    The kernel with and without its networks in shared memory.
    """
    records: list[Record] = []
    failures: list[str] = []
    print("    network, batch, how many at once; microseconds a step: one kernel, the same without")
    print("    shared memory, launches, as chosen, 32 launches without a graph and with one")
    with closing(Worker("fastmlp's ways", 1, Ways, {STEP: ""})) as worker:
        for workload in STEPS:
            with noted(failures, workload.text):
                records.append(_ways(worker, workload, effort.rounds))
                if not records[-1]["same_bits"]:
                    failures.append(f"{workload.text}: the ways of a step differ in their bits")
            yield {"records": records, "failures": failures}


def _ways(worker: Worker, workload: Workload, rounds: int) -> Record:
    long = epoch(workload) // workload.batch
    times = {
        what: 1e6 * worker.call("seconds", workload, STEP, way, steps, epochs, rounds)
        for what, way, steps, epochs in (
            ("kernel", "kernel", long, 1),
            ("global", "kernel-global", long, 1),
            ("launches", "launches", long, 1),
            ("chosen", "", long, 1),
            ("launched", "launches", CAPTURED, _EPOCHS),
            ("replayed", "launches", CAPTURED + 1, _EPOCHS),
        )
    }
    cells = "".join(f"{report.number(time):>10}" for time in times.values())
    print(
        f"    {workload.network:20}{workload.batch:>6}{workload.replicas:>5}{cells}",
        flush=True,
    )
    return {
        "network": workload.network,
        "replicas": workload.replicas,
        "batch": workload.batch,
        "same_bits": worker.call("same_bits", workload),
        "microseconds": times,
    }


def products(effort: suite.Effort) -> Iterator[Record]:
    """Time steps of wide layers by our own kernels and by cuBLASLt, and say which way they went."""
    records: list[Record] = []
    failures: list[str] = []
    ways: Record = {}
    print(f"    {fm.show_config()['cuda']['blas']}; milliseconds a step: our own kernels,")
    print("    the library's first choice for all large products, and each as measured")
    with closing(Worker("fastmlp's products", 1, Ways, {BLAS: ""})) as worker:
        for workload in WIDE:
            with noted(failures, workload.text):
                call = partial(worker.call, "seconds", workload, BLAS)
                times = {
                    what: 1e3 * call(way, _LEAST_STEPS, 1, effort.rounds)
                    for what, way in (("own", "never"), ("library", "always"), ("measured", ""))
                }
                cells = "".join(f"{report.number(time):>10}" for time in times.values())
                print(f"    {workload.name:4}{cells}", flush=True)
                records.append({"workload": workload.name, "milliseconds": times})
                ways = worker.call("large_products")
            yield {"records": records, "large_products": ways, "failures": failures}


def profiles(effort: suite.Effort) -> Iterator[Record]:
    """Say where the time of a step goes, record by record, each of them by a launch of its own."""
    records: list[Record] = []
    failures: list[str] = []
    print("    microseconds, and operations of products in TFLOP/s")
    with closing(Worker.of(OURS, 1, _ENVIRONMENT)) as worker:
        for workload in (each for each in WORKLOADS if each.replicas == 1):
            with noted(failures, workload.text):
                records.append(_profile(worker, workload, effort.rounds))
            yield {"records": records, "failures": failures}


def _profile(worker: Worker, workload: Workload, rounds: int) -> Record:
    worker.load(workload, min(epoch(workload), CAPTURED * workload.batch))
    found = [worker.call("profile") for _ in range(rounds + 1)][1:]  # the first measures products
    seconds = profile.low([working for _, working, *_ in found])
    parts = [
        {"record": name, "shape": shape, "microseconds": 1e6 * time}
        | ({"teraflops": operations / time / 1e12} if operations else {})
        for (name, shape, operations), time in zip(found[0][0], seconds.tolist())
    ]
    print(f"    {workload.name:6}{workload.text}, {report.number(1e6 * seconds.sum())}")
    for part in parts:
        rate = f"{part['teraflops']:9.1f}" if "teraflops" in part else ""
        print(f"        {part['record']:20}{part['shape']:34}{part['microseconds']:9.1f}{rate}")
    return {"workload": workload.name, "microseconds": 1e6 * seconds.sum(), "parts": parts}


PARTS: dict[str, Part] = {
    "tests": tests,
    "sanitizer": sanitizer,
    "speed": speed,
    "latency": latency,
    "modes": modes,
    "products": products,
    "profiles": profiles,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than nine minutes")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(PARTS),
        metavar="PART,PART",
        help=f"of {', '.join(PARTS)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: in bench/results")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.only if part not in PARTS]:
        parser.error(f"--only: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    options.effort = suite.QUICK if options.quick else suite.FULL
    return options


def machine() -> Record:
    """Return where it was measured, and with what."""
    cuda = fm.show_config()["cuda"]
    installed = {str(each.name): each.version for each in importlib.metadata.distributions()}
    versions = {name: text for name, text in installed.items() if name.startswith(_PACKAGES)}
    return report.machine(1, {}) | {
        "commit": _commit(),
        "card": cuda["device"],
        "compute_capability": cuda["compute_capability"],
        "cuda": cuda["runtime"],
        "driver": cuda["driver"],
        "versions": versions,
    }


def _commit() -> str:
    """Return the commit of this copy of the repository, "" where it is none."""
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return _run(command, 10).stdout.strip()
    except OSError:
        return ""


def default_path(machine: Record) -> Path:
    """Return bench/results/gpu-<card>-<date>.json."""
    card = re.sub(r"[^a-z0-9]+", "-", machine["card"].lower().removeprefix("nvidia ")).strip("-")
    return RESULTS / f"gpu-{card}-{machine['date']}.json"


def run(parts: Mapping[str, Part], effort: suite.Effort, save: Callable[..., None]) -> int:
    """Run the parts, saving all that there is with each figure; return the number of failures.

    Parameters
    ----------
    parts : mapping of str to function
    effort : Effort
    save : function
        Called with ``results`` and ``failures``.
    """
    results: Record = {}
    broken: list[Record] = []

    def failures() -> list[Record]:
        inside = ((name, found.get("failures", [])) for name, found in results.items())
        return [{"part": name, "error": error} for name, each in inside for error in each] + broken

    def save_all() -> None:
        figures = {
            name: {key: value for key, value in found.items() if key != "failures"}
            for name, found in results.items()
        }
        save(results=figures, failures=failures())

    for name, part in parts.items():
        print(f"{name}:", flush=True)
        try:
            for found in part(effort):
                results[name] = found
                save_all()
        except Exception as error:  # whatever it is, the other parts go on
            print(f"    {type(error).__name__}: {error}")
            broken.append({"part": name, "error": traceback.format_exc()})
            save_all()
    return len(failures())


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; return 1 without a GPU, or where anything failed."""
    options = parse(arguments)
    try:
        device.get("cuda")
    except RuntimeError as error:
        print(f"bench.gpu: {error}", file=sys.stderr)
        return 1
    where = machine()
    path = options.json or default_path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"{where['card']}, commit {where['commit'] or 'unknown'}")
    quick = options.effort != suite.FULL
    save = partial(report.write, path, where, quick=quick)
    failures = run({name: PARTS[name] for name in options.only}, options.effort, save)
    print(f"{path}: {failures or 'no'} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
