"""Handwritten digits: train until it no longer helps, then save the model and use it.

Needs scikit-learn, which brings the images: pip install ".[demo]"
"""

import fastmlp as fm

x, y = fm.datasets.load("digits")  # (1797, 64) grey values from 0 to 16, labels 0..9
x_train, x_test, y_train, y_test = fm.data.train_test_split(x / 16, y, stratify=y)

model = fm.Sequential(
    [
        fm.Dense(128, activation="relu"),
        fm.Dropout(0.2),
        fm.Dense(64, activation="relu"),
        fm.Dense(10),
    ],
    seed=0,
)
model.compile(optimizer=fm.Adam(3e-3), loss="cross_entropy", metrics=["accuracy"])
stopping = fm.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
history = model.fit(x_train, y_train, epochs=60, validation_split=0.1, callbacks=[stopping])
model.summary()

test = model.evaluate(x_test, y_test)
print(f"\n{len(history.epoch)} epochs; on images not seen, accuracy {test['accuracy']:.3f}")

model.save("digits.safetensors")
again = fm.load("digits.safetensors")
guess = again.predict(x_test).argmax(axis=1)
print("mistaken:", ", ".join(f"{t} for {g}" for t, g in zip(y_test, guess) if t != g))
