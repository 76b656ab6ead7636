"""Which models pathlen measures: all of torchvision and timm, and architectures of transformers.

Each model is traced, lowered and solved in a process of its own, with a limit on its time and
memory (see `benchmarks/sweep.py`). What has a record in the results file is not run again.

    python benchmarks/coverage.py [--zoos torchvision timm transformers] [--workers 2]
        [--export-sample 60] [--spellings] [--models NAME ...] [--results FILE]
        [--write docs/coverage.md]
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder: numba would import this file as the package `coverage`
os.environ["HF_HUB_OFFLINE"] = "1"  # every model is built from its configuration

import torch  # noqa: E402 - after the paths are set

import pathlen  # noqa: E402
from benchmarks.coverage_page import write_page  # noqa: E402
from benchmarks.coverage_spellings import both_spellings  # noqa: E402
from benchmarks.sweep import Limits, Record, read_records, sweep  # noqa: E402
from tests.zoo import ZOOS  # noqa: E402
from tests.zoo.subject import Subject  # noqa: E402
from tests.zoo.timm_models import family  # noqa: E402


def measured(zoo: str, name: str) -> Record:
    """The record of one model; raises what pathlen raises."""
    return _measured(ZOOS[zoo].build(name))


def _measured(subject: Subject) -> Record:
    start, processor = time.perf_counter(), time.process_time()
    report = pathlen.measure(
        subject.model, subject.args, subject.kwargs, input_axis=subject.input_axis
    )
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "stages": dict(report.seconds),
        "tracer": report.tracer,
        "status": report.status,
        "causes": list(report.causes)[:12],
        "nodes": report.graph.num_nodes,
        "edges": report.graph.num_edges,
        "active": report.num_active,
        "apl": report.average_path_length,
        "napl": report.normalized_average_path_length,
        "log10_paths": report.log10_path_count,
    }


def _exported(subject: Subject) -> Record:
    """Seconds of `torch.export.export(strict=False)`, or why it fails."""
    start, processor = time.perf_counter(), time.process_time()
    try:
        torch.export.export(subject.model, subject.args, dict(subject.kwargs), strict=False)
    except Exception as error:  # a model that torch.export cannot do is a result too
        return {"export_failure": f"{type(error).__name__}: {error}"[:200]}
    return {
        "export_seconds": time.perf_counter() - start,
        "export_processor_seconds": time.process_time() - processor,
    }


def compared(zoo: str, name: str, first: str) -> Record:
    """pathlen and torch.export on one model in one process, `first` ("ours", "theirs") first."""
    subject = ZOOS[zoo].build(name)
    if first == "ours":
        return _measured(subject) | _exported(subject)
    export = _exported(subject)
    return _measured(subject) | export


def warm_up() -> None:
    """Import and compile, before any process is forked, what the first call of each would."""
    model, image = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()), (2, 3, 8, 8)
    subject = Subject(model, (torch.empty(image),))
    _measured(subject)
    _exported(subject)


def export_sample(zoo: str, count: int) -> list[tuple[str, ...]]:
    """Every n-th model of a zoo, in alphabetical order, to compare with torch.export."""
    names = sorted(ZOOS[zoo].names())
    chosen = [names[i * len(names) // count] for i in range(count)]
    return [("compare", zoo, name, ("ours", "theirs")[i % 2]) for i, name in enumerate(chosen)]


def spelled(zoo: str, name: str) -> Record:
    """One model as it comes and decomposed to core ATen."""
    return both_spellings(ZOOS[zoo].build(name))


def spellings_sample(zoo: str) -> list[tuple[str, ...]]:
    """The models of a zoo to measure in two spellings: of timm the first of each family."""
    names = ZOOS[zoo].names()
    if zoo == "timm":
        names = list({family(name): name for name in reversed(names)}.values())[::-1]
    return [("spellings", zoo, name) for name in names]


def run(kind: str, *task: str) -> Record:
    """One task of the sweep."""
    return {"measure": measured, "compare": compared, "spellings": spelled}[kind](*task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoos", nargs="*", choices=ZOOS, default=list(ZOOS))
    parser.add_argument("--models", nargs="*", help="only these, also where they have a record")
    parser.add_argument("--export-sample", type=int, default=0, metavar="N")
    parser.add_argument("--spellings", action="store_true", help="and decomposed to core ATen")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "coverage.jsonl")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=60, help="processor time for one model")
    parser.add_argument("--memory", type=int, default=8192, help="MiB for one model")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page, run nothing")
    options = parser.parse_args()
    if options.write:
        write_page(options.write, read_records(options.results))
        return
    tasks = [("measure", zoo, name) for zoo in options.zoos for name in ZOOS[zoo].names()]
    if options.export_sample:
        tasks = [task for zoo in options.zoos for task in export_sample(zoo, options.export_sample)]
    if options.spellings:
        tasks = [task for zoo in options.zoos for task in spellings_sample(zoo)]
    if options.models:
        tasks = [task for task in tasks if task[2] in options.models]
    torch.set_num_threads(1)  # and no thread of torch that a fork would lack
    warnings.simplefilter("ignore")
    warm_up()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    limits = Limits(options.seconds, options.memory)
    again = bool(options.models)
    sweep(tasks, run, options.results, workers=options.workers, limits=limits, again=again)


if __name__ == "__main__":
    main()
