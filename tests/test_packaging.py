"""Every folder of modules goes into the wheel, once, and versions agree between files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import setuptools

import pathlen

ROOT = Path(__file__).parent.parent


def read_project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_of_modules_is_a_package_of_the_wheel():
    settings = read_project()["tool"]["setuptools"]["packages"]["find"]
    found = setuptools.find_packages(str(ROOT), **settings)
    modules = (ROOT / "pathlen").rglob("*.py")
    assert set(found) == {".".join(path.parent.relative_to(ROOT).parts) for path in modules}


def test_the_links_at_top_level_lead_into_the_package():
    for name in ("backends", "training"):
        link = ROOT / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / "pathlen" / name


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
