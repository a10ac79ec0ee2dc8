"""The native core, as `device.py` and `kernels.py` see it; nothing else imports it.

Arrays are whatever holds memory on the backend's device: NumPy arrays on the CPU, CuPy arrays on
the GPU. Outputs come first, then inputs, then settings. `backend` is a capsule: `cpu()` gives the
CPU's, and `_cuda.backend` the GPU's, whose calls run on the stream that is current then. Shapes are
checked here; kinds and dtypes are made right by the callers.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

Array = Any
Backend = Any

class ActivationInfo(TypedDict):
    from_output: bool  # the derivative takes y; otherwise it takes x
    parameter: (
        str | None
    )  # what the formula's one parameter is called (negative_slope, alpha, beta)
    default: float
    least: float  # the smallest value allowed for the parameter

class Tensor(TypedDict):
    """Where one parameter lies in a replica's slice of the flat array."""

    layer: int
    name: str  # "kernel" or "bias"
    buffer: str  # "parameters" or "state"
    offset: int  # elements
    shape: tuple[int, ...]
    stride: int  # elements from row to row; padding lies between

version: str
step_state_dtype: Any  # numpy dtype of one StepState record (csrc/core/step_state.h)

def cpu(current_stream: Callable[[], int] | None = None) -> Backend: ...
def check_backend(backend: Backend) -> None: ...  # RuntimeError if it is of another version
def precisions(backend: Backend) -> list[str]: ...  # of products, beside full precision
def activations() -> dict[str, ActivationInfo]: ...
def losses() -> list[str]: ...
def show_config() -> dict[str, Any]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def quota_cpus(root: str) -> int: ...
def fma_peak(dtype: str) -> float: ...  # GFLOP/s of one core, in registers

# Random numbers, always drawn on the CPU (counter-based: the same for the same seed and stream).
def random_uniform(out: Array, seed: int, stream: int) -> None: ...  # [0, 1)
def random_normal(out: Array, seed: int, stream: int) -> None: ...  # mean 0, deviation 1
def permutation(
    out: Array, seed: int, epoch: int
) -> None: ...  # out: int64 (n,), the order of rows that `fit` uses

# One-record programs. Every array has the same dtype, float32 or float64; labels are int32.
def matmul(
    backend: Backend, out: Array, a: Array, b: Array, transpose_a: bool, transpose_b: bool
) -> None: ...
def bias_add(backend: Backend, out: Array, x: Array, bias: Array) -> None: ...
def activation_forward(
    backend: Backend, out: Array, x: Array, name: str, parameter: float
) -> None: ...  # or "exp", "log", "erf", without a parameter (0)
def activation_backward(
    backend: Backend, dx: Array, dy: Array, kept: Array, name: str, parameter: float
) -> None: ...
def dense_forward(
    backend: Backend,
    y: Array,
    x: Array,
    kernel: Array,
    bias: Array | None,
    name: str,
    parameter: float,
) -> None: ...
def dense_backward(
    backend: Backend,
    dx: Array,
    dkernel: Array,
    dbias: Array,
    dz: Array,
    dy: Array,
    x: Array,
    y: Array,
    kernel: Array,
    name: str,
    parameter: float,
) -> None: ...
def softmax(backend: Backend, y: Array, x: Array, logarithm: bool) -> None: ...
def softmax_backward(backend: Backend, dx: Array, dy: Array, y: Array, logarithm: bool) -> None: ...
def loss(
    backend: Backend,
    row_loss: Array,
    gradient: Array,
    prediction: Array,
    target: Array,
    weight: Array | None,
    name: str,
    parameter: float,
    summed: bool,
    divisor: float,
) -> None:
    """row_loss[i] = weight[i] * loss of row i; gradient = weight[i] * its derivative / divisor."""

def update(
    backend: Backend,
    parameter: Array,
    gradient: Array,
    moments: Sequence[Array],
    state: Array,
    learning_rate: Array,
    rule: Update,
) -> None:
    """`state` and `learning_rate` are one StepState and one float64, on the device."""

class Update:
    """An optimizer's rule, "sgd", "adam" or "rmsprop", with its settings; 0 turns clipping off."""

    def __init__(
        self,
        *,
        rule: str,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        clip_norm: float = 0.0,
        clip_value: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        alpha: float = 0.99,
        centered: bool = False,
    ) -> None: ...
    @property
    def moments(self) -> int: ...

class Arguments:
    """The arrays that plans work on, by buffer name; keeps them alive.

    They lie in the memory of the backend, and runs on them go to its current stream.

    Names: parameters, gradients, moment0, moment1, moment2, state, workspace, step_state, input,
    target, weight, output, output_gradient, input_gradient, learning_rates.
    """

    def __init__(self, backend: Backend) -> None: ...
    def __setitem__(self, name: str, array: Array | None) -> None: ...

class Network:
    """The layout of a network's parameters, and the plans lowered from it."""

    def __init__(
        self,
        stages: Sequence[dict[str, Any]],
        features: int,
        dtype: str,
        replicas: int,
        backend: Backend,
    ) -> None: ...
    @property
    def parameters(self) -> int:
        """Elements of one replica in the flat parameter array."""

    @property
    def state(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def tensors(self) -> list[Tensor]: ...
    def loss_includes_ending(self, loss: str) -> bool: ...  # a final softmax or sigmoid
    def plan(
        self,
        section: str,
        rows: int,
        *,
        precision: str | None = None,
        training: bool = False,
        loss: str | None = None,
        metrics: Sequence[str] = (),
        update: Update | None = None,
        shuffle: bool = False,
        labels: bool = False,
        weighted: bool = False,
        loss_parameter: float = 0.0,
        loss_sum: bool = False,
    ) -> Plan:
        """Sections: infer, forward, backward, train, evaluate, update, penalty (nn/lowering.h)."""

# (layer, training, out, in, gradient, y): forward, without the last two, out = layer(in); backward,
# out = the derivative by in.
Host = Callable[[int, bool, Array, Array, Array | None, Array | None], None]

class Plan:
    @property
    def workspace(self) -> int:
        """Elements of one replica in the workspace."""

    def run(self, arguments: Arguments, rows: int, host: Host | None = None) -> None:
        """Run it, with the host's layers computed by `host`."""

    def train(
        self,
        arguments: Arguments,
        total_rows: int,
        steps: int,
        seconds: float,
        host: Host | None = None,
    ) -> int:
        """Run at most `steps` steps, until the rows end or the time is up; return how many."""

    def profile(
        self, arguments: Arguments, total_rows: int, steps: int
    ) -> tuple[list[tuple[str, str, int]], Array, Array]:
        """Run steps of whole batches; return where the time went.

        Each record's name, shape and operations as a product; then the seconds, shape (steps,
        members, records), that members worked on it and waited for others before it.
        """

class Inference:
    """A trained network, for the low-latency call."""

    def __init__(
        self, network: Network, parameters: Array, state: Array, row_shape: Sequence[int]
    ) -> None: ...
    def __call__(self, x: Any, out: Array | None) -> Array | None:
        """Compute the outputs; None, with nothing done, where an array is not as it needs it."""

class FastCall:
    """Base class of a model: ``model(x)`` and ``model(x, out=y)`` with no Python on the way.

    It goes straight to the inference where there is one and the arrays are as the core needs them.
    Every other call goes to the method ``_call``, with the same arguments.
    """

    _inference: Inference | None
    def __call__(self, x: Any, *, out: Array | None = None) -> Any: ...
