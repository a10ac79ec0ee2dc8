"""The training loop written out, with a loss of one's own in the middle."""

import numpy as np

import fastmlp as fm


def huber(prediction, target):
    """Squares of small errors, absolute values of large ones: outliers pull less than in mse."""
    error = prediction - target
    clipped = np.clip(error, -1, 1)
    return np.mean(clipped * (error - clipped / 2)), clipped / error.size


rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, (1000, 1))
y = np.sin(x) + 0.1 * rng.standard_normal(x.shape)
y[::20] += 10  # one target in twenty is far off

model = fm.Sequential([fm.Dense(32, activation="tanh"), fm.Dense(1)], seed=0)
optimizer = fm.Adam(0.01)
batches = fm.data.DataLoader(x, y, batch_size=50, shuffle=True, seed=0)

for epoch in range(1, 51):
    losses = []
    for xb, yb in batches:
        prediction = model.forward(xb, training=True)
        loss, gradient = huber(prediction, yb)
        model.backward(gradient)
        optimizer.step(model)
        losses.append(loss)
    if epoch % 10 == 0:
        slope = np.abs(model.layers[0].gradients["kernel"]).max()
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, steepest slope {slope:.4f}")

error = np.abs(model.predict(x) - np.sin(x)).mean()
print(f"mean distance from the sine: {error:.3f}")
