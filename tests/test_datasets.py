"""Data sets come back as the arrays they hold; damaged files are refused in words."""

from __future__ import annotations

import gzip
import struct
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from fastmlp import datasets

IMAGES = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

IDX_TYPES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx(array, kind="u1"):
    header = bytes([0, 0, IDX_TYPES[kind], array.ndim])
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(kind).tobytes()


def write_pair(folder, suffix="", images="images-idx3-ubyte", labels="labels-idx1-ubyte"):
    pack = gzip.compress if suffix == ".gz" else bytes
    (folder / f"{images}{suffix}").write_bytes(pack(idx(IMAGES)))
    (folder / f"{labels}{suffix}").write_bytes(pack(idx(LABELS)))
    return folder / f"{images}{suffix}"


@pytest.mark.parametrize(("name", "shape"), [("iris", (150, 4)), ("digits", (1797, 64))])
def test_names(name, shape):
    x, y = datasets.load(name)
    assert x.shape == shape
    assert y.shape == shape[:1]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("irsi", r"unknown data set 'irsi' \(did you mean 'iris'\?\); known"),
        ("", "a folder, not a file"),
        ("nothing.csv", "nothing.csv: no such file"),
        ("folder/nothing", "no such file"),
    ],
)
def test_unknown_names_and_missing_files(name, says):
    with pytest.raises((ValueError, OSError), match=says):
        datasets.load(name)


def test_a_kind_of_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "table.xlsx"
    path.touch()
    with pytest.raises(ValueError, match=r"not a kind of file that fastmlp reads"):
        datasets.load(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_pair(tmp_path, suffix):
    x, y = datasets.load(write_pair(tmp_path, suffix))
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)
    assert x.dtype == y.dtype == np.uint8
    x[0] = 1  # a copy of one's own


def test_labels_may_be_named_differently_or_packed_otherwise(tmp_path):
    images = write_pair(
        tmp_path, images="train-images.idx3-ubyte", labels="train-labels.idx1-ubyte"
    )
    assert len(datasets.load(images)[1]) == 5
    labels = tmp_path / "train-labels.idx1-ubyte"
    (tmp_path / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert len(datasets.load(images)[1]) == 5
    with pytest.raises(FileNotFoundError, match="other: no such file"):
        datasets.load(images, tmp_path / "other")
    (tmp_path / "train-labels.idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="no file with its labels lies beside it"):
        datasets.load(images)


@pytest.mark.parametrize("kind", IDX_TYPES)
def test_idx_value_types(tmp_path, kind):
    path = tmp_path / "values-idx2"
    values = np.array([[-1.0, 2.0], [100.0, 0.0]]) if kind != "u1" else np.array([[1, 255]])
    path.write_bytes(idx(values, kind))
    read = datasets.read_idx(path)
    np.testing.assert_array_equal(read, values)
    assert read.dtype.isnative


WHOLE = idx(IMAGES)
DAMAGED_IDX = {
    "empty": (b"", "not an IDX file .*nothing"),
    "text": (b"a,b\n1,2\n", "not an IDX file"),
    "no dimensions": (bytes([0, 0, 8, 0]), "not an IDX file"),
    "unknown type": (bytes([0, 0, 7]) + WHOLE[3:], "not an IDX file"),
    "cut in the header": (WHOLE[:9], "cut off inside the header"),
    "cut": (WHOLE[:-1], r"shape \(5, 3, 2\) needs 46 bytes, but there are 45"),
    "too long": (WHOLE + b"\0", "needs 46 bytes, but there are 47"),
    "huge": (WHOLE[:4] + b"\xff" * 12 + WHOLE[16:], "needs .* bytes, but there are 46"),
    "cut gzip": (gzip.compress(WHOLE)[:-9], "gzip data is damaged or cut off"),
    "wrong gzip": (gzip.compress(WHOLE)[:20] + b"\xff" * 20, "gzip data is damaged or cut off"),
    "wrong checksum": (gzip.compress(WHOLE)[:-8] + b"\0" * 8, "gzip data is damaged or cut off"),
}


@pytest.mark.parametrize(("data", "says"), DAMAGED_IDX.values(), ids=DAMAGED_IDX)
def test_damaged_idx_files(tmp_path, data, says):
    path = write_pair(tmp_path)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"images-idx3-ubyte: .*{says}"):
        datasets.load(path)


def test_idx_pairs_that_do_not_fit(tmp_path):
    path = write_pair(tmp_path)
    labels = tmp_path / "labels-idx1-ubyte"
    labels.write_bytes(idx(LABELS[:4]))
    with pytest.raises(ValueError, match="5 rows, but 4 labels"):
        datasets.load(path)
    labels.write_bytes(idx(IMAGES))
    with pytest.raises(ValueError, match="labels have 1 dimension, but this file has 3"):
        datasets.load(path)


@pytest.mark.parametrize("keys", [("x", "y"), ("X", "Y"), ("data", "target"), ("images", "labels")])
def test_npz(tmp_path, keys):
    path = tmp_path / "a.npz"
    np.savez(path, **dict(zip(keys, (IMAGES, LABELS), strict=True)))
    x, y = datasets.load(path)
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)


def test_npz_parts(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    assert [len(a) for a in datasets.load(path)] == [5, 5]
    assert [len(a) for a in datasets.load(path, part="test")] == [2, 2]
    np.savez(path, x=IMAGES)
    for part, key in (("train", "y"), ("test", "x_test")):
        with pytest.raises(ValueError, match=f"there is no '{key}' in the archive"):
            datasets.load(path, part=part)
    with pytest.raises(ValueError, match="only an .npz archive or a download has a part='test'"):
        datasets.load("iris", part="test")
    with pytest.raises(ValueError, match="part must be 'train' or 'test', got 'tset'"):
        datasets.load(path, part="tset")


def test_npz_archives_that_do_not_fit(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, says in [
        ({"a": IMAGES, "b": LABELS}, "needs an array 'x' or 'x_train', but the archive holds a, b"),
        ({}, "the archive holds nothing"),
        ({"x": IMAGES, "y": LABELS[1:]}, "5 rows, but 4 labels"),
        ({"x": IMAGES, "y": np.array(["a"] * 5)}, "'y' must be an array of numbers, got <U1"),
        ({"x": 1.0}, "'x' must be an array of numbers"),
        ({"x": np.array([{}], dtype=object)}, "not a readable .npz archive"),  # would be a pickle
    ]:
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=says):
            datasets.load(path)


def test_damaged_npz_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 4)), y=np.arange(50))
    whole = path.read_bytes()
    for data in (b"", b"text", whole[:-30], whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a readable .npz archive"):
            datasets.load(path)


def test_csv_of_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,y\n1,2.5,0\n,3,1\n")
    x, y = datasets.load(path)
    np.testing.assert_array_equal(x, [[1, 2.5], [np.nan, 3]])
    np.testing.assert_array_equal(y, [0, 1])
    assert y.dtype == np.int64
    x, y = datasets.load(path, target="b")
    np.testing.assert_array_equal(y, [2.5, 3])
    with pytest.raises(ValueError, match=r"no column 'c'.*columns: a, b, y"):
        datasets.load(path, target="c")
    path.write_text("a,y\n1,0\ntwo,1\n")
    with pytest.raises(ValueError, match="column 'a', row 2: 'two' is not a finite number"):
        datasets.load(path)


@pytest.mark.skipif(not SHARED.exists(), reason="the MNIST files lie beside the repository only")
def test_the_mnist_test_set():
    x, y = datasets.load(SHARED / "t10k-images-idx3-ubyte.gz")
    assert x.shape == (10000, 28, 28)
    assert y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# ---- downloads, from a server on this machine


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with a small "mnist", and an empty cache."""
    pytest.importorskip("pooch")
    files = tmp_path / "mirror"
    files.mkdir()
    for stem in ("train", "t10k"):
        write_pair(files, ".gz", f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    checksums = {path.name: sha256(path.read_bytes()).hexdigest() for path in files.iterdir()}
    handler = partial(QuietHandler, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(datasets.DOWNLOADS, "mnist", (url, checksums))
        monkeypatch.setenv("FASTMLP_DATA", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("FASTMLP_OFFLINE", raising=False)
        yield files
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_download_is_kept(part, mirror, tmp_path, monkeypatch):
    for _ in range(2):
        x, y = datasets.load("mnist", part=part)
        np.testing.assert_array_equal(x, IMAGES)
        np.testing.assert_array_equal(y, LABELS)
        for path in mirror.iterdir():  # what is there already is not asked for again
            path.unlink()
        monkeypatch.setenv("FASTMLP_OFFLINE", "1")
    assert {path.parent for path in (tmp_path / "cache").rglob("*.gz")} == {
        tmp_path / "cache" / "mnist"
    }


def test_a_download_that_is_forbidden_or_fails(mirror, monkeypatch):
    for path in mirror.iterdir():
        path.unlink()
    with pytest.raises(OSError, match="mnist: cannot download http://127.0.0.1.*ubyte.gz"):
        datasets.load("mnist")
    monkeypatch.setenv("FASTMLP_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="mnist: .*FASTMLP_OFFLINE=1 forbids a download"):
        datasets.load("mnist")


def test_a_download_that_is_not_what_was_published(mirror):
    (mirror / "train-labels-idx1-ubyte.gz").write_bytes(b"other labels")
    with pytest.raises(ValueError, match="mnist: SHA256 hash .* does not match"):
        datasets.load("mnist")


@pytest.mark.skipif(not SHARED.exists(), reason="the files of MNIST are not beside the project")
def test_the_checksums_are_those_of_the_files():
    _, checksums = datasets.DOWNLOADS["mnist"]
    for path in SHARED.glob("t10k-*.gz"):
        assert sha256(path.read_bytes()).hexdigest() == checksums[path.name]
