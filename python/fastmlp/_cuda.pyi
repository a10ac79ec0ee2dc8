"""The GPU's half of the native core, as `device.py` sees it; only builds with CUDA have it."""

from collections.abc import Callable
from typing import Any

def backend(current_stream: Callable[[], int]) -> Any:
    """Return the backend as a capsule; each call asks `current_stream` where it shall run."""

def unavailable() -> str: ...  # why no kernel can run here, in a sentence; "" where one can
def describe() -> dict[str, str]:
    """Return the GPU as `device`, its `compute_capability` such as "9.0", and CUDA's versions.

    The latter are `runtime`, of this build, and `driver`, that the driver supports. What is not
    there is empty.
    """
