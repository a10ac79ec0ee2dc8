"""Tables for a network: what the command line finds out about columns, and what it keeps of it.

`read` makes one table of whatever a file holds, `describe` decides what each column is, and
`TablePipeline` turns rows into numbers with scikit-learn's transformers. What those learned is
stored as JSON and arrays and never pickled: a `TablePipeline` is rebuilt by fitting it again.
"""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastmlp import datasets
from fastmlp._optional import optional
from fastmlp.datasets import Array, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame, Series

__all__ = ["Schema", "Table", "TablePipeline", "describe", "read", "read_csv"]

Task = Literal["classification", "regression"]

MAX_CATEGORIES = 100
"""Of a column of text, this many of the most common values become columns of their own."""

MAX_CLASSES = 1000

_TARGETS = ("target", "label", "labels", "class", "y", "species", "outcome")
_IDS = ("", "unnamed: 0", "id", "index", "row", "rownames")
_GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
_BOOLS = {"true": "True", "TRUE": "True", "false": "False", "FALSE": "False"}


@dataclass(frozen=True)
class Table:
    """Rows with named columns, and what their source says about them."""

    frame: DataFrame
    test: DataFrame | None = None
    """Rows that the source itself holds back for the test."""
    target: str | None = None
    """The target's column, where the source knows it: a CSV file does not."""
    task: Task | None = None
    image: bool = False
    """The columns are the values of one picture or signal, so they share one scale."""


@dataclass(frozen=True)
class Schema:
    """What each column of a table is."""

    target: str
    task: Task
    classes: tuple[str | int | float, ...]
    """The values of the target in order; empty in a regression."""
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    image: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that the network reads."""
        return self.numeric + self.categorical

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that hold text, to be read as such from the next file too."""
        target = (self.target,) if self.classes and isinstance(self.classes[0], str) else ()
        return self.categorical + target


def read(
    data: str, labels: str | None = None, *, text: Iterable[str] = (), target: bool = True
) -> Table:
    """Read any source that the command line takes into one table.

    Parameters
    ----------
    data, labels : str
        As in `fastmlp.datasets.load`.
    text : iterable of str
        Columns of a CSV file to read as text, even where they look like numbers.
    target : bool, default True
        Whether the rows must come with a target; a prediction can do without.

    Raises
    ------
    FileNotFoundError, ValueError, ModuleNotFoundError
        As in `fastmlp.datasets.load`; also if there are no rows.
    """
    if data in datasets.DOWNLOADS:
        data = str(datasets.fetch(data))
    kind = datasets.kind_of(data)
    if labels is not None and kind != "idx":
        raise ValueError(f"a second file holds the labels of IDX images, but {data} is not one")
    if kind == "csv":
        return Table(read_csv(Path(data), text))
    if kind == "name":
        bunch = datasets.read_bundled(data)
        y = bunch.target
        if "target_names" in bunch:
            y = np.asarray(bunch.target_names)[y]
        frame = _as_frame(bunch.data, bunch.feature_names)
        frame["target"] = y
        return Table(frame, target="target", image="images" in bunch)
    if kind == "idx":
        beside = labels or datasets.labels_beside(Path(data))
        if beside is None and not target:
            arrays = {"x": datasets.read_idx(data)}
        else:
            arrays = dict(zip("xy", datasets.read_idx_pair(Path(data), beside), strict=True))
    else:
        arrays = datasets.read_npz(Path(data))
    if target and "y" not in arrays:
        raise ValueError(f"{data}: there is no target 'y' in the archive")
    x = arrays["x"]
    return Table(
        _with_target(data, x, arrays.get("y")),
        test=_with_target(data, arrays["x_test"], arrays.get("y_test"))
        if "x_test" in arrays
        else None,
        target="y",
        task="classification" if kind == "idx" else None,
        image=x.ndim > 2 or x.dtype == np.uint8,
    )


def _with_target(data: str, x: Array, y: Array | None) -> DataFrame:
    """Make a frame of arrays: columns x0, x1, ... and, where there is a target, y."""
    if not len(x):
        raise ValueError(f"{data}: the arrays have no rows")
    x = x.reshape(len(x), -1).astype(np.uint8 if x.dtype == bool else x.dtype, copy=False)
    frame = _as_frame(x, [f"x{i}" for i in range(x.shape[1])])
    if y is not None:
        if y.size != len(x):
            raise ValueError(f"{data}: one target a row is needed, but 'y' has shape {y.shape}")
        frame["y"] = y.ravel()
    return frame


def _as_frame(x: Array, names: Sequence[str]) -> DataFrame:
    frame: DataFrame = optional("pandas", "cli").DataFrame(x, columns=[*map(str, names)])
    return frame


def read_csv(path: Path, text: Iterable[str] = ()) -> DataFrame:
    """Read a CSV file; the separator and whether there is a header are found out.

    The separator is the one of comma, semicolon, tab and bar that the first line holds most of.
    A first line of numbers is no header: the columns are then ``column1``, ``column2``, ... Empty
    fields, ``NA``, ``nan``, ``null`` and ``?`` are missing values.
    """
    pandas = optional("pandas", "cli")
    open_text: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with (
            open_text(path, "rt", encoding="utf-8-sig", newline="") as file,
            warnings.catch_warnings(),
        ):
            first = next(filter(str.strip, file), "")
            if not first:
                raise ValueError(f"{path}: the file is empty")
            file.seek(0)
            separator = max(",;\t|", key=first.count)
            fields = [field.strip(' "\r\n') for field in first.split(separator)]
            headless = _are_values(fields)
            # More fields than names: pandas would shift the columns or drop the last ones.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame: DataFrame = pandas.read_csv(
                file,
                sep=separator,
                header=None if headless else 0,
                names=[f"column{i + 1}" for i in range(len(fields))] if headless else None,
                dtype=dict.fromkeys(text, str),
                index_col=False,
                skipinitialspace=True,
                na_values=["?"],
                low_memory=False,
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text table in UTF-8 ({error.reason})") from error
    except pandas.errors.ParserWarning as error:
        raise ValueError(f"{path}: rows have more fields than the header has names") from error
    except (pandas.errors.ParserError, *_GZIP_ERRORS) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path}: not a readable table: {reason}") from error
    frame.columns = frame.columns.str.strip()
    if frame.empty:
        raise ValueError(f"{path}: the file has a header, but no rows")
    return frame


def _are_values(fields: Sequence[str]) -> bool:
    """Tell a row of data from a header (which may count its columns: 0, 1, 2, ...)."""
    counts_columns = fields == [str(i) for i in range(len(fields))]
    values = sum(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", f.lower()) is not None for f in fields)
    return 2 * values > len(fields) and not counts_columns


def read_numbers(path: Path, target: str | None = None) -> tuple[Array, Array]:
    """Read a CSV file whose every column holds numbers, as features and one target column."""
    frame = read_csv(path)
    name = frame.columns[-1] if target is None else find_column(frame, target)
    columns = {column: numbers(frame[column]) for column in frame}
    y = columns.pop(name)
    if np.all(y == np.round(y)):
        y = y.astype(np.int64)
    return np.column_stack([*columns.values()]) if columns else np.empty((len(y), 0)), y


def numbers(column: Series[Any], advice: str = "") -> NDArray[np.float64]:
    """Return a column as float64, NaN where a value is missing; anything else is an error."""
    values = optional("pandas", "cli").to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(np.isinf(values) | (np.isnan(values) & column.notna().to_numpy()))
    if bad.size:
        row, value = column.index[bad[0]] + 1, str(column.iloc[bad[0]])
        raise ValueError(
            f"column {column.name!r}, row {row}: {value!r} is not a finite number{advice}"
        )
    array: NDArray[np.float64] = values
    return array


def texts(column: Series[Any]) -> Series[Any]:
    """Return a column as text without outer blanks, NaN where a value is missing."""
    text = column.astype(str).str.strip().replace(_BOOLS).astype(object)
    filled: Series[Any] = text.where(column.notna() & (text != ""), np.nan)
    return filled


def find_column(frame: DataFrame, name: str) -> str:
    """Return `name` if the table has it; the error lists the columns and the closest one."""
    if name in frame.columns:
        return name
    known = [str(column) for column in frame.columns]
    raise ValueError(
        f"there is no column {name!r}{did_you_mean(name, known)}; columns: {listed(known)}"
    )


def default_target(frame: DataFrame) -> str:
    """Return the column with a target's usual name, or the last one."""
    names = {str(column).lower(): str(column) for column in frame.columns}
    return next((names[name] for name in _TARGETS if name in names), str(frame.columns[-1]))


def with_target(frame: DataFrame, target: str) -> DataFrame:
    """Return the rows whose target is known; none at all is an error."""
    known = frame[frame[find_column(frame, target)].notna()]
    if known.empty:
        raise ValueError(f"column {target!r} has no values")
    return known


def describe(
    frame: DataFrame,
    target: str,
    *,
    task: Task | None = None,
    ignore: Sequence[str] = (),
    categories: Sequence[str] = (),
    image: bool = False,
) -> tuple[Schema, dict[str, str]]:
    """Decide what each column is.

    A column of numbers is numeric, one of text categorical. Left out are columns without values,
    columns that only name the row, and text that is nearly always different, such as names.

    Parameters
    ----------
    frame : DataFrame
        The rows, with a target in each.
    target : str
        The column to predict.
    task : {"classification", "regression"}, optional
        Default: a regression if the target holds numbers, other than a few whole ones.
    ignore, categories : sequences of str
        Columns to leave out, and columns to take as categories though they look like numbers.

    Returns
    -------
    schema : Schema
    left_out : dict
        Why each column left out is left out.

    Raises
    ------
    ValueError
        If a column named is not there, a column is numbers but for a few texts, the target has
        one class only or too many, or no column is left.
    """
    for name in (*ignore, *categories):
        find_column(frame, name)
    task, classes = _classes(frame[target], task)
    numeric, categorical, left_out = [], [], {}
    for name, column in frame.drop(columns=target).items():
        if name in ignore:
            left_out[name] = "as asked"
        elif not column.notna().any():
            left_out[name] = "no values"
        elif name in categories:
            categorical.append(name)
        elif _holds_numbers(column):
            numbers(column, "; correct it, or see --categories and --ignore")
            if name.lower() in _IDS and column.dtype.kind == "i" and column.is_unique:
                left_out[name] = "names the row"
            else:
                numeric.append(name)
        elif column.nunique() > max(20, column.count() / 2):
            left_out[name] = f"{column.nunique():,} different texts"
        else:
            categorical.append(name)
    if not numeric and not categorical:
        raise ValueError(f"no column is left to predict {target!r} from")
    return Schema(target, task, classes, tuple(numeric), tuple(categorical), image), left_out


def _holds_numbers(column: Series[Any]) -> bool:
    """Tell whether a column is numbers, or mostly: then the text in it is a mistake."""
    if column.dtype.kind in "biuf":
        return bool(column.dtype.kind != "b")
    parsed = optional("pandas", "cli").to_numeric(texts(column).dropna(), errors="coerce")
    return bool(parsed.notna().mean() > 0.5)


def _classes(column: Series[Any], task: Task | None) -> tuple[Task, tuple[str | int | float, ...]]:
    """Find out whether a target is a class or a number, and its classes in order."""
    values: Array
    if _holds_numbers(column):
        values = np.unique(numbers(column))
        if np.all(values == np.round(values)):
            values = values.astype(np.int64)
        few = values.dtype.kind == "i" and len(values) <= min(20, max(2, len(column) // 5))
    else:
        if task == "regression":
            numbers(column, ", which a regression cannot learn")
        values, few = np.array(sorted(set(texts(column)))), True
    if task == "regression" or (task is None and not few):
        if len(values) < 2:
            raise ValueError(f"target {column.name!r} is {values[0]} in every row")
        return "regression", ()
    if len(values) < 2:
        raise ValueError(
            f"target {column.name!r} has a single class, {values.tolist()[0]!r}: "
            "there is nothing to tell apart"
        )
    if len(values) > min(MAX_CLASSES, max(2, len(column) // 2)):
        raise ValueError(
            f"target {column.name!r} has {len(values):,} different values in {len(column):,} rows, "
            "too many to be classes; choose the target with --target"
        )
    return "classification", tuple(values.tolist())


class TablePipeline:
    """Rows of a table to the numbers a network reads, and its outputs back.

    Missing numbers become the column's median, missing categories its most frequent one; numbers
    are standardised; each category becomes a column of zeros and ones, all zeros for a value never
    seen. The target becomes the class's index or, in a regression, is standardised. This is done by
    scikit-learn's SimpleImputer, StandardScaler and OneHotEncoder in a ColumnTransformer.

    Parameters
    ----------
    schema : Schema
        What each column is: see `describe`.

    Examples
    --------
    >>> import pandas
    >>> rows = {"size": [1.0, None, 3.0], "kind": ["a", "b", "b"], "y": [0, 1, 1]}
    >>> frame = pandas.DataFrame(rows)
    >>> schema, _ = describe(frame, "y")
    >>> pipeline = TablePipeline(schema).fit(frame)
    >>> pipeline.transform(frame).round(3).tolist()
    [[-1.225, 1.0, 0.0], [0.0, 0.0, 1.0], [1.225, 0.0, 1.0]]
    >>> pipeline.encode(frame).tolist()
    [0, 1, 1]
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._categories: dict[str, list[str]] = {}

    def fit(self, frame: DataFrame) -> TablePipeline:
        """Learn fill values, scales and categories from the rows to train on; returns itself.

        Columns without any value in these rows are dropped from the schema.
        """
        columns = self._columns(frame)
        schema = self.schema
        self.schema = schema = replace(
            schema,
            numeric=tuple(c for c in schema.numeric if columns[c].notna().any()),
            categorical=tuple(c for c in schema.categorical if columns[c].notna().any()),
        )
        self._categories = {
            name: sorted(columns[name].value_counts().index[:MAX_CATEGORIES])
            for name in schema.categorical
        }
        self._fit_transformer(columns)
        if schema.image:
            mean = self._scaler.mean_.mean()
            scale = np.sqrt((self._scaler.var_ + (self._scaler.mean_ - mean) ** 2).mean()) or 1.0
            ones = np.ones_like(self._scaler.mean_)
            _set_scale(self._scaler, mean * ones, scale * ones)
        self._target_scaler = optional("sklearn.preprocessing", "cli").StandardScaler()
        if schema.task == "regression":
            self._target_scaler.fit(numbers(frame[schema.target])[:, None])
        return self

    def transform(self, frame: DataFrame) -> NDArray[np.float64]:
        """Return the features of rows, shape (rows, inputs).

        Warns of categories that are none of those learned.

        Raises
        ------
        ValueError
            If a column is missing, or holds text where it held numbers.
        """
        columns = self._columns(frame)
        for name, known in self._categories.items():
            unknown = columns[name][columns[name].notna() & ~columns[name].isin(known)]
            if len(unknown):
                warnings.warn(
                    f"column {name!r}: {len(unknown):,} rows hold a value that the model does not "
                    f"know ({listed(unknown.unique(), 3)}); they count as none of its categories",
                    stacklevel=2,
                )
        features: NDArray[np.float64] = self._transformer.transform(columns)
        return features

    def encode(self, frame: DataFrame) -> Array:
        """Return the target of rows as a network learns it.

        Class indices, shape (rows,) int64; or the standardised numbers, shape (rows, 1).

        Raises
        ------
        ValueError
            If the column is missing, or holds a class that was not there before.
        """
        schema = self.schema
        column = frame[find_column(frame, schema.target)]
        if schema.task == "regression":
            scaled: Array = self._target_scaler.transform(numbers(column)[:, None])
            return scaled
        values = texts(column) if isinstance(schema.classes[0], str) else numbers(column)
        classes = optional("pandas", "cli").Index([*schema.classes], dtype=object)
        codes: Array = classes.get_indexer(values).astype(np.int64)
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            raise ValueError(
                f"column {schema.target!r}, row {column.index[row] + 1}: {column.iloc[row]!r} is "
                f"not a class that the model knows ({listed(schema.classes)})"
            )
        return codes

    def decode(self, outputs: Array) -> Array:
        """Return the class of each row of probabilities, or numbers in the target's own units."""
        classes: Array = np.array(self.schema.classes)
        if outputs.ndim != 2 or outputs.shape[1] != (len(classes) or 1):
            raise ValueError(f"outputs of shape {outputs.shape} for {len(classes)} classes")
        if self.schema.task == "classification":
            chosen: Array = classes[outputs.argmax(axis=1)]
            return chosen
        values: Array = self._target_scaler.inverse_transform(outputs.astype(np.float64))
        return values.ravel()

    def to_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what `from_state` needs: a dictionary fit for JSON, and arrays by name."""
        state = {"schema": asdict(self.schema), "categories": self._categories, "common": []}
        arrays: dict[str, Array] = {}
        steps = self._transformer.named_transformers_
        if self.schema.categorical:
            state["common"] = steps["categorical"]["fill"].statistics_.tolist()
        if self.schema.numeric:
            arrays["median"] = steps["numeric"]["fill"].statistics_
            arrays["mean"], arrays["scale"] = self._scaler.mean_, self._scaler.scale_
        if self.schema.task == "regression":
            scaler = self._target_scaler
            arrays["target"] = np.concatenate([scaler.mean_, scaler.scale_])
        return state, arrays

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> TablePipeline:
        """Rebuild a pipeline from what `to_state` returned.

        The transformers are fitted to one row, made of the fill values: their medians and most
        frequent values are then those of that row. The scales are public attributes.

        Raises
        ------
        ValueError
            If something is missing or does not fit together.
        """
        try:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in state["schema"].items()
            }
            pipeline = cls(Schema(**fields))
            schema = pipeline.schema
            pipeline._categories = {name: state["categories"][name] for name in schema.categorical}
            fill = [*arrays.get("median", ()), *state["common"]]
            row = dict(zip(schema.features, fill, strict=True))
            pipeline._fit_transformer(optional("pandas", "cli").DataFrame([row]))
            if schema.numeric:
                _set_scale(pipeline._scaler, arrays["mean"], arrays["scale"])
            pipeline._target_scaler = optional("sklearn.preprocessing", "cli").StandardScaler()
            if schema.task == "regression":
                mean, scale = arrays["target"]
                pipeline._target_scaler.fit([[0.0]])
                _set_scale(pipeline._target_scaler, np.array([mean]), np.array([scale]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"what the file says about columns is damaged ({error})") from error
        return pipeline

    def _columns(self, frame: DataFrame) -> DataFrame:
        """Return the features alone: float64 numbers, and texts as objects."""
        schema = self.schema
        missing = [name for name in schema.features if name not in frame.columns]
        if missing:
            hint = did_you_mean(missing[0], [str(name) for name in frame.columns])
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise ValueError(
                f"there is no column {missing[0]!r}{more}, which the model needs{hint}"
            )
        columns: dict[str, Any] = {name: numbers(frame[name]) for name in schema.numeric}
        columns |= {name: texts(frame[name]) for name in schema.categorical}
        clean: DataFrame = optional("pandas", "cli").DataFrame(columns, index=frame.index)
        return clean

    def _fit_transformer(self, columns: DataFrame) -> None:
        compose, impute, pipeline, preprocessing = (
            optional(f"sklearn.{name}", "cli")
            for name in ("compose", "impute", "pipeline", "preprocessing")
        )
        numeric = {
            "fill": impute.SimpleImputer(strategy="median"),
            "scale": preprocessing.StandardScaler(),
        }
        categorical = {
            "fill": impute.SimpleImputer(strategy="most_frequent"),
            "encode": preprocessing.OneHotEncoder(
                categories=[*self._categories.values()],
                handle_unknown="ignore",
                sparse_output=False,
            ),
        }
        transformer = compose.ColumnTransformer(
            [
                ("numeric", pipeline.Pipeline([*numeric.items()]), [*self.schema.numeric]),
                ("categorical", pipeline.Pipeline([*categorical.items()]), [*self._categories]),
            ]
        )
        self._transformer = transformer.fit(columns)

    @property
    def _scaler(self) -> Any:
        return self._transformer.named_transformers_["numeric"]["scale"]


def _set_scale(scaler: Any, mean: Array, scale: Array) -> None:
    """Give a StandardScaler what it would have learned; it refuses values that do not fit."""
    if not (mean.shape == scale.shape == scaler.mean_.shape and np.all(scale > 0)):
        raise ValueError(f"a scale has shapes {mean.shape} and {scale.shape}")
    scaler.mean_, scaler.scale_, scaler.var_ = mean, scale, scale**2


def listed(values: Iterable[Any], limit: int = 12) -> str:
    """Join values by commas, only the first few of many."""
    words = [str(value) for value in values]
    return ", ".join(words[:limit]) + (", ..." if len(words) > limit else "")
