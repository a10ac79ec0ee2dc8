"""The command line, from a file to predictions, and what it says when something is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import cli

pytest.importorskip("pandas")
pytest.importorskip("sklearn")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch, threads):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run(capsys):
    """Run the command line: a call returns (exit status, stdout, stderr)."""

    def call(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse leaves so
            status = error.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return call


@pytest.fixture
def trained(run):
    """The same, but what must succeed: returns stdout."""

    def call(*arguments):
        status, out, err = run(*arguments)
        assert (status, err) == (0, "")
        return out

    return call


def write_houses(name="houses.csv", rows=300, seed=0, price=True):
    """Write a table with missing values, categories, a row number and a name."""
    rng = np.random.default_rng(seed)
    with Path(name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "area", "rooms", "town", "owner"] + ["price"] * price)
        for i in range(rows):
            area, town = rng.uniform(20, 200), rng.choice(["Ulm", "Bonn", "Jena"])
            cost = 3000 * area + (100_000 if town == "Ulm" else 0)
            rooms = "" if i % 9 == 0 else rng.integers(1, 7)
            row = [i + 1, f"{area:.1f}", rooms, town if i % 7 else "", f"owner {i}"]
            writer.writerow(row + [f"{cost:.0f}"] * price)
    return name


def write_blobs(name="blobs.npz", rows=300, classes=3, **more):
    """Write points around three corners of a square."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, rows)
    x = np.stack([y % 2, y // 2], axis=1) * 6 + rng.normal(size=(rows, 2))
    np.savez(name, x=x, y=y, **more)
    return name


def figure(name, out):
    return float(re.search(rf"^  {name} +([-\d.,]+)", out, re.MULTILINE)[1].replace(",", ""))


def test_regression_from_a_file_to_predictions(trained, run):
    out = trained(
        "train", write_houses(), "--plot", "history.png", "--output", "houses.safetensors"
    )
    assert figure("R2", out) > 0.9
    assert "price (the last column; choose with --target), a number" in out
    assert "id (names the row), owner (300 different texts)" in out
    assert "rooms (" in out
    assert "216 to train, 24 to validate, 60 to test" in out
    assert "saved houses.safetensors and history.png" in out
    assert Path("history.png").read_bytes().startswith(b"\x89PNG")

    new = write_houses("new.csv", rows=40, seed=1)
    again = trained("evaluate", "houses.safetensors", new)
    assert figure("R2", again) > 0.9
    trained("predict", "houses.safetensors", new, "--output", "predictions.csv")
    rows = Path("predictions.csv").read_text().splitlines()
    assert rows[0] == "prediction"
    predicted = np.array(rows[1:], float)
    truth = np.genfromtxt(new, delimiter=",", skip_header=1, usecols=5)
    assert fm.metrics.r2(predicted, truth) == pytest.approx(figure("R2", again), abs=1e-4)

    bare = write_houses("bare.csv", rows=40, seed=1, price=False)
    assert trained("predict", "houses.safetensors", bare).splitlines() == rows
    status, _, err = run("evaluate", "houses.safetensors", bare)
    assert status == 2
    assert "there is no column 'price'" in err


def test_classes(trained):
    out = trained("train", write_blobs())
    assert figure("accuracy", out) > 0.95
    assert "3 classes: 0, 1, 2" in out
    assert re.search(r"class +precision +recall +f1 +rows", out)
    rows = [line.split(",") for line in trained(
        "predict", "model.safetensors", "blobs.npz", "--probabilities"
    ).splitlines()]  # fmt: skip
    assert rows[0] == ["prediction", "probability_0", "probability_1", "probability_2"]
    table = np.array(rows[1:], float)
    np.testing.assert_allclose(table[:, 1:].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(table[:, 1:].argmax(axis=1), table[:, 0])
    truth = np.load("blobs.npz")["y"]
    accuracy = figure("accuracy", trained("evaluate", "model.safetensors", "blobs.npz"))
    assert accuracy == pytest.approx((table[:, 0] == truth).mean(), abs=1e-4)


def test_classes_of_text(trained):
    trained("train", write_houses(), "--target", "town", "--ignore", "id,owner", "--epochs", "5")
    out = trained("predict", "model.safetensors", "houses.csv", "--probabilities")
    lines = out.splitlines()
    assert lines[0] == "prediction,probability_Bonn,probability_Jena,probability_Ulm"
    assert {line.split(",")[0] for line in lines[1:]} <= {"Bonn", "Jena", "Ulm"}
    assert len(lines) == 301  # rows without a town too
    assert "houses.csv: 257 rows" in trained("evaluate", "model.safetensors", "houses.csv")


@pytest.mark.parametrize("name", ["iris", "digits"])
def test_data_sets_of_scikit_learn(trained, name):
    assert figure("accuracy", trained("train", name)) >= 0.95


def test_idx_files(trained):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    images = rng.integers(0, 50, (200, 4, 4))
    images[np.arange(200), labels] += 200  # the class is which row is bright
    for kind, array in ("images-idx3", images), ("labels-idx1", labels):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        packed = gzip.compress(header + array.astype(np.uint8).tobytes())
        Path(f"t-{kind}-ubyte.gz").write_bytes(packed)
    out = trained("train", "t-images-idx3-ubyte.gz")
    assert figure("accuracy", out) > 0.95
    assert "16, on one scale" in out
    files = ["t-images-idx3-ubyte.gz", "t-labels-idx1-ubyte.gz"]
    assert trained("train", *files).replace(" ".join(files), files[0]) == out  # the same seed
    Path(files[1]).unlink()
    predictions = trained("predict", "model.safetensors", files[0]).splitlines()[1:]
    assert (np.array(predictions, int) == labels).mean() > 0.95


def test_a_test_part_of_its_own(trained):
    write_blobs()
    with np.load("blobs.npz") as blobs:
        x, y = blobs["x"], blobs["y"]
    np.savez("parts.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    out = trained("train", "parts.npz")
    assert "180 to train, 20 to validate, 100 to test" in out
    assert "parts.npz: 100 rows" in trained("evaluate", "model.safetensors", "parts.npz")
    assert len(trained("predict", "model.safetensors", "parts.npz").splitlines()) == 101


def test_the_seed_decides(trained):
    write_blobs()
    weights = {}
    for name, seed in ("a", 1), ("b", 1), ("c", 2):
        trained("train", "blobs.npz", "--epochs", 2, "--seed", seed, "--output", name)
        weights[name] = fm.load(name).get_weights()[0]
    np.testing.assert_array_equal(weights["a"], weights["b"])
    assert not np.array_equal(weights["a"], weights["c"])


def test_options_reach_the_network(trained):
    trained(
        "train", write_blobs(), "--hidden", "7,5", "--activation", "tanh", "--dropout", "0.25",
        "--dtype", "float64", "--optimizer", "sgd", "--learning-rate", "0.5", "--epochs", 3,
        "--weight-decay", "0.125", "--validation-size", 0, "--test-size", 0, "--threads", 1,
    )  # fmt: skip
    model = fm.load("model.safetensors")
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert [layer.units for layer in model.layers[::2]] == [7, 5, 3]
    assert model.layers[0].activation == "tanh"
    assert model.layers[1].rate == 0.25
    assert model.get_weights()[0].dtype == np.float64
    assert isinstance(model.optimizer, fm.SGD)
    assert model.optimizer.weight_decay == 0.125
    assert model.optimizer.learning_rate.learning_rate == 0.5
    assert fm.get_num_threads() == 1


def test_without_hidden_layers_and_quiet(trained):
    out = trained("train", write_blobs(), "--hidden", "none", "--quiet")
    assert len(fm.load("model.safetensors").layers) == 1
    assert out.startswith("  accuracy")


def test_rows_without_a_target_are_left_out(trained):
    path = Path(write_houses())
    lines = path.read_text().splitlines()
    lines[1:11] = [line.rpartition(",")[0] + "," for line in lines[1:11]]
    path.write_text("\n".join(lines))
    assert "houses.csv: 290 rows" in trained("train", path, "--epochs", 1)


def test_info(trained):
    assert fm.__version__ in trained("info")
    trained("train", write_houses(), "--epochs", 2)
    out = trained("info", "model.safetensors")
    assert "trained on houses.csv" in out
    assert re.search(r"target +price, a number", out)
    assert re.search(r"categories +1: town", out)
    assert re.search(r"test +R2 ", out)


def test_help(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "fastmlp train digits" in out
    for command in ("train", "predict", "evaluate", "info"):
        assert run(command, "--help")[0] == 0
    assert run("--version")[1] == f"fastmlp {fm.__version__}\n"


def test_a_start_without_scikit_learn():
    code = "import sys, fastmlp.cli; print({'sklearn', 'pandas', 'matplotlib'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"


BAD_CALLS = {
    "missing file": (["none.csv"], "none.csv: no such file"),
    "unknown name": (["irsi"], "unknown data set 'irsi' (did you mean 'iris'?); known: iris, "),
    "empty file": (["empty.csv"], "empty.csv: the file is empty"),
    "header only": (["header.csv"], "header.csv: the file has a header, but no rows"),
    "few rows": (["few.csv"], "few.csv: 4 rows with a target are too few to train on"),
    "missing column": (
        ["houses.csv", "--target", "prize"],
        "there is no column 'prize' (did you mean 'price'?); "
        "columns: id, area, rooms, town, owner, price",
    ),
    "text for a number": (
        ["wrong.csv"],
        "column 'area', row 3: 'large' is not a finite number; "
        "correct it, or see --categories and --ignore",
    ),
    "text to regress": (
        ["houses.csv", "--target", "town", "--task", "regression"],
        "is not a finite number, which a regression cannot learn",
    ),
    "one class": (["single.csv"], "target 'y' has a single class, 1: there is nothing to tell"),
    "too many classes": (["houses.csv", "--target", "owner"], "too many to be classes"),
    "folder": (["iris", "--output", "."], ".: this is a folder, not a file to write"),
    "no folder": (["iris", "--output", "none/model"], "there is no folder none to write to"),
    "plot": (["iris", "--plot", "a.xyz"], "a.xyz: a plot is a .png, .pdf or .svg file"),
    "activation": (["iris", "--activation", "rleu"], "did you mean 'relu'?"),
    "hidden": (["iris", "--hidden", "a"], "--hidden: expected a whole number from 1, got 'a'"),
    "share": (["iris", "--test-size", "1"], "expected a number from 0 to below 1, got '1'"),
    "rate": (["iris", "--learning-rate", "-1"], "got -1"),
    "divergence": (["houses.csv", "--quiet", "--learning-rate", "1e30"], "is not finite"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(run, arguments, says):
    write_houses(rows=60)
    Path("empty.csv").touch()
    Path("header.csv").write_text("a,b\n")
    Path("few.csv").write_text("a,b\n" + "1,2\n" * 4)
    Path("single.csv").write_text("a,y\n" + "1,1\n" * 20)
    text = Path("houses.csv").read_text().splitlines()
    text[3] = text[3].replace(text[3].split(",")[1], "large")
    Path("wrong.csv").write_text("\n".join(text))
    status, out, err = run("train", *arguments)
    assert status == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert not Path("model.safetensors").exists()


def test_bad_models(run, trained):
    trained("train", write_houses(), "--epochs", 1)
    fm.Sequential([fm.Input(2), fm.Dense(1)], seed=0).save("plain.safetensors")
    Path("text.safetensors").write_text("not a model")
    Path("missing.csv").write_text("area,rooms\n1,2\n")
    write_blobs()
    for model, data, says in [
        ("none.safetensors", "houses.csv", "none.safetensors"),
        ("text.safetensors", "houses.csv", "text.safetensors"),
        ("plain.safetensors", "houses.csv", "not saved by 'fastmlp train'"),
        ("model.safetensors", "none.csv", "none.csv: no such file"),
        ("model.safetensors", "missing.csv", "there is no column 'town', which the model needs"),
        ("model.safetensors", "blobs.npz", "there is no column 'area' (and 2 more)"),
    ]:
        status, _, err = run("predict", model, data)
        assert status == 2
        assert says in err
        status, _, err = run("evaluate", model, data)  # where a missing target may come first
        assert status == 2
        assert err.startswith("fastmlp: error: ")
        assert err.count("\n") == 1
    status, _, err = run("predict", "model.safetensors", "houses.csv", "--probabilities")
    assert status == 2
    assert "'price' is a number, not a class" in err


def test_a_category_never_seen_is_noted(run, trained):
    trained("train", write_houses(), "--epochs", 1)
    Path("new.csv").write_text("area,rooms,town\n50,2,Rome\n")
    status, out, err = run("predict", "model.safetensors", "new.csv")
    assert status == 0
    assert len(out.splitlines()) == 2
    assert err.startswith("fastmlp: note: column 'town': 1 rows hold a value that the model")


def test_without_pandas(run, monkeypatch):
    write_houses()
    monkeypatch.setitem(sys.modules, "pandas", None)
    status, _, err = run("train", "houses.csv")
    assert status == 2
    assert 'install it with: pip install "fastmlp[cli]"' in err


def test_the_file_is_neither_pickled_nor_run(trained):
    trained("train", write_houses(), "--epochs", 1)
    data = Path("model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    assert json.loads(header["__metadata__"]["table"])["schema"]["target"] == "price"
    assert {"extra.median", "extra.mean", "extra.scale", "extra.target"} <= set(header)


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "fastmlp.cli", *arguments], text=True, **options)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_saves_what_was_reached():
    write_blobs(rows=5000)
    process = start(
        "train", "blobs.npz", "--epochs", "1000000", "--patience", "1000000",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not process.stdout.readline().startswith("  network"):
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode == 130
    assert re.search(r"trained +interrupted after \d+ of 1000000 epochs; what was reached", out)
    assert "saved model.safetensors" in out
    assert fm.load("model.safetensors").layers[-1].units == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes that break so")
def test_a_reader_that_leaves_early(trained):
    trained("train", write_blobs(rows=20000), "--epochs", "1")
    process = start(
        "predict", "model.safetensors", "blobs.npz",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "prediction\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.skipif(not SHARED.exists(), reason="the housing data lie beside the repository only")
def test_california_housing(trained):
    data = SHARED / "california_housing.csv"
    began = time.perf_counter()
    out = trained("train", data, "--target", "median_house_value", "--quiet")
    assert figure("R2", out) > 0.75
    assert time.perf_counter() - began < 60


# ---- bench


def test_bench_times_this_machine(trained, tmp_path):
    path = tmp_path / "speed.json"
    out = trained("bench", "E", "--peers", "NumPy", "--threads", 1, "--json", path)
    assert "training step" in out
    assert [record["workload"] for record in json.loads(path.read_text())["records"]] == ["E"] * 2


def test_bench_refuses_an_unknown_workload(run):
    status, _, err = run("bench", "Z")
    assert status == 2
    assert "no workload Z" in err
