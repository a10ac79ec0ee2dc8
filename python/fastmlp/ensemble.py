"""`Ensemble`: several networks of one shape, trained at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fastmlp import losses, metrics, optimizers, schedules
from fastmlp._config import check_integer, check_number
from fastmlp.device import Array
from fastmlp.layers import Custom, Layer
from fastmlp.sequential import Model, Sequential, check_seed

T = TypeVar("T")


class Ensemble(Model[Array]):
    """Networks of one shape, trained at once on the same data.

    The methods are those of `Sequential`, and whatever differs by network has a leading dimension
    of n: predictions are (n, rows, outputs), a kernel is (n, in, units), a loss is an array of n.
    Each network starts, shuffles and drops out by its own seed, so it becomes, bit for bit, what a
    `Sequential` with that seed (and learning rate) would have become alone; ``ensemble[i]`` is that
    network. All of them take each step together, and one whose loss is not finite ends `fit` for
    all.

    Parameters
    ----------
    model : Sequential
        What each network is like: layers, dtype, precision, device and, if it is compiled,
        optimizer, loss and metrics. It is not changed; its weights and what it has learned are not
        taken over.
    n : int
        How many networks.
    seeds : sequence of n int, optional
        One for each network; by default ``model.seed``, ``model.seed + 1``, and so on.
    learning_rates : sequence of n float or Schedule, optional
        One for each network, in place of the optimizer's, which then must not be a schedule.

    Attributes
    ----------
    layers : list of Layer
        A copy of the list; a kernel in them has a leading dimension of n.
    optimizer, loss, metrics, history, stop_training
        As in `Sequential`.

    Notes
    -----
    The loss and the metrics have to be the core's: functions of one's own see one network's
    predictions at a time, and each network has its own order of rows. Figures in `logs` and in a
    `History` are arrays of n, one for each epoch; callbacks such as `EarlyStopping`, and the
    progress bar, take their means.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, out of range or not n long, or `model` is compiled with
        functions of one's own.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> y = np.array([0, 1, 1, 0])
    >>> model = fm.Sequential([fm.Dense(16, activation="tanh"), fm.Dense(2)], seed=0)
    >>> model.compile(optimizer=fm.Adam(0.05), loss="cross_entropy", metrics=["accuracy"])
    >>> ensemble = fm.Ensemble(model, 3)
    >>> history = ensemble.fit(x, y, batch_size=4, epochs=100, verbose=0)
    >>> np.shape(history.history["loss"])
    (100, 3)
    >>> ensemble.evaluate(x, y)["accuracy"]
    array([1., 1., 1.])
    >>> logits = ensemble.predict(x)
    >>> logits.shape
    (3, 4, 2)
    >>> fm.kernels.softmax(logits).mean(axis=0).argmax(axis=1)
    array([0, 1, 1, 0])
    >>> bool((ensemble[1].predict(x) == logits[1]).all())
    True
    """

    def __init__(
        self,
        model: Sequential,
        n: int,
        *,
        seeds: Sequence[int] | None = None,
        learning_rates: Sequence[float | schedules.Schedule] | None = None,
    ) -> None:
        if not isinstance(model, Sequential):
            raise TypeError(f"Ensemble: model must be a Sequential, got {type(model).__name__}")
        own = [layer.label for layer in model.layers if isinstance(layer, Custom)]
        if own:
            raise ValueError(f"Ensemble: needs layers that the core computes, got {own[0]}")
        n = check_integer("Ensemble: n", n, at_least=1)
        given = range(model.seed, model.seed + n) if seeds is None else seeds
        own_seeds = [check_seed("Ensemble: a seed", seed) for seed in _each("seeds", given, n)]
        if learning_rates is not None:
            self._learning_rates = [
                rate
                if isinstance(rate, schedules.Schedule)
                else check_number("Ensemble: a learning rate", rate, above=0)
                for rate in _each("learning_rates", learning_rates, n)
            ]
        super().__init__(
            _copies(model),
            own_seeds,
            device=model.device,
            dtype=model.dtype,
            precision=model.precision,
            name=model.name,
        )
        if model.optimizer is not None and model.loss is not None:
            self.compile(replace(model.optimizer), model.loss, model.metrics)
        if model.input_shape is not None:
            self.build(model.input_shape)

    @property
    def seeds(self) -> list[int]:
        """The seed of each network."""
        assert isinstance(self._seed, list)
        return list(self._seed)

    @property
    def learning_rates(self) -> list[float | schedules.Schedule] | None:
        """The learning rate of each network, None where all have the optimizer's."""
        return None if self._learning_rates is None else list(self._learning_rates)

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self.seeds)

    def __iter__(self) -> Iterator[Sequential]:
        """Go through the networks; see `__getitem__`."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sequential:
        """Return one network by itself, with copies of all that it has.

        It predicts what it predicts in the ensemble, and goes on training, compiled like that, as
        it would there.

        Parameters
        ----------
        index : int
            From 0, or negative from the end.

        Raises
        ------
        TypeError
            If it is no integer.
        IndexError
            If there is no such network.

        Examples
        --------
        >>> import fastmlp as fm
        >>> ensemble = fm.Ensemble(fm.Sequential([fm.Input(3), fm.Dense(2)], seed=5), 4)
        >>> ensemble[-1].seed
        8
        >>> bool((ensemble[2].layers[0].kernel == ensemble.layers[0].kernel[2]).all())
        True
        """
        count = len(self)
        i = check_integer("Ensemble: an index", index, at_least=-(1 << 63))
        if not -count <= i < count:
            raise IndexError(f"Ensemble: there is no network {index} of {count}")
        i %= count
        network = Sequential(
            _copies(self),
            device=self.device,
            dtype=self.dtype,
            precision=self.precision,
            seed=self.seeds[i],
            name=self.name,
        )
        if self.optimizer is not None and self.loss is not None:
            optimizer = replace(self.optimizer)
            if self._learning_rates is not None:
                optimizer.learning_rate = self._learning_rates[i]
            network.compile(optimizer, self.loss, self.metrics)
        if self.built:
            assert self._input_shape is not None
            network._build(self._input_shape, initialise=False)
            engine = network._engine
            engine.take_replica(self._engine, i)
            if network.optimizer and self.optimizer and self.optimizer.moments:
                engine.claim_moments(network.optimizer)
                for own, shared in zip(
                    network.optimizer.moments, self.optimizer.moments, strict=True
                ):
                    own[...] = shared[i]
        return network

    def __repr__(self) -> str:
        return f"{len(self)} of {super().__repr__()}"

    def _check_compile(
        self, optimizer: optimizers.Optimizer, loss: losses.Loss, metrics: list[metrics.Metric]
    ) -> None:
        own = [metric.name for metric in metrics if metric.native is None]
        if not loss.native or own:
            what = f"the metric {own[0]}" if loss.native else f"the loss {loss.name}"
            raise ValueError(
                f"compile: an Ensemble needs a loss and metrics that the core computes, got {what}"
            )
        schedule = optimizer.learning_rate
        if self._learning_rates is not None and isinstance(schedule, schedules.Schedule):
            raise ValueError(
                f"compile: this Ensemble has learning rates of its own, but the optimizer follows "
                f"a schedule, {type(schedule).__name__}"
            )

    def summary(self) -> None:
        """Print what `Sequential.summary` does, for one of the networks.

        Examples
        --------
        >>> import fastmlp as fm
        >>> fm.Ensemble(fm.Sequential([fm.Input(4), fm.Dense(3)]), 5).summary()
        5 networks, each:
        Layer    Output shape  Parameters
        ---------------------------------
        Input               4
        Dense               3          15
        ---------------------------------
        Total                          15
        """
        print(f"{len(self)} networks, each:")
        super().summary()

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        precision: str | None = "saved",
        custom_layers: Mapping[str, type] | None = None,
    ) -> Ensemble:
        """Read an ensemble that `save` wrote, ready to predict or to go on training.

        Parameters and errors are those of `fastmlp.load`.

        Returns
        -------
        Ensemble

        Examples
        --------
        >>> import tempfile, os
        >>> import fastmlp as fm
        >>> path = os.path.join(tempfile.mkdtemp(), "ensemble.safetensors")
        >>> fm.Ensemble(fm.Sequential([fm.Input(3), fm.Dense(2)], seed=0), 4).save(path)
        >>> fm.Ensemble.load(path).seeds
        [0, 1, 2, 3]
        """
        from fastmlp import io

        return io.load_ensemble(path, device, precision, custom_layers)


def _copies(model: Model[Any]) -> list[Layer]:
    """Return layers of the same settings, which belong to no model."""
    # Each layer is a dataclass; their base class, which the type checker sees, is none.
    return [replace(layer) for layer in model.layers]  # type: ignore[type-var]


def _each(name: str, values: Sequence[T], n: int) -> Sequence[T]:
    """Return the values if there is one for each network."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise TypeError(f"Ensemble: {name} must be a list of {n}, got {values!r}")
    if len(values) != n:
        words = name.replace("_", " ")
        raise ValueError(f"Ensemble: needs {n} {words}, one for each network, got {len(values)}")
    return values
