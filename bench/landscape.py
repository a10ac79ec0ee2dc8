"""The fraction of the floor that a training step reaches, over width and batch: no cliffs.

The network is width-width-width-width with ReLU and mean squared error; fastmlp alone, all threads.
All cells are measured once in each round, so that a slow minute of the machine does not look like a
property of a cell. Prints the largest ratio between neighbouring cells; the goal is at most 1.5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from statistics import median

import fastmlp as fm

from . import floor, report
from .measure import interleave
from .sides import OURS
from .worker import Task, Worker
from .workloads import Workload

WIDTHS = (8, 16, 17, 32, 64, 100, 128, 256, 512, 777, 1024, 2048, 4096)
BATCHES = tuple(1 << i for i in range(14))
# A step above takes a tenth of a second or more, and nothing new happens there.
_MOST_FLOPS = 2e10
_SCALE, _BUDGET = 0.01, 0.05  # of the data; seconds of a round
_GOAL = 1.5

Cell = tuple[int, int]  # width, batch
Cells = Mapping[Cell, float]


def network(width: int, batch: int) -> Workload:
    """Return a cell's workload."""
    return Workload(f"{width}", (width,) * 4, batch, "relu", "mse")


def measure(worker: Worker, workload: Workload) -> float:
    """Return the fraction of the floor, which is measured just before."""
    task, rows = Task("train", workload.batch), workload.rows(_SCALE)
    least = floor.measure(workload, worker.threads, samples=1).seconds(workload)
    worker.load(workload, rows)
    (timing,) = interleave([worker], task, rows // workload.batch, 1, _BUDGET)
    return least / timing.median


def steepest(fractions: Cells) -> tuple[float, Cell, Cell]:
    """Return the largest ratio between neighbours, and the two cells, the faster first."""
    widths, batches = (sorted({cell[i] for cell in fractions}) for i in (0, 1))
    pairs = [((w, a), (w, b)) for w in widths for a, b in pairwise(batches)]
    pairs += [((a, n), (b, n)) for n in batches for a, b in pairwise(widths)]
    known = [pair for pair in pairs if pair[0] in fractions and pair[1] in fractions]
    ordered = [sorted(pair, key=fractions.__getitem__, reverse=True) for pair in known]
    fast, slow = max(ordered, key=lambda pair: fractions[pair[0]] / fractions[pair[1]])
    return fractions[fast] / fractions[slow], fast, slow


def table(fractions: Cells) -> str:
    """Return the map as text, in percent: a line for each width, a column for each batch."""
    widths, batches = (sorted({cell[i] for cell in fractions}) for i in (0, 1))
    lines = ["width" + "".join(f"{batch:>6}" for batch in batches)]
    for width in widths:
        cells = [fractions.get((width, batch)) for batch in batches]
        lines.append(f"{width:5}" + "".join("     -" if c is None else f"{c:6.0%}" for c in cells))
    return "\n".join(lines)


def plot(fractions: Cells, path: Path) -> None:
    """Draw a heat map."""
    from matplotlib.figure import Figure

    widths, batches = (sorted({cell[i] for cell in fractions}) for i in (0, 1))
    grid = [[fractions.get((w, n), float("nan")) for n in batches] for w in widths]
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid, origin="lower", vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, row in enumerate(grid):
        for j, fraction in enumerate(row):
            if fraction == fraction:  # NaN: not measured
                color = "white" if fraction < 0.6 else "black"
                axes.text(j, i, f"{fraction:.0%}", ha="center", va="center", size=7, color=color)
    axes.set_xticks(range(len(batches)), batches)
    axes.set_yticks(range(len(widths)), widths)
    axes.set(xlabel="batch", ylabel="width", title="fraction of the floor of a training step")
    figure.colorbar(image)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the map and its steepest step; return 1 if that is a cliff."""
    parser = argparse.ArgumentParser(prog="python -m bench.landscape", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=fm.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args(arguments)

    cells = {
        (width, batch): workload
        for width in options.widths
        for batch in options.batches
        if (workload := network(width, batch)).flops <= _MOST_FLOPS
    }
    rounds: dict[Cell, list[float]] = {cell: [] for cell in cells}
    with closing(Worker.of(OURS, options.threads)) as worker:
        for i in range(options.rounds):
            for cell, workload in cells.items():
                rounds[cell].append(measure(worker, workload))
            print(f"round {i + 1} of {options.rounds}", file=sys.stderr)
        machine = report.machine(options.threads, {OURS: worker.call("describe")})
    fractions = {cell: median(values) for cell, values in rounds.items()}

    print(f"fraction of the floor, width by batch, {options.threads} threads\n{table(fractions)}")
    cliff = 1.0
    if len(fractions) > 1:
        cliff, (width, batch), (other_width, other_batch) = steepest(fractions)
        print(
            f"steepest step: {cliff:.2f} times, from width {width}, batch {batch} to width "
            f"{other_width}, batch {other_batch} (goal: at most {_GOAL})"
        )
    if options.json:
        records = [{"width": w, "batch": n, "fraction": f} for (w, n), f in fractions.items()]
        report.write(options.json, machine, steepest=cliff, records=records)
    if options.plot:
        plot(fractions, options.plot)
    return 0 if cliff <= _GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
