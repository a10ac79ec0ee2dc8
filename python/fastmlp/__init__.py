"""fastmlp: multilayer perceptrons, as plain as a tutorial and as fast as the machine."""

from typing import Any

from fastmlp import (
    callbacks,
    cuda,
    data,
    initializers,
    kernels,
    layers,
    losses,
    metrics,
    optimizers,
    schedules,
)
from fastmlp.device import get_num_threads, set_num_threads, show_config
from fastmlp.device import version as __version__
from fastmlp.ensemble import Ensemble
from fastmlp.io import load
from fastmlp.layers import (
    ELU,
    GELU,
    SELU,
    Activation,
    BatchNorm,
    Custom,
    Dense,
    Dropout,
    Flatten,
    Input,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Step,
    Swish,
    Tanh,
)
from fastmlp.optimizers import SGD, Adam, AdamW, RMSprop
from fastmlp.sequential import Sequential
from fastmlp.study import check_gradients

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Custom",
    "Dense",
    "Dropout",
    "Ensemble",
    "Flatten",
    "Input",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Maxout",
    "PReLU",
    "RMSprop",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Step",
    "Swish",
    "Tanh",
    "__version__",
    "callbacks",
    "check_gradients",
    "cuda",
    "data",
    "datasets",
    "get_num_threads",
    "initializers",
    "kernels",
    "layers",
    "load",
    "losses",
    "metrics",
    "optimizers",
    "plotting",
    "schedules",
    "set_num_threads",
    "show_config",
]


def __getattr__(name: str) -> Any:
    """Import the modules that most programs do not need when they are first asked for."""
    if name in ("datasets", "plotting"):
        import importlib

        return importlib.import_module(f"fastmlp.{name}")
    raise AttributeError(f"module 'fastmlp' has no attribute '{name}'")
