"""Questions about the GPU."""

from fastmlp.device import cuda_is_available as is_available
from fastmlp.device import cuda_is_built as is_built

__all__ = ["is_available", "is_built"]
