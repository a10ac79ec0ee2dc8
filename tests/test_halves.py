"""Products whose sums are taken in two halves: those with large kernels, while training.

So each of two threads reads the rows of a kernel that it has updated itself, and the columns of the
batch that it has gathered. Whether a product is in halves depends on its shape and on the rows of
the batch alone: the bits are the same for every number of threads, and for a last, shorter batch by
whichever plan it runs.
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

FEATURES, WIDE, CLASSES, ROWS = 700, 601, 5, 431
HALF = 704 // 16 // 2 * 16  # of the features: whole groups of sixteen
MOST = FEATURES * WIDE // (8 * WIDE - FEATURES)  # rows that the first kernel is large beside
rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((ROWS, FEATURES)), rng.randint(CLASSES, size=ROWS)
WEIGHTS = rng.uniform(0.5, 2, size=ROWS)
# In halves are the products of two layers; of one, and in the last batch of two; of two.
BATCHES = {40: "both", 300: "the second, then both", 7: "both, few rows"}
THREADS = (1, 2, 3, 4, 5)  # 3 and 5 do not share out two halves evenly


def network(dtype: str = "float32", dropout: float = 0.0) -> fm.Sequential:
    """Two layers in halves, one of which keeps what its activation takes, and others."""
    layers = [fm.Dropout(dropout)] if dropout else []
    layers += [
        fm.Dense(WIDE, "gelu"), fm.Dense(33, "relu", use_bias=False), fm.BatchNorm(),
        fm.Dense(CLASSES),
    ]  # fmt: skip
    model = fm.Sequential(layers, seed=3, dtype=dtype)
    model.compile(fm.Adam(0.01), "cross_entropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("rows", [1, 5, MOST, MOST + 1])
def test_a_sum_is_that_of_its_halves(rows, dtype, threads):
    x = np.asarray(X[:rows], dtype)
    for count in THREADS:
        fm.set_num_threads(count)
        model = fm.Sequential([fm.Dense(WIDE, use_bias=False)], seed=0, dtype=dtype)
        model.build(FEATURES)
        kernel = np.ascontiguousarray(model.layers[0].kernel)
        whole, first, second = (
            fm.kernels.matmul(np.ascontiguousarray(x[:, part]), kernel[part])
            for part in (slice(None), slice(HALF), slice(HALF, None))
        )
        assert not np.array_equal(first + second, whole)
        expected = first + second if rows <= MOST else whole
        assert_same_bits([model.forward(x, training=True)], [expected])
        assert_same_bits([model.predict(x)], [whole])  # what does not train has no use for halves


@pytest.mark.parametrize("features", [511, 512, 513, 527, 1000])
@pytest.mark.parametrize("units", [1, 7, 64])
def test_forward_and_gradients_are_right(features, units, dtype, threads):
    x, g = rng.standard_normal((9, features)), rng.standard_normal((9, units))
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        model = fm.Sequential([fm.Dense(units, "softplus")], seed=0, dtype=dtype)
        model.build(features)
        kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
        z = np.asarray(x, dtype).astype("float64") @ kernel + bias
        tolerance = 20 * np.finfo(dtype).eps
        assert relative_distance(model.forward(x, training=True), np.log1p(np.exp(z))) < tolerance
        dx = model.backward(g)
        dz = np.asarray(g, dtype) / (1 + np.exp(-z))
        assert relative_distance(dx, dz @ kernel.T) < tolerance
        assert relative_distance(model.layers[0].gradients["kernel"], x.T @ dz) < tolerance


@pytest.mark.parametrize("batch", BATCHES, ids=BATCHES.values())
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_they_have_the_same_bits_on_every_number_of_threads(batch, dropout, dtype, threads):
    results = []
    for count in THREADS:
        fm.set_num_threads(count)
        model = network(dtype, dropout)
        history = model.fit(
            X, LABELS, sample_weight=WEIGHTS, batch_size=batch, epochs=2, verbose=0
        ).history
        results.append([*model.get_weights(), np.array(history["loss"])])
    for other in results[1:]:
        assert_same_bits(other, results[0])


@pytest.mark.parametrize("batch", BATCHES, ids=BATCHES.values())
def test_the_loop_written_out_gives_the_bits_of_fit(batch, dtype, threads):
    for count in (1, 2):
        fm.set_num_threads(count)
        fitted, by_hand = network(dtype), network(dtype)
        fitted.fit(X, LABELS, batch_size=batch, verbose=0)
        train_by_hand(by_hand, fm.Adam(0.01), fm.losses.cross_entropy, X, LABELS, batch)
        assert_same_bits(by_hand.get_weights(), fitted.get_weights())


def test_rows_in_their_order_and_weighted(threads):
    for count in (1, 2):
        fm.set_num_threads(count)
        fitted, by_hand = network(), network()
        fitted.fit(X, LABELS, sample_weight=WEIGHTS, batch_size=60, shuffle=False, verbose=0)
        for i in range(0, ROWS, 60):
            rows = slice(i, i + 60)
            by_hand.train_on_batch(X[rows], LABELS[rows], sample_weight=WEIGHTS[rows])
        assert_same_bits(by_hand.get_weights(), fitted.get_weights())


def test_networks_side_by_side_have_the_bits_of_each_alone(threads):
    for count in (1, 2, 3, 4):
        fm.set_num_threads(count)
        assert_side_by_side_as_alone(network, X, LABELS, 60)


def test_what_lay_in_memory_before_does_not_matter(monkeypatch, dtype, threads):
    assert_poison_does_not_matter(monkeypatch, lambda: network(dtype), X, LABELS, 60)
