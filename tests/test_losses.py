"""The functions of fm.losses, and the same losses by name: values, gradients, targets, endings."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from support import LAYOUTS, assert_same_bits

import fastmlp as fm
from fastmlp.device import to_host

LOSSES = list(ref.LOSSES)
FUNCTIONS = {name: getattr(fm.losses, name) for name in LOSSES}
SHAPES = [(1, 1), (1, 7), (7, 1), (33, 7), (257, 10), (7, 257)]


def example(loss: str, rows: int, outputs: int, dtype: str = "float64", seed: int = 0):
    rng = np.random.RandomState(seed)
    if loss == "cross_entropy":
        outputs += 1  # at least two classes
    prediction = 3 * rng.standard_normal((rows, outputs)).astype(dtype)
    target = ref.random_target(rng, loss, rows, outputs)
    return prediction, target if target.dtype.kind == "i" else target.astype(dtype)


def doubled(array: np.ndarray | None) -> np.ndarray | None:
    """Floats in float64; labels as they are."""
    return array if array is None or array.dtype.kind == "i" else array.astype(float)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient(name, shape, weighted, dtype):
    prediction, target = example(name, *shape, dtype)
    weight = np.random.RandomState(1).uniform(0, 2, shape[0]).astype(dtype) if weighted else None
    loss, gradient = FUNCTIONS[name](prediction, target, weight)
    assert isinstance(loss, float)
    exact, exact_gradient = ref.loss(name, *map(doubled, (prediction, target, weight)))
    eps = float(np.finfo(dtype).eps)
    assert loss == pytest.approx(exact, rel=16 * eps)
    assert gradient.dtype == dtype
    # p - t is rounded where p is near t = 1: a unit of rounding is one of p, divided as the rest.
    scale = 1 / len(gradient) if name == "cross_entropy" else 1 / gradient.size
    scale = max(scale, np.abs(exact_gradient).max())
    np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=16 * eps * scale)


SETTINGS = [
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"label_smoothing": 1.0, "reduction": "sum"}),
    ("huber", {"delta": 2.5}),
    ("huber", {"delta": 0.5, "reduction": "sum"}),
    *((name, {"reduction": "sum"}) for name in LOSSES),
]
SETTING_IDS = [f"{name}-" + "-".join(map(str, s.values())) for name, s in SETTINGS]
CLASSES = {
    "cross_entropy": fm.losses.CrossEntropy,
    "binary_cross_entropy": fm.losses.BinaryCrossEntropy,
    "mse": fm.losses.MSE,
    "mae": fm.losses.MAE,
    "huber": fm.losses.Huber,
    "hinge": fm.losses.Hinge,
    "perceptron": fm.losses.Perceptron,
}


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name, settings", SETTINGS, ids=SETTING_IDS)
def test_settings(name, settings, shape, weighted, dtype):
    prediction, target = example(name, *shape, dtype)
    targets = [target]
    if name == "cross_entropy":  # rows of class probabilities, some of whose sums are not 1
        soft = np.random.RandomState(2).uniform(size=prediction.shape)
        soft[1:] /= soft[1:].sum(axis=1, keepdims=True)
        targets += [ref.one_hot(target, prediction.shape[1], dtype), soft.astype(dtype)]
    weight = np.random.RandomState(1).uniform(0, 2, shape[0]).astype(dtype) if weighted else None
    eps = float(np.finfo(dtype).eps)
    for given in targets:
        loss, gradient = FUNCTIONS[name](prediction, given, weight, **settings)
        exact, exact_gradient = ref.loss(
            name, *map(doubled, (prediction, given, weight)), **settings
        )
        assert loss == pytest.approx(exact, rel=16 * eps)
        scale = 1 if settings.get("reduction") == "sum" else 1 / len(prediction)
        scale = max(scale, np.abs(exact_gradient).max())
        np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=16 * eps * scale)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name, settings", SETTINGS, ids=SETTING_IDS)
def test_settings_in_training(name, settings, weighted, device):
    """An object with the settings trains as its function does in an open-box loop."""
    rng = np.random.RandomState(3)
    x, y = rng.standard_normal((21, 5)), ref.random_target(rng, name, 21, 3)
    weight = rng.uniform(0, 2, 21) if weighted else None
    results = []
    for native in (True, False):
        model = fm.Sequential(
            [fm.Dense(7, "tanh"), fm.Dense(3)], seed=1, dtype="float64", device=device
        )
        optimizer = fm.SGD(0.01)
        model.compile(optimizer, CLASSES[name](**settings))
        if native:
            losses = [model.train_on_batch(x, y, weight) for _ in range(3)]
        else:
            losses = []
            for _ in range(3):
                loss, gradient = FUNCTIONS[name](model.forward(x), y, weight, **settings)
                model.backward(gradient)
                optimizer.step(model)
                losses.append(loss)
        results.append((losses, model.get_weights(), model.evaluate(x, y, sample_weight=weight)))
    (losses, weights, score), (own_losses, own_weights, own_score) = results
    np.testing.assert_allclose(losses, own_losses, rtol=1e-13)
    assert_same_bits(weights, own_weights)
    assert score == own_score


@pytest.mark.parametrize("name", LOSSES)
def test_a_sum_is_over_all_elements_of_batch_epoch_and_data(name, device):
    rng = np.random.RandomState(4)
    x, y = rng.standard_normal((21, 5)), ref.random_target(rng, name, 21, 3)
    model = fm.Sequential([fm.Dense(3)], seed=1, dtype="float64", device=device)
    model.compile(fm.SGD(0.0), CLASSES[name](reduction="sum"), metrics=["accuracy"])
    parts = [model.train_on_batch(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    score = model.evaluate(x, y, batch_size=8)
    assert score["loss"] == pytest.approx(sum(parts), rel=1e-13)
    history = model.fit(x, y, batch_size=8, epochs=1, validation_data=(x, y), verbose=0).history
    assert history["loss"] == pytest.approx([score["loss"]], rel=1e-13)
    assert history["val_loss"] == pytest.approx([score["loss"]], rel=1e-13)
    assert history["accuracy"] == pytest.approx([score["accuracy"]])  # still a mean
    exact, _ = ref.loss(name, model.predict(x), y, reduction="sum")
    assert score["loss"] == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("name", ["hinge", "perceptron"])
def test_targets_of_0_and_1_mean_minus_1_and_1(name, device):
    prediction, target = example(name, 9, 3)
    expected = FUNCTIONS[name](prediction, target)
    for zeros_and_ones in (target > 0, (target > 0).astype("int64"), (target + 1) / 2):
        got = FUNCTIONS[name](prediction, zeros_and_ones)
        assert got[0] == expected[0]
        assert_same_bits([got[1]], [expected[1]])
    assert FUNCTIONS[name](prediction, np.ones((9, 3)))[0] > 0  # all of them 1: either way


@pytest.mark.parametrize("ending", [None, "tanh", "step"])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", ["hinge", "perceptron"])
def test_accuracy_of_scores_goes_by_their_sign(name, outputs, ending, device):
    rng = np.random.RandomState(5)
    x, y = rng.standard_normal((40, 4)), ref.random_target(rng, name, 40, outputs)
    model = fm.Sequential([fm.Dense(outputs, ending)], seed=1, device=device)
    model.compile("sgd", name, metrics=["accuracy"])
    right = ((model.predict(x) > 0) == (y > 0)).mean()
    assert 0 < right < 1
    for target in (y, y > 0):
        assert model.evaluate(x, target)["accuracy"] == pytest.approx(right)


def test_class_weights_of_signed_targets_count_classes_0_and_1():
    rng = np.random.RandomState(6)
    x, y = rng.standard_normal((20, 4)), ref.random_target(rng, "hinge", 20, 1)
    models = [fm.Sequential([fm.Dense(1)], seed=1) for _ in range(2)]
    for model in models:
        model.compile("sgd", "hinge")
    models[0].fit(x, y, class_weight={0: 3.0, 1: 0.5}, verbose=0)
    models[1].fit(x, y, sample_weight=np.where(y[:, 0] > 0, 0.5, 3.0), verbose=0)
    assert_same_bits(models[0].get_weights(), models[1].get_weights())


def test_the_perceptron_learns_by_its_rule(device):
    """One point at a time, from zeros: w += rho t x where t (w x + b) <= 0, and b += rho t."""
    rho = 0.25
    x = np.array([[1.0, 2.0], [-2.0, 1.0], [0.5, -1.0], [1.0, 1.0], [-1.0, -0.5]])
    y = np.array([1, -1, -1, 1, -1])
    model = fm.Sequential([fm.Dense(1, kernel_initializer="zeros")], dtype="float64", device=device)
    model.compile(fm.SGD(rho), "perceptron", metrics=["accuracy"])
    w, b, mistakes = np.zeros(2), 0.0, 0
    for row, t in [*zip(x, y)] * 4:
        if t * (row @ w + b) <= 0:
            w, b, mistakes = w + rho * t * row, b + rho * t, mistakes + 1
        model.train_on_batch(row[None], [t])
        assert model.get_weights()[0].ravel().tolist() == w.tolist()
        assert model.get_weights()[1].tolist() == [b]
    assert mistakes > 1
    assert model.evaluate(x, y)["accuracy"] == 1


def test_huber_is_half_of_mse_near_0_and_linear_far_from_it():
    near, _ = fm.losses.huber([0.5, -0.25], [0.0, 0.0])
    assert near == fm.losses.mse([0.5, -0.25], [0.0, 0.0])[0] / 2
    _, gradient = fm.losses.huber([1e30, -1e30, 3.0], [0, 0, 0], delta=3, reduction="sum")
    assert gradient.tolist() == [3, -3, 3]


@pytest.mark.parametrize("name", LOSSES)
def test_a_name_an_object_and_a_function_are_one_loss(name):
    assert fm.losses.get(name) == fm.losses.get(FUNCTIONS[name]) == CLASSES[name]()
    assert fm.losses.get(CLASSES[name](reduction="sum")) != CLASSES[name]()
    assert fm.losses.get(name).native


BAD_SETTINGS = {
    "reduction": (lambda: fm.losses.MSE(reduction="none"), ValueError, "mse: reduction.*'none'"),
    "reduction of a function": (
        lambda: fm.losses.hinge([1], [1], reduction=None), ValueError, "hinge: reduction.*None"),
    "smoothing below 0": (
        lambda: fm.losses.CrossEntropy(-0.1), ValueError, "label_smoothing.*at least 0.*-0"),
    "smoothing above 1": (
        lambda: fm.losses.CrossEntropy(1.5), ValueError, "label_smoothing.*at most 1.*1.5"),
    "smoothing text": (
        lambda: fm.losses.CrossEntropy("much"), TypeError, "label_smoothing.*'much'"),
    "delta 0": (lambda: fm.losses.Huber(0), ValueError, "huber: delta.*greater than 0"),
    "delta infinite": (lambda: fm.losses.Huber(np.inf), ValueError, "huber: delta.*finite"),
    "a class": (lambda: fm.losses.get(fm.losses.MSE), TypeError, "class MSE"),
}  # fmt: skip


@pytest.mark.parametrize("call, error, says", BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_in_words(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "int64", "uint64", "float32"])
def test_labels_of_any_integer_kind_and_whole_floats(kind):
    logits, labels = example("cross_entropy", 7, 5)
    expected = fm.losses.cross_entropy(logits, labels)
    got = fm.losses.cross_entropy(logits, labels.astype(kind))
    assert got[0] == expected[0]
    assert_same_bits([got[1]], [expected[1]])


def test_labels_may_be_a_column():
    logits, labels = example("cross_entropy", 7, 5)
    expected, _ = fm.losses.cross_entropy(logits, labels)
    assert fm.losses.cross_entropy(logits, labels[:, None])[0] == expected


@pytest.mark.parametrize("classes", [2, 3, 4, 7, 8, 12, 13, 33])
@pytest.mark.parametrize("rows", [1, 8, 21])
def test_labels_are_worth_their_probabilities(classes, rows, dtype):
    """Of few classes the core takes rows side by side, a lane for each."""
    rng = np.random.RandomState(rows)
    logits = (10 * rng.standard_normal((rows, classes))).astype(dtype)
    logits[-1, -1] = 1e4  # its exponential is beyond all numbers
    labels, weight = rng.randint(classes, size=rows), rng.uniform(size=rows)
    loss, gradient = fm.losses.cross_entropy(logits, labels, weight)
    one_hot = np.eye(classes)[labels]
    same, same_gradient = fm.losses.cross_entropy(logits, one_hot, weight)
    eps = float(np.finfo(dtype).eps)
    assert loss == pytest.approx(same, rel=20 * eps)
    np.testing.assert_allclose(gradient, same_gradient, rtol=20 * eps, atol=eps)
    logits[0, 0] = np.nan
    loss, gradient = fm.losses.cross_entropy(logits, labels, weight)
    assert np.isnan(loss)
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1:]).all()


def test_class_probabilities():
    logits, labels = example("cross_entropy", 7, 5)
    expected, expected_gradient = fm.losses.cross_entropy(logits, labels)
    loss, gradient = fm.losses.cross_entropy(logits, ref.one_hot(labels, 6))
    assert loss == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-16)

    soft = ref.softmax(np.random.RandomState(2).standard_normal((7, 6)))
    loss, gradient = fm.losses.cross_entropy(logits, soft)
    exact, exact_gradient = ref.loss("cross_entropy", logits, soft)
    assert loss == pytest.approx(exact, rel=1e-14)
    np.testing.assert_allclose(gradient, exact_gradient, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cross_entropy"])
def test_a_vector_is_a_column_of_targets(name):
    prediction, target = example(name, 7, 1)
    expected = FUNCTIONS[name](prediction, target)
    got = FUNCTIONS[name](prediction, target[:, 0])
    assert got[0] == expected[0]
    assert_same_bits([got[1]], [expected[1]])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", LOSSES)
def test_any_layout(name, layout):
    prediction, target = example(name, 7, 4)
    lay = LAYOUTS[layout]
    expected = FUNCTIONS[name](prediction, target)
    got = FUNCTIONS[name](lay(prediction), lay(target))
    assert got[0] == expected[0]
    assert_same_bits([got[1]], [expected[1]])


# Extremes: the loss is linear in how wrong a logit is, and never log(0).


def test_cross_entropy_of_extreme_logits(dtype):
    logits = np.array([[1e4, 0, -1e4]] * 3, dtype)
    loss, gradient = fm.losses.cross_entropy(logits, np.array([0, 1, 2]))
    assert loss == pytest.approx((0 + 1e4 + 2e4) / 3, rel=1e-6)
    expected = np.array([[0, 0, 0], [1, -1, 0], [1, 0, -1]]) / 3
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_a_class_ruled_out_by_minus_infinity_costs_nothing(dtype):
    logits = np.array([[1, 2, -np.inf]], dtype)
    for target in (np.array([1]), np.array([[0, 1, 0]], dtype)):
        loss, gradient = fm.losses.cross_entropy(logits, target)
        assert loss == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
        assert gradient[0, 2] == 0


def test_binary_cross_entropy_of_extreme_logits(dtype):
    logits = np.array([[1e4], [1e4], [-1e4], [-1e4]], dtype)
    loss, gradient = fm.losses.binary_cross_entropy(logits, np.array([[1], [0], [1], [0]], dtype))
    assert loss == pytest.approx((0 + 1e4 + 1e4 + 0) / 4, rel=1e-6)
    np.testing.assert_allclose(gradient[:, 0], [0, 0.25, -0.25, 0], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_nan_in_the_prediction_gives_nan(name, dtype):
    for place in range(19):
        prediction, target = example(name, 3, 19, dtype)
        prediction[1, place] = np.nan
        loss, gradient = FUNCTIONS[name](prediction, target)
        assert np.isnan(loss)
        assert np.isnan(gradient[1, place])
        assert np.isfinite(gradient[[0, 2]]).all()


# By name, and behind an ending.


@pytest.mark.parametrize(
    "alias, name",
    [
        ("sparse_categorical_crossentropy", "cross_entropy"),
        ("categorical_crossentropy", "cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy"),
        ("MSE", "mse"),
        ("Huber", "huber"),
        ("huber_loss", "huber"),
        ("Hinge", "hinge"),
    ],
)
def test_other_names(alias, name):
    x, y = example(name, 9, 3)
    outputs = 4 if name == "cross_entropy" else 3
    losses = []
    for loss in (alias, name):
        model = fm.Sequential([fm.Dense(outputs)], seed=0, dtype="float64")
        model.compile("sgd", loss)
        losses.append(model.evaluate(x, y)["loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("as_layer", [False, True], ids=["activation=", "layer"])
@pytest.mark.parametrize("loss", ref.MATCHING_ENDING)
def test_a_matching_ending_trains_like_logits(loss, as_layer, dtype, device):
    ending = ref.MATCHING_ENDING[loss]
    rng = np.random.RandomState(0)
    x, y = rng.standard_normal((33, 5)), ref.random_target(rng, loss, 33, 3)
    results = []
    for last in (
        [fm.Dense(3)],
        [fm.Dense(3), fm.Activation(ending)] if as_layer else [fm.Dense(3, ending)],
    ):
        model = fm.Sequential([fm.Dense(7, "relu"), *last], seed=1, dtype=dtype, device=device)
        model.compile(fm.Adam(0.01), loss, metrics=["accuracy"])
        history = model.fit(x, y, batch_size=8, epochs=3, verbose=0).history
        results.append((history, model.evaluate(x, y), model))
    (history, scores, plain), (history_ended, scores_ended, ended) = results
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for key in history:
        np.testing.assert_allclose(history_ended[key], history[key], rtol=tolerance)
    for key in scores:
        assert scores_ended[key] == pytest.approx(scores[key], rel=tolerance)
    for a, b in zip(ended.get_weights(), plain.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    # What comes out are probabilities.
    squash = {"softmax": ref.softmax, "sigmoid": ref.logistic}[ending]
    np.testing.assert_allclose(ended.predict(x), squash(plain.predict(x)), atol=10 * tolerance)


@pytest.mark.parametrize("loss", ref.MATCHING_ENDING)
def test_a_matching_ending_is_as_stable_as_logits(loss, device):
    # Logits of +-1e4: the probability of the target is 0 in every float format, its loss is not.
    model = fm.Sequential([fm.Dense(2, ref.MATCHING_ENDING[loss])], device=device)
    model.build(1)
    model.set_weights([np.array([[1e4, -1e4]]), np.zeros(2)])
    model.compile(fm.SGD(1.0), loss)
    x = np.ones((1, 1))
    # Cross-entropy of label 1: log(e^1e4 + e^-1e4) + 1e4 = 2e4. Binary, targets (0, 1): both
    # outputs are wrong by 1e4.
    target, expected = {
        "cross_entropy": (np.array([1]), 2e4),
        "binary_cross_entropy": (np.array([[0, 1]]), 1e4),
    }[loss]
    assert model.evaluate(x, target)["loss"] == pytest.approx(expected, rel=1e-6)
    assert model.train_on_batch(x, target) == pytest.approx(expected, rel=1e-6)
    # d(loss)/d(logits) = (1, -1), and half of that for the mean over two outputs.
    share = {"cross_entropy": 1, "binary_cross_entropy": 0.5}[loss]
    np.testing.assert_allclose(model.get_weights()[1], [-share, share], rtol=1e-6)


def test_a_function_of_one_s_own_trains_like_the_built_in_one(device):
    def own_mse(prediction, target, sample_weight=None):
        difference = to_host(prediction) - to_host(target)
        weight = np.ones(len(target)) if sample_weight is None else to_host(sample_weight)
        rows = weight * (difference**2).mean(axis=1)
        gradient = 2 * difference * weight[:, None] / difference.size
        return float(rows.mean()), gradient

    rng = np.random.RandomState(0)
    x, y, weight = rng.standard_normal((33, 5)), rng.standard_normal((33, 2)), rng.uniform(size=33)
    results = []
    for loss in ("mse", own_mse):
        model = fm.Sequential(
            [fm.Dense(7, "tanh"), fm.Dense(2)], seed=1, dtype="float64", device=device
        )
        model.compile(fm.Adam(0.01), loss)
        history = model.fit(x, y, batch_size=8, epochs=3, sample_weight=weight, verbose=0)
        results.append((history.history["loss"], model.evaluate(x, y)["loss"], model.get_weights()))
    (losses, score, weights), (own_losses, own_score, own_weights) = results
    np.testing.assert_allclose(own_losses, losses, rtol=1e-12)
    assert own_score == pytest.approx(score, rel=1e-12)
    for a, b in zip(own_weights, weights):
        np.testing.assert_allclose(a, b, atol=1e-13)


# Refusals.

THREE = np.zeros((4, 3))
BAD_CALLS = {
    "label too large": ("cross_entropy", THREE, [0, 1, 2, 12], ValueError,
                        r"label 12 at row 3 is outside 0\.\.2"),
    "label negative": ("cross_entropy", THREE, [-1, 1, 2, 0], ValueError,
                       r"label -1 at row 0 is outside 0\.\.2"),
    "label fractional": ("cross_entropy", THREE, [0, 1, 1.5, 0], ValueError, r"1\.5 at row 2"),
    "label nan": ("cross_entropy", THREE, [0, 1, np.nan, 0], ValueError, "row 2"),
    "label count": ("cross_entropy", THREE, [0, 1], ValueError, "4.*2"),
    "probability columns": ("cross_entropy", THREE, np.zeros((4, 2)), ValueError, "3.*2"),
    "label strings": ("cross_entropy", THREE, ["a", "b", "c", "d"], TypeError, "cross_entropy"),
    "target columns": ("mse", THREE, np.zeros((4, 2)), ValueError, r"mse.*\(4, 3\).*\(4, 2\)"),
    "target vector": ("mse", THREE, np.zeros(4), ValueError, "mse"),
    "target object": ("mse", THREE, np.full((4, 3), None), TypeError, "mse.*object"),
    "target complex": ("mae", THREE, np.zeros((4, 3), complex), TypeError, "mae.*complex"),
    "prediction rank": ("mse", np.zeros((4, 3, 1)), np.zeros((4, 3)), ValueError, r"\(4, 3, 1\)"),
    "probability above 1": ("binary_cross_entropy", THREE, np.full((4, 3), 1.5), ValueError,
                            "1.5.* at row 0 is outside 0..1"),
    "one output": ("cross_entropy", THREE[:, :1], [0, 0, 0, 0], ValueError, "binary_cross_entropy"),
    "hinge target": ("hinge", THREE, [[1, 1, 1], [1, 2, 1], [1, 1, 1], [1, 1, 1]], ValueError,
                     r"hinge: target \[1.* 2.* 1.*\] at row 1 is not -1 or 1"),
    "hinge target nan": ("hinge", THREE, np.full((4, 3), np.nan), ValueError, "row 0 is not -1"),
    "0 beside -1": ("perceptron", THREE, [[1, 1, 1], [1, -1, 1], [1, 0, 1], [1, 1, 1]], ValueError,
                    "at row 2 is 0 where others are -1"),
    "no rows": ("mse", np.zeros((0, 3)), np.zeros((0, 3)), ValueError, "mse"),
}  # fmt: skip


@pytest.mark.parametrize("name, prediction, target, error, says", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_bad_call_is_refused_in_words(name, prediction, target, error, says):
    with pytest.raises(error, match=says):
        FUNCTIONS[name](prediction, np.asarray(target))


@pytest.mark.parametrize("name", LOSSES)
def test_sample_weight_must_fit_the_rows(name):
    prediction, target = example(name, 4, 3)
    for weight in (np.ones(3), np.ones((4, 3))):
        with pytest.raises(ValueError, match="sample.weight"):
            FUNCTIONS[name](prediction, target, weight)
