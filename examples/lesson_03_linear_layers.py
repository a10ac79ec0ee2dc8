"""Lesson 3: linear layers stay linear: however many are stacked, they are one layer.

(x W1 + b1) W2 + b2  =  x (W1 W2) + (b1 W2 + b2)
"""

import numpy as np

import fastmlp as fm

x = np.random.default_rng(0).standard_normal((100, 3))


def difference(activation):
    """How far a network of two layers is from the one layer that its products make."""
    deep = fm.Sequential(
        [
            fm.Input(3),
            fm.Dense(8, activation=activation, bias_initializer="random_normal"),
            fm.Dense(2, bias_initializer="random_normal"),
        ],
        dtype="float64",
        seed=0,
    )
    first, second = deep.layers
    flat = fm.Sequential([fm.Input(3), fm.Dense(2)], dtype="float64")
    flat.layers[0].kernel = fm.kernels.matmul(first.kernel, second.kernel)
    flat.layers[0].bias = first.bias @ second.kernel + second.bias
    return np.abs(deep.predict(x) - flat.predict(x)).max()


without = difference(None)
print(f"without an activation, two layers and one differ by {without:.1e}: rounding")
assert without < 1e-14

with_tanh = difference("tanh")
print(f"with tanh between them, by {with_tanh:.2f}: only now is the network more than one layer")
assert with_tanh > 0.1
