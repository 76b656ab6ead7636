"""The runs that a study asks for: a recipe and a key each.

The same run has the same key in every study (:mod:`pathlen.training.study.keys`), so a study that
is changed keeps what is done already.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathlen.errors import SettingsError
from pathlen.training.keywords import unknown_name
from pathlen.training.models import check_model
from pathlen.training.recipe import Finetune, Linearize, Phase, Recipe
from pathlen.training.recipe_file import make_recipe, read_settings, set_value
from pathlen.training.study.keys import run_key
from pathlen.training.study.settings import Case, Study
from pathlen.training.tasks import check_task

ALIASES = {
    "omega": "linearize.prior.omega",
    "start": "linearize.start",
    "depth": "model.depth",
    "width": "model.width",
    "shortcuts": "model.shortcut",
    "difficulty": "task.difficulty",
    "classes": "task.classes",
}
"""Short names of what studies vary. The depth of a resnet20 is the number in its name."""

MOST_PROBLEMS = 5
"""Cases whose errors are shown."""

MOST_RUNS = 100_000
"""Of a study."""

_DEPTH_IN_NAME = re.compile(r"(resnet|plain|vgg)\d+(v[12])?")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run to be carried out.

    Attributes:
        key: 16 hexadecimal digits; names its folder.
        recipe: What to do; without weights if those are of a dense run.
        needs: Key of the dense run that it begins with, None if it begins anew.
    """

    key: str
    recipe: Recipe
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A place in the grid.

    Attributes:
        labels: What tells its case from the others: {"omega": 0.1}.
        seed: Of the run.
        key: Of the run that belongs there.
    """

    labels: Mapping[str, Any]
    seed: int
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a study asks for.

    Attributes:
        study: The study.
        runs: In the order in which they are begun: dense runs that are shared come first.
        members: One for each case and seed.
    """

    study: Study
    runs: tuple[PlannedRun, ...]
    members: tuple[Member, ...]

    @property
    def names(self) -> dict[str, str]:
        """What runs are called in lists, by their keys."""
        names = {run.key: f"dense, seed {run.recipe.seed}" for run in self.runs}
        for one in self.members:
            labels = [f"{name}={value}" for name, value in one.labels.items()]
            names[one.key] = ", ".join([*(labels or [self.study.name]), f"seed {one.seed}"])
        return names


def plan_study(study: Study) -> Plan:
    """Make the recipes of all runs, so that what is wrong is found before anything runs.

    Raises:
        SettingsError: A recipe is not valid: a key that recipes do not have, a value out of range.
            All cases that are wrong are listed. Or there are more than `MOST_RUNS`.
    """
    number = max(1, len(study.cases)) * len(study.seeds) * math.prod(map(len, study.grid.values()))
    if number > MOST_RUNS:
        raise SettingsError(f"{study.name} asks for {number:,} runs; at most {MOST_RUNS:,} can be")
    runs: dict[str, PlannedRun] = {}
    members: list[Member] = []
    problems: dict[str, None] = {}
    checked: set[str] = set()
    base = base_recipe(study)
    for labels, changes in _cases(study):
        for seed in study.seeds:
            where = ", ".join(f"{name}={value}" for name, value in labels.items()) or study.name
            try:
                recipe = _recipe(base, {**study.set, **changes, "seed": seed}, study, where)
                _check_parts(recipe, where, checked)
                parts = share_training(recipe, where) if study.share_training else [_alone(recipe)]
                _check_apart(parts, runs, where)
            except SettingsError as error:
                problems[str(error)] = None  # seeds of a case have one problem
                continue
            runs |= {run.key: run for run in parts if run.key not in runs}
            members.append(Member(labels, seed, parts[-1].key))
    if problems:
        shown = [*problems][:MOST_PROBLEMS]
        more = len(problems) - len(shown)
        raise SettingsError("\n".join([*shown, f"and {more} more cases"] if more else shown))
    needed = {run.needs for run in runs.values()}
    ordered = sorted(runs.values(), key=lambda run: run.key not in needed)
    return Plan(study, tuple(ordered), tuple(members))


def base_recipe(study: Study) -> Mapping[str, Any]:
    """The settings that all runs of a study begin with, whose file may be changed later."""
    return read_settings(study.recipe) if isinstance(study.recipe, str) else study.recipe


def _cases(study: Study) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels and changes of each case; later keys override earlier ones."""
    choices: list[Case | None] = [*study.cases] or [None]
    for case in choices:
        for values in itertools.product(*study.grid.values()):
            varied = dict(zip(study.grid, values, strict=True))
            tied = {} if case is None else case.set
            labels = {} if case is None else {"case": case.label}
            yield labels | varied, tied | varied


def _recipe(
    base: Mapping[str, Any], changes: Mapping[str, Any], study: Study, where: str
) -> Recipe:
    settings = copy.deepcopy(dict(base))
    # names first: setting one drops the other settings of its part
    for key in sorted(changes, key=lambda one: not one.endswith(".name")):
        _set(settings, key, copy.deepcopy(changes[key]), where)
    set_value(settings, "machine.threads", study.threads, where)
    recipe = make_recipe(settings, where)
    if (recipe.machine.devices, recipe.machine.nodes) != (1, 1):
        raise SettingsError(f"{where}: a run of a study is one process; set machine.devices to 1")
    if recipe.weights_file is not None:
        recipe = recipe.with_weights_file(str(Path(recipe.weights_file).absolute()))
    return recipe


def _set(settings: dict[str, Any], key: str, value: Any, where: str) -> None:
    model = settings.get("model")
    name = str(model.get("name", "")) if isinstance(model, dict) else ""
    if key == "depth" and isinstance(model, dict) and _DEPTH_IN_NAME.fullmatch(name):
        model["name"] = re.sub(r"\d+", str(value), name, count=1)
    else:
        if key not in ALIASES and key.partition(".")[0] not in Recipe.model_fields:
            raise SettingsError(
                f"{where}: {unknown_name('setting', key, [*ALIASES, *Recipe.model_fields])}"
            )
        set_value(settings, ALIASES.get(key, key), value, f"{where}: {key}")


def _check_parts(recipe: Recipe, where: str, checked: set[str]) -> None:
    """Check the settings of a task and a model, which make none: their data may be elsewhere."""
    text = json.dumps([recipe.task, recipe.model], sort_keys=True, default=str)
    if text in checked:
        return
    try:
        check_task(recipe.task)
        check_model(recipe.model)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    checked.add(text)


def _check_apart(parts: Iterable[PlannedRun], runs: Mapping[str, PlannedRun], where: str) -> None:
    """Refuse cases that differ in nothing but where their data lie: they would be one run."""
    for part in parts:
        same = runs.get(part.key, part).recipe
        if (same.task, same.weights) != (part.recipe.task, part.recipe.weights):
            raise SettingsError(
                f"{where}: differs from another case only in where data or weights lie"
                f" ({part.recipe.weights or part.recipe.task}), which makes no other run; give them"
                " other names"
            )


def _alone(recipe: Recipe) -> PlannedRun:
    return PlannedRun(run_key(recipe), recipe)


def share_training(recipe: Recipe, where: str) -> list[PlannedRun]:
    """The dense run of a recipe, and the run that begins with its weights.

    A recipe without a training phase, or with nothing after it, is one run.

    Raises:
        SettingsError: The learning rate of the training phase depends on what comes after it.
    """
    later = recipe.linearize.epochs or recipe.finetune.epochs
    dense = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"epochs": recipe.train_epochs}),
            "linearize": Linearize(),
            "finetune": Finetune(),
        }
    )
    if not recipe.train_epochs:
        return [_alone(recipe)]
    schedules = (recipe.schedule, *(part.schedule for part in _phases(recipe)))
    if any(getattr(one, "span", "phase") == "run" for one in schedules):
        raise SettingsError(
            f"{where}: a schedule with span 'run' makes training depend on what comes after it,"
            " so it cannot be shared; set share_training to false"
        )
    if not later:
        return [_alone(dense)]
    first = _alone(dense)
    rest = recipe.model_copy(
        update={
            "train": Phase(),
            "weights": None,  # those of the dense run, whose folder only the worker knows
            "linearize": recipe.linearize.model_copy(update={"start": None}),
        }
    )
    return [first, PlannedRun(run_key(rest, first.key), rest, first.key)]


def _phases(recipe: Recipe) -> tuple[Phase, ...]:
    return recipe.train, recipe.linearize, recipe.finetune
