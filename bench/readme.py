"""Writes the documents' figures from the committed results, so that none is typed by hand.

In README.md, README.ko.md and docs/performance.md, what stands between
``<!-- bench: speed.json training -->`` and ``<!-- /bench -->`` is replaced by that view of
bench/results/speed.json. Views: `training` and `inference` (tables, from ``python -m bench
--json``), `epoch` (a sentence from the same), `machine` (a line), and from the program of each
name: `mnist`, `landscape` and `untuned` (sentences) and `ablation` (a table). With ``--check``
nothing is written: the exit status says whether something would change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ablation
from .report import number
from .sides import OURS

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"
_DOCUMENTS = {"README.md": "en", "README.ko.md": "ko", "docs/performance.md": "en"}
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
        "epoch": "{network}, batch {batch}, {rows} rows: {sides}.",
        "seconds": "{name} {seconds:.2f} s",
        "landscape": "{least:.0%} to {most:.0%} of the floor over {count} sizes; at most "
        "{steepest:.1f} times between neighbours.",
        "untuned": "{good} of {count} random networks reach the goals; the least ratio to the best "
        "peer is {least:.1f}.",
    },
    "ko": {
        "network": "신경망",
        "batch": "배치",
        "floor": "이론 하한",
        "times": "나머지 중 가장 빠른 것 대비 배속",
        "machine": "단위는 마이크로초. {processor}, 스레드 {threads}개, {date}, {sides}.",
        "mnist": "시드 {seeds}개의 평균 테스트 정확도: {sides}.",
        "side": "{name} {accuracy:.2%} ({seconds:.2f}초)",
        "epoch": "{network}, 배치 {batch}, {rows}행: {sides}.",
        "seconds": "{name} {seconds:.2f}초",
        "landscape": "크기 {count}가지에서 이론 하한의 {least:.0%}~{most:.0%}, "
        "이웃한 크기 사이는 최대 {steepest:.1f}배 차이.",
        "untuned": "무작위 신경망 {count}개 중 {good}개가 목표를 달성, "
        "가장 빠른 상대와의 최소 비율은 {least:.1f}.",
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
        cells += [f"**{times[side]}**" if side == OURS else times.get(side, "-") for side in sides]
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


def _epoch(result: Result, words: dict[str, str]) -> str:
    lines = []
    for record in result["records"]:
        kind, _, rows = record["task"].partition(", ")
        if kind == "epoch":
            sides = ", ".join(
                words["seconds"].format(name=name, seconds=side["microseconds"] / 1e6)
                for name, side in record["sides"].items()
            )
            values = record | {"rows": rows.removesuffix(" rows"), "sides": sides}
            lines.append(words["epoch"].format_map(values))
    return "\n".join(lines)


def _landscape(result: Result, words: dict[str, str]) -> str:
    fractions = [record["fraction"] for record in result["records"]]
    return words["landscape"].format(
        least=min(fractions),
        most=max(fractions),
        count=len(fractions),
        steepest=result["steepest"],
    )


def _untuned(result: Result, words: dict[str, str]) -> str:
    records = result["records"]
    return words["untuned"].format(
        good=sum(not record["missed"] for record in records),
        count=len(records),
        least=min(record["best_peer"] for record in records if record["best_peer"]),
    )


def _ablation(result: Result, words: dict[str, str]) -> str:
    return ablation.table(result["records"])


_VIEWS: dict[str, Callable[[Result, dict[str, str]], str]] = {
    "training": _training,
    "inference": _inference,
    "machine": _machine,
    "mnist": _mnist,
    "epoch": _epoch,
    "landscape": _landscape,
    "untuned": _untuned,
    "ablation": _ablation,
}


def filled(text: str, language: str, results: Path = _RESULTS) -> str:
    """Return a document with its blocks written anew.

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
    """Return the documents whose figures are not those of the results."""
    paths = {root / name: language for name, language in _DOCUMENTS.items()}
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
            language = _DOCUMENTS[path.relative_to(_ROOT).as_posix()]
            text = filled(path.read_text(encoding="utf-8"), language)
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
