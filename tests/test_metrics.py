"""Metrics against values worked out by hand, and how they are named."""

import functools

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import metrics

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [3.0, 5.0, 4.0], [1.0, 0.0, 2.0]])  # 0 2 1 2
ALL = [
    metrics.accuracy,
    metrics.binary_accuracy,
    metrics.mse,
    metrics.mae,
    metrics.rmse,
    metrics.r2,
]
every_metric = pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.__name__)


class TestAccuracy:
    @pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint32, np.float32])
    @pytest.mark.parametrize("shape", [(4,), (4, 1)])
    def test_labels(self, dtype, shape):
        labels = np.array([0, 2, 0, 2], dtype).reshape(shape)
        assert metrics.accuracy(LOGITS, labels) == 0.75

    def test_probabilities_of_classes(self):
        one_hot = np.eye(3)[[0, 2, 0, 2]]
        assert metrics.accuracy(LOGITS, one_hot) == 0.75
        assert metrics.accuracy(LOGITS, one_hot * 0.8 + 0.2 / 3) == 0.75

    @pytest.mark.parametrize("prediction_shape", [(4,), (4, 1)])
    @pytest.mark.parametrize("target_shape", [(4,), (4, 1)])
    def test_one_output(self, prediction_shape, target_shape):
        prediction = np.array([0.1, 0.6, 0.5, 0.9]).reshape(prediction_shape)
        target = np.array([0, 1, 1, 1]).reshape(target_shape)
        # 0.5 itself does not exceed the threshold, so the third row is predicted as 0: wrong.
        assert metrics.accuracy(prediction, target) == 0.75

    def test_threshold_for_logits(self):
        assert metrics.accuracy([-0.1, 0.1, 0.4], [0, 1, 1]) == pytest.approx(1 / 3)
        assert metrics.accuracy([-0.1, 0.1, 0.4], [0, 1, 1], threshold=0) == 1.0

    def test_labels_of_hinge_loss(self):
        assert metrics.accuracy([-2.0, 0.5, -0.5], [-1, 1, 1], threshold=0) == pytest.approx(2 / 3)

    def test_nan_predicts_nothing(self):
        # argmax calls NaN the largest, so class 1 would count as predicted here.
        assert metrics.accuracy([[0.0, np.nan], [0.0, 1.0]], [1, 1]) == 0.5
        assert metrics.accuracy([np.nan, np.nan], [0, 1]) == 0.0

    def test_targets_of_another_width(self):
        message = (
            r"^accuracy: target must hold a label or 3 probabilities a row, got shape \(4, 2\)$"
        )
        with pytest.raises(ValueError, match=message):
            metrics.accuracy(LOGITS, np.zeros((4, 2)))


def test_binary_accuracy():
    prediction = np.array([[0.9, 0.2, 0.7], [0.6, 0.7, 0.1]])
    target = np.array([[1, 0, 1], [0, 1, 0]])
    assert metrics.binary_accuracy(prediction, target) == pytest.approx(5 / 6)
    assert metrics.binary_accuracy(prediction, target, threshold=0.65) == 1.0
    assert metrics.binary_accuracy([[np.nan, 0.0]], [[0, 0]]) == 0.5


class TestErrors:
    PREDICTION = np.array([[1.0, 2.0], [3.0, 4.0]])
    TARGET = np.array([[1.0, 0.0], [0.0, 1.0]])  # errors 0, 2, 3, 3

    def test_values(self):
        assert metrics.mse(self.PREDICTION, self.TARGET) == 22 / 4
        assert metrics.mae(self.PREDICTION, self.TARGET) == 8 / 4
        assert metrics.rmse(self.PREDICTION, self.TARGET) == pytest.approx(np.sqrt(22 / 4))

    @pytest.mark.parametrize("metric", [metrics.mse, metrics.mae, metrics.rmse, metrics.r2])
    def test_a_vector_fits_a_column(self, metric):
        p, t = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
        expected = metric(p, t)
        assert metric(p[:, None], t) == metric(p, t[:, None]) == expected

    def test_sums_are_taken_in_float64(self):
        # In float32 a hundred thousand summands of 0.01 drift in the sixth digit, in float16 more.
        p = np.full(100_000, 0.1, np.float16)
        assert metrics.mse(p, np.zeros_like(p)) == pytest.approx(float(p[0]) ** 2, rel=1e-12)

    def test_unsigned_targets_do_not_wrap_around(self):
        p, t = np.array([1], np.uint8), np.array([3], np.uint8)
        assert (metrics.mse(p, t), metrics.mae(p, t)) == (4.0, 2.0)

    @pytest.mark.parametrize("metric", [metrics.mse, metrics.mae, metrics.rmse, metrics.r2])
    def test_nan_in_nan_out(self, metric):
        assert np.isnan(metric([1.0, np.nan], [1.0, 2.0]))


class TestR2:
    def test_by_hand(self):
        # t = 1, 2, 3, 4 has mean 2.5 and total 5; residuals 0.5, 0, 0, -0.5 give 0.5.
        assert metrics.r2([1.5, 2, 3, 3.5], [1, 2, 3, 4]) == pytest.approx(1 - 0.5 / 5)

    def test_small_variances(self):
        # As above, all values divided by 100.
        assert metrics.r2([0.015, 0.02, 0.03, 0.035], [0.01, 0.02, 0.03, 0.04]) == pytest.approx(
            0.9
        )

    def test_the_mean_scores_zero_and_worse_is_negative(self):
        assert metrics.r2([2.5] * 4, [1, 2, 3, 4]) == 0.0
        assert metrics.r2([4, 3, 2, 1], [1, 2, 3, 4]) == 1 - 20 / 5

    def test_outputs_are_averaged(self):
        # First output exact, second predicted by its mean: (1 + 0) / 2.
        assert metrics.r2([[1, 1], [2, 1], [3, 1]], [[1, 0], [2, 1], [3, 2]]) == 0.5

    def test_a_constant_target(self):
        assert metrics.r2([2, 2], [2, 2]) == 1.0
        assert metrics.r2([2, 2.5], [2, 2]) == 0.0
        assert metrics.r2([[1, 5], [2, 5]], [[1, 4], [2, 4]]) == 0.5


class TestAgainstScikitLearn:
    def test_regression(self):
        sklearn = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        t = rng.normal(size=(50, 3))
        p = t + rng.normal(size=t.shape) * [0.1, 1, 3]
        assert metrics.mse(p, t) == pytest.approx(sklearn.mean_squared_error(t, p))
        assert metrics.mae(p, t) == pytest.approx(sklearn.mean_absolute_error(t, p))
        assert metrics.r2(p, t) == pytest.approx(sklearn.r2_score(t, p))

    def test_classes(self):
        sklearn = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        p, t = rng.normal(size=(200, 5)), rng.integers(5, size=200)
        assert metrics.accuracy(p, t) == sklearn.accuracy_score(t, p.argmax(axis=1))


@every_metric
class TestEveryMetric:
    def test_lists_will_do_and_a_float_comes_back(self, metric):
        assert type(metric([1.0, 0.0], [1, 0])) is float

    @pytest.mark.parametrize("shapes", [((3, 1), (4, 1)), ((3,), (4,)), ((), (1,)), ((1,), ())])
    def test_different_lengths(self, metric, shapes):
        prediction, target = map(np.zeros, shapes)
        name = "accuracy" if metric is metrics.accuracy else metric.__name__
        message = f"^{name}: prediction and target must have as many rows as each other, got shapes"
        with pytest.raises(ValueError, match=message):
            metric(prediction, target)

    @pytest.mark.parametrize(
        "shapes", [((0,), (0,)), ((0, 3), (0, 3)), ((3, 0), (3, 1)), ((3, 1), (3, 0))]
    )
    def test_no_values(self, metric, shapes):
        prediction, target = map(np.zeros, shapes)
        with pytest.raises(
            ValueError, match=f"^{metric.__name__}: there are no values, got shapes"
        ):
            metric(prediction, target)


@pytest.mark.parametrize("metric", ALL[1:], ids=lambda metric: metric.__name__)
def test_different_widths(metric):
    message = (
        f"^{metric.__name__}: prediction and target must have as many outputs as each other, "
        r"got shapes \(4, 3\) and \(4, 2\)$"
    )
    with pytest.raises(ValueError, match=message):
        metric(np.zeros((4, 3)), np.zeros((4, 2)))


class TestGet:
    @pytest.mark.parametrize(
        ("name", "native", "function"),
        [
            ("accuracy", "accuracy", metrics.accuracy),
            ("acc", "accuracy", metrics.accuracy),
            ("categorical_accuracy", "accuracy", metrics.accuracy),
            ("sparse_categorical_accuracy", "accuracy", metrics.accuracy),
            ("binary_accuracy", None, metrics.binary_accuracy),
            ("mse", "mse", metrics.mse),
            ("MSE", "mse", metrics.mse),
            ("mean_squared_error", "mse", metrics.mse),
            ("mae", "mae", metrics.mae),
            ("mean_absolute_error", "mae", metrics.mae),
            ("rmse", "mse", metrics.rmse),
            ("root_mean_squared_error", "mse", metrics.rmse),
            ("r2", None, metrics.r2),
            ("r2_score", None, metrics.r2),
        ],
    )
    def test_names(self, name, native, function):
        metric = metrics.get(name)
        assert metric.name == name  # as asked for, so that history.history["acc"] works
        assert metric.native == native
        assert metric.function is function

    @pytest.mark.parametrize("name", ["accuracy", "mse", "mae", "rmse"])
    def test_the_native_sum_leads_to_the_same_figure(self, name):
        metric = metrics.get(name)
        p, t = np.array([[0.2, 0.9], [0.6, 0.1]]), np.array([[0.0, 1.0], [0.0, 1.0]])
        native = metrics.get(metric.native)
        assert metric.finish(native(p, t)) == pytest.approx(metric(p, t), rel=1e-15)

    @pytest.mark.parametrize("classes", [2, 3, 4, 5, 8, 11, 12, 13, 40])
    @pytest.mark.parametrize("rows", [1, 5, 8, 19])
    def test_the_core_counts_as_this_module_does(self, classes, rows, dtype):
        rng = np.random.RandomState(classes)
        logits = rng.randint(3, size=(rows, classes)).astype(dtype)  # the first of the largest
        logits[rng.uniform(size=rows) < 0.2, rng.randint(classes)] = np.nan
        logits[rng.uniform(size=rows) < 0.2] = -np.inf
        labels = np.where(rng.uniform(size=rows) < 0.5, np.argmax(logits, axis=1), 0)
        model = fm.Sequential([fm.Input(classes), fm.Dropout(0.5)], dtype=dtype)  # out = in
        model.compile("sgd", "cross_entropy", metrics=["accuracy"])
        found = model.evaluate(logits, labels)["accuracy"]
        assert found == pytest.approx(metrics.accuracy(logits, labels), rel=1e-14)

    @every_metric
    def test_a_function_of_this_module_is_the_named_metric(self, metric):
        assert metrics.get(metric) == metrics.get(metric.__name__)

    def test_an_own_function(self):
        def largest(prediction, target):
            return np.abs(prediction - target).max()

        metric = metrics.get(largest)
        assert (metric.name, metric.native, metric.mode) == ("largest", None, None)
        assert metric(np.array([1.0, 5.0]), np.array([0.0, 3.0])) == 2.0
        assert type(metric(np.ones(2), np.zeros(2))) is float

    def test_a_function_without_a_name_goes_by_its_class(self):
        metric = metrics.get(functools.partial(metrics.accuracy, threshold=0))
        assert metric.name == "partial"
        assert metric([-0.1, 0.1], [0, 1]) == 1.0

    def test_a_metric_stays_itself(self):
        metric = metrics.Metric("mine", None, metrics.mae)
        assert metrics.get(metric) is metric

    def test_unknown_name(self):
        with pytest.raises(
            ValueError,
            match=r"^metric: unknown name 'acuracy'; known: accuracy, binary_accuracy, mae, mse, "
            r"r2, rmse \(did you mean 'accuracy'\?\)$",
        ):
            metrics.get("acuracy")

    @pytest.mark.parametrize(
        ("identifier", "kind"),
        [(1, "int"), (None, "NoneType"), (metrics.Metric, "the class Metric")],
    )
    def test_other_kinds(self, identifier, kind):
        with pytest.raises(TypeError, match=f"^metric: expected a name or an object, got {kind}$"):
            metrics.get(identifier)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("accuracy", "max"),
        ("acc", "max"),
        ("binary_accuracy", "max"),
        ("r2", "max"),
        ("mse", "min"),
        ("mean_absolute_error", "min"),
        ("rmse", "min"),
        ("loss", None),
        ("my_own", None),
    ],
)
def test_mode(name, mode):
    assert metrics.mode(name) == mode
