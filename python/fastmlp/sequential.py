"""`Sequential`: a network as a list of layers; `Model`: all that is done with one, or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from fastmlp import device as devices
from fastmlp import layers, losses, metrics, optimizers, schedules
from fastmlp._config import check_integer
from fastmlp.callbacks import Callback, History
from fastmlp.device import Array, FastCall
from fastmlp.engine import Engine
from fastmlp.layers import Input, Layer, Shape
from fastmlp.training import Verbosity, evaluate, fit, train_on_batch

if TYPE_CHECKING:
    from fastmlp.study import Trace

Figure = TypeVar("Figure")
M = TypeVar("M", bound="Model[Any]")


class Model(FastCall, Generic[Figure]):
    """What `Sequential` and `Ensemble` share: layers, their arrays, and all that is done with them.

    A figure, such as a loss, is a float of a `Sequential` and an array of n numbers of an
    `Ensemble`, and every array that differs by network has a leading dimension of n there.
    """

    _learning_rates: list[float | schedules.Schedule] | None = None

    def __init__(
        self,
        layers: Iterable[Layer | Input | str] | None,
        seed: int | list[int],
        *,
        device: str,
        dtype: str,
        precision: str | None,
        name: str | None,
    ) -> None:
        self._device = devices.get(device)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"Sequential: dtype must be 'float32' or 'float64', got {dtype!r}")
        self._dtype = np.dtype(dtype)
        self._device.check_precision("Sequential", precision, dtype)
        self._precision = precision
        self._seed = seed
        self.name = name
        self._layers: list[Layer] = []
        self._input_shape: Shape | None = None
        self._engine_or_none: Engine | None = None
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self.metrics: list[metrics.Metric] = []
        self.history: History | None = None
        self.stop_training = False
        self._fitting = False
        self.extra_metadata: dict[str, str] = {}
        self.extra_arrays: dict[str, np.ndarray[Any, Any]] = {}
        for layer in layers or []:
            self._append(layer)
        if self._input_shape is not None:
            self.build(self._input_shape)

    # ---- layers

    @property
    def layers(self) -> list[Layer]:
        """The layers, in order; without the `Input`."""
        return list(self._layers)

    @property
    def dtype(self) -> str:
        """ "float32" or "float64"."""
        return self._dtype.type.__name__  # str(dtype) takes 8 microseconds

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._device.name

    @property
    def precision(self) -> str | None:
        """Of matrix products: None, "tf32" or "bfloat16". It may be changed at any time."""
        return self._precision

    @precision.setter
    def precision(self, precision: str | None) -> None:
        self._device.check_precision(type(self).__name__, precision, self.dtype)
        self._check_idle("precision")
        self._precision = precision
        if self._engine_or_none is not None:
            self._engine_or_none.precision = precision
            self._attach(self._engine_or_none)

    @property
    def built(self) -> bool:
        """Whether it has parameters yet."""
        return self._engine_or_none is not None

    @property
    def input_shape(self) -> Shape | None:
        """Of one row; None before the model is built."""
        return self._input_shape

    @property
    def epochs_trained(self) -> int:
        """Epochs in the model's lifetime; it goes to files and decides about the order of rows."""
        return int(self._engine.state["epoch"][0]) if self.built else 0

    def __repr__(self) -> str:
        inside = ", ".join(layer.label for layer in self._layers)
        return f"<{type(self).__name__} [{inside}]>"

    def __copy__(self: M) -> M:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._inference = self._inference  # of the base class, so not in the dictionary
        return twin

    def __deepcopy__(self: M, memo: object) -> M:
        """Return a copy with parameters, optimizer and random state of its own."""
        from fastmlp import io

        return io.copy(self)

    def _check_idle(self, operation: str) -> None:
        if self._fitting:
            raise RuntimeError(f"{operation}: not while fit is running")

    def _append(self, layer: Layer | Input | str) -> None:
        if isinstance(layer, Input):
            if self._layers or self._input_shape is not None:
                raise ValueError("Sequential: Input must come first, and once")
            assert isinstance(layer.shape, tuple)
            self._input_shape = layer.shape
            return
        layer = layers.get(layer)
        if layer._owner is not None:
            raise ValueError(f"Sequential: this {layer.label} already belongs to a model")
        layer._owner = self
        self._layers.append(layer)

    # ---- building

    def build(self, input_shape: int | Sequence[int]) -> None:
        """Make the parameters, for rows of this shape. The first data does it otherwise.

        Parameters
        ----------
        input_shape : int or tuple of int
            Of one row, such as 4 or (28, 28).

        Raises
        ------
        ValueError
            If a layer cannot take what comes to it, or the model is built for another shape.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(3)], seed=0)
        >>> model.build(4)
        >>> model.layers[0].kernel.shape
        (4, 3)
        """
        shape = layers.row_shape("build: input", input_shape)
        if self.built:
            if shape != self._input_shape:
                raise ValueError(
                    f"build: this model was built for rows of shape {self._input_shape}, "
                    f"got {shape}"
                )
            return
        if not self._layers:
            self._input_shape = shape
            return
        self._build(shape)

    def _build(self, shape: Shape, initialise: bool = True) -> None:
        shapes = [shape]
        for layer in self._layers:
            shapes.append(layer._infer(shapes[-1]))
        engine = self._engine_on(self._device, shape)
        if initialise:
            for replica, seed in enumerate(engine.seeds):
                for (index, name), view in engine.tensors(replica).items():
                    stream = 2 * index + (name == "bias")
                    values = self._layers[index]._initial(
                        name, view.shape, str(self._dtype), seed, stream
                    )
                    view[...] = self._device.put(values)
        self._input_shape = shape
        for layer, before, after in zip(self._layers, shapes, shapes[1:], strict=False):
            layer.input_shape, layer.output_shape = before, after
        self._attach(engine)

    def _engine_on(self, device: devices.Device, shape: Shape) -> Engine:
        """Make an engine for the layers, whose parameters are zero yet."""
        stages = [
            {**stage, "layer": index}
            for index, layer in enumerate(self._layers)
            for stage in layer._stages()
        ]
        hosts = {i: each for i, each in enumerate(self._layers) if isinstance(each, layers.Custom)}
        return Engine(
            device,
            stages,
            prod(shape),
            str(self._dtype),
            self._seed,
            self._learning_rates,
            hosts,
            self._precision,
        )

    def _attach(self, engine: Engine) -> None:
        """Use an engine: let the model compute with it, and each layer see its parameters."""
        assert self._input_shape is not None
        self._engine_or_none = engine
        self._inference = engine.inference(self._input_shape)
        learned, kept = (
            engine.views(engine.parameters),
            engine.views(engine.statistics, None, "state"),
        )
        for index, layer in enumerate(self._layers):
            layer._views = {name: view for (at, name), view in learned.items() if at == index}
            layer._statistics = {name: view for (at, name), view in kept.items() if at == index}
            layer._gradients = lambda at=index: self._layer_gradients(at)

    @property
    def _engine(self) -> Engine:
        if self._engine_or_none is None:
            raise RuntimeError(
                f"{type(self).__name__}: not built yet; call build(input_shape), or give it data"
            )
        return self._engine_or_none

    def _engine_for(self, operation: str, x: Array) -> Engine:
        """Return the engine, building it for the rows of x where there is none."""
        if self._engine_or_none is None:
            if not self._layers:
                raise RuntimeError(f"{operation}: this model has no layers; add some")
            if x.ndim < 2:
                raise ValueError(
                    f"{operation}: the first data must have shape (rows, features), got {x.shape}"
                )
            self._build(x.shape[1:])
        return self._engine

    # ---- data

    def _rows(self, operation: str, x: Any, *, finite: bool = False) -> Array:
        """Return x as (n, features) of the model's dtype, on its device, row by row."""
        array = self._device.real_array(operation, "x", x)
        if array.ndim == 0:
            raise ValueError(f"{operation}: x must have shape (rows, features), got a single value")
        if self._engine_or_none is None and array.ndim >= 2 and 0 in array.shape[1:]:
            raise ValueError(f"{operation}: x has no features, got shape {array.shape}")
        self._engine_for(operation, array)
        assert self._input_shape is not None
        if array.shape[1:] != self._input_shape:
            first = self._layers[0].label.partition(" ")[0]
            if array.ndim == 2 and len(self._input_shape) == 1:
                raise ValueError(
                    f"{first}: input has {array.shape[1]} features, "
                    f"but this layer was built for {self._input_shape[0]}"
                )
            raise ValueError(
                f"{first}: input has shape {array.shape}, but this model was built for "
                f"(rows, {', '.join(map(str, self._input_shape))})"
            )
        flat = array.reshape(len(array), prod(self._input_shape))
        if flat.dtype == self._dtype:
            result = self._device.xp.ascontiguousarray(flat)
        else:
            with np.errstate(over="ignore" if finite else "warn"):  # infinite then, and refused
                result = self._device.xp.ascontiguousarray(flat, self._dtype)
        if finite:
            self._check_finite(operation, "x", result)
        return result

    def _check_finite(self, operation: str, name: str, array: Array) -> None:
        if array.dtype.kind != "f" or bool(self._device.xp.isfinite(array).all()):
            return
        bad = ~self._device.xp.isfinite(array)
        row, column = (int(i[0]) for i in bad.nonzero())
        raise ValueError(
            f"{operation}: {name} holds {array[row, column]} at row {row}, column {column} "
            f"(as {array.dtype}); check_finite=False turns this check off"
        )

    def _single(self, x: Array) -> bool:
        """Return whether x is one row without a dimension for rows."""
        return self._input_shape is not None and x.shape == self._input_shape

    # ---- inference

    def _call(self, x: Any, *, out: Array | None = None) -> Any:
        """Do what ``model(x)`` does, for whatever `FastCall` does not do by itself."""
        owner = type(self).__name__
        array = self._device.real_array(owner, "x", x)
        single = self._single(array) or (not self.built and array.ndim == 1)
        rows = self._rows(owner, array[None] if single else array)
        y = self._engine.infer(rows)
        y = y[..., 0, :] if single else y
        if out is None:
            return devices.like(y, x)
        from fastmlp.kernels import check_writable

        check_writable(owner, "out", out, self._dtype)
        if out.shape != y.shape:
            raise ValueError(f"{owner}: out must have shape {y.shape}, got {out.shape}")
        out[...] = devices.of(out).put(y)
        return out

    def predict(self, x: Any, *, batch_size: int | None = None) -> Any:
        """Compute the outputs of many rows.

        Parameters
        ----------
        x : array, shape (n, ...) or that of one row
            NumPy, CuPy, or anything that has DLPack or that NumPy converts.
        batch_size : int, optional
            Rows at a time: it decides about the memory needed, and about rounding in the last bit.

        Returns
        -------
        array, shape (n, outputs) or (outputs,)
            Of the kind that `x` is. Of an `Ensemble`, such an array for each network.

        Raises
        ------
        TypeError
            If `x` is not of real numbers.
        ValueError
            If its shape does not fit.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Input(3), fm.Dense(2)], seed=0)
        >>> model.predict([[0, 0, 0], [0, 0, 0]]).shape
        (2, 2)
        """
        chunk = _batch_size("predict", batch_size)
        if chunk is None and self._inference and self._engine.in_one_go(x):
            y = self._inference(x, None)
            if y is not None:
                return y
        array = self._device.real_array("predict", "x", x)
        single = self._single(array)
        rows = self._rows("predict", array[None] if single else array)
        y = self._engine.infer(rows, chunk)
        return devices.like(y[..., 0, :] if single else y, x)

    # ---- training

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss | losses.Function = "cross_entropy",
        metrics: Iterable[str | metrics.Metric | Callable[..., float]] = (),
    ) -> None:
        """Choose how the model is trained.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss or callable
            A name, an object with settings such as ``fm.losses.Huber(delta=2.0)``, or a function
            ``(prediction, target, sample_weight=None)`` -> ``(loss, gradient)``.
        metrics : iterable of str or callable
            Names, or functions ``(prediction, target)`` -> float.

        Raises
        ------
        TypeError, ValueError
            If something is unknown or of the wrong kind, or an `Ensemble` is given a function.
        RuntimeError
            If the optimizer belongs to another model.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1)])
        >>> model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        """
        if isinstance(metrics, str):
            raise TypeError(f"compile: metrics must be a list, got the string {metrics!r}")
        chosen = [_get_metric(metric) for metric in metrics]
        names = [metric.name for metric in chosen]
        if len(set(names)) < len(names) or "loss" in names:
            raise ValueError(f"compile: metrics must have different names, got {names}")
        new_loss, new_optimizer = losses.get(loss), optimizers.get(optimizer)
        self._check_compile(new_optimizer, new_loss, chosen)
        new_optimizer._claim(self)
        if self.built and new_optimizer is not self.optimizer:
            self._engine.state["step"] = 0
        self.optimizer, self.loss, self.metrics = new_optimizer, new_loss, chosen

    def _check_compile(
        self, optimizer: optimizers.Optimizer, loss: losses.Loss, metrics: list[metrics.Metric]
    ) -> None:
        """Refuse what this kind of model cannot be trained with."""

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        validation_split: float = 0.0,
        validation_data: tuple[Any, ...] | None = None,
        shuffle: bool = True,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Iterable[Callback | Callable[..., Any]] = (),
        initial_epoch: int = 0,
        check_finite: bool = True,
        verbose: Verbosity = "auto",
    ) -> History:
        """Train by mini-batches.

        Parameters
        ----------
        x : array, shape (n, ...)
        y : array, shape (n,) or (n, outputs)
        batch_size : int, default 32
            The last batch of an epoch may be shorter.
        epochs : int, default 1
            Index after the last epoch: with ``initial_epoch=3, epochs=6`` three are run.
        validation_split : float, default 0
            Share of rows, taken from the end before shuffling, that only validate.
        validation_data : tuple, optional
            (x, y) or (x, y, sample_weight); replaces `validation_split`.
        shuffle : bool, default True
            Whether each epoch has an order of its own, decided by the model's seed.
        sample_weight : array, shape (n,), optional
            Multiplies the rows' losses.
        class_weight : dict of int to float, optional
            Multiplies the losses of each class's rows; classes left out count 1.
        callbacks : iterable of Callback or callable
            A plain function is called as ``f(epoch, logs)`` after each epoch.
        initial_epoch : int, default 0
        check_finite : bool, default True
            Whether NaN and infinity in the data are an error.
        verbose : {"auto", 0, 1, 2}
            "auto" shows progress if stderr is a terminal; 1 always; 2 a line an epoch; 0 never.

        Returns
        -------
        History
            ``history.history["loss"]``, and so on, one figure an epoch; averages are over rows,
            and a loss that is a sum is one over all rows.
            Of an `Ensemble`, an array of n figures an epoch, one for each network.
            Ctrl-C ends training after the step under way and sets ``history.interrupted``.

        Raises
        ------
        RuntimeError
            If the model is not compiled.
        TypeError, ValueError
            If data or settings do not fit; nothing has changed then.
        FloatingPointError
            If the loss becomes NaN or infinite, that of one network in an `Ensemble`; the model
            is as after the last good step.

        Warns
        -----
        UserWarning
            If a `Dense` layer meets numbers as large as raw pixels: above 100, deviating by 30.

        Examples
        --------
        >>> import numpy as np
        >>> import fastmlp as fm
        >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> model = fm.Sequential([fm.Dense(1)], seed=0)
        >>> model.compile(optimizer=fm.SGD(0.1), loss="mse")
        >>> history = model.fit(x, 2 * x + 1, epochs=50, verbose=0)
        >>> history.history["loss"][-1] < 1e-3
        True
        """
        return fit(
            self,
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            sample_weight=sample_weight,
            class_weight=class_weight,
            callbacks=callbacks,
            initial_epoch=initial_epoch,
            check_finite=check_finite,
            verbose=verbose,
        )

    def train_on_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Figure:
        """Make one step on all the given rows and return the loss before it.

        Parameters
        ----------
        x : array, shape (n, ...)
        y : array, shape (n,) or (n, outputs)
        sample_weight : array, shape (n,), optional

        Returns
        -------
        float
            Of an `Ensemble`, an array of n.

        Raises
        ------
        RuntimeError, TypeError, ValueError, FloatingPointError
            As `fit`.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1, kernel_initializer="zeros")])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> model.train_on_batch([[1.0]], [[2.0]])
        4.0
        """
        loss: Figure = train_on_batch(self, x, y, sample_weight)
        return loss

    def evaluate(
        self, x: Any, y: Any, *, batch_size: int | None = None, sample_weight: Any = None
    ) -> dict[str, Figure]:
        """Compute the loss and the metrics on data.

        Parameters
        ----------
        x : array, shape (n, ...)
        y : array, shape (n,) or (n, outputs)
        batch_size : int, optional
            Rows at a time.
        sample_weight : array, shape (n,), optional
            Multiplies the rows' losses, not their metrics.

        Returns
        -------
        dict of float
            "loss", and each metric by its name. Of an `Ensemble`, arrays of n.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `fit`.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1, kernel_initializer="zeros")])
        >>> model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
        >>> model.evaluate([[1.0]], [[2.0]])
        {'loss': 4.0, 'mae': 2.0}
        """
        return evaluate(self, x, y, sample_weight, _batch_size("evaluate", batch_size))

    # ---- the open box

    def forward(self, x: Any, *, training: bool = False) -> Array:
        """Compute the outputs and remember what `backward` needs.

        Parameters
        ----------
        x : array, shape (n, ...)
        training : bool, default False
            Whether dropout is active, and batch normalisation takes the batch's statistics.

        Returns
        -------
        array, shape (n, outputs)
            A new one, on the model's device.

        Raises
        ------
        TypeError, ValueError
            If `x` does not fit.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(2)], seed=0)
        >>> model.forward([[1.0, 2.0, 3.0]]).shape
        (1, 2)
        """
        rows = self._rows("forward", x)
        return self._engine.forward(rows, bool(training))

    def backward(self, grad: Any) -> Array:
        """Propagate the gradient of a loss back through the last `forward`.

        Every layer's `gradients` are overwritten.

        Parameters
        ----------
        grad : array, shape (n, outputs)
            Derivative of the loss by the outputs.

        Returns
        -------
        array, shape (n, ...)
            Derivative of the loss by the inputs.

        Raises
        ------
        RuntimeError
            If there was no `forward`.
        ValueError
            If the shape does not fit.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1, kernel_initializer="ones")])
        >>> y = model.forward([[2.0, 3.0]])
        >>> model.backward([[1.0]])
        array([[1., 1.]], dtype=float32)
        >>> model.layers[0].gradients["kernel"].tolist()
        [[2.0], [3.0]]
        """
        engine = self._engine
        rows = engine.kept_rows
        if rows is None:
            raise RuntimeError("backward: call forward first")
        array = self._device.real_array("backward", "grad", grad)
        shape = engine.shape(rows, engine.outputs)
        if array.shape != shape:
            raise ValueError(
                f"backward: grad must have the shape of the outputs, {shape}, got {array.shape}"
            )
        dx = engine.backward(self._device.xp.ascontiguousarray(array, self._dtype))
        assert self._input_shape is not None
        return dx.reshape(*engine.lead, rows, *self._input_shape)

    def _step(self, optimizer: optimizers.Optimizer) -> None:
        """Make an update: what `Optimizer.step` calls."""
        engine = self._engine
        if not engine.has_gradients:
            raise RuntimeError(f"{type(optimizer).__name__}: no gradients; call backward first")
        optimizer._claim(self)
        if optimizer is not self.optimizer:
            engine.state["step"] = 0
            self.optimizer = optimizer
        engine.update(optimizer)

    # ---- parameters

    def _layer_gradients(self, index: int) -> dict[str, Array]:
        engine = self._engine
        if not engine.has_gradients:
            raise RuntimeError(
                "gradients: there are none; they exist after backward, and not after fit or "
                "train_on_batch, whose steps never store them"
            )
        views = engine.views(engine.gradients)
        return {name: view for (at, name), view in views.items() if at == index}

    def parameters(self) -> list[Array]:
        """Return all kernels and biases, in order, as writable views.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Input(2), fm.Dense(3)])
        >>> [p.shape for p in model.parameters()]
        [(2, 3), (3,)]
        """
        return list(self._engine.views(self._engine.parameters).values())

    def gradients(self) -> list[Array]:
        """Return the gradients of `parameters`, in that order, as the last `backward` left them.

        Raises
        ------
        RuntimeError
            If there are none.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1)], seed=0)
        >>> y = model.forward([[2.0]])
        >>> dx = model.backward([[1.0]])
        >>> [g.tolist() for g in model.gradients()]
        [[[2.0]], [1.0]]
        """
        self._layer_gradients(0)
        return list(self._engine.views(self._engine.gradients).values())

    def penalty(self) -> Figure:
        """Return what the layers' `l1` and `l2` add to the loss now, for a loop of one's own.

        `backward` adds its gradient to that of the loss.

        Returns
        -------
        float
            Of an `Ensemble`, an array of n.

        Raises
        ------
        RuntimeError
            If the model is not built.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Input(2), fm.Dense(1, l1=0.5, l2=0.25)])
        >>> model.set_weights([[[2.0], [-1.0]], [3.0]])
        >>> model.penalty()
        2.75
        """
        value: Figure = self._engine.penalty()
        return value

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name: "0.kernel", "0.bias", "1.kernel", ...

        With them go the running statistics of batch normalisation.

        Examples
        --------
        >>> import fastmlp as fm
        >>> sorted(fm.Sequential([fm.Input(2), fm.Dense(3)]).state_dict())
        ['0.bias', '0.kernel']
        """
        return {name: view.copy() for name, view in self._named_tensors().items()}

    def _named_tensors(self) -> dict[str, Array]:
        """Name what a file keeps of the layers as `state_dict` does: writable views."""
        views = self._engine.tensors()
        return {f"{layer}.{name}": view for (layer, name), view in views.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take parameters by name.

        Parameters
        ----------
        state : mapping of str to array
            As `state_dict` returns it.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape does not fit; nothing has changed then.

        Examples
        --------
        >>> import fastmlp as fm
        >>> a, b = (fm.Sequential([fm.Input(2), fm.Dense(3)]) for _ in range(2))
        >>> b.load_state_dict(a.state_dict())
        """
        named = self._named_tensors()
        missing, unknown = sorted(named.keys() - state.keys()), sorted(state.keys() - named.keys())
        if missing or unknown:
            raise ValueError(f"load_state_dict: missing {missing}, unknown {unknown}")
        self._assign("load_state_dict", named, state)

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Return copies of all parameters: [kernel0, bias0, kernel1, ...].

        The running statistics of batch normalisation follow what that layer learns.

        Examples
        --------
        >>> import fastmlp as fm
        >>> len(fm.Sequential([fm.Input(2), fm.Dense(3), fm.Dense(1)]).get_weights())
        4
        """
        return [devices.to_host(view).copy() for view in self._engine.tensors().values()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Take parameters in the order of `get_weights`.

        Parameters
        ----------
        weights : sequence of array

        Raises
        ------
        ValueError
            If their number or a shape does not fit; nothing has changed then.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Input(1), fm.Dense(1)])
        >>> model.set_weights([[[2.0]], [1.0]])
        >>> model([3.0])
        array([7.], dtype=float32)
        """
        named = self._named_tensors()
        if len(weights) != len(named):
            raise ValueError(f"set_weights: expected {len(named)} arrays, got {len(weights)}")
        self._assign("set_weights", named, dict(zip(named, weights, strict=True)))

    def _assign(
        self, operation: str, views: Mapping[str, Array], values: Mapping[str, Any]
    ) -> None:
        arrays = {name: devices.real_array(operation, name, values[name]) for name in views}
        for name, view in views.items():
            if arrays[name].shape != view.shape:
                raise ValueError(
                    f"{operation}: {name} must have shape {view.shape}, got {arrays[name].shape}"
                )
        for name, view in views.items():
            view[...] = self._device.put(arrays[name]).astype(self._dtype, copy=False)

    def count_params(self) -> int:
        """Return the number of parameters, of all networks in an `Ensemble`.

        Examples
        --------
        >>> import fastmlp as fm
        >>> fm.Sequential([fm.Input(784), fm.Dense(256), fm.Dense(10)]).count_params()
        203530
        """
        return sum(view.size for view in self.parameters())

    def summary(self) -> None:
        """Print the layers, their output shapes and their parameters as a table.

        Examples
        --------
        >>> import fastmlp as fm
        >>> fm.Sequential([fm.Input(4), fm.Dense(8, activation="relu"), fm.Dense(3)]).summary()
        Layer           Output shape  Parameters
        ----------------------------------------
        Input                      4
        Dense (relu)               8          40
        Dense                      3          27
        ----------------------------------------
        Total                                 67
        """
        networks = 1 if isinstance(self._seed, int) else len(self._seed)
        rows = [("Layer", "Output shape", "Parameters")]
        if self._input_shape is not None:
            rows.append(("Input", _shape_text(self._input_shape), ""))
        for layer in self._layers:
            count = sum(array.size for array in layer.parameters.values()) // networks
            shape = _shape_text(layer.output_shape) if self.built else "?"
            counted = "?" if not self.built and layer._learns() else f"{count:,}"
            rows.append((layer.label, shape, "" if counted == "0" else counted))
        total = f"{self.count_params() // networks:,}" if self.built else "? (not built)"
        rows.append(("Total", "", total))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        widths[0] += 2
        lines = [
            f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {count:>{widths[2]}}".rstrip()
            for name, shape, count in rows
        ]
        rule = "-" * max(map(len, lines))
        print("\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]))

    # ---- devices and files

    def to(self: M, device: str) -> M:
        """Move the model to a device, its parameters and its optimizer's moments bit for bit.

        What belongs to one step stays behind: gradients, and what `backward` needs of `forward`.

        Parameters
        ----------
        device : {"cpu", "cuda"}

        Returns
        -------
        Sequential or Ensemble
            The model itself.

        Raises
        ------
        RuntimeError
            If the device is not there or does not have the model's precision, or `fit` is running;
            the model stays where it is.

        Examples
        --------
        >>> import fastmlp as fm
        >>> fm.Sequential([fm.Dense(1)]).to("cpu").device
        'cpu'
        """
        target = devices.get(device)
        if target is self._device:
            return self
        target.check_precision("to", self._precision, self.dtype)
        self._check_idle("to")
        if self._engine_or_none is not None:
            old = self._engine_or_none
            assert self._input_shape is not None
            engine = self._engine_on(target, self._input_shape)
            moments = [] if self.optimizer is None else self.optimizer.moments
            moved = engine.take_over(old, moments)
            if self.optimizer is not None:
                self.optimizer.moments = moved
            self._attach(engine)
        self._device = target
        return self

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: Mapping[str, str] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the model to a safetensors file: architecture, parameters, and training so far.

        The file appears whole or not at all.

        Parameters
        ----------
        path : path
            Such as "model.safetensors".
        metadata : mapping of str to str, optional
            Kept beside the model; `extra_metadata` of the loaded one.
        arrays : mapping of str to array, optional
            Likewise; `extra_arrays` of the loaded one.

        Raises
        ------
        RuntimeError
            If the model is not built.
        OSError
            If the file cannot be written; one that was there before is as it was.

        Examples
        --------
        >>> import tempfile, os
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Input(3), fm.Dense(2)], seed=0)
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> model.save(path)
        >>> fm.load(path).count_params()
        8
        """
        from fastmlp import io

        io.save(self, path, metadata or {}, arrays or {})


class Sequential(Model[float]):
    """A network whose layers follow one another.

    ``model(x)`` computes the outputs with the least possible delay, and ``model(x, out=y)`` without
    an allocation: into an array of the result's shape and the model's dtype, which it returns. `x`
    has shape (n, ...) or that of one row, and the result (n, outputs) or (outputs,). It raises what
    `predict` raises, and for an `out` that does not fit a TypeError or ValueError. Arrays that are
    contiguous and of the model's dtype are not copied; many threads may call one model at once.

    Parameters
    ----------
    layers : iterable of Layer, optional
        May begin with an `Input`, which is not counted as a layer. A name stands for a layer that
        needs no settings, such as "relu".
    device : {"cpu", "cuda"}, default "cpu"
        Where it computes.
    dtype : {"float32", "float64"}, default "float32"
        Of parameters and of all arithmetic.
    precision : {None, "tf32", "bfloat16"}, default None
        What matrix products round their operands to, with dtype float32: on the tensor cores of
        device "cuda", and "bfloat16" also on a CPU with AVX512_BF16. Sums, parameters, activations
        and updates stay float32. None: not at all.
    seed : int, optional
        Decides about initial values, the order of rows and dropout. Drawn at random if not given.
    name : str, optional

    Attributes
    ----------
    layers : list of Layer
        A copy of the list.
    optimizer, loss, metrics
        As given to `compile`.
    history : History or None
        Of the last `fit`, even one that ended in an error.
    stop_training : bool
        A callback sets it to end `fit` after the epoch.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or unknown.
    RuntimeError
        If the device is not there, or does not have the precision.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> y = np.array([0, 1, 1, 0])
    >>> model = fm.Sequential([fm.Dense(16, activation="tanh"), fm.Dense(2)], seed=0)
    >>> model.compile(optimizer=fm.Adam(0.05), loss="cross_entropy", metrics=["accuracy"])
    >>> history = model.fit(x, y, batch_size=4, epochs=100, verbose=0)
    >>> model.predict(x).argmax(axis=1)
    array([0, 1, 1, 0])
    >>> model(np.zeros(2, np.float32)).shape
    (2,)
    """

    def __init__(
        self,
        layers: Iterable[Layer | Input | str] | None = None,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        precision: str | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        chosen = (
            int.from_bytes(os.urandom(4), "little")
            if seed is None
            else check_seed("Sequential: seed", seed)
        )
        super().__init__(layers, chosen, device=device, dtype=dtype, precision=precision, name=name)

    @property
    def seed(self) -> int:
        """The seed, given or drawn."""
        assert isinstance(self._seed, int)
        return self._seed

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        """Go through the layers."""
        return iter(self.layers)

    def __getitem__(self, index: Any) -> Any:
        """Return a layer, or a list of them for a slice."""
        return self._layers[index]

    def add(self, layer: Layer | Input | str) -> None:
        """Append a layer. The layers that the model already has keep their parameters.

        Parameters
        ----------
        layer : Layer, Input or str

        Raises
        ------
        TypeError
            If it is none of these.
        ValueError
            If it does not fit, or belongs to a model already.
        RuntimeError
            If it comes from a callback while `fit` is running.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential()
        >>> model.add(fm.Input(4))
        >>> model.add(fm.Dense(3))
        >>> len(model)
        1
        """
        self._check_idle("add")
        shape = self._input_shape
        self._append(layer)
        try:
            self._rebuild()
        except Exception:
            if isinstance(layer, Input):
                self._input_shape = shape
            else:
                self._layers.pop()._owner = None
            raise

    def pop(self) -> Layer:
        """Remove the last layer and return it.

        Raises
        ------
        IndexError
            If there is none.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(3), fm.Dense(2)])
        >>> model.pop().units, len(model)
        (2, 1)
        """
        self._check_idle("pop")
        if not self._layers:
            raise IndexError("Sequential: there is no layer to remove")
        layer = self._layers.pop()
        layer._owner = None
        self._rebuild()
        return layer

    def trace(self, x: Any, y: Any = None, *, grad: Any = None, training: bool = False) -> Trace:
        """Compute a forward and a backward pass and keep every value on the way, for study.

        Each layer's product and activation run one by one on the kernels of the model, on copies
        of its parameters: the model, what its last `forward` kept and its gradients do not change.

        Parameters
        ----------
        x : array, shape (n, ...)
        y : array, shape (n,) or (n, outputs), optional
            Targets: what is differentiated is the compiled loss then.
        grad : array, shape (n, outputs), optional
            The derivative of a loss of one's own by the outputs. With neither `y` nor `grad` it is
            all ones: what is differentiated is the sum of the outputs.
        training : bool, default False
            Whether dropout is active, with the masks that the next ``forward(training=True)`` uses.

        Returns
        -------
        Trace
            ``trace.layers[i]`` has `input`, `before` (the activation), `output`, their derivatives
            `d_input`, `d_before`, `d_output`, and `gradients`; ``print(trace)`` shows all.

            A final softmax that is trained on "cross_entropy", or a sigmoid on
            "binary_cross_entropy", is part of the loss. The way back then starts at the logits:
            the last `d_before` is the loss's own gradient, ``(softmax - target) / n`` for example,
            and the last `d_output` is None.

        Raises
        ------
        RuntimeError
            If there is a `y`, but the model is not compiled.
        TypeError, ValueError
            If data does not fit, or both `y` and `grad` are given.

        Examples
        --------
        >>> import fastmlp as fm
        >>> model = fm.Sequential([fm.Dense(1, activation="relu", kernel_initializer="ones")])
        >>> print(model.trace([[2.0, 3.0]]))
        1 row
        0  Dense (relu)
           input     1 x 2     [[2. 3.]]
           before    1 x 1     [[5.]]
           output    1 x 1     [[5.]]
           d_output  1 x 1     [[1.]]
           d_before  1 x 1     [[1.]]
           d_input   1 x 2     [[1. 1.]]
           d_kernel  2 x 1     [[2.] [3.]]
           d_bias    1         [1.]
        """
        from fastmlp import study

        return study.trace(self, x, y, grad, bool(training))

    def _rebuild(self) -> None:
        """Build again after a change of layers, keeping the parameters of those that stay."""
        if not self.built:
            if self._input_shape is not None and self._layers:
                self._build(self._input_shape)
            return
        assert self._input_shape is not None
        old = self._engine
        kept = [{**layer._views, **layer._statistics} for layer in self._layers]
        if self._layers:
            self._build(self._input_shape)
            for layer, arrays in zip(self._layers, kept, strict=True):
                for name, array in arrays.items():
                    {**layer._views, **layer._statistics}[name][...] = array
            for field in ("epoch", "forward"):
                self._engine.state[field] = old.state[field]
        else:
            self._engine_or_none = self._inference = None
        if self.optimizer is not None:  # its moments were of the old parameters
            self.optimizer.moments = []


def check_seed(what: str, seed: object) -> int:
    """Return a seed as an int, or refuse it."""
    value = check_integer(what, seed, at_least=0)
    if value >= 1 << 64:
        raise ValueError(f"{what} must be below 2**64, got {seed}")
    return value


def _batch_size(operation: str, batch_size: int | None) -> int | None:
    if batch_size is None:
        return None
    return check_integer(f"{operation}: batch_size", batch_size, at_least=1)


def _shape_text(shape: Shape) -> str:
    return " x ".join(map(str, shape))


_get_metric = metrics.get  # where an argument of that name hides the module
