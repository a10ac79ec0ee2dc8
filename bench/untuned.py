"""Networks that nobody tuned for: odd widths, any depth, batch, activation and loss, at random.

Goals: never slower than the best peer, and of the floor at least 60% where it is above 20 µs, 75%
where it is above 1 ms. Prints a line for each network, those that miss a goal marked; fails if one
does.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import fastmlp as fm

from . import report, suite
from .__main__ import peers
from .measure import DisagreementError
from .sides import OURS, PEERS
from .worker import WorkerError
from .workloads import ACTIVATIONS, LOSSES, Workload

_PEERS = ["PyTorch", "JAX", "NumPy"]
_WIDEST, _DEEPEST, _LARGEST_BATCH = 3000, 12, 4096
# More would take minutes a network.
_MOST_FLOPS = 1e10
# Ten steps at 1e-3 of a network that is deep or wide make 1e-4 of the last bit of a float.
_LEARNING_RATE = 1e-5
# Fraction of the floor that is asked for, where the floor is above so many microseconds.
_GOALS = ((1000.0, 0.75), (20.0, 0.60))


def networks(count: int, seed: int) -> list[Workload]:
    """Draw networks: sizes uniform on a logarithmic scale; activations and losses in turn."""
    rng = np.random.default_rng(seed)

    def size(most: int) -> int:
        return int(math.exp(rng.uniform(0, math.log(most + 1))))

    found: list[Workload] = []
    while len(found) < count:
        i = len(found)
        loss = LOSSES[i % len(LOSSES)]
        dims = [size(_WIDEST) for _ in range(2 + int(rng.integers(_DEEPEST)))]
        if loss == "cross_entropy":
            dims[-1] = max(2, dims[-1])
        batch, activation = size(_LARGEST_BATCH), ACTIVATIONS[i % len(ACTIVATIONS)]
        workload = Workload(
            str(i), tuple(dims), batch, activation, loss, _LEARNING_RATE, tasks=("train",)
        )
        if workload.flops <= _MOST_FLOPS:
            found.append(workload)
    return found


def shortfalls(record: report.Record) -> list[str]:
    """Return which goals a training step misses, in words."""
    found = []
    if record["best_peer"] and record["best_peer"] < 1:
        found.append("slower than the best peer")
    floor = record["floor"]
    for above, least in _GOALS:
        if floor["microseconds"] > above:
            if floor["fraction"] < least:
                found.append(f"below {least:.0%} of the floor")
            break
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each network; return 1 if one misses a goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.untuned", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=_PEERS)
    parser.add_argument("--threads", type=int, default=fm.get_num_threads(), help="the most")
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)

    names = [OURS, *peers(options.peers, slow=False)]
    effort = suite.SHORT if options.quick else suite.QUICK
    records: list[report.Record] = []
    failures = 0
    print(report.header(names))
    with closing(suite.Suite(names, options.threads)) as sides:
        for workload in networks(options.count, options.seed):
            print(f"{workload.name:4}{workload.text}: ", end="", flush=True)
            try:
                for record in sides.measure(
                    workload, suite.tasks(workload, ["train"], effort), effort
                ):
                    missed = shortfalls(record)
                    records.append(record | {"missed": missed})
                    print(report.line(record, names), *missed, sep="  ", flush=True)
            except (DisagreementError, WorkerError) as error:
                print(error)
                failures += 1
        machine = report.machine(options.threads, sides.descriptions)

    missing = [record for record in records if record["missed"]]
    print(f"{len(records) - len(missing)} of {options.count} reach the goals")
    if options.json:
        report.write(options.json, machine, seed=options.seed, records=records)
    return 1 if missing or failures else 0


if __name__ == "__main__":
    sys.exit(main())
