"""Every example runs, is short, and says what its lesson promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("[!_]*.py"))
LESSONS = [path.stem for path in PROGRAMS if path.stem.startswith("lesson_")]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a program as a command would, drawing into a new folder; return its names and output."""

    def run(name: str) -> tuple[dict, str]:
        pytest.importorskip("matplotlib")
        path = EXAMPLES / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLES)  # as for a program that is started from there
        monkeypatch.setenv("FASTMLP_OFFLINE", "1")
        monkeypatch.setattr("sys.argv", [str(path), str(tmp_path / "pictures")])
        names = runpy.run_path(str(path), run_name="__main__")
        return names, capsys.readouterr().out

    return run


def pictures(folder: Path) -> list[str]:
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    return sorted(path.stem for path in folder.iterdir())


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


def test_the_lessons_are_numbered():
    assert [name[:9] for name in LESSONS] == [f"lesson_{i:02}" for i in range(1, 13)]


@pytest.mark.parametrize(
    "path", [p for p in PROGRAMS if p.stem not in LESSONS], ids=lambda p: p.stem
)
def test_the_other_examples_run(path, run):
    _, printed = run(path.stem)
    assert printed


def test_lesson_01_gates(run):
    names, printed = run("lesson_01_gates")
    # The columns AND, NAND, OR, XOR of the truth table.
    assert names["table"].tolist() == [[0, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 0]]
    assert printed.count("\n") == 5


def test_lesson_02_perceptron(run, tmp_path):
    names, _ = run("lesson_02_perceptron")
    for learned in ("AND", "OR"):
        steps, wrong = names["results"][learned]
        assert steps < 20
        assert wrong == 0
    steps, wrong = names["results"]["XOR"]
    assert steps == 1000
    assert wrong > 0
    assert pictures(tmp_path / "pictures") == ["lesson_02_and", "lesson_02_or", "lesson_02_xor"]


def test_lesson_03_linear_layers(run):
    names, _ = run("lesson_03_linear_layers")
    assert names["without"] < 1e-14
    assert names["with_tanh"] > 0.1


def test_lesson_04_activations(run, tmp_path):
    names, _ = run("lesson_04_activations")
    assert names["largest"]["sigmoid"] == (0.25, 0.0)
    assert names["largest"]["tanh"] == (1.0, 0.0)
    for vanishing in ("sigmoid", "tanh"):
        assert names["ends"][vanishing].max() < 1e-4
    for open_above in ("relu", "leaky_relu", "elu", "swish"):
        assert names["ends"][open_above][1] == pytest.approx(1, abs=1e-3)
    assert names["ends"]["leaky_relu"][0] == 0.25
    assert pictures(tmp_path / "pictures") == ["lesson_04_activations"]


def test_lesson_05_backpropagation(run):
    _, printed = run("lesson_05_backpropagation")
    # The figures of the example as it is printed everywhere.
    for figure in ("0.29837111", "0.593269992", "0.596884378", "0.75136507", "0.772928465"):
        assert figure in printed
    for figure in ("0.14978072 0.19956143 0.24975114 0.29950229", "0.082167041", "0.138498562"):
        assert figure in printed
    assert "0.35891648 0.40866619 0.51130127 0.56137012" in printed


def test_lesson_06_xor(run, tmp_path):
    names, printed = run("lesson_06_xor")
    assert printed.count("loss") == 101
    losses = names["losses"]
    assert len(losses) == 10_001
    assert losses[100] == pytest.approx(np.log(2), abs=0.01)  # the plateau
    assert losses[-1] < 1e-3
    assert pictures(tmp_path / "pictures") == ["lesson_06_boundary", "lesson_06_network"]


def test_lesson_07_iris(run, tmp_path):
    names, _ = run("lesson_07_iris")
    slow, fast = names["accuracies"][1e-3], names["accuracies"][1e-2]
    # PyTorch's means from the same splits and initial weights: `python -m bench.iris`.
    assert np.mean(slow) == pytest.approx(0.80, abs=0.05)
    assert np.mean(fast) == pytest.approx(0.96, abs=0.05)
    assert np.ptp(slow) > 0.2  # a single figure says little
    assert pictures(tmp_path / "pictures") == ["lesson_07_fast", "lesson_07_slow"]


def test_lesson_08_sequential(run):
    _, printed = run("lesson_08_sequential")
    assert "outputs of (3, 3) have shape (3, 2)" in printed
    assert "without Dense (softmax) the outputs have shape (3, 4)" in printed
    assert "with a new end: (3, 5) and 93 parameters" in printed


def test_lesson_09_images(run, tmp_path):
    names, _ = run("lesson_09_images")
    # Where nothing was downloaded, digits take the place of clothes.
    least = {"fashion_mnist": 0.87, "mnist-10k": 0.93, "digits": 0.8}
    assert names["accuracy"] > least[names["name"]]
    assert pictures(tmp_path / "pictures") == ["lesson_09_confusion", "lesson_09_predictions"]


def test_lesson_09_without_any_download(run, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTMLP_DATA", str(tmp_path / "nothing here"))
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("_images.BESIDE", tmp_path / "nothing there")
    names, printed = run("lesson_09_images")
    assert names["name"] == "digits"
    assert "without fashion_mnist: " in printed
    assert names["accuracy"] > 0.8


def test_lesson_10_mnist(run, tmp_path):
    names, _ = run("lesson_10_mnist")
    losses = names["curves"]["loss"]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)
    least = {"mnist": 0.975, "mnist-10k": 0.94, "digits": 0.8}
    assert names["curves"]["val_accuracy"][-1] > least[names["name"]]
    assert pictures(tmp_path / "pictures") == ["lesson_10_history"]


def test_lesson_11_batches(run):
    names, printed = run("lesson_11_batches")
    steps, losses, accuracies = zip(*names["results"].values(), strict=True)
    assert steps[0] > steps[1] > steps[2] > steps[3] == 5
    assert list(losses) == sorted(losses)
    assert accuracies[1] > accuracies[3]
    assert printed.count("\n") >= 5


def test_lesson_12_losses(run, tmp_path):
    names, printed = run("lesson_12_losses")
    intercepts = names["intercepts"]
    assert intercepts["mse"] > 1.5  # pulled away by a tenth of 8
    assert intercepts["mae"] == pytest.approx(1, abs=0.1)
    assert intercepts["huber"] == pytest.approx(1, abs=0.2)
    assert printed.count("\n") >= 6
    assert pictures(tmp_path / "pictures") == ["lesson_12_outliers"]
