"""Looking inside a network: every value of a pass through it, and a check of its gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import io
from fastmlp._config import check_integer, check_number
from fastmlp.device import Array, to_host
from fastmlp.engine import Engine
from fastmlp.layers import Custom, Dense, Layer, Shape
from fastmlp.training import _compiled, _prepare, call_loss

if TYPE_CHECKING:
    from fastmlp.losses import Loss
    from fastmlp.sequential import Sequential

__all__ = ["LayerTrace", "Trace", "check_gradients", "trace"]

# Stages that are an activation: what goes into them is what one wants to see, too.
_ACTIVATIONS = ("activation", "softmax", "prelu", "maxout")

_FEW = 12  # elements of an array that are printed one by one


@dataclass(eq=False)
class LayerTrace:
    """What one layer computed, forward and backward; ``print`` shows it.

    Attributes
    ----------
    index : int
        Of the layer in ``model.layers``.
    layer : Layer
    input, output : array, shape (n, ...)
    before : array, shape (n, ...)
        What the layer's activation was applied to: ``input @ kernel + bias`` of a `Dense`, all
        pieces of a `Maxout`. In a layer without an activation it is `output`.
    d_input, d_before, d_output : array or None
        Derivatives of the loss by these three; None for what lies behind the place where the loss
        takes over, see `Sequential.trace`.
    gradients : dict of array
        Derivatives of the loss by the layer's parameters: "kernel", "bias", or what it has.
    """

    index: int
    layer: Layer
    input: Array
    before: Array
    output: Array
    d_input: Array | None
    d_before: Array | None
    d_output: Array | None
    gradients: dict[str, Array]

    def __str__(self) -> str:
        """Return the layer's name and a line for each array, in the order of computation."""
        middle = ["before"] if self.before is not self.output else []
        names = ["input", *middle, "output", "d_output", *(f"d_{n}" for n in middle), "d_input"]
        arrays = {name: getattr(self, name) for name in names}
        arrays |= {f"d_{name}": array for name, array in self.gradients.items()}
        lines = [
            f"   {name:<9} {' x '.join(map(str, array.shape)):<9} {_values(to_host(array))}"
            for name, array in arrays.items()
            if array is not None
        ]
        return "\n".join([f"{self.index}  {self.layer.label}", *lines])


@dataclass(eq=False)
class Trace:
    """Every intermediate value of a forward and backward pass; ``print`` shows them.

    Attributes
    ----------
    layers : list of LayerTrace
        One for each of ``model.layers``.
    output : array, shape (n, outputs)
    loss : float or None
        None where no targets were given.
    """

    layers: list[LayerTrace]
    output: Array
    loss: float | None

    def __str__(self) -> str:
        """Return what each layer computed, a line for each array."""
        loss = "" if self.loss is None else f", loss {self.loss:.8g}"
        rows = "1 row" if len(self.output) == 1 else f"{len(self.output)} rows"
        return "\n".join([rows + loss, *map(str, self.layers)])


def _values(array: np.ndarray[Any, Any]) -> str:
    """Return a small array's numbers, and of a large one what one would look for in them."""
    if array.size <= _FEW:
        return " ".join(np.array2string(array, max_line_width=10**6).split())
    zeros = np.mean(array == 0)
    return f"{array.min():.4g} to {array.max():.4g}, mean {array.mean():.4g}, {zeros:.0%} zeros"


def _layer_in_loss(model: Sequential, loss: Loss) -> Layer | None:
    """Return the layer whose activation the loss has inside it, if there is one.

    The loss is computed from what goes into that: the derivative of both together is exact, while
    that of the ending alone may vanish.
    """
    if not loss.native or not model._engine.network.loss_includes_ending(loss.name):
        return None
    return next(layer for layer in reversed(model.layers) if layer._stages())


@dataclass(eq=False)
class _Stage:
    """A stage of a layer as a network of its own, on the kernels that the model uses."""

    layer: int
    kind: str
    engine: Engine
    input: Array
    output: Array
    d_output: Array | None = None
    d_input: Array | None = None
    gradients: dict[str, Array] = field(default_factory=dict)

    def backward(self, d_output: Array) -> Array:
        self.d_output, self.d_input = d_output, self.engine.backward(d_output)
        views = self.engine.views(self.engine.gradients)
        self.gradients = {name: view for (_, name), view in views.items()}
        return self.d_input


def _forward(model: Sequential, rows: Array, training: bool) -> list[_Stage]:
    """Compute the stages of all layers one after the other, apart from the model."""
    stages = []
    for index, layer in enumerate(model.layers):
        for description in layer._stages():
            # With the layer's own index and the model's counter, dropout makes the model's masks.
            stage = {**description, "layer": index}
            hosts = {index: layer} if isinstance(layer, Custom) else None
            engine = Engine(
                model._device, [stage], rows.shape[1], model.dtype, model.seed, hosts=hosts
            )
            engine.state["forward"] = model._engine.state["forward"]
            kept = {**layer._views, **layer._statistics}
            for (_, name), view in engine.tensors().items():
                view[...] = kept[name]
            output = engine.forward(rows, training)
            stages.append(_Stage(index, stage["kind"], engine, rows, output))
            rows = output
    return stages


def trace(model: Sequential, x: Any, y: Any, grad: Any, training: bool) -> Trace:
    """Compute every intermediate value; see `Sequential.trace`."""
    if y is not None and grad is not None:
        raise ValueError("trace: give y for the compiled loss, or grad, but not both")
    data = None if y is None else _prepare(model, "trace", x, y, None)
    rows = model._rows("trace", x) if data is None else data.x
    stages = _forward(model, rows, training)
    output = prediction = stages[-1].output if stages else rows
    differentiated, value = stages, None
    if data is not None:
        loss, _ = _compiled(model, "trace")
        if _layer_in_loss(model, loss) is not None:
            differentiated, prediction = stages[:-1], stages[-1].input
        value, gradient = call_loss(loss, prediction, data.target, None)
        value += model.penalty()
    elif grad is None:
        gradient = model._device.xp.ones_like(output)
    else:
        gradient = model._device.real_array("trace", "grad", grad)
        if gradient.shape != output.shape:
            raise ValueError(
                f"trace: grad must have the shape of the outputs, {output.shape}, "
                f"got {gradient.shape}"
            )
    gradient = model._device.xp.ascontiguousarray(gradient, model.dtype)
    if differentiated is not stages:
        stages[-1].d_input = gradient
    for stage in reversed(differentiated):
        gradient = stage.backward(gradient)
    return Trace(_layers(model, stages, rows, gradient), output, value)


def _layers(
    model: Sequential, stages: list[_Stage], value: Array, d_value: Array | None
) -> list[LayerTrace]:
    """Gather the stages by layer, from the first layer's input and its derivative on."""
    traces = []
    for index, layer in enumerate(model.layers):
        own = [stage for stage in stages if stage.layer == index]
        d_parameters = {name: array for stage in own for name, array in stage.gradients.items()}
        given = [_shaped(array, layer.input_shape) for array in (value, d_value)]
        if own:
            value, d_value = own[-1].output, own[-1].d_output
        result = before = [_shaped(array, layer.output_shape) for array in (value, d_value)]
        if own and own[-1].kind in _ACTIVATIONS:
            shape = (-1,) if own[-1].kind == "maxout" else layer.output_shape
            before = [_shaped(array, shape) for array in (own[-1].input, own[-1].d_input)]
        (x, z, y), (dx, dz, dy) = zip(given, before, result, strict=True)
        traces.append(LayerTrace(index, layer, x, z, y, dx, dz, dy, d_parameters))
    return traces


def _shaped(array: Any, shape: Shape) -> Any:
    return None if array is None else array.reshape(len(array), *shape)


def check_gradients(
    model: Sequential,
    x: Any,
    y: Any,
    *,
    step: float | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the gradients of the compiled loss with central finite differences.

    ``(loss(w + h) - loss(w - h)) / 2h`` needs no derivative, so it finds a wrong one: in a loss or
    a layer of one's own, or in what one believes about the data. All is computed on a twin of the
    model in float64, in training, with one mask for each dropout; the model itself stays as it is.

    Parameters
    ----------
    model : Sequential
        Compiled, of either dtype.
    x : array, shape (n, ...)
        A few rows are enough.
    y : array, shape (n,) or (n, outputs)
    step : float, default 1e-5
        The h of a weight between -1 and 1; a larger weight w moves by ``step * |w|``.
    samples : int, optional
        How many elements of each parameter are tried, drawn at random; all by default. Each takes
        two forward passes.
    seed : int, default 0
        Of the draw.

    Returns
    -------
    dict of float
        For each parameter, "0.kernel", "0.bias", ..., the largest ``|a - n| / max(|a|, |n|, f)`` of
        a gradient a and its difference n. The floor f is a thousandth of the loss or of the
        largest gradient, whichever is larger: below it, n is mostly rounding.

        Right gradients give 1e-7 or less, wrong ones 1e-3 and more. In between is a kink, such as
        that of ReLU at 0, within a step of some row's value: there a difference is no derivative.
        Other rows, or a smaller step, tell the two apart.

    Raises
    ------
    RuntimeError
        If the model is not compiled.
    TypeError, ValueError
        If `model` is no `Sequential`, the data does not fit, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Dense(3, activation="tanh"), fm.Dense(2)], seed=0)
    >>> model.compile(loss="cross_entropy")
    >>> errors = fm.check_gradients(model, np.eye(4), [0, 1, 1, 0])
    >>> list(errors), max(errors.values()) < 1e-7
    (['0.kernel', '0.bias', '1.kernel', '1.bias'], True)
    """
    if type(model).__name__ != "Sequential":
        raise TypeError(
            f"check_gradients: needs a Sequential, got {type(model).__name__}; "
            "ensemble[i] takes one out of an Ensemble"
        )
    relative = check_number("check_gradients: step", 1e-5 if step is None else step, above=0)
    if samples is not None:
        samples = check_integer("check_gradients: samples", samples, at_least=1)
    model._rows("check_gradients", x)  # builds the model, where this is its first data
    twin = io.copy(model, "float64")
    data = _prepare(twin, "check_gradients", x, y, None)
    loss, _ = _compiled(twin, "check_gradients")
    _end_in_logits(twin, loss)
    masks = twin._engine.state["forward"].copy()

    def loss_and_gradient() -> tuple[float, Array]:
        twin._engine.state["forward"] = masks  # so that every pass drops the same elements
        value, gradient = call_loss(loss, twin._engine.forward(data.x, True), data.target, None)
        return value + twin.penalty(), gradient

    value, gradient = loss_and_gradient()
    twin.backward(gradient)
    gradients = [to_host(array).copy() for array in twin.gradients()]
    floor = 1e-3 * max([abs(value), *(np.abs(array).max() for array in gradients)])
    rng = np.random.default_rng(seed)
    errors = {}
    views = twin._engine.views(twin._engine.parameters)
    for ((layer, name), parameter), exact in zip(views.items(), gradients, strict=True):
        chosen = rng.permutation(exact.size)[:samples]
        places = list(zip(*np.unravel_index(chosen, exact.shape), strict=True))
        differences = []
        for at in places:
            weight = float(parameter[at])
            h = relative * max(1.0, abs(weight))
            parameter[at] = weight + h
            above, _ = loss_and_gradient()
            parameter[at] = weight - h
            below, _ = loss_and_gradient()
            parameter[at] = weight
            differences.append((above - below) / (2 * h))
        a, n = exact.flat[chosen], np.array(differences)
        error, scale = np.abs(a - n), np.maximum(np.maximum(np.abs(a), np.abs(n)), floor)
        # Where both are 0 so may the scale be.
        np.divide(error, scale, out=error, where=error != 0)
        errors[f"{layer}.{name}"] = float(error.max())
    return errors


def _end_in_logits(model: Sequential, loss: Loss) -> None:
    """Take away the activation that the loss has inside it."""
    layer = _layer_in_loss(model, loss)
    if layer is None:
        return
    if isinstance(layer, Dense):
        layer.activation = None
    else:
        model._layers.remove(layer)
    model._rebuild()
