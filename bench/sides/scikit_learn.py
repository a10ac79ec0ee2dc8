"""The same in scikit-learn: MLPClassifier or MLPRegressor, training only."""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from . import Side

_ACTIVATIONS = {"sigmoid": "logistic"}  # the others have the same names
# scikit-learn adds it to the root before the second moment's correction, sqrt(1 - 0.999^t), the
# others after it. This is 1e-8 times the correction halfway through the ten steps that are checked:
# with 1e-8 itself, the losses of C are 8e-5 apart, with this 4e-6.
_EPSILON = 1e-8 * (1 - 0.999**5) ** 0.5


class ScikitLearn(Side):
    """`partial_fit`, which is an epoch of shuffled batches, from the weights that all begin with.

    scikit-learn's losses are sums over a row's outputs (half of it for squares) where ours are
    means. Adam does not mind a factor in the gradients if its epsilon has the same; the losses
    that are returned are divided by it.
    """

    def prepare(self) -> None:
        """Build what is kept between the tasks."""
        workload = self.workload
        x, y = self.data
        outputs = workload.dims[-1]
        self.factor = {
            "cross_entropy": 1.0,
            "binary_cross_entropy": float(outputs),
            "mse": outputs / 2,
        }[workload.loss]
        estimator = MLPClassifier if workload.classifies else MLPRegressor
        self.model = estimator(
            hidden_layer_sizes=workload.dims[1:-1],
            activation=_ACTIVATIONS.get(workload.activation, workload.activation),
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=workload.learning_rate,
            epsilon=_EPSILON * self.factor,
            random_state=self.seed,
        )
        self.classes = {}
        if workload.loss == "cross_entropy":
            self.classes = {"classes": np.arange(outputs)}
        elif workload.classifies:
            self.classes = {"classes": np.arange(max(2, outputs))}
        self.x, self.y = x, y.ravel() if outputs == 1 else y
        self._fit(slice(workload.batch))  # makes the lists that reset fills

    def _fit(self, rows: slice) -> None:
        self.model.partial_fit(self.x[rows], self.y[rows], **self.classes)

    def describe(self) -> str:
        """Return the version."""
        return str(sklearn.__version__)

    def reset(self) -> None:
        """Go back to the initial weights and a new optimizer."""
        self.model.coefs_ = [w.copy() for w in self.weights[::2]]
        self.model.intercepts_ = [w.copy() for w in self.weights[1::2]]
        # The next fit makes one, on these very arrays.
        vars(self.model).pop("_optimizer", None)

    def losses(self, steps: int) -> list[float]:
        """Fit one batch at a time."""
        batch, losses = self.workload.batch, []
        scale = 2.0 if self.workload.loss == "mse" else 1 / self.factor
        for start in range(0, steps * batch, batch):
            self._fit(slice(start, start + batch))
            losses.append(float(self.model.loss_) * scale)
        return losses

    def train(self, epochs: int) -> None:
        """Fit."""
        for _ in range(epochs):
            self._fit(slice(None))
