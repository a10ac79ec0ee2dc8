"""bfloat16 beside float32 on the CPU: a training step in each, and in bfloat16 without AMX.

The variants, with PyTorch's where it is installed, are workers that take turns; the losses of their
first steps must agree to what bfloat16 leaves. Times are medians ± half the quartiles' distance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import fastmlp as fm

from . import report
from .measure import check, interleave
from .sides import OURS, missing
from .suite import FULL, SHORT
from .worker import Task, Worker
from .workloads import STANDARD, Workload

_PEER = "PyTorch"
_TOLERANCE = 2e-2  # of the losses, relative


class Variant(NamedTuple):
    """One of the sides, in one precision."""

    label: str
    side: str
    precision: str | None
    variables: dict[str, str]


VARIANTS = [
    Variant("float32", OURS, None, {}),
    Variant("bfloat16", OURS, "bfloat16", {}),
    Variant("bfloat16 without AMX", OURS, "bfloat16", {"FASTMLP_DISABLE": "amx"}),
    Variant("PyTorch, float32", _PEER, None, {}),
    Variant("PyTorch, bfloat16", _PEER, "bfloat16", {}),
]


def measure(
    workload: Workload, workers: Sequence[tuple[Variant, Worker]], *, quick: bool
) -> report.Record:
    """Return the median of a training step by variant, in microseconds, and its spread."""
    effort = SHORT if quick else FULL
    task, rows = Task("train", workload.batch), workload.rows(effort.scale)
    for variant, worker in workers:
        worker.load(replace(workload, precision=variant.precision), rows)
    alone = [worker for _, worker in workers]
    difference = check(alone, [task], tolerance=_TOLERANCE)["losses"]
    timings = interleave(alone, task, rows // workload.batch, effort.rounds, effort.budget)
    labels = [variant.label for variant, _ in workers]
    return {
        "workload": workload.name,
        "text": workload.text,
        "difference": difference,
        "microseconds": {n: t.median * 1e6 for n, t in zip(labels, timings)},
        "spread": {n: t.spread for n, t in zip(labels, timings)},
    }


def table(record: report.Record) -> str:
    """Return Markdown: a line for each variant, and how many times as fast as float32 it is."""
    times, lines = record["microseconds"], [["", "ms", "times as fast"], ["---", "---:", "---:"]]
    for label, time in times.items():
        ms = f"{time / 1e3:.2f} ±{record['spread'][label]:.0%}"
        lines.append([label, ms, f"{times['float32'] / time:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(prog="python -m bench.precisions", description=__doc__)
    parser.add_argument("workloads", nargs="?", default="F", help="letters, such as AF")
    parser.add_argument("--threads", type=int, default=fm.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="less data, shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    way = fm.show_config()["bfloat16"]
    if way == "none":
        print("bfloat16 needs a CPU with AVX512_BF16")
        return 1
    print(f"bfloat16 by {way}")
    variants = [v for v in VARIANTS if v.side == OURS or not missing(v.side)]
    with ExitStack() as stack:
        workers = [
            (v, stack.enter_context(closing(Worker.of(v.side, options.threads, v.variables))))
            for v in variants
        ]
        records = []
        for letter in options.workloads.upper():
            records.append(measure(STANDARD[letter], workers, quick=options.quick))
            print(f"\n{letter}: {records[-1]['text']}\n{table(records[-1])}", flush=True)
        sides = {worker.side: worker.call("describe") for _, worker in workers}
    if options.json:
        report.write(options.json, report.machine(options.threads, sides), records=records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
