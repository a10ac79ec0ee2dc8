"""The GPU's half of the native core, as `device.py` sees it; only builds with CUDA have it."""

from collections.abc import Callable
from typing import Any

def backend(current_stream: Callable[[], int]) -> Any:
    """Return the backend as a capsule; each call asks `current_stream` where it shall run."""

def unavailable() -> str: ...  # why no kernel can run here, in a sentence; "" where one can
def use_blas(libraries: list[str], choices: str) -> None:
    """Have large products go by the first of these cuBLASLt that works, where that is faster.

    The file `choices` keeps which way each of them goes.
    """

def describe() -> dict[str, Any]:
    """Return the GPU as `device`, its `compute_capability` such as "9.0", and CUDA's versions.

    The latter are `runtime`, of this build, and `driver`, that the driver supports; `blas` is the
    library for large products. What is not there is empty. `large_products` says which way each of
    those went in this process.
    """
