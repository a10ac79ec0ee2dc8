"""Where the time of a training step goes, record by record: see docs/performance.md.

The records are those of csrc/core/program.h. Their times are low quartiles over the steps of the
slowest thread, since a shared machine only ever adds; "waits" is the mean of what the threads wait
for one another before the record (and, in the last line, after it). A clock is read at each record,
which a step of a few microseconds feels: its time without the clock stands below.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

import fastmlp as fm

from .sides import OURS
from .worker import Session
from .workloads import Array, Workload, add_choice, parse

_SECONDS = 0.5
_LEAST_STEPS, _LEAST_ROUNDS = 20, 3


def measure(
    workload: Workload, threads: int
) -> tuple[list[tuple[str, str, int]], Array, Array, float]:
    """Return the records, their seconds and waits, and the seconds of a step without clocks."""
    session = Session(OURS, threads)
    session.load(workload, epoch_rows(workload))
    session.profile()  # how many threads to use has to be found out
    working, waiting, unwatched = [], [], []
    start = time.perf_counter()
    while time.perf_counter() - start < _SECONDS or len(unwatched) < _LEAST_ROUNDS:
        records, work, wait, seconds = session.profile()
        working.append(work)
        waiting.append(wait)
        unwatched.append(seconds)
    return records, low(working), low(waiting), float(np.quantile(unwatched, 0.25))


def epoch_rows(workload: Workload) -> int:
    """Return how many rows to train on for a profile: whole batches."""
    return workload.rows(0.05, _LEAST_STEPS * workload.batch)


def low(parts: Sequence[Array]) -> Array:
    """Return the low quartile over all steps of each record."""
    result: Array = np.quantile(np.concatenate(parts), 0.25, axis=0)
    return result


def table(
    records: Sequence[tuple[str, str, int]], working: Array, waiting: Array, peak: float
) -> str:
    """Return the profile as text; a product's rate is of so many operations a second."""
    lines = [f"{'record':20}{'shape':34}{'us':>9}{'waits':>8}{'share':>7}{'of peak':>9}"]
    whole = working.sum() + waiting.sum()
    for (name, shape, operations), seconds, wait in zip(records, working, waiting):
        rate = f"{operations / seconds / peak:9.0%}" if operations and seconds > 0 else ""
        lines.append(
            f"{name:20}{shape:34}{seconds * 1e6:9.2f}{wait * 1e6:8.2f}{seconds / whole:7.0%}{rate}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each workload."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    add_choice(parser)
    parser.add_argument("--threads", type=int, default=fm.get_num_threads())
    options = parse(parser, arguments)
    for workload in options.workloads:
        peak = fm.kernels.fma_peak("float32") * 1e9 * options.threads
        records, working, waiting, unwatched = measure(workload, options.threads)
        together = working.sum() + waiting.sum()
        print(f"\n{workload.name}: {workload.text}, {options.threads} threads")
        print(table(records, working, waiting, peak))
        for label, seconds in (("together", together), ("a step without clocks", unwatched)):
            print(f"{label:54}{seconds * 1e6:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
