"""The depth of a model as the flat dictionary of numbers that loggers take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pathlen.monitor.monitor import DepthMonitor


class DepthScalars:
    """Reads the depth of a model that is being trained, by the names of a log.

    The model is traced once, here. A reading takes the slopes that the live model has, wherever
    they are, in a fraction of a millisecond. Every process of a distributed run reads the same
    from its replica; a model whose parameters are sharded is refused.

    Args:
        model: The model. Wrappers for several devices and compilation are seen through.
        args: A tensor, or a tuple of positional arguments. Only shapes and dtypes matter.
        kwargs: Keyword arguments.
        layers: Whether the active units of each layer are read, too.
        prefix: Of all names, before a slash.
        **options: For `pathlen.DepthMonitor`: policy, outputs, input_axis, backend.

    Attributes:
        monitor: What reads.

    Raises:
        PathlenError: Whatever `pathlen.DepthMonitor` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        layers: bool = False,
        prefix: str = "depth",
        **options: Any,
    ) -> None:
        self.monitor = DepthMonitor(model, args, kwargs, **options)
        self._layers = layers
        self._prefix = prefix

    def read(self) -> dict[str, float]:
        """Read the model as it is now.

        Returns:
            "depth/napl", "depth/apl", "depth/active_units", and with `layers`
            "depth/active_units/NAME" for each layer.

        Raises:
            MonitorError: A module or the shape of a slope is no longer what was traced.
            ActivityError: A slope is not a number.
        """
        reading = self.monitor.update()
        scalars: dict[str, float] = {
            f"{self._prefix}/napl": reading.normalized_average_path_length,
            f"{self._prefix}/apl": reading.average_path_length,
            f"{self._prefix}/active_units": reading.num_active,
        }
        if self._layers:
            for name, active in reading.active_units.items():
                scalars[f"{self._prefix}/active_units/{name}"] = active
        return scalars
