"""Lesson 6: XOR, which no line can solve, by a network of four layers of sigmoids.

The first two hundred steps show nothing: the outputs stay near 1/2 and the loss near log 2 = 0.693,
since a sigmoid passes at most a quarter of a gradient on, and three of them a sixty-fourth. Then,
within a hundred steps, the loss falls. When it does depends on where the weights begin: with the
default initializer "he_normal" after 300 to 900 steps, for the seeds 0 to 9; here it is seed 0.
"""

import sys
from pathlib import Path

import numpy as np

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
y = np.array([[0], [1], [1], [0]])

model = fm.Sequential(
    [
        fm.Dense(10, activation="sigmoid"),
        fm.Dense(10, activation="sigmoid"),
        fm.Dense(10, activation="sigmoid"),
        fm.Dense(1, activation="sigmoid"),
    ],
    seed=0,
)
model.compile(optimizer=fm.SGD(1.0), loss="binary_cross_entropy")

losses = []
for step in range(10_001):
    losses.append(model.train_on_batch(x, y))
    if step % 100 == 0:
        print(f"step {step:5}: loss {losses[-1]:.6f}")

for inputs, probability in zip(x, model.predict(x)[:, 0]):
    print(f"{inputs[0]} xor {inputs[1]} = {probability:.4f}")

fm.plotting.network(model, folder / "lesson_06_network.png")
fm.plotting.decision_boundary(model, x, y, folder / "lesson_06_boundary.png")
