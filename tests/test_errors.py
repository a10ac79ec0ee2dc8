"""A wrong call is answered in one sentence, by the right kind of exception, and changes nothing."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support import assert_same_bits

import fastmlp as fm
from fastmlp import device as devices
from fastmlp.cli import main

ROWS = 20
rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((ROWS, 4)), rng.randint(3, size=ROWS)
OUT = np.zeros((ROWS, 3), "float32")


def with_value(array: np.ndarray, place, value) -> np.ndarray:
    array = np.array(array, dtype=np.result_type(array, type(value)))
    array[place] = value
    return array


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def trained() -> fm.Sequential:
    """A model on its way: built, compiled, with moments and a dropout counter."""
    layers = [fm.Dense(6, "relu"), fm.Dropout(0.2), fm.Dense(3)]
    model = fm.Sequential(layers, seed=1)
    model.compile(fm.Adam(0.01), "cross_entropy", metrics=["accuracy"])
    model.fit(X, LABELS, batch_size=8, epochs=2, verbose=0)
    return model


OTHER = trained()  # another model, alive as long as the tests run
FIVE = np.zeros((ROWS, 5))


def assert_refused(call, error, says) -> None:
    """One sentence that says so; the model is as before, and so is all that training goes on from:
    optimizer, step, epoch and random numbers."""
    model, twin = trained(), trained()
    with pytest.raises(error) as caught:
        call(model)
    message = str(caught.value)
    assert re.search(says, message), message
    assert "\n" not in message
    assert len(model) == len(twin)
    assert_same_bits(model.get_weights(), twin.get_weights())
    histories = [
        m.fit(X, LABELS, batch_size=8, initial_epoch=2, epochs=3, verbose=0).history
        for m in (model, twin)
    ]
    assert histories[0] == histories[1]
    assert_same_bits(model.get_weights(), twin.get_weights())


# Features, rank and kind of x, in every method that takes it. The model was built for 4 features.

TAKING_X = {
    "fit": lambda m, x: m.fit(x, LABELS),
    "train_on_batch": lambda m, x: m.train_on_batch(x, LABELS),
    "evaluate": lambda m, x: m.evaluate(x, LABELS),
    "predict": lambda m, x: m.predict(x),
    "forward": lambda m, x: m.forward(x),
    "call": lambda m, x: m(x),
}
BAD_X = {
    "5 features": (FIVE, ValueError, "Dense: input has 5 features, but this layer was built for 4"),
    "rank 3": (np.zeros((ROWS, 2, 2)), ValueError, r"\(20, 2, 2\)"),
    "strings": (np.full((ROWS, 4), "1.5"), TypeError, "real numbers"),
    "objects": (np.full((ROWS, 4), None), TypeError, "real numbers.*object"),
    "complex": (np.zeros((ROWS, 4), complex), TypeError, "real numbers.*complex"),
    "dates": (np.zeros((ROWS, 4), "datetime64[s]"), TypeError, "real numbers.*datetime"),
    "ragged": ([[1.0, 2.0, 3.0, 4.0]] * (ROWS - 1) + [[1.0, 2.0]], ValueError, "no regular array"),
    "a number": (3.0, ValueError, "single value"),
    "None": (None, TypeError, "real numbers|None"),
}


@pytest.mark.parametrize("x, error, says", BAD_X.values(), ids=BAD_X)
@pytest.mark.parametrize("method", TAKING_X)
def test_x_must_be_rows_of_real_numbers(method, x, error, says):
    assert_refused(lambda m: TAKING_X[method](m, x), error, says)


# Everything else that can be asked of that model, which has 3 classes.

CALLS = {
    "predict: a vector of 5": (lambda m: m.predict(np.zeros(5)), ValueError, r"\(5,\).*4"),
    "call: a vector of 5": (lambda m: m(np.zeros(5)), ValueError, r"\(5,\).*4"),
    "fit: a vector": (lambda m: m.fit(np.zeros(4), LABELS[:4]), ValueError, r"\(4,\)"),
    # Labels.
    "fit: label too large": (
        lambda m: m.fit(X, with_value(LABELS, 3, 12)), ValueError,
        r"cross_entropy: label 12 at row 3 is outside 0\.\.2",
    ),
    "fit: label negative": (
        lambda m: m.fit(X, with_value(LABELS, 5, -1)), ValueError,
        r"cross_entropy: label -1 at row 5 is outside 0\.\.2",
    ),
    "fit: label fractional": (
        lambda m: m.fit(X, with_value(LABELS, 5, 1.5)), ValueError,
        r"cross_entropy: label 1\.5 at row 5",
    ),
    "fit: label huge": (
        lambda m: m.fit(X, with_value(LABELS, 5, 2**40)), ValueError, r"1099511627776 at row 5"
    ),
    "fit: label nan": (lambda m: m.fit(X, with_value(LABELS, 5, np.nan)), ValueError, "row 5"),
    "train_on_batch: label": (
        lambda m: m.train_on_batch(X, with_value(LABELS, 3, 12)), ValueError, "label 12 at row 3"
    ),
    "evaluate: label": (
        lambda m: m.evaluate(X, with_value(LABELS, 3, 12)), ValueError, "label 12 at row 3"
    ),
    "fit: validation label": (
        lambda m: m.fit(X, LABELS, validation_data=(X, with_value(LABELS, 3, 12))), ValueError,
        "label 12 at row 3",
    ),
    "fit: text labels": (lambda m: m.fit(X, LABELS.astype(str)), TypeError, "."),
    "fit: object labels": (lambda m: m.fit(X, LABELS.astype(object)), TypeError, "object"),
    "fit: two columns": (lambda m: m.fit(X, np.zeros((ROWS, 2))), ValueError, "3.*2|2.*3"),
    "fit: no target": (lambda m: m.fit(X, None), TypeError, "None|object"),
    # Numbers that are none.
    "fit: nan": (lambda m: m.fit(with_value(X, (7, 2), np.nan), LABELS), ValueError, "(?i)nan"),
    "fit: infinity": (lambda m: m.fit(with_value(X, (7, 2), np.inf), LABELS), ValueError, "inf"),
    # Rows.
    "fit: no rows": (lambda m: m.fit(X[:0], LABELS[:0]), ValueError, "no rows"),
    "train_on_batch: no rows": (
        lambda m: m.train_on_batch(X[:0], LABELS[:0]), ValueError, "no rows"
    ),
    "evaluate: no rows": (lambda m: m.evaluate(X[:0], LABELS[:0]), ValueError, "no rows"),
    **{
        f"{method}: lengths": (
            lambda m, method=method: getattr(m, method)(X, LABELS[:19]), ValueError, "20.*19"
        )
        for method in ("fit", "train_on_batch", "evaluate")
    },
    "fit: no rows left to train on": (
        lambda m: m.fit(X[:1], LABELS[:1], validation_split=0.5), ValueError, "validation_split"
    ),
    # Settings of fit.
    "fit: batch_size of -1": (
        lambda m: m.fit(X, LABELS, batch_size=-1), ValueError, "batch_size.*-1"
    ),
    "fit: batch_size of 0": (lambda m: m.fit(X, LABELS, batch_size=0), ValueError, "batch_size.*0"),
    "fit: batch_size of 1.5": (
        lambda m: m.fit(X, LABELS, batch_size=1.5), TypeError, r"batch_size.*1\.5"
    ),
    "fit: batch_size as text": (
        lambda m: m.fit(X, LABELS, batch_size="32"), TypeError, "batch_size.*'32'"
    ),
    "evaluate: batch_size": (
        lambda m: m.evaluate(X, LABELS, batch_size=-1), ValueError, "batch_size.*-1"
    ),
    "predict: batch_size": (lambda m: m.predict(X, batch_size=0), ValueError, "batch_size.*0"),
    "fit: epochs of -1": (lambda m: m.fit(X, LABELS, epochs=-1), ValueError, "epochs.*-1"),
    "fit: epochs of 2.5": (lambda m: m.fit(X, LABELS, epochs=2.5), TypeError, r"epochs.*2\.5"),
    "fit: initial_epoch": (
        lambda m: m.fit(X, LABELS, initial_epoch=-1), ValueError, "initial_epoch.*-1"
    ),
    **{
        f"fit: validation_split of {split}": (
            lambda m, split=split: m.fit(X, LABELS, validation_split=split), ValueError,
            f"validation_split.*{split:g}",
        )
        for split in (1.0, -0.1, 1.5)
    },
    "fit: validation_data alone": (
        lambda m: m.fit(X, LABELS, validation_data=X), (TypeError, ValueError), "validation_data"
    ),
    "fit: validation features": (
        lambda m: m.fit(X, LABELS, validation_data=(FIVE, LABELS)), ValueError, "5.*4"
    ),
    "fit: sample_weight length": (
        lambda m: m.fit(X, LABELS, sample_weight=np.ones(19)), ValueError, "sample.weight.*19"
    ),
    "fit: sample_weight rank": (
        lambda m: m.fit(X, LABELS, sample_weight=np.ones((20, 3))), ValueError, "sample.weight"
    ),
    "fit: sample_weight negative": (
        lambda m: m.fit(X, LABELS, sample_weight=with_value(np.ones(20), 4, -1.0)), ValueError,
        "sample.weight.*-1",
    ),
    "fit: sample_weight nan": (
        lambda m: m.fit(X, LABELS, sample_weight=with_value(np.ones(20), 4, np.nan)), ValueError,
        "sample.weight",
    ),
    "fit: sample_weight text": (
        lambda m: m.fit(X, LABELS, sample_weight=np.full(20, "1")), TypeError, "sample.weight"
    ),
    "fit: class_weight key": (
        lambda m: m.fit(X, LABELS, class_weight={7: 1.0}), ValueError, "class_weight.*7"
    ),
    "fit: class_weight negative": (
        lambda m: m.fit(X, LABELS, class_weight={1: -1.0}), ValueError, "class_weight.*-1"
    ),
    "fit: class_weight kind": (
        lambda m: m.fit(X, LABELS, class_weight=[1.0, 2.0]), TypeError, "class_weight"
    ),
    "fit: callback": (lambda m: m.fit(X, LABELS, callbacks=[3]), TypeError, "callback.*3"),
    "fit: verbose": (lambda m: m.fit(X, LABELS, verbose="loud"), ValueError, "verbose.*loud"),
    # Names.
    "compile: optimizer": (
        lambda m: m.compile("adm", "mse"),
        ValueError, r"optimizer.*'adm'.*adam, adamw, rmsprop, sgd.*'adam'",
    ),
    "compile: loss": (
        lambda m: m.compile("adam", "cros_entropy"), ValueError, "loss.*'cros_entropy'.*'cross_"
    ),
    "compile: metric": (
        lambda m: m.compile("adam", "mse", ["acuracy"]), ValueError, "metric.*acuracy.*'accuracy'"
    ),
    "compile: a class": (lambda m: m.compile(fm.Adam, "mse"), TypeError, "Adam"),
    "compile: a class for a loss": (
        lambda m: m.compile("adam", fm.losses.Huber), TypeError, "loss.*class Huber"
    ),
    "compile: a loss's setting": (
        lambda m: m.compile("adam", fm.losses.Huber(-1)), ValueError, "huber: delta.*-1"
    ),
    "compile: a number for a loss": (lambda m: m.compile("adam", 3), TypeError, "loss.*"),
    "compile: an optimizer of another model": (
        lambda m: m.compile(OTHER.optimizer, "mse"), RuntimeError, "another model"
    ),
    # Weights.
    "set_weights: count": (lambda m: m.set_weights(m.get_weights()[:3]), ValueError, "4.*3"),
    "set_weights: shape": (
        lambda m: m.set_weights([w.T for w in m.get_weights()]), ValueError,
        r"\(4, 6\).*\(6, 4\)|\(6, 4\).*\(4, 6\)",
    ),
    "set_weights: the last is wrong": (
        lambda m: m.set_weights([*(w + 1 for w in m.get_weights()[:3]), np.zeros(4)]), ValueError,
        r"\(4,\)",
    ),
    "set_weights: text": (
        lambda m: m.set_weights([w.astype(str) for w in m.get_weights()]), TypeError, "."
    ),
    "load_state_dict: missing": (
        lambda m: m.load_state_dict({"0.kernel": np.zeros((4, 6))}), ValueError, r"0\.bias"
    ),
    "load_state_dict: unknown": (
        lambda m: m.load_state_dict({**m.state_dict(), "9.kernel": np.zeros(3)}), ValueError,
        r"9\.kernel",
    ),
    "load_state_dict: shape": (
        lambda m: m.load_state_dict({**m.state_dict(), "2.bias": np.zeros(4)}), ValueError,
        r"2\.bias",
    ),
    # The open box.
    "backward: shape": (
        lambda m: (m.forward(X), m.backward(np.zeros((ROWS, 4)))), ValueError,
        r"backward.*\(20, 3\).*\(20, 4\)",
    ),
    "backward: complex": (
        lambda m: (m.forward(X), m.backward(np.zeros((ROWS, 3), complex))), TypeError, "complex"
    ),
    # Writing into `out`.
    "out: read-only": (lambda m: m(X, out=read_only(OUT)), ValueError, "read-only|writable"),
    "out: dtype": (lambda m: m(X, out=OUT.astype("float64")), TypeError, "float64"),
    "out: shape": (lambda m: m(X, out=OUT[:, :2]), ValueError, r"\(20, 2\)"),
    "out: rank": (lambda m: m(X[0], out=OUT[:1]), ValueError, r"\(1, 3\)"),
    "out: list": (lambda m: m(X, out=OUT.tolist()), TypeError, "list"),
    # Structure.
    "add: no layer": (lambda m: m.add(3), TypeError, "layer.*int"),
    "add: a class": (lambda m: m.add(fm.Dense), TypeError, "Dense"),
    "build: other features": (lambda m: m.build(5), ValueError, "5.*4|4.*5"),
    "to: device": (lambda m: m.to("tpu"), ValueError, "device.*tpu"),
    "index": (lambda m: m[7], IndexError, "."),
}  # fmt: skip


@pytest.mark.parametrize("call, error, says", CALLS.values(), ids=CALLS)
def test_a_wrong_call_is_refused_in_words_and_changes_nothing(call, error, says):
    assert_refused(call, error, says)


# What cannot even be made.

MAKING = {
    "Dense: 0 units": (lambda: fm.Dense(0), ValueError, "Dense.*units.*0"),
    "Dense: -1 units": (lambda: fm.Dense(-1), ValueError, "Dense.*units.*-1"),
    "Dense: 2.5 units": (lambda: fm.Dense(2.5), TypeError, r"Dense.*units.*2\.5"),
    "Dense: text": (lambda: fm.Dense("10"), TypeError, "Dense.*units.*'10'"),
    "Dense: activation": (lambda: fm.Dense(3, "rleu"), ValueError, "activation.*rleu.*'relu'"),
    "Dense: initializer": (
        lambda: fm.Dense(3, kernel_initializer="he_norml"), ValueError, "he_norml.*'he_normal'"
    ),
    "Activation": (lambda: fm.Activation("sofmax"), ValueError, "sofmax.*'softmax'"),
    "Dropout: 1": (lambda: fm.Dropout(1.0), ValueError, "Dropout.*rate.*1"),
    "Dropout: -0.1": (lambda: fm.Dropout(-0.1), ValueError, r"Dropout.*rate.*-0\.1"),
    "Dropout: nan": (lambda: fm.Dropout(float("nan")), ValueError, "Dropout.*rate.*nan"),
    "Dropout: text": (lambda: fm.Dropout("0.5"), TypeError, "Dropout.*rate"),
    "Input: 0": (lambda: fm.Input(0), ValueError, "Input.*0"),
    "Input: text": (lambda: fm.Input("4"), TypeError, "Input"),
    "Sequential: a number": (lambda: fm.Sequential([3]), TypeError, "(?i)layer.*3|layer.*int"),
    "Sequential: device": (lambda: fm.Sequential(device="tpu"), ValueError, "device.*tpu"),
    "Sequential: dtype": (lambda: fm.Sequential(dtype="int8"), ValueError, "dtype.*int8"),
    "Sequential: no dtype": (lambda: fm.Sequential(dtype="foo"), ValueError, "dtype.*foo"),
    "Sequential: precision": (
        lambda: fm.Sequential(precision="fp4"), ValueError, "precision.*fp4"
    ),
    "Sequential: seed": (lambda: fm.Sequential(seed=1.5), TypeError, r"seed.*1\.5"),
    "Sequential: negative seed": (lambda: fm.Sequential(seed=-1), ValueError, "seed.*-1"),
    "Sequential: huge seed": (lambda: fm.Sequential(seed=2**70), ValueError, r"seed.*2\*\*64"),
    "Sequential: a second Input": (
        lambda: fm.Sequential([fm.Dense(3), fm.Input(4)]), ValueError, "Input"
    ),
    "build: features of 0": (
        lambda: fm.Sequential([fm.Dense(3)]).build(0), ValueError, "0"
    ),
    "a Dense on images": (
        lambda: fm.Sequential([fm.Dense(3)]).build((28, 28)), ValueError, r"Dense.*Flatten"
    ),
    "set_num_threads: text": (lambda: fm.set_num_threads("2"), TypeError, "set_num_threads"),
    "load: a directory": (lambda: fm.load("."), OSError, "."),
}  # fmt: skip


@pytest.mark.parametrize("call, error, says", MAKING.values(), ids=MAKING)
def test_what_makes_no_sense_cannot_be_made(call, error, says):
    with pytest.raises(error, match=says):
        call()


# What comes too early.

UNBUILT = {
    "fit": (lambda m: m.fit(X, LABELS), RuntimeError, "compile"),
    "train_on_batch": (lambda m: m.train_on_batch(X, LABELS), RuntimeError, "compile"),
    "evaluate": (lambda m: m.evaluate(X, LABELS), RuntimeError, "compile"),
    "backward": (lambda m: m.backward(np.zeros((ROWS, 3))), RuntimeError, "built"),
    "gradients": (lambda m: m.gradients(), RuntimeError, "built"),
    "get_weights": (lambda m: m.get_weights(), RuntimeError, "build|built"),
    "kernel": (lambda m: m[0].kernel, RuntimeError, "build|built"),
}


@pytest.mark.parametrize("call, error, says", UNBUILT.values(), ids=UNBUILT)
def test_what_comes_too_early_says_what_is_missing(call, error, says):
    with pytest.raises(error, match=says):
        call(fm.Sequential([fm.Dense(3)]))


def test_popping_from_nothing():
    with pytest.raises((IndexError, ValueError, RuntimeError), match="layer|empty"):
        fm.Sequential().pop()


def test_cuda_that_is_not_there_says_what_to_install():
    if fm.cuda.is_available():
        pytest.skip("there is a GPU")
    for call in (lambda: fm.Sequential(device="cuda"), lambda: trained().to("cuda")):
        with pytest.raises(RuntimeError, match="device 'cuda': .*(CUDA|NVIDIA|GPU|CuPy)"):
            call()


def broken_cupy():
    def arange(n):
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    return SimpleNamespace(arange=arange)


# Whether it is built, fastmlp._cuda, CuPy (None: not there), and what is said.
MISSING_PARTS = {
    "the backend": (
        False,
        None,
        None,
        r"without its CUDA backend.*-C cmake.define.FASTMLP_CUDA=ON",
    ),
    "its file": (True, None, None, "fastmlp._cuda does not load"),
    "the GPU": (True, "there is no NVIDIA driver on this machine", None, "no NVIDIA driver"),
    "CuPy": (True, "", None, r'CuPy.* is not installed: pip install "fastmlp\[cuda\]"'),
    "a part of CuPy": (True, "", broken_cupy(), "CuPy does not work here: libnvrtc.so.13"),
}


@pytest.mark.parametrize("built, why_not, cupy, says", MISSING_PARTS.values(), ids=MISSING_PARTS)
def test_each_missing_part_of_cuda_is_named(built, why_not, cupy, says, monkeypatch, capsys):
    describe = dict.fromkeys(("device", "compute_capability", "runtime", "driver"), "")
    native = SimpleNamespace(unavailable=lambda: why_not, describe=lambda: describe)
    monkeypatch.setattr(devices, "cuda_is_built", lambda: built)
    monkeypatch.setitem(sys.modules, "fastmlp._cuda", None if why_not is None else native)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    devices._cuda.cache_clear()
    with pytest.raises(RuntimeError, match=f"^device 'cuda': .*{says}"):
        fm.Sequential(device="cuda")
    cuda = fm.show_config()["cuda"]
    assert (cuda["built"], cuda["available"]) == (built, fm.cuda.is_available()) == (built, False)
    assert re.search(says, cuda["reason"])
    assert main(["info"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"CUDA {'built' if built else 'not built'}" in printed
    assert cuda["reason"] in printed


def test_a_regression_target_must_match_the_outputs():
    # (20,) against (20, 3) would broadcast in NumPy to (20, 20, 3) or fail late.
    model = fm.Sequential([fm.Dense(3)], seed=0)
    model.compile("sgd", "mse")
    for target in (np.zeros(ROWS), np.zeros((ROWS, 1)), np.zeros((3, ROWS))):
        with pytest.raises(ValueError, match="mse|rows"):
            model.fit(X, target, verbose=0)


@pytest.mark.parametrize("activation, loss", [("softmax", "binary_cross_entropy"),
                                              ("sigmoid", "cross_entropy")])  # fmt: skip
def test_an_ending_that_does_not_suit_the_loss(activation, loss):
    model = fm.Sequential([fm.Dense(3, activation)], seed=0)
    model.compile("sgd", loss)
    target = LABELS if loss == "cross_entropy" else np.zeros((ROWS, 3))
    with pytest.raises(ValueError, match=f"{loss}.*{activation}"):
        model.fit(X, target, verbose=0)


def test_a_loss_of_one_s_own_must_return_what_it_should():
    for bad in (
        lambda p, t, sample_weight=None: 1.0,
        lambda p, t, sample_weight=None: (1.0, np.zeros(3)),
        lambda p, t, sample_weight=None: ("much", p),
    ):
        model = fm.Sequential([fm.Dense(3)], seed=0)
        model.compile("sgd", bad)
        model.build(4)
        before = model.get_weights()
        with pytest.raises((TypeError, ValueError), match="loss|gradient|number"):
            model.fit(X, np.zeros((ROWS, 3)), verbose=0)
        assert_same_bits(model.get_weights(), before)
