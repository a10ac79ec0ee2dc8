"""Learning rate schedules against their closed forms."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

import fastmlp as fm
from fastmlp._config import from_config, to_config
from fastmlp.schedules import Constant, CosineDecay, ExponentialDecay, Schedule, StepDecay, WarmUp


def step_decay(step):
    return 0.1 * 0.5 ** (step // 30)


def exponential_decay(step):
    return 0.1 * 0.9 ** (step / 20)


def cosine_decay(step):
    # PyTorch's CosineAnnealingLR with eta_min = 0.01 and T_max = 40, then constant as in Keras.
    return 0.01 + (0.1 - 0.01) * (1 + math.cos(math.pi * min(step, 40) / 40)) / 2


def warm_up(step):
    # As in Keras: a line over 10 steps, after which the schedule starts from its own step 0.
    return 0.02 + (0.1 - 0.02) * step / 10 if step < 10 else cosine_decay(step - 10)


CASES = [
    (Constant(0.1), lambda step: 0.1),
    (StepDecay(0.1, every=30, factor=0.5), step_decay),
    (ExponentialDecay(0.1, decay_steps=20, decay_rate=0.9), exponential_decay),
    (CosineDecay(0.1, decay_steps=40, final=0.01), cosine_decay),
    (WarmUp(CosineDecay(0.1, decay_steps=40, final=0.01), steps=10, start=0.02), warm_up),
]
cases = pytest.mark.parametrize(
    ("schedule", "formula"), CASES, ids=[type(schedule).__name__ for schedule, _ in CASES]
)


@cases
def test_closed_form(schedule, formula):
    for step in (0, 1, 9, 10, 11, 29, 30, 39, 40, 41, 60, 1000):
        assert schedule(step) == pytest.approx(formula(step), rel=1e-14), step


@cases
def test_an_array_gives_the_same_numbers_as_its_elements(schedule, formula):
    steps = np.arange(100, dtype=np.int64).reshape(4, 25)
    rates = schedule(steps)
    assert rates.shape == steps.shape
    assert rates.dtype == np.float64
    # To the last bit: `fit` asks for many steps at once, `optimizer.step` for one.
    assert rates.tolist() == [[schedule(int(step)) for step in row] for row in steps]


@cases
def test_rates_do_not_depend_on_what_else_is_asked_for(schedule, formula):
    steps = np.arange(500)
    whole = schedule(steps)
    for size in (1, 3, 7, 64, 499):  # a resumed run splits its steps elsewhere
        parts = [schedule(steps[i : i + size]) for i in range(0, 500, size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@cases
def test_an_int_gives_a_float(schedule, formula):
    assert type(schedule(3)) is float
    assert type(schedule(np.int64(3))) is float


@cases
def test_no_steps(schedule, formula):
    assert schedule(np.empty(0, np.int64)).shape == (0,)


@cases
def test_round_trip_through_json(schedule, formula):
    config = json.loads(json.dumps(to_config(schedule)))
    assert from_config(config, fm.schedules.CLASSES) == schedule


def test_ends_are_exact():
    assert CosineDecay(0.1, 7, final=0.03)(0) == 0.1
    assert CosineDecay(0.1, 7, final=0.03)(7) == 0.03
    assert WarmUp(0.1, 7, start=0.03)(0) == 0.03
    assert WarmUp(0.1, 7, start=0.03)(7) == 0.1


def test_defaults():
    assert StepDecay(1.0, 2)(2) == 0.1  # factor 0.1
    assert CosineDecay(1.0, 2)(2) == 0.0  # final 0
    assert WarmUp(1.0, 2)(0) == 0.0  # start 0


def test_warm_up_to_a_number_or_another_warm_up():
    # 0, 0.1 by the outer line towards the inner one's first rate 0.2; then 0.2, 0.6, 1, 1.
    inner = WarmUp(1.0, steps=2, start=0.2)
    rates = WarmUp(inner, steps=2)(np.arange(6))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.6, 1, 1], rtol=1e-15)


def test_the_result_is_a_fresh_writable_array():
    schedule = Constant(0.1)
    steps = np.arange(3)
    schedule(steps)[:] = 5
    assert schedule(steps).tolist() == [0.1, 0.1, 0.1]


def test_get():
    schedule = CosineDecay(0.1, 10)
    assert fm.schedules.get(schedule) is schedule
    assert fm.schedules.get(0.5) == Constant(0.5)
    assert fm.schedules.get(0) == Constant(0.0)
    assert fm.schedules.get(np.float32(0.5)) == Constant(0.5)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-0.1, ValueError, "learning_rate must be at least 0, got -0.1"),
        (float("nan"), ValueError, "learning_rate must be finite, got nan"),
        (float("inf"), ValueError, "learning_rate must be finite, got inf"),
        ("0.1", TypeError, "learning_rate must be a number, got '0.1'"),
        (None, TypeError, "learning_rate must be a number, got None"),
        (True, TypeError, "learning_rate must be a number, got True"),
    ],
)
def test_get_refuses(value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        fm.schedules.get(value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Constant(-1), ValueError, "Constant: learning_rate must be at least 0, got -1"),
        (lambda: StepDecay(0.1, 0), ValueError, "StepDecay: every must be at least 1, got 0"),
        (lambda: StepDecay(0.1, 1.5), TypeError, "StepDecay: every must be an integer, got 1.5"),
        (
            lambda: StepDecay(0.1, 1, 0),
            ValueError,
            "StepDecay: factor must be greater than 0, got 0",
        ),
        (
            lambda: StepDecay("a", 1),
            TypeError,
            "StepDecay: learning_rate must be a number, got 'a'",
        ),
        (
            lambda: ExponentialDecay(0.1, 0, 0.5),
            ValueError,
            "ExponentialDecay: decay_steps must be at least 1, got 0",
        ),
        (
            lambda: ExponentialDecay(0.1, 1, -0.5),
            ValueError,
            "ExponentialDecay: decay_rate must be greater than 0, got -0.5",
        ),
        (
            lambda: ExponentialDecay(-0.1, 1, 0.5),
            ValueError,
            "ExponentialDecay: learning_rate must be at least 0, got -0.1",
        ),
        (
            lambda: CosineDecay(0.1, -3),
            ValueError,
            "CosineDecay: decay_steps must be at least 1, got -3",
        ),
        (
            lambda: CosineDecay(0.1, 3, -1),
            ValueError,
            "CosineDecay: final must be at least 0, got -1",
        ),
        (
            lambda: CosineDecay(float("nan"), 3),
            ValueError,
            "CosineDecay: learning_rate must be finite, got nan",
        ),
        (lambda: WarmUp("cosine", 3), TypeError, "learning_rate must be a number, got 'cosine'"),
        (lambda: WarmUp(0.1, 0), ValueError, "WarmUp: steps must be at least 1, got 0"),
        (lambda: WarmUp(0.1, 3, -1), ValueError, "WarmUp: start must be at least 0, got -1"),
    ],
)
def test_arguments_refused(make, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        make()


class TestOwnSchedule:
    def test_a_number_for_all_steps_will_do(self):
        @dataclass(frozen=True)
        class Half(Schedule):
            def rates(self, steps):
                return 0.5

        assert Half()(np.arange(3)).tolist() == [0.5, 0.5, 0.5]
        assert fm.schedules.get(Half())(0) == 0.5

    @pytest.mark.parametrize(("rate", "shown"), [(-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf")])
    def test_a_bad_rate_is_refused_with_its_step(self, rate, shown):
        @dataclass(frozen=True)
        class Bad(Schedule):
            def rates(self, steps):
                return np.where(steps == 7, rate, 0.1)

        message = f"^Bad: the learning rate must be finite and at least 0, got {shown} at step 7$"
        with pytest.raises(ValueError, match=message):
            Bad()(np.arange(5, 10))
        with pytest.raises(ValueError, match=message):
            Bad()(7)

    def test_nothing_defined(self):
        with pytest.raises(NotImplementedError, match=r"^Schedule must define rates\(steps\)$"):
            Schedule()(0)


def test_an_overflow_is_an_error_and_no_warning():
    with pytest.raises(ValueError, match=r"^ExponentialDecay: .* got inf at step 2000$"):
        ExponentialDecay(1.0, decay_steps=1, decay_rate=2.0)(2000)  # 2 ** 2000
