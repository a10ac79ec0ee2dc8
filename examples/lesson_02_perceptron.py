"""Lesson 2: the perceptron learns (Rosenblatt 1958), and where it cannot.

With targets y of -1 and 1, and only the rows that it has wrong, y (w x + b) <= 0:

    w <- w + rho * sum of y x,    b <- b + rho * sum of y

This is gradient descent on the loss max(0, -y (w x + b)). It ends where a line divides the classes,
and never where none does.
"""

import sys
from pathlib import Path

import numpy as np

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
gates = {"AND": [-1, -1, -1, 1], "OR": [-1, 1, 1, 1], "XOR": [-1, 1, 1, -1]}
RHO = 0.25

results = {}
for name, target in gates.items():
    y = np.array(target).reshape(-1, 1)
    model = fm.Sequential([fm.Input(2), fm.Dense(1, kernel_initializer="zeros")])
    # The loss is a mean over the rows, the rule a sum: hence the factor.
    model.compile(optimizer=fm.SGD(RHO * len(x)), loss="perceptron")
    steps, wrong = 0, len(x)
    while wrong and steps < 1000:
        model.train_on_batch(x, y)
        steps += 1
        wrong = int((y * model.predict(x) <= 0).sum())
    results[name] = steps, wrong
    (w1, w2), b = model[0].kernel[:, 0], model[0].bias[0]
    line = f"{w1:.2f} x1 {w2:+.2f} x2 {b:+.2f} = 0"
    print(f"{name:>3}: {wrong} wrong after {steps:4} steps; the line is {line}")
    fm.plotting.decision_boundary(model, x, y, folder / f"lesson_02_{name.lower()}.png")
