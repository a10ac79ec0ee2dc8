"""Pictures of training and of networks, drawn with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import kernels
from fastmlp._config import check_number
from fastmlp._optional import optional
from fastmlp.device import real_array, to_host

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastmlp.callbacks import History
    from fastmlp.sequential import Model

__all__ = ["activation", "confusion_matrix", "decision_boundary", "history", "images", "network"]

_Path = str | os.PathLike[str] | None

_GRID = 300  # points along each side of a decision boundary


def _figure(width: float, height: float) -> Any:
    """Return a Figure of its own, not pyplot's: no window system, no global state to clean up."""
    return optional("matplotlib.figure", "plot").Figure(
        figsize=(width, height), layout="constrained"
    )


def _saved(figure: Any, path: _Path) -> Figure:
    """Write a figure where that is asked for, and return it."""
    if path is not None:
        figure.savefig(path, dpi=150)
    result: Figure = figure
    return result


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def history(history: History | Mapping[str, Sequence[float]], path: _Path = None) -> Figure:
    """Draw the loss and each metric over the epochs, in training and in validation.

    Of an `Ensemble` they are the means over its networks.

    Parameters
    ----------
    history : History or dict
        What `fit` returned, or its ``history``: lists by name, ``"val_"`` before validation's.
    path : str or path, optional
        A file to write, its kind told by the suffix (``.png``, ``.pdf``, ``.svg``, ...).

    Returns
    -------
    matplotlib.figure.Figure
        One panel a quantity. It belongs to no window: in a notebook it shows itself.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    ValueError
        If the history holds no epoch, or the suffix of `path` is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> figure = fm.plotting.history({"loss": [0.9, 0.4], "val_loss": [1.0, 0.6]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss']
    """
    curves: Mapping[str, Sequence[float]] = (
        history if isinstance(history, Mapping) else history.history
    )
    names = [n for n in curves if not n.startswith("val_") and n != "learning_rate" and curves[n]]
    if not names:
        raise ValueError("plotting.history: the history holds no epoch")
    figure = _figure(5.5 * len(names), 3.8)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _panel(axes, name, curves[name], curves.get(f"val_{name}", ()))
    return _saved(figure, path)


def _panel(axes: Any, name: str, training: Sequence[float], validation: Sequence[float]) -> None:
    marker = "o" if len(training) == 1 else ""
    for label, values in (("training", training), ("validation", validation)):
        if values:
            means = [np.mean(value) for value in values]  # over the networks of an ensemble
            axes.plot(range(1, len(means) + 1), means, marker=marker, label=label)
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes)
    axes.legend(frameon=False)


def activation(
    name: str | Sequence[str],
    *,
    parameter: float | Sequence[float | None] | None = None,
    span: tuple[float, float] = (-8, 8),
    path: _Path = None,
) -> Figure:
    """Draw an activation and its derivative.

    Parameters
    ----------
    name : str or list of str
        Of `fm.kernels.ACTIVATIONS`; several have a panel each.
    parameter : float or list of float or None, optional
        The slope, alpha or beta of an activation that has one; a list holds one for each name.
    span : (float, float), default (-8, 8)
        From where to where.
    path : str or path, optional
        A file to write, its kind told by the suffix.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    ValueError
        If a name is unknown, a parameter is out of range, or the span is empty.

    Examples
    --------
    >>> import fastmlp as fm
    >>> (axes,) = fm.plotting.activation("elu", parameter=0.5).axes
    >>> axes.get_title(), [line.get_label() for line in axes.get_lines()[-2:]]
    ('elu, alpha 0.5', ['f(x)', "f'(x)"])
    """
    names = [name] if isinstance(name, str) else list(name)
    parameters = list(parameter) if isinstance(parameter, Sequence) else [parameter] * len(names)
    if not names or len(parameters) != len(names):
        raise ValueError(
            f"plotting.activation: needs a name and a parameter for each panel, got {len(names)} "
            f"names and {len(parameters)} parameters"
        )
    low, high = (check_number("plotting.activation: span", end) for end in span)
    if low >= high:
        raise ValueError(f"plotting.activation: span must go upwards, got ({low:g}, {high:g})")
    x = np.linspace(low, high, 1001)
    curves = [_curves(key, value, x) for key, value in zip(names, parameters, strict=True)]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = _figure(3.6 * columns, 2.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, y, slope) in zip(panels, curves, strict=False):
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.plot(x, y, linewidth=2, label="f(x)")
        axes.plot(x, slope, linewidth=2, linestyle="--", label="f'(x)")
        axes.set(title=title, xlabel="x", xlim=(low, high))
        axes.xaxis.get_major_locator().set_params(steps=[1, 2, 4, 5, 10])
        _plain(axes)
        axes.legend(frameon=False)
    for axes in panels[len(names) :]:
        axes.remove()
    return _saved(figure, path)


def _curves(name: str, parameter: float | None, x: Any) -> tuple[str, Any, Any]:
    """Return an activation's title, its values at x and its derivatives there."""
    key, value = kernels.resolve_activation(name, parameter)
    info = kernels.ACTIVATIONS[key]
    settings = () if info["parameter"] is None else (value,)
    y = getattr(kernels, key)(x, *settings)
    kept = y if info["from_output"] else x
    slope = getattr(kernels, f"{key}_backward")(np.ones_like(x), kept, *settings)
    title = f"{key}, {info['parameter']} {value:g}".replace("_", " ") if settings else key
    return title, y, slope


def decision_boundary(
    model: Model[Any],
    x: Any,
    y: Any,
    path: _Path = None,
    *,
    threshold: float | None = None,
) -> Figure:
    """Draw which class a model gives to each point of the plane, and the data on top.

    A color is the stronger the surer the model is, taking its outputs as logits or probabilities.

    Parameters
    ----------
    model : Sequential
        Of two inputs, and one output or one for each class.
    x : array, shape (n, 2)
    y : array, shape (n,), (n, 1) or (n, classes)
        Labels or one-hot; for one output 0 and 1, or -1 and 1.
    path : str or path, optional
        A file to write, its kind told by the suffix.
    threshold : float, optional
        Above which one output means the second class. Default: 0.5 for a model that ends in a
        sigmoid or a step, whose values go from 0 to 1, else 0.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    ValueError
        If `x` has not two columns, or `y` not a label for each row.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 0, 0, 1])
    >>> model = fm.Sequential([fm.Dense(1, activation="sigmoid")], seed=0)
    >>> figure = fm.plotting.decision_boundary(model, x, y)
    """
    points = to_host(real_array("plotting.decision_boundary", "x", x))
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(
            f"plotting.decision_boundary: x must have shape (n, 2), got {points.shape}"
        )
    size = np.ptp(points, axis=0)
    margin = 0.15 * np.where(size > 0, size, 1)
    left, bottom = points.min(axis=0) - margin
    right, top = points.max(axis=0) + margin
    across, up = np.linspace(left, right, _GRID), np.linspace(bottom, top, _GRID)
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    outputs = to_host(model.predict(grid.reshape(-1, 2))).astype(float)
    single = outputs.shape[1] == 1
    classes = max(outputs.shape[1], 2)
    scores, probabilities = _two_classes(model, outputs, threshold) if single else _many(outputs)
    labels = _labels("plotting.decision_boundary: y", y, yes_or_no=single)
    if len(labels) != len(points) or labels.max() >= classes:
        raise ValueError(
            f"plotting.decision_boundary: y must have a label of 0..{classes - 1} for each of "
            f"{len(points)} rows, got {len(labels)} labels up to {labels.max()}"
        )

    to_rgb = optional("matplotlib.colors", "plot").to_rgb
    colors = np.array([to_rgb(f"C{label}") for label in range(classes)])
    winner = scores.argmax(axis=1)
    chance = 1 / classes
    sure = (probabilities[np.arange(len(winner)), winner] - chance) / (1 - chance)
    strength = 0.12 + 0.4 * np.clip(sure, 0, 1)[:, None]
    picture = (1 - strength) + strength * colors[winner]
    figure = _figure(5.2, 4.2)
    axes = figure.subplots()
    axes.imshow(
        picture.reshape(_GRID, _GRID, 3),
        extent=(left, right, bottom, top),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
    )
    for label in range(1 if classes == 2 else 0, classes):
        lead = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
        if lead.min() < 0 < lead.max():
            lead = lead.reshape(_GRID, _GRID)
            axes.contour(across, up, lead, levels=[0], colors="0.2", linewidths=1.2)
    for label in np.unique(labels):
        of_class = points[labels == label]
        axes.scatter(
            *of_class.T, s=36, color=colors[label], edgecolor="white", label=str(label), zorder=3
        )
    axes.set(xlabel="x1", ylabel="x2", xlim=(left, right), ylim=(bottom, top))
    # Beside the picture, where it hides no data.
    axes.legend(title="class", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return _saved(figure, path)


def _two_classes(model: Model[Any], outputs: Any, threshold: float | None) -> tuple[Any, Any]:
    """Return scores and probabilities of two classes from one output."""
    stages = [stage for layer in model.layers for stage in layer._stages()]
    bounded = bool(stages) and stages[-1].get("name") in ("sigmoid", "step")
    cut = (0.5 if bounded else 0.0) if threshold is None else threshold
    second = outputs if bounded else kernels.sigmoid(outputs - cut)
    return np.hstack([np.full_like(outputs, cut), outputs]), np.hstack([1 - second, second])


def _many(outputs: Any) -> tuple[Any, Any]:
    """Return scores and probabilities of classes from logits or from probabilities."""
    probable = (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-4)
    return outputs, outputs if probable else kernels.softmax(outputs)


def _labels(what: str, values: Any, *, yes_or_no: bool = False) -> Any:
    """Return labels from 0 up, from labels or from a column for each class."""
    operation, _, name = what.partition(": ")
    array = to_host(real_array(operation, name, values))
    if array.ndim == 2 and array.shape[1] > 1:
        return array.argmax(axis=1)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{what} must have shape (n,) or (n, classes), got {array.shape}")
    array = array.reshape(len(array))
    if yes_or_no:
        return (array > 0.5).astype(int)
    if (array != np.floor(array)).any() or array.min() < 0:
        raise ValueError(
            f"{what} must hold labels 0, 1, 2, ..., or a column for each class; "
            "of one probability a row make labels first: p > 0.5"
        )
    return array.astype(int)


def confusion_matrix(
    y_true: Any, y_pred: Any, labels: Sequence[str] | None = None, path: _Path = None
) -> Figure:
    """Draw how often each class was taken for which.

    Parameters
    ----------
    y_true : array, shape (n,), (n, 1) or (n, classes)
        Labels from 0 up, or one-hot.
    y_pred : array, shape (n,), (n, 1) or (n, classes)
        Labels; or logits or probabilities, of which the largest of a row counts.
    labels : sequence of str, optional
        The classes' names, "0", "1", ... by default.
    path : str or path, optional
        A file to write, its kind told by the suffix.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each true class, a column for each predicted one; a cell is the darker the larger
        its share of the row.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    ValueError
        If the numbers of rows differ, there are none, or `labels` has too few names.

    Examples
    --------
    >>> import fastmlp as fm
    >>> figure = fm.plotting.confusion_matrix([0, 0, 1], [0, 1, 1], labels=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1', '1', '0', '1']
    """
    true = _labels("plotting.confusion_matrix: y_true", y_true)
    predicted = _labels("plotting.confusion_matrix: y_pred", y_pred)
    if len(true) != len(predicted):
        raise ValueError(
            f"plotting.confusion_matrix: y_true has {len(true)} rows, but y_pred {len(predicted)}"
        )
    classes = 1 + int(max(true.max(), predicted.max()))
    names = [str(label) for label in range(classes)] if labels is None else list(labels)
    if len(names) < classes:
        raise ValueError(
            f"plotting.confusion_matrix: labels must name {classes} classes, got {len(names)}"
        )
    classes = len(names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (true, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    side = 1.6 + 0.5 * max(classes, 4)
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        count = counts[row, column]
        color = "white" if shares[row, column] > 0.5 else "0.2" if count else "0.75"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=9)
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(classes), names, **(slanted if max(map(len, names)) > 4 else {}))
    axes.set_yticks(range(classes), names)
    axes.set_xticks(np.arange(1, classes) - 0.5, minor=True)  # white lines between cells
    axes.set_yticks(np.arange(1, classes) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    right = counts.trace() / counts.sum()
    axes.set(xlabel="predicted", ylabel="true", title=f"{right:.1%} of {counts.sum():,} right")
    return _saved(figure, path)


def images(x: Any, titles: Sequence[Any] | None = None, path: _Path = None) -> Figure:
    """Draw a page of grey images.

    Parameters
    ----------
    x : array, shape (n, height, width) or (n, side * side)
    titles : sequence, optional
        What stands above each: labels, for example.
    path : str or path, optional
        A file to write, its kind told by the suffix.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    ValueError
        If the rows are no images, or there are not as many titles.

    Examples
    --------
    >>> import fastmlp as fm
    >>> x, y = fm.datasets.load("digits")
    >>> len(fm.plotting.images(x[:12], titles=y[:12]).axes)
    12
    """
    pictures = to_host(real_array("plotting.images", "x", x))
    if pictures.ndim == 2 and isqrt(pictures.shape[1]) ** 2 == pictures.shape[1]:
        pictures = pictures.reshape(len(pictures), isqrt(pictures.shape[1]), -1)
    if pictures.ndim != 3 or not pictures.size:
        raise ValueError(
            "plotting.images: x must have shape (n, height, width) or (n, side * side), "
            f"got {pictures.shape}"
        )
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(
            f"plotting.images: expected {len(pictures)} titles, one for each image, "
            f"got {len(titles)}"
        )
    columns = min(len(pictures), max(6, isqrt(2 * len(pictures))))
    rows = -(-len(pictures) // columns)
    figure = _figure(1.25 * columns, 1.45 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels:
        axes.axis("off")
    for index, picture in enumerate(pictures):
        axes = figure.axes[index]
        axes.imshow(picture, cmap="gray_r")
        if titles is not None:
            axes.set_title(str(titles[index]), fontsize=9)
    for axes in figure.axes[len(pictures) :]:
        axes.remove()
    return _saved(figure, path)


def network(model: Model[Any], path: _Path = None) -> Figure:
    """Draw the layers of a model, with their shapes and numbers of parameters.

    A layer with weights of its own between all units is a column of circles, of more than 10
    only some; one that works element by element is a bar.

    Parameters
    ----------
    model : Sequential
        Built.
    path : str or path, optional
        A file to write, its kind told by the suffix: ``.svg`` and ``.pdf`` stay sharp at any size.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing; says what to install.
    RuntimeError
        If the model is not built.

    Examples
    --------
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Input(4), fm.Dense(8, activation="relu"), fm.Dense(3)])
    >>> figure = fm.plotting.network(model)
    """
    networks = model._engine.replicas
    assert model.input_shape is not None
    kind = "units" if len(model.input_shape) == 1 else "block"
    columns = [_Column("Input", model.input_shape, 0, kind)]
    for layer in model.layers:
        count = sum(array.size for array in layer.parameters.values()) // networks
        kind = "block" if len(layer.output_shape) > 1 else "bar"
        if "kernel" in layer.parameters:
            kind = "units"
        columns.append(_Column(layer.label, layer.output_shape, count, kind))
    for before, column in pairwise(columns):
        fan = before.kind != "block" and column.kind == "units"  # lines need room to cross
        column.x = before.x + before.width / 2 + (0.95 if fan else 0.5) + column.width / 2
    top = max(column.height for column in columns) / 2
    left, right, bottom = -0.8, columns[-1].x + 0.8, -top - 0.8

    figure = optional("matplotlib.figure", "plot").Figure(figsize=(right - left, 2 * top + 1.6))
    axes = figure.add_axes((0, 0, 1, 1))  # such that a unit is an inch
    axes.set(xlim=(left, right), ylim=(bottom, top + 0.8))
    axes.axis("off")
    for before, column in pairwise(columns):
        _link(axes, before, column)
    last = max(i for i, column in enumerate(columns) if column.kind == "units" or i == 0)
    for i, column in enumerate(columns):
        _draw(axes, column, "0.45" if i == 0 else "C1" if i == last else "C0", top)
    total = f"{sum(column.parameters for column in columns):,} parameters"
    axes.text((left + right) / 2, top + 0.58, total, ha="center", va="center", fontsize=11)
    return _saved(figure, path)


_ALL, _SOME = 10, 8  # of up to so many units all are drawn; of more, these, with dots between
_SPACING = 0.36  # of units, in inches
_RADIUS = 0.12


@dataclass
class _Column:
    """What is drawn of a layer; sizes in inches, heights from the middle."""

    label: str
    shape: tuple[int, ...]
    parameters: int
    kind: str  # "units": circles; "bar": what works element by element; "block": several dimensions
    x: float = 0.0

    @property
    def places(self) -> list[float]:
        """The heights of the units that are drawn, from the top."""
        units = prod(self.shape)
        slots = units if units <= _ALL else _SOME + 1
        heights = [((slots - 1) / 2 - i) * _SPACING for i in range(slots)]
        return heights if units <= _ALL else [y for y in heights if y]  # the dots are at 0

    @property
    def width(self) -> float:
        return {"units": 2 * _RADIUS, "bar": 0.3, "block": 0.9}[self.kind]

    @property
    def height(self) -> float:
        if self.kind == "block":
            return 0.9
        least = 0.0 if self.kind == "units" else 0.12 + 0.085 * len(self.label)
        return max(2 * self.places[0] + 0.36, least)


def _link(axes: Any, before: _Column, after: _Column) -> None:
    """Draw how the units of a layer see those of the one before."""
    start, end = before.x + before.width / 2, after.x - after.width / 2
    if "block" in (before.kind, after.kind):
        style = {"arrowstyle": "-|>", "color": "0.45", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end - 0.03, 0), (start + 0.03, 0), arrowprops=style)
        return
    if after.kind == "units":
        lines = [[(start, a), (end, b)] for a in before.places for b in after.places]
    else:
        lines = [[(start, a), (end, a)] for a in before.places]
    collection = optional("matplotlib.collections", "plot").LineCollection
    axes.add_collection(collection(lines, colors="0.6", linewidths=0.5, zorder=1))


def _draw(axes: Any, column: _Column, color: str, top: float) -> None:
    """Draw a layer, its shape above it and its name and parameters below."""
    patches = optional("matplotlib.patches", "plot")
    face = optional("matplotlib.colors", "plot").to_rgba(color, 0.25)
    x, shape = column.x, " × ".join(map(str, column.shape))
    if column.kind == "units":
        for y in column.places:
            # White below, or the lines would shine through.
            for fill in ("white", face):
                circle = patches.Circle((x, y), _RADIUS, facecolor=fill, edgecolor=color)
                axes.add_patch(circle).set_zorder(2)
        if len(column.places) < prod(column.shape):
            axes.plot([x] * 3, [-0.08, 0, 0.08], "o", color=color, markersize=2.2)
    else:
        corner = (x - column.width / 2, -column.height / 2)
        box = patches.FancyBboxPatch(
            corner,
            column.width,
            column.height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="0.95",
            edgecolor="0.55",
            zorder=2,
        )
        axes.add_patch(box)
        text, angle = (column.label, 90) if column.kind == "bar" else (shape, 0)
        axes.text(x, 0, text, rotation=angle, ha="center", va="center", fontsize=9)
    if column.kind != "block":
        axes.text(x, top + 0.2, shape, ha="center", va="center", fontsize=10)
    lines = [""] if column.kind == "bar" else column.label.removesuffix(")").split(" (")
    for line, text in enumerate(lines):
        axes.text(x, -top - 0.28 - 0.17 * line, text, ha="center", fontsize=9)
    if column.parameters:
        y = -top - 0.3 - 0.17 * len(lines)
        axes.text(x, y, f"{column.parameters:,}", ha="center", fontsize=8, color="0.4")
