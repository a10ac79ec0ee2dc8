"""The way of arrays to a GPU and back, on a machine that may have none.

A device named "cuda" is put together from `fake_cupy` and the CPU's own backend. What passes here
shows that Python and the bindings keep arrays on their device, move them where they should and
nowhere else, ask for a stream with each native call, and give the CPU's bits, since the CPU's code
computes. It shows nothing about kernels, drivers, real streams or the real CuPy. The fixture
`device` runs the ordinary tests on the same stand-in, and on the GPU where there is one.
"""

from __future__ import annotations

import copy
import ctypes
import sys
from types import ModuleType

import fake_cupy
import numpy as np
import pytest
from support import assert_same_bits, gpu_stand_in

import fastmlp as fm
from fastmlp import _core, kernels
from fastmlp import device as devices

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal((50, 4)).astype("float32")
LABELS = RANDOM.randint(3, size=50)
WEIGHTS = RANDOM.uniform(size=50)

streams_asked_for: list[int] = []


def on_gpu(array, dtype=None):
    return fake_cupy.asarray(array, dtype)


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Puts the fake in the place of the GPU."""

    def current_stream():
        streams_asked_for.append(1)
        return 1

    fake = gpu_stand_in(current_stream)
    monkeypatch.setattr(devices, "_cuda", lambda: fake)
    streams_asked_for.clear()
    fake_cupy.copies_from_host.clear()
    return fake


class Tensor:
    """As PyTorch's: memory on the GPU that is handed over by DLPack alone, and detached first."""

    def __init__(self, memory, watched=False):
        self.memory, self.watched = memory, watched

    def __dlpack__(self, **_):
        raise AssertionError("only the fake CuPy can take this tensor apart")

    def __dlpack_device__(self):
        return (2, 0)

    @property
    def __cuda_array_interface__(self):
        if self.watched:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        raise AssertionError("DLPack comes first: it orders the streams")

    def detach(self):
        return Tensor(self.memory)

    def memory_for_dlpack(self):
        assert not self.watched
        return self.memory


def trained(device, *, x=X, y=LABELS, weight=None, dtype="float32", **settings):
    model = fm.Sequential(
        [fm.Dense(8, "relu"), fm.Dropout(0.2), fm.Dense(3)], device=device, seed=1, dtype=dtype
    )
    model.compile(fm.Adam(0.01), "cross_entropy", settings.pop("metrics", ["accuracy"]))
    model.fit(x, y, batch_size=16, epochs=3, sample_weight=weight, verbose=0, **settings)
    return model


def assert_same_models(one, other):
    assert_same_bits(one.get_weights(), other.get_weights())
    moments = [[devices.to_host(m) for m in model.optimizer.moments] for model in (one, other)]
    assert_same_bits(*moments)


# ---- Sequential


@pytest.mark.parametrize("kind", [lambda a: a, on_gpu, Tensor], ids=["NumPy", "CuPy", "DLPack"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"validation_split": 0.2, "class_weight": {0: 2.0}},
        {"shuffle": False, "check_finite": False},
    ],
    ids=["plain", "validation and class weights", "unshuffled"],
)
def test_fit_gives_the_same_bits_wherever_the_data_are(kind, settings):
    plain = trained("cpu", weight=WEIGHTS, **settings)
    model = trained("cuda", x=kind(X), y=kind(LABELS), weight=kind(WEIGHTS), **settings)
    assert type(model.layers[0].kernel) is fake_cupy.ndarray
    assert_same_models(plain, model)
    assert plain.history.history == model.history.history


def test_data_on_the_device_are_not_copied(monkeypatch):
    x, y = on_gpu(X), on_gpu(LABELS)
    model = fm.Sequential([fm.Dense(3)], device="cuda", seed=0)
    model.build(4)
    seen = []
    infer = model._engine.infer
    monkeypatch.setattr(model._engine, "infer", lambda rows, *a: seen.append(rows) or infer(rows))
    fake_cupy.copies_from_host.clear()
    model.predict(x)
    model.predict(Tensor(X))
    assert np.shares_memory(seen[0]._memory, x._memory)
    assert np.shares_memory(seen[1]._memory, X)
    assert fake_cupy.copies_from_host == []
    model.compile("sgd")
    model.fit(x, y, verbose=0)
    assert max(np.prod(shape) for shape in fake_cupy.copies_from_host) < X.size  # rates, state


def test_data_on_the_host_are_moved_once():
    trained("cuda")
    assert fake_cupy.copies_from_host.count(X.shape) == 1


def test_predictions_are_of_the_kind_given(monkeypatch):
    library = ModuleType("fake_torch")
    library.from_dlpack = lambda array: Tensor(array._memory)
    monkeypatch.setitem(sys.modules, "fake_torch", library)
    monkeypatch.setattr(Tensor, "__module__", "fake_torch")
    model, plain = trained("cuda"), trained("cpu")
    expected = plain.predict(X)
    for call in (model, model.predict):
        assert type(call(X)) is np.ndarray
        assert type(call(X.tolist())) is np.ndarray
        assert type(call(on_gpu(X))) is fake_cupy.ndarray
        assert type(call(Tensor(X, watched=True))) is Tensor
        assert_same_bits(
            [call(X), call(on_gpu(X)).get(), call(Tensor(X)).memory, call(X[0])],
            [expected, expected, expected, plain(X[0])],
        )


def test_out_may_be_of_either_kind():
    model = trained("cuda")
    on_host, there = np.empty((50, 3), "float32"), fake_cupy.empty((50, 3), "float32")
    assert model(X, out=on_host) is on_host
    assert model(X, out=there) is there
    assert_same_bits([on_host, there.get()], [model.predict(X)] * 2)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", ">f4", "uint8", "bool"])
def test_host_arrays_that_the_gpu_does_not_know_are_converted(dtype):
    x = np.abs(X).astype(dtype)
    assert_same_models(trained("cuda", x=x), trained("cpu", x=x))


def test_evaluate_with_metrics_of_both_kinds():
    onehot = np.eye(3)[LABELS]
    metrics = ["accuracy", "r2", "binary_accuracy"]
    model, plain = (trained(d, y=onehot, metrics=metrics) for d in ("cuda", "cpu"))
    for x, y in ((X, onehot), (on_gpu(X), on_gpu(onehot)), (on_gpu(X), onehot)):
        assert model.evaluate(x, y, batch_size=7) == plain.evaluate(X, onehot, batch_size=7)


def test_metrics_of_one_s_own_get_the_device_s_arrays():
    kinds = set()

    def own(prediction, target):
        kinds.update({type(prediction), type(target)})
        return 1.0

    model = fm.Sequential([fm.Dense(3)], device="cuda", seed=0)
    model.compile("sgd", "cross_entropy", [own])
    model.fit(X, LABELS, verbose=0)
    assert kinds == {fake_cupy.ndarray}


def test_a_loss_of_one_s_own():
    def half(prediction, target, sample_weight=None):
        loss, gradient = fm.losses.mse(prediction, target, sample_weight)
        return loss * 0.5, gradient * 0.5

    models = []
    for device in ("cpu", "cuda"):
        model = fm.Sequential([fm.Dense(3)], device=device, seed=0)
        model.compile("adam", half, ["mae"])
        model.fit(X, X[:, :3], epochs=2, verbose=0)
        models.append(model)
    assert_same_models(*models)
    assert models[0].evaluate(X, X[:, :3]) == models[1].evaluate(X, X[:, :3])


@pytest.mark.parametrize("kind", [lambda a: a, on_gpu], ids=["NumPy", "CuPy"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "mae", "binary_cross_entropy"])
def test_the_open_box_loop(kind, loss):
    y = LABELS if loss == "cross_entropy" else np.eye(3)[LABELS]
    models = []
    for device, put in (("cpu", lambda a: a), ("cuda", kind)):
        model = fm.Sequential([fm.Dense(8, "tanh"), fm.Dense(3)], device=device, seed=0)
        optimizer = fm.SGD(fm.schedules.ExponentialDecay(0.1, 10, 0.9), momentum=0.9, clip_norm=1.0)
        for xb, yb in fm.data.DataLoader(put(X), put(y), batch_size=16, shuffle=True, seed=0):
            logits = model.forward(xb, training=True)
            _, gradient = getattr(fm.losses, loss)(logits, yb)
            model.backward(gradient)
            optimizer.step(model)
        models.append(model)
    assert type(logits) is type(gradient) is fake_cupy.ndarray
    assert_same_bits(models[0].gradients(), [devices.to_host(g) for g in models[1].gradients()])
    assert_same_models(*models)


def test_a_loss_that_is_not_finite_leaves_the_last_good_step():
    weights = []
    for device in ("cpu", "cuda"):
        model = trained(device)
        with pytest.raises(FloatingPointError, match="not finite"):
            model.fit(np.where(X > 1, np.inf, X), LABELS, check_finite=False, verbose=0)
        weights.append(model.get_weights())
    assert_same_bits(*weights)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (
            np.where(np.arange(200).reshape(50, 4) == 14, np.nan, X),
            LABELS,
            "x holds nan at row 3, column 2",
        ),
        (X, np.where(np.arange(50) == 3, 12, LABELS), "label 12 at row 3 is outside 0..2"),
        (X, np.where(np.arange(50) == 3, 0.5, LABELS), "label 0.5 at row 3 is not a whole number"),
        (X, LABELS[:7], "x has 50 rows, but y has 7"),
        (X[:, :2], LABELS, "2 features"),
    ],
)
def test_wrong_data_on_the_gpu_are_refused_in_the_same_words(x, y, says):
    model = trained("cuda")
    before = model.get_weights()
    for kind in (np.asarray, on_gpu):
        with pytest.raises(ValueError, match=says):
            model.fit(kind(x), kind(y), verbose=0)
    assert_same_bits(model.get_weights(), before)


def test_a_model_on_the_cpu_refuses_arrays_on_the_gpu():
    model = trained("cpu")
    for x in (on_gpu(X), Tensor(X)):
        for call in (
            model,
            model.predict,
            model.forward,
            lambda x: model.fit(x, LABELS, verbose=0),
            lambda x: model.fit(X, x, verbose=0),
            lambda x: model.evaluate(X, LABELS, sample_weight=x),
        ):
            with pytest.raises(TypeError, match="on the GPU.*on the CPU.*to\\('cuda'\\)"):
                call(x)


# ---- from device to device, and to files


def test_to_keeps_every_bit_and_training_goes_on():
    stayed, moved = trained("cpu"), trained("cpu")
    for device in ("cuda", "cpu", "cuda"):
        assert moved.to(device) is moved
        assert moved.device == device
        assert_same_models(stayed, moved)
        for model in (stayed, moved):
            model.fit(X, LABELS, verbose=0)
        assert_same_models(stayed, moved)
    assert stayed.epochs_trained == moved.epochs_trained
    with pytest.raises(RuntimeError, match="gradients"):
        moved.gradients()


def test_to_before_the_model_is_built():
    model = fm.Sequential([fm.Dense(3)], seed=0).to("cuda")
    assert type(model(on_gpu(X))) is fake_cupy.ndarray


def test_to_while_fit_is_running_is_refused():
    model = trained("cpu")
    with pytest.raises(RuntimeError, match="to: not while fit is running"):
        model.fit(X, LABELS, callbacks=[lambda *_: model.to("cuda")], verbose=0)
    assert model.device == "cpu"


def test_files_and_copies_know_no_device(tmp_path):
    model, path = trained("cuda"), tmp_path / "model.safetensors"
    model.save(path, arrays={"mean": on_gpu(X[0])})
    for device in ("cpu", "cuda"):
        again = fm.load(path, device=device)
        assert again.device == device
        assert_same_models(model, again)
        assert_same_bits([again.extra_arrays["mean"]], [X[0]])
        again.fit(X, LABELS, verbose=0)
    twin = copy.deepcopy(model)
    model.fit(X, LABELS, verbose=0)
    assert_same_models(model, again)
    twin.fit(X, LABELS, verbose=0)
    assert_same_models(model, twin)


def test_weights_come_and_go_across_devices():
    plain, model = trained("cpu"), trained("cuda", shuffle=False)
    plain.load_state_dict(model.state_dict())
    assert_same_bits(plain.get_weights(), model.get_weights())
    model.set_weights([array + 1 for array in plain.get_weights()])
    assert_same_bits(model.get_weights(), [array + 1 for array in plain.get_weights()])


def test_add_and_pop_keep_the_parameters():
    model = trained("cuda")
    before = model.get_weights()
    model.add(fm.Dense(2))
    assert_same_bits(model.get_weights()[:4], before)


# ---- kernels

CALLS = {
    "matmul": lambda p: kernels.matmul(p(X), p(X), transpose_b=True),
    "matmul of transposed": lambda p: kernels.matmul(p(X).reshape(5, 10, 4), p(X[:4])),
    "bias_add": lambda p: kernels.bias_add(p(X), p(X[0])),
    "gelu": lambda p: kernels.gelu(p(X)),
    "relu_backward": lambda p: kernels.relu_backward(p(X), p(X[::-1])),
    "softmax": lambda p: kernels.softmax(p(X)),
    "dense_forward": lambda p: kernels.dense_forward(p(X), p(X[:4, :3]), p(X[0, :3]), "tanh"),
    "dense_backward": lambda p: kernels.dense_backward(
        p(X[:, :3]), p(X), p(X[:, :3]), p(X[:4, :3]), "tanh"
    ),
    "softmax_cross_entropy": lambda p: kernels.softmax_cross_entropy(p(X), p(LABELS)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_kernels(call):
    def flat(result):
        return result if isinstance(result, tuple) else (result,)

    expected, got = flat(call(lambda a: a)), flat(call(on_gpu))
    assert all(type(array) is fake_cupy.ndarray for array in got)
    assert_same_bits([array.get() for array in got], expected)
    # Where one array is on the GPU, the others come to it.
    first = iter([True])
    mixed = flat(call(lambda a: on_gpu(a) if next(first, False) else a))
    assert_same_bits([array.get() for array in mixed], expected)
    assert streams_asked_for


def test_kernels_in_place():
    arrays = [X.copy(), X * 0, X * 0 + 1]
    p, m, v = map(on_gpu, arrays)
    kernels.adam_update(p, X, m, v, step=3)
    kernels.adam_update(arrays[0], X, *arrays[1:], step=3)
    assert_same_bits([p.get(), m.get(), v.get()], arrays)
    out = on_gpu(X)
    assert kernels.softmax(out, out=out) is out
    assert_same_bits([out.get()], [kernels.softmax(X)])


def test_arrays_to_be_written_must_be_on_the_device():
    with pytest.raises(TypeError, match="out must be on device 'cuda'"):
        kernels.relu(on_gpu(X), out=X.copy())
    with pytest.raises(TypeError, match="out must be on device 'cpu'"):
        kernels.relu(X, out=on_gpu(X))
    with pytest.raises(TypeError, match="velocity must be on device 'cpu'"):
        kernels.sgd_update(X.copy(), X, on_gpu(X), momentum=0.9)
    with pytest.raises(TypeError, match="g lies on the GPU"):
        kernels.sgd_update(X.copy(), on_gpu(X))


# ---- what lies below


def test_every_native_call_asks_for_the_stream_once_and_the_cpu_never():
    model, plain = trained("cuda"), trained("cpu")
    rows = on_gpu(X)
    for operation, calls in {
        lambda: model.predict(rows): 1,
        lambda: model.predict(rows, batch_size=25): 2,
        lambda: model.evaluate(rows, LABELS): 1,
        lambda: model.backward(model.forward(rows)): 2,
        lambda: model.train_on_batch(rows, LABELS): 1,
        lambda: kernels.exp(rows): 1,
        lambda: (plain.fit(X, LABELS, verbose=0), plain(X), kernels.exp(X)): 0,
    }.items():
        streams_asked_for.clear()
        operation()
        assert len(streams_asked_for) == calls


def test_an_error_in_asking_for_the_stream_is_told():
    def broken():
        raise OSError("no stream")

    with pytest.raises(OSError, match="no stream"):
        _core.softmax(_core.cpu(broken), fake_cupy.empty((2, 2)), fake_cupy.ones((2, 2)), False)


def test_a_plan_refuses_arrays_of_another_memory():
    for backend, array in (
        (_core.cpu(), on_gpu(X)),
        (_core.cpu(lambda: 0), X),
    ):
        with pytest.raises(TypeError, match="input: .* memory"):
            _core.Arguments(backend)["input"] = array


def test_a_backend_of_another_version_is_refused_in_words():
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    other = new(1, b"fastmlp.Backend.1", None)
    with pytest.raises(
        RuntimeError, match="needs a fastmlp.Backend.[0-9]+, got a .*Backend.1;.*anew"
    ):
        _core.check_backend(other)
    with pytest.raises(RuntimeError, match="Backend"):
        _core.Network([], 4, "float32", 1, other)


def test_step_states_are_read_and_written_by_field(gpu):
    state, plain = gpu.step_states(2), devices.get("cpu").step_states(2)
    for records in (state, plain):
        records["seed"] = [1, 2**64 - 1]
        records["learning_rate"] = 0.1
        records["sums"] = 3
        records["step"] += 5
    assert_same_bits([state._bytes.get().view(devices.StepState)[:, 0]], [plain])
    assert state["seed"].tolist() == [1, 2**64 - 1]
    assert state[1]["step"] == 5
