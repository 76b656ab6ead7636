"""Figures for papers, drawn with matplotlib (``pip install 'pathlen[figures]'``).

Every function draws into the axes given as ``ax``, or makes a figure of one column of a paper, and
returns the axes. Settings of matplotlib are never changed: what pathlen sets holds for what it
draws. `save` writes a figure as vector graphics whose text stays text.

matplotlib is imported when the first figure is drawn.
"""

import lazy_loader

# what is public stands in __init__.pyi
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
