"""Writes what the studies that come with pathlen came to into docs/study.md.

    for name in gates_plain20_16 slow_decay ...; do
        pathlen study run $name && pathlen study export $name
    done
    python benchmarks/studies_page.py

Two parts of the page, each between two marks, are made anew from the files of finished runs beside
the studies: the table of the gates, and of each other study its claim, figure, the commands, the
table with the verdicts, and how long it took. Figures go to docs/images/studies. What the page has
of a study of which no file tells is left as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from pathlen.training.recipe import Recipe  # noqa: E402
from pathlen.training.study import Study, load_study, read_results  # noqa: E402
from pathlen.training.study.finished import read_finished, results_file  # noqa: E402
from pathlen.training.study.plan import plan_study  # noqa: E402
from pathlen.training.study.results import Case  # noqa: E402
from pathlen.training.study.settings import shipped_studies, study_file  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "study.md"
PICTURES = ROOT / "docs" / "images" / "studies"
NOWHERE = ROOT / "studies" / "none"
GATES, STUDIES = "gates", "studies"
KINDS = ("random units", "layers")
CLEAR = {"test_accuracy": 0.02, "bleu": 1.0}
"""What the dense network has to be ahead by."""

HEAD = """
| task | network | epochs | NAPL | dense | random units | layers | dense ahead by | passes |
|---|---|---|---|---|---|---|---|---|
"""


def pathlen(*arguments: object) -> str:
    """What a command prints, on lines as long as they come."""
    command = [sys.executable, "-m", "pathlen", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def gate(source: str | Path) -> Iterable[str]:
    """A row for each depth of a gate, what is still to be run left open; one if nothing has run."""
    study = load_study(source)
    recipe = plan_study(study).runs[0].recipe
    cases = cases_of(study, results_file(study_file(source)))
    setting = [task_in_words(recipe), network(recipe), str(epochs(recipe))]
    if not cases:
        yield f"| {' | '.join([*setting, '', *['to run'] * 3, '', ''])} |"
        return
    dense = mean(cases.get("dense"))
    whole = mean(cases.get("dense"), "napl")
    depths = dict.fromkeys(case.label.rpartition(" ")[2] for case in study.cases[1:])
    for depth in sorted(depths, key=float, reverse=True):
        asked = [kind for kind in KINDS if f"{kind}, NAPL {depth}" in labels(study)]
        shallow = {kind: mean(cases.get(f"{kind}, NAPL {depth}")) for kind in asked}
        found = [value for value in shallow.values() if value is not None]
        ahead = dense - max(found) if dense is not None and found else None
        metric = "bleu" if recipe.model["name"] == "transformer" else "test_accuracy"
        share = f" ({float(depth) / whole:.0%})" if whole else ""
        cells = [
            *(*setting, f"{depth}{share}"),
            shown(dense, metric),
            *(shown(shallow[kind], metric) if kind in asked else "" for kind in KINDS),
            "" if ahead is None else shown(ahead, metric).replace("%", "points"),
            passes(ahead, len(found) == len(asked), metric),
        ]
        yield f"| {' | '.join(cells)} |"


def passes(ahead: float | None, complete: bool, metric: str) -> str:
    """Whether a gate is passed, if that is known: other shallow networks may be better."""
    if ahead is None:
        return ""
    if ahead < CLEAR[metric]:
        return "no"
    return "yes" if complete else "so far"


def labels(study: Study) -> list[str]:
    """Of the cases of a study."""
    return [case.label for case in study.cases]


def cases_of(study: Study, path: Path) -> dict[str, Case]:
    """The cases of a study by their labels; none if no file tells of it."""
    if not read_finished(path):
        return {}
    return {str(one.labels["case"]): one for one in read_results(NOWHERE, study, path).cases}


def mean(case: Case | None, column: str | None = None) -> float | None:
    """Of the metric of a case's runs, or of another column."""
    if case is None or not case.records:
        return None
    return statistics.fmean(case.values(column or case.records[0].metric))


def shown(value: float | None, metric: str) -> str:
    """A value as it stands in the table."""
    if value is None:
        return "to run"
    return f"{100 * value:.1f} %" if metric == "test_accuracy" else f"{value:.1f} BLEU"


def task_in_words(recipe: Recipe) -> str:
    """What is learned: cifar10, 16 x 16."""
    size = recipe.task.get("image_size")
    return f"{recipe.task['name']}{f', {size} x {size}' if size else ''}"


def network(recipe: Recipe) -> str:
    """What learns it."""
    size = recipe.model.get("width", "")
    return f"{recipe.model['name']}, width {size}"


def epochs(recipe: Recipe) -> int:
    """Of a run as a whole."""
    return recipe.train_epochs + recipe.linearize.epochs + recipe.finetune.epochs


def part(name: str) -> str:
    """What the page says of a study."""
    study, path = load_study(name), results_file(study_file(name))
    runs = read_finished(path).values()
    seconds = sum(run.rows[-1]["seconds"] for run in runs)
    planned = len(plan_study(study).runs)
    machines = "; ".join(dict.fromkeys(str(run.summary.get("machine")) for run in runs))
    picture = PICTURES / f"{name}.png"
    pathlen("study", "plot", name, "--folder", NOWHERE, "-o", picture)
    return f"""### {name}

{len(runs)} of {planned} runs are finished, with {seconds / 60:.0f} minutes of steps ({machines}).

![{study.claim}](images/studies/{picture.name})

```text
pathlen study {name}
pathlen study table {name}

{pathlen("study", "table", name, "--folder", NOWHERE)}
```
"""


def parts_of(text: str) -> dict[str, str]:
    """The parts of the page by the names of their studies."""
    found = re.split(r"^### (\S+)\n", text, flags=re.MULTILINE)[1:]
    pairs = zip(found[::2], found[1::2], strict=True)
    return {name: f"### {name}\n{rest.rstrip()}\n" for name, rest in pairs}


def replaced(page: str, mark: str, text: str) -> str:
    """The page with another text between two marks."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page = PAGE.read_text()
    names = [name for name in shipped_studies() if name != "example"]
    gates = [name for name in names if name.startswith("gates_")]
    rows = [row for name in gates for row in gate(name)]
    page = replaced(page, GATES, HEAD + "\n".join(rows) + "\n")
    parts = parts_of(page.partition(f"<!-- {STUDIES}: begin -->")[2].partition("<!--")[0])
    for name in names:
        if name not in gates and results_file(study_file(name)).exists():
            parts[name] = part(name)
    page = replaced(page, STUDIES, "\n" + "\n".join(parts[name] for name in sorted(parts)))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
