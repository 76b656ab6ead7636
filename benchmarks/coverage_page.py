"""Renders the records of a coverage sweep as a page of the documentation."""

import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.coverage_spellings import spellings_section
from benchmarks.markdown import table
from benchmarks.sweep import Record
from tests.zoo import ZOOS
from tests.zoo.timm_models import family

MOST_BYTES = 400_000  # of a page; a longer table goes to a file beside it
COLUMNS: dict[str, Callable[[Record], str]] = {
    "status": lambda record: record["status"],
    "tracer": lambda record: _short_tracer(record["tracer"]),
    "nodes": lambda record: f"{record['nodes']}",
    "edges": lambda record: f"{record['edges']}",
    "average": lambda record: f"{record['apl']:.4g}",
    "normalized": lambda record: f"{record['napl']:.4g}",
    "log10 paths": lambda record: f"{record['log10_paths']:.1f}",
    "trace s": lambda record: f"{record['stages']['trace']:.2f}",
    "lower s": lambda record: f"{record['stages']['lower']:.2f}",
    "solve s": lambda record: f"{record['stages']['solve']:.2f}",
    "CPU s": lambda record: f"{record['processor_seconds']:.2f}",
    "MB": lambda record: f"{record['peak_mb']:.0f}",
}
TITLES = {"torchvision": "torchvision", "timm": "timm", "transformers": "Hugging Face transformers"}


def write_page(path: Path, records: list[Record]) -> None:
    """Write the page, and a CSV file of everything beside it if the page would get too long."""
    measured = {
        zoo: {r["task"][2]: r for r in records if r["task"][:2] == ["measure", zoo]} for zoo in ZOOS
    }
    tables = {zoo: _table(found) for zoo, found in measured.items()}
    page = _page(measured, records, tables)
    if len(page.encode()) > MOST_BYTES:
        tables["timm"] = _families(measured["timm"])
        page = _page(measured, records, tables)
        path.with_suffix(".csv").write_text(_csv(measured))
    path.write_text(page)


def _page(
    measured: dict[str, dict[str, Record]], records: list[Record], tables: dict[str, str]
) -> str:
    everything = [record for found in measured.values() for record in found.values()]
    parts = [
        "# Coverage",
        _INTRODUCTION,
        "## Totals",
        _totals(measured),
        _unfinished(measured),
        _export(records),
        "## Failures",
        _failures(measured),
        "## Bounds",
        _STATUS,
        _bounds(measured),
        spellings_section(records, TITLES),
        "## Slowest",
        _slowest(everything),
    ]
    for zoo, title in TITLES.items():
        parts += [f"## {title}", tables[zoo]]
    return "\n\n".join(part for part in parts if part) + "\n"


_INTRODUCTION = """\
What `python benchmarks/coverage.py` measured: each model in a process of its own, on one thread,
with at most 60 s of processor time and 8 GiB of memory. Models of torchvision and timm are as
registered and, unless they look at values, on the meta device; those of transformers have small
configurations and random weights. torchvision's quantized models are measured in floating point.

Stages (trace, lower, solve) are in wall-clock seconds on a machine with two cores that had other
work to do; "CPU s" is the processor time of all three together, which that does not touch. "MB" is
the peak of resident memory beyond that of a process that has loaded the libraries, the making of
the model included."""


_STATUS = """\
A result is a bound where an operation may have fewer connections than the graph has. It is that of
its example where values or random numbers decide which operations are done."""


def _totals(measured: dict[str, dict[str, Record]]) -> str:
    header = (
        "zoo",
        "listed",
        "run",
        "measured",
        "exact",
        "example",
        "bound",
        "failed",
        "median CPU s",
        "most CPU s",
    )
    rows = []
    for zoo, found in measured.items():
        good = [record for record in found.values() if "failure" not in record]
        status = Counter(record["status"] for record in good)
        times = [record["processor_seconds"] for record in good] or [0.0]
        states = (status["exact"], status["example"], status["bound"])
        counts = (len(ZOOS[zoo].names()), len(found), len(good), *states)
        seconds = (f"{statistics.median(times):.2f}", f"{max(times):.1f}")
        rows.append((TITLES[zoo], *map(str, counts), str(len(found) - len(good)), *seconds))
    return table(header, rows)


def _unfinished(measured: dict[str, dict[str, Record]]) -> str:
    """What a sweep that was cut short has not run."""
    lines = []
    for zoo, found in measured.items():
        names = ZOOS[zoo].names()
        missing = len(set(names) - set(found))
        if missing:
            note = ""
            if zoo == "timm":
                seen = {family(name) for name in found}
                note = f"; it ran some of {len(seen)} of its {len({*map(family, names)})} families"
            lines.append(f"The sweep had not come to {missing} models of {TITLES[zoo]} yet{note}.")
    return "\n".join(lines)


def _export(records: list[Record]) -> str:
    """The comparison with torch.export, where it was run."""
    found = [record for record in records if record["task"][0] == "compare"]
    pairs = [
        (record["processor_seconds"], record["export_processor_seconds"])
        for record in found
        if "export_processor_seconds" in record and "processor_seconds" in record
    ]
    if not pairs:
        return ""
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    return (
        f"Beside `torch.export.export(strict=False)`, in one process for each of {len(pairs)}"
        f" models of timm: all of `pathlen.measure` takes a median of {ours:.2f} s of processor"
        f" time, torch.export alone {theirs:.2f} s; the median of the ratios is {ratio:.2f}."
    )


def _failures(measured: dict[str, dict[str, Record]]) -> str:
    rows = [
        (TITLES[zoo], name, record["failure"])
        for zoo, found in measured.items()
        for name, record in sorted(found.items())
        if "failure" in record
    ]
    return table(("zoo", "model", "reason"), rows) if rows else "None."


def _bounds(measured: dict[str, dict[str, Record]]) -> str:
    rows = [
        (TITLES[zoo], name, "; ".join(_lowering_causes(record)))
        for zoo, found in measured.items()
        for name, record in sorted(found.items())
        if record.get("status") not in (None, "exact")
    ]
    return table(("zoo", "model", "why"), rows) if rows else "None."


def _lowering_causes(record: Record) -> list[str]:
    """Causes without the attempts of tracers, and no sort of cause more than once."""
    causes = [cause for cause in record["causes"] if " in module " in cause]
    return list({cause.partition(" in module ")[0]: cause for cause in causes}.values())


def _slowest(records: list[Record]) -> str:
    good = [record for record in records if "failure" not in record]
    slowest = sorted(good, key=lambda record: -record["processor_seconds"])[:10]
    return _table({record["task"][2]: record for record in slowest}, sort=False)


def _table(found: dict[str, Record], *, sort: bool = True) -> str:
    names = sorted(found) if sort else list(found)
    rows = [
        (name, *(column(found[name]) for column in COLUMNS.values()))
        for name in names
        if "failure" not in found[name]
    ]
    return table(("model", *COLUMNS), rows)


def _families(found: dict[str, Record]) -> str:
    """One line for each family, with the range of its numbers."""
    members: dict[str, list[Record]] = {}
    for name, record in found.items():
        members.setdefault(family(name), []).append(record)
    rows = []
    for name, records in sorted(members.items()):
        good = [record for record in records if "failure" not in record]
        exact = sum(record["status"] == "exact" for record in good)
        ranges = (
            _range([record["napl"] for record in good]),
            _range([record["nodes"] for record in good]),
            _range([record["processor_seconds"] for record in good]),
        )
        rows.append((name, str(len(records)), str(len(good)), str(exact), *ranges))
    header = ("family", "run", "measured", "exact", "normalized", "nodes", "CPU s")
    return "Every architecture is in [coverage.csv](coverage.csv).\n\n" + table(header, rows)


def _range(values: list[float]) -> str:
    if not values:
        return ""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def _csv(measured: dict[str, dict[str, Record]]) -> str:
    lines = [",".join(("zoo", "model", *COLUMNS, "failure"))]
    for zoo, found in measured.items():
        for name, record in sorted(found.items()):
            if "failure" in record:
                cells = [*("" for _ in COLUMNS), '"' + record["failure"].replace('"', "'") + '"']
            else:
                cells = [*(column(record) for column in COLUMNS.values()), ""]
            lines.append(",".join((zoo, f'"{name}"', *cells)))
    return "\n".join(lines) + "\n"


def _short_tracer(name: str) -> str:
    return {
        "eager recorder (fake tensors)": "fake",
        "eager recorder (real tensors)": "real",
        "torch.export": "export",
    }.get(name, name)
