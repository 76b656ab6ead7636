"""The command line: what it prints, its exit codes, and one clear message for every error."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

import pathlen
from pathlen.cli.demo import _over, story
from pathlen.cli.main import main
from pathlen.errors import BackendError
from tests.vision import import_torchvision


@pytest.fixture
def run():
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), catch_exceptions=False)

    return call


@pytest.fixture
def model_file(tmp_path) -> str:
    """A perceptron of 3, 4, 5 and 2 units with two ReLUs: 120 paths of length 2."""
    path = tmp_path / "perceptron.py"
    path.write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            def make():
                layers = [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)]
                return nn.Sequential(*layers), torch.ones(1, 3)

            class Fails(nn.Module):
                def forward(self, x):
                    raise ValueError("wrong shape of all things")
            """
        )
    )
    return str(path)


def test_measure_prints_the_report(run, model_file):
    result = run("measure", f"{model_file}:make")
    assert result.exit_code == 0
    assert "normalized average path length  2" in result.stdout
    assert "120" in result.stdout
    assert result.stderr == ""


def test_measure_as_json(run, model_file):
    result = run("measure", f"{model_file}:make", "--json", "--exact", "--input", "2,3")
    record = json.loads(result.stdout)
    assert record["path_count"] == "120"
    assert record["average_path_length_exact"] == "2/1"
    assert record["backend"] == "exact"
    assert [row["active"] for row in record["layers"] if row["active"]] == [4, 5]


@pytest.mark.parametrize("backend", pathlen.backends.registry.built_in_that_give("solution"))
def test_every_backend_can_be_named(run, model_file, backend):
    result = run("measure", f"{model_file}:make", "--json", "--backend", backend)
    record = json.loads(result.stdout)
    assert record["backend"] == backend
    assert record["average_path_length"] == pytest.approx(2, rel=1e-12)


def test_small_graphs_are_solved_without_loading_a_compiler(model_file):
    program = textwrap.dedent(
        """
        import contextlib, io, json, sys
        from pathlen.cli.main import main

        def measured(*options):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                main(["measure", sys.argv[1], "--json", *options], standalone_mode=False)
            return json.loads(said.getvalue()), "numba" in sys.modules, "scipy" in sys.modules

        print(json.dumps([measured(), measured("--backend", "numba")]))
        """
    )
    command = [sys.executable, "-c", program, f"{model_file}:make"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (small, *loaded), (compiled, with_numba, _) = json.loads(said)
    assert (small["backend"], *loaded) == ("exact", False, False)
    assert (compiled["backend"], with_numba) == ("numba", True)
    for record in (small, compiled):
        del record["backend"], record["seconds"]
    assert small == compiled  # of a perceptron, where nothing is rounded


def test_large_graphs_and_weights_are_left_to_compiled_code():
    choose = pathlen.backends.choose_for_once
    edges = [(node, node + 1) for node in range(60_000)]
    assert choose(pathlen.PathGraph.from_edges(edges[:100])) == "exact"
    assert choose(pathlen.PathGraph.from_edges(edges)) == "auto"
    assert choose(pathlen.PathGraph.from_edges(edges[:100], weights=[0.3] * 100)) == "auto"


def test_measure_with_the_distribution(run, model_file):
    result = run("measure", f"{model_file}:make", "--distribution")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-7:] == [
        "",
        "path lengths  mean  deviation  5 %  median  95 %",
        "of paths         2          0    2       2     2",
        "of walks         2          0    2       2     2",
        "",
        "length  of paths  of walks",
        "2         1.0000    1.0000",
    ]
    result = run("measure", f"{model_file}:make", "--distribution", "--json", "--exact")
    shares = json.loads(result.stdout)["path_length_distribution"]
    assert shares == {
        name: values
        for weighting in ("uniform", "normalized")
        for name, values in (
            (weighting, [0.0, 0.0, 1.0]),
            (f"{weighting}_exact", ["0/1", "0/1", "1/1"]),
        )
    }


def test_measure_a_part(run, model_file):
    result = run("measure", f"{model_file}:make", "--between", "1", "2", "--json")
    record = json.loads(result.stdout)
    assert record["path_count"] == "20"
    assert record["average_path_length"] == 1
    assert [row["name"] for row in record["layers"]] == ["1.input", "1", "2", "2.output"]


def test_measure_against_another_model(run, model_file):
    with open(model_file, "a") as file:
        file.write(
            "def linear():\n"
            "    model, x = make()\n"
            "    model[1] = nn.LeakyReLU(1.0)\n"
            "    return model, x\n"
        )
    result = run("measure", f"{model_file}:make", "--compare", f"{model_file}:linear")
    assert result.exit_code == 0
    assert "average path length             2 -> 1" in result.stdout
    assert "4 -> 0  1.0000 -> 0.0000  -1.0000" in result.stdout
    result = run("measure", f"{model_file}:make", "--compare", f"{model_file}:linear", "--json")
    assert json.loads(result.stdout)["num_active_change"] == -4


def test_verify_says_that_the_graph_is_right(run, model_file):
    result = run("verify", f"{model_file}:make")
    assert result.exit_code == 0
    assert "Sequential: the path graph is right" in result.stdout
    result = run("verify", f"{model_file}:make", "--json", "--seed", "1", "--samples", "2")
    record = json.loads(result.stdout)
    assert record["ok"] is True
    assert (record["seed"], record["samples"]) == (1, 2)


def test_verify_exits_with_1_where_the_graph_is_wrong(run, model_file, monkeypatch):
    from pathlen.lowering.builder import GraphBuilder

    units = GraphBuilder.units
    monkeypatch.setattr(GraphBuilder, "units", lambda self, before, _=0.0: units(self, before))
    result = run("verify", f"{model_file}:make")
    assert result.exit_code == 1
    assert "WRONG  activities" in result.stdout


def test_measure_torchvision_and_timm(run):
    import_torchvision()
    for library in ("torchvision", "timm"):
        result = run("measure", f"{library}:resnet18", "--device", "meta", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["normalized_average_path_length"] == pytest.approx(13)


def test_measure_an_exported_program(run, tmp_path):
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    program = torch.export.export(model, (torch.ones(1, 3),), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    result = run("measure", str(tmp_path / "model.pt2"), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["path_count"] == "24"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "cannot tell what 'resnet18' is"),
        (["no_such_package:make"], "there is no module 'no_such_package'"),
        (["FILE:mke"], "has no 'mke'; it has make"),
        (["FILE:make", "--backend", "nmba"], "no backend 'nmba'; the choices are "),
        (["FILE:make", "--input", "1,x"], "is not a shape"),
        (["FILE:make", "--input", "1,3:float33"], "no dtype 'float33'"),
        (["FILE:make", "--input", "1,4"], "1x4"),
        (["FILE:Fails", "--input", "1,4"], "wrong shape of all things"),
        (["FILE:make", "--device", "cuda"], "'cuda' is not one of"),
        (["FILE:make", "--between", "3", "1"], "but paths lead the other way"),
        (["FILE:make", "--between", "relu", "1"], "no layer or module is named 'relu'; nearest"),
        (["FILE:make", "--compare", "FILE:mke"], "has no 'mke'; it has make"),
        (["FILE:make", "--compare", "FILE:make", "--distribution"], "leave out one of the two"),
        ([], "Missing argument 'SPEC'"),
    ],
)
def test_errors_of_the_user_give_a_message_and_code_2(run, model_file, arguments, message):
    result = run("measure", *[argument.replace("FILE", model_file) for argument in arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_exact_with_a_backend_of_floats(run, model_file):
    result = run("measure", f"{model_file}:make", "--exact", "--backend", "numba")
    assert result.exit_code == 2
    assert "exact" in result.stderr


def test_faults_of_our_own_are_not_hidden(monkeypatch, model_file):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr(pathlen, "measure", broken)
    result = CliRunner().invoke(main, ["measure", f"{model_file}:make"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_backends_lists_all(run):
    result = run("backends")
    assert result.exit_code == 0
    for name in pathlen.backends.available():
        assert name in result.stdout


def test_backends_tells_what_cannot_be_imported(run, monkeypatch):
    def missing(name):
        raise BackendError(f"{name} is not installed")

    monkeypatch.setattr(pathlen.backends, "get", missing)
    result = run("backends")
    assert result.exit_code == 0
    assert "is not" in result.stdout


@pytest.mark.slow
def test_demo_trains_linearizes_and_draws(run, tmp_path, monkeypatch):
    """One network in place of three: the others differ in nothing but their seeds."""
    monkeypatch.setattr("pathlen.cli.demo.SEEDS", (0,))
    result = run("demo", "--out", str(tmp_path / "demo"))
    assert result.exit_code == 0, result.stderr
    rows = dict(re.findall(r"^(\S.*?)  +(\S.*)$", result.stdout, re.MULTILINE))
    before, after, *_ = re.findall(r"[\d.]+", rows["normalized average path length"])
    assert float(before) == 14.5  # the closed form 1 + 1.5 * 3n with n = 3
    assert 7.1 <= float(after) <= 7.25 * 1.02
    dense, linearized = map(float, rows["accuracy on held-out digits, %"].split())
    assert dense >= 97
    assert linearized >= dense - 1
    assert re.search(
        r"^At 5\d % of their depth, the networks are within \d\.\d points", result.stdout, re.M
    )
    for name in ("training", "core-network", "path-lengths"):
        assert (tmp_path / "demo" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / "demo" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "half of its depth linear</title>" in page
    assert run("demo", "--out", str(tmp_path / "demo")).stdout.count("this run ended before") == 1


def test_the_module_runs_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "pathlen", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"pathlen, version {pathlen.__version__}"


def test_what_torch_logs_is_not_on_the_terminal(model_file):
    command = [sys.executable, "-m", "pathlen", "measure", f"{model_file}:make", "--input", "1,4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_a_table_of_layers_folded_sorted_and_cut(run, model_file):
    result = run("measure", f"{model_file}:make", "--sort", "active", "--rows", "1")
    table = result.stdout.split("\n\n")[1].splitlines()
    assert [line.split()[:2] for line in table] == [
        ["layer", "operation"],
        ["3", "relu"],
        ["...", "1"],
    ]
    result = run("measure", f"{model_file}:make", "--depth", "1")
    assert result.stdout.split("\n\n")[1].splitlines()[1].split()[:2] == ["1", "relu"]
    for option in (["--sort", "name"], ["--depth", "1"], ["--rows", "0"]):
        result = run("measure", f"{model_file}:make", "--json", *option)
        assert result.exit_code == 2
        assert "JSON and comparisons hold every layer" in result.stderr


def test_onnx_files_are_refused_with_what_to_do_instead(run, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")
    result = run("measure", str(tmp_path / "model.onnx"))
    assert result.exit_code == 2
    assert "is an ONNX file, which pathlen does not read" in result.stderr
    assert "torch.export.save" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_shells(shell):
    def complete(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", "from pathlen.cli.main import main; main(prog_name='pathlen')"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "_PATHLEN_COMPLETE": f"{shell}_complete",
                "COMP_WORDS": " ".join(["pathlen", *words]),
                # fish gives the word itself, the others its place
                "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
            },
        )
        return re.split(r"[\n,\t]", done.stdout)

    assert "measure" in complete("me")
    assert "--distribution" in complete("measure", "--dist")
    assert "normalized" in complete("measure", "--sort", "nor")
    assert "residues" in complete("measure", "--backend", "res")
    assert complete("measure", "some")[0] == "file"
    source = subprocess.run(
        [sys.executable, "-c", "from pathlen.cli.main import main; main(prog_name='pathlen')"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "_PATHLEN_COMPLETE": f"{shell}_source"},
    )
    assert f"_PATHLEN_COMPLETE={shell}_complete" in source.stdout


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command itself, and all below it."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_help_shows_no_mark_of_click(path):
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "\\" not in result.output
    assert "\b" not in result.output


def test_what_the_demo_says_of_its_networks():
    class Depth:
        def __init__(self, depth: float) -> None:
            self.depth = depth

        def average(self, weighting: str) -> float:
            assert weighting == "normalized"
            return self.depth

    dense = [(Depth(10.0), {"test_accuracy": accuracy}) for accuracy in (0.97, 0.98, 0.96)]
    linear = [(Depth(5.0), {"test_accuracy": accuracy}) for accuracy in (0.98, 0.96, 0.96)]
    depth, change = story(dense, linear).split("\n")
    assert depth.startswith("At 50 % of their depth, the networks are within 2.0 points of ")
    assert change == "+1.0, -2.0, +0.0 points, -0.3 on average."
    assert _over(dense, lambda _, row: 100 * row["test_accuracy"]) == "97 (96 to 98)"
