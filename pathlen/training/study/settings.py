"""What a study is: a recipe, what is varied in it, and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pathlen.errors import SettingsError
from pathlen.printable import shown
from pathlen.training.keywords import unknown_name
from pathlen.training.recipe_file import read_override, read_yaml, validated
from pathlen.training.settings import Count, Settings
from pathlen.training.study.claims import Claim, as_claims
from pathlen.whole_files import is_file

SHIPPED = Path(__file__).parent.parent / "studies"

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Case(Settings):
    """Several values that belong together, under one label.

    Attributes:
        label: What tables and figures call it.
        set: Dotted keys of the recipe, or aliases, and their values.
    """

    label: Annotated[str, Field(min_length=1)]
    set: dict[str, Any] = Field(default_factory=dict)


class Study(Settings):
    """A grid of training runs: each case with each combination of the grid's values and each seed.

    Attributes:
        name: Names the folder, `studies/NAME`.
        recipe: Name of a recipe that comes with pathlen, a YAML file, or settings.
        set: Values that all runs have: dotted keys of the recipe, or aliases.
        grid: Dotted keys or aliases, and the values that each takes.
        cases: Values that are tied together; see :class:`Case`.
        seeds: Of the runs.
        share_training: Whether runs that differ only after the training phase share one dense run.
        claim: What the study is to show, in words.
        verdict: What decides on the claim, one or several; it changes nothing in the runs.
        figure: What `pathlen study plot` draws; that of the first verdict if not given.
        series: The label that tells the lines of the figure apart; "case" if there are cases.
        workers: Runs at a time on this machine; as many as it has cores if not given.
        threads: Of each.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    recipe: str | dict[str, Any]
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    cases: list[Case] = Field(default_factory=list)
    seeds: list[Seed] = Field(default_factory=lambda: [0])
    share_training: bool = False
    claim: str = ""
    verdict: Annotated[list[Claim], BeforeValidator(as_claims)] = Field(default_factory=list)
    figure: Literal["tradeoff", "cases", "trend"] | None = None
    series: str | None = None
    workers: Count | None = None
    threads: Count = 1

    @model_validator(mode="after")
    def _check(self) -> Study:
        empty = [f"grid.{key}" for key, values in self.grid.items() if not values]
        empty += [] if self.seeds else ["seeds"]
        if empty:
            raise ValueError(f"{' and '.join(empty)} is an empty list, so there are no runs")
        for name, values in [("seeds", self.seeds), *self.grid.items()]:
            if any(value in values[:place] for place, value in enumerate(values)):
                raise ValueError(f"{name} holds a value twice: {shown(values)}")
        labels = [case.label for case in self.cases]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two cases have the same label: {shown(labels)}")
        for where, keys in self.keys_by_place():
            if "seed" in keys:
                raise ValueError(f"{where}: seeds are given as 'seeds', beside the grid")
        for label in (label for claim in self.verdict for label in claim.labels):
            if label not in self.labels:
                raise ValueError(f"verdict: {unknown_name('label', label, self.labels)}")
        if self.series is not None and self.series not in self.labels:
            raise ValueError(unknown_name("label", self.series, self.labels))
        return self

    def keys_by_place(self) -> list[tuple[str, list[str]]]:
        """Where the study has values, in words, and the keys of these: "set" first."""
        places = [("set", list(self.set)), ("grid", list(self.grid))]
        return places + [(f"case {shown(case.label)}", list(case.set)) for case in self.cases]

    @property
    def labels(self) -> list[str]:
        """What the cases of the study are told apart by."""
        return [*(["case"] if self.cases else []), *self.grid]


def shipped_studies() -> list[str]:
    """Names of the studies that come with pathlen."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(source: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Read a study. Its recipe, if that is a file, is looked for beside it.

    Args:
        source: A YAML file, or the name of a study that comes with pathlen.
        overrides: "key=value" each, of all runs, as for
            :func:`pathlen.training.recipe_file.load_recipe`: "task.folder=data".

    Raises:
        SettingsError: There is no such file, it is no YAML, keys or values are wrong, or a case or
            the grid has a value for a key that is overridden.
    """
    path = study_file(source)
    settings = read_yaml(path, str(source), "study", "name:")
    recipe = settings.get("recipe")
    if isinstance(recipe, str) and Path(recipe).suffix:
        settings["recipe"] = str(path.parent / recipe)
    study = make_study(settings, str(source))
    given = dict(read_override(one) for one in overrides)
    for where, keys in study.keys_by_place()[1:]:
        for key in given.keys() & set(keys):
            raise SettingsError(
                f"{shown(key)} cannot be set for all runs: {where} of the study sets it"
            )
    return study.model_copy(update={"set": {**study.set, **given}})


def study_file(source: str | Path) -> Path:
    """The file of a study.

    Args:
        source: That file, or the name of a study that comes with pathlen.

    Raises:
        SettingsError: No study of that name comes with pathlen.
    """
    path = Path(source)
    if path.suffix or is_file(path):
        return path
    path = SHIPPED / f"{source}.yaml"
    if not is_file(path):
        raise SettingsError(unknown_name("study", str(source), shipped_studies()))
    return path


def make_study(settings: Mapping[str, Any], where: str = "study") -> Study:
    """Check settings and make a study of them; `plan_study` checks what they say of recipes.

    Raises:
        SettingsError: Keys are unknown or missing, or values are of a wrong type or out of range;
            all are listed.
    """
    return validated(Study, settings, where)
