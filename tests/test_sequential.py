"""Sequential and its layers: building, looking inside, calling, and what comes back."""

from __future__ import annotations

import copy
import sys
import tracemalloc

import numpy as np
import pytest
import reference as ref
from support import LAYOUTS, assert_same_bits

import fastmlp as fm
from fastmlp.device import to_host

rng = np.random.RandomState(0)
X = rng.standard_normal((9, 4))


def small(**settings) -> fm.Sequential:
    model = fm.Sequential([fm.Dense(5, "relu"), fm.Dense(3)], seed=1, **settings)
    model.build(4)
    return model


# Building.


def test_add_pop_len_and_indexing():
    model = fm.Sequential()
    first, second, third = fm.Dense(5), fm.Activation("tanh"), fm.Dense(3)
    for layer in (first, second, third):
        model.add(layer)
    assert len(model) == 3
    assert model.layers == [first, second, third]
    assert model[0] is first
    assert model[-1] is third
    assert list(model) == [first, second, third]
    model.pop()
    assert model.layers == [first, second]
    assert model.predict(X).shape == (9, 5)


def test_layers_added_and_popped_after_building():
    model = small()
    kernel, bias = model.get_weights()[:2]
    model.pop()
    np.testing.assert_array_equal(model.predict(X), small_hidden(kernel, bias))
    model.add(fm.Dense(2))
    assert model.predict(X).shape == (9, 2)
    assert_same_bits(model.get_weights()[:2], [kernel, bias])


def small_hidden(kernel, bias):
    return fm.kernels.dense_forward(X.astype("float32"), kernel, bias, "relu")


def test_input_builds_and_is_no_layer():
    model = fm.Sequential([fm.Input(4), fm.Dense(5)], seed=1)
    assert len(model) == 1
    assert model[0].kernel.shape == (4, 5)
    assert fm.Sequential([fm.Input((2, 3)), fm.Flatten(), fm.Dense(5)])[1].kernel.shape == (6, 5)


@pytest.mark.parametrize("how", ["input", "build", "predict", "forward", "call", "fit"])
def test_every_way_to_build_gives_the_same_weights(how):
    layers = [fm.Dense(5, "relu"), fm.Dense(3)]
    model = fm.Sequential([fm.Input(4), *layers] if how == "input" else layers, seed=1)
    model.compile(fm.SGD(0.0), "mse")
    if how == "build":
        model.build(4)
    elif how == "fit":
        model.fit(X, np.zeros((9, 3)), verbose=0)
    elif how != "input":
        getattr(model, {"call": "__call__"}.get(how, how))(X)
    assert_same_bits(model.get_weights(), small().get_weights())


def test_count_params_and_summary(capsys):
    model = fm.Sequential([fm.Flatten(), fm.Dense(5, "relu"), fm.Dropout(0.5), fm.Dense(3)], seed=0)
    model.build((2, 2))
    assert model.count_params() == (4 * 5 + 5) + (5 * 3 + 3)
    text = str(model.summary() or "") + capsys.readouterr().out
    for word in ("Flatten", "Dense", "Dropout", "25", "18", "43"):
        assert word in text


# Weights.


def test_get_and_set_weights(dtype):
    model = small(dtype=dtype)
    weights = model.get_weights()
    assert [w.shape for w in weights] == [(4, 5), (5,), (5, 3), (3,)]
    assert all(w.dtype == dtype for w in weights)
    other = [rng.standard_normal(w.shape).astype(dtype) for w in weights]
    model.set_weights(other)
    assert_same_bits(model.get_weights(), other)
    model.get_weights()[0][:] = 0  # a copy
    assert_same_bits(model.get_weights(), other)
    model.set_weights([w.astype("float64").tolist() for w in weights])
    assert_same_bits(model.get_weights(), weights)


def test_state_dict():
    model, other = small(), small()
    state = model.state_dict()
    assert list(state) == ["0.kernel", "0.bias", "1.kernel", "1.bias"]
    assert_same_bits(state.values(), model.get_weights())
    changed = {name: value + 1 for name, value in state.items()}
    other.load_state_dict(changed)
    assert_same_bits(other.get_weights(), changed.values())


def test_state_dict_counts_every_layer():
    model = fm.Sequential([fm.Flatten(), fm.Dense(5, use_bias=False), fm.ReLU(), fm.Dense(3)])
    model.build(4)
    assert list(model.state_dict()) == ["1.kernel", "3.kernel", "3.bias"]


def test_kernel_and_bias_are_writable_views():
    model = small()
    assert model[0].kernel.shape == (4, 5)
    model[0].kernel[2, 3] = 42
    model[0].bias[1] = -7
    model[1].kernel[...] = 1
    weights = model.get_weights()
    assert weights[0][2, 3] == 42
    assert weights[1][1] == -7
    assert (weights[2] == 1).all()
    hidden = fm.kernels.dense_forward(X.astype("float32"), weights[0], weights[1], "relu")
    expected = hidden.sum(axis=1, keepdims=True) + weights[3]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5)


def test_parameters_are_the_weights_themselves():
    model = small()
    for p in model.parameters():
        p += 1
    assert_same_bits(model.get_weights(), [w + 1 for w in small().get_weights()])


def test_a_layer_without_bias_has_none():
    model = fm.Sequential([fm.Dense(5, use_bias=False)])
    model.build(4)
    assert model[0].bias is None
    assert len(model.get_weights()) == 1


@pytest.mark.parametrize(
    "initializer, deviation",
    [
        ("he_normal", (2 / 400) ** 0.5),
        ("he_uniform", (2 / 400) ** 0.5),
        ("glorot_uniform", (2 / 700) ** 0.5),
        ("lecun_normal", (1 / 400) ** 0.5),
        ("zeros", 0),
    ],
)
def test_initial_values(initializer, deviation):
    model = fm.Sequential([fm.Dense(300, kernel_initializer=initializer)], seed=0)
    model.build(400)
    kernel = model[0].kernel
    # 120,000 numbers: their deviation is known to 4 / sqrt(2 n) < 1%.
    assert kernel.std() == pytest.approx(deviation, rel=0.01)
    assert abs(kernel.mean()) <= 4 * deviation / np.sqrt(kernel.size)
    assert (model[0].bias == 0).all()


def test_bias_initializer():
    model = fm.Sequential([fm.Dense(5, bias_initializer=fm.initializers.Constant(0.25))])
    model.build(4)
    assert (model[0].bias == 0.25).all()


# Gradients.


def test_gradients_are_there_after_backward_and_gone_after_fit():
    model = small()
    model.forward(X)
    model.backward(np.ones((9, 3)))
    gradients = model[1].gradients
    assert set(gradients) == {"kernel", "bias"}
    np.testing.assert_allclose(gradients["bias"], [9, 9, 9], rtol=1e-6)
    assert_same_bits(model.gradients()[2:], [gradients["kernel"], gradients["bias"]])

    model.compile("sgd", "mse")
    for train in (
        lambda: model.fit(X, np.zeros((9, 3)), verbose=0),
        lambda: model.train_on_batch(X, np.zeros((9, 3))),
    ):
        train()
        with pytest.raises(RuntimeError, match="(?i)gradient"):
            model.gradients()
        with pytest.raises(RuntimeError, match="(?i)gradient"):
            model[1].gradients["bias"]


def test_backward_overwrites():
    model = small()
    model.forward(X)
    model.backward(np.ones((9, 3)))
    first = [g.copy() for g in model.gradients()]
    model.backward(np.ones((9, 3)))
    assert_same_bits([g.copy() for g in model.gradients()], first)


def test_backward_needs_forward():
    with pytest.raises(RuntimeError, match="backward.*forward"):
        small().backward(np.ones((9, 3)))


def test_gradients_are_writable():
    model = small()
    before = model.get_weights()
    model.forward(X)
    model.backward(np.ones((9, 3)))
    for g in model.gradients():
        g[...] = 0
    model[0].gradients["bias"][2] = 5
    fm.SGD(1.0).step(model)
    before[1][2] -= 5
    assert_same_bits(model.get_weights(), before)


# Calling.


def test_all_ways_to_call_agree(dtype, device):
    model = small(dtype=dtype, device=device)
    expected = model.predict(X)
    assert expected.dtype == dtype
    assert_same_bits([model(X), model.forward(X)], [expected] * 2)
    exact = ref.mlp_forward(
        [
            ref.Dense(k.astype(float), b.astype(float), a)
            for k, b, a in zip(model.get_weights()[::2], model.get_weights()[1::2],
                               ("relu", "identity"))
        ],
        X,
    )[-1]  # fmt: skip
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(expected, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_predict_in_batches(batch_size):
    np.testing.assert_allclose(
        small().predict(X, batch_size=batch_size), small().predict(X), rtol=1e-6, atol=1e-7
    )


def test_a_vector_in_gives_a_vector_out():
    model = small()
    expected = model.predict(X[:1])
    for call in (model, model.predict):
        got = call(X[0])
        assert got.shape == (3,)
        np.testing.assert_allclose(got, expected[0], rtol=1e-6)


def test_one_row_of_an_image_comes_back_as_a_vector():
    model = fm.Sequential([fm.Input((2, 2)), fm.Flatten(), fm.Dense(3)], seed=0)
    image = X[0].reshape(2, 2)
    assert model(image).shape == (3,)
    np.testing.assert_allclose(model(image), model.predict(image[None])[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 2, 2, 1), (3, 4), (4,), (2, 1, 2), (2, 2, 3)], ids=str)
def test_what_is_no_image_is_refused(shape):
    model = fm.Sequential([fm.Input((2, 2)), fm.Flatten(), fm.Dense(3)], seed=0)
    with pytest.raises(ValueError, match="2, 2"):
        model(np.zeros(shape, "float32"))


def test_a_call_of_a_model_that_is_built_anew():
    model, x = small(), X.astype("float32")
    hidden = small_hidden(*model.get_weights()[:2])
    assert model(x).shape == (9, 3)
    model.pop()
    assert_same_bits([model(x)], [hidden])
    model.pop()
    with pytest.raises(RuntimeError, match="no layers"):
        model(x)


def test_a_shallow_copy_shares_the_weights():
    model, x = small(), X.astype("float32")
    twin = copy.copy(model)
    model[0].kernel[...] = 0
    assert_same_bits([twin(x)], [model(x)])


def test_a_subclass_may_override_the_call():
    class Twice(fm.Sequential):
        def __call__(self, x, **keywords):
            return 2 * super().__call__(x, **keywords)

    model, x = Twice([fm.Dense(3)], seed=1), X.astype("float32")
    for _ in range(2):  # the first builds
        np.testing.assert_array_equal(
            model(x, out=np.empty((9, 3), "float32")), 2 * model.predict(x)
        )


@pytest.mark.parametrize(
    "arguments, keywords",
    [((), {}), ((X, X), {}), ((X,), {"into": X}), ((X,), {"out": X, "into": X})],
    ids=["nothing", "two", "unknown", "one too many"],
)
def test_a_call_with_the_wrong_arguments(arguments, keywords):
    with pytest.raises(TypeError, match="argument"):
        small()(*arguments, **keywords)


def test_calls_neither_leak_nor_copy():
    model, x = small(), X.astype("float32")
    out = np.empty((9, 3), "float32")
    model(x, out=out)
    held = [x, out, model._inference]
    references = [sys.getrefcount(each) for each in held]
    tracemalloc.start()
    for _ in range(1000):
        model(x, out=out)
        model(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert references == [sys.getrefcount(each) for each in held]
    assert peak < 10_000  # a result at a time, and what Python needs to count


def test_no_rows_give_no_rows():
    for call in (small(), small().predict):
        assert call(np.zeros((0, 4))).shape == (0, 3)


def test_call_writes_into_out(dtype):
    model = small(dtype=dtype)
    out = np.full((9, 3), np.nan, dtype)
    assert model(X, out=out) is out
    assert_same_bits([out], [model(X)])
    row = np.full(3, np.nan, dtype)
    assert model(X[0], out=row) is row
    assert_same_bits([row], [model(X[0])])


@pytest.mark.parametrize("start", [0, 4, 20])
def test_out_may_overlap_the_input(start):
    model = fm.Sequential([fm.Dense(4, use_bias=False)], seed=1)
    x = rng.standard_normal((6, 4)).astype("float32")
    expected = model.predict(x)
    memory = np.empty(48, "float32")
    given, out = memory[4:28].reshape(6, 4), memory[start : start + 24].reshape(6, 4)
    given[...] = x
    assert_same_bits([model(given, out=out)], [expected])


def test_nothing_between_forward_and_backward_matters():
    model, gradient = small(dtype="float64"), rng.standard_normal((9, 3))
    model.compile("sgd", "mse")
    model.forward(X)
    expected = [model.backward(gradient), *(g.copy() for g in model.gradients())]
    data = X.copy()
    model.forward(data)
    data[:] = 0
    model.predict(rng.standard_normal((500, 4)))
    model(rng.standard_normal((7, 4)))
    model.evaluate(rng.standard_normal((100, 4)), np.zeros((100, 3)))
    assert_same_bits([model.backward(gradient), *model.gradients()], expected)


def test_forward_returns_a_fresh_array():
    model = small()
    first = model.forward(X)
    kept = first.copy()
    model.forward(X + 1)
    assert_same_bits([first], [kept])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_predict_takes_any_layout(layout):
    assert_same_bits([small().predict(LAYOUTS[layout](X))], [small().predict(X)])


@pytest.mark.parametrize("kind", ["float16", "int8", "uint8", "int64", "bool"])
def test_predict_takes_any_real_dtype(kind):
    x = rng.randint(2, size=(9, 4))
    assert_same_bits([small().predict(x.astype(kind))], [small().predict(x)])
    assert_same_bits([small().predict(x.tolist())], [small().predict(x)])


def test_predict_takes_arrays_of_other_libraries():
    class WithArray:
        def __array__(self, dtype=None, copy=None):
            return X if dtype is None else X.astype(dtype)

    class WithDLPack:
        def __dlpack__(self, **settings):
            return X.__dlpack__(**settings)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    for x in (WithArray(), WithDLPack()):
        assert_same_bits([np.asarray(small().predict(x))], [small().predict(X)])


def test_predict_gives_back_the_kind_of_array_it_was_given():
    torch = pytest.importorskip("torch")
    for x in (torch.from_numpy(X), torch.from_numpy(X.T.copy()).T):
        for got, expected in (
            (small().predict(x), small().predict(X)),
            (small()(x), small().predict(X)),
            (small().predict(x[0]), small().predict(X[0])),
        ):
            assert isinstance(got, torch.Tensor)
            assert_same_bits([got.numpy()], [expected])


def test_inference_passes_nan_on():
    x = X.copy()
    x[3, 2] = np.nan
    assert np.isnan(small().predict(x)).any(axis=1).tolist() == [i == 3 for i in range(9)]


# Evaluating.


def test_evaluate(dtype):
    model = small(dtype=dtype)
    model.compile("sgd", "cross_entropy", metrics=["accuracy"])
    labels = rng.randint(3, size=9)
    got = model.evaluate(X, labels)
    assert list(got) == ["loss", "accuracy"]
    assert all(isinstance(value, float) for value in got.values())
    exact, _ = ref.loss("cross_entropy", model.predict(X).astype(float), labels)
    assert got["loss"] == pytest.approx(exact, rel=1e-6)
    for batch_size in (1, 4, 100):
        assert model.evaluate(X, labels, batch_size=batch_size) == pytest.approx(got, rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("ending", [None, "sigmoid"])
def test_accuracy_of_yes_and_no(ending, outputs):
    model = fm.Sequential([fm.Dense(outputs, ending)], seed=1)
    model.compile("sgd", "binary_cross_entropy", metrics=["accuracy"])
    y = rng.randint(2, size=(9, outputs))
    got = model.evaluate(X, y)["accuracy"]
    threshold = 0 if ending is None else 0.5  # logits or probabilities
    assert got == pytest.approx(((model.predict(X) > threshold) == y).mean())


def test_evaluate_with_weights_divides_by_rows():
    model = small(dtype="float64")
    model.compile("sgd", "mse")
    y, weight = rng.standard_normal((9, 3)), rng.uniform(size=9)
    exact, _ = ref.loss("mse", model.predict(X), y, weight)
    for batch_size in (None, 4):
        got = model.evaluate(X, y, sample_weight=weight, batch_size=batch_size)["loss"]
        assert got == pytest.approx(exact, rel=1e-12)


# Layers.


@pytest.mark.parametrize("name", fm.kernels.ACTIVATIONS)
def test_an_activation_by_any_door(name):
    weights = [rng.standard_normal((4, 5)), rng.standard_normal(5)]
    results = []
    for layers in (
        [fm.Dense(5, name)],
        [fm.Dense(5, activation=name.upper())],
        [fm.Dense(5), fm.Activation(name)],
        [fm.Dense(5), fm.Dropout(0.5), fm.Activation(name)],
    ):
        model = fm.Sequential(layers, dtype="float64")
        model.build(4)
        model.set_weights(weights)
        results.append(model.predict(X))
    np.testing.assert_allclose(results[0], ref.activation(name, X @ weights[0] + weights[1]),
                               rtol=1e-12, atol=1e-13)  # fmt: skip
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "layer, function",
    [
        (fm.ReLU(), lambda x: np.maximum(x, 0)),
        (fm.Sigmoid(), ref.logistic),
        (fm.Tanh(), np.tanh),
        (fm.Softmax(), ref.softmax),
        (fm.Activation("softmax"), ref.softmax),
        (fm.GELU(), lambda x: ref.activation("gelu", x)),
        (fm.LeakyReLU(), lambda x: ref.activation("leaky_relu", x)),
        (fm.LeakyReLU(0.3), lambda x: ref.activation("leaky_relu", x, 0.3)),
        (fm.ELU(), lambda x: ref.activation("elu", x)),
        (fm.ELU(alpha=0.5), lambda x: ref.activation("elu", x, 0.5)),
        (fm.SELU(), lambda x: ref.activation("selu", x)),
        (fm.SiLU(), lambda x: ref.activation("silu", x)),
        (fm.Swish(), lambda x: ref.activation("swish", x)),
        (fm.Swish(-1.5), lambda x: ref.activation("swish", x, -1.5)),
        (fm.Softplus(), lambda x: ref.activation("softplus", x)),
        (fm.Step(), lambda x: ref.activation("step", x)),
    ],
    ids=repr,
)
def test_activation_layers(layer, function):
    model = fm.Sequential([layer], dtype="float64")
    np.testing.assert_allclose(model.predict(X), function(X), rtol=1e-13)


def test_a_step_lets_no_gradient_through_but_what_follows_it_learns():
    x, y = np.where(X > 0, 1.0, -1.0), np.where(X[:, :1] > 0, 1.0, -1.0)
    model = fm.Sequential([fm.Dense(8, "step"), fm.Dense(1)], seed=0)
    model.build(4)
    before = model.get_weights()
    model.compile(fm.SGD(0.1), "perceptron", metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0)
    assert_same_bits(model.get_weights()[:2], before[:2])
    assert (model.get_weights()[2] != before[2]).any()
    nan = fm.Sequential([fm.Step()]).predict(np.array([[np.nan, -0.0, 1e-30]]))
    np.testing.assert_array_equal(nan, [[np.nan, 0, 1]])


def test_flatten():
    images = rng.standard_normal((9, 2, 3, 4))
    model = fm.Sequential([fm.Flatten()], dtype="float64")
    assert_same_bits([model.predict(images)], [images.reshape(9, 24)])
    model.forward(images)
    gradient = rng.standard_normal((9, 24))
    assert_same_bits([model.backward(gradient)], [gradient.reshape(images.shape)])


def test_dropout_is_off_at_inference():
    model = fm.Sequential([fm.Dropout(0.5)], dtype="float64")
    for call in (model, model.predict, model.forward):
        np.testing.assert_array_equal(call(X), X)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_dropout_keeps_the_mean(rate, device):
    model = fm.Sequential([fm.Dropout(rate)], seed=0, dtype="float64", device=device)
    n = 400_000
    y = to_host(model.forward(np.ones((400, n // 400)), training=True))
    # Kept with probability q = 1 - rate and scaled by 1 / q: mean 1, variance (1 - q) / q.
    q = 1 - rate
    values = np.unique(y)
    np.testing.assert_allclose(values, [1.0] if rate == 0 else [0.0, 1 / q], rtol=1e-12)
    assert abs(y.mean() - 1) <= 5 * np.sqrt((1 - q) / q / n)
    if 0 < rate <= 0.9:  # no row and no column is treated in a special way
        for axis in (0, 1):
            deviation = np.sqrt((1 - q) / q / y.shape[axis])
            assert np.abs(y.mean(axis=axis) - 1).max() < 6 * deviation


def test_dropout_masks_follow_the_seed_and_the_pass():
    def masks(seed):
        model = fm.Sequential([fm.Dropout(0.5), fm.Dropout(0.5)], seed=seed)
        return [model.forward(np.ones((20, 20)), training=True) for _ in range(2)]

    first, again, other = masks(1), masks(1), masks(2)
    assert_same_bits(again, first)
    assert (first[0] != first[1]).any()
    assert (first[0] != other[0]).any()
    # Two layers draw independently: a quarter of the elements survives both.
    assert (first[0] != 0).mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 400))


def test_a_layer_belongs_to_one_model():
    layer = fm.Dense(3)
    fm.Sequential([layer]).build(4)
    with pytest.raises(ValueError, match="Dense"):
        fm.Sequential([layer, layer])


def test_models_of_every_width():
    for width in (1, 2, 15, 16, 17, 63, 64, 65):
        model = fm.Sequential([fm.Dense(width, "tanh"), fm.Dense(width)], seed=0, dtype="float64")
        x = rng.standard_normal((5, width))
        (k0, b0, k1, b1) = (model.build(width), model.get_weights())[1]
        np.testing.assert_allclose(model.predict(x), np.tanh(x @ k0 + b0) @ k1 + b1, atol=1e-12)


def test_to_the_same_device_changes_nothing(device):
    model = small(device=device)
    assert_same_bits([model.to(device).predict(X)], [small(device=device).predict(X)])


def test_repr_names_the_layers():
    text = repr(fm.Sequential([fm.Dense(5, "relu"), fm.Dropout(0.2)]))
    assert "Sequential" in text
    assert "Dense" in text
    assert "Dropout" in text


def test_what_the_core_works_in_starts_on_a_cache_line():
    """NumPy's own arrays do not, and a step then takes up to twice as long."""
    model = fm.Sequential([fm.Input(5), fm.Dense(7, "relu"), fm.Dense(3)])
    model.compile("adam", "cross_entropy")
    model.fit(np.zeros((4, 5), np.float32), [0, 1, 2, 0], verbose=0)
    device = fm.device.get("cpu")
    for array in [
        model.layers[0].kernel,
        *model.optimizer.moments,
        device.zeros((3, 5), "float64"),
        device.empty(1001, "float32"),
    ]:
        assert array.ctypes.data % 64 == 0
