"""Recipes as files: YAML with overrides from the command line, and errors that say where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pathlen.errors import SettingsError
from pathlen.printable import shown
from pathlen.training.keywords import unknown_name
from pathlen.training.recipe import Recipe
from pathlen.training.yaml_text import DEEPEST, LONGEST, read_yaml_text
from pathlen.whole_files import is_file, open_to_read

SHIPPED = Path(__file__).parent / "recipes"
MOST_PROBLEMS = 20
"""Of one recipe that are told."""

Checked = TypeVar("Checked", bound=BaseModel)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with pathlen."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: A YAML file, or the name of a recipe that comes with pathlen.
        overrides: "key=value" each, a dotted key and a value in YAML: "train.epochs=3".

    Raises:
        SettingsError: There is no such file, it is not valid YAML, or keys or values are wrong.
    """
    settings = read_settings(source)
    given = list(overrides)
    for place, override in enumerate(given):
        _override(settings, override)
        key = override.partition("=")[0]
        if key.endswith(".name"):  # which dropped settings of the old name, those given here too
            own = key.removesuffix("name")
            for earlier in given[:place]:
                if earlier.startswith(own) and not earlier.startswith(key):
                    _override(settings, earlier)
    return make_recipe(settings, str(source))


def read_settings(source: str | Path) -> dict[str, Any]:
    """Read the settings of a recipe as they are written, unchecked.

    Args:
        source: A YAML file, or the name of a recipe that comes with pathlen.

    Raises:
        SettingsError: There is no such file, or it is not valid YAML.
    """
    path = Path(source)
    if not path.suffix and not is_file(path):  # a folder of that name hides no recipe
        path = SHIPPED / f"{source}.yaml"
        if not is_file(path):
            raise SettingsError(unknown_name("recipe", str(source), shipped_recipes()))
    return read_yaml(path, str(source), "recipe", "task:")


def read_yaml(path: Path, where: str, what: str, first: str) -> dict[str, Any]:
    """Read a file of settings.

    Args:
        path: The file.
        where: What messages call it.
        what: What it should hold: "recipe".
        first: What that begins with: "task:".

    Raises:
        SettingsError: It cannot be read, or is no mapping in YAML.
    """
    try:
        with open_to_read(path) as file:
            data = file.read(4 * LONGEST + 1)  # of a file without end, no more than is refused
        text = data.decode() if len(data) <= 4 * LONGEST else "." * (LONGEST + 1)
    except (OSError, ValueError) as error:  # as of bytes that are no UTF-8
        raise SettingsError(f"{what} {shown(where)} cannot be read: {error}") from error
    settings = read_yaml_text(text, where)
    if not isinstance(settings, dict):
        raise SettingsError(f"{where} holds no settings; a {what} begins with {first!r}")
    return settings


def _override(settings: dict[str, Any], override: str) -> None:
    """Set one value; a mapping whose 'name' is set anew loses the settings of the old name."""
    key, value = read_override(override)
    set_value(settings, key, value, shown(override))


def read_override(override: str) -> tuple[str, Any]:
    """The key and the value of "key=value", whose value is YAML.

    Raises:
        SettingsError: It is none.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(
            f"{shown(override)} is not an override; write key=value, as train.epochs=3"
        )
    if key.count(".") >= DEEPEST:
        raise SettingsError(f"{shown(override)} names a setting more than {DEEPEST} levels deep")
    return key, read_yaml_text(text, f"the value in {shown(override)}")


def set_value(settings: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the value of a dotted key, in place; a mapping whose 'name' is set loses its old rest.

    Raises:
        SettingsError: A part of the key has a value that has no parts; `where` says where.
    """
    *parents, last = key.split(".")
    for parent in parents:
        if settings.get(parent) is None:
            settings[parent] = {}
        settings = settings[parent]
        if not isinstance(settings, dict):
            raise SettingsError(f"{where}: {shown(parent)} is one value, without parts")
    if last == "name" and settings.get("name") != value:
        settings.clear()
    settings[last] = value


def make_recipe(settings: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check settings and make a recipe of them.

    Raises:
        SettingsError: Keys are unknown or missing, or values are of a wrong type or out of range;
            all are listed.
    """
    return validated(Recipe, settings, where)


def validated(kind: type[Checked], settings: Mapping[str, Any], where: str) -> Checked:
    """Check settings against a model of pydantic's.

    Raises:
        SettingsError: As for `make_recipe`.
    """
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problems = [_problem(dict(one), kind) for one in error.errors()[:MOST_PROBLEMS]]
        left = error.error_count() - len(problems)
        problems += [f"and {left} more problems"] if left else []
        raise SettingsError("\n  ".join([f"{where}:", *problems])) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with all of its values."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Dotted keys whose values differ, with both values."""
    first, second = _flat(one.model_dump()), _flat(other.model_dump())
    keys = dict.fromkeys([*first, *second])
    return [
        f"{key}: {shown(first.get(key))} and {shown(second.get(key))}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _problem(error: dict[str, Any], root: type[BaseModel]) -> str:
    """One line on a wrong value: its dotted key, and what is wrong."""
    place = [str(part) for part in error["loc"]]
    if error["type"] in ("extra_forbidden", "missing"):
        *parents, key = place
        keys, known = _walk(parents, root)
        if error["type"] == "missing":
            return _at(keys, f"{shown(key)} is missing")
        return _at(keys, unknown_name("setting", key, known))
    keys, _ = _walk(place, root)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return _at(keys, message)
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        message = f"there is no {shown(context['tag'])}; choose {context['expected_tags']}"
        return _at([*keys, "name"], message)
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return _at(keys, f"needs settings of its own, as key: value, not {shown(error['input'])}")
    if error["type"] == "union_tag_not_found":
        return _at(keys, "'name' is missing")
    return _at(keys, f"{message[0].lower()}{message[1:]}, not {shown(error['input'])}")


def _at(place: list[str], message: str) -> str:
    return f"{'.'.join(place)}: {message}" if place else message


def _walk(place: list[str], root: type[BaseModel]) -> tuple[list[str], set[str]]:
    """The keys among the parts of a place, choices of a type left out; and the keys below it."""
    kinds: list[type[BaseModel]] = [root]
    keys = []
    for part in place:
        chosen = [kind for kind in kinds if _name_of(kind) == part]
        holders = [kind for kind in kinds if part in kind.model_fields]
        if chosen:
            kinds = chosen
        elif holders:
            keys.append(part)
            kinds = [one for kind in holders for one in _models(kind.model_fields[part].annotation)]
    return keys, {key for kind in kinds for key in kind.model_fields}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings among the types of a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in get_args(annotation) for one in _models(part)]


def _name_of(kind: type[BaseModel]) -> object:
    field = kind.model_fields.get("name")
    return None if field is None else field.default
