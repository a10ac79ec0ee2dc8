"""Writes the README's figures from the results that are committed, so that none is typed by hand.

In README.md and README.ko.md, what stands between ``<!-- bench: speed.json training -->`` and
``<!-- /bench -->`` is replaced by that view of bench/results/speed.json. Views: `training` and
`inference` (tables, from ``python -m bench --json``), `machine` (a line), and `mnist` (a sentence,
from ``python -m bench.mnist --json``). With ``--check`` nothing is written: the exit status says
whether something would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .report import number
from .sides import OURS

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"
_READMES = {"README.md": "en", "README.ko.md": "ko"}
_BLOCK = re.compile(r"(<!-- bench: (\S+) (\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)

_WORDS = {
    "en": {
        "network": "network",
        "batch": "batch",
        "floor": "floor",
        "times": "times faster than the best of the others",
        "machine": "Microseconds, measured on {processor}, {threads} threads, on {date}: {sides}.",
        "mnist": "Mean test accuracy over {seeds} seeds: {sides}.",
        "side": "{name} {accuracy:.2%} in {seconds:.2f} s",
    },
    "ko": {
        "network": "신경망",
        "batch": "배치",
        "floor": "이론 하한",
        "times": "나머지 중 가장 빠른 것 대비 배속",
        "machine": "단위는 마이크로초. {processor}, 스레드 {threads}개, {date}, {sides}.",
        "mnist": "시드 {seeds}개의 평균 테스트 정확도: {sides}.",
        "side": "{name} {accuracy:.2%} ({seconds:.2f}초)",
    },
}

Result = dict[str, Any]


def _table(records: list[Result], words: dict[str, str]) -> str:
    # Of training: a batch and a floor. Inference is one row at a time.
    floors = any(record["floor"] for record in records)
    sides = list(dict.fromkeys(side for record in records for side in record["sides"]))
    head = ["", words["network"], *([words["batch"], words["floor"]] if floors else [])]
    lines = [head + [f"**{side}**" if side == OURS else side for side in sides] + [words["times"]]]
    lines.append(["---"] * 2 + ["---:"] * (len(lines[0]) - 2))
    for record in records:
        cells = [record["workload"], record["network"]]
        if floors:
            cells += [str(record["batch"]), number(record["floor"]["microseconds"])]
        times = {side: number(t["microseconds"]) for side, t in record["sides"].items()}
        cells += [f"**{times[side]}**" if side == OURS else times.get(side, "") for side in sides]
        lines.append([*cells, f"{record['best_peer']:.1f}" if record["best_peer"] else ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _training(result: Result, words: dict[str, str]) -> str:
    return _table([r for r in result["records"] if r["task"] == "training step"], words)


def _inference(result: Result, words: dict[str, str]) -> str:
    return _table([r for r in result["records"] if r["task"] == "inference, 1"], words)


def _machine(result: Result, words: dict[str, str]) -> str:
    sides = ", ".join(f"{name} {text}" for name, text in result["machine"]["sides"].items())
    return words["machine"].format_map(result["machine"] | {"sides": sides})


def _mnist(result: Result, words: dict[str, str]) -> str:
    sides = (words["side"].format(name=name, **side) for name, side in result["sides"].items())
    return words["mnist"].format(seeds=result["seeds"], sides=", ".join(sides))


_VIEWS: dict[str, Callable[[Result, dict[str, str]], str]] = {
    "training": _training,
    "inference": _inference,
    "machine": _machine,
    "mnist": _mnist,
}


def filled(text: str, language: str, results: Path = _RESULTS) -> str:
    """Return a README with its blocks written anew.

    Raises
    ------
    FileNotFoundError
        If a block names a file that is not among the results.
    KeyError
        If it names a view that does not exist.
    """

    def block(match: re.Match[str]) -> str:
        begin, file, view, end = match.groups()
        result = json.loads((results / file).read_text(encoding="utf-8"))
        return f"{begin}{_VIEWS[view](result, _WORDS[language])}\n{end}"

    return _BLOCK.sub(block, text)


def stale(root: Path = _ROOT) -> list[Path]:
    """Return the READMEs whose figures are not those of the results."""
    paths = {root / name: language for name, language in _READMES.items()}
    return [
        path
        for path, language in paths.items()
        if path.exists() and filled(text := path.read_text(encoding="utf-8"), language) != text
    ]


def main() -> int:
    """Write, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    options = parser.parse_args()
    paths = stale()
    for path in paths:
        print(f"{path.name}: {'out of date' if options.check else 'written'}")
        if not options.check:
            text = filled(path.read_text(encoding="utf-8"), _READMES[path.name])
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
