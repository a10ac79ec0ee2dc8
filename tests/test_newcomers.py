"""What everyone gets wrong once gives the right result, or a sentence that says what is wrong."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from support import assert_same_bits

import fastmlp as fm

RNG = np.random.RandomState(0)
X = RNG.standard_normal((12, 4))
LABELS = np.arange(12) % 3


def model(*layers, loss="cross_entropy", optimizer="sgd", **settings) -> fm.Sequential:
    network = fm.Sequential(layers or [fm.Dense(3)], seed=0, **settings)
    network.compile(optimizer, loss)
    return network


def trained(y, *layers, x=X, **settings) -> list[np.ndarray]:
    """The weights after three epochs."""
    network = model(*layers, **settings)
    network.fit(x, y, epochs=3, batch_size=5, verbose=0)
    return network.get_weights()


# ---- labels


def test_labels_from_one():
    says = r"label 3 at row 2 is outside 0..2; labels start at 0, these go from 1 to 3: use y - 1"
    with pytest.raises(ValueError, match=says):
        model().fit(X, LABELS + 1)
    with pytest.raises(ValueError, match="labels start at 0"):
        fm.losses.cross_entropy(np.zeros((3, 3)), [1, 2, 3])


@pytest.mark.parametrize("labels", [[0, 1, 7], [1, 2, 4], [-1, 0, 1]])
def test_other_labels_out_of_range_have_another_reason(labels):
    with pytest.raises(ValueError, match=r"is outside 0..2$"):
        fm.losses.cross_entropy(np.zeros((3, 3)), labels)


@pytest.mark.parametrize(
    "y",
    [LABELS.reshape(-1, 1), LABELS.astype(float), np.eye(3)[LABELS], LABELS.tolist()],
    ids=["column", "float", "one-hot", "list"],
)
def test_labels_in_any_form(y):
    for got, expected in zip(trained(y), trained(LABELS), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("names", [["cat", "dog", "cow"] * 4, np.array(["a"] * 12, object)])
def test_names_in_place_of_labels(names):
    with pytest.raises(TypeError, match=r"fit: y must be real numbers, .*; np.unique\(y, return_"):
        model().fit(X, names)
    made = np.unique(names, return_inverse=True)[1]  # what the sentence says
    model().fit(X, made)


def test_texts_among_the_inputs():
    with pytest.raises(TypeError, match="fit: x must be real numbers, .*; encode texts as numbers"):
        model().fit([["1", "red"]] * 3, [0, 1, 2])


def test_y_of_another_length():
    with pytest.raises(ValueError, match="fit: x has 12 rows, but y has 11"):
        model().fit(X, LABELS[1:])


# ---- regression


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_a_flat_target_meets_a_column_of_outputs(loss):
    y = RNG.standard_normal(12)
    assert_same_bits(
        trained(y, fm.Dense(1), loss=loss), trained(y[:, None], fm.Dense(1), loss=loss)
    )


@pytest.mark.parametrize("loss", [fm.losses.mse, fm.losses.mae, fm.losses.binary_cross_entropy])
def test_loss_functions_do_not_broadcast(loss):
    z, t = RNG.standard_normal(5), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    value, gradient = loss(z, t)
    for prediction, target in ((z[:, None], t), (z, t[:, None]), (z[:, None], t[:, None])):
        other, slope = loss(prediction, target)
        assert other == value
        assert slope.shape == prediction.shape
        np.testing.assert_array_equal(slope.ravel(), gradient)
    with pytest.raises(ValueError, match=r"expected targets of shape \(5, 3\), got \(5,\)"):
        loss(np.zeros((5, 3)), t)


def test_the_gradient_of_a_flat_target_is_right():
    network = model(fm.Dense(3, "tanh"), fm.Dense(1), loss="mse")
    assert max(fm.check_gradients(network, X, X[:, 0]).values()) < 1e-7


def test_a_loss_of_ones_own_that_broadcasts():
    def squares(prediction, target):
        difference = prediction - target  # (n, 1) and (n,) make (n, n)
        return float((difference**2).mean()), 2 * difference / difference.size

    with pytest.raises(
        ValueError, match=r"got \(5, 5\); the target has shape \(5,\): does it broad"
    ):
        model(fm.Dense(1), loss=squares).fit(X, X[:, 0], batch_size=5)


# ---- endings


def test_softmax_before_cross_entropy_is_recognised():
    with_softmax = trained(LABELS, fm.Dense(3, activation="softmax"))
    assert_same_bits(with_softmax, trained(LABELS, fm.Dense(3)))
    assert_same_bits(with_softmax, trained(LABELS, fm.Dense(3), fm.Softmax()))


def test_the_function_cross_entropy_warns_of_probabilities():
    probabilities = fm.kernels.softmax(X[:, :3])
    with pytest.warns(UserWarning, match="cross_entropy: every row .* probabilities") as caught:
        fm.losses.cross_entropy(probabilities, LABELS)
    assert caught[0].filename == __file__  # at the line that is wrong
    with pytest.warns(UserWarning, match="takes logits"):
        fm.losses.cross_entropy(probabilities.tolist(), LABELS)


@pytest.mark.parametrize(
    "logits",
    [X[:, :3], np.log(fm.kernels.softmax(X[:, :3])), np.zeros((12, 3)), np.eye(3)[LABELS] * 2],
    ids=["logits", "logarithms", "zeros", "large"],
)
def test_the_function_cross_entropy_takes_logits_in_silence(logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fm.losses.cross_entropy(logits, LABELS)
        fm.losses.cross_entropy([[0.0, 1.0]], [1])  # one row may sum to 1 by chance


def test_sigmoid_before_cross_entropy():
    with pytest.raises(ValueError, match="for a final sigmoid use binary_cross_entropy"):
        model(fm.Dense(3, activation="sigmoid")).fit(X, LABELS)


def test_one_output_for_cross_entropy():
    with pytest.raises(ValueError, match="for one output use binary_cross_entropy"):
        model(fm.Dense(1)).fit(X, LABELS)


def test_forgetting_compile():
    network = fm.Sequential([fm.Dense(3)])
    for call in (network.fit, network.evaluate, network.train_on_batch):
        with pytest.raises(RuntimeError, match="call compile first"):
            call(X, LABELS)


# ---- scale

PIXELS = RNG.randint(256, size=(600, 16)).astype(np.uint8)
DIGITS = np.arange(600) % 3


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_raw_pixels(kind):
    with pytest.warns(UserWarning, match="as large as 255, .* divide pixels by 255") as caught:
        model().fit(PIXELS.astype(kind), DIGITS, verbose=0)
    assert caught[0].filename == __file__
    deeper = model(fm.Flatten(), fm.Dropout(0.1), fm.Dense(3))
    with pytest.warns(UserWarning, match="divide pixels by 255"):
        deeper.fit(PIXELS.reshape(-1, 4, 4), DIGITS, verbose=0)


@pytest.mark.parametrize(
    "x",
    [PIXELS / 255, PIXELS / 16, np.full((600, 16), 1000), np.eye(600, 16) * 500],
    ids=["scaled", "up to 16", "constant", "outlier"],
)
def test_other_inputs_are_taken_in_silence(x):
    model(optimizer=fm.SGD(1e-9)).fit(x, DIGITS, verbose=0)


@pytest.mark.parametrize("first", [fm.Tanh(), fm.BatchNorm()], ids=["tanh", "batch"])
def test_a_network_that_may_scale_by_itself_is_trusted(first):
    network = model(first, fm.Dense(3))
    network.fit(PIXELS, DIGITS, verbose=0)


def test_training_that_diverges_says_what_to_try():
    x = np.linspace(-50, 50, 64).reshape(-1, 1)
    with pytest.raises(FloatingPointError, match="a smaller learning rate .* and scale the inputs"):
        model(fm.Dense(1), loss="mse", optimizer=fm.SGD(1.0)).fit(x, x, epochs=100, verbose=0)
