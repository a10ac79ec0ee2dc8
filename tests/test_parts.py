"""Gradients in parts: of a large batch of narrow layers they are sums over even shares of its rows.

So threads need not read one another's rows. How many parts depends on the rows alone: the bits are
the same for every number of threads, and for a last, shorter batch by whichever plan it runs.
"""

from __future__ import annotations

import numpy as np
import pytest
from support import (
    assert_poison_does_not_matter,
    assert_same_bits,
    assert_side_by_side_as_alone,
    relative_distance,
    train_by_hand,
)

import fastmlp as fm
from fastmlp import training

FEATURES, CLASSES, ROWS = 9, 5, 2700
rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((ROWS, FEATURES)), rng.randint(CLASSES, size=ROWS)
# Of 2,700 rows: two, four and eight parts, and a last batch of none, of two and of four.
BATCHES = {300: "two", 500: "two, then none", 800: "four, then two", 1100: "eight, then two"}


def network(dtype: str = "float32") -> fm.Sequential:
    """Layers whose gradients are sums of parts, and others between them."""
    layers = [
        fm.Dense(33, "relu"), fm.BatchNorm(), fm.Dense(17, use_bias=False, l2=0.01), fm.PReLU(),
        fm.Dropout(0.1), fm.LayerNorm(), fm.Dense(20), fm.Maxout(2), fm.Dense(CLASSES),
    ]  # fmt: skip
    model = fm.Sequential(layers, seed=3, dtype=dtype)
    model.compile(fm.Adam(0.01), "cross_entropy", metrics=["accuracy"])
    return model


def sums(batch: int) -> int:
    """Return how many sums of columns a step makes."""
    records, *_ = training.profile(network(), X, LABELS, batch, 1)
    return [name for name, *_ in records].count("ColumnSum")


def test_only_large_batches_have_parts():
    plain = sums(100)
    assert plain == 4  # the biases
    for batch in BATCHES:
        assert sums(batch) == plain + 9  # and what the parts of five kernels and these add up to


@pytest.mark.parametrize("batch", BATCHES, ids=BATCHES.values())
def test_they_have_the_same_bits_on_every_number_of_threads(batch, dtype, threads):
    results = []
    for count in (1, 2, 3, 5):  # 3 and 5 share neither 2 nor 8 evenly
        fm.set_num_threads(count)
        model = network(dtype)
        history = model.fit(X, LABELS, batch_size=batch, epochs=2, verbose=0).history
        results.append([*model.get_weights(), np.array(history["loss"])])
    for other in results[1:]:
        assert_same_bits(other, results[0])


@pytest.mark.parametrize("batch", BATCHES, ids=BATCHES.values())
def test_the_loop_written_out_gives_the_bits_of_fit(batch, dtype):
    fitted, by_hand = network(dtype), network(dtype)
    fitted.fit(X, LABELS, batch_size=batch, verbose=0)
    train_by_hand(by_hand, fm.Adam(0.01), fm.losses.cross_entropy, X, LABELS, batch)
    assert_same_bits(by_hand.get_weights(), fitted.get_weights())


@pytest.mark.parametrize("rows", [555, 556, 1100, 2700])
@pytest.mark.parametrize("units", [1, 7, 16])
def test_they_add_up_to_the_gradient(rows, units, dtype, threads):
    x, g = X[:rows], rng.standard_normal((rows, units))
    kernel, bias = x.T @ g, g.sum(axis=0)
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        model = fm.Sequential([fm.Dense(units)], seed=0, dtype=dtype)
        model.build(FEATURES)
        model.forward(x, training=True)
        model.backward(g)
        found = model.layers[0].gradients
        tolerance = 10 * np.finfo(dtype).eps
        assert relative_distance(found["kernel"], kernel) < tolerance
        assert relative_distance(found["bias"], bias) < tolerance


def test_networks_side_by_side_have_the_bits_of_each_alone(threads):
    for count in (1, 2, 4):
        fm.set_num_threads(count)
        assert_side_by_side_as_alone(network, X, LABELS, 500)


def test_what_lay_in_memory_before_does_not_matter(monkeypatch, dtype, threads):
    assert_poison_does_not_matter(monkeypatch, lambda: network(dtype), X, LABELS, 500)


def test_a_loss_that_is_not_finite_stops_before_the_update(threads):
    y = np.array(rng.standard_normal((ROWS, 3)), "float32")
    y[2 * 500 + 3] = 1e30  # in the third batch; its square is beyond float32
    for count in (1, 2):
        fm.set_num_threads(count)
        model, twin = (fm.Sequential([fm.Dense(30, "tanh"), fm.Dense(3)], seed=1) for _ in range(2))
        for m in (model, twin):
            m.compile(fm.Adam(0.01), "mse")
        with pytest.raises(FloatingPointError, match="epoch 0.*step 2"):
            model.fit(X, y, batch_size=500, shuffle=False, verbose=0)
        for i in range(2):
            twin.train_on_batch(*(a[500 * i : 500 * (i + 1)] for a in (X, y)))
        assert_same_bits(model.get_weights(), twin.get_weights())
