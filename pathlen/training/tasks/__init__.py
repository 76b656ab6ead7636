"""Tasks by name. What a task needs is imported when it is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pathlen.errors import SettingsError

if TYPE_CHECKING:
    from pathlen.training.task import Task

# name -> the module that defines the function of that name, whose keyword parameters are settings
TASKS = {
    "digits": "pathlen.training.tasks.digits",
    "cifar10": "pathlen.training.tasks.cifar",
    "cifar100": "pathlen.training.tasks.cifar",
    "fashion_mnist": "pathlen.training.tasks.idx",
    "mnist": "pathlen.training.tasks.idx",
    "tiny_imagenet": "pathlen.training.tasks.tiny_imagenet",
    "images": "pathlen.training.tasks.images",
    "imagefolder": "pathlen.training.tasks.imagefolder",
    "teacher": "pathlen.training.tasks.teacher",
    "number_words": "pathlen.training.tasks.number_words",
    "multi30k": "pathlen.training.tasks.multi30k",
    "tatoeba": "pathlen.training.tasks.tatoeba",
    "text_pairs": "pathlen.training.tasks.text_pairs",
}


def build_task(settings: Mapping[str, Any]) -> Task:
    """Make a task by its name.

    Args:
        settings: "name" is the task; the rest are its settings, the keyword parameters of the
            function of that name.

    Raises:
        SettingsError: There is no such task, or settings are unknown, missing or of a wrong type.
        DataError: Files of the task are missing or are not what they should be.
    """
    function, others = check_task(settings)
    return function(**others)


def check_task(settings: Mapping[str, Any]) -> tuple[Callable[..., Task], dict[str, Any]]:
    """Check the settings of a task without making it; the function that makes it, its arguments.

    Raises:
        SettingsError: As for `build_task`.
    """
    from pathlen.training.keywords import check_settings, unknown_name

    name = settings.get("name")
    if not isinstance(name, str) or name not in TASKS:
        raise SettingsError(unknown_name("task", name, TASKS))
    function: Callable[..., Task] = getattr(importlib.import_module(TASKS[name]), name)
    others = {key: value for key, value in settings.items() if key != "name"}
    check_settings(function, others, f"task {name!r}")
    return function, others
