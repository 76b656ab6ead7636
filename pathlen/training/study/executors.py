"""Where runs are carried out: by processes of this machine, or by the workers of a Dask cluster.

Both call :func:`pathlen.training.study.processes.carry_out` and give futures of
`concurrent.futures`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import torch

import pathlen
from pathlen.errors import StudyError
from pathlen.printable import shown
from pathlen.training.libraries import library
from pathlen.training.study.address import check_address
from pathlen.training.study.job import Job
from pathlen.training.study.machine import cores
from pathlen.training.study.processes import Outcome, carry_out, unreachable

PATIENCE = 4.0
"""Seconds to wait for a scheduler whose machine answers."""


class Here:
    """This machine: a thread for each run at a time, which waits for the run's process.

    Args:
        workers: Runs at a time; as many as this process may use cores if None.
        threads: Of each run.
    """

    def __init__(self, workers: int | None, threads: int) -> None:
        self._workers = workers or max(1, cores() // threads)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="study")

    def slots(self) -> int:
        """As many as workers."""
        return self._workers

    def submit(self, job: Job) -> Future[Outcome]:
        """Hand over a run."""
        return self._pool.submit(carry_out, job)

    def close(self) -> None:
        """Wait for the runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Cluster:
    """The workers of a Dask cluster.

    Args:
        address: Of the scheduler: "tcp://host:8786".
        home: Folder of the study, which all workers must share.
        command: A file in there, by which workers tell that they see that folder.
        say: Is told what the user should know.

    Raises:
        StudyError: There is no scheduler, or workers have another pathlen or not the folder.
    """

    def __init__(self, address: str, home: Path, command: Path, say: Callable[[str], None]) -> None:
        check_address(address)
        distributed = library("distributed", "distributed", "study")
        try:
            self._client = distributed.Client(
                address, timeout=PATIENCE, set_as_default=False, name="pathlen-study"
            )
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"what answers at {shown(address)} is no Dask scheduler ({error}); start one with:"
                " dask scheduler"
            ) from error
        self._address = address
        try:
            self._check(home, command, say)
        except BaseException:
            self._client.close()
            raise
        self._pool: Executor = self._client.get_executor(pure=False)

    def _check(self, home: Path, command: Path, say: Callable[[str], None]) -> None:
        """Ask all workers for their versions, and whether they see the folder."""
        answers = self._client.run(look_around, home, command)
        if not answers:
            say(f"the scheduler at {self._address} has no workers yet; runs wait for them")
        own = look_around(home, command)
        problems = [
            f"worker {worker}: {answer['problem']}"
            if answer["problem"]
            else f"worker {worker} has pathlen {answer['pathlen']} and torch {answer['torch']}, not"
            f" {own['pathlen']} and {own['torch']}"
            for worker, answer in answers.items()
            if answer["problem"] or answer != own
        ]
        if problems:
            listed = "\n  ".join(problems)
            raise StudyError(
                f"workers of {self._address} cannot carry out this study:\n  {listed}\n"
                f"all of them need the folder {home}, shared by a network file system, and the"
                " same versions"
            )

    def slots(self) -> int:
        """Threads of all workers, at least one so that something waits for the first of them.

        Raises:
            StudyError: The scheduler is gone.
        """
        try:
            threads: dict[str, int] = self._client.nthreads()
        except Exception as error:  # Dask raises many kinds when a connection ends
            raise self._lost(error) from error
        return max(1, sum(threads.values()))

    def submit(self, job: Job) -> Future[Outcome]:
        """Hand over a run. If its worker dies, Dask gives it to another one.

        Raises:
            StudyError: The scheduler is gone.
        """
        try:
            future: Future[Outcome] = self._pool.submit(carry_out, job)
        except Exception as error:
            raise self._lost(error) from error
        return future

    def _lost(self, error: BaseException) -> StudyError:
        return StudyError(
            f"the scheduler at {self._address} is gone ({type(error).__name__}: {error}); nothing"
            " is lost: the same command goes on"
        )

    def close(self) -> None:
        """Leave the cluster as it is."""
        self._client.close(timeout=PATIENCE)


def look_around(home: Path, command: Path) -> dict[str, str]:
    """What a worker has: versions, and what keeps it from using the folder of the study."""
    return {
        "pathlen": pathlen.__version__,
        "torch": torch.__version__,
        "problem": unreachable(home, command),
    }
