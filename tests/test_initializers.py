"""Initial values: their distribution, their names, and that a seed decides them."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

import fastmlp as fm
from fastmlp import initializers
from fastmlp._config import from_config, to_config

# Mean and variance by the papers' formulas, for a kernel of shape (in, out) = (400, 100).
SHAPE = (400, 100)
NORMAL = [
    (initializers.HeNormal(), 0, 2 / 400),
    (initializers.GlorotNormal(), 0, 2 / 500),
    (initializers.LecunNormal(), 0, 1 / 400),
    (initializers.RandomNormal(), 0, 0.05**2),
    (initializers.RandomNormal(mean=-3, stddev=0.5), -3, 0.5**2),
]
UNIFORM = [
    (initializers.HeUniform(), -np.sqrt(6 / 400), np.sqrt(6 / 400)),
    (initializers.GlorotUniform(), -np.sqrt(6 / 500), np.sqrt(6 / 500)),
    (initializers.LecunUniform(), -np.sqrt(3 / 400), np.sqrt(3 / 400)),
    (initializers.RandomUniform(), -0.05, 0.05),
    (initializers.RandomUniform(2, 5), 2, 5),
]
RANDOM = [case[0] for case in NORMAL + UNIFORM]
FIXED = [initializers.Zeros(), initializers.Ones(), initializers.Constant(0.25)]

both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@both_dtypes
@pytest.mark.parametrize(("initializer", "mean", "variance"), NORMAL, ids=str)
def test_normal(initializer, mean, variance, dtype):
    values = initializer(SHAPE, dtype, seed=1)
    # Of n = 40,000 numbers: the mean deviates by sqrt(variance / n), the variance by the share
    # sqrt(2 / n), and the kurtosis from 3 by sqrt(24 / n); five of each are allowed.
    n = values.size
    standard = (values.astype(np.float64) - mean) / np.sqrt(variance)
    assert abs(standard.mean()) < 5 / np.sqrt(n)
    assert abs(standard.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((standard**4).mean() / standard.var() ** 2 - 3) < 5 * np.sqrt(24 / n)
    # The tails are there: beyond two deviations, where Keras cuts off, lie 4.55 % of all numbers.
    share = (abs(standard) > 2).mean()
    assert abs(share - 0.0455) < 5 * np.sqrt(0.0455 / n)


@both_dtypes
@pytest.mark.parametrize(("initializer", "low", "high"), UNIFORM, ids=str)
def test_uniform(initializer, low, high, dtype):
    values = initializer(SHAPE, dtype, seed=1).astype(np.float64)
    n = values.size
    unit = (values - low) / (high - low)
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6
    # Mean 1/2 and variance 1/12; their deviations are sqrt(1 / 12 n) and sqrt(1 / 180 n).
    assert abs(unit.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / n)
    assert abs(unit.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    # No tenth is favoured: a tenth of n each, with deviation sqrt(0.09 n).
    tenths = np.histogram(unit, bins=10, range=(0, 1))[0]
    assert abs(tenths - n / 10).max() < 5 * np.sqrt(0.09 * n) + 1


@pytest.mark.parametrize(
    ("initializer", "value"), list(zip(FIXED, [0, 1, 0.25], strict=True)), ids=str
)
@both_dtypes
def test_one_value_everywhere(initializer, value, dtype):
    values = initializer((3, 4), dtype, seed=1)
    assert values.tolist() == [[value] * 4] * 3


@pytest.mark.parametrize("initializer", RANDOM + FIXED, ids=str)
@both_dtypes
@pytest.mark.parametrize("shape", [(3, 4), (7,), (1, 1), (0, 5), (5, 0)])
def test_shape_and_dtype(initializer, dtype, shape):
    values = initializer(shape, dtype, seed=0)
    assert values.shape == shape
    assert values.dtype == dtype
    assert values.flags.c_contiguous
    assert values.flags.writeable
    assert np.isfinite(values).all()


def test_float32_is_the_default():
    assert initializers.HeNormal()((2, 2), seed=0).dtype == np.float32


def test_scale_as_a_numpy_scalar_does_not_widen():
    values = initializers.RandomNormal(np.float64(0), np.float64(1))((2, 2), "float32", seed=0)
    assert values.dtype == np.float32


def test_a_single_input():
    assert abs(initializers.HeUniform()((1, 3000), seed=0)).max() == pytest.approx(6**0.5, rel=1e-2)


def test_a_bias_counts_as_its_own_fan():
    # As in Keras: (n,) has fan in and fan out n, so the bound of GlorotUniform is sqrt(6 / 2n).
    values = initializers.GlorotUniform()((30_000,), seed=0)
    assert abs(values).max() == pytest.approx(np.sqrt(6 / 60_000), rel=1e-3)


@pytest.mark.parametrize("initializer", RANDOM, ids=str)
class TestSeed:
    def test_the_same_seed_and_stream_give_the_same_bits(self, initializer):
        a, b = (initializer((33, 7), seed=5, stream=2) for _ in range(2))
        assert a.tobytes() == b.tobytes()
        assert a is not b

    def test_the_stream_is_0_unless_given(self, initializer):
        a, b = initializer((33, 7), seed=5), initializer((33, 7), seed=5, stream=0)
        assert a.tobytes() == b.tobytes()

    def test_another_seed_or_stream_gives_others(self, initializer):
        a = initializer((100, 100), seed=5, stream=2)
        for seed, stream in [(6, 2), (5, 3), (2, 5), (5, 0)]:
            b = initializer((100, 100), seed=seed, stream=stream)
            # Independent: the correlation of 10,000 pairs deviates from 0 by 0.01.
            assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    "name",
    ["HeNormal", "HeUniform", "GlorotNormal", "GlorotUniform", "LecunNormal", "LecunUniform"],
)
@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_shapes_without_fans(name, shape):
    message = r"^initializer: shape must be \(in, out\) or \(n,\), got \("
    with pytest.raises(ValueError, match=message):
        initializers.get(name)(shape, seed=0)


class TestGet:
    @pytest.mark.parametrize(
        ("name", "initializer"),
        [
            ("he_normal", initializers.HeNormal()),
            ("kaiming_normal", initializers.HeNormal()),
            ("kaiming_normal_", initializers.HeNormal()),
            ("HeNormal", initializers.HeNormal()),
            ("he_uniform", initializers.HeUniform()),
            ("kaiming_uniform", initializers.HeUniform()),
            ("glorot_normal", initializers.GlorotNormal()),
            ("xavier_normal", initializers.GlorotNormal()),
            ("glorot_uniform", initializers.GlorotUniform()),
            ("xavier_uniform", initializers.GlorotUniform()),
            ("lecun_normal", initializers.LecunNormal()),
            ("lecun_uniform", initializers.LecunUniform()),
            ("random_normal", initializers.RandomNormal()),
            ("normal", initializers.RandomNormal()),
            ("random_uniform", initializers.RandomUniform()),
            ("uniform", initializers.RandomUniform()),
            ("constant", initializers.Constant(0.0)),
            ("zeros", initializers.Zeros()),
            ("ZEROS", initializers.Zeros()),
            ("ones", initializers.Ones()),
        ],
    )
    def test_names(self, name, initializer):
        assert initializers.get(name) == initializer

    def test_an_initializer_stays_itself(self):
        initializer = initializers.Constant(3)
        assert initializers.get(initializer) is initializer

    def test_unknown_name(self):
        with pytest.raises(
            ValueError,
            match=r"^initializer: unknown name 'he_norml'; known: constant, glorot_normal, .*"
            r"zeros \(did you mean 'he_normal'\?\)$",
        ):
            initializers.get("he_norml")

    @pytest.mark.parametrize(
        ("identifier", "kind"),
        [(0.5, "float"), (None, "NoneType"), (initializers.HeNormal, "the class HeNormal")],
    )
    def test_other_kinds(self, identifier, kind):
        with pytest.raises(
            TypeError, match=f"^initializer: expected a name or an object, got {kind}$"
        ):
            initializers.get(identifier)


class TestFunction:
    def test_it_is_called_with_shape_and_dtype(self):
        def ramp(shape, dtype):
            assert isinstance(shape, tuple)
            assert dtype == np.float64
            return np.arange(np.prod(shape)).reshape(shape)  # integers: converted

        values = initializers.get(ramp)([2, 3], "float64", seed=0)
        assert values.dtype == np.float64
        assert values.tolist() == [[0, 1, 2], [3, 4, 5]]

    def test_the_result_is_a_copy(self):
        own = np.zeros((2, 2), np.float32)
        initializers.get(lambda shape, dtype: own)((2, 2), seed=0)[:] = 1
        assert own.tolist() == [[0, 0], [0, 0]]

    def test_another_shape_is_refused(self):
        def wide(shape, dtype):
            return np.zeros((*shape, 2))

        with pytest.raises(
            ValueError,
            match=r"^initializer Function\(name='wide'\): expected shape \(3,\), got \(3, 2\)$",
        ):
            initializers.get(wide)((3,), seed=0)

    def test_a_file_keeps_its_name_alone(self):
        def my_own(shape, dtype):
            return np.zeros(shape)

        config = to_config(initializers.get(my_own))
        assert config == {"class": "Function", "name": "my_own"}
        back = from_config(config, initializers.CLASSES)
        with pytest.raises(
            ValueError,
            match=r"^initializer Function\(name='my_own'\): the function is not stored in files; "
            "give it again$",
        ):
            back((2, 2), seed=0)

    def test_a_callable_object_goes_by_its_class(self):
        class Ramp:
            def __call__(self, shape, dtype):
                return np.arange(shape[0])

        assert initializers.get(Ramp()).name == "Ramp"


def test_own_class():
    @dataclass(frozen=True)
    class Two(initializers.Initializer):
        def values(self, shape, dtype, seed, stream):
            return np.full(shape, 2)

    values = initializers.get(Two())((2,), "float32", seed=0)
    assert values.tolist() == [2, 2]
    assert values.dtype == np.float32


def test_nothing_defined():
    with pytest.raises(NotImplementedError, match=r"^Initializer must define values$"):
        initializers.Initializer()((2,), seed=0)


@pytest.mark.parametrize("initializer", RANDOM + FIXED, ids=str)
def test_round_trip_through_json(initializer):
    config = json.loads(json.dumps(to_config(initializer)))
    assert from_config(config, initializers.CLASSES) == initializer


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: initializers.RandomNormal(stddev=-1),
            ValueError,
            "RandomNormal: stddev must be at least 0, got -1",
        ),
        (
            lambda: initializers.RandomNormal(mean=float("nan")),
            ValueError,
            "RandomNormal: mean must be finite, got nan",
        ),
        (
            lambda: initializers.RandomUniform(1, 0),
            ValueError,
            "RandomUniform: maxval must be at least 1, got 0",
        ),
        (
            lambda: initializers.RandomUniform("a", 0),
            TypeError,
            "RandomUniform: minval must be a number, got 'a'",
        ),
        (
            lambda: initializers.Constant(None),
            TypeError,
            "Constant: value must be a number, got None",
        ),
    ],
)
def test_arguments_refused(make, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        make()


def test_a_layer_starts_with_these_values():
    layers = [fm.Dense(5, kernel_initializer="ones", bias_initializer=initializers.Constant(0.5))]
    model = fm.Sequential(layers, seed=0)
    model.build(3)
    np.testing.assert_array_equal(model.layers[0].kernel, np.ones((3, 5)))
    np.testing.assert_array_equal(model.layers[0].bias, np.full(5, 0.5))
