"""Studies: a grid of training runs, carried out locally or on a cluster, in one store.

Importing this package is cheap, as importing `pathlen.training` is.

    settings     what a study is (STUDY.yaml)
    plan         the runs it asks for
    keys         the key of a run, the same on every machine
    store        SQLite: what is to be done, by whom, and what came out; one process writes
    nursery      a process with torch loaded, which forks one process for each run
    worker       carries out one run, in a thread here or on a cluster; never touches the store
    executors    where workers are: threads of this process, or a Dask cluster
    coordinator  claims runs, hands them to workers, writes what they return
    finished     finished runs as a text file, which a repository keeps
    contents     what the store and that file tell of a study together
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
