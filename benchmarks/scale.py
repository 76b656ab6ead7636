"""How a measurement grows with the size of a model, and what a very large one takes.

Each row is a process of its own, so that the peak memory is the row's. After the rows of a family:
the exponent p of CPU seconds ~ size^p, fitted to all of them.

    python benchmarks/scale.py [--families perceptron "Llama 70B" ...] [--seconds 120]
        [--write docs/scale.md]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, whose coverage.py would hide the package

import torch  # noqa: E402 - after the path is set

import pathlen  # noqa: E402
from benchmarks.markdown import table  # noqa: E402
from benchmarks.plot import exponent, log_log  # noqa: E402
from benchmarks.scale_models import FAMILIES, perceptron  # noqa: E402

DRAWN = ("perceptron", "resnet", "branches", "LSTM", "scan")
"""Families in the picture."""


def measure_row(family: str, size: int) -> dict[str, Any]:
    """Measure one model in this process, warm: a small one has been measured before."""
    torch.set_num_threads(1)
    small, example, _ = perceptron(2)
    pathlen.measure(small, example)
    model, args, kwargs = FAMILIES[family].make(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    report = pathlen.measure(model, args, kwargs)
    processor = time.process_time() - processor
    return {
        "model": family,
        "size": size,
        "of": FAMILIES[family].what,
        "seconds": time.perf_counter() - start,
        "CPU s": processor,
        **{stage: report.seconds[stage] for stage in ("trace", "lower", "solve")},
        "nodes": report.graph.num_nodes,
        "edges": report.graph.num_edges,
        "napl": report.normalized_average_path_length,
        "MiB before": before // 1024,
        "MiB peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def write_page(page: Path, families: dict[str, list[dict[str, Any]]]) -> None:
    """A table of the families, one of all rows, and a plot of some families."""
    header, summary = ("model", "sizes", "of", "CPU s", "exponent", "MiB peak"), []
    for name, rows in families.items():
        sizes = " to ".join(str(row["size"]) for row in (rows[0], *rows[1:][-1:]))
        fitted = _shown(_exponent(name, rows)) if len(rows) > 1 else ""
        last = rows[-1]
        peak = _shown(last["MiB peak"])
        summary.append((name, sizes, last["of"], _shown(last["CPU s"]), fitted, peak))
    names = [name for name in next(iter(families.values()))[0] if name != "of"]
    every = [[_shown(row[n]) for n in names] for rows in families.values() for row in rows]
    curves = {
        f"{name}: CPU seconds ~ size^{_exponent(name, families[name]):.2f}": _curve(
            families[name], "size"
        )
        for name in DRAWN
        if name in families
    }
    plot = log_log("Processor time of a whole measurement", "size", "CPU seconds", curves)
    (page.parent / "images" / "scale.svg").write_text(plot)
    page.write_text(_PAGE.format(summary=table(header, summary), rows=table(names, every)))


_PAGE = """\
# Size and depth

What `python benchmarks/scale.py` measured: models that grow in one way each, and the shapes of
large language models on the meta device, each in a process of its own, on one thread. CPU seconds
are those of all of `pathlen.measure`, of the largest size; the exponent *p* of CPU seconds ~
size^*p* is fitted to all sizes (to the number of edges where each layer reads all before).

{summary}

![Seconds against size](images/scale.svg)

## All sizes

Seconds are those of all of `pathlen.measure` and of its stages; "CPU s" is the processor time,
which other work on the machine touches less. "MiB peak" is the resident memory of the whole
process, "MiB before" what of that the libraries and the model take.

{rows}

Exponents are fitted by least squares to the logarithms.
"""


def _exponent(family: str, rows: list[dict[str, Any]]) -> float:
    return exponent(_curve(rows, FAMILIES[family].by))


def _curve(rows: list[dict[str, Any]], by: str) -> list[tuple[float, float]]:
    return [(row[by], row["CPU s"]) for row in rows]


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--seconds", type=float, default=120, help="a row, at most")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_row(options.one[0], int(options.one[1]))))
        return
    families: dict[str, list[dict[str, Any]]] = {}
    for family in options.families:
        rows = families.setdefault(family, [])
        for size in FAMILIES[family].sizes:
            command = [sys.executable, __file__, "--one", family, str(size)]
            try:
                done = subprocess.run(
                    command,
                    check=True,
                    capture_output=True,
                    text=True,
                    cwd=ROOT,
                    timeout=options.seconds,
                )
            except subprocess.TimeoutExpired:
                print(f"{family} {size}: not done in {options.seconds:g} s")
                break
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            print("  ".join(f"{name} {_shown(value)}" for name, value in row.items()), flush=True)
        if len(rows) > 1:
            print(f"{family}: CPU seconds ~ {FAMILIES[family].by}^{_exponent(family, rows):.2f}")
    if options.write:
        write_page(options.write, {name: rows for name, rows in families.items() if rows})


if __name__ == "__main__":
    main()
