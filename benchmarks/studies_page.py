"""Writes what the studies that come with pathlen came to into docs/study.md.

    for name in baselines late_beats_early ...; do pathlen study run $name; done
    python benchmarks/studies_page.py [--folder studies]

The part of the page between the two marks below is made anew: of each study its claim, figure, the
commands, the table with the verdicts, and how long it took. Figures go to docs/images/studies.
Studies that have not been run are left out, those that are not finished are refused.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

# In place of this folder, whose coverage.py would hide the package of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from pathlen.training.study import load_study  # noqa: E402
from pathlen.training.study.settings import shipped_studies  # noqa: E402
from pathlen.training.study.store import Store  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "study.md"
PICTURES = ROOT / "docs" / "images" / "studies"
BEGIN, END = "<!-- studies: begin -->\n", "<!-- studies: end -->\n"


def pathlen(*arguments: object) -> str:
    """What a command prints, on lines as long as they come."""
    command = [Path(sys.executable).with_name("pathlen"), *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def took(folder: Path) -> str:
    """How many runs there were, and how long they took."""
    with Store(folder) as store:
        runs = store.runs()
    unfinished = [run["key"] for run in runs if run["state"] != "done"]
    if unfinished:
        raise SystemExit(f"{folder} has runs that are not done: {unfinished[:3]}")
    seconds = sum(run["ended"] - run["started"] for run in runs)
    each = seconds / len(runs)
    return f"{len(runs)} runs of {each:.0f} s on average, {seconds / 60:.0f} minutes of one core."


def part(name: str, folder: Path) -> str:
    """What the page says of a study."""
    picture = PICTURES / f"{name}.png"
    pathlen("study", "plot", folder, "-o", picture)
    return f"""### {name}

{took(folder)}

![{load_study(name).claim}](images/studies/{picture.name})

```text
pathlen study {name}
pathlen study table {name}

{pathlen("study", "table", folder)}
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("studies"))
    folder = parser.parse_args().folder
    PICTURES.mkdir(parents=True, exist_ok=True)
    names = [name for name in shipped_studies() if name != "example" and (folder / name).is_dir()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    parts = "\n".join(part(name, folder / name) for name in names)
    PAGE.write_text(f"{before}{BEGIN}\n{parts}\n{END}{after}")


if __name__ == "__main__":
    main()
