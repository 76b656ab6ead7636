"""Average path length: the effective depth of any PyTorch model.

    >>> import pathlen
    >>> report = pathlen.measure(model, torch.randn(1, 3, 224, 224))
    >>> report.normalized_average_path_length

Importing this package is cheap: what it offers is imported when first used (PEP 562), so neither
torch nor a graph library is loaded by ``import pathlen``.
"""

import lazy_loader

__version__ = "0.1.0"

# what is public stands in __init__.pyi
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
