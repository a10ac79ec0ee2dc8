"""How long the first model takes: ``python -m bench.startup``.

Each run is a process of its own. It imports NumPy first, which fastmlp cannot do without, then
times importing fastmlp, and after that compiling 784-256-10 and making its first step.
"""

from __future__ import annotations

import json
import subprocess
import sys

GOALS = {"import": 0.150, "first step": 0.020}  # seconds

_PROGRAM = """
import json, time
import numpy as np
x, y = np.zeros((32, 784), np.float32), np.zeros(32, np.int32)
start = time.perf_counter()
import fastmlp as fm
imported = time.perf_counter()
model = fm.Sequential([fm.Dense(256, "relu"), fm.Dense(10)], seed=0)
model.compile("adam", "cross_entropy")
model.train_on_batch(x, y)
print(json.dumps({"import": imported - start, "first step": time.perf_counter() - imported}))
"""


def measure(runs: int = 7) -> dict[str, list[float]]:
    """Return the seconds of each part in each run, in ascending order."""
    times: dict[str, list[float]] = {part: [] for part in GOALS}
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True
        )
        for part, seconds in json.loads(done.stdout).items():
            times[part].append(seconds)
    return {part: sorted(seconds) for part, seconds in times.items()}


def main() -> None:
    """Print the best and the middle run, beside the goal."""
    for part, seconds in measure().items():
        best, middle = 1e3 * seconds[0], 1e3 * seconds[len(seconds) // 2]
        print(f"{part:10}  {best:5.1f} ms, median {middle:5.1f}  (goal: {1e3 * GOALS[part]:.0f})")


if __name__ == "__main__":
    main()
