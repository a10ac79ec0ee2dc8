"""Lesson 4: activations and their derivatives, drawn from -8 to 8.

Back-propagation multiplies by a derivative in every layer. That of sigmoid is at most 1/4 and that
of tanh at most 1, both at 0, and both vanish where the input is large: a saturated unit learns
nothing. ReLU passes a gradient on whole or not at all; its relatives leave a way back.
"""

import sys
from pathlib import Path

import numpy as np

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
k = fm.kernels
x = np.arange(-8, 8, 1 / 64)

# What a backward kernel takes is what it needs: the output y where that is enough, else the input.
derivatives = {
    "relu": lambda x: k.relu_backward(np.ones_like(x), k.relu(x)),
    "leaky_relu": lambda x: k.leaky_relu_backward(np.ones_like(x), k.leaky_relu(x, 0.25), 0.25),
    "sigmoid": lambda x: k.sigmoid_backward(np.ones_like(x), k.sigmoid(x)),
    "tanh": lambda x: k.tanh_backward(np.ones_like(x), k.tanh(x)),
    "elu": lambda x: k.elu_backward(np.ones_like(x), k.elu(x)),
    "swish": lambda x: k.swish_backward(np.ones_like(x), x),
}

print("            largest      at    f'(-10)     f'(10)")
largest, ends = {}, {}
for name, derivative in derivatives.items():
    slopes = derivative(x)
    at = slopes.argmax()
    largest[name] = slopes[at], x[at]
    ends[name] = derivative(np.array([-10.0, 10.0]))
    low, high = ends[name]
    print(f"{name:>10}  {slopes[at]:7.4f}  {x[at]:6.2f}  {low:9.2g}  {high:9.2g}")

# PReLU is leaky_relu with a slope that is learned, from 0.25 on (He et al., arXiv:1502.01852).
slopes = [0.25 if name == "leaky_relu" else None for name in derivatives]
path = folder / "lesson_04_activations.png"
fm.plotting.activation(list(derivatives), parameter=slopes, path=path)
