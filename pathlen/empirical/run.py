"""`from_data`: from a model and a loader to empirical activities, stage by stage."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from pathlen.empirical import batches
from pathlen.empirical.follow import DepartureError, Follower
from pathlen.empirical.judge import judge
from pathlen.empirical.observe import Observer, Sums
from pathlen.empirical.result import EmpiricalActivity
from pathlen.empirical.sites import Plan, difference, make_plan
from pathlen.errors import ActivityError, DataError, PathlenError
from pathlen.policy import DEFAULT_POLICY, Policy
from pathlen.tracing import Recording, trace_model, trace_values
from pathlen.tracing.autograd_mode import as_given, autograd_mode
from pathlen.tracing.checked import check_program
from pathlen.tracing.guard import Limits, guarded
from pathlen.tracing.own_numbers import drawing, own_numbers
from pathlen.tracing.programs import module_of
from pathlen.tracing.recording import EAGER
from pathlen.tracing.state import on_cpu, untouched

_MOST_SHAPES = 16  # of batches that are remembered; one more is traced again
_MOST_PROGRAMS = 8  # that are remembered of a shape
_FEWEST_VALUES = 3  # two values are on a line, whatever the function
_TIMES_MEASURED = 1000  # how much more than `measure` a batch may compute, of an exported program


def from_data(
    model: "torch.nn.Module | Any",
    loader: Any,
    *,
    args_of: Callable[[Any], Any] | None = None,
    max_batches: int | None = None,
    device: "torch.device | str | None" = None,
    unseen: Literal["refuse", "keep"] = "refuse",
    policy: Policy = DEFAULT_POLICY,
    outputs: Any = None,
    input_axis: int | Mapping[str, int] | None = None,
) -> EmpiricalActivity:
    """How nonlinear each unit of a model acts on data: the effective depth of an ordinary network.

    The model runs once over the loader, in eval mode, as it is: no module is replaced, and
    functional activations and those written out in arithmetic are seen as well. For every unit the
    best affine fit of its output on its input is found, over all samples and positions, from sums
    that need the same memory however long the loader is. Mode, buffers, hooks and the random state
    are afterwards what they were.

    The model is traced anew for batches of new shapes (a smaller last batch), and on a batch itself
    where it does there what it did not before (a language model builds other masks for texts that
    fill their batch); all of these must have one path graph.

    Args:
        model: A module, or whatever else `pathlen.trace` takes.
        loader: Anything that yields batches. A tensor is the model's argument; of a tuple or list
            the first item is, as of pairs (x, y); a mapping holds keyword arguments.
        args_of: Gives the arguments of the model for a batch, in place of that rule: a tensor, a
            tuple of positional arguments, or a mapping of keyword arguments.
        max_batches: Most batches to be used; an endless loader needs it.
        device: Where the tensors of a batch are moved; by default where the model is.
        unseen: What to do about active units that cannot be seen, such as the softmax of a fused
            attention if the policy counts it: "refuse", or "keep" their nominal activity.
        policy: What counts as a nonlinearity; activations must.
        outputs: See `pathlen.trace`.
        input_axis: See `pathlen.trace`.

    Returns:
        What was seen of each unit, and the path graph with activities to match.

    Raises:
        DataError: The loader is empty or none, a batch does not fit the model or the batches
            before it, NaN or infinities enter or leave an activation, the model does something
            else than when it was traced, or there are too few values to fit.
        ActivityError: The model has no activation, or some that cannot be seen.
        PathlenError: Options do not fit, or whatever `pathlen.trace` raises.
    """
    if unseen not in ("refuse", "keep"):
        raise PathlenError(f"unseen={unseen!r} is unknown; choose 'refuse' or 'keep'")
    limits = None
    if isinstance(model, ExportedProgram):
        check_program(model)
        limits = Limits.of(model)
        model = module_of(model)
    place = torch.device(device) if device is not None else batches.device_of(model)
    if place is not None and place.type == "meta":
        raise DataError("the model is on the meta device: it has no values to run on data with")
    with own_numbers(None, calls=False):
        watching = _Watching(model, policy, outputs, input_axis, unseen)
        for number, batch in enumerate(_drawn(batches.batches_of(loader, max_batches))):
            told = f"batch {number}"
            arguments = batches.arguments_of(batch, args_of, told)
            with guarded(limits, _TIMES_MEASURED):
                watching.add(batches.on_device(arguments, place), told)
    return watching.result()


def _drawn(loaded: Iterator[Any]) -> Iterator[Any]:
    """The same batches, for which no number of the process's generators is used up."""
    end = object()
    while True:
        with drawing():
            batch = next(loaded, end)
        if batch is end:
            return
        yield batch


class _Watching:
    """Runs a model on batches and keeps the sums.

    Args:
        model: The model.
        policy: See `from_data`.
        outputs: See `from_data`.
        input_axis: See `from_data`.
        unseen: See `from_data`.
    """

    def __init__(
        self, model: Any, policy: Policy, outputs: Any, input_axis: Any, unseen: str
    ) -> None:
        self._model = model
        self._policy = policy
        self._outputs = outputs
        self._input_axis = input_axis
        self._unseen = unseen
        self._plans: OrderedDict[Any, list[Plan]] = OrderedDict()
        self._first: Plan | None = None
        self._first_shapes = ""
        self._sums: Sums | None = None
        self._batches = 0
        self._departed = False  # whether the model does on data what it does not without

    def add(self, arguments: batches.Arguments, place: str) -> None:
        """Run the model on a batch, beside a recording of what it does on such batches.

        Where it makes other calls, it is recorded on the batch itself, and run again.
        """
        plans = self._plans_for(batches.signature(arguments))
        for plan in plans:
            if self._follow(plan, arguments, place):
                return
        if not (plans or self._departed):
            plan = self._new_plan(arguments, place, on_data=False)
            if self._follow(plan, arguments, place):
                plans.append(plan)
                return
        self._departed = True
        plan = self._new_plan(arguments, place, on_data=True)
        observer = self._run(plan, arguments, place)
        self._take(plan, observer, arguments, place)
        plans.insert(0, plan)
        del plans[_MOST_PROGRAMS:]

    def _plans_for(self, key: Any) -> list[Plan]:
        """How to look at batches of certain shapes: a plan for each program that they were."""
        plans = self._plans.setdefault(key, [])
        self._plans.move_to_end(key)
        if len(self._plans) > _MOST_SHAPES:
            self._plans.popitem(last=False)
        return plans

    def _follow(self, plan: Plan, arguments: batches.Arguments, place: str) -> bool:
        """Run the model on a batch; whether it did what the plan says, so that it counts."""
        try:
            observer = self._run(plan, arguments, place)
        except DepartureError:
            return False
        self._take(plan, observer, arguments, place)
        return True

    def _run(self, plan: Plan, arguments: batches.Arguments, place: str) -> Observer:
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        observer = Observer(plan, tensors[0].device)
        _run(self._model, plan, arguments, observer, place)
        return observer

    def _take(
        self, plan: Plan, observer: Observer, arguments: batches.Arguments, place: str
    ) -> None:
        """Add what was seen of a batch.

        Raises:
            DataError: The path graph is another than that of the batches before, or something
                is not finite.
        """
        shapes = batches.shapes(arguments)
        if self._first is None or self._sums is None:
            self._check(plan)
            self._first, self._first_shapes = plan, shapes
            self._sums = Sums(plan, observer.device)
        told = difference(self._first, plan)
        if told:
            raise DataError(
                f"{place}, of shape {shapes}, makes another path graph than batch 0, of shape"
                f" {self._first_shapes}: {told}. Units are followed over batches of one graph; give"
                " batches of one shape, of which the model makes the same"
            )
        sites = observer.not_finite()
        if sites:
            own = batches.not_finite(arguments)
            raise DataError(
                f"{place}: NaN or infinities enter or leave the activation {sites[0].layer!r}"
                + (f"; {own}" if own else "; the batch itself is finite")
            )
        observer.add_to(self._sums)
        self._batches += 1

    def result(self) -> EmpiricalActivity:
        """What was seen."""
        if self._sums is None or self._first is None:
            raise DataError("the loader is empty: it yields no batch")
        sites = self._first.sites
        judged = [
            judge(moments, precision)
            for moments, precision in zip(self._sums.moments(), self._sums.precision, strict=True)
        ]
        for site, judgement in zip(sites, judged, strict=True):
            if judgement.samples.min() < _FEWEST_VALUES:
                raise DataError(
                    f"a unit of {site.layer!r} was seen with {judgement.samples.min()} values;"
                    f" a fit needs {_FEWEST_VALUES}, and means something from hundreds on: give"
                    " more data"
                )
        nodes = np.concatenate([site.nodes for site in sites])
        order = np.argsort(nodes)
        columns = {
            name: np.concatenate([getattr(judgement, name) for judgement in judged])[order]
            for name in type(judged[0]).__slots__
        }
        return EmpiricalActivity(
            nominal=self._first.graph,
            nodes=nodes[order],
            **columns,
            batches=self._batches,
            unseen=tuple(self._first.unseen),
        )

    def _new_plan(self, arguments: batches.Arguments, place: str, *, on_data: bool) -> Plan:
        """What the model does on a batch, recorded without its values or on them."""
        try:
            recording = _record(self._model, arguments, self._outputs, on_data=on_data)
            with on_cpu():
                return make_plan(recording, self._policy, self._input_axis)
        except PathlenError as error:
            if self._first is None:
                raise
            raise DataError(
                f"{place}, of shape {batches.shapes(arguments)}, does not fit the model as batch 0,"
                f" of shape {self._first_shapes}, does: {error}"
            ) from error

    def _check(self, plan: Plan) -> None:
        """Raise ActivityError unless there is something to see, and all of it can be."""
        if plan.unseen and self._unseen == "refuse":
            listed = ", ".join(f"{name!r} ({count})" for name, count in plan.unseen.items())
            raise ActivityError(
                f"the active units of these layers cannot be seen to act on data: {listed}; with"
                " unseen='keep' they keep the activity they are traced with, and count fully"
            )
        if not plan.sites:
            raise ActivityError(
                "the model has no activation that can be seen to act on data: its average path"
                " length is the same on any"
            )


def _record(model: Any, arguments: batches.Arguments, outputs: Any, *, on_data: bool) -> Recording:
    """Record a run of a model as it will be seen again: by a recorder of calls."""
    if not on_data:
        recording = trace_model(model, *arguments, outputs)
        if recording.tracer in EAGER:  # torch.export writes other calls
            return recording
    return trace_values(model, *arguments, outputs)


def _run(
    model: Any, plan: Plan, arguments: batches.Arguments, observer: Observer, place: str
) -> None:
    """Run a model on a batch under an observer; the model is left as it was.

    Raises:
        DepartureError: It goes another way than the recording.
        DataError: The model raises.
    """
    gradients = plan.recording.takes_gradients
    state = list(_state(model))
    inputs: list[Tensor] = []

    def enter(tensor: Tensor) -> Tensor:
        own = tensor.detach()  # as the recorder does: a tensor passed twice is two inputs
        inputs.append(as_given(own.clone() if plan.writes else own, tensor))
        return inputs[-1]

    with untouched(model), _same_values(plan.written), autograd_mode(gradients):
        args, kwargs = pytree.tree_map_only(Tensor, enter, arguments)
        follower = Follower(plan.recording, inputs, state, observer.run)
        try:
            with drawing(), follower:
                model(*args, **kwargs)
            follower.finish()
        except Exception as error:  # a model may raise anything, also about a departure
            if follower.departure is not None:
                raise DepartureError(f"{place}: {follower.departure}") from error
            raise DataError(
                f"{place}: {type(model).__name__} raised {type(error).__name__}: {error}"
            ) from error


def _state(model: Any) -> Iterator[Tensor]:
    if isinstance(model, torch.nn.Module):
        yield from model.parameters()
        yield from model.buffers()


@contextmanager
def _same_values(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Parameters and buffers that a program writes to hold afterwards what they held before."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.inference_mode():  # constants may have been made in it
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
