"""Lesson 8: a `Sequential` is a list of layers: add to it, take away, look inside, call it."""

import numpy as np

import fastmlp as fm

model = fm.Sequential(seed=0)
model.add(fm.Dense(8, activation="relu"))
model.add(fm.Dense(4, activation="relu"))
model.add(fm.Dropout(0.5))
model.add(fm.Dense(2, activation="softmax"))
print(len(model), "layers, built:", model.built)

x = np.ones((3, 3))
y = model(x)  # the first data builds it: now it is known that rows have 3 numbers
print("outputs of", x.shape, "have shape", y.shape, "and rows that sum to", y.sum(axis=1))
model.summary()

last = model.pop()
print("\nwithout", last.label, "the outputs have shape", model(x).shape)

first = model[0]  # a layer; model[:2] is a list of two
print("model[0] has a kernel of", first.kernel.shape, "and a bias of", first.bias.shape)
first.bias[0] = 1.0  # a view of the model's own numbers, so this changes the model
print("the first unit went up by", model[0].bias[0])

model.add(fm.Dense(5))  # a new end; the layers before it keep their weights
print("with a new end:", model(x).shape, "and", model.count_params(), "parameters")
