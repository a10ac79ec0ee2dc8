"""Models in safetensors files: tensors without padding, everything else as JSON metadata.

Reading a file never executes code: no pickle, and only classes listed here are ever made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import initializers, layers, losses, metrics, optimizers, schedules
from fastmlp._config import from_config, to_config
from fastmlp.device import to_host

if TYPE_CHECKING:
    from fastmlp.ensemble import Ensemble
    from fastmlp.sequential import M, Model, Sequential

_FORMAT = 1
_KEY = "fastmlp"
_MODEL_STATE = ("epoch", "forward")
_EXTRA = "extra."

# What making a model of a damaged description may raise; the last two, for absurd sizes or depth.
_DAMAGES = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)

# Apart, since there is a Constant schedule and a Constant initializer.
_LAYERS: dict[str, type] = {**layers.CLASSES, **initializers.CLASSES}
_OPTIMIZERS: dict[str, type] = {**optimizers.CLASSES, **schedules.CLASSES}


def save(
    model: Model[Any],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    arrays: Mapping[str, Any],
) -> None:
    """Write a model; see `Sequential.save`."""
    from safetensors.numpy import save as serialise

    description, tensors = _describe(model)
    for name, array in arrays.items():
        tensors[_EXTRA + name] = np.ascontiguousarray(to_host(array))
    _write(Path(path), serialise(tensors, {_KEY: json.dumps(description), **metadata}))


def copy(model: M, dtype: str | None = None) -> M:
    """Return a model that shares nothing with the given one, perhaps in another dtype.

    It is what `copy.deepcopy` calls.
    """
    if not model.built:
        raise RuntimeError(f"{type(model).__name__}: copy a model after it is built")
    description, tensors = _describe(model)
    if dtype is not None:
        description["dtype"] = dtype
        tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    classes = {type(layer).__name__: type(layer) for layer in model.layers}
    twin: M = _model(description, tensors, model.device, classes)
    twin.precision = model.precision
    twin.loss, twin.metrics = model.loss, list(model.metrics)
    twin.extra_metadata, twin.extra_arrays = dict(model.extra_metadata), dict(model.extra_arrays)
    return twin


def _describe(model: Model[Any]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return all that a model is, as what JSON knows and as tensors."""
    engine = model._engine
    tensors = {
        name: np.ascontiguousarray(to_host(array)) for name, array in model.state_dict().items()
    }
    description: dict[str, Any] = {
        "format": _FORMAT,
        "name": model.name,
        "dtype": model.dtype,
        "precision": model.precision,
        "seed": model._seed,  # of an ensemble, a list
        "input_shape": list(model.input_shape or ()),
        "layers": [to_config(layer) for layer in model.layers],
        "state": {field: int(engine.state[field][0]) for field in _MODEL_STATE},
    }
    if model._learning_rates is not None:
        description["learning_rates"] = [
            to_config(rate) if isinstance(rate, schedules.Schedule) else rate
            for rate in model._learning_rates
        ]
    if model.optimizer is not None:
        description["optimizer"] = to_config(model.optimizer)
        description["step"] = int(engine.state["step"][0])
        for i, moment in enumerate(model.optimizer.moments):
            for (layer, name), view in engine.views(moment).items():
                tensors[f"optimizer.{i}.{layer}.{name}"] = np.ascontiguousarray(to_host(view))
    if model.loss is not None and model.loss.native:
        description["loss"] = to_config(model.loss)
        description["metrics"] = [metric.name for metric in model.metrics if _by_name(metric)]
    return description, tensors


def _by_name(metric: metrics.Metric) -> bool:
    """Return whether a metric can be found again by its name."""
    try:
        return metrics.get(metric.name) == metric
    except ValueError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Write a file such that it appears whole or not at all."""
    import tempfile  # slow to import, and only needed for writing

    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # as if it had been opened in the ordinary way
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str | None = "saved",
    custom_layers: Mapping[str, type] | None = None,
) -> Sequential:
    """Read a model that `Sequential.save` wrote, ready to predict or to go on training.

    For an ensemble there is `Ensemble.load`.

    Parameters
    ----------
    path : path
    device : {"cpu", "cuda"}, default "cpu"
        Where the model shall be, wherever it was saved.
    precision : {"saved", None, "tf32", "bfloat16"}, default "saved"
        Of its matrix products; "saved" is what the model had. A CPU needs None, or AVX512_BF16
        for "bfloat16".
    custom_layers : mapping of str to class, optional
        Layer classes of one's own, by name.

    Returns
    -------
    Sequential
        Compiled as it was, unless its loss was a function of the user's own.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no model of fastmlp, or damaged.
    RuntimeError
        If the device is not there, or does not have the precision.

    Examples
    --------
    >>> import tempfile, os
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> model = fm.Sequential([fm.Input(3), fm.Dense(2)], seed=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> model.save(path)
    >>> bool((fm.load(path)([1, 2, 3]) == model([1, 2, 3])).all())
    True
    """
    model: Sequential = _load(path, device, precision, custom_layers, ensemble=False)
    return model


def load_ensemble(
    path: str | os.PathLike[str],
    device: str,
    precision: str | None,
    custom_layers: Mapping[str, type] | None,
) -> Ensemble:
    """Read an ensemble; see `Ensemble.load`."""
    model: Ensemble = _load(path, device, precision, custom_layers, ensemble=True)
    return model


def _load(
    path: str | os.PathLike[str],
    device: str,
    precision: str | None,
    custom_layers: Mapping[str, type] | None,
    ensemble: bool,
) -> Any:
    metadata, tensors = _read(Path(path))
    try:
        description = json.loads(metadata.pop(_KEY))
        if description["format"] != _FORMAT:
            raise ValueError(f"unknown format {description['format']}")
        model = _model(description, tensors, device, dict(custom_layers or {}))
    except _DAMAGES as error:
        raise ValueError(f"load: {path} is no model of fastmlp, or damaged: {error}") from error
    if isinstance(model._seed, list) != ensemble:
        kind, how = ("a Sequential", "load") if ensemble else ("an Ensemble", "Ensemble.load")
        raise ValueError(f"load: {path} holds {kind}; use fastmlp.{how}")
    model.precision = description.get("precision") if precision == "saved" else precision
    model.extra_metadata = metadata
    model.extra_arrays = {
        name.removeprefix(_EXTRA): array
        for name, array in tensors.items()
        if name.startswith(_EXTRA)
    }
    return model


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    """Return the metadata and the tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"load: there is no file {path}")
    if path.is_dir():
        raise IsADirectoryError(f"load: {path} is a directory")
    try:
        with safe_open(path, framework="numpy") as file:
            # What safe_open gives has keys() and cannot be iterated itself.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return dict(file.metadata() or {}), tensors
    except SafetensorError as error:
        raise ValueError(f"load: {path} is no safetensors file, or damaged: {error}") from error


def _model(
    description: dict[str, Any],
    tensors: Mapping[str, np.ndarray[Any, Any]],
    device: str,
    custom_layers: dict[str, type],
) -> Any:
    from fastmlp.ensemble import Ensemble
    from fastmlp.sequential import Sequential

    classes = {**_LAYERS, **custom_layers}
    seed = description["seed"]
    network = Sequential(
        [from_config(config, classes) for config in description["layers"]],
        device=device,
        dtype=description["dtype"],
        seed=0 if isinstance(seed, list) else seed,
        name=description["name"],
    )
    model: Model[Any] = network
    if isinstance(seed, list):
        rates = description.get("learning_rates") and [
            from_config(rate, schedules.CLASSES) if isinstance(rate, dict) else rate
            for rate in description["learning_rates"]
        ]
        model = Ensemble(network, len(seed), seeds=seed, learning_rates=rates)
    model._build(layers.row_shape("load", description["input_shape"]), initialise=False)
    engine = model._engine
    _fill(model, engine.tensors(), tensors, "")
    for field in _MODEL_STATE:
        engine.state[field] = description["state"][field]
    if "optimizer" in description:
        optimizer = from_config(description["optimizer"], _OPTIMIZERS)
        loss = description.get("loss")
        model.optimizer = optimizer
        optimizer._claim(model)
        if loss is not None:
            if isinstance(loss, dict):  # a name alone in files from before losses had settings
                loss = from_config(loss, losses.CLASSES)
            model.compile(optimizer, loss, description["metrics"])
        if any(name.startswith("optimizer.") for name in tensors):
            engine.claim_moments(optimizer)
            for i, moment in enumerate(optimizer.moments):
                _fill(model, engine.views(moment), tensors, f"optimizer.{i}.")
        engine.state["step"] = description["step"]
    return model


def _fill(
    model: Model[Any],
    views: Mapping[tuple[int, str], Any],
    tensors: Mapping[str, np.ndarray[Any, Any]],
    prefix: str,
) -> None:
    """Put tensors into their places."""
    for (layer, name), view in views.items():
        tensor = tensors[f"{prefix}{layer}.{name}"]
        if tensor.shape != view.shape or tensor.dtype != view.dtype:
            raise ValueError(
                f"{prefix}{layer}.{name} is {tensor.dtype}{tensor.shape}, "
                f"expected {view.dtype}{view.shape}"
            )
        view[...] = model._device.put(tensor)
