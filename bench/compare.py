"""Two builds of fastmlp against each other, record by record of a training step, by turns.

Each build is a folder that ``pip install --target FOLDER .`` filled from one commit; each runs in a
process of its own. Low quartiles of the slowest thread are compared, since a shared machine only
ever adds to a time; what is above 1 got faster.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial

import numpy as np

from .sides import OURS
from .worker import Worker, session_of_build
from .workloads import Workload, add_choice, parse

Parts = dict[str, list[float]]


def measure(workload: Workload, workers: Sequence[Worker], seconds: float) -> list[Parts]:
    """Return for each build the times of each part of a step, in seconds."""
    rows = workload.rows(0.02, 20 * workload.batch)
    for worker in workers:
        worker.load(workload, rows)
        worker.call("profile")
    found: list[Parts] = [{} for _ in workers]
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(found[-1]["a step"]) < 3:
        if cpus:  # one may have a busy neighbour: all take turns on the same
            cpus = cpus[1:] + cpus[:1]
            for worker in workers:
                worker.pin(cpus[: worker.threads])
        for worker, parts in zip(workers, found):
            records, working, waiting, step = worker.call("profile")
            for i, (name, shape, _) in enumerate(records):
                parts.setdefault(f"{i:3} {name} {shape}", []).extend(working[:, i].tolist())
            parts.setdefault("waits", []).extend(waiting.sum(axis=1).tolist())
            parts.setdefault("all of it", []).extend((working + waiting).sum(axis=1).tolist())
            parts.setdefault("a step", []).append(step)
    return found


def table(old: Parts, new: Parts) -> str:
    """Return a line for each part: both times in microseconds, and their ratio."""
    lines = [f"{'':52}{'old':>10}{'new':>10}{'gain':>7}"]
    for part in [*new, *(part for part in old if part not in new)]:
        a, b = (np.quantile(side.get(part, [np.nan]), 0.25) * 1e6 for side in (old, new))
        lines.append(f"{part:52}{a:10.2f}{b:10.2f}{a / b:7.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("old", help="folder of a build")
    parser.add_argument("new", help="folder of a build")
    add_choice(parser)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each workload")
    options = parse(parser, arguments)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                closing(
                    Worker(
                        OURS,
                        options.threads,
                        partial(session_of_build, folder, OURS, options.threads),
                    )
                )
            )
            for folder in (options.old, options.new)
        ]
        for workload in options.workloads:
            print(f"\n{workload.name}: {workload.text}, {options.threads} threads")
            print(table(*measure(workload, workers, options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
