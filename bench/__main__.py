"""The command ``python -m bench``: checks the sides against one another, times them, reports."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import fastmlp as fm
from bench import floor, report
from bench.measure import DisagreementError, check, interleave
from bench.sides import OURS, PEERS, missing
from bench.worker import UNSET, Task, Worker
from bench.workloads import ACTIVATIONS, LOSSES, MANY_ROWS, STANDARD, Workload

TASKS = ["train", "infer"]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Times a training step and an inference of fastmlp and its peers side by side.",
        epilog="workloads: " + "; ".join(f"{w.name}: {w.text}" for w in STANDARD.values()),
    )
    parser.add_argument("workloads", nargs="*", help="letters, such as A or ABC; all by default")
    parser.add_argument("--dims", help="a network of your own, such as 123-77-33-5")
    parser.add_argument("--batch", type=int, default=32, help="with --dims (default: 32)")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="with --dims")
    parser.add_argument("--loss", choices=LOSSES, default="cross_entropy", help="with --dims")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--threads", type=int, default=fm.get_num_threads(), help="the most")
    parser.add_argument("--rounds", type=int, help="of timing (default: 7; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="less data, fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args(arguments)
    try:
        options.workloads = _workloads(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def _workloads(options: argparse.Namespace) -> list[Workload]:
    letters = "".join(options.workloads).upper()
    if unknown := sorted(set(letters) - STANDARD.keys()):
        raise ValueError(f"no workload {', '.join(unknown)}; there are {', '.join(STANDARD)}")
    chosen = [STANDARD[letter] for letter in letters]
    if options.dims:
        dims = tuple(int(width) for width in options.dims.split("-"))
        if len(dims) < 2 or min(*dims, options.batch) < 1:
            raise ValueError("--dims needs at least two widths; they and --batch at least 1")
        chosen.append(Workload("own", dims, options.batch, options.activation, options.loss))
    return chosen or list(STANDARD.values())


def measure(
    workload: Workload, sides: dict[str, str], options: argparse.Namespace
) -> Iterator[report.Record]:
    """Check one workload, then time it, task by task.

    Parameters
    ----------
    workload : Workload
    sides : dict of str
        The sides by name; gets each one's description.
    options : Namespace
        From `parse`.

    Raises
    ------
    DisagreementError
        If the sides do not compute the same.
    """
    rows = workload.rows(0.1 if options.quick else 1.0)
    rounds = options.rounds or (3 if options.quick else 7)
    budget = 0.1 if options.quick else 0.5
    tasks = [Task("train", workload.batch), Task("infer", 1), Task("infer", MANY_ROWS)]
    tasks = [task for task in tasks if task.kind in options.tasks]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(closing(Worker(side, workload, rows, threads)))
            for side in sides
            for threads in ([options.threads] if side == OURS else sorted({1, options.threads}))
        ]
        sides |= {worker.side: worker.call("describe") for worker in workers}
        agreement = check(workers, tasks)
        print("; ".join(f"{what} agree to {error:.0e}" for what, error in agreement.items()))
        for task in tasks:
            training = task.kind == "train"
            least = floor.measure(workload, options.threads) if training else None
            steps = rows // workload.batch if training else 1
            timings = interleave(workers, task, steps, rounds, budget)
            yield report.record(workload, task, timings, least) | {"agreement": agreement}


def main() -> int:
    """Run what the command line asks for; return 1 if some sides disagree."""
    options = parse()
    lacking = {peer: package for peer in options.peers if (package := missing(peer))}
    for peer, package in lacking.items():
        print(f"{peer} is left out: {package} is not installed")
    for name in UNSET & os.environ.keys():
        print(f"{name}={os.environ[name]} is not passed on, since it slows OpenBLAS down")
    names = [OURS, *(peer for peer in options.peers if peer not in lacking)]
    sides = dict.fromkeys(names, "")
    records: list[report.Record] = []
    disagreements = 0

    print(f"microseconds, median ±half the quartiles' distance (threads)\n{report.header(names)}")
    for workload in options.workloads:
        print(f"{workload.name:4}{workload.text}: ", end="", flush=True)
        try:
            for record in measure(workload, sides, options):
                records.append(record)
                print(report.line(record, names), flush=True)
        except DisagreementError as error:
            print(error)
            disagreements += 1

    machine = report.machine(options.threads, sides)
    print("\n".join([machine["processor"], *(f"{name} {text}" for name, text in sides.items())]))
    if options.json:
        result = {"machine": machine, "quick": options.quick, "records": records}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot and records:
        report.plot(records, options.plot)
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
