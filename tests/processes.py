"""Processes for tests: forked from one that has torch loaded, so that each begins at once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pathlen.training.loop", "sklearn.datasets", "tests.training_runs"])
PATIENCE = 300  # seconds; a test that needs them has failed


def exit_code(function: Callable[..., Any], *arguments: Any) -> int:
    """How a process ends that calls a function: 0, 1 after an exception, -9 after SIGKILL."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{function.__name__} takes more than {PATIENCE} s")
    return process.exitcode


def command_line(folder: Path, *arguments: str) -> None:
    """What a process of the command line does; it prints into the files `out` and `err`."""
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        with open(name, "w") as file:
            os.dup2(file.fileno(), number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from pathlen.cli.main import main

    main(arguments)


def together(function: Callable[..., Any], number: int, *arguments: Any) -> list[Any]:
    """What a function returns in each of several processes, which know of each other by gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(number):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        one = CONTEXT.Process(target=_one, args=(sender, port, rank, number, function, arguments))
        one.start()
        pipes.append(receiver)
        processes.append(one)
    results = [pipe.recv() if pipe.poll(PATIENCE) else "it takes too long" for pipe in pipes]
    for process in processes:
        process.join(10)
        process.kill()
    problems = [result for result in results if isinstance(result, str)]
    assert not problems, problems[0]
    return [result[0] for result in results]


def _one(sender: Any, port: int, rank: int, number: int, function: Any, arguments: Any) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
    os.environ.update(address | places)
    try:
        sender.send((function(*arguments),))
    except BaseException:
        sender.send(traceback.format_exc())
