"""Lesson 1: gates by hand. A perceptron says 1 where w1 x1 + w2 x2 + b > 0, and 0 elsewhere.

No training: weights of a half and the right bias make AND, NAND and OR. XOR is no single
perceptron, since no line has (0, 1) and (1, 0) on one side and (0, 0) and (1, 1) on the other; but
it is AND of NAND and OR.
"""

import numpy as np

import fastmlp as fm

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def gate(w1, w2, bias):
    """A network of one perceptron with these weights."""
    perceptron = fm.Sequential([fm.Input(2), fm.Dense(1, activation="step")])
    perceptron.set_weights([[[w1], [w2]], [bias]])
    return perceptron


gates = {
    "AND": gate(0.5, 0.5, -0.7),
    "NAND": gate(-0.5, -0.5, 0.7),
    "OR": gate(0.5, 0.5, -0.2),
}

# Three perceptrons in two layers: NAND and OR side by side, and AND of both.
xor = fm.Sequential([fm.Input(2), fm.Dense(2, activation="step"), fm.Dense(1, activation="step")])
nand, either, both = gates["NAND"][0], gates["OR"][0], gates["AND"][0]
xor.set_weights(
    [
        np.hstack([nand.kernel, either.kernel]),
        np.hstack([nand.bias, either.bias]),
        both.kernel,
        both.bias,
    ]
)
gates["XOR"] = xor

print("x1 x2 ", *(f"{name:>5}" for name in gates))
table = np.hstack([network.predict(x) for network in gates.values()]).astype(int)
for inputs, outputs in zip(x, table):
    print(f"{inputs[0]:2} {inputs[1]:2} ", *(f"{output:5}" for output in outputs))
