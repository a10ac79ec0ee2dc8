"""The native kernels one by one, on NumPy arrays (CPU) or CuPy arrays (GPU).

Every kernel takes real arrays of any dtype, stride or writability and computes in float64 where an
input is float64, else in float32. ``out=``, and arrays updated in place, must have that very dtype
and the result's shape, and be writable. NaN in an input comes out as NaN. Where one array is on the
GPU, so is the result, and inputs on the host are moved there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastmlp import _core
from fastmlp._config import check_integer, check_number, lookup
from fastmlp.device import Array, Device, of, real_array

ACTIVATIONS = _core.activations()
LOSSES = tuple(_core.losses())
_ACTIVATION_NAMES = {name: name for name in ACTIVATIONS}


# ---- arrays in and out ---------------------------------------------------------------------


def _inputs(operation: str, **arrays: Any) -> tuple[Device, Any, list[Array]]:
    """Bring arrays to one device, the GPU if one is there, and to one dtype. None stays None."""
    real = {k: None if v is None else real_array(operation, k, v) for k, v in arrays.items()}
    given = [array for array in real.values() if array is not None]
    device = of(next((a for a in given if not isinstance(a, np.ndarray)), given[0]))
    dtype = result_dtype(*given)
    return (
        device,
        dtype,
        [None if a is None else device.put(a).astype(dtype, copy=False) for a in real.values()],
    )


def result_dtype(*arrays: Array) -> Any:
    """Return float64 where an array is of that precision or more, else float32."""
    double = any(array.dtype.itemsize >= 8 and array.dtype.kind == "f" for array in arrays)
    return np.dtype(np.float64 if double else np.float32)


def _row_major(device: Device, array: Array) -> Array:
    """Return an array whose rows lie at one stride; a copy where they do not."""
    if array.flags.c_contiguous or (
        array.ndim == 2
        and array.strides[1] == array.itemsize
        and array.strides[0] >= array.shape[1] * array.itemsize
        and array.strides[0] % array.itemsize == 0
    ):
        return array
    return device.xp.ascontiguousarray(array)


def _matmul_operand(device: Device, array: Array) -> Array:
    """Return an array whose matrices, or their transposes, lie row by row."""
    item, (rows, cols) = array.itemsize, array.shape[-2:]
    row, col = array.strides[-2:]
    plain = col == item and row >= cols * item
    transposed = row == item and col >= rows * item
    whole = all(stride % item == 0 for stride in array.strides)
    return array if (plain or transposed) and whole else device.xp.ascontiguousarray(array)


def _output(
    operation: str, device: Device, out: Array | None, shape: tuple[int, ...], dtype: Any
) -> Array:
    """Return a new array, or `out` where it is right."""
    if out is None:
        return device.xp.empty(shape, dtype)
    check_writable(operation, "out", out, dtype, device)
    if out.shape != shape:
        raise ValueError(f"{operation}: out must have shape {shape}, got {out.shape}")
    return out


def check_writable(
    operation: str, name: str, array: Any, dtype: Any, device: Device | None = None
) -> None:
    """Refuse an array that cannot be written in place.

    Raises
    ------
    TypeError
        If it is no array, of another dtype, or not on the device.
    ValueError
        If it is read-only.
    """
    if not hasattr(array, "strides") or not hasattr(array, "dtype"):
        raise TypeError(f"{operation}: {name} must be an array, got {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{operation}: {name} must have dtype {dtype}, got {array.dtype}")
    if device is not None and of(array) is not device:
        raise TypeError(
            f"{operation}: {name} must be on device '{device.name}', as the other arrays are"
        )
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError(f"{operation}: {name} is read-only")


def _call(
    native: Callable[..., None],
    device: Device,
    outputs: Sequence[Array],
    inputs: Sequence[Array | None],
    *settings: Any,
) -> None:
    """Call a kernel such that neither strides nor overlaps of the caller's arrays matter."""
    direct = [
        out
        if out is _row_major(device, out) and not any(_overlap(device, out, x) for x in inputs)
        else device.xp.empty(out.shape, out.dtype)
        for out in outputs
    ]
    native(device.backend, *direct, *inputs, *settings)
    for out, result in zip(outputs, direct, strict=True):
        if out is not result:
            out[...] = result


def _overlap(device: Device, out: Array, x: Array | None) -> bool:
    return x is not None and bool(device.xp.may_share_memory(out, x))


# ---- matmul and bias -----------------------------------------------------------------------


def matmul(
    a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False, out: Any = None
) -> Array:
    """Multiply matrices, or stacks of them.

    Parameters
    ----------
    a : array, shape (..., m, k)
        Or (..., k, m) with `transpose_a`.
    b : array, shape (..., k, n)
        Or (..., n, k) with `transpose_b`. Leading dimensions broadcast against those of `a`.
    transpose_a, transpose_b : bool, default False
        Whether the last two dimensions are swapped.
    out : array, shape (..., m, n), optional
        Where to put the result.

    Returns
    -------
    array, shape (..., m, n)

    Raises
    ------
    ValueError
        If shapes do not fit.
    TypeError
        If an array is not of real numbers, or `out` has another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> fm.kernels.matmul(np.ones((5, 2, 3)), np.ones((3, 4))).shape
    (5, 2, 4)
    """
    device, dtype, (a, b) = _inputs("matmul", a=a, b=b)
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"matmul: needs at least 2 dimensions, got {a.shape} and {b.shape}")
    try:
        leading = () if a.ndim == b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(
            f"matmul: leading dimensions of {a.shape} and {b.shape} do not broadcast"
        ) from None
    m, n = a.shape[-1 if transpose_a else -2], b.shape[-2 if transpose_b else -1]
    out = _output("matmul", device, out, (*leading, m, n), dtype)
    operands = [_matmul_operand(device, a), _matmul_operand(device, b)]
    _call(_core.matmul, device, [out], operands, bool(transpose_a), bool(transpose_b))
    return out


def bias_add(x: Any, bias: Any, *, out: Any = None) -> Array:
    """Add a bias to every row.

    Parameters
    ----------
    x : array, shape (..., n)
    bias : array, shape (n,)
    out : array, shape (..., n), optional

    Returns
    -------
    array, shape (..., n)

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.bias_add([[1, 2], [3, 4]], [10, 20])
    array([[11., 22.],
           [13., 24.]], dtype=float32)
    """
    device, dtype, (x, bias) = _inputs("bias_add", x=x, bias=bias)
    out = _output("bias_add", device, out, x.shape, dtype)
    x, bias = _row_major(device, x), device.xp.ascontiguousarray(bias)
    _call(_core.bias_add, device, [out], [x, bias])
    return out


# ---- activations ---------------------------------------------------------------------------


def resolve_activation(name: str, parameter: float | None = None) -> tuple[str, float]:
    """Return an activation's own name and its parameter, the default one where none is given.

    Raises
    ------
    ValueError
        If the name is unknown, or the parameter out of range, or there is none.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.resolve_activation("LeakyReLU")
    ('leaky_relu', 0.01)
    """
    key = lookup("activation", name, _ACTIVATION_NAMES)
    info = ACTIVATIONS[key]
    if parameter is None:
        return key, info["default"]
    if info["parameter"] is None:
        raise ValueError(f"{key}: has no parameter, got {parameter}")
    return key, check_number(f"{key}: {info['parameter']}", parameter, at_least=info["least"])


def _elementwise(name: str, parameter: float, x: Any, out: Any) -> Array:
    device, dtype, (x,) = _inputs(name, x=x)
    out = _output(name, device, out, x.shape, dtype)
    _call(_core.activation_forward, device, [out], [_row_major(device, x)], name, parameter)
    return out


_Forward = Callable[..., Array]


def _activation_pair(name: str) -> tuple[_Forward, _Forward]:
    """Make the forward and the backward kernel of one activation."""
    info = ACTIVATIONS[name]
    kept = "y" if info["from_output"] else "x"
    parameter = info["parameter"]

    def forward(x: Any, parameter: float | None = None, *, out: Any = None) -> Array:
        return _elementwise(*resolve_activation(name, parameter), x, out)

    def backward(dy: Any, kept: Any, parameter: float | None = None, *, out: Any = None) -> Array:
        key, value = resolve_activation(name, parameter)
        operation = f"{name}_backward"
        device, dtype, (dy, kept) = _inputs(operation, dy=dy, kept=kept)
        if dy.shape != kept.shape:
            raise ValueError(f"{operation}: shapes {dy.shape} and {kept.shape} differ")
        out = _output(operation, device, out, dy.shape, dtype)
        arrays = [_row_major(device, dy), _row_major(device, kept)]
        _call(_core.activation_backward, device, [out], arrays, key, value)
        return out

    setting = (
        f"    parameter : float, default {info['default']:g}\n        Its {parameter}.\n"
        if parameter
        else ""
    )
    forward.__name__ = forward.__qualname__ = name
    forward.__doc__ = f"""Apply {name} to every element.

    Parameters
    ----------
    x : array, any shape
{setting}    out : array of that shape, optional

    Returns
    -------
    array of that shape
    """
    backward.__name__ = backward.__qualname__ = f"{name}_backward"
    backward.__doc__ = f"""Multiply a gradient by the derivative of {name}.

    Parameters
    ----------
    dy : array, any shape
        Derivative of the loss by the {"output" if kept == "y" else "activation's output"}.
    {kept} : array of that shape
        The activation's {"output" if kept == "y" else "input"}.
{setting}    out : array of that shape, optional

    Returns
    -------
    array of that shape
        Derivative of the loss by the activation's input.
    """
    return forward, backward


identity, identity_backward = _activation_pair("identity")
relu, relu_backward = _activation_pair("relu")
leaky_relu, leaky_relu_backward = _activation_pair("leaky_relu")
elu, elu_backward = _activation_pair("elu")
selu, selu_backward = _activation_pair("selu")
sigmoid, sigmoid_backward = _activation_pair("sigmoid")
tanh, tanh_backward = _activation_pair("tanh")
softplus, softplus_backward = _activation_pair("softplus")
swish, swish_backward = _activation_pair("swish")
silu, silu_backward = _activation_pair("silu")
gelu, gelu_backward = _activation_pair("gelu")
step, step_backward = _activation_pair("step")


# ---- elementary functions ------------------------------------------------------------------
# tanh, sigmoid and softplus are among the activations.


def exp(x: Any, *, out: Any = None) -> Array:
    """Compute the exponential of every element, to 2 units in the last place.

    A result below the smallest normal number is 0.

    Parameters
    ----------
    x : array, any shape
    out : array of that shape, optional

    Returns
    -------
    array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.exp([0.0, float("-inf"), 1000.0])
    array([ 1.,  0., inf])
    """
    return _elementwise("exp", 0.0, x, out)


def log(x: Any, *, out: Any = None) -> Array:
    """Compute the natural logarithm of every element, to 2 units in the last place.

    It is NaN below 0; numbers closer to 0 than the smallest normal number count as 0.

    Parameters
    ----------
    x : array, any shape
    out : array of that shape, optional

    Returns
    -------
    array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.log([1.0, 0.0, -1.0])
    array([  0., -inf,  nan])
    """
    return _elementwise("log", 0.0, x, out)


def erf(x: Any, *, out: Any = None) -> Array:
    """Compute the error function of every element, to 3 units in the last place.

    Parameters
    ----------
    x : array, any shape
    out : array of that shape, optional

    Returns
    -------
    array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.erf([0.0, float("inf"), -10.0])
    array([ 0.,  1., -1.])
    """
    return _elementwise("erf", 0.0, x, out)


# ---- dense layers --------------------------------------------------------------------------


def dense_forward(
    x: Any, kernel: Any, bias: Any = None, activation: str = "identity", *, out: Any = None
) -> Array:
    """Compute ``activation(x @ kernel + bias)`` in one pass.

    Parameters
    ----------
    x : array, shape (n, in)
    kernel : array, shape (in, out)
    bias : array, shape (out,), optional
    activation : str, default "identity"
        A name in `ACTIVATIONS`.
    out : array, shape (n, out), optional

    Returns
    -------
    array, shape (n, out)

    Raises
    ------
    ValueError
        If shapes do not fit or the activation is unknown.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.dense_forward([[1.0, 2.0]], [[1.0, -1.0], [1.0, -1.0]], [0.5, 0.5], "relu")
    array([[3.5, 0. ]])
    """
    key, value = resolve_activation(activation)
    device, dtype, (x, kernel, bias) = _inputs("dense_forward", x=x, kernel=kernel, bias=bias)
    if x.ndim != 2 or kernel.ndim != 2:
        raise ValueError(
            f"dense_forward: needs x (n, in) and kernel (in, out), got {x.shape} and {kernel.shape}"
        )
    out = _output("dense_forward", device, out, (len(x), kernel.shape[1]), dtype)
    bias = None if bias is None else device.xp.ascontiguousarray(bias)
    arrays = [_matmul_operand(device, x), _matmul_operand(device, kernel), bias]
    _call(_core.dense_forward, device, [out], arrays, key, value)
    return out


def dense_backward(
    dy: Any, x: Any, y: Any, kernel: Any, activation: str = "identity"
) -> tuple[Array, Array, Array]:
    """Compute the three gradients of `dense_forward`.

    Parameters
    ----------
    dy : array, shape (n, out)
        Derivative of the loss by `y`.
    x : array, shape (n, in)
        The layer's input.
    y : array, shape (n, out)
        What `dense_forward` returned.
    kernel : array, shape (in, out)
    activation : str, default "identity"
        One whose derivative is taken from its output.

    Returns
    -------
    dx : array, shape (n, in)
    dkernel : array, shape (in, out)
    dbias : array, shape (out,)

    Raises
    ------
    ValueError
        If shapes do not fit, or the activation's derivative needs its input.

    Examples
    --------
    >>> import fastmlp as fm
    >>> x, y, kernel = [[2.0, 3.0]], [[5.0]], [[1.0], [1.0]]
    >>> dx, dkernel, dbias = fm.kernels.dense_backward([[1.0]], x, y, kernel)
    >>> dkernel
    array([[2.],
           [3.]])
    """
    key, value = resolve_activation(activation)
    if not ACTIVATIONS[key]["from_output"]:
        raise ValueError(
            f"dense_backward: the derivative of {key} needs the input of the activation; "
            f"use matmul, bias_add and {key}_backward"
        )
    device, dtype, (dy, x, y, kernel) = _inputs("dense_backward", dy=dy, x=x, y=y, kernel=kernel)
    if x.ndim != 2 or kernel.ndim != 2 or dy.ndim != 2:
        raise ValueError(
            "dense_backward: needs dy (n, out), x (n, in) and kernel (in, out), "
            f"got {dy.shape}, {x.shape} and {kernel.shape}"
        )
    empty = device.xp.empty
    dx, dkernel = empty(x.shape, dtype), empty(kernel.shape, dtype)
    dbias, dz = empty(kernel.shape[1], dtype), empty(dy.shape, dtype)
    _core.dense_backward(
        device.backend,
        dx,
        dkernel,
        dbias,
        dz,
        _row_major(device, dy),
        _matmul_operand(device, x),
        _row_major(device, y),
        _matmul_operand(device, kernel),
        key,
        value,
    )
    return dx, dkernel, dbias


# ---- softmax and losses --------------------------------------------------------------------


def softmax(x: Any, *, out: Any = None) -> Array:
    """Turn each row of logits into probabilities, ``exp(x - max) / sum``.

    Parameters
    ----------
    x : array, shape (..., n)
    out : array of that shape, optional

    Returns
    -------
    array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.softmax([[1000.0, 1000.0]])
    array([[0.5, 0.5]])
    """
    return _softmax("softmax", x, out, False)


def log_softmax(x: Any, *, out: Any = None) -> Array:
    """Turn each row of logits into logarithms of probabilities, ``x - max - log(sum)``.

    Parameters
    ----------
    x : array, shape (..., n)
    out : array of that shape, optional

    Returns
    -------
    array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.log_softmax([[0.0, 1000.0]])
    array([[-1000.,     0.]])
    """
    return _softmax("log_softmax", x, out, True)


def _softmax(name: str, x: Any, out: Any, logarithm: bool) -> Array:
    device, dtype, (x,) = _inputs(name, x=x)
    out = _output(name, device, out, x.shape, dtype)
    _call(_core.softmax, device, [out], [_row_major(device, x)], logarithm)
    return out


def softmax_backward(dy: Any, y: Any, *, out: Any = None) -> Array:
    """Compute ``y * (dy - sum(dy * y))`` row by row.

    Parameters
    ----------
    dy : array, shape (..., n)
        Derivative of the loss by the probabilities.
    y : array of that shape
        The probabilities.
    out : array of that shape, optional

    Returns
    -------
    array of that shape
        Derivative of the loss by the logits.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.softmax_backward([[1.0, 0.0]], [[0.5, 0.5]])
    array([[ 0.25, -0.25]])
    """
    return _softmax_backward("softmax_backward", dy, y, out, False)


def log_softmax_backward(dy: Any, y: Any, *, out: Any = None) -> Array:
    """Compute ``dy - exp(y) * sum(dy)`` row by row.

    Parameters
    ----------
    dy : array, shape (..., n)
        Derivative of the loss by the logarithms.
    y : array of that shape
        The logarithms.
    out : array of that shape, optional

    Returns
    -------
    array of that shape
        Derivative of the loss by the logits.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> fm.kernels.log_softmax_backward([[1.0, 0.0]], np.log([[0.5, 0.5]]))
    array([[ 0.5, -0.5]])
    """
    return _softmax_backward("log_softmax_backward", dy, y, out, True)


def _softmax_backward(name: str, dy: Any, y: Any, out: Any, logarithm: bool) -> Array:
    device, dtype, (dy, y) = _inputs(name, dy=dy, y=y)
    if dy.shape != y.shape:
        raise ValueError(f"{name}: shapes {dy.shape} and {y.shape} differ")
    out = _output(name, device, out, dy.shape, dtype)
    arrays = [_row_major(device, dy), _row_major(device, y)]
    _call(_core.softmax_backward, device, [out], arrays, logarithm)
    return out


def softmax_cross_entropy(logits: Any, labels: Any) -> tuple[Array, Array]:
    """Compute softmax and cross-entropy in one, from logits.

    Parameters
    ----------
    logits : array, shape (n, classes)
    labels : array of integers, shape (n,), or of probabilities, shape (n, classes)

    Returns
    -------
    loss : array, shape (n,)
        ``log(sum(exp(z))) - z[label]`` for each row.
    gradient : array, shape (n, classes)
        ``softmax(z) - onehot(label)``, not divided by n.

    Raises
    ------
    ValueError
        If shapes do not fit or a label is out of range.

    Examples
    --------
    >>> import fastmlp as fm
    >>> loss, gradient = fm.kernels.softmax_cross_entropy([[0.0, 0.0]], [1])
    >>> gradient
    array([[ 0.5, -0.5]])
    """
    operation = "softmax_cross_entropy"
    _, _, (z,) = _inputs(operation, logits=logits)
    if z.ndim != 2:
        raise ValueError(f"{operation}: logits must have shape (n, classes), got {z.shape}")
    target = of(z).real_array(operation, "labels", labels)
    if target.shape != z.shape:
        target = class_labels(operation, target, len(z), z.shape[1])
    return loss_and_gradient("cross_entropy", z, target, None, 1.0)


def class_labels(operation: str, labels: Array, rows: int, classes: int) -> Array:
    """Return labels as int32, shape (rows,).

    Raises
    ------
    ValueError
        If their number is wrong, or one is fractional or outside 0..classes-1.
    """
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(
            f"{operation}: expected {rows} labels or {classes} probabilities for each of {rows} "
            f"rows, got shape {labels.shape}"
        )
    labels = labels.reshape(rows)
    xp = of(labels).xp
    integers = labels.dtype.kind in "biu"
    if integers and rows and labels.min() >= 0 and labels.max() < classes:  # the usual case
        return labels.astype(np.int32)
    for bad, what in (
        (~(xp.floor(labels) == labels), "is not a whole number"),
        (~((labels >= 0) & (labels < classes)), f"is outside 0..{classes - 1}"),
    ):
        if bad.any():
            row = int(bad.argmax())
            from_one = bool((labels.min() == 1) & (labels.max() == classes))
            hint = f"; labels start at 0, these go from 1 to {classes}: use y - 1"
            raise ValueError(
                f"{operation}: label {labels[row]} at row {row} {what}{hint if from_one else ''}"
            )
    return labels.astype(np.int32)


def loss_and_gradient(
    name: str,
    prediction: Array,
    target: Array,
    weight: Array | None,
    divisor: float,
    *,
    parameter: float = 0.0,
    summed: bool = False,
) -> tuple[Array, Array]:
    """Compute a native loss of each row, and the gradient of their sum over `divisor`.

    Parameters
    ----------
    name : str
        One of `LOSSES`.
    prediction : array, shape (n, outputs)
    target : array
        int32 labels, shape (n,), for "cross_entropy"; else of the shape of `prediction`.
    weight : array, shape (n,), or None
    divisor : float
        Positive; n for the gradient of the mean.
    parameter : float, default 0
        Label smoothing, or Huber's delta.
    summed : bool, default False
        Whether an elementwise loss of a row is the sum over its outputs, in place of the mean.

    Returns
    -------
    loss : array, shape (n,)
    gradient : array, shape (n, outputs)
    """
    device, dtype, (prediction, weight) = _inputs(name, prediction=prediction, weight=weight)
    target = target if target.dtype == np.int32 else target.astype(dtype, copy=False)
    rows = device.xp.empty(len(prediction), dtype)
    gradient = device.xp.empty(prediction.shape, dtype)
    contiguous = device.xp.ascontiguousarray
    _core.loss(
        device.backend,
        rows,
        gradient,
        contiguous(prediction),
        contiguous(target),
        None if weight is None else contiguous(weight),
        name,
        float(parameter),
        summed,
        float(divisor),
    )
    return rows, gradient


# ---- updates -------------------------------------------------------------------------------


def _update(
    operation: str,
    p: Array,
    g: Any,
    moments: dict[str, Array],
    step: int,
    learning_rate: float,
    **rule: Any,
) -> None:
    device = of(p)
    g = device.real_array(operation, "g", g)
    known = getattr(p, "dtype", None) in (np.float32, np.float64)
    dtype = p.dtype if known else result_dtype(g)
    for name, array in {"p": p, **moments}.items():
        check_writable(operation, name, array, dtype, device)
        if array.shape != g.shape:
            raise ValueError(f"{operation}: {name} has shape {array.shape}, but g has {g.shape}")
        if array is not _row_major(device, array):
            raise ValueError(f"{operation}: {name} must be contiguous, or rows of one stride")
    if not g.size:
        return
    state = device.step_states(1)
    state["step"] = step - 1
    state["schedule_length"] = 1
    learning_rate = check_number(f"{operation}: learning_rate", learning_rate, at_least=0)
    rate = device.xp.asarray([learning_rate])
    g = _row_major(device, g.astype(dtype, copy=False))
    _core.update(device.backend, p, g, list(moments.values()), state, rate, _core.Update(**rule))


def check_beta(owner: str, betas: Any, index: int) -> float:
    """Return one of Adam's two decay rates, in [0, 1).

    Raises
    ------
    ValueError
        If there are not two such numbers.
    """
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{owner}: betas must be two numbers, got {betas!r}")
    return check_decay(f"{owner}: betas", betas[index])


def check_decay(what: str, value: object) -> float:
    """Return the decay rate of a moving average, in [0, 1).

    Raises
    ------
    TypeError, ValueError
        If it is no such number.
    """
    rate = check_number(what, value, at_least=0)
    if rate >= 1:
        raise ValueError(f"{what} must be below 1, got {rate:g}")
    return rate


def sgd_update(
    p: Array,
    g: Any,
    velocity: Array | None = None,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Update parameters in place by stochastic gradient descent.

    ``v = momentum * v + g + weight_decay * p``, then ``p -= learning_rate * v``; with `nesterov`,
    ``p -= learning_rate * (g + momentum * v)``.

    Parameters
    ----------
    p : array, any shape
        Parameters, changed in place.
    g : array of that shape
        Gradient.
    velocity : array of that shape, optional
        Changed in place; needed with momentum. Zeros at first.
    learning_rate, momentum, weight_decay : float
    nesterov : bool

    Raises
    ------
    ValueError
        If shapes differ, an array is read-only, or momentum comes without a velocity.
    TypeError
        If an array updated in place has another dtype than `p`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> p = np.array([1.0, 2.0])
    >>> fm.kernels.sgd_update(p, [1.0, 1.0], learning_rate=0.5)
    >>> p
    array([0.5, 1.5])
    """
    if momentum and velocity is None:
        raise ValueError("sgd_update: momentum needs a velocity")
    moments = {"velocity": velocity} if momentum and velocity is not None else {}
    _update(
        "sgd_update",
        p,
        g,
        moments,
        1,
        learning_rate,
        rule="sgd",
        momentum=check_number("sgd_update: momentum", momentum, at_least=0),
        nesterov=bool(nesterov),
        weight_decay=check_number("sgd_update: weight_decay", weight_decay, at_least=0),
    )


def adam_update(
    p: Array,
    g: Any,
    m: Array,
    v: Array,
    *,
    step: int,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> None:
    """Update parameters in place by Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    p : array, any shape
        Parameters, changed in place.
    g : array of that shape
        Gradient.
    m, v : arrays of that shape
        First and second moment, changed in place. Zeros at first.
    step : int
        Number of this update, from 1.
    learning_rate : float, default 1e-3
    betas : pair of float, default (0.9, 0.999)
    epsilon : float, default 1e-8
        Positive.
    weight_decay : float, default 0
    decoupled : bool, default False
        Whether decay shrinks `p` itself (AdamW, arXiv:1711.05101) instead of adding to `g`.

    Raises
    ------
    ValueError
        If shapes differ, an array is read-only, or `step` is below 1.
    TypeError
        If an array updated in place has another dtype than `p`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
    >>> fm.kernels.adam_update(p, [2.0], m, v, step=1, learning_rate=0.1)
    >>> p.round(6)
    array([0.9])
    """
    _update(
        "adam_update",
        p,
        g,
        {"m": m, "v": v},
        check_integer("adam_update: step", step, at_least=1),
        learning_rate,
        rule="adam",
        beta1=check_beta("adam_update", betas, 0),
        beta2=check_beta("adam_update", betas, 1),
        epsilon=check_number("adam_update: epsilon", epsilon, above=0),
        weight_decay=check_number("adam_update: weight_decay", weight_decay, at_least=0),
        decoupled=bool(decoupled),
    )


def rmsprop_update(
    p: Array,
    g: Any,
    v: Array,
    mean: Array | None = None,
    velocity: Array | None = None,
    *,
    learning_rate: float = 0.01,
    alpha: float = 0.99,
    momentum: float = 0.0,
    epsilon: float = 1e-8,
    centered: bool = False,
    weight_decay: float = 0.0,
) -> None:
    """Update parameters in place by RMSprop, in PyTorch's form: see `fastmlp.RMSprop`.

    Parameters
    ----------
    p : array, any shape
        Parameters, changed in place.
    g : array of that shape
        Gradient.
    v : array of that shape
        Mean square of the gradients, changed in place. Zeros at first.
    mean, velocity : arrays of that shape, optional
        Changed in place; needed where `centered`, and with momentum. Zeros at first.
    learning_rate : float, default 0.01
    alpha : float, default 0.99
        Decay rate of the averages, from 0 up to but not including 1.
    momentum : float, default 0
    epsilon : float, default 1e-8
        Positive.
    centered : bool, default False
        Whether to divide by the deviation from the mean gradient.
    weight_decay : float, default 0

    Raises
    ------
    ValueError
        If shapes differ, an array is read-only or missing, or a setting is out of range.
    TypeError
        If an array updated in place has another dtype than `p`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastmlp as fm
    >>> p, v = np.ones(1), np.zeros(1)
    >>> fm.kernels.rmsprop_update(p, [2.0], v, learning_rate=0.1, alpha=0.75)
    >>> p.round(6), v
    (array([0.8]), array([1.]))
    """
    moments = {"v": v}
    for wanted, name, what, array in (
        (centered, "mean", "centered", mean),
        (momentum, "velocity", "momentum", velocity),
    ):
        if wanted and array is None:
            raise ValueError(f"rmsprop_update: {what} needs a {name}")
        if wanted and array is not None:
            moments[name] = array
    _update(
        "rmsprop_update",
        p,
        g,
        moments,
        1,
        learning_rate,
        rule="rmsprop",
        alpha=check_decay("rmsprop_update: alpha", alpha),
        momentum=check_number("rmsprop_update: momentum", momentum, at_least=0),
        epsilon=check_number("rmsprop_update: epsilon", epsilon, above=0),
        centered=bool(centered),
        weight_decay=check_number("rmsprop_update: weight_decay", weight_decay, at_least=0),
    )


# ---- random numbers ------------------------------------------------------------------------


def random_uniform(
    shape: int | tuple[int, ...], dtype: Any = "float32", seed: int = 0, stream: int = 0
) -> np.ndarray[Any, Any]:
    """Draw numbers from [0, 1) by Philox: a function of `seed`, `stream` and the place alone.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : {"float32", "float64"}
    seed, stream : int
        Not negative. Streams of one seed are independent.

    Returns
    -------
    numpy array of that shape
        On the CPU, whatever device it is for.

    Examples
    --------
    >>> import fastmlp as fm
    >>> bool((fm.kernels.random_uniform(3, seed=1) == fm.kernels.random_uniform(3, seed=1)).all())
    True
    """
    return _random(_core.random_uniform, shape, dtype, seed, stream)


def random_normal(
    shape: int | tuple[int, ...], dtype: Any = "float32", seed: int = 0, stream: int = 0
) -> np.ndarray[Any, Any]:
    """Draw standard normal numbers by Philox, as `random_uniform` does uniform ones.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : {"float32", "float64"}
    seed, stream : int
        Not negative.

    Returns
    -------
    numpy array of that shape

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.random_normal((2, 3)).shape
    (2, 3)
    """
    return _random(_core.random_normal, shape, dtype, seed, stream)


def _random(
    draw: Callable[..., None], shape: Any, dtype: Any, seed: int, stream: int
) -> np.ndarray[Any, Any]:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise ValueError(f"random numbers: dtype must be float32 or float64, got {dtype}")
    out = np.empty(shape, dtype)
    draw(out, _counter("seed", seed), _counter("stream", stream))
    return out


def _counter(name: str, value: int) -> int:
    """Return a number that keys the generator: 0 up to 64 bits."""
    value = check_integer(f"random numbers: {name}", value, at_least=0)
    if value >= 1 << 64:
        raise ValueError(f"random numbers: {name} must be below 2**64, got {value}")
    return value


def permutation(n: int, seed: int, epoch: int) -> np.ndarray[Any, Any]:
    """Return the order in which `fit` visits n rows.

    Parameters
    ----------
    n : int
    seed : int
        The model's.
    epoch : int
        Of the model's lifetime, from 0.

    Returns
    -------
    array of int64, shape (n,)

    Examples
    --------
    >>> import fastmlp as fm
    >>> sorted(fm.kernels.permutation(5, seed=0, epoch=0).tolist())
    [0, 1, 2, 3, 4]
    """
    out = np.empty(n, np.int64)
    _core.permutation(out, _counter("seed", seed), _counter("epoch", epoch))
    return out


# ---- the machine ---------------------------------------------------------------------------


def fma_peak(dtype: str = "float32") -> float:
    """Measure what one core can do at most: multiply-adds in registers, for about 10 ms.

    Parameters
    ----------
    dtype : {"float32", "float64"}

    Returns
    -------
    float
        GFLOP/s, of which a matrix product is a fraction.

    Raises
    ------
    ValueError
        If the dtype is another one.

    Examples
    --------
    >>> import fastmlp as fm
    >>> fm.kernels.fma_peak() > 0
    True
    """
    return _core.fma_peak(dtype)
