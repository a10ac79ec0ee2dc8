"""The command line: train a network on a table or on images, predict, evaluate, time it."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

import fastmlp as fm
from fastmlp import datasets, tables
from fastmlp._optional import optional

if TYPE_CHECKING:
    from pandas import DataFrame

    from fastmlp.callbacks import History
    from fastmlp.datasets import Array
    from fastmlp.tables import Schema, TablePipeline

__all__ = ["main"]

AIMS = ("train", "validate", "test")
FEWEST_ROWS = 10
OPTIMIZERS = {
    "adam": (fm.Adam, 4e-3),
    "adamw": (fm.AdamW, 4e-3),
    "rmsprop": (fm.RMSprop, 2e-3),
    "sgd": (fm.SGD, 0.1),
}
"""The optimizers by name, with the learning rate that each begins with by default."""

_DATA = (
    "a .csv table, an .npz archive (x and y, or x_train and y_train), a file of IDX images, "
    f"or one of {', '.join((*datasets.NAMES, *datasets.DOWNLOADS))}"
)
_LABELS = "the labels of IDX images (default: the file beside them)"
_EXAMPLES = """\
examples:
  fastmlp train digits
  fastmlp train housing.csv --target median_house_value --plot history.png
  fastmlp train t10k-images-idx3-ubyte.gz --hidden 256 --output mnist.safetensors
  fastmlp predict model.safetensors new.csv --output predictions.csv
  fastmlp evaluate model.safetensors other.csv
  fastmlp info model.safetensors
  fastmlp bench
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        The exit status: 0; 2 after a wrong call or wrong data; 130 after Ctrl-C.

    Examples
    --------
    >>> from fastmlp.cli import main
    >>> main(["evaluate", "model.safetensors", "irsi"])
    2
    """
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _note
            status: int = options.command(options)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nfastmlp: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError, ImportError) as error:
        print(f"fastmlp: error: {_sentence(error)}", file=sys.stderr)
        return 2
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a note to the user; for one of these, its place in the code is none."""
    print(f"fastmlp: note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastmlp",
        description="Train multilayer perceptrons on tables and images, and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastmlp {fm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    wide = partial(argparse.HelpFormatter, max_help_position=34)
    train = commands.add_parser("train", help="train a network and save it", formatter_class=wide)
    _add_train(train)
    _add_predict(commands.add_parser("predict", help="predict the target of new rows"))
    _add_evaluate(commands.add_parser("evaluate", help="compare predictions with known targets"))
    info = commands.add_parser("info", help="describe a model file, or this installation")
    info.add_argument("model", nargs="?", metavar="MODEL", help="a file that train saved")
    info.set_defaults(command=_info)
    _add_bench(commands.add_parser("bench", help="time this machine beside other libraries"))
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network and save it. What each column is, and whether the target is a class or a "
        "number, is found out and printed. A fifth of the rows is held out to test on."
    )
    parser.usage = "%(prog)s [options] DATA [LABELS]"
    parser.set_defaults(command=_train)
    add = parser.add_argument
    add("data", metavar="DATA", help=_DATA)
    add("labels", metavar="LABELS", nargs="?", help=_LABELS)
    add("--output", default="model.safetensors", help="file to save (default: %(default)s)")
    add("--plot", help="file for a picture of the training: .png, .pdf or .svg")
    add("--quiet", action="store_true", help="print the test figures only")

    add = parser.add_argument_group("data").add_argument
    add(
        "--target", help="column to predict (default: 'target', 'label' or the like, else the last)"
    )
    add("--task", choices=["classification", "regression"], help="default: found out")
    add("--ignore", type=_names, default=(), help="columns to leave out: a,b,c")
    add("--categories", type=_names, default=(), help="columns of numbers that are only codes")
    add("--test-size", type=_share, default=0.2, help="share to test on (default: %(default)s)")
    add("--validation-size", type=_share, default=0.1, help="share of the rest (default: 0.1)")

    add = parser.add_argument_group("network").add_argument
    add("--hidden", type=_units, default=(128, 64), help="hidden units, or none (default: 128,64)")
    add("--activation", default="relu", help="of the hidden layers (default: %(default)s)")
    add("--dropout", type=_share, default=0.0, help="share of hidden units (default: 0)")
    add("--dtype", choices=["float32", "float64"], default="float32", help="default: %(default)s")

    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=_count, default=60, help="at most (default: %(default)s)")
    add("--patience", type=_count, default=15, help="epochs without progress (default: 15)")
    add("--batch-size", type=_count, help="default: 128, fewer if there are few rows")
    add("--optimizer", choices=list(OPTIMIZERS), default="adam", help="default: %(default)s")
    add(
        "--learning-rate",
        type=float,
        help="at first; falls to 0 (default: 0.004, rmsprop: 0.002, sgd: 0.1)",
    )
    add("--weight-decay", type=float, help="default: 1 by the rows to train on")
    add("--seed", type=_seed, default=0, help="decides every random number (default: 0)")
    add("--threads", type=_count, help="default: one a core")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Predict the target of each row; a target in the data is not looked at."
    parser.set_defaults(command=_predict)
    parser.add_argument("model", metavar="MODEL", help="a file that train saved")
    parser.add_argument("data", metavar="DATA", help=_DATA)
    parser.add_argument("--output", metavar="FILE", help="a .csv file (default: print)")
    parser.add_argument("--probabilities", action="store_true", help="add those of each class")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Compare predictions with the targets in the data."
    parser.set_defaults(command=_evaluate)
    parser.add_argument("model", metavar="MODEL", help="a file that train saved")
    parser.add_argument("data", metavar="DATA", help=_DATA)
    parser.add_argument("labels", metavar="LABELS", nargs="?", help=_LABELS)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Time a training step and an inference of some networks, beside those other libraries that "
        "are installed. All must compute the same first. Let nothing else run meanwhile."
    )
    parser.set_defaults(command=_bench)
    parser.add_argument(
        "workloads", nargs="?", default="ABCDE", help="letters from A to H (default: %(default)s)"
    )
    parser.add_argument("--peers", metavar="NAME", nargs="*", help="default: all installed")
    parser.add_argument("--threads", type=_count, help="the most (default: one a core)")
    parser.add_argument("--json", metavar="FILE", help="file for the results")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _units(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(_count(units) for units in text.split(","))


def _count(text: str, least: int = 1) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    return _count(text, least=0)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return share


@dataclass(frozen=True)
class _Data:
    """Rows to learn from, and what is known of their columns."""

    pipeline: TablePipeline
    training: DataFrame
    validation: DataFrame
    test: DataFrame
    left_out: dict[str, str]
    how: str
    """How the target was chosen, if it was."""

    def arrays(self, rows: DataFrame) -> tuple[Array, Array]:
        return self.pipeline.transform(rows), self.pipeline.encode(rows)


def _train(options: argparse.Namespace) -> int:
    _check_outputs(options)
    if options.threads:
        fm.set_num_threads(options.threads)
    data = _prepare(options)
    x, y = data.arrays(data.training)
    batch_size = options.batch_size or max(8, min(128, len(x) // 50))
    model = _model(x.shape, data.pipeline.schema, batch_size, options)
    if not options.quiet:
        _announce(data, model, options)
    stopping = fm.callbacks.EarlyStopping(patience=options.patience, restore_best_weights=True)
    watched = len(data.validation) > 0
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=options.epochs,
        validation_data=data.arrays(data.validation) if watched else None,
        callbacks=[stopping] if watched else [],
        verbose=0 if options.quiet else "auto",
    )
    if not options.quiet:
        _row("trained", _outcome(history, stopping.best_epoch, options.epochs))
    figures = {}
    if len(data.test):
        if not options.quiet:
            print(f"\ntest: {len(data.test):,} rows that training did not see")
        figures = _report(data.pipeline, data.test, model)
    _save(model, data.pipeline, options, history, figures)
    if options.plot and history.epoch:
        fm.plotting.history(history, options.plot)
    if not options.quiet:
        print(f"\nsaved {options.output}" + (f" and {options.plot}" if options.plot else ""))
    return 130 if history.interrupted else 0


def _prepare(options: argparse.Namespace) -> _Data:
    """Read the data, find out what its columns are, and split its rows."""
    table = tables.read(options.data, options.labels, text=options.categories)
    how = ""
    target = options.target or table.target
    if target is None:
        target = tables.default_target(table.frame)
        which = "the last column" if target == table.frame.columns[-1] else "by its name"
        how = f" ({which}; choose with --target)"
    frame = tables.with_target(table.frame, target)
    if len(frame) < FEWEST_ROWS:
        raise ValueError(
            f"{options.data}: {len(frame)} rows with a target are too few to train on; "
            f"at least {FEWEST_ROWS} are needed"
        )
    schema, left_out = tables.describe(
        frame,
        target,
        task=options.task or table.task,
        ignore=options.ignore,
        categories=options.categories,
        image=table.image,
    )
    if table.test is None:
        frame, test = _split(frame, schema, options.test_size, options.seed)
    else:
        test = tables.with_target(table.test, target)
    training, validation = _split(frame, schema, options.validation_size, options.seed)
    pipeline = tables.TablePipeline(schema).fit(training)
    return _Data(pipeline, training, validation, test, left_out, how)


def _check_outputs(options: argparse.Namespace) -> None:
    """Find out before training, not after it, that its result could not be written."""
    for name in filter(None, (options.output, options.plot)):
        folder = Path(name).parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise FileNotFoundError(f"{name}: there is no folder {folder} to write to")
        if Path(name).is_dir():
            raise IsADirectoryError(f"{name}: this is a folder, not a file to write")
    if options.plot:
        optional("matplotlib", "plot")
        if Path(options.plot).suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"{options.plot}: a plot is a .png, .pdf or .svg file")


def _split(
    frame: DataFrame, schema: Schema, share: float, seed: int
) -> tuple[DataFrame, DataFrame]:
    """Split off a share of the rows, with its share of each class where there are enough."""
    if share == 0:
        return frame, frame[:0]
    rows = np.arange(len(frame))
    labels = frame[schema.target].astype(str).to_numpy(str) if schema.classes else None
    try:
        rest, part = fm.data.train_test_split(rows, test_size=share, seed=seed, stratify=labels)
    except ValueError:  # a class with too few rows to share out: leave it to chance
        rest, part = fm.data.train_test_split(rows, test_size=share, seed=seed)
    return frame.iloc[rest], frame.iloc[part]


def _model(
    shape: tuple[int, int], schema: Schema, batch_size: int, options: argparse.Namespace
) -> fm.Sequential:
    rows, inputs = shape
    layers: list[Any] = [fm.Input(inputs)]
    for units in options.hidden:
        layers.append(fm.Dense(units, activation=options.activation))
        if options.dropout:
            layers.append(fm.Dropout(options.dropout))
    if schema.task == "classification":
        layers.append(fm.Dense(len(schema.classes), activation="softmax"))
    else:
        layers.append(fm.Dense(1))
    make, rate = OPTIMIZERS[options.optimizer]
    rate = rate if options.learning_rate is None else options.learning_rate
    steps = options.epochs * math.ceil(rows / batch_size)
    decay = 1 / rows if options.weight_decay is None else options.weight_decay
    model = fm.Sequential(layers, seed=options.seed, dtype=options.dtype)
    model.compile(
        optimizer=make(fm.schedules.CosineDecay(rate, steps), weight_decay=decay),
        loss="cross_entropy" if schema.classes else "mse",
        metrics=["accuracy"] if schema.classes else [],
    )
    return model


def _outcome(history: History, best_epoch: int | None, epochs: int) -> str:
    done = f"{len(history.epoch)} of {epochs} epochs"
    if history.interrupted:
        done = f"interrupted after {done}; what was reached is kept"
    if best_epoch is None:
        return done
    loss = history.history["val_loss"][best_epoch]
    return f"{done}; epoch {best_epoch + 1} is the best, validation loss {loss:.4f}"


def _report(pipeline: TablePipeline, frame: DataFrame, model: fm.Sequential) -> dict[str, float]:
    """Print and return how well a model predicts the target of some rows."""
    outputs, y = model.predict(pipeline.transform(frame)), pipeline.encode(frame)
    if pipeline.schema.task == "regression":
        prediction, truth = pipeline.decode(outputs), pipeline.decode(y)
        figures = {
            "R2": fm.metrics.r2(prediction, truth),
            "MAE": fm.metrics.mae(prediction, truth),
            "RMSE": fm.metrics.rmse(prediction, truth),
        }
        for name, value in figures.items():
            _row(name, f"{value:.4f}" if name == "R2" else f"{value:,.6g}")
        return figures
    chosen = outputs.argmax(axis=1)
    right = int((chosen == y).sum())
    _row("accuracy", f"{right / len(y):.4f} ({right:,} of {len(y):,})")
    names = [str(name) for name in pipeline.schema.classes]
    scores = optional("sklearn.metrics", "cli").precision_recall_fscore_support(
        y, chosen, labels=range(len(names)), zero_division=0
    )
    width = max(10, *map(len, names))
    print(f"\n  {'class':<{width}}  precision  recall      f1    rows")
    for name, precision, recall, f1, rows in zip(names, *scores, strict=True):
        print(f"  {name:<{width}}  {precision:9.3f}  {recall:6.3f}  {f1:6.3f}  {rows:6,}")
    return {"accuracy": right / len(y)}


def _save(
    model: fm.Sequential,
    pipeline: TablePipeline,
    options: argparse.Namespace,
    history: History,
    figures: dict[str, float],
) -> None:
    state, arrays = pipeline.to_state()
    state["training"] = {"data": options.data, "epochs": len(history.epoch), "test": figures}
    model.save(options.output, metadata={"table": json.dumps(state)}, arrays=arrays)


def _load(path: str) -> tuple[fm.Sequential, TablePipeline]:
    model = fm.load(path)
    if "table" not in model.extra_metadata:
        raise ValueError(f"{path}: not saved by 'fastmlp train', so its columns are not known")
    try:
        state = json.loads(model.extra_metadata["table"])
        return model, tables.TablePipeline.from_state(state, model.extra_arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _predict(options: argparse.Namespace) -> int:
    model, pipeline = _load(options.model)
    schema = pipeline.schema
    if options.probabilities and schema.task == "regression":
        raise ValueError(f"--probabilities: {schema.target!r} is a number, not a class")
    table = tables.read(options.data, text=schema.texts, target=False)
    outputs = model.predict(pipeline.transform(table.frame if table.test is None else table.test))
    header, columns = ["prediction"], [pipeline.decode(outputs).tolist()]
    if options.probabilities:
        header += [f"probability_{name}" for name in schema.classes]
        columns += outputs.T.tolist()
    if options.output is None:
        _write_csv(sys.stdout, header, columns)
        return 0
    with Path(options.output).open("w", newline="", encoding="utf-8") as file:
        _write_csv(file, header, columns)
    return 0


def _write_csv(file: TextIO, header: list[str], columns: list[list[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in zip(*columns, strict=True):
        writer.writerow([f"{v:.7g}" if isinstance(v, float) else v for v in row])


def _evaluate(options: argparse.Namespace) -> int:
    model, pipeline = _load(options.model)
    table = tables.read(options.data, options.labels, text=pipeline.schema.texts)
    frame = table.frame if table.test is None else table.test
    frame = tables.with_target(frame, pipeline.schema.target)
    print(f"{options.data}: {len(frame):,} rows")
    _report(pipeline, frame, model)
    return 0


def _info(options: argparse.Namespace) -> int:
    if options.model is None:
        _print_config(fm.show_config())
        return 0
    model, pipeline = _load(options.model)
    training = json.loads(model.extra_metadata["table"])["training"]
    print(f"{options.model}: trained on {training['data']}")
    _print_schema(pipeline.schema)
    _row("epochs", str(training["epochs"]))
    figures = [f"{name} {value:,.6g}" for name, value in training["test"].items()]
    _row("test", ", ".join(figures) or "none")
    print()
    model.summary()
    return 0


def _bench(options: argparse.Namespace) -> int:
    # By name: the folder bench/ lies beside this package, and is part of it when installed.
    bench = importlib.import_module("fastmlp.bench.__main__")
    arguments = [options.workloads, "--short"]
    if options.threads:
        arguments += ["--threads", str(options.threads)]
    if options.json:
        arguments += ["--json", options.json]
    if options.peers is not None:
        arguments += ["--peers", *options.peers]
    status: int = bench.main(arguments)
    return status


def _print_config(config: dict[str, Any]) -> None:
    blas, cuda = config["blas"], config["cuda"]
    print(f"fastmlp {config['version']}")
    _row(
        "CPU",
        f"{config['instruction_set']}, {config['threads']} threads, {config['matmul']} matmul",
    )
    _row("BLAS", f"{blas['library']} {blas['version']}, core {blas['core']} ({blas['origin']})")
    if blas["warning"]:
        _row("", blas["warning"])
    gpu = f"{cuda['device']}, compute capability {cuda['compute_capability']}"
    versions = f"CUDA {cuda['runtime']}, driver for {cuda['driver']}"
    built = "built" if cuda["built"] else "not built"
    _row("GPU", f"{gpu}, {versions}" if cuda["available"] else f"none in use, CUDA {built}")
    _row("", cuda["blas"] if cuda["available"] else cuda["reason"])


def _announce(data: _Data, model: fm.Sequential, options: argparse.Namespace) -> None:
    """Print what was found out about the data, and the network made for it."""
    schema, parts = data.pipeline.schema, (data.training, data.validation, data.test)
    print(f"{options.data}: {sum(map(len, parts)):,} rows")
    _print_schema(schema, data.how)
    if data.left_out:
        _row("left out", ", ".join(f"{name} ({why})" for name, why in data.left_out.items()))
    missing = {name: sum(part[name].isna().sum() for part in parts) for name in schema.features}
    filled = [f"{name} ({count:,} rows)" for name, count in missing.items() if count]
    if filled:
        _row("filled in", f"missing values of {tables.listed(filled)}")
    counts = [f"{len(part):,} to {aim}" for part, aim in zip(parts, AIMS, strict=True)]
    _row("rows", ", ".join(counts))
    layers = [*(model.input_shape or ()), *options.hidden, len(schema.classes) or 1]
    _row("network", f"{' -> '.join(map(str, layers))}, {model.count_params():,} parameters")
    sys.stdout.flush()


def _row(name: str, text: str) -> None:
    """Print one labelled line, wrapped to the terminal."""
    width = max(60, shutil.get_terminal_size().columns - 1)
    print(textwrap.fill(f"  {name:<11} {text}", width, subsequent_indent=" " * 14))


def _print_schema(schema: Schema, how: str = "") -> None:
    """Print what the columns are."""
    classes = f"{len(schema.classes)} classes: {tables.listed(schema.classes)}"
    _row("target", f"{schema.target}{how}, {classes if schema.classes else 'a number'}")
    if schema.numeric:
        scale = ", on one scale" if schema.image else ""
        _row("numbers", f"{len(schema.numeric)}{scale}: {tables.listed(schema.numeric)}")
    if schema.categorical:
        _row("categories", f"{len(schema.categorical)}: {tables.listed(schema.categorical)}")


if __name__ == "__main__":
    sys.exit(main())
