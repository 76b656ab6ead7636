"""What is imported when: the package and the command line's help stay light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pathlen

HEAVY = (
    "torch",
    "scipy",
    "numba",
    "igraph",
    "networkx",
    "torchvision",
    "timm",
    "matplotlib",
    "pandas",
)


def modules_loaded_by(code: str) -> set[str]:
    """Run code in a process of its own and list the modules it left loaded."""
    report = "import sys, json; json.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr))


def run_command(*arguments: str) -> str:
    """Code that runs the command line and goes on after it."""
    return (
        "from pathlen.cli.main import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import pathlen",
        "import pathlen; dir(pathlen); pathlen.__version__",
        "from pathlen.errors import SpecError",
        "import pathlen; pathlen.backends.available()",
        "import pathlen.figures; dir(pathlen.figures); pathlen.figures.plot_training",
        "import pathlen.training; dir(pathlen.training); pathlen.training.__all__",
        "import pathlen.integrations; dir(pathlen.integrations); pathlen.integrations.__all__",
        "import pathlen; pathlen.PathGraph.from_edges([(0, 1)]); pathlen.Report; pathlen.Policy",
        run_command("--help"),
        run_command("--version"),
        run_command("measure", "--help"),
        run_command("verify", "--help"),
        run_command("demo", "--help"),
        run_command("study", "run", "--help"),
    ],
)
def test_nothing_heavy_is_imported(code):
    assert modules_loaded_by(code).isdisjoint(HEAVY)


def test_importing_the_package_does_not_import_numpy_either():
    assert "numpy" not in modules_loaded_by("import pathlen")


def test_every_name_of_the_top_level_is_there():
    for name in pathlen.__all__:
        assert getattr(pathlen, name) is not None
    assert set(pathlen.__all__) == {*dir(pathlen), "__version__"}


def test_errors_are_in_a_module_of_their_own():
    assert "errors" in pathlen.__all__
    assert not [name for name in pathlen.__all__ if name.endswith("Error")]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No pathlen attribute mesure"):
        _ = pathlen.mesure
