"""Data in batches, and in a training and a test part."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmlp import kernels
from fastmlp._config import check_integer, check_number

Integers = npt.NDArray[np.int64]


def _array(owner: str, name: str, values: Any) -> Any:
    """Return `values` as an array with rows: NumPy's, or whatever kind of array it is already."""
    array = values if hasattr(values, "__dlpack__") else np.asarray(values)
    if array.ndim == 0:
        raise ValueError(f"{owner}: {name} must have rows, got a single value")
    return array


class DataLoader:
    """Rows in batches, in a new order each epoch: the input of a training loop of one's own.

    Each iteration is one epoch. With the seed of a model, the order of rows is the one that `fit`
    uses.

    Parameters
    ----------
    x : array, shape (n, ...)
        Inputs: NumPy, CuPy, or anything that NumPy converts.
    y : array, shape (n, ...), optional
        Targets. Without them a batch is a bare array of inputs.
    batch_size : int, default 32
        Rows in a batch; the last one may be shorter.
    shuffle : bool, default False
        Whether to reorder rows. Unshuffled batches are views of the data.
    seed : int, default 0
        Decides, with the epoch, about the order.
    drop_last : bool, default False
        Whether to leave out a shorter last batch.

    Attributes
    ----------
    epoch : int
        Index of the epoch that the next iteration yields, from 0; may be set.

    Raises
    ------
    TypeError
        If `batch_size` or `seed` is no integer.
    ValueError
        If `x` and `y` differ in length, `batch_size` is not positive, or there is no batch at all.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x, y = np.arange(10).reshape(5, 2), np.arange(5)
    >>> for xb, yb in fm.data.DataLoader(x, y, batch_size=3):
    ...     print(xb.shape, yb)
    (3, 2) [0 1 2]
    (2, 2) [3 4]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        self.x = _array("DataLoader", "x", x)
        self.y = None if y is None else _array("DataLoader", "y", y)
        self.batch_size = check_integer("DataLoader: batch_size", batch_size, at_least=1)
        self.shuffle = shuffle
        self.seed = check_integer("DataLoader: seed", seed, at_least=0)
        self.drop_last = drop_last
        self.epoch = 0
        rows = len(self.x)
        if self.y is not None and len(self.y) != rows:
            raise ValueError(f"DataLoader: x has {rows} rows, but y has {len(self.y)}")
        if len(self) == 0:
            raise ValueError(f"DataLoader: {rows} rows make no batch of {batch_size}")

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        rows = len(self.x)
        return rows // self.batch_size if self.drop_last else ceil(rows / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Begin an epoch: `epoch` moves on at once, however many batches are then taken."""
        order = None
        if self.shuffle:
            order = kernels.permutation(len(self.x), self.seed, self.epoch)
        self.epoch += 1
        return self._batches(order)

    def _batches(self, order: Integers | None) -> Iterator[Any]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows: Any = slice(start, start + self.batch_size)
            if order is not None:
                rows = order[rows]
            yield self.x[rows] if self.y is None else (self.x[rows], self.y[rows])


def _share(counts: Integers, total: int) -> Integers:
    """Divide `total` among groups by their sizes: rounded down, then by largest remainder."""
    exact = counts * total / counts.sum()
    share: Integers = np.floor(exact).astype(np.int64)
    largest = np.argsort(share - exact, kind="stable")
    share[largest[: total - share.sum()]] += 1
    return share


def _stratified(order: Integers, labels: Any, n_test: int) -> npt.NDArray[np.bool_]:
    """Mark the rows of `order` to be tested: from each class its share."""
    values, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        rare = values[counts.argmin()]
        raise ValueError(f"train_test_split: class {rare} of stratify has only one row")
    if min(n_test, len(order) - n_test) < len(values):
        raise ValueError(
            f"train_test_split: both parts need a row of each of {len(values)} classes, "
            f"got {len(order) - n_test} and {n_test} rows"
        )
    by_class = np.argsort(classes[order], kind="stable")
    groups = np.split(by_class, counts.cumsum()[:-1])
    is_test = np.zeros(len(order), np.bool_)
    for group, n in zip(groups, _share(counts, n_test), strict=True):
        is_test[group[:n]] = True
    return is_test


def train_test_split(
    *arrays: Any, test_size: float = 0.25, seed: int = 0, stratify: Any = None
) -> list[Any]:
    """Split arrays by rows into a training and a test part, at random.

    Parameters
    ----------
    *arrays : array, shape (n, ...)
        All of one length.
    test_size : float or int, default 0.25
        Share of the rows to test (rounded up), or their number.
    seed : int, default 0
        The same seed gives the same parts.
    stratify : array of labels, shape (n,), optional
        Give both parts the same share of each class, as nearly as whole rows allow.

    Returns
    -------
    list
        x_train, x_test, y_train, y_test, ...: two arrays for each one given, as in scikit-learn.

    Raises
    ------
    TypeError
        If `test_size` is no number or `seed` no integer.
    ValueError
        If the lengths differ, a part would be empty, or there are too few rows of a class.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x, y = np.arange(20).reshape(10, 2), np.arange(10)
    >>> x_train, x_test, y_train, y_test = fm.data.train_test_split(x, y, test_size=0.2)
    >>> x_train.shape, x_test.shape, sorted([*y_train, *y_test]) == list(range(10))
    ((8, 2), (2, 2), True)
    """
    if not arrays:
        raise ValueError("train_test_split: expected at least one array")
    tables = [_array("train_test_split", f"array {i}", a) for i, a in enumerate(arrays)]
    lengths = [len(table) for table in tables]
    if stratify is not None:
        lengths.append(len(stratify))
    n = lengths[0]
    if len(set(lengths)) > 1:
        raise ValueError(f"train_test_split: arrays must have equal lengths, got {lengths}")
    seed = check_integer("train_test_split: seed", seed, at_least=0)
    check_number("train_test_split: test_size", test_size, above=0)
    n_test = ceil(test_size * n) if isinstance(test_size, (float, np.floating)) else int(test_size)
    if n_test >= n:
        raise ValueError(
            f"train_test_split: test_size={test_size} leaves {n - n_test} of {n} rows to train"
        )
    order = kernels.permutation(n, seed, 0)
    is_test = np.arange(n) < n_test if stratify is None else _stratified(order, stratify, n_test)
    train, test = order[~is_test], order[is_test]
    return [part for table in tables for part in (table[train], table[test])]
