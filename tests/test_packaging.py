"""The list of packages in pyproject.toml is the list of folders with code, and nothing is twice."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pathlen

ROOT = Path(__file__).parent.parent
CODE = {"pathlen": "pathlen", "backends": "pathlen.backends", "training": "pathlen.training"}


def read_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> set[str]:
    """Every folder of modules below the three at top level; links are not followed."""
    found = set()
    for folder, package in CODE.items():
        for module in modules_below(ROOT / folder):
            inside = module.parent.relative_to(ROOT / folder).parts
            found.add(".".join([package, *inside]))
    return found


def modules_below(folder: Path) -> list[Path]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            found += modules_below(entry)
        elif entry.suffix == ".py":
            found.append(entry)
    return found


def test_packages_are_the_folders_on_disk():
    listed = read_project()["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk()


def test_every_package_has_an_init_module():
    for package in read_project()["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split("."))
        assert (folder / "__init__.py").is_file(), folder


def test_the_links_lead_to_the_folders_at_top_level():
    for name in ("backends", "training"):
        link = ROOT / "pathlen" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_the_packages_are_imported_once_under_one_name():
    from pathlen import backends, training

    assert pathlen.backends is backends
    assert backends.__name__ == "pathlen.backends"
    assert training.__name__ == "pathlen.training"


def test_constraints_pin_every_direct_dependency():
    project = read_project()["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    needed = {re.match(r"[\w-]+", entry)[0].lower() for group in groups for entry in group}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert needed - {"pathlen"} <= pinned


def test_the_version_is_that_of_the_citation_file():
    assert f"version: {pathlen.__version__}\n" in (ROOT / "CITATION.cff").read_text()
