"""The picture of a training shows each figure, in training and in validation."""

from __future__ import annotations

import sys

import numpy as np
import pytest

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


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastmlp\[plot\]"'):
        plotting.history(CURVES)
