"""The depth of a model in the tools that people train with: what they log, and when.

All of them log what `DepthScalars` reads: a `pathlen.DepthMonitor` as a flat dictionary of numbers.

Importing this package is cheap: what it offers is imported when first used, and with it the
library that it is for (`pip install 'pathlen[integrations]'` for all of them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathlen.lazy import lazy_names

if TYPE_CHECKING:
    from pathlen.integrations.lightning_callback import DepthCallback as DepthCallback
    from pathlen.integrations.logger import DepthLogger as DepthLogger
    from pathlen.integrations.scalars import DepthScalars as DepthScalars
    from pathlen.integrations.trainer_callback import DepthTrainerCallback as DepthTrainerCallback

# name -> the module that defines it
_EXPORTS = {
    "DepthCallback": "pathlen.integrations.lightning_callback",
    "DepthLogger": "pathlen.integrations.logger",
    "DepthScalars": "pathlen.integrations.scalars",
    "DepthTrainerCallback": "pathlen.integrations.trainer_callback",
}

# top-level module of a library -> how it is installed
_LIBRARIES = {
    "lightning": "pip install 'pathlen[lightning]'",
    "transformers": "pip install 'pathlen[transformers]'",
}

__all__ = list(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    _import_name, __dir__ = lazy_names(__name__, _EXPORTS)

    def __getattr__(name: str) -> object:
        """Say how a library is installed that is needed and is not there."""
        try:
            return _import_name(name)
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in _LIBRARIES:
                raise
            raise ImportError(
                f"{name} needs {library}, which is not installed: {_LIBRARIES[library]}",
                name=library,
            ) from error
