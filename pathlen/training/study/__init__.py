"""Studies: a grid of training runs, carried out locally or on a cluster, in one folder.

Importing this package is cheap, as importing `pathlen.training` is.

    settings     what a study is (STUDY.yaml)
    plan         the runs it asks for
    keys         the key of a run, the same on every machine
    folder       of a study: what is known of its runs, read from their own folders
    child        what the process of a run does, under the lock of the run's folder
    processes    begins that process, here or in a worker of Dask, and waits for it
    executors    where workers are: threads of this process, or a Dask cluster
    coordinator  hands runs that are left to do to workers until none is
    finished     finished runs as a text file, which a repository keeps
    contents     what the folder and that file tell of a study together
    results      the same as records, cases with means over seeds, and points of a figure
"""

import lazy_loader

# what is public stands in __init__.pyi
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
