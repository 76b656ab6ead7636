"""Takes from the calls of a run what enters and leaves each activation, and sums it up."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pathlen.empirical.moments import Moments, home_of, moments_of, no_pairs
from pathlen.empirical.sites import Inner, Plan, Site
from pathlen.lowering.values import bind_call


class Sums:
    """Running sums for all units of a path graph, over all batches.

    Args:
        plan: Of the first batch.
        device: Where the model computes.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.device = home_of(device)
        self._moments = [no_pairs(len(site.nodes), self.device) for site in plan.sites]
        self.precision = [0.0] * len(plan.sites)

    def add(self, site: Site, more: Moments, precision: float) -> None:
        """Add what a site has read and returned in a batch, and how precise that was."""
        self._moments[site.number] = self._moments[site.number].with_more(more)
        self.precision[site.number] = max(self.precision[site.number], precision)

    def moments(self) -> list[Moments]:
        """The sums of each site, on the CPU; one transfer."""
        sizes = [len(moments.count) for moments in self._moments]
        rows = torch.cat([moments.stacked() for moments in self._moments], dim=1).cpu()
        return [Moments(*part.unbind()) for part in rows.split(sizes, dim=1)]


class Observer:
    """Watches one run of a program.

    Args:
        plan: What to take from which call.
        device: Where sums are taken.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self.device = home_of(device)
        self._entries: dict[int, Tensor] = {}
        self._uses = dict(plan.uses)
        self._seen: list[tuple[Site, Moments, float]] = []

    def run(self, node: fx.Node, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and take from it what the plan says.

        Args:
            node: Of the call in the recording.
            func: The operator.
            args: With the tensors of this run.
            kwargs: Likewise.
        """
        watch = self._plan.watches.get(node)
        if watch is None:
            return func(*args, **kwargs)
        bound = bind_call(func, args, kwargs, node)
        leaves = pytree.tree_leaves(dict(bound.arguments))
        for capture in watch.captures:
            tensor = leaves[capture.leaf]
            self._entries[capture.entry] = tensor.clone() if capture.copied else tensor
        if watch.inner is not None:
            self._run_inner(watch.inner, leaves)
        result = func(*args, **kwargs)
        for site in watch.sites:
            self._take(site, result)
        return result

    def add_to(self, sums: Sums) -> None:
        """Add what was seen, once the run is known to be one of the program."""
        for site, moments, precision in self._seen:
            sums.add(site, moments, precision)

    def not_finite(self) -> list[Site]:
        """The sites, in order, that NaN or infinities entered or left; waits for the device."""
        if not self._seen:
            return []
        sums = [(m.mean_x + m.mean_y + m.xx + m.yy).sum() for _, m, _ in self._seen]
        finite = torch.isfinite(torch.stack(sums)).cpu().numpy()
        return [self._seen[place][0] for place in np.flatnonzero(~finite).tolist()]

    def _take(self, site: Site, y: Tensor) -> None:
        """Sum up what a site has read and returned; nothing waits for the device here."""
        x = self._entries[site.entry].expand(y.shape)
        units = site.units.to(self.device)
        if site.masked or site.masks:  # exp(-inf) = 0 where a mask is: no value of its unit
            left_out = y.isinf() if site.masks else x.isinf() & y.isfinite()
            units = torch.where(left_out.to(self.device), len(site.nodes), units)
            x, y = (tensor.masked_fill(left_out, 0) for tensor in (x, y))
        moments = moments_of(x, y, units, len(site.nodes))
        used = [tensor.dtype for tensor in (x, y) if tensor.dtype.is_floating_point]
        precision = max((torch.finfo(dtype).eps for dtype in used), default=0.0)
        self._seen.append((site, moments, precision))
        self._uses[site.entry] -= 1
        if not self._uses[site.entry]:
            del self._entries[site.entry]

    def _run_inner(self, inner: Inner, leaves: list[Any]) -> None:
        """Run what a call was decomposed to, on the operands of the call."""
        tensors: dict[fx.Node, Any] = {}
        given = iter([leaves[position] for position in inner.leaves])
        device = next(leaf.device for leaf in leaves if isinstance(leaf, Tensor))
        for node in inner.recording.graph.nodes:
            if node.op == "placeholder":
                tensors[node] = next(given)
            elif node.op == "get_attr":
                tensors[node] = inner.recording.attributes[str(node.target)]
            elif node.op == "call_function":
                args, kwargs = pytree.tree_map_only(
                    fx.Node, tensors.__getitem__, (node.args, node.kwargs)
                )
                args, kwargs = pytree.tree_map_only(torch.device, lambda _: device, (args, kwargs))
                tensors[node] = self.run(node, node.target, args, kwargs)
