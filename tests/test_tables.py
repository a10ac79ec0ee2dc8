"""What the command line finds out about columns, and how a table becomes numbers and stays so."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from fastmlp import tables

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")


def houses(rows=60, seed=0):
    """A table with all kinds of columns: missing values, categories, an id, a name, a constant."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(20, 200, rows)
    town = rng.choice(["Ulm", "Bonn", "Jena"], rows)
    frame = pd.DataFrame(
        {
            "id": np.arange(1, rows + 1),
            "area": area,
            "rooms": rng.integers(1, 7, rows),
            "town": town,
            "garden": rng.random(rows) < 0.5,
            "owner": [f"owner {i}" for i in range(rows)],
            "floor": np.nan,
            "price": 3000 * area + 50_000 * (town == "Ulm"),
        }
    )
    frame.loc[::7, "rooms"] = np.nan
    frame.loc[3::8, "town"] = np.nan
    return frame


def fitted(frame=None, target="price", **options):
    frame = houses() if frame is None else frame
    schema, _ = tables.describe(frame, target, **options)
    return tables.TablePipeline(schema).fit(frame)


def test_describe():
    schema, left_out = tables.describe(houses(), "price")
    assert schema.task == "regression"
    assert schema.numeric == ("area", "rooms")
    assert schema.categorical == ("town", "garden")
    assert left_out == {
        "id": "names the row",
        "owner": "60 different texts",
        "floor": "no values",
    }


def test_describe_as_told():
    frame = tables.with_target(houses(), "town")
    schema, left_out = tables.describe(frame, "town", ignore=["area"], categories=["rooms"])
    assert schema.task == "classification"
    assert left_out["area"] == "as asked"
    assert schema.categorical == ("rooms", "garden")
    assert schema.numeric == ("price",)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 10, "classification"),
        ([True, False] * 10, "classification"),
        ([0, 1] * 10, "classification"),
        ([0.0, 1.0] * 10, "classification"),
        (list(range(10)) * 5, "classification"),
        (list(range(20)), "regression"),  # whole numbers, but as many as rows
        (list(range(30)) * 10, "regression"),
        ([0.5, 1.5] * 10, "regression"),
    ],
)
def test_the_task_is_found_out(values, task):
    frame = pd.DataFrame({"a": np.arange(len(values)) ** 2, "y": values})
    schema, _ = tables.describe(frame, "y")
    assert schema.task == task
    assert bool(schema.classes) == (task == "classification")


@pytest.mark.parametrize(
    ("columns", "target"),
    [("a,target,b", "target"), ("Label,a", "Label"), ("a,b,c", "c"), ("species,class", "class")],
)
def test_the_target_is_found_out(columns, target):
    assert tables.default_target(pd.DataFrame(columns=columns.split(","))) == target


def test_targets_that_cannot_be_learned():
    frame = houses()
    for target, options, says in [
        ("owner", {"task": "regression"}, "'owner', row 1: 'owner 0' .* a regression cannot learn"),
        ("owner", {}, "60 different values in 60 rows, too many to be classes"),
        ("price", {"task": "classification"}, "too many to be classes"),
    ]:
        with pytest.raises(ValueError, match=says):
            tables.describe(frame, target, **options)
    for task in ("classification", "regression"):
        with pytest.raises(ValueError, match=r"single class, 1|is 1 in every row"):
            tables.describe(frame.assign(y=1), "y", task=task)
    with pytest.raises(ValueError, match="no column is left to predict 'y' from"):
        tables.describe(pd.DataFrame({"id": range(1, 21), "y": [0, 1] * 10}), "y")


def test_text_where_numbers_should_be():
    frame = houses().astype({"area": object})
    frame.loc[4, "area"] = "large"
    with pytest.raises(ValueError, match="column 'area', row 5: 'large' is not a finite number"):
        tables.describe(frame, "price")
    schema, _ = tables.describe(frame, "price", ignore=["area"])
    assert "area" not in schema.features
    frame.loc[4, "area"] = np.inf
    with pytest.raises(ValueError, match="column 'area', row 5: 'inf' is not a finite number"):
        tables.describe(frame, "price")


def test_unknown_columns_come_with_a_suggestion():
    with pytest.raises(ValueError, match=r"'prize' \(did you mean 'price'\?\); columns: id, area"):
        tables.find_column(houses(), "prize")
    with pytest.raises(ValueError, match=r"no column 'aera' \(did you mean 'area'"):
        tables.describe(houses(), "price", ignore=["aera"])


def test_transform_by_hand():
    frame = pd.DataFrame(
        {"a": [1.0, 2.0, np.nan, 6.0], "b": ["x", np.nan, "y", "x"], "y": [1.0, 2.0, 3.0, 4.5]}
    )
    pipeline = fitted(frame, "y", task="regression")
    # The median of 1, 2, 6 is 2; 1, 2, 2, 6 have mean 2.75 and variance 3.6875.
    expected = (np.array([1, 2, 2, 6]) - 2.75) / np.sqrt(3.6875)
    x = pipeline.transform(frame)
    np.testing.assert_allclose(x[:, 0], expected, rtol=1e-15)
    np.testing.assert_array_equal(x[:, 1:], [[1, 0], [1, 0], [0, 1], [1, 0]])
    y = pipeline.encode(frame)
    assert y.shape == (4, 1)
    assert abs(y.mean()) < 1e-15
    assert y.std() == pytest.approx(1)
    np.testing.assert_allclose(pipeline.decode(y), frame["y"])


def test_an_image_has_one_scale():
    frame = pd.DataFrame({"x0": [0, 0, 0, 8], "x1": [4, 4, 4, 4], "y": [0, 1, 0, 1]})
    x = fitted(frame, "y", image=True).transform(frame)
    values = frame[["x0", "x1"]].to_numpy()
    np.testing.assert_allclose(x, (values - values.mean()) / values.std())


def test_classes():
    frame = houses()
    frame["town"] = frame["town"].fillna("Ulm")
    pipeline = fitted(frame, "town")
    assert pipeline.schema.classes == ("Bonn", "Jena", "Ulm")
    codes = pipeline.encode(frame)
    assert codes.dtype == np.int64
    assert pipeline.decode(np.eye(3)[codes]).tolist() == frame["town"].tolist()
    frame.loc[5, "town"] = "Rome"
    with pytest.raises(ValueError, match=r"'town', row 6: 'Rome' is not a class .*Bonn, Jena, Ulm"):
        pipeline.encode(frame)
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 4\) for 3 classes"):
        pipeline.decode(np.ones((2, 4)))


def test_new_rows():
    pipeline = fitted()
    new = houses(5, seed=1).astype({"garden": object})
    new.loc[2, ["area", "town", "garden"]] = np.nan, "Rome", None
    with pytest.warns(UserWarning, match=r"'town': 1 rows hold a value .*\(Rome\)"):
        x = pipeline.transform(new)
    assert np.isfinite(x).all()
    assert not x[2, 2:5].any()  # neither Bonn nor Jena nor Ulm
    with pytest.raises(ValueError, match=r"no column 'rooms' \(and 1 more\)"):
        pipeline.transform(new.drop(columns=["rooms", "town"]))
    with pytest.raises(ValueError, match=r"no column 'area', which .*did you mean 'Area'\?\)"):
        pipeline.transform(new.rename(columns={"area": "Area"}))
    new["rooms"] = new["rooms"].astype(object).where(new.index != 1, "many")
    with pytest.raises(ValueError, match="column 'rooms', row 2: 'many' is not a finite number"):
        pipeline.transform(new)


def test_only_the_most_common_of_many_categories_count():
    towns = [f"town {i:03}" for i in range(tables.MAX_CATEGORIES + 20)]
    frame = pd.DataFrame({"town": towns[:100] * 3 + towns, "y": 0})
    frame["y"] = frame.index % 2
    pipeline = fitted(frame, "y")
    with pytest.warns(UserWarning, match="20 rows hold a value"):
        x = pipeline.transform(frame)
    assert x.shape == (len(frame), tables.MAX_CATEGORIES)


def test_columns_without_values_among_the_training_rows_are_dropped():
    frame = houses()
    frame.loc[:9, "floor"] = 1.0
    schema, _ = tables.describe(frame, "price")
    assert "floor" in schema.features
    pipeline = tables.TablePipeline(schema).fit(frame[10:])
    assert "floor" not in pipeline.schema.features
    assert np.isfinite(pipeline.transform(frame)).all()


STATES = {
    "regression": ("price", {}),
    "classes of text": ("town", {}),
    "classes of numbers": ("rooms", {"task": "classification"}),
    "image": ("garden", {"image": True, "ignore": ["town", "rooms"]}),
    "numbers only": ("price", {"ignore": ["town", "garden"]}),
    "categories only": ("price", {"ignore": ["area", "rooms"]}),
}


@pytest.mark.parametrize(("target", "options"), STATES.values(), ids=STATES)
def test_the_state_survives_a_file(target, options):
    frame = tables.with_target(houses(), target)
    pipeline = fitted(frame, target, **options)
    state, arrays = pipeline.to_state()
    assert all(array.dtype == np.float64 for array in arrays.values())
    again = tables.TablePipeline.from_state(json.loads(json.dumps(state)), arrays)
    assert again.schema == pipeline.schema
    new = houses(30, seed=2)
    np.testing.assert_array_equal(again.transform(new), pipeline.transform(new))
    y = pipeline.encode(frame)
    np.testing.assert_array_equal(again.encode(frame), y)
    outputs = np.eye(len(pipeline.schema.classes))[y] if pipeline.schema.classes else y
    np.testing.assert_array_equal(again.decode(outputs), pipeline.decode(outputs))


def test_a_damaged_state_is_refused():
    state, arrays = fitted().to_state()
    for changes, array_changes in [
        ({"schema": None}, {}),
        ({"schema": {**state["schema"], "more": 1}}, {}),
        ({"categories": {}}, {}),
        ({"common": []}, {}),
        ({}, {"mean": np.ones(1)}),
        ({}, {"scale": np.zeros(2)}),
        ({}, {"median": np.full(2, np.inf)}),
        ({}, {"target": np.ones(3)}),
    ]:
        with pytest.raises(ValueError, match="what the file says about columns is damaged"):
            tables.TablePipeline.from_state({**state, **changes}, {**arrays, **array_changes})


def read(tmp_path, content, **options):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read_csv(path, **options)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(tmp_path, separator):
    frame = read(tmp_path, "a,b\n1,x\n2,\n".replace(",", separator))
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].isna().tolist() == [False, True]


def test_headers(tmp_path):
    iris = "5.1,3.5,1.4,setosa\r\n4.9,3.0,1.4,setosa\r\n"
    assert read(tmp_path, iris).columns.tolist() == [f"column{i}" for i in (1, 2, 3, 4)]
    assert len(read(tmp_path, iris)) == 2
    assert read(tmp_path, "0,1,2\n5,6,7\n").columns.tolist() == ["0", "1", "2"]
    assert read(tmp_path, '\ufeff"a" , b\n1, 2\n').columns.tolist() == ["a", "b"]
    assert read(tmp_path, "\n\na;b\n1;2\n").columns.tolist() == ["a", "b"]


def test_values(tmp_path):
    frame = read(tmp_path, "a,b,c\n1, yes ,01\n?,NA,02\n", text=["c"])
    assert frame["a"].isna().tolist() == [False, True]
    assert tables.texts(frame["b"]).tolist()[0] == "yes"
    assert frame["b"].isna()[1]
    assert frame["c"].tolist() == ["01", "02"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("a,b\n", "a header, but no rows"),
        ("a,b\n1,2\n1,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("a,b\n1,2,3\n1,2,3\n", "rows have more fields than the header"),
        ('a,b\n1,"2\n', "not a readable table"),
        ("a,b\n1,é\n".encode("latin-1"), "not a text table in UTF-8"),
        (b"\x00\xff\xfe\x80", "not a text table in UTF-8"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, text)


def test_a_table_may_be_packed(tmp_path):
    path = tmp_path / "a.csv.gz"
    houses().to_csv(path, index=False)
    assert len(tables.read(str(path)).frame) == 60
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable table"):
        tables.read(str(path))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a readable table"):
        tables.read(str(path))


def test_arrays_become_tables(tmp_path):
    path = str(tmp_path / "a.npz")
    x, y = np.arange(24, dtype=np.uint8).reshape(4, 3, 2), np.array([0, 1, 0, 1])
    np.savez(path, x_train=x, y_train=y[:, None], x_test=x[:2], y_test=y[:2])
    table = tables.read(path)
    assert table.frame.columns.tolist() == [f"x{i}" for i in range(6)] + ["y"]
    assert table.frame.loc[1].tolist() == [6, 7, 8, 9, 10, 11, 1]
    assert len(table.test) == 2
    assert table.image
    np.savez(path, x=x[:, :, 0] > 5)
    table = tables.read(path, target=False)
    assert not table.image
    assert table.frame["x0"].tolist() == [0, 1, 1, 1]
    with pytest.raises(ValueError, match="no target 'y' in the archive"):
        tables.read(path)
    np.savez(path, x=x, y=np.eye(4))
    with pytest.raises(ValueError, match=r"one target a row is needed, but 'y' has shape \(4, 4\)"):
        tables.read(path)
    np.savez(path, x=x[:0], y=y[:0])
    with pytest.raises(ValueError, match="the arrays have no rows"):
        tables.read(path)


def test_bundled_data_sets_become_tables():
    table = tables.read("iris")
    assert table.frame.columns[0] == "sepal length (cm)"
    assert set(table.frame[table.target]) == {"setosa", "versicolor", "virginica"}
    assert tables.read("digits").image
    with pytest.raises(ValueError, match="labels of IDX images, but iris is not one"):
        tables.read("iris", "labels")


def test_nothing_is_warned_of_in_plain_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline = fitted()
        pipeline.transform(houses())
