"""What each feature of the core is worth: a training step with one of them switched off at a time.

The variants are rows of environment variables; each runs in a worker of its own, all take turns,
and all must compute the same. The table is for docs/performance.md. A switch that the core does not
know does nothing, and its ratio is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import fastmlp as fm

from . import report
from .measure import check, interleave
from .sides import OURS
from .suite import FULL, SHORT
from .worker import Task, Worker
from .workloads import STANDARD, Workload

_WHOLE = "everything on"
# Label, environment, and whether it runs on one thread.
VARIANTS: list[tuple[str, dict[str, str], bool]] = [
    (_WHOLE, {}, False),
    ("one thread", {}, True),
    ("no fused epilogues", {"FASTMLP_DISABLE": "fusion"}, False),
    ("no packing", {"FASTMLP_DISABLE": "packing"}, False),
    ("a barrier after each record", {"FASTMLP_DISABLE": "phases"}, False),
    ("gradients kept, then updated", {"FASTMLP_DISABLE": "updates"}, False),
    ("gradients never in parts", {"FASTMLP_DISABLE": "parts"}, False),
    ("none of these five", {"FASTMLP_DISABLE": "fusion,packing,phases,updates,parts"}, False),
    ("BLAS in place of own products", {"FASTMLP_GEMM": "blas"}, False),
    ("AVX2", {"FASTMLP_ISA": "avx2"}, False),
    ("baseline vectors", {"FASTMLP_ISA": "baseline"}, False),
]


def measure(workload: Workload, workers: Sequence[Worker], *, quick: bool) -> report.Record:
    """Return the medians of a training step by variant, in microseconds."""
    effort = SHORT if quick else FULL
    task = Task("train", workload.batch)
    rows = workload.rows(effort.scale)
    for worker in workers:
        worker.load(workload, rows)
    check(workers, [task])
    steps = rows // workload.batch
    timings = interleave(workers, task, steps, effort.rounds, effort.budget)
    return {
        "workload": workload.name,
        "text": workload.text,
        "microseconds": {
            label: timing.median * 1e6 for (label, _, _), timing in zip(VARIANTS, timings)
        },
    }


def table(records: Sequence[report.Record]) -> str:
    """Return Markdown: a line for each variant, times in those of all features together."""
    lines = [["", *(record["workload"] for record in records)]]
    lines.append(["---", *("---:" for _ in records)])
    lines.append(
        [f"{_WHOLE}, µs", *(report.number(record["microseconds"][_WHOLE]) for record in records)]
    )
    for label, _, _ in VARIANTS[1:]:
        ratios = [r["microseconds"][label] / r["microseconds"][_WHOLE] for r in records]
        lines.append([label, *(f"{ratio:.2f}×" for ratio in ratios)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablation", description=__doc__)
    parser.add_argument("workloads", nargs="?", default="ABCDEFG", help="letters, such as ABC")
    parser.add_argument("--threads", type=int, default=fm.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="less data, shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                closing(Worker.of(OURS, 1 if alone else options.threads, variables))
            )
            for _, variables, alone in VARIANTS
        ]
        records = []
        for letter in options.workloads.upper():
            records.append(measure(STANDARD[letter], workers, quick=options.quick))
            print(f"{letter} measured", file=sys.stderr)
        machine = report.machine(options.threads, {OURS: workers[0].call("describe")})
    print(table(records))
    if options.json:
        report.write(options.json, machine, records=records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
