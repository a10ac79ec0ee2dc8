"""fastmlp through its public interface, as a user calls it."""

from __future__ import annotations

import numpy as np

import fastmlp as fm
from fastmlp import device as devices

from ..workloads import Array
from . import Side


class FastMLP(Side):
    """`fit` on NumPy arrays, shuffled, with loss and, for classes, accuracy.

    On a GPU on arrays that lie there, and several networks as an `Ensemble`.
    """

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        workload = self.workload
        fm.set_num_threads(self.threads)
        hidden = [fm.Dense(n, activation=workload.activation) for n in workload.dims[1:-1]]
        model = fm.Sequential(
            [fm.Input(workload.dims[0]), *hidden, fm.Dense(workload.dims[-1])],
            seed=self.seed,
            device=workload.device,
            precision=workload.precision,
        )
        several = workload.replicas > 1
        self.model = fm.Ensemble(model, workload.replicas) if several else model
        put = devices.get(workload.device).put
        self.x, self.y = (put(array) for array in self.data)

    def describe(self) -> str:
        """Return the version, the instruction set and the BLAS."""
        config = fm.show_config()
        blas = config["blas"]
        return (
            f"{config['version']} ({config['instruction_set']}, "
            f"{blas['library']} {blas['version']} {blas['core']})"
        )

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        replicas = self.workload.replicas
        self.model.set_weights(
            self.weights
            if replicas == 1
            else [np.broadcast_to(w, (replicas, *w.shape)) for w in self.weights]
        )
        self.model.compile(
            optimizer=fm.Adam(self.workload.learning_rate),
            loss=self.workload.loss,
            metrics=["accuracy"] if self.workload.classifies else [],
        )

    def losses(self, steps: int) -> list[float]:
        """Fit on one batch at a time: the very path that is timed."""
        batch = self.workload.batch
        losses: list[float] = []
        for start in range(0, steps * batch, batch):
            rows = slice(start, start + batch)
            history = self.model.fit(self.x[rows], self.y[rows], batch_size=batch, verbose=0)
            losses.append(float(np.mean(history.history["loss"])))
        return losses

    def train(self, epochs: int) -> None:
        """Fit."""
        self.model.fit(self.x, self.y, batch_size=self.workload.batch, epochs=epochs, verbose=0)

    def infer(self, x: Array, calls: int = 1) -> Array:
        """Call the model for one row, `predict` for more."""
        compute = self.model if len(x) == 1 else self.model.predict
        for _ in range(calls):
            y = compute(x)
        result: Array = y
        return result
