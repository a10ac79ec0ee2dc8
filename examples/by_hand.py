"""XOR from the kernels alone: no model, no optimizer object, only arrays and functions."""

import numpy as np

from fastmlp import kernels as k

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32")
labels = np.array([0, 1, 1, 0])

w1, w2 = 0.5 * k.random_normal((2, 8), seed=0), 0.5 * k.random_normal((8, 2), seed=1)
b1, b2 = np.zeros(8, "float32"), np.zeros(2, "float32")

for step in range(1, 501):
    hidden = k.dense_forward(x, w1, b1, "tanh")
    logits = k.dense_forward(hidden, w2, b2)
    losses, gradient = k.softmax_cross_entropy(logits, labels)  # one loss a row

    d_hidden, d_w2, d_b2 = k.dense_backward(gradient / 4, hidden, logits, w2)
    _, d_w1, d_b1 = k.dense_backward(d_hidden, x, hidden, w1, "tanh")
    for parameter, slope in ((w1, d_w1), (b1, d_b1), (w2, d_w2), (b2, d_b2)):
        k.sgd_update(parameter, slope, learning_rate=0.5)
    if step % 100 == 0:
        print(f"step {step}: loss {losses.mean():.4f}")

print("0 xor 0, 0 xor 1, 1 xor 0, 1 xor 1 =", logits.argmax(axis=1))
