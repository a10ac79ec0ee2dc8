"""Data sets as arrays: bundled or downloaded ones, .npz archives, IDX files, numeric CSV tables."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastmlp._optional import optional

__all__ = ["DOWNLOADS", "NAMES", "fetch", "load", "read_idx"]

NAMES = ("iris", "digits", "wine", "breast_cancer", "diabetes")
"""The data sets that come with scikit-learn: no download."""

# Address, and the SHA-256 of the images and the labels of each part: what comes from a mirror,
# perhaps over plain http, is what the authors published.
_FASHION_MNIST = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    },
)
_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    },
)
DOWNLOADS = {"fashion_mnist": _FASHION_MNIST, "mnist": _MNIST}
"""The data sets that are downloaded once and then kept: 60,000 and 10,000 grey images, 28 x 28."""

Kind = Literal["name", "npz", "idx", "csv"]
Array = NDArray[Any]

_X_Y = (("x_train", "y_train"), ("x", "y"), ("data", "target"), ("images", "labels"))
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load(
    name_or_path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    part: Literal["train", "test"] = "train",
    target: str | None = None,
) -> tuple[Array, Array]:
    """Load a data set as a pair of arrays.

    Parameters
    ----------
    name_or_path : str or path
        ``"iris"``, ``"digits"``, ``"wine"``, ``"breast_cancer"`` or ``"diabetes"`` (from
        scikit-learn); ``"mnist"`` or ``"fashion_mnist"`` (downloaded, see `fetch`); an ``.npz``
        archive with the keys ``x`` and ``y``, or ``x_train`` and
        ``y_train`` (also ``data`` and ``target``, ``images`` and ``labels``); a file of images in
        the IDX format of MNIST, plain or gzipped; or a CSV table of numbers.
    labels : str or path, optional
        The IDX file of the labels. Default: the file beside the images whose name says ``labels``
        in place of ``images`` (``t10k-images-idx3-ubyte.gz`` → ``t10k-labels-idx1-ubyte.gz``).
    part : {"train", "test"}, default "train"
        ``"test"`` reads ``x_test`` and ``y_test`` of an ``.npz`` archive, and the 10,000 images
        of a download that are to be tested on.
    target : str, optional
        The column of a CSV table that becomes ``y``. Default: the last one.

    Returns
    -------
    x : ndarray, shape (n, ...)
        As stored: images keep their shape and dtype, a table is (n, columns) float64, with NaN
        where a value is missing.
    y : ndarray, shape (n,) or as stored
        A CSV column of whole numbers becomes int64.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the name is unknown, or the file is damaged, cut off, or not what it should be.
    OSError
        If a download fails; see `fetch`.
    ModuleNotFoundError
        If scikit-learn, pandas or pooch is needed and missing; says what to install.

    Examples
    --------
    >>> import fastmlp as fm
    >>> x, y = fm.datasets.load("digits")
    >>> x.shape, y.shape
    ((1797, 64), (1797,))
    """
    if part not in ("train", "test"):
        raise ValueError(f"datasets.load: part must be 'train' or 'test', got {part!r}")
    if str(name_or_path) in DOWNLOADS:
        return read_idx_pair(fetch(str(name_or_path), part))
    kind = kind_of(name_or_path)
    if part == "test" and kind != "npz":
        raise ValueError("datasets.load: only an .npz archive or a download has a part='test'")
    if kind == "name":
        bunch = read_bundled(str(name_or_path))
        return np.asarray(bunch.data), np.asarray(bunch.target)
    if kind == "csv":
        from fastmlp import tables

        return tables.read_numbers(Path(name_or_path), target)
    if kind == "idx":
        return read_idx_pair(Path(name_or_path), labels)
    arrays = read_npz(Path(name_or_path))
    x, y = ("x", "y") if part == "train" else ("x_test", "y_test")
    for key in (x, y):
        if key not in arrays:
            raise ValueError(f"{name_or_path}: there is no {key!r} in the archive")
    return arrays[x], arrays[y]


def fetch(name: str, part: Literal["train", "test"] = "train") -> Path:
    """Download a data set's images and labels, where they are not on this machine yet.

    They are kept in the user's cache folder, or in that which the environment variable
    ``FASTMLP_DATA`` names. With ``FASTMLP_OFFLINE=1`` nothing is downloaded.

    Parameters
    ----------
    name : {"mnist", "fashion_mnist"}
        LeCun, Cortes and Burges, or Xiao, Rasul and Vollgraf (arXiv:1708.07747).
    part : {"train", "test"}, default "train"
        60,000 images, or 10,000.

    Returns
    -------
    Path
        The IDX file of the images, with that of the labels beside it.

    Raises
    ------
    FileNotFoundError
        If the files are not there and ``FASTMLP_OFFLINE=1``.
    OSError
        If they cannot be downloaded.
    ValueError
        If what came is not what was published, by its SHA-256.
    ModuleNotFoundError
        If pooch is missing; says what to install.
    """
    pooch = optional("pooch", "data")
    url, checksums = DOWNLOADS[name]
    folder = Path(os.environ.get("FASTMLP_DATA") or pooch.os_cache("fastmlp")) / name
    downloads = pooch.create(folder, url, registry=checksums)
    stem = "train" if part == "train" else "t10k"
    images, labels = f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz"
    for file in (labels, images):
        if os.environ.get("FASTMLP_OFFLINE") == "1" and not (folder / file).exists():
            raise FileNotFoundError(
                f"{name}: {file} is not in {folder}, and FASTMLP_OFFLINE=1 forbids a download"
            )
        try:
            downloads.fetch(file)
        except OSError as error:
            raise OSError(f"{name}: cannot download {url}{file} ({error})") from error
        except ValueError as error:  # names the file and both checksums
            raise ValueError(f"{name}: {error}") from error
    return folder / images


def kind_of(name_or_path: str | os.PathLike[str]) -> Kind:
    """Tell how to read a data set; a name that is unknown or a file that is not there raises."""
    path = Path(name_or_path)
    if str(name_or_path) in NAMES:
        return "name"
    if path.is_dir():
        raise IsADirectoryError(f"{path}: this is a folder, not a file")
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(f"{path}: no such file")
        known = (*NAMES, *DOWNLOADS)
        raise ValueError(
            f"unknown data set {str(path)!r}{did_you_mean(str(path), known)}; "
            f"known: {', '.join(known)}, or the path of a .csv, .npz or IDX file"
        )
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".npz"):
        return "npz"
    if re.search(r"[-.]idx\d|ubyte$", name):
        return "idx"
    if Path(name).suffix in (".csv", ".tsv", ".txt", ".data", ""):
        return "csv"
    raise ValueError(f"{path}: not a kind of file that fastmlp reads (.csv, .tsv, .npz, IDX)")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return ``" (did you mean 'iris'?)"`` where a known word is close, else nothing.

    Examples
    --------
    >>> did_you_mean("irsi", ["iris", "digits"])
    " (did you mean 'iris'?)"
    """
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f" (did you mean {lower[close[0]]!r}?)" if close else ""


def read_bundled(name: str) -> Any:
    """Return scikit-learn's own description of one of `NAMES`."""
    return getattr(optional("sklearn.datasets", "cli"), f"load_{name}")()


def read_npz(path: Path) -> dict[str, Array]:
    """Read ``x`` and, where the archive has them, ``y``, ``x_test`` and ``y_test``."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = {key.lower(): archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds on a damaged archive
        raise ValueError(f"{path}: not a readable .npz archive of numbers ({error})") from error
    key = next(((x, y) for x, y in _X_Y if x in stored), None)
    if key is None:
        known = ", ".join(stored) or "nothing"
        raise ValueError(f"{path}: needs an array 'x' or 'x_train', but the archive holds {known}")
    wanted = {"x": key[0], "y": key[1], "x_test": "x_test", "y_test": "y_test"}
    arrays = {name: stored[key] for name, key in wanted.items() if key in stored}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise ValueError(f"{path}: {name!r} must be an array of numbers, got {array.dtype}")
    for x, y in (("x", "y"), ("x_test", "y_test")):
        if x in arrays and y in arrays:
            _same_length(path, arrays[x], arrays[y])
    return arrays


def read_idx_pair(
    images: Path, labels: str | os.PathLike[str] | None = None
) -> tuple[Array, Array]:
    """Read a file of images and the file of its labels, by default the one beside it."""
    beside = Path(labels) if labels is not None else labels_beside(images)
    if beside is None:
        raise FileNotFoundError(f"{images}: no file with its labels lies beside it; name it too")
    x, y = read_idx(images), read_idx(beside)
    if y.ndim != 1:
        raise ValueError(f"{beside}: labels have 1 dimension, but this file has {y.ndim}")
    _same_length(images, x, y)
    return x, y


def labels_beside(images: Path) -> Path | None:
    """Find the labels of an IDX file of images by the names that MNIST uses."""
    name = re.sub(r"images([-.]idx)\d", r"labels\g<1>1", images.name)
    if name == images.name:
        return None
    plain = name.removesuffix(".gz")
    candidates = (images.with_name(n) for n in (name, plain, f"{plain}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read one array from a file in the IDX format, plain or gzipped.

    The format, from http://yann.lecun.com/exdb/mnist: two zero bytes, a byte for the type of the
    values, a byte for the number of dimensions, each dimension as a big-endian uint32, the values.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not in this format, is cut off, or is too long.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: the gzip data is damaged or cut off ({error})") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or not 1 <= data[3] <= 32:
        raise ValueError(
            f"{path}: not an IDX file (it begins with {data[:4].hex(' ') or 'nothing'})"
        )
    dtype, rank = np.dtype(_IDX_TYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise ValueError(f"{path}: cut off inside the header, after {len(data)} bytes")
    shape = struct.unpack(f">{rank}I", data[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{path}: shape {shape} needs {expected} bytes, but there are {len(data)}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _same_length(path: Path, x: Array, y: Array) -> None:
    if len(x) != len(y):
        raise ValueError(f"{path}: {len(x)} rows, but {len(y)} labels")
