"""Updates at once: a large kernel is updated where its gradient is made, while that is in a cache.

It has to have the bits of an update from gradients that were kept (the loop written out), for every
number of threads and networks, and must wait wherever something can still stop the step.
"""

from __future__ import annotations

import numpy as np
import pytest
from support import assert_padding_is_zero, assert_same_bits, train_by_hand

import fastmlp as fm

FEATURES, CLASSES, ROWS = 150, 50, 330
rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((ROWS, FEATURES)), rng.randint(CLASSES, size=ROWS)

OPTIMIZERS = {
    "sgd": lambda: fm.SGD(0.1),
    "momentum, clip_value": lambda: fm.SGD(0.1, momentum=0.9, nesterov=True, clip_value=0.001),
    "adam": lambda: fm.Adam(0.01),
    "amsgrad": lambda: fm.AdamW(0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda: fm.RMSprop(0.001, centered=True, momentum=0.5),
    "clip_norm": lambda: fm.Adam(0.01, clip_norm=0.1),
}


def network(optimizer: fm.Optimizer, dtype: str = "float32", **penalty: float) -> fm.Sequential:
    """Kernels of many rows and of few, one that may be penalised, vectors of other layers."""
    layers = [
        fm.Dense(300, "relu"), fm.Dense(7), fm.BatchNorm(), fm.PReLU(), fm.Dense(400, "tanh"),
        fm.Dense(200, "relu", use_bias=False, **penalty), fm.LayerNorm(), fm.Dropout(0.1),
        fm.Dense(CLASSES),
    ]  # fmt: skip
    model = fm.Sequential(layers, seed=3, dtype=dtype)
    model.compile(optimizer, "cross_entropy")
    return model


@pytest.mark.parametrize("penalty", [{}, {"l2": 0.01}], ids=["plain", "penalised"])
@pytest.mark.parametrize("batch", [3, 45, 150])  # rows of a kernel in small blocks, or together
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_they_give_the_bits_of_gradients_that_are_kept(name, batch, penalty, dtype, threads):
    kept = network(OPTIMIZERS[name](), dtype, **penalty)
    train_by_hand(kept, OPTIMIZERS[name](), fm.losses.cross_entropy, X, LABELS, batch)
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        model = network(OPTIMIZERS[name](), dtype, **penalty)
        model.fit(X, LABELS, batch_size=batch, verbose=0)
        assert_same_bits(model.get_weights(), kept.get_weights())


def test_networks_side_by_side_have_the_bits_of_each_alone(threads):
    for count in (1, 2, 3):
        fm.set_num_threads(count)
        together = fm.Ensemble(network(fm.Adam(0.01)), 3)
        alone = list(together)
        together.fit(X, LABELS, batch_size=45, verbose=0)
        for i, model in enumerate(alone):
            model.fit(X, LABELS, batch_size=45, verbose=0)
            assert_same_bits(together[i].get_weights(), model.get_weights())


def test_a_last_batch_of_two_rows(threads):
    for count in (1, 2):
        fm.set_num_threads(count)
        model, twin = network(fm.Adam(0.01)), network(fm.Adam(0.01))
        model.fit(X[:47], LABELS[:47], batch_size=45, shuffle=False, verbose=0)
        twin.train_on_batch(X[:45], LABELS[:45])
        twin.train_on_batch(X[45:47], LABELS[45:47])
        assert_same_bits(model.get_weights(), twin.get_weights())


def test_a_penalty_that_is_not_finite_stops_before_all_of_them(threads):
    """The last layer's gradient is made before the penalty is known, the first one's behind it."""
    for count in (1, 2):
        fm.set_num_threads(count)
        layers = [fm.Dense(300), fm.Dense(300, l2=1.0), fm.Dense(300, "relu"), fm.Dense(CLASSES)]
        model = fm.Sequential(layers, seed=0)
        model.compile(fm.SGD(0.1), "cross_entropy")
        model.build(FEATURES)
        model.layers[1].kernel[0, 0] = 1e25  # its square is beyond float32
        before = model.get_weights()
        with pytest.raises(FloatingPointError, match="not finite"):
            model.fit(X, LABELS, batch_size=45, verbose=0)
        assert_same_bits(model.get_weights(), before)


@pytest.mark.filterwarnings("ignore:fit. x has values")
def test_a_loss_that_is_not_finite_stops_before_all_of_them(threads):
    x = np.array(X)
    x[2 * 45 + 3] = 1e38  # in the third batch; its products are beyond float32
    for count in (1, 2):
        fm.set_num_threads(count)
        model, twin = network(fm.Adam(0.01)), network(fm.Adam(0.01))
        with pytest.raises(FloatingPointError, match="epoch 0.*step 2"):
            model.fit(x, LABELS, batch_size=45, shuffle=False, verbose=0)
        for i in range(2):
            twin.train_on_batch(*(a[45 * i : 45 * (i + 1)] for a in (x, LABELS)))
        assert_same_bits(model.get_weights(), twin.get_weights())


def test_padding_stays_zero(dtype):
    model = network(fm.Adam(0.01), dtype)
    model.fit(X, LABELS, batch_size=45, verbose=0)
    assert_padding_is_zero(model)
