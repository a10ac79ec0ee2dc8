"""Lesson 10: MNIST by an open loop: forward, loss, backward, step, as `fit` does it inside."""

import sys
from pathlib import Path

import _images

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
name, x_train, y_train, x_test, y_test = _images.load("mnist")

model = fm.Sequential(
    [
        # Variance 2 / inputs keeps the signal's size through ReLU (He et al., arXiv:1502.01852).
        fm.Dense(256, "relu", kernel_initializer="he_normal", bias_initializer="zeros"),
        fm.Dense(10, kernel_initializer="he_normal", bias_initializer="zeros"),
    ],
    seed=0,
)
optimizer = fm.Adam(1e-3)
batches = fm.data.DataLoader(x_train, y_train, batch_size=128, shuffle=True, seed=0)

curves = {"loss": [], "accuracy": [], "val_accuracy": []}
for epoch in range(10):
    total = right = 0.0
    for x, y in batches:
        logits = model.forward(x, training=True)
        loss, gradient = fm.losses.cross_entropy(logits, y)  # the mean over this batch
        model.backward(gradient)
        optimizer.step(model)
        total += loss * len(x)  # the last batch is smaller, so it counts less
        right += fm.metrics.accuracy(logits, y) * len(x)
    test_accuracy = fm.metrics.accuracy(model.predict(x_test), y_test)
    epoch_figures = total / len(x_train), right / len(x_train), test_accuracy
    for curve, figure in zip(curves.values(), epoch_figures):
        curve.append(figure)
    print(f"epoch {epoch + 1:2}:", *(f"{k} {c[-1]:.4f} " for k, c in curves.items()))

fm.plotting.history(curves, folder / "lesson_10_history.png")
