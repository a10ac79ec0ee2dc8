"""Settings: their checks, the lookup of names, and the way to files and back."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastmlp as fm
from fastmlp._config import check_integer, check_number, from_config, lookup, to_config


@dataclass
class Leaf:
    size: int
    ratio: float = 0.5
    note: str | None = None


@dataclass
class Tree:
    leaf: Leaf
    betas: tuple[float, float] = (0.9, 0.999)
    moments: list[int] = field(default_factory=list, init=False)
    function: Any = field(default=None, metadata={"saved": False})


CLASSES = {"Leaf": Leaf, "Tree": Tree}


class TestCheckInteger:
    @pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
    def test_every_kind_of_integer_becomes_an_int(self, value):
        result = check_integer("Dense: units", value, at_least=3)
        assert result == 3
        assert type(result) is int

    @pytest.mark.parametrize("value", [3.0, "3", None, True, np.float32(3), [3]])
    def test_other_kinds(self, value):
        with pytest.raises(TypeError, match=r"^Dense: units must be an integer, got "):
            check_integer("Dense: units", value, at_least=1)

    def test_too_small(self):
        with pytest.raises(ValueError, match=r"^Dense: units must be at least 1, got 0$"):
            check_integer("Dense: units", 0, at_least=1)


class TestCheckNumber:
    @pytest.mark.parametrize("value", [2, 2.0, np.int8(2), np.float32(2), np.float64(2)])
    def test_every_kind_of_number_becomes_a_float(self, value):
        result = check_number("Adam: epsilon", value)
        assert result == 2.0
        assert type(result) is float

    @pytest.mark.parametrize("value", ["1e-3", None, False, 1j, [0.1]])
    def test_other_kinds(self, value):
        with pytest.raises(TypeError, match=r"^Adam: epsilon must be a number, got "):
            check_number("Adam: epsilon", value)

    @pytest.mark.parametrize(
        ("value", "bounds", "message"),
        [
            (float("nan"), {}, "x must be finite, got nan"),
            (float("inf"), {}, "x must be finite, got inf"),
            (-float("inf"), {"at_least": 0}, "x must be finite, got -inf"),
            (-0.5, {"at_least": 0}, "x must be at least 0, got -0.5"),
            (0, {"above": 0}, "x must be greater than 0, got 0"),
        ],
    )
    def test_values_out_of_range(self, value, bounds, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            check_number("x", value, **bounds)

    def test_bounds_themselves(self):
        assert check_number("x", 0, at_least=0) == 0.0
        assert check_number("x", 5e-324, above=0) == 5e-324


TABLE = {"adam": 1, "adamw": 2, "sgd": 3, "he_normal": 4}
ALIASES = {"kaiming_normal": "he_normal"}


class TestLookup:
    @pytest.mark.parametrize(
        ("name", "entry"),
        [
            ("adam", 1),
            ("ADAM", 1),
            ("AdamW", 2),
            ("HeNormal", 4),
            ("he-normal", 4),
            ("he normal", 4),
            ("kaiming_normal", 4),
            ("kaiming_normal_", 4),
        ],
    )
    def test_case_and_separators_do_not_matter(self, name, entry):
        assert lookup("optimizer", name, TABLE, ALIASES) == entry

    def test_unknown_name_lists_the_known_and_suggests_one(self):
        message = (
            "^optimizer: unknown name 'adm'; known: adam, adamw, he_normal, sgd "
            r"\(did you mean 'adam'\?\)$"
        )
        with pytest.raises(ValueError, match=message):
            lookup("optimizer", "adm", TABLE)

    def test_suggestion_for_a_misspelt_alias_is_the_proper_name(self):
        with pytest.raises(ValueError, match=r"\(did you mean 'he_normal'\?\)$"):
            lookup("initializer", "kaiming_norml", TABLE, ALIASES)

    @pytest.mark.parametrize("name", ["", "zzz"])
    def test_no_suggestion_where_nothing_is_near(self, name):
        with pytest.raises(ValueError, match=r"known: adam, adamw, he_normal, sgd$"):
            lookup("optimizer", name, TABLE)

    @pytest.mark.parametrize(
        ("identifier", "kind"), [(3, "int"), (None, "NoneType"), (Leaf, "the class Leaf")]
    )
    def test_no_name_at_all(self, identifier, kind):
        with pytest.raises(
            TypeError, match=f"^optimizer: expected a name or an object, got {kind}$"
        ):
            lookup("optimizer", identifier, TABLE)


class TestToConfig:
    def test_what_is_written(self):
        tree = Tree(Leaf(3, note="x"), function=print)
        tree.moments.append(1)
        assert to_config(tree) == {
            "class": "Tree",
            "leaf": {"class": "Leaf", "size": 3, "ratio": 0.5, "note": "x"},
            "betas": [0.9, 0.999],
        }

    def test_numpy_scalars_become_plain(self):
        config = to_config(Leaf(np.int64(3), np.float64(0.1)))
        assert config == {"class": "Leaf", "size": 3, "ratio": 0.1, "note": None}
        assert [type(config[key]) for key in ("size", "ratio")] == [int, float]

    def test_no_dataclass(self):
        with pytest.raises(
            TypeError, match=r"^object: cannot be written to a file, since it is no dataclass$"
        ):
            to_config(object())

    @pytest.mark.parametrize("value", [print, np.zeros(2), Leaf, {"a": 1}, 1j])
    def test_values_unknown_to_json(self, value):
        with pytest.raises(TypeError, match=r"^Leaf: note cannot be written to a file, got "):
            to_config(Leaf(1, note=value))


class TestFromConfig:
    def test_round_trip_by_way_of_json(self):
        tree = Tree(Leaf(3, ratio=1 / 3))
        back = from_config(json.loads(json.dumps(to_config(tree))), CLASSES)
        assert back == tree
        assert isinstance(back.betas, tuple)

    def test_defaults_fill_in(self):
        assert from_config({"class": "Leaf", "size": 1}, CLASSES) == Leaf(1, 0.5, None)

    @pytest.mark.parametrize("config", [None, [], "Leaf", {}, {"class": 1}, {"size": 1}])
    def test_nothing_that_was_written(self, config):
        with pytest.raises(ValueError, match=r"^config: expected a dict with a 'class', got "):
            from_config(config, CLASSES)

    @pytest.mark.parametrize("name", ["Bush", "os.system", "tests.test_config.Leaf"])
    def test_unknown_class(self, name):
        with pytest.raises(
            ValueError, match=f"^config: unknown class '{name}'; known: Leaf, Tree$"
        ):
            from_config({"class": name}, CLASSES)

    def test_unknown_class_inside(self):
        with pytest.raises(ValueError, match=r"^config: unknown class 'Bush'; known: Leaf, Tree$"):
            from_config({"class": "Tree", "leaf": {"class": "Bush"}}, CLASSES)

    @pytest.mark.parametrize(
        ("name", "key"), [("Leaf", "sise"), ("Tree", "moments"), ("Tree", "function")]
    )
    def test_unknown_argument(self, name, key):
        with pytest.raises(ValueError, match=f"^{name}: unknown argument '{key}'; known: "):
            from_config({"class": name, key: 1}, CLASSES)

    def test_missing_argument(self):
        with pytest.raises(ValueError, match=r"^Leaf: argument 'size' is missing$"):
            from_config({"class": "Leaf", "ratio": 0.1}, CLASSES)

    def test_what_the_class_itself_refuses(self):
        config = {"class": "StepDecay", "learning_rate": 0.1, "every": 0}
        with pytest.raises(ValueError, match=r"^StepDecay: every must be at least 1, got 0$"):
            from_config(config, fm.schedules.CLASSES)
