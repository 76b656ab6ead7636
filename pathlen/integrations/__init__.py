"""The depth of a model in the tools that people train with: what they log, and when.

All of them log what `DepthScalars` reads: a `pathlen.DepthMonitor` as a flat dictionary of numbers.

Importing this package is cheap: what it offers is imported when first used, and with it the
library that it is for (`pip install 'pathlen[integrations]'` for all of them).
"""

import lazy_loader

# top-level module of a library -> how it is installed
_LIBRARIES = {
    "lightning": "pip install 'pathlen[lightning]'",
    "transformers": "pip install 'pathlen[transformers]'",
}

# what is public stands in __init__.pyi
_import_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


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
