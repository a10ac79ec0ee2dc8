"""Starting is quick: importing fastmlp, and a first model's first step."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import startup
from support import printed_by


def test_the_first_model_is_there_at_once():
    # Twice the goals, by the best of some runs: this asks what the code needs, not how busy the
    # machine is.
    for runs in (1, 2, 4, 8):
        times = startup.measure(runs)
        if all(times[part][0] < 2 * goal for part, goal in startup.GOALS.items()):
            return
    raise AssertionError(times)


def test_what_few_programs_need_is_not_imported():
    program = (
        "import sys, numpy; before = set(sys.modules); import fastmlp;"
        "print(*(set(sys.modules) - before))"
    )
    imported = set(printed_by(program).split())
    assert "fastmlp.sequential" in imported
    for name in ("argparse", "difflib", "hashlib", "matplotlib", "subprocess", "tempfile",
                 "fastmlp.cli", "fastmlp.plotting", "fastmlp.datasets"):  # fmt: skip
        assert name not in imported
