"""Images for lessons 9 to 11: those that were asked for, or else what this machine has."""

from pathlib import Path

import fastmlp as fm

# The 10,000 test images of MNIST, for machines without a network.
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "t10k-images-idx3-ubyte.gz"


def load(wanted):
    """Return the data set's name and x_train, y_train, x_test, y_test; grey values from 0 to 1."""
    try:
        name, train = wanted, fm.datasets.load(wanted)
        test = fm.datasets.load(wanted, part="test")
    except (OSError, ModuleNotFoundError) as error:
        print(f"without {wanted}: {error}")
        if BESIDE.exists():
            name, (x, y) = "mnist-10k", fm.datasets.load(BESIDE)
        else:
            name, (x, y) = "digits", fm.datasets.load("digits")
        part = len(x) * 4 // 5
        train, test = (x[:part], y[:part]), (x[part:], y[part:])
    largest = train[0].max()
    (x_train, x_test) = (x.reshape(len(x), -1) / largest for x, _ in (train, test))
    print(f"{name}: {len(x_train):,} images to train on, {len(x_test):,} to test on")
    return name, x_train.astype("float32"), train[1], x_test.astype("float32"), test[1]
