"""What settings go through: checks, the lookup of names, and the way to files and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def check_integer(what: str, value: object, *, at_least: int) -> int:
    """Return `value` as an int.

    Parameters
    ----------
    what : str
        The owner and the argument, as an error names them: "DataLoader: batch_size".
    value : object
        What the caller gave.
    at_least : int
        The smallest value allowed.

    Raises
    ------
    TypeError
        If it is no integer (a bool is none).
    ValueError
        If it is too small.

    Examples
    --------
    >>> from fastmlp._config import check_integer
    >>> check_integer("DataLoader: batch_size", 32, at_least=1)
    32
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} must be an integer, got {value!r}")
    if value < at_least:
        raise ValueError(f"{what} must be at least {at_least}, got {value}")
    return int(value)


def check_number(
    what: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf
) -> float:
    """Return `value` as a finite float.

    Parameters
    ----------
    what : str
        The owner and the argument, as an error names them: "Adam: epsilon".
    value : object
        What the caller gave.
    at_least, above : float, default -inf
        Lower bounds, the second one excluded.

    Raises
    ------
    TypeError
        If it is no real number (a bool is none).
    ValueError
        If it is NaN, infinite or too small.

    Examples
    --------
    >>> from fastmlp._config import check_number
    >>> check_number("Adam: epsilon", 1e-8, above=0)
    1e-08
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{what} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, got {number}")
    if number < at_least:
        raise ValueError(f"{what} must be at least {at_least:g}, got {number:g}")
    if number <= above:
        raise ValueError(f"{what} must be greater than {above:g}, got {number:g}")
    return number


def _plain(name: str) -> str:
    """Reduce a name to what decides: "HeNormal", "he-normal" and "he_normal" are one."""
    return "".join(filter(str.isalnum, name.lower()))


def lookup(
    family: str, name: object, table: Mapping[str, T], aliases: Mapping[str, str] | None = None
) -> T:
    """Find the entry that a name means, whatever its case, underscores and hyphens.

    Parameters
    ----------
    family : str
        What is looked for, as an error names it: "optimizer".
    name : object
        The name; anything but a string is an error, so that a `get` can end with this call.
    table : mapping of str
        The entries by name.
    aliases : mapping of str to str, optional
        Further names, with the names in `table` that they stand for.

    Raises
    ------
    TypeError
        If `name` is no string.
    ValueError
        If nothing has that name; the message lists the names and suggests the nearest.

    Examples
    --------
    >>> from fastmlp._config import lookup
    >>> lookup("activation", "ReLU", {"relu": 1, "tanh": 2})
    1
    >>> lookup("activation", "rely", {"relu": 1, "tanh": 2})
    Traceback (most recent call last):
    ...
    ValueError: activation: unknown name 'rely'; known: relu, tanh (did you mean 'relu'?)
    """
    if not isinstance(name, str):
        kind = f"the class {name.__name__}" if isinstance(name, type) else type(name).__name__
        raise TypeError(f"{family}: expected a name or an object, got {kind}")
    if name in table:  # as most callers write it: names need not be compared
        return table[name]
    targets = {_plain(key): key for key in table}
    for alias, key in (aliases or {}).items():
        targets.setdefault(_plain(alias), key)
    plain = _plain(name)
    if plain in targets:
        return table[targets[plain]]
    import difflib  # slow to import, and only needed for the words of an error

    nearest = difflib.get_close_matches(plain, targets, n=1)
    suggestion = f" (did you mean '{targets[nearest[0]]}'?)" if nearest else ""
    known = ", ".join(sorted(table))
    raise ValueError(f"{family}: unknown name '{name}'; known: {known}{suggestion}")


def _stored(cls: type) -> list[dataclasses.Field[Any]]:
    """List the fields that a file keeps: constructor arguments not marked `saved=False`."""
    return [f for f in dataclasses.fields(cls) if f.init and f.metadata.get("saved", True)]


def to_config(obj: object) -> dict[str, Any]:
    """Describe an object by its class and constructor arguments, in values that JSON knows.

    Parameters
    ----------
    obj : dataclass instance
        A layer, initializer, optimizer or schedule: its fields are its constructor arguments. A
        field with the metadata `saved=False` stays out.

    Returns
    -------
    dict
        `{"class": name, argument: value, ...}`; objects inside are described the same way, tuples
        become lists, NumPy scalars plain numbers.

    Raises
    ------
    TypeError
        If the object is no dataclass, or an argument is nothing that JSON can hold.

    Examples
    --------
    >>> import fastmlp as fm
    >>> from fastmlp._config import to_config
    >>> to_config(fm.schedules.StepDecay(0.1, every=30))
    {'class': 'StepDecay', 'learning_rate': 0.1, 'every': 30, 'factor': 0.1}
    """
    cls = type(obj)
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__}: cannot be written to a file, since it is no dataclass")
    maker = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if "__dataclass_fields__" not in vars(maker):
        raise TypeError(
            f"{cls.__name__}: cannot be written to a file, since its __init__ hides the settings; "
            "make it a dataclass, whose fields they are"
        )

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, np.generic):  # first, for np.float64 is a float too
            return plain(value.item(), name)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [plain(element, name) for element in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return to_config(value)
        kind = type(value).__name__
        raise TypeError(f"{cls.__name__}: {name} cannot be written to a file, got {kind}")

    values = {f.name: plain(getattr(obj, f.name), f.name) for f in _stored(cls)}
    return {"class": cls.__name__, **values}


def from_config(config: object, classes: Mapping[str, type]) -> Any:
    """Build the object that `to_config` described.

    Parameters
    ----------
    config : dict
        What `to_config` returned, perhaps by way of JSON. Lists come back as tuples.
    classes : mapping of str to type
        The dataclasses that may be built, by name. Nothing else is ever imported or called.

    Raises
    ------
    ValueError
        If the class or an argument is unknown, or one is missing; and whatever the class itself
        objects to.

    Examples
    --------
    >>> import fastmlp as fm
    >>> from fastmlp._config import from_config
    >>> config = {"class": "StepDecay", "learning_rate": 0.1, "every": 30}
    >>> from_config(config, fm.schedules.CLASSES)
    StepDecay(learning_rate=0.1, every=30, factor=0.1)
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("class"), str):
        raise ValueError(f"config: expected a dict with a 'class', got {config!r}")
    name = config["class"]
    if name not in classes:
        known = ", ".join(sorted(classes))
        raise ValueError(f"config: unknown class '{name}'; known: {known}")

    def built(value: Any) -> Any:
        if isinstance(value, Mapping):
            return from_config(value, classes)
        if isinstance(value, (list, tuple)):
            return tuple(built(element) for element in value)
        return value

    cls = classes[name]
    fields = {f.name: f for f in _stored(cls)}
    arguments = {key: value for key, value in config.items() if key != "class"}
    for key in arguments:
        if key not in fields:
            raise ValueError(f"{name}: unknown argument '{key}'; known: {', '.join(fields)}")
    for key, field in fields.items():
        defaults = (field.default, field.default_factory)
        if key not in arguments and all(d is dataclasses.MISSING for d in defaults):
            raise ValueError(f"{name}: argument '{key}' is missing")
    return cls(**{key: built(value) for key, value in arguments.items()})
