"""Pictures show the figures, functions, layers and classes that they are about."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import reference as ref

import fastmlp as fm
from fastmlp import plotting

CURVES = {
    "loss": [1.0, 0.5, 0.3],
    "accuracy": [0.6, 0.8, 0.9],
    "val_loss": [1.1, 0.7, 0.6],
    "val_accuracy": [0.5, 0.7, 0.8],
    "learning_rate": [0.1, 0.1, 0.1],
}


class History:
    history = CURVES


@pytest.mark.parametrize("history", [CURVES, History()], ids=["dict", "History"])
def test_history(history, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "history.png"
    figure = plotting.history(history, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    for axes in figure.axes:
        training, validation = axes.get_lines()
        assert training.get_xdata().tolist() == [1, 2, 3]
        assert training.get_ydata().tolist() == CURVES[axes.get_ylabel()]
        assert validation.get_ydata().tolist() == CURVES[f"val_{axes.get_ylabel()}"]


def test_the_networks_of_an_ensemble_are_one_curve():
    pytest.importorskip("matplotlib")
    (axes,) = plotting.history({"loss": [np.array([3.0, 1.0]), np.array([1.0, 0.5])]}).axes
    (line,) = axes.get_lines()
    assert line.get_ydata().tolist() == [2.0, 0.75]


def test_training_alone_and_a_single_epoch():
    pytest.importorskip("matplotlib")
    (axes,) = plotting.history({"loss": [0.5]}).axes
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"  # a line of one point would not be seen


def test_nothing_to_draw():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="the history holds no epoch"):
        plotting.history({})


@pytest.mark.parametrize("name", fm.kernels.ACTIVATIONS)
def test_an_activation_and_its_derivative(name, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "activation.svg"
    (axes,) = plotting.activation(name, path=path).axes
    assert "<svg" in path.read_text()
    values, slopes = axes.get_lines()[-2:]
    x = values.get_xdata()
    assert (x[0], x[-1]) == (-8, 8)
    np.testing.assert_allclose(values.get_ydata(), ref.activation(name, x), atol=1e-12)
    np.testing.assert_allclose(slopes.get_ydata(), ref.derivative(name, x), atol=1e-12)


def test_several_activations_with_parameters():
    pytest.importorskip("matplotlib")
    names = ["relu", "leaky_relu", "elu", "tanh"]
    figure = plotting.activation(names, parameter=[None, 0.25, None, None], span=(-2, 2))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["relu", "leaky relu, negative slope 0.25", "elu, alpha 1", "tanh"]
    assert figure.axes[1].get_lines()[-2].get_ydata()[0] == -0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "rely"}, "unknown name 'rely'"),
        ({"name": "relu", "parameter": 1.0}, "relu: has no parameter"),
        ({"name": "relu", "span": (1, 1)}, "span must go upwards"),
        ({"name": ["relu", "elu"], "parameter": [0.5]}, "got 2 names and 1 parameters"),
        ({"name": []}, "got 0 names"),
    ],
)
def test_what_activation_refuses(arguments, says):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=says):
        plotting.activation(**arguments)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_network_says_what_summary_says(tmp_path):
    pytest.importorskip("matplotlib")
    layers = [fm.Flatten(), fm.Dense(20), fm.ReLU(), fm.Dropout(0.2), fm.Dense(3, "softmax")]
    model = fm.Sequential([fm.Input((28, 28)), *layers])
    path = tmp_path / "network.svg"
    figure = plotting.network(model, path)
    assert "<svg" in path.read_text()
    shown = texts(figure)
    for text in ("28 × 28", "Flatten", "784", "20", "15,700", "ReLU", "Dropout (0.2)", "softmax"):
        assert text in shown
    assert shown.count("Dense") == 2
    assert "15,763 parameters" in shown
    circles = {circle.center for circle in figure.axes[0].patches if hasattr(circle, "center")}
    assert len(circles) == 8 + 3  # of 20 units some, of 3 all


def test_networks_of_few_and_of_many_layers():
    pytest.importorskip("matplotlib")
    small = plotting.network(fm.Sequential([fm.Input(2), fm.Dense(1)]))
    large = plotting.network(fm.Sequential([fm.Input(2), *[fm.Dense(50) for _ in range(12)]]))
    (small_width, height), (width, large_height) = small.get_size_inches(), large.get_size_inches()
    assert small_width < 4 < height + 3
    assert width < 18
    assert large_height < 6
    images = fm.Sequential([fm.Input((2, 2)), fm.ReLU()])  # nothing but blocks
    assert "2 × 2" in texts(plotting.network(images))


def test_a_network_of_an_ensemble_counts_once():
    pytest.importorskip("matplotlib")
    ensemble = fm.Ensemble(fm.Sequential([fm.Input(4), fm.Dense(3)]), 5)
    assert "15 parameters" in texts(plotting.network(ensemble))


def test_network_needs_a_built_model():
    pytest.importorskip("matplotlib")
    with pytest.raises(RuntimeError, match="not built yet"):
        plotting.network(fm.Sequential([fm.Dense(3)]))


POINTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def plane(*layers, weights):
    model = fm.Sequential([fm.Input(2), *layers])
    model.set_weights(weights)
    return model


def line(figure):
    """The points of the first boundary."""
    (contour, *_) = [
        c for c in figure.axes[0].collections if hasattr(c, "get_paths") and c.get_paths()
    ]
    return contour.get_paths()[0].vertices


@pytest.mark.parametrize("y", [[0, 0, 0, 1], [[0], [0], [0], [1]], [-1, -1, -1, 1]])
@pytest.mark.parametrize("ending", [None, "sigmoid"])
def test_the_boundary_of_one_output(ending, y, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "boundary.png"
    model = plane(fm.Dense(1, ending), weights=[[[2.0], [2.0]], [-3.0]])
    figure = plotting.decision_boundary(model, POINTS, y, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    np.testing.assert_allclose(line(figure).sum(axis=1), 1.5, atol=1e-3)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["0", "1"]


def test_the_boundaries_of_three_classes():
    pytest.importorskip("matplotlib")
    kernel = [[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]
    model = plane(fm.Dense(3), weights=[kernel, [0.0, 0.4, 0.5]])
    for y in ([0, 1, 2, 2], np.eye(3)[[0, 1, 2, 2]]):
        figure = plotting.decision_boundary(model, POINTS, y)
        assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["0", "1", "2"]


def test_a_threshold_moves_the_boundary():
    pytest.importorskip("matplotlib")
    model = plane(fm.Dense(1), weights=[[[1.0], [0.0]], [0.0]])
    figure = plotting.decision_boundary(model, POINTS, [0, 0, 1, 1], threshold=0.7)
    np.testing.assert_allclose(line(figure)[:, 0], 0.7, atol=1e-3)


def test_a_model_that_sees_no_difference_has_no_boundary():
    pytest.importorskip("matplotlib")
    model = plane(fm.Dense(1), weights=[[[0.0], [0.0]], [-1.0]])
    plotting.decision_boundary(model, POINTS[:1], [0])  # a single point has no extent either


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (POINTS[:, :1], [0, 0, 0, 1], r"x must have shape \(n, 2\), got \(4, 1\)"),
        (POINTS, [0, 1], "got 2 labels up to 1"),
        (POINTS, [[[0]]], r"y must have shape \(n,\) or \(n, classes\)"),
    ],
)
def test_what_decision_boundary_refuses(x, y, says):
    pytest.importorskip("matplotlib")
    model = plane(fm.Dense(1), weights=[[[1.0], [0.0]], [0.0]])
    with pytest.raises(ValueError, match=says):
        plotting.decision_boundary(model, x, y)


def counts(figure):
    return [int(text.replace(",", "")) for text in texts(figure)]


def test_confusion_matrix(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "matrix.png"
    true, predicted = [0, 0, 0, 1, 2], [0, 0, 1, 1, 0]
    figure = plotting.confusion_matrix(true, predicted, path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert counts(figure) == [2, 1, 0, 0, 1, 0, 1, 0, 0]
    assert figure.axes[0].get_title() == "60.0% of 5 right"
    scores = np.eye(3)[predicted] * 3 - 1
    assert counts(plotting.confusion_matrix(np.eye(3)[true], scores)) == counts(figure)


def test_confusion_matrix_names_its_classes():
    pytest.importorskip("matplotlib")
    axes = plotting.confusion_matrix([0, 1], [[0], [1]], ["cat", "dog", "horse"]).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["cat", "dog", "horse"]


@pytest.mark.parametrize(
    ("true", "predicted", "labels", "says"),
    [
        ([0, 1], [0], None, "y_true has 2 rows, but y_pred 1"),
        ([0, 1], [0.2, 0.9], None, "of one probability a row make labels first: p > 0.5"),
        ([0, -1], [0, 1], None, "y_true must hold labels 0, 1, 2"),
        ([], [], None, "y_true must have shape"),
        ([0, 3], [0, 1], ["a", "b"], "labels must name 4 classes, got 2"),
    ],
)
def test_what_confusion_matrix_refuses(true, predicted, labels, says):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=says):
        plotting.confusion_matrix(true, predicted, labels)


def test_images(tmp_path):
    pytest.importorskip("matplotlib")
    x = np.arange(7 * 4 * 4).reshape(7, 4, 4)
    path = tmp_path / "images.png"
    figure = plotting.images(x.reshape(7, 16), titles=range(7), path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in figure.axes] == list("0123456")
    for axes, image in zip(figure.axes, x, strict=True):
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), image)


@pytest.mark.parametrize(
    ("x", "titles", "says"),
    [
        (np.ones((2, 5)), None, r"x must have shape .*, got \(2, 5\)"),
        (np.ones((2, 4)), ["a"], "expected 2 titles, one for each image, got 1"),
    ],
)
def test_what_images_refuses(x, titles, says):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=says):
        plotting.images(x, titles)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastmlp\[plot\]"'):
        plotting.history(CURVES)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastmlp\[plot\]"'):
        plotting.network(fm.Sequential([fm.Input(2), fm.Dense(1)]))
