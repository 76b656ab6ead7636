"""The command ``pathlen demo``: what averages do while a network becomes linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pathlen.cli_options import print_table

if TYPE_CHECKING:
    from pathlen.report import Report


@click.command()
def demo() -> None:
    """Measure a small residual network, with all, half and none of its channels nonlinear."""
    reports = {
        "fully active": _measure_resnet(linear_part=0.0),
        "half the channels linear": _measure_resnet(linear_part=0.5),
        "fully linear": _measure_resnet(linear_part=1.0),
    }
    rows = [(label, *map(text, reports.values())) for label, text in _demo_rows()]
    print_table(("", *reports), rows, "ResNet-20 for CIFAR with channel-wise PReLU slopes")
    click.echo(
        "\nA channel whose slope is 1 is linear and no longer counts. The average path\n"
        "length weighs all paths alike, the normalized one all branches: a skip as much\n"
        "as its block."
    )


def _measure_resnet(linear_part: float) -> Report:
    """Measure a ResNet-20, the first part of whose channels have slope 1 in every layer."""
    import torch
    from torch import nn

    import pathlen
    from pathlen.training.resnet import CifarResNet, channelwise_prelu

    model = CifarResNet(depth=20, activation=channelwise_prelu).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight[: round(linear_part * module.num_parameters)] = 1.0
    return pathlen.measure(model, torch.zeros(1, 3, 32, 32))


def _demo_rows() -> list[tuple[str, Callable[[Report], str]]]:
    """Give the lines of the demonstration's table: a label, and how to read it off a report."""
    return [
        ("average path length", lambda report: f"{report.average_path_length:.4f}"),
        ("normalized", lambda report: f"{report.normalized_average_path_length:.4f}"),
        ("longest path", lambda report: str(report.longest_path)),
        ("shortest path", lambda report: str(report.shortest_path)),
        ("active units", lambda report: f"{report.num_active:,}"),
        ("effective width", lambda report: f"{report.effective_width:.2f}"),
        ("paths", lambda report: f"10^{report.log10_path_count:.2f}"),
    ]
