"""Lesson 7: three kinds of iris, and what one lucky figure hides.

A tutorial trains this network at a learning rate of 0.001 and prints an accuracy of 0.92. That is
one split of the data and one set of initial weights. Ten of each tell another story: at 0.001 the
figures are anything from 0.6 to 1, and the luckiest beats every one at 0.01, where all are good.
"""

import sys
from pathlib import Path

import numpy as np

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
x, y = fm.datasets.load("iris")  # 150 flowers: length and width of sepals and petals, in cm


def dense(inputs, units):
    """A layer that begins as the tutorial's does: uniform, up to 1 / sqrt(inputs)."""
    uniform = fm.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5)
    return fm.Dense(units, kernel_initializer=uniform, bias_initializer=uniform)


def train(learning_rate, seed):
    """Train for 20 epochs; return the accuracy on flowers not seen, and the history."""
    split = fm.data.train_test_split(x, y, test_size=0.25, seed=seed, stratify=y)
    x_train, x_test, y_train, y_test = split
    layers = [dense(4, 128), fm.BatchNorm(), "relu", dense(128, 64), fm.BatchNorm(), "relu"]
    layers += [dense(64, 32), fm.BatchNorm(), "relu", dense(32, 16), "relu", dense(16, 3)]
    model = fm.Sequential(layers, seed=seed)
    model.compile(fm.SGD(learning_rate), "cross_entropy", metrics=["accuracy"])
    history = model.fit(
        x_train, y_train, batch_size=4, epochs=20, validation_data=(x_test, y_test), verbose=0
    )
    return history.history["val_accuracy"][-1], history


accuracies = {}
for name, rate in {"slow": 1e-3, "fast": 1e-2}.items():
    results = [train(rate, seed) for seed in range(10)]
    accuracies[rate] = [accuracy for accuracy, _ in results]
    print(f"learning rate {rate}:", *(f"{accuracy:.2f}" for accuracy in accuracies[rate]))
    low, mean, high = np.min(accuracies[rate]), np.mean(accuracies[rate]), np.max(accuracies[rate])
    print(f"    mean {mean:.2f}, from {low:.2f} to {high:.2f}")
    fm.plotting.history(results[0][1], folder / f"lesson_07_{name}.png")
