"""What tests share: accuracy in units of NumPy's own error, bits, guarded and poisoned memory,
programs."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from collections.abc import Callable, Iterable

import fake_cupy
import numpy as np
import pytest

import fastmlp as fm
from fastmlp import _core
from fastmlp.device import Device, to_host

WIDER = {np.dtype("float32"): np.float64, np.dtype("float64"): np.longdouble}

# How an honest array may arrive: the same values, unusually stored.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "read_only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
}


def assert_accurate(
    got: np.ndarray,
    formula: Callable[..., np.ndarray],
    *inputs: np.ndarray,
    multiple: float = 4,
    floor: float = 8,
    scale: float | None = None,
) -> None:
    """|got - exact| is at most `multiple` of NumPy's own error plus `floor` units of rounding.

    `formula` is applied to the inputs as they are and, for the exact values, to the inputs in a
    wider type. One unit of rounding is eps times `scale`, by default the largest exact value.
    """
    got = np.asarray(got)
    with np.errstate(all="ignore"):
        exact = np.asarray(formula(*[widened(a, got.dtype) for a in inputs]))
        own = np.asarray(formula(*inputs))
    assert got.shape == exact.shape
    if got.size == 0:
        return
    wide = exact.dtype
    unit = np.finfo(got.dtype).eps * (np.abs(exact).max() if scale is None else scale)
    allowed = multiple * np.abs(own.astype(wide) - exact).max() + floor * unit
    worst = np.abs(got.astype(wide) - exact).max()
    assert worst <= allowed, f"error {worst:.3g}, allowed {allowed:.3g}"


def widened(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in a type wider than `dtype`; labels as they are."""
    return a.astype(WIDER[dtype]) if a.dtype.kind == "f" else a


def relative_distance(got: np.ndarray, reference: np.ndarray) -> float:
    """||got - reference|| / ||reference||."""
    reference = np.asarray(reference, dtype=np.float64)
    return float(np.linalg.norm(got - reference) / np.linalg.norm(reference))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = to_host(a), to_host(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_same_bits(got: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> None:
    got, expected = list(got), list(expected)
    assert len(got) == len(expected)
    for i, (a, b) in enumerate(zip(got, expected)):
        assert same_bits(a, b), f"array {i}: largest difference {np.abs(a - b).max()}"


class PoisonedNumPy:
    """NumPy whose uninitialised arrays are full of NaN (or of absurd integers)."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def empty(shape, dtype=float):
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 2**31 - 1, dtype)


def train_by_hand(
    model: fm.Sequential,
    optimizer: fm.Optimizer,
    loss: Callable[..., tuple[float, np.ndarray]],
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    *,
    epochs: int = 1,
    shuffle: bool = True,
) -> None:
    """`fit`, written out: the same rows in the same order."""
    loader = fm.data.DataLoader(x, y, batch_size=batch_size, shuffle=shuffle, seed=model.seed)
    for _ in range(epochs):
        for xb, yb in loader:
            _, gradient = loss(model.forward(xb, training=True), yb)
            model.backward(gradient)
            optimizer.step(model)


def assert_padding_is_zero(model: fm.Sequential) -> None:
    """Nothing is left of the flat parameters when all tensors are 0, as they are afterwards."""
    engine = model._engine
    for views in engine.views(engine.parameters).values():
        views[...] = 0
    assert not to_host(engine.parameters).any()


def assert_side_by_side_as_alone(
    network: Callable[[], fm.Sequential], x: np.ndarray, y: np.ndarray, batch_size: int
) -> None:
    """Three networks trained together have the bits of each trained alone."""
    together = fm.Ensemble(network(), 3)
    alone = list(together)
    together.fit(x, y, batch_size=batch_size, verbose=0)
    for i, model in enumerate(alone):
        model.fit(x, y, batch_size=batch_size, verbose=0)
        assert_same_bits(together[i].get_weights(), model.get_weights())


def assert_poison_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
    network: Callable[[], fm.Sequential],
    x: np.ndarray,
    y: np.ndarray,
    batch_size: int,
) -> None:
    """Training has the same bits in memory full of NaN, and leaves padding zero."""
    plain, other = network(), network()
    plain.fit(x, y, batch_size=batch_size, verbose=0)
    monkeypatch.setattr(fm.device.get("cpu"), "xp", PoisonedNumPy())
    other.fit(x, y, batch_size=batch_size, verbose=0)
    assert_same_bits(other.get_weights(), plain.get_weights())
    assert_padding_is_zero(other)


def guarded(array: np.ndarray) -> np.ndarray:
    """Copy the array to the end of a page that nothing accessible follows."""
    length = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, length + mmap.PAGESIZE), np.uint8)
    behind = ctypes.c_void_p(memory.ctypes.data + length)
    prot_none = 0
    assert ctypes.CDLL(None).mprotect(behind, ctypes.c_size_t(mmap.PAGESIZE), prot_none) == 0
    copy = memory[length - array.nbytes : length].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def gpu_stand_in(current_stream: Callable[[], int] = lambda: 0) -> Device:
    """A device named "cuda" of `fake_cupy` and the CPU's backend: what it shows, and what it does
    not, stands in test_gpu_path.py."""
    return Device("cuda", fake_cupy, _core.cpu(current_stream))


def printed_by(program: str) -> str:
    """Run Python code in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
