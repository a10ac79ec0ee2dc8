"""Lesson 5: back-propagation by hand, on the example that many tutorials compute with a pencil.

Two inputs, two hidden sigmoids, two output sigmoids; the loss is half the sum of squares. The chain
rule goes backwards through what was computed forwards:

    dL/do = o - t,    dL/dz = dL/do * o (1 - o),    dL/dW = h^T dL/dz,    dL/dh = dL/dz W^T
"""

import numpy as np

import fastmlp as fm


def half_squares(prediction, target):
    """The loss, and its derivative by the prediction."""
    return 0.5 * float(((prediction - target) ** 2).sum()), prediction - target


x, target = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
model = fm.Sequential(
    [fm.Input(2), fm.Dense(2, activation="sigmoid"), fm.Dense(2, activation="sigmoid")],
    dtype="float64",
)
# A kernel has a row for each input and a column for each unit.
w1, b1 = np.array([[0.15, 0.25], [0.20, 0.30]]), np.array([0.35, 0.35])
w2, b2 = np.array([[0.40, 0.50], [0.45, 0.55]]), np.array([0.60, 0.60])
model.set_weights([w1, b1, w2, b2])
model.compile(optimizer=fm.SGD(0.5), loss=half_squares)

np.set_printoptions(precision=9)
trace = model.trace(x, target)
print(trace)

# The same with a pencil.
h = 1 / (1 + np.exp(-(x @ w1 + b1)))
o = 1 / (1 + np.exp(-(h @ w2 + b2)))
dz2 = (o - target) * o * (1 - o)
dz1 = dz2 @ w2.T * h * (1 - h)
hidden, output = trace.layers
for by_trace, by_hand in (
    (hidden.output, h),
    (output.output, o),
    (output.d_before, dz2),
    (output.gradients["kernel"], h.T @ dz2),
    (hidden.d_before, dz1),
    (hidden.gradients["kernel"], x.T @ dz1),
):
    assert np.abs(by_trace - by_hand).max() < 1e-8

model.train_on_batch(x, target)  # w <- w - 0.5 dL/dw
print("after one step w1..w4 =", *(f"{w:.8f}" for w in model.layers[0].kernel.T.ravel()))
print("               w5..w8 =", *(f"{w:.8f}" for w in model.layers[1].kernel.T.ravel()))
assert np.abs(model.layers[1].kernel - (w2 - 0.5 * h.T @ dz2)).max() < 1e-8
