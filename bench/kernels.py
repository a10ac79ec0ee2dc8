"""Each kernel alone, beside NumPy's and PyTorch's: matrix products and elementwise work.

The products are the three of each layer of A, D, F and G, and squares; the others are every
activation and its derivative, softmax, cross-entropy, updates and the bias, on arrays that fit the
cache and on arrays that do not. Prints GFLOP/s and the fraction of the FMA peak, or elements in a
nanosecond and the bytes that must be moved in GB/s; and how many times fastmlp's time a peer takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import fastmlp as fm

from . import report
from .__main__ import peers
from .kernel_sides import KERNELS, OTHERS, Case
from .measure import agree, interleave
from .sides import OURS
from .worker import Worker
from .workloads import ACTIVATIONS, STANDARD

_NETWORKS = "ADFG"
_SQUARES = (64, 128, 256, 512, 1024)
_SHAPES = {"cache": (256, 256), "memory": (2048, 1024)}


def products(dtype: str) -> Iterator[Case]:
    """Yield the matrix products, equal ones once."""
    seen = set()
    for network in (STANDARD[letter] for letter in _NETWORKS):
        for i, (n, m) in enumerate(network.layers):
            for what, shape, transposed in (
                ("forward", (network.batch, m, n), ""),
                ("kernel gradient", (n, m, network.batch), "a"),
                ("input gradient", (network.batch, n, m), "b"),
            ):
                if (shape, transposed) not in seen:
                    seen.add((shape, transposed))
                    yield Case(f"{network.name}{i + 1} {what}", "matmul", shape, dtype, transposed)
    for size in _SQUARES:
        yield Case("square", "matmul", (size,) * 3, dtype)


def elementwise(dtype: str) -> Iterator[Case]:
    """Yield everything else."""
    activations = (f"{name}{end}" for name in ACTIVATIONS for end in ("", "_backward"))
    for operation in (*activations, *OTHERS):
        for place, shape in _SHAPES.items():
            yield Case(f"{operation}, {place}", operation, shape, dtype)


def measure(case: Case, workers: Sequence[Worker], rounds: int, budget: float) -> report.Record:
    """Check that all compute the same, then time them.

    Raises
    ------
    DisagreementError
        If they do not.
    """
    for worker in workers:
        worker.call("load", case)
    outputs = {worker.side: worker.call("output") for worker in workers}
    agree(f"{case.name}, {case.dtype}", outputs, relative_to_all=True)
    peak = fm.kernels.fma_peak(case.dtype) * 1e9
    seconds = {t.side: t.median for t in interleave(workers, case, 1, rounds, budget)}
    threads = workers[0].threads
    record: report.Record = case._asdict() | {
        "threads": threads,
        "microseconds": {side: s * 1e6 for side, s in seconds.items()},
        "ratios": {side: s / seconds[OURS] for side, s in seconds.items() if side != OURS},
    }
    rate = case.work / seconds[OURS]
    if case.operation == "matmul":
        return record | {"gigaflops": rate / 1e9, "of_peak": rate / (peak * threads)}
    return record | {"elements_per_ns": rate / 1e9, "gbytes": rate * case.element_bytes / 1e9}


def line(record: report.Record) -> str:
    """Return a kernel's line of the table."""
    shape = "×".join(map(str, record["shape"]))
    if record["operation"] == "matmul":
        rates = f"{record['gigaflops']:8.1f} GFLOP/s {record['of_peak']:7.0%} of peak"
    else:
        rates = f"{record['elements_per_ns']:8.2f} el./ns {record['gbytes']:8.1f} GB/s   "
    times = f"{report.number(record['microseconds'][OURS]):>9} µs"
    cells = [f"{record['name']:32}{record['dtype']:9}{shape:15}{record['threads']:3}"]
    cells += [times, rates]
    cells += [f"{side} {ratio:6.2f}x" for side, ratio in record["ratios"].items()]
    return "  ".join(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each kernel; an exception ends it if some libraries disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__)
    parser.add_argument("--only", choices=["matmul", "elementwise"])
    parser.add_argument("--match", default="", help="kernels whose names contain this text")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--peers", nargs="*", choices=["NumPy", "PyTorch"])
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)

    makers = {"matmul": products, "elementwise": elementwise}
    cases = [
        case
        for dtype in options.dtypes
        for kind, make in makers.items()
        if options.only in (None, kind)
        for case in make(dtype)
        if options.match in case.name
    ]
    chosen = ["NumPy", "PyTorch"] if options.peers is None else options.peers
    libraries = [OURS, *peers(chosen, slow=False)]
    rounds, budget = (3, 0.005) if options.quick else (7, 0.05)
    records: list[report.Record] = []
    described: dict[str, str] = {}
    for threads in options.threads or sorted({1, fm.get_num_threads()}):
        with ExitStack() as stack:
            workers = [
                stack.enter_context(closing(Worker(name, threads, partial(KERNELS[name], threads))))
                for name in libraries
            ]
            described = {worker.side: worker.call("describe") for worker in workers}
            for case in cases:
                records.append(measure(case, workers, rounds, budget))
                print(line(records[-1]), flush=True)
    if options.json:
        machine = report.machine(fm.get_num_threads(), described)
        report.write(options.json, machine, records=records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
