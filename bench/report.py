"""What was measured, as a dictionary for JSON, as lines of a table, and as a plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from .floor import Floor, GpuFloor
from .measure import Timing, best
from .sides import OURS
from .worker import Task
from .workloads import Workload

Record = dict[str, Any]


def machine(threads: int, sides: Mapping[str, str]) -> Record:
    """Return where it was measured, and with what."""
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "threads": threads,
        "python": platform.python_version(),
        "sides": dict(sides),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs"


def write(path: Path, machine: Record, **content: Any) -> None:
    """Write results as JSON, the machine first."""
    text = json.dumps({"machine": machine} | content, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def record(
    workload: Workload, task: Task, timings: Sequence[Timing], floor: Floor | GpuFloor | None
) -> Record:
    """Return one task of one workload: times in microseconds, ratios in times of fastmlp's."""
    fastest = best(timings)
    ours = fastest[OURS].median
    ratios = {name: t.median / ours for name, t in fastest.items() if name != OURS}
    return {
        "workload": workload.name,
        "network": workload.network,
        "batch": workload.batch,
        "text": workload.text,
        "task": task.text,
        "sides": {
            name: {"microseconds": t.median * 1e6, "spread": t.spread, "threads": t.threads}
            for name, t in fastest.items()
        },
        "ratios": ratios,
        "best_peer": min(ratios.values(), default=None),
        "floor": floor and _floor(floor, workload, ours),
        "rounds": [
            {"side": t.side, "threads": t.threads, "microseconds": [s * 1e6 for s in t.rounds]}
            for t in timings
        ],
    }


def _floor(floor: Floor | GpuFloor, workload: Workload, ours: float) -> Record:
    seconds = floor.seconds(workload)
    return {
        "microseconds": seconds * 1e6,
        "fraction": seconds / ours,
        "simple_microseconds": floor.simple(workload) * 1e6,
    } | floor.rates


def number(microseconds: float) -> str:
    """Return a time with about three digits."""
    digits = 2 if microseconds < 10 else 1 if microseconds < 100 else 0
    return f"{microseconds:,.{digits}f}"


def header(sides: Sequence[str]) -> str:
    """Return the first line of the table. Times are microseconds."""
    cells = [f"{'':4}{'task':20}{'simple':>9}{'floor':>9}{OURS:>17}{'of floor':>9}"]
    cells += [f"{side:>21}" for side in sides if side != OURS]
    return "".join(cells) + f"{'best peer':>11}"


def line(record: Record, sides: Sequence[str]) -> str:
    """Return the line of a record: time, spread, (threads); peers' times in times of fastmlp's."""
    floor = record["floor"]
    simple = least = fraction = "-"
    if floor:
        simple, least = (number(floor[key]) for key in ("simple_microseconds", "microseconds"))
        fraction = f"{floor['fraction']:.0%}"
    ours = record["sides"][OURS]
    time = f"{number(ours['microseconds'])} ±{ours['spread']:.0%} ({ours['threads']})"
    cells = [f"{'':4}{record['task']:20}{simple:>9}{least:>9}{time:>17}{fraction:>9}"]
    cells += [f"{_peer(record, side):>21}" for side in sides if side != OURS]
    ratio = record["best_peer"]
    return "".join(cells) + (f"{ratio:>10.2f}x" if ratio else f"{'-':>11}")


def _peer(record: Record, side: str) -> str:
    if side not in record["sides"]:
        return "-"
    peer = record["sides"][side]
    return f"{number(peer['microseconds'])} ({peer['threads']}) {record['ratios'][side]:.2f}x"


def plot(records: Sequence[Record], path: Path) -> None:
    """Draw the times on a logarithmic scale, a panel for each task, the floor as a line."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(record["task"] for record in records))
    figure = Figure(figsize=(11, 3.2 * len(tasks)), layout="constrained")
    for axes, task in zip(figure.subplots(len(tasks), squeeze=False)[:, 0], tasks):
        _panel(axes, task, [record for record in records if record["task"] == task])
    figure.savefig(path, dpi=150)


def _panel(axes: Any, task: str, records: Sequence[Record]) -> None:
    sides = list(dict.fromkeys(side for record in records for side in record["sides"]))
    width = 0.8 / len(sides)
    for i, side in enumerate(sides):
        groups = [group for group, record in enumerate(records) if side in record["sides"]]
        places = [group + (i - (len(sides) - 1) / 2) * width for group in groups]
        times = [records[group]["sides"][side]["microseconds"] for group in groups]
        axes.bar(places, times, width, label=side)
        for place, time in zip(places, times):
            axes.annotate(number(time), (place, time), ha="center", va="bottom", fontsize=4)
    for group, record in enumerate(records):
        if record["floor"]:
            axes.hlines(record["floor"]["microseconds"], group - 0.4, group + 0.4, "black", "--")
    labels = [f"{record['workload']}\n{record['network']}" for record in records]
    axes.set_xticks(range(len(records)), labels, fontsize=7)
    axes.set(yscale="log", ylabel="microseconds", title=task)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=2)
