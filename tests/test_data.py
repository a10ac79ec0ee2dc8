"""Batches and splits: every row once, in an order that seed and epoch decide."""

import numpy as np
import pytest
from support import assert_same_bits

import fastmlp as fm
from fastmlp.data import DataLoader, train_test_split


def rows(n):
    """Return x of shape (n, 2) and y of shape (n,), where y tells which row of x belongs to it."""
    y = np.arange(n)
    return np.stack([y, 10 * y], axis=1).astype(np.float32), y


def taken(loader):
    """Return the rows that an epoch yields, by number, after a check that x and y go together."""
    order = []
    for xb, yb in loader:
        np.testing.assert_array_equal(xb[:, 1], 10 * yb)
        order += yb.tolist()
    return order


class TestDataLoader:
    @pytest.mark.parametrize("n", [1, 7, 8, 9, 33])
    @pytest.mark.parametrize("batch_size", [1, 4, 8, 100])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_every_row_once(self, n, batch_size, shuffle):
        loader = DataLoader(*rows(n), batch_size=batch_size, shuffle=shuffle)
        batches = [len(yb) for _, yb in loader]
        assert len(batches) == len(loader) == -(-n // batch_size)
        assert set(batches[:-1]) <= {batch_size}
        assert batches[-1] == n - batch_size * (len(batches) - 1)
        assert sorted(taken(loader)) == list(range(n))

    @pytest.mark.parametrize(("n", "sizes"), [(8, [4, 4]), (9, [4, 4]), (11, [4, 4]), (4, [4])])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_drop_last(self, n, sizes, shuffle):
        loader = DataLoader(*rows(n), batch_size=4, drop_last=True, shuffle=shuffle)
        assert [len(yb) for _, yb in loader] == sizes
        assert len(loader) == len(sizes)

    def test_unshuffled_batches_are_views_in_order(self):
        x, y = rows(10)
        loader = DataLoader(x, y, batch_size=4)
        assert taken(loader) == list(range(10))
        assert all(np.shares_memory(xb, x) for xb, _ in loader)

    def test_defaults(self):
        loader = DataLoader(*rows(70))
        assert [len(yb) for _, yb in loader] == [32, 32, 6]
        assert taken(loader) == list(range(70))

    def test_without_targets_a_batch_is_an_array(self):
        x, _ = rows(5)
        batches = list(DataLoader(x, batch_size=3))
        assert [type(batch) for batch in batches] == [np.ndarray] * 2
        np.testing.assert_array_equal(np.concatenate(batches), x)

    def test_the_order_is_the_permutation_of_seed_and_epoch(self):
        loader = DataLoader(*rows(50), batch_size=8, shuffle=True, seed=3)
        for epoch in range(3):
            assert loader.epoch == epoch
            assert taken(loader) == fm.kernels.permutation(50, 3, epoch).tolist()

    def test_epochs_and_seeds_differ(self):
        loader = DataLoader(*rows(50), shuffle=True, seed=3)
        other = DataLoader(*rows(50), shuffle=True, seed=4)
        orders = [taken(loader), taken(loader), taken(other), list(range(50))]
        assert len({tuple(order) for order in orders}) == 4

    def test_epoch_may_be_set(self):
        loader = DataLoader(*rows(20), shuffle=True)
        first, second = taken(loader), taken(loader)
        loader.epoch = 0
        assert taken(loader) == first
        assert taken(loader) == second

    def test_an_epoch_broken_off_counts(self):
        loader = DataLoader(*rows(20), batch_size=5, shuffle=True)
        next(iter(loader))
        assert loader.epoch == 1

    def test_two_epochs_side_by_side(self):
        loader = DataLoader(*rows(20), batch_size=5, shuffle=True)
        pairs = list(zip(loader, loader, strict=True))
        first = np.concatenate([a[1] for a, _ in pairs])
        second = np.concatenate([b[1] for _, b in pairs])
        assert first.tolist() == fm.kernels.permutation(20, 0, 0).tolist()
        assert second.tolist() == fm.kernels.permutation(20, 0, 1).tolist()

    def test_lists_will_do(self):
        (xb, yb), *_ = DataLoader([[1, 2], [3, 4]], [0, 1])
        assert xb.tolist() == [[1, 2], [3, 4]]
        assert yb.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"y": np.zeros(4)}, ValueError, "DataLoader: x has 5 rows, but y has 4"),
            ({"y": np.float32(4)}, ValueError, "DataLoader: y must have rows, got a single value"),
            ({"x": 3}, ValueError, "DataLoader: x must have rows, got a single value"),
            ({"batch_size": 0}, ValueError, "DataLoader: batch_size must be at least 1, got 0"),
            ({"batch_size": -2}, ValueError, "DataLoader: batch_size must be at least 1, got -2"),
            ({"batch_size": 2.0}, TypeError, "DataLoader: batch_size must be an integer, got 2.0"),
            (
                {"batch_size": None},
                TypeError,
                "DataLoader: batch_size must be an integer, got None",
            ),
            ({"seed": "a"}, TypeError, "DataLoader: seed must be an integer, got 'a'"),
            ({"seed": -1}, ValueError, "DataLoader: seed must be at least 0, got -1"),
            ({"x": np.zeros((0, 2))}, ValueError, "DataLoader: 0 rows make no batch of 32"),
            (
                {"batch_size": 6, "drop_last": True},
                ValueError,
                "DataLoader: 5 rows make no batch of 6",
            ),
        ],
    )
    def test_arguments_refused(self, arguments, error, message):
        with pytest.raises(error, match=f"^{message}$"):
            DataLoader(**{"x": np.zeros((5, 2)), **arguments})


class TestTrainTestSplit:
    def test_rows_stay_together_and_each_is_used_once(self):
        x, y = rows(20)
        x_train, x_test, y_train, y_test = train_test_split(x, y)
        np.testing.assert_array_equal(x_train[:, 1], 10 * y_train)
        np.testing.assert_array_equal(x_test[:, 1], 10 * y_test)
        assert sorted([*y_train, *y_test]) == list(range(20))
        assert y_test.tolist() != sorted(y_test)

    @pytest.mark.parametrize(
        ("test_size", "n_test"),
        # A share is rounded up, as in scikit-learn: 0.25 * 10 = 2.5 gives 3.
        [(0.25, 3), (0.2, 2), (0.01, 1), (0.9, 9), (1, 1), (9, 9), (np.int64(4), 4)],
    )
    def test_test_size(self, test_size, n_test):
        train, test = train_test_split(np.arange(10), test_size=test_size)
        assert (len(train), len(test)) == (10 - n_test, n_test)

    def test_the_seed_decides(self):
        parts = [train_test_split(np.arange(50), seed=seed)[1].tolist() for seed in (0, 0, 1)]
        assert parts[0] == parts[1] != parts[2]

    def test_three_arrays_and_a_list(self):
        x, y = rows(8)
        parts = train_test_split(x, y, list("abcdefgh"), test_size=2)
        assert [len(part) for part in parts] == [6, 2] * 3
        assert ["abcdefgh"[i] for i in parts[3]] == parts[5].tolist()

    def test_stratified_shares(self):
        labels = np.repeat(["a", "b", "c"], [50, 30, 20])
        train, test = train_test_split(labels, test_size=0.2, stratify=labels)
        # A fifth of 50, 30 and 20.
        assert np.unique(test, return_counts=True)[1].tolist() == [10, 6, 4]
        assert np.unique(train, return_counts=True)[1].tolist() == [40, 24, 16]

    def test_stratified_remainders_go_to_the_largest(self):
        labels = np.repeat([0, 1, 2], [7, 7, 6])
        # 5 of 20: exact shares 1.75, 1.75, 1.5; one each, and the two left to the first two.
        _, test = train_test_split(labels, test_size=5, stratify=labels)
        assert np.bincount(test).tolist() == [2, 2, 1]

    @pytest.mark.parametrize("test_size", [2, 4])
    def test_stratified_parts_may_be_as_small_as_one_row_of_each_class(self, test_size):
        labels = [0, 0, 0, 1, 1, 1]
        _, test = train_test_split(np.array(labels), test_size=test_size, stratify=labels)
        assert np.bincount(test).tolist() == [test_size / 2] * 2

    def test_stratified_rows_are_random_and_complete(self):
        labels = np.tile([0, 1], 20)
        parts = [
            train_test_split(np.arange(40), stratify=labels, test_size=10, seed=seed)
            for seed in (0, 1)
        ]
        for train, test in parts:
            assert sorted([*train, *test]) == list(range(40))
            assert np.bincount(test % 2).tolist() == [5, 5]
        assert sorted(parts[0][1]) != sorted(parts[1][1])

    @pytest.mark.parametrize(
        ("arrays", "arguments", "error", "message"),
        [
            ([], {}, ValueError, "expected at least one array"),
            (
                [np.zeros(4), np.zeros(5)],
                {},
                ValueError,
                r"arrays must have equal lengths, got \[4, 5\]",
            ),
            (
                [np.zeros(4)],
                {"stratify": [0, 1]},
                ValueError,
                r"arrays must have equal lengths, got \[4, 2\]",
            ),
            ([np.zeros(4), 3.0], {}, ValueError, "array 1 must have rows, got a single value"),
            (
                [np.zeros(4)],
                {"test_size": 4},
                ValueError,
                "test_size=4 leaves 0 of 4 rows to train",
            ),
            (
                [np.zeros(4)],
                {"test_size": 0.9},
                ValueError,
                "test_size=0.9 leaves 0 of 4 rows to train",
            ),
            (
                [np.zeros(1)],
                {},
                ValueError,
                "test_size=0.25 leaves 0 of 1 rows to train",
            ),
            (
                [np.zeros(4)],
                {"test_size": 0},
                ValueError,
                "test_size must be greater than 0, got 0",
            ),
            (
                [np.zeros(4)],
                {"test_size": -0.1},
                ValueError,
                "test_size must be greater than 0, .*",
            ),
            ([np.zeros(4)], {"test_size": "a"}, TypeError, "test_size must be a number, got 'a'"),
            ([np.zeros(4)], {"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
            (
                [np.zeros(4)],
                {"stratify": ["a", "a", "a", "b"]},
                ValueError,
                "class b of stratify has only one row",
            ),
            (
                [np.zeros(6)],
                {"stratify": [0, 0, 1, 1, 2, 2], "test_size": 2},
                ValueError,
                "both parts need a row of each of 3 classes, got 4 and 2 rows",
            ),
            (
                [np.zeros(6)],
                {"stratify": [0, 0, 1, 1, 2, 2], "test_size": 4},
                ValueError,
                "both parts need a row of each of 3 classes, got 2 and 4 rows",
            ),
        ],
    )
    def test_arguments_refused(self, arrays, arguments, error, message):
        with pytest.raises(error, match=f"^train_test_split: {message}$"):
            train_test_split(*arrays, **arguments)


def test_the_same_order_as_fit():
    x, y = rows(50)
    x /= 500
    a, b = (fm.Sequential([fm.Dense(3, activation="tanh"), fm.Dense(1)], seed=7) for _ in range(2))
    a.compile(optimizer=fm.SGD(0.1), loss="mse")
    a.fit(x, y / 50, batch_size=8, epochs=2, verbose=0)
    b.build(2)
    optimizer = fm.SGD(0.1)
    loader = DataLoader(x, y / 50, batch_size=8, shuffle=True, seed=7)
    for _ in range(2):
        for xb, yb in loader:
            _, gradient = fm.losses.mse(b.forward(xb, training=True), yb)
            b.backward(gradient)
            optimizer.step(b)
    assert_same_bits(b.get_weights(), a.get_weights())
