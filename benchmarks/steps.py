"""What slopes, a prior and a monitor add to a training step, and what a first command costs.

Row functions of `benchmarks/paths.py`; it has the command.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
WIDTH, SAMPLES = 8, 32
ROUNDS = {"resnet20": 7}  # of slow networks
COMMANDS = 5


def training_step(network: str, what: str) -> Row:
    """A training step (SGD) of a network with slopes, beside one of the network itself.

    Processor seconds, medians of steps taken in turn. The prior is attached to the optimizer, and
    the monitor is read in each step. "layers 200" are 200 linear layers of width 8 with a ReLU
    each, on 32 samples; resnet20 takes a batch of 128 of CIFAR-10's shape.
    """
    import torch

    torch.set_num_threads(1)
    steps = _step(network, "plain"), _step(network, what)
    seconds: tuple[list[float], ...] = ([], [])
    for _ in range(ROUNDS.get(network, 60) + 2):
        for step, own in zip(steps, seconds, strict=True):
            start = time.process_time()
            step()
            own.append(time.process_time() - start)
    plain, other = (own[2:] for own in seconds)  # the first ones warm up
    ratio = median(two / one for one, two in zip(plain, other, strict=True))
    row = {"network": network, "with": what}
    return row | {"plain s": median(plain), "seconds": median(other), "ratio": ratio}


def _step(network: str, what: str) -> Callable[[], None]:
    """What takes one step."""
    import torch
    from torch import nn

    import pathlen
    from pathlen.training import Plan, SparsityPrior, Target, make_linearizable, parameter_groups

    model, data, target = _network(network, nn.PReLU if what == "nn.PReLU" else None)
    monitor = None
    groups: Any = model.parameters()
    if what not in ("plain", "nn.PReLU"):
        make_linearizable(model, data[:1])
        groups = parameter_groups(model, 0.0)
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    if what in ("prior, monitor", "plan, monitor"):
        monitor = pathlen.DepthMonitor(model, data[:1])
        plan = Plan(Target("napl", "50 %"), 10_000) if what == "plan, monitor" else None
        SparsityPrior(model, omega=1e-4, monitor=monitor, plan=plan).attach(optimizer)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.update()

    return step


def _network(name: str, activation: Any) -> tuple[Any, Any, Any]:
    """A network, its data and their classes."""
    import torch
    from torch import nn

    from pathlen.training import CifarResNet

    torch.manual_seed(0)
    if name == "resnet20":
        return CifarResNet(20), torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))
    made = (lambda: activation(WIDTH)) if activation else nn.ReLU
    sites = int(name.split()[1])
    layers = [m for _ in range(sites) for m in (nn.Linear(WIDTH, WIDTH), made())]
    samples = torch.randn(SAMPLES, WIDTH), torch.randint(0, WIDTH, (SAMPLES,))
    return nn.Sequential(*layers), *samples


_FILE = """
import torch
from torch import nn

def make():
    layers = [m for _ in range(20) for m in (nn.Linear(64, 64), nn.ReLU())]
    return nn.Sequential(*layers), torch.zeros(1, 64)
"""


def processes(command: str) -> Row:
    """Processes from their beginning to their end.

    The model of the last two is 20 linear layers of width 64 with a ReLU each. Processor seconds,
    medians of 5, with compiled modules; "above torch" is what a process takes longer than one that
    imports torch and makes that model, in turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "layers.py")
        file.write_text(_FILE)
        python = sys.executable
        alone = [python, "-c", f"import runpy; runpy.run_path({str(file)!r})['make']()"]
        measure = [python, "-m", "pathlen", "measure", f"{file}:make"]
        commands = {
            "import torch, make the model": alone,
            "pathlen measure": measure,
            "pathlen measure --backend numba": [*measure, "--backend", "numba"],
        }
        pairs = [(_seconds(alone), _seconds(commands[command])) for _ in range(COMMANDS + 1)][1:]
    row = {"command": command, "seconds": median(own for _, own in pairs)}
    return row | {"above torch": median(own - base for base, own in pairs)}


def _seconds(command: list[str]) -> float:
    """Processor seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


NETWORKS = ("layers 20", "layers 200")
WITH = ("nn.PReLU", "slopes", "prior, monitor", "plan, monitor")
STEPS = [
    *((network, what) for network in NETWORKS for what in WITH),
    *(("resnet20", what) for what in WITH[1:]),
]
COMMAND_ROWS = [
    ("import torch, make the model",),
    ("pathlen measure",),
    ("pathlen measure --backend numba",),
]
