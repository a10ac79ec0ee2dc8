"""A built network on its device: the flat arrays, the plans, and the calls that run them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import numpy as np

from fastmlp import schedules
from fastmlp.device import Arguments, Array, Device, Inference, Plan, StepState, Update
from fastmlp.layers import Custom
from fastmlp.losses import Loss
from fastmlp.optimizers import Optimizer

# How much `predict` and `evaluate` take at a time where the caller does not say, in elements of the
# widest layer's output: enough to be worth waking every core, few enough to stay in the cache.
_CHUNK_ELEMENTS = 1 << 20
# But so many rows at least, since every chunk reads all parameters.
_CHUNK_ROWS = 2048
_LEAST_WIDTH = 16  # a row takes a cache line

_MAX_PLANS = 32


class Engine:
    """The arrays of networks of one shape, each (replicas, elements), and everything done to them.

    Shapes and dtypes of what comes in are right already: `Model` sees to that.

    Attributes
    ----------
    lead : tuple of int
        The leading dimension of all that differs by network: () of one, (replicas,) where a
        sequence of seeds was given.
    parameters : array, shape (replicas, P)
        All kernels and biases, padded; `views` names its parts.
    statistics : array, shape (replicas, S)
        What layers keep and no optimizer touches, such as running averages.
    state : records of StepState, shape (replicas,)
        What varies from step to step.
    precision : str or None
        Of products; it may change from call to call.
    """

    def __init__(
        self,
        device: Device,
        stages: Sequence[dict[str, Any]],
        features: int,
        dtype: str,
        seed: int | Sequence[int],
        learning_rates: Sequence[float | schedules.Schedule] | None = None,
        hosts: Mapping[int, Custom] | None = None,
        precision: str | None = None,
    ) -> None:
        self.device = device
        self.precision = precision
        self.dtype = np.dtype(dtype)
        self.lead = () if isinstance(seed, int) else (len(seed),)
        self.seeds = [seed] if isinstance(seed, int) else list(seed)
        self.replicas = len(self.seeds)
        self.learning_rates = learning_rates  # of each replica, in place of the optimizer's
        self.network = device.network(list(stages), features, dtype, self.replicas)
        self.features = features
        widest = max([_LEAST_WIDTH, *(stage.get("units", 0) for stage in stages)])
        self.chunk_rows = max(_CHUNK_ELEMENTS // widest, _CHUNK_ROWS)
        self.outputs: int = self.network.outputs
        self._hosts = hosts or {}  # layers in Python, by number
        self._host = self._call_host if hosts else None
        # Of one row, statistics of a batch would say nothing.
        self._least_batch = 2 if any(s.get("by_row") is False for s in stages) else 0
        self._penalised = any(stage.get("l1") or stage.get("l2") for stage in stages)
        self.parameters = self._zeros()
        self.statistics = device.zeros((self.replicas, self.network.state), self.dtype)
        self.state = device.step_states(self.replicas)
        self.state["seed"] = np.array(self.seeds, np.uint64)
        self._gradients: Array | None = None
        self.has_gradients = False
        self._workspace = device.xp.empty(0, self.dtype)
        self._kept: tuple[int, bool] | None = None  # rows and mode of the last forward
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        # What `training_plan` was last asked for, while it still lies in the arguments: each short
        # epoch or single step would feel it.
        self._lent: tuple[tuple[Any, ...], Plan] | None = None
        self._checked: tuple[Any, ...] = ()  # what `check` last found good
        self._inferences: dict[tuple[int, ...], Inference] = {}
        self._arguments = self._new_arguments()
        self._arguments["step_state"] = self.state

    # ---- arrays

    def _zeros(self) -> Array:
        return self.device.zeros((self.replicas, self.network.parameters), self.dtype)

    def views(
        self, flat: Array, replica: int | None = None, buffer: str = "parameters"
    ) -> dict[tuple[int, str], Array]:
        """Name the parts of a flat array by layer and name: views of shape (in, out) or (out,).

        They have the leading dimension of `lead`, but for those of one replica alone. The array is
        laid out as `parameters` is, or, with the buffer "state", as `statistics`.
        """
        lead = self.lead
        if replica is not None:
            flat, lead = flat[replica : replica + 1], ()
        parts = {}
        for tensor in self.network.tensors:
            if tensor["buffer"] != buffer:
                continue
            shape, stride, offset = tensor["shape"], tensor["stride"], tensor["offset"]
            rows = shape[0] if len(shape) == 2 else 1
            block = flat[:, offset : offset + rows * stride].reshape(*lead, rows, stride)
            view = block[..., : shape[-1]]
            parts[tensor["layer"], tensor["name"]] = view[..., 0, :] if len(shape) == 1 else view
        return parts

    def tensors(self, replica: int | None = None) -> dict[tuple[int, str], Array]:
        """Name all that a file keeps of the layers, in their order: parameters and statistics."""
        named = self.views(self.parameters, replica)
        named |= self.views(self.statistics, replica, "state")
        return {key: named[key] for t in self.network.tensors for key in [(t["layer"], t["name"])]}

    @property
    def gradients(self) -> Array:
        """The flat gradients; allocated when first needed."""
        if self._gradients is None:
            self._gradients = self._zeros()
            self._arguments["gradients"] = self._gradients
        return self._gradients

    def claim_moments(self, optimizer: Optimizer) -> None:
        """Give an optimizer its moments, zeros of the parameters' shape, where it has none."""
        count = Update(**optimizer.rule()).moments
        while len(optimizer.moments) < count:
            optimizer.moments.append(self._zeros())

    def take_over(self, other: Engine, moments: Sequence[Array]) -> list[Array]:
        """Copy another engine's parameters and state, bit for bit; return its moments moved here.

        Devices pad rows differently, so arrays are copied part by part.
        """

        def put(views: Mapping[Any, Array], parts: Mapping[Any, Array]) -> None:
            for name, view in views.items():
                view[...] = self.device.put(parts[name])

        def copy(to: Array, flat: Array) -> Array:
            put(self.views(to), other.views(flat))
            return to

        put(self.tensors(), other.tensors())
        for field in StepState.names:
            self.state[field] = other.state[field]
        return [copy(self._zeros(), moment) for moment in moments]

    def take_replica(self, other: Engine, replica: int) -> None:
        """Copy the parameters and state of one network out of several on the same device."""
        self.parameters[...] = other.parameters[replica]
        self.statistics[...] = other.statistics[replica]
        for field in StepState.names:
            self.state[field] = other.state[field][replica]

    # ---- plans

    def _plan(
        self, section: str, rows: int, rule: dict[str, Any] | None = None, **options: Any
    ) -> Plan:
        options["precision"] = self.precision
        key = (section, rows, *(rule or {}).items(), *options.items())
        plan = self._plans.pop(key, None)
        if plan is None:
            update = None if rule is None else Update(**rule)
            plan = self.network.plan(section, rows, update=update, **options)
        self._plans[key] = plan  # last used, last out
        if len(self._plans) > _MAX_PLANS:
            self._plans.popitem(last=False)
        return plan

    def _capacity(self, rows: int) -> int:
        """Return how many rows a plan is made for: a power of two, so that few are made."""
        return rows if self.replicas > 1 else 1 << max(rows - 1, 0).bit_length()

    def _own_workspace(self, plan: Plan) -> None:
        """Have at least the workspace that a plan of the training arguments needs."""
        self._lent = None
        size = plan.workspace * self.replicas
        if self._workspace.size < size:
            self._kept = None
            self._workspace = self.device.empty(size, self.dtype)
        self._arguments["workspace"] = self._workspace

    def _new_arguments(self) -> Arguments:
        arguments = Arguments(self.device.backend)
        arguments["parameters"], arguments["state"] = self.parameters, self.statistics
        return arguments

    def _private_arguments(self, plan: Plan) -> Arguments:
        """Return arguments with a workspace of their own, for calls that may run side by side."""
        arguments = self._new_arguments()
        arguments["workspace"] = self.device.empty(plan.workspace * self.replicas, self.dtype)
        return arguments

    def shape(self, rows: int, cols: int) -> tuple[int, ...]:
        """Return the shape of what differs by network and row."""
        return (*self.lead, rows, cols)

    # ---- inference

    def inference(self, row_shape: tuple[int, ...]) -> Inference | None:
        """Return the low-latency forward; None where there is none."""
        if self.device.name != "cpu" or self.lead or self._hosts or self.precision:
            return None
        if row_shape not in self._inferences:
            self._inferences[row_shape] = Inference(
                self.network, self.parameters, self.statistics, row_shape
            )
        return self._inferences[row_shape]

    def in_one_go(self, x: Any) -> bool:
        """Say whether x is an array of no more rows than are inferred at a time."""
        return isinstance(x, np.ndarray) and x.size <= self.chunk_rows * self.features

    def infer(self, x: Array, chunk: int | None = None) -> Array:
        """Compute the outputs for x (n, features), `chunk` rows at a time."""
        chunk = min(chunk or self.chunk_rows, max(len(x), 1))
        out = self.device.xp.empty(self.shape(len(x), self.outputs), self.dtype)
        if not len(x):
            return out
        inference = self.inference((self.features,))
        if inference is not None:  # has a workspace that stays
            parts = (slice(start, start + chunk) for start in range(0, len(x), chunk))
            if all(inference(x[rows], out[rows]) is not None for rows in parts):
                return out
        plan = self._plan("infer", chunk)
        arguments = self._private_arguments(plan)
        # The plan knows how far apart the networks' outputs lie: `chunk` rows, also in a shorter
        # last chunk.
        part = self.device.empty(self.shape(chunk, self.outputs), self.dtype)
        arguments["output"] = part
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            arguments["input"] = x[rows]
            plan.run(arguments, len(x[rows]), self._host)
            out[..., rows, :] = part[..., : len(x[rows]), :]
        return out

    def check(self, target: Array, loss: Loss, metrics: Sequence[str]) -> None:
        """Refuse, before anything changes, what the core cannot lower: raises ValueError."""
        asked = (target.dtype == np.int32, self.precision, loss, *metrics)
        if asked != self._checked:
            self._plan("evaluate", 1, metrics=tuple(metrics), labels=asked[0], **_formula(loss))
            self._checked = asked

    def evaluate(
        self,
        x: Array,
        target: Array,
        weight: Array | None,
        loss: Loss,
        metrics: Sequence[str],
        chunk: int | None = None,
    ) -> Array:
        """Return the sums over rows of the loss and each native metric: (..., 1 + metrics)."""
        chunk = min(chunk or self.chunk_rows, len(x))
        plan = self._plan(
            "evaluate",
            chunk,
            metrics=tuple(metrics),
            labels=target.dtype == np.int32,
            weighted=weight is not None,
            **_formula(loss),
        )
        arguments = self._private_arguments(plan)
        state = self.device.step_states(self.replicas)
        arguments["step_state"] = state
        for start in range(0, len(x), chunk):
            rows = slice(start, start + chunk)
            arguments["input"], arguments["target"] = x[rows], target[rows]
            arguments["weight"] = None if weight is None else weight[rows]
            plan.run(arguments, len(x[rows]), self._host)
        sums = state["sums"][:, : 1 + len(metrics)]
        return sums if self.lead else sums[0]

    def penalty(self) -> Any:
        """Return what the weights add to the loss; an array where networks have a dimension."""
        if not self._penalised:  # nor is a GPU waited for
            return np.zeros(self.replicas) if self.lead else 0.0
        plan = self._plan("penalty", 1)
        arguments = self._private_arguments(plan)
        state = self.device.step_states(self.replicas)
        arguments["step_state"] = state
        plan.run(arguments, 1)
        return self._figure(state, "penalty")

    # ---- the open box

    def forward(self, x: Array, training: bool) -> Array:
        """Compute the outputs and keep what `backward` needs."""
        if training:
            self.check_batch(len(x))
        out = self.device.xp.empty(self.shape(len(x), self.outputs), self.dtype)
        plan = self._plan("forward", self._capacity(len(x)), training=training)
        self._own_workspace(plan)
        self._kept = None
        self._arguments["input"], self._arguments["output"] = x, out
        with self._counted_passes():
            plan.run(self._arguments, len(x), self._host)
        self._kept = (len(x), training)
        return out

    @property
    def kept_rows(self) -> int | None:
        """How many rows the last `forward` had, None where there is none to go back from."""
        return None if self._kept is None else self._kept[0]

    def backward(self, grad: Array) -> Array:
        """Fill the gradients; return the derivative by the input."""
        assert self._kept is not None
        rows, training = self._kept
        plan = self._plan("backward", self._capacity(rows), training=training)
        dx = self.device.xp.empty(self.shape(rows, self.features), self.dtype)
        _ = self.gradients
        self._arguments["output_gradient"], self._arguments["input_gradient"] = grad, dx
        plan.run(self._arguments, rows, self._host)
        self.has_gradients = True
        return dx

    def _lend_moments(self, arguments: Arguments, optimizer: Optimizer) -> None:
        self.claim_moments(optimizer)
        for i, moment in enumerate(optimizer.moments):
            arguments[f"moment{i}"] = moment

    def _lend_rates(self, arguments: Arguments, optimizer: Optimizer, steps: int) -> None:
        """Lend the learning rates of the next steps to a call."""
        first = int(self.state["step"][0])
        start: Any = 0
        if self.learning_rates is None:
            rates = schedules.upcoming(optimizer.learning_rate, first, steps)
            end: Any = len(rates)
        else:  # a stretch for each replica, one behind the other
            each = [schedules.upcoming(rate, first, steps) for rate in self.learning_rates]
            rates, end = np.concatenate(each), list(accumulate(map(len, each)))
            start = [0, *end[:-1]]
        self.state["schedule_index"], self.state["schedule_length"] = start, end
        arguments["learning_rates"] = self.device.xp.asarray(rates)

    def update(self, optimizer: Optimizer) -> None:
        """Make one update from the gradients."""
        plan = self._plan("update", 1, rule=optimizer.rule())
        arguments = self._private_arguments(plan)
        arguments["gradients"], arguments["step_state"] = self.gradients, self.state
        self._lend_moments(arguments, optimizer)
        self._lend_rates(arguments, optimizer, 1)
        plan.run(arguments, 0)

    # ---- layers in Python

    def _call_host(
        self,
        layer: int,
        training: bool,
        out: Array,
        x: Array,
        dy: Array | None,
        y: Array | None,
    ) -> None:
        """Do what a layer in Python does between the core's programs: `_core.Host`."""
        host = self._hosts[layer]
        if isinstance(x, np.ndarray):  # what backward will need: not to be written to
            for array in (x, dy, y):
                if array is not None:
                    array.flags.writeable = False
        if dy is None or y is None:
            host._forward(out, x, training)
        else:
            views = self.views(self.gradients)
            own = {name: view for (at, name), view in views.items() if at == layer}
            host._backward(out, x, dy, y, own)

    def _counted_passes(self) -> AbstractContextManager[None]:
        """Count only the passes that were completed, where a layer in Python breaks one off."""
        return self._pass_count_kept() if self._hosts else nullcontext()

    @contextmanager
    def _pass_count_kept(self) -> Iterator[None]:
        passes, steps = self.state["forward"].copy(), self.state["step"].copy()
        try:
            yield
        except BaseException:
            self.state["forward"] = passes + (self.state["step"] - steps)
            raise

    # ---- whole steps

    def check_batch(self, rows: int) -> None:
        """Refuse a training batch of so many rows where there is batch normalisation of one."""
        if rows < self._least_batch:
            raise ValueError(
                f"BatchNorm: a training batch needs at least {self._least_batch} rows, got {rows}"
            )

    def training_plan(
        self,
        x: Array,
        target: Array,
        weight: Array | None,
        loss: Loss,
        metrics: Sequence[str],
        optimizer: Optimizer,
        *,
        batch_size: int,
        shuffle: bool,
        steps: int,
    ) -> Plan:
        """Return the plan of whole steps, with all that they work on lent to the next call of it.

        That is `train` or `profile`, of at most so many steps.
        """
        arguments, rule, batch = self._arguments, optimizer.rule(), min(batch_size, len(x))
        labels, weighted = target.dtype == np.int32, weight is not None
        settings = (batch, shuffle, labels, weighted, self.precision, loss, *metrics)
        wanted = (*settings, optimizer, *rule.values())
        rates: Any = self.learning_rates or optimizer.learning_rate
        if isinstance(rates, (int, float)):
            wanted += (rates,)
        if self._lent is None or self._lent[0] != wanted:
            self.check_batch(batch)
            plan = self._plan(
                "train",
                batch,
                rule=rule,
                training=True,
                metrics=tuple(metrics),
                shuffle=shuffle,
                labels=labels,
                weighted=weighted,
                **_formula(loss),
            )
            self._own_workspace(plan)
            _ = self.gradients
            self._lend_moments(arguments, optimizer)
            self._lend_rates(arguments, optimizer, steps)
            self._lent = wanted, plan
        elif not isinstance(rates, (int, float)):  # they may differ from step to step
            self._lend_rates(arguments, optimizer, steps)
        arguments["input"], arguments["target"], arguments["weight"] = x, target, weight
        self._kept = None
        self.has_gradients = False
        return self._lent[1]

    def train(self, plan: Plan, rows: int, steps: int, seconds: float) -> int:
        """Run whole steps from ``state["row"]`` on; return how many were completed.

        It ends with the rows, after `steps`, when `seconds` are over, or after a loss that is not
        finite, whose update is not made.
        """
        with self._counted_passes():
            done = plan.train(self._arguments, rows, steps, seconds, self._host)
        if done < steps and self.stopped:
            self.state["forward"] -= 1  # the step that was given up
        return done

    def profile(
        self, plan: Plan, rows: int, steps: int
    ) -> tuple[list[tuple[str, str, int]], Array, Array]:
        """Train from the first row on and return where the time went: see `Plan.profile`."""
        self.begin_epoch()
        try:
            return plan.profile(self._arguments, rows, steps)
        finally:
            self.begin_epoch()  # as all that trains leaves it

    @property
    def stopped(self) -> list[int]:
        """The replicas whose loss was not finite, for which the last step was given up."""
        return [i for i, stopped in enumerate(self.state["not_finite"].tolist()) if stopped]

    @property
    def sums(self) -> Array:
        """Sums over the rows seen in this epoch, of loss and native metrics: (..., sums)."""
        return self.state["sums"] if self.lead else self.state["sums"][0]

    @property
    def penalties(self) -> Any:
        """Sum over the rows seen in this epoch, of the penalty at each row's step."""
        return self._figure(self.state, "penalty") if self._penalised else 0.0

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the last update; an array where networks have a dimension."""
        return self._figure(self.state, "learning_rate")

    def _figure(self, state: Any, field: str) -> Any:
        """Read one number of a state; an array where networks have a dimension."""
        values = state[field]
        return values.copy() if self.lead else float(values[0])

    def begin_epoch(self) -> None:
        """Go back to the first row and forget the sums."""
        self.state["row"] = 0
        self.state["sums"] = 0
        self.state["penalty"] = 0
        self.state["not_finite"] = 0


def _formula(loss: Loss) -> dict[str, Any]:
    """Return a loss as a plan takes it."""
    return {
        "loss": loss.name,
        "loss_parameter": loss.parameter,
        "loss_sum": loss.reduction == "sum",
    }
