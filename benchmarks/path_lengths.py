"""Draws `docs/images/path_lengths.svg`: how path lengths of ResNet-110 are distributed.

    python -m benchmarks.path_lengths

Andreas Veit, Michael Wilber and Serge Belongie ("Residual Networks Behave Like Ensembles of
Relatively Shallow Networks", NeurIPS 2016, arXiv:1605.06431) count the blocks that a path goes
through, each of which it enters or skips: 54 of them give a binomial distribution. The random walk
has exactly that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

import pathlen
from pathlen.training import CifarResNet

DEPTH = 110
BLOCKS = (DEPTH - 2) // 2
ALWAYS = 1 + BLOCKS  # active units that every path meets: behind the stem and behind each sum
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "path_lengths.svg"

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 380, 60, 20, 20, 50
_HIGHEST = 0.14  # the axis ends here: a higher bar carries its number
_WALKS, _PATHS, _BINOMIAL = "#1b6ca8", "#c8553d", "#222"


def distributions() -> tuple[list[float], list[float]]:
    """The share of paths and the chance of walks for each number of blocks gone through."""
    report = pathlen.measure(CifarResNet(DEPTH), torch.zeros(1, 3, 32, 32))
    assert (report.shortest_path, report.longest_path) == (ALWAYS, ALWAYS + BLOCKS)
    paths, walks = (
        report.path_length_distribution(weighting)[ALWAYS:].tolist()
        for weighting in ("uniform", "normalized")
    )
    return paths, walks


def binomial() -> list[float]:
    """The chance of each number of blocks if every one is entered or skipped at even odds."""
    return [math.comb(BLOCKS, entered) / 2**BLOCKS for entered in range(BLOCKS + 1)]


def draw(paths: Sequence[float], walks: Sequence[float], wanted: Sequence[float]) -> str:
    """The picture as SVG: bars for the two distributions, points for the binomial one."""
    step = (_WIDTH - _LEFT - _RIGHT) / (BLOCKS + 1)
    bottom = _HEIGHT - _BOTTOM

    def height(share: float) -> float:
        return min(share / _HIGHEST, 1) * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="13" role="img">',
        "<title>Path lengths of ResNet-110</title>",
        "<desc>Walks go through 27 of 54 blocks on average, distributed binomially; nearly all"
        " paths go through all blocks but a few.</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for percent in range(0, 15, 5):
        y = bottom - height(percent / 100)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(_LEFT - 6, y + 4, f"{percent} %", "end"))
    for entered in range(BLOCKS + 1):
        left = _LEFT + entered * step
        for share, color in ((paths[entered], _PATHS), (walks[entered], _WALKS)):
            if height(share) >= 0.05:
                parts.append(
                    f'<rect x="{left + 1:.1f}" y="{bottom - height(share):.1f}"'
                    f' width="{step - 2:.1f}" height="{height(share):.1f}" fill="{color}"/>'
                )
                if share > _HIGHEST:
                    parts.append(_text(left - 4, _TOP + 12, f"up to {100 * share:.0f} %", "end"))
        if height(wanted[entered]) >= 0.05:
            parts.append(_point(left + step / 2, bottom - height(wanted[entered])))
        if entered % 9 == 0:
            parts.append(_text(left + step / 2, bottom + 18, f"{entered}", "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    title = f"blocks that a path goes through, of {BLOCKS}; its length is {ALWAYS} more"
    parts.append(_text(middle, _HEIGHT - 12, title, "middle"))
    for row, (color, name) in enumerate(
        (
            (_WALKS, "every branch counts the same (normalized)"),
            (_PATHS, "every path counts the same"),
        )
    ):
        y = _TOP + 24 + 22 * row
        parts.append(f'<rect x="{_LEFT + 20}" y="{y - 11}" width="12" height="12" fill="{color}"/>')
        parts.append(_text(_LEFT + 40, y, name, "start"))
    parts.append(_point(_LEFT + 26, _TOP + 24 + 44 - 5))
    parts.append(_text(_LEFT + 40, _TOP + 24 + 44, "binomial, Veit et al. 2016", "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _point(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="white" stroke="{_BINOMIAL}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(*distributions(), binomial()))
