"""Lesson 9: clothes of Fashion-MNIST, told apart by their pixels.

Downloads 30 MB the first time: pip install "fastmlp[data]". Without a network it takes handwritten
digits instead.
"""

import sys
from pathlib import Path

import _images
import numpy as np

import fastmlp as fm

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
folder.mkdir(parents=True, exist_ok=True)
name, x_train, y_train, x_test, y_test = _images.load("fashion_mnist")
classes = list("0123456789")
if name == "fashion_mnist":
    classes = ["T-shirt", "trouser", "pullover", "dress", "coat"]
    classes += ["sandal", "shirt", "sneaker", "bag", "boot"]

model = fm.Sequential(
    [fm.Dense(128, activation="relu"), fm.Dense(10, activation="softmax")],
    seed=0,
)
model.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=32, epochs=5)

accuracy = model.evaluate(x_test, y_test)["accuracy"]
print(f"test accuracy {accuracy:.4f}")

# A dozen images, and below them the six mistakes that the network was surest of.
probabilities = model.predict(x_test)
guesses, sureness = probabilities.argmax(axis=1), probabilities.max(axis=1)
mistakes = np.flatnonzero(guesses != y_test)
shown = [*range(12), *mistakes[sureness[mistakes].argsort()[:-7:-1]]]
titles = []
for i in shown:
    right = "" if guesses[i] == y_test[i] else f"\nnot {classes[y_test[i]]}"
    titles.append(f"{classes[guesses[i]]} {sureness[i]:.0%}{right}")
fm.plotting.images(x_test[shown], titles, folder / "lesson_09_predictions.png")
fm.plotting.confusion_matrix(y_test, probabilities, classes, folder / "lesson_09_confusion.png")
