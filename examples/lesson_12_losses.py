"""Lesson 12: the loss decides what is learned.

Squares (mse) make a far-off target count most, absolute values (mae) count each error as it is, and
huber is the one near 0 and the other far away. For classes, cross-entropy pulls hard on a row that
is surely wrong, where the square of a saturated probability hardly pulls at all.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)

# A line y = 2 x + 1 with noise, and one target in ten far off.
rng = np.random.default_rng(0)
x = np.linspace(-1, 1, 200).reshape(-1, 1)
y = 2 * x + 1 + 0.1 * rng.standard_normal(x.shape)
y[::10] += 8

figure = Figure(figsize=(6, 4), layout="constrained")
axes = figure.subplots()
axes.plot(x, y, ".", color="0.6")
intercepts = {}
for loss in ("mse", "mae", "huber"):
    model = fm.Sequential([fm.Dense(1)], seed=0)
    model.compile(fm.Adam(0.05), loss)
    model.fit(x, y, batch_size=50, epochs=200, verbose=0)
    intercepts[loss] = float(model[0].bias[0])
    print(f"{loss:>5}: y = {model[0].kernel.item():.2f} x + {intercepts[loss]:.2f}")
    axes.plot(x, model.predict(x), label=loss)
axes.set(xlabel="x", ylabel="y")
axes.legend(frameon=False)
figure.savefig(folder / "lesson_12_outliers.png", dpi=150)

# A unit that begins surely wrong: sigmoid(-6) = 0.0025 where the target is 1.
print("\n   loss          gradient at the logit    probability after 200 steps")
for loss in ("mse", "binary_cross_entropy"):
    model = fm.Sequential([fm.Input(1), fm.Dense(1, activation="sigmoid")], dtype="float64", seed=0)
    model.set_weights([[[0.0]], [-6.0]])
    model.compile(fm.SGD(0.5), loss)
    pull = model.trace([[1.0]], [[1.0]]).layers[0].d_before.item()
    for _ in range(200):
        model.train_on_batch([[1.0]], [[1.0]])
    print(f"{loss:>22} {pull:15.6f} {model([[1.0]]).item():18.4f}")
