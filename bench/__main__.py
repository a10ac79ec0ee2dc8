"""The command ``python -m bench``: checks the sides against one another, times them, reports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import fastmlp as fm

from . import report, suite, workloads
from .measure import DisagreementError
from .sides import OURS, PEERS, SIDES, missing
from .worker import UNSET, WorkerError
from .workloads import STANDARD, add_choice

TASKS = ["train", "infer", "epoch"]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Times training and inference of fastmlp and its peers side by side.",
        epilog="workloads: " + "; ".join(f"{w.name}: {w.text}" for w in STANDARD.values()),
    )
    add_choice(parser)
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default: all that are installed")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, help="default: train and infer; epoch with B"
    )
    parser.add_argument("--threads", type=int, default=fm.get_num_threads(), help="the most")
    parser.add_argument("--rounds", type=int, help="of timing (default: 7; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="less data, fewer and shorter rounds")
    parser.add_argument("--short", action="store_true", help="still less: one row, no 4,096")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = workloads.parse(parser, arguments)
    options.effort = suite.SHORT if options.short else suite.QUICK if options.quick else suite.FULL
    if options.rounds:
        options.effort = options.effort._replace(rounds=options.rounds)
    return options


def peers(chosen: Sequence[str] | None, *, slow: bool) -> list[str]:
    """Return those of the chosen peers that can run here, and print why others cannot.

    Parameters
    ----------
    chosen : sequence of str or None
        None for all.
    slow : bool
        Whether all means also what compiles for minutes.
    """
    names = PEERS if chosen is None else chosen
    if chosen is None and not slow:
        names = [name for name in names if not SIDES[name].compiles]
    lacking = {name: package for name in names if (package := missing(name))}
    for name, package in lacking.items():
        print(f"{name} is left out: {package} is not installed")
    for name in UNSET & os.environ.keys():
        print(f"{name}={os.environ[name]} is not passed on, since it slows OpenBLAS down")
    return [name for name in names if name not in lacking]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 if a side fails or disagrees."""
    options = parse(arguments)
    names = [OURS, *peers(options.peers, slow=options.effort is suite.FULL)]
    records: list[report.Record] = []
    failures = 0

    print(f"microseconds, median ±half the quartiles' distance (threads)\n{report.header(names)}")
    with closing(suite.Suite(names, options.threads)) as sides:
        for workload in options.workloads:
            print(f"{workload.name:4}{workload.text}: ", end="", flush=True)
            tasks = suite.tasks(workload, options.tasks or workload.tasks, options.effort)
            try:
                for record in sides.measure(workload, tasks, options.effort):
                    records.append(record)
                    print(report.line(record, names), flush=True)
            except (DisagreementError, WorkerError) as error:
                print(error)
                failures += 1
        machine = report.machine(options.threads, sides.descriptions)

    print(machine["processor"])
    print("\n".join(f"{name} {text}" for name, text in machine["sides"].items() if text))
    if options.json:
        report.write(options.json, machine, quick=options.effort != suite.FULL, records=records)
    if options.plot and records:
        report.plot(records, options.plot)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
