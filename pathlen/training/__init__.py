"""Training on depth: tasks and models to train.

Importing this package is cheap: what it offers is imported when first used, so torch is not loaded
by ``import pathlen.training``.
"""

import lazy_loader

# what is public stands in __init__.pyi
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
