"""Modules that an extra of the package brings, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, extra: str) -> Any:
    """Import `module`, or say which extra of fastmlp installs it.

    Parameters
    ----------
    module : str
        Full name, for example ``"sklearn.preprocessing"``.
    extra : str
        The extra of fastmlp that brings it, for example ``"cli"``.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed. (A fault inside an installed module passes through unchanged.)

    Examples
    --------
    >>> optional("json", "cli").dumps([1])
    '[1]'
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f'{package} is needed for this; install it with: pip install "fastmlp[{extra}]"',
            name=package,
        ) from None
    return importlib.import_module(module)
