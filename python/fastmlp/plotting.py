"""Pictures of training, drawn with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp._optional import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastmlp.callbacks import History

__all__ = ["history"]


def history(
    history: History | Mapping[str, Sequence[float]], path: str | os.PathLike[str] | None = None
) -> Figure:
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
    # A Figure of its own, not pyplot's: no window system, no global state to clean up.
    figure = optional("matplotlib.figure", "plot").Figure(
        figsize=(5.5 * len(names), 3.8), layout="constrained"
    )
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _panel(axes, name, curves[name], curves.get(f"val_{name}", ()))
    if path is not None:
        figure.savefig(path, dpi=150)
    result: Figure = figure
    return result


def _panel(axes: Any, name: str, training: Sequence[float], validation: Sequence[float]) -> None:
    marker = "o" if len(training) == 1 else ""
    for label, values in (("training", training), ("validation", validation)):
        if values:
            means = [np.mean(value) for value in values]  # over the networks of an ensemble
            axes.plot(range(1, len(means) + 1), means, marker=marker, label=label)
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
