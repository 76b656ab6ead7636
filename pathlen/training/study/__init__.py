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

from __future__ import annotations

from typing import TYPE_CHECKING

from pathlen.lazy import lazy_names

if TYPE_CHECKING:
    from pathlen.training.study.coordinator import run_study as run_study
    from pathlen.training.study.results import read_results as read_results
    from pathlen.training.study.settings import Study as Study
    from pathlen.training.study.settings import load_study as load_study
    from pathlen.training.study.settings import make_study as make_study
    from pathlen.training.study.verdict import Verdict as Verdict
    from pathlen.training.study.verdict import judge as judge

# name -> the module that defines it
_EXPORTS = {
    "Study": "pathlen.training.study.settings",
    "Verdict": "pathlen.training.study.verdict",
    "judge": "pathlen.training.study.verdict",
    "load_study": "pathlen.training.study.settings",
    "make_study": "pathlen.training.study.settings",
    "read_results": "pathlen.training.study.results",
    "run_study": "pathlen.training.study.coordinator",
}

__all__ = list(_EXPORTS)

if not TYPE_CHECKING:  # else a type checker would take any misspelt name for an object
    __getattr__, __dir__ = lazy_names(__name__, _EXPORTS)
