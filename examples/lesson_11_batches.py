"""Lesson 11: how many rows to a step? One, 32, 256, or all of them.

Every row is seen five times in each case. Small batches make many steps, each in a rough direction;
large ones few steps, each in a better one, and use the machine better: compare seconds and steps.
"""

import time

import _images

import fastmlp as fm

EPOCHS = 5
_, x_train, y_train, x_test, y_test = _images.load("mnist")
x_train, y_train = x_train[:8000], y_train[:8000]  # enough to see it, and batches of 1 take long

results = {}
print("  batch   steps  seconds  loss in training  test accuracy")
for batch_size in (1, 32, 256, len(x_train)):
    model = fm.Sequential([fm.Dense(128, activation="relu"), fm.Dense(10)], seed=0)
    model.compile(optimizer=fm.SGD(0.05), loss="cross_entropy", metrics=["accuracy"])
    begin = time.perf_counter()
    model.fit(x_train, y_train, batch_size=batch_size, epochs=EPOCHS, verbose=0)
    seconds = time.perf_counter() - begin
    steps = EPOCHS * -(-len(x_train) // batch_size)
    loss = model.evaluate(x_train, y_train)["loss"]
    accuracy = model.evaluate(x_test, y_test)["accuracy"]
    results[batch_size] = steps, loss, accuracy
    print(f"{batch_size:7,} {steps:7,} {seconds:8.2f} {loss:17.4f} {accuracy:14.4f}")
