"""SPECs that name a callable of an importable module or of a file, which gives the model."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import operator
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pathlen.errors import SpecError
from pathlen.specs.parts import FORMS, ResolvedModel, failed, only
from pathlen.whole_files import is_file


def called_model(
    source: str, name: str, options: Mapping[str, Any], wanted: Mapping[str, Any]
) -> ResolvedModel:
    """Make the model that a callable returns.

    Args:
        source: The module, or the path of the file, that has it.
        name: Its name in there.
        options: Keyword arguments for it.
        wanted: Keyword arguments for it where it has parameters for them.

    Raises:
        SpecError: There is no such callable, it raises, or gives something else than a model.
    """
    module = _run_file(Path(source)) if source.endswith(".py") else _import_module(source)
    return _called(_attribute(module, source, name), f"{source}:{name}", options, wanted)


def _import_module(name: str) -> ModuleType:
    # As with `python -m`, what lies in the folder one stands in can be named. Last in the search,
    # so that a file there never hides an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise failed(f"importing module {name!r}", error) from error
        raise SpecError(f"there is no module {error.name!r}; a SPEC is {FORMS}") from error
    except Exception as error:
        raise failed(f"importing module {name!r}", error) from error


def _run_file(path: Path) -> ModuleType:
    if not is_file(path):
        raise SpecError(f"there is no file {str(path)!r}")
    name = f"pathlen_spec_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise SpecError(f"{str(path)!r} cannot be read as Python")
    # As when it is run by itself, the file can import its neighbours.
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise failed(f"running {str(path)!r}", error) from error
    return module


def _attribute(module: ModuleType, source: str, name: str) -> Any:
    try:
        return operator.attrgetter(name)(module)
    except AttributeError as error:
        callables = [key for key, value in vars(module).items() if _is_own_callable(module, value)]
        near = difflib.get_close_matches(name, callables, n=3)
        offered = near or sorted(callables)[:10]
        hint = f"; it has {', '.join(offered)}" if offered else ""
        raise SpecError(f"{source!r} has no {name!r}{hint}") from error


def _is_own_callable(module: ModuleType, value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _called(
    target: Any, spec: str, options: Mapping[str, Any], wanted: Mapping[str, Any]
) -> ResolvedModel:
    """Call what a SPEC named and see what came back."""
    from torch import nn

    if isinstance(target, nn.Module) and options:
        raise SpecError(f"{spec!r} is a module already and takes no {', '.join(options)}")
    answer = target if isinstance(target, nn.Module) else _call(target, spec, options, wanted)
    model, args = answer, None
    if isinstance(answer, tuple) and len(answer) == 2:
        model, args = answer
        args = tuple(args) if isinstance(args, tuple | list) else (args,)
    if not isinstance(model, nn.Module):
        raise SpecError(
            f"{spec!r} gave an object of type {type(model).__name__}; it must return a "
            "torch.nn.Module, or a pair of one and its example arguments"
        )
    return ResolvedModel(model.eval(), args, {})


def _call(
    target: Callable[..., Any], spec: str, options: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Any:
    if not callable(target):
        raise SpecError(f"{spec!r} is of type {type(target).__name__} and cannot be called")
    parameters = inspect.signature(target).parameters if wanted else {}
    arguments = {**only(wanted, *parameters), **options}
    given = f"with {', '.join(arguments)}" if arguments else "without arguments"
    try:
        return target(**arguments)
    except Exception as error:
        raise failed(f"calling {spec!r} {given}", error) from error
