"""Saving and loading: every bit comes back, training goes on, and no file can do harm."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pathlib
import struct

import numpy as np
import pytest
from support import assert_same_bits

import fastmlp as fm

rng = np.random.RandomState(0)
X, LABELS = rng.standard_normal((103, 5)), rng.randint(3, size=103)

OPTIMIZERS = {
    "sgd": lambda: fm.SGD(0.1),
    "nesterov": lambda: fm.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: fm.Adam(0.01, betas=(0.8, 0.99), clip_norm=0.5),
    "amsgrad": lambda: fm.AdamW(0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda: fm.RMSprop(0.01, alpha=0.9, momentum=0.5, centered=True),
    "schedule": lambda: fm.Adam(
        fm.schedules.WarmUp(fm.schedules.StepDecay(0.05, every=7, factor=0.5), steps=5)
    ),
}


def network(optimizer=None, **settings) -> fm.Sequential:
    layers = [
        fm.Dense(9, "relu"),
        fm.Dropout(0.3),
        fm.Dense(7, "leaky_relu", kernel_initializer="glorot_uniform"),
        fm.Activation("tanh"),
        fm.Dense(3, "softmax", use_bias=False),
    ]
    model = fm.Sequential(layers, seed=7, name="a name", **settings)
    model.compile(optimizer or fm.Adam(0.01), "cross_entropy", metrics=["accuracy"])
    return model


def train(model: fm.Sequential, start: int, stop: int) -> fm.callbacks.History:
    return model.fit(X, LABELS, batch_size=16, initial_epoch=start, epochs=stop, verbose=0)


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "model.safetensors"


def test_weights_and_predictions_come_back_bit_for_bit(path, dtype):
    model = network(dtype=dtype)
    train(model, 0, 2)
    model.save(path)
    loaded = fm.load(path)
    assert_same_bits(loaded.get_weights(), model.get_weights())
    assert_same_bits([loaded.predict(X)], [model.predict(X)])
    assert loaded.evaluate(X, LABELS) == model.evaluate(X, LABELS)
    assert [type(layer) for layer in loaded] == [type(layer) for layer in model]
    assert loaded.name == "a name"
    assert loaded.seed == 7


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_as_if_it_had_never_stopped(optimizer, path, dtype, device):
    settings = {"dtype": dtype, "device": device}
    whole, stopped = (network(OPTIMIZERS[optimizer](), **settings) for _ in range(2))
    expected = train(whole, 0, 5).history
    train(stopped, 0, 2)
    stopped.save(path)
    resumed = fm.load(path, device=device)
    history = train(resumed, 2, 5)
    assert history.epoch == [2, 3, 4]
    assert history.history == {key: values[2:] for key, values in expected.items()}
    assert_same_bits(resumed.get_weights(), whole.get_weights())


@pytest.mark.parametrize(
    "loss",
    [
        fm.losses.CrossEntropy(label_smoothing=0.1),
        fm.losses.Huber(delta=2.0, reduction="sum"),
        fm.losses.MSE(reduction="sum"),
        fm.losses.Hinge(),
    ],
    ids=repr,
)
def test_the_settings_of_a_loss_come_back(loss, path):
    y = LABELS if loss.name == "cross_entropy" else np.eye(3)[LABELS]
    model = fm.Sequential([fm.Dense(3)], seed=7)
    model.compile("sgd", loss)
    score = model.evaluate(X, y)
    model.save(path)
    ensemble = fm.Ensemble(model, 2)
    ensemble.save(path.with_name("ensemble"))
    twins = [fm.load(path), copy.deepcopy(model)]
    for twin in (*twins, fm.Ensemble.load(path.with_name("ensemble")), ensemble[1]):
        assert twin.loss == loss
    for twin in twins:
        assert twin.evaluate(X, y) == score


def test_saving_changes_nothing(path):
    saved, plain = network(), network()
    for epoch in range(3):
        train(saved, epoch, epoch + 1)
        saved.save(path)
    train(plain, 0, 3)
    assert_same_bits(saved.get_weights(), plain.get_weights())


def test_a_model_not_compiled_and_a_model_not_built(path):
    model = fm.Sequential([fm.Dense(5, "elu"), fm.Dense(2)], seed=3)
    model.build(4)
    model.save(path)
    loaded = fm.load(path)
    assert_same_bits(loaded.get_weights(), model.get_weights())
    loaded.compile("sgd", "mse")
    loaded.train_on_batch(np.ones((2, 4)), np.ones((2, 2)))


def test_images_keep_their_shape(path):
    model = fm.Sequential([fm.Input((2, 3)), fm.Flatten(), fm.Dense(2)], seed=3)
    images = rng.standard_normal((5, 2, 3))
    model.save(path)
    assert_same_bits([fm.load(path).predict(images)], [model.predict(images)])


def test_special_values_survive(path):
    model = fm.Sequential([fm.Dense(3)], dtype="float32")
    model.build(2)
    tiny = np.float32(1e-42)  # subnormal: flushing it to zero would change a saved model
    kernel = np.array([[np.nan, np.inf, -np.inf], [-0.0, tiny, 3.4e38]], "float32")
    model.set_weights([kernel, np.zeros(3)])
    model.save(path)
    assert_same_bits(fm.load(path).get_weights(), [kernel, np.zeros(3, "float32")])


def test_the_file_is_safetensors_with_unpadded_tensors(path):
    import safetensors

    model = network()
    train(model, 0, 1)
    model.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        for name, value in model.state_dict().items():
            assert name in names
            assert_same_bits([file.get_tensor(name)], [value])
        assert all(json.loads(value) is not None for value in file.metadata().values())


def test_a_path_may_be_a_string_and_any_name(tmp_path):
    model = network()
    model.build(5)
    path = str(tmp_path / "데이터 model.bin")
    model.save(path)
    assert_same_bits(fm.load(path).get_weights(), model.get_weights())


# Writing.


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    model = network()
    model.build(5)
    model.save(path)
    before = path.read_bytes()
    train(model, 0, 1)

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        model.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_saving_into_a_missing_folder(tmp_path):
    model = network()
    model.build(5)
    with pytest.raises(FileNotFoundError, match="missing"):
        model.save(tmp_path / "missing" / "model.safetensors")


def test_saving_over_a_folder(tmp_path):
    model = network()
    model.build(5)
    with pytest.raises(OSError, match=tmp_path.name):
        model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# Reading what is damaged.


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fm.load(tmp_path / "nowhere.safetensors")


@pytest.fixture
def saved(path) -> bytes:
    model = network()
    train(model, 0, 1)
    model.save(path)
    return path.read_bytes()


def header_length(data: bytes) -> int:
    return struct.unpack("<Q", data[:8])[0]


def with_header(data: bytes, change) -> bytes:
    """The same file with another header; `change` edits the parsed JSON."""
    length = header_length(data)
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def refuses(path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises((ValueError, OSError)) as error:
        fm.load(path)
    assert path.name in str(error.value)


@pytest.mark.parametrize("part", [0, 4, 8, 20, 0.3, 0.6, 0.99])
def test_a_truncated_file(part, path, saved):
    refuses(path, saved[: part if part >= 1 else int(part * len(saved))])


@pytest.mark.parametrize(
    "data",
    [b"\x80\x04\x95pickle", b"PK\x03\x04zip", b"\xff" * 100, b"{}", bytes(1000)],
    ids=["pickle", "zip", "ones", "json", "zeros"],
)
def test_another_kind_of_file(data, path):
    refuses(path, data)


def test_a_safetensors_file_of_somebody_else(path):
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3)}, path)
    refuses(path, path.read_bytes())


def test_any_flipped_byte_of_the_header_is_refused_or_harmless(path, saved):
    random = np.random.RandomState(0)
    for place in random.randint(0, 8 + header_length(saved), size=150):
        data = bytearray(saved)
        data[place] ^= 1 << random.randint(8)
        path.write_bytes(bytes(data))
        with contextlib.suppress(ValueError, OSError):
            fm.load(path)


def tensors(header: dict) -> list[str]:
    return [name for name in header if name != "__metadata__"]


DAMAGE = {
    "no metadata": lambda h: h.pop("__metadata__"),
    "empty metadata": lambda h: h.update(__metadata__={}),
    "metadata is no json": lambda h: h["__metadata__"].update(
        dict.fromkeys(h["__metadata__"], "{")
    ),
    "metadata is json of another kind": lambda h: h["__metadata__"].update(
        dict.fromkeys(h["__metadata__"], "[1, 2]")
    ),
    "metadata nests too deeply": lambda h: h["__metadata__"].update(
        dict.fromkeys(h["__metadata__"], "[" * 100_000)
    ),
    "a tensor is missing": lambda h: h.pop("0.kernel"),
    "a tensor has another name": lambda h: h.update({"9.kernel": h.pop("0.kernel")}),
    "a tensor has another shape": lambda h: h["0.kernel"].update(
        shape=h["0.kernel"]["shape"][::-1]
    ),
    "a tensor has another dtype": lambda h: h["0.kernel"].update(dtype="I32"),
    "a tensor overlaps another": lambda h: h["0.kernel"].update(
        data_offsets=[0, h["0.kernel"]["data_offsets"][1] - h["0.kernel"]["data_offsets"][0]]
    ),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_header(change, path, saved):
    refuses(path, with_header(saved, change))


def test_a_file_that_only_names_its_loss_can_be_read(path, saved):
    def rename(header):  # as files were before losses had settings
        description = json.loads(header["__metadata__"]["fastmlp"])
        assert description["loss"]["class"] == "CrossEntropy"
        description["loss"] = "cross_entropy"
        header["__metadata__"]["fastmlp"] = json.dumps(description)

    path.write_bytes(with_header(saved, rename))
    assert fm.load(path).loss == fm.losses.CrossEntropy()


def test_an_unknown_layer_is_named_and_nothing_is_imported(path, saved):
    def change(header):
        metadata = header["__metadata__"]
        for key, value in metadata.items():
            metadata[key] = value.replace('"Dense"', '"os.system"')

    data = with_header(saved, change)
    assert data != saved
    path.write_bytes(data)
    with pytest.raises(ValueError, match="os.system"):
        fm.load(path)


def test_huge_sizes_are_refused_before_memory_is_taken(path, saved):
    def change(header):
        metadata = header["__metadata__"]
        for key, value in metadata.items():
            metadata[key] = value.replace('"units": 9', '"units": 900000000000')

    data = with_header(saved, change)
    assert data != saved
    refuses(path, data)


def test_a_device_that_is_not_there(path, saved):
    if not fm.cuda.is_available():
        with pytest.raises(RuntimeError, match="(?i)cuda|gpu"):
            fm.load(path, device="cuda")


def test_no_pickle_anywhere():
    folder = pathlib.Path(fm.__file__).parent
    for file in folder.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("import pickle", "from pickle", "allow_pickle=True", "joblib", "eval(",
                     "exec(", "marshal", "shelve"):  # fmt: skip
            assert word not in text, f"{file.name}: {word}"
