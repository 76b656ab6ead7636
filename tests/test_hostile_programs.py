"""Programs from others: nothing of them is run that is not known to be a pure computation.

`tests/hostile.py` writes them node by node; `tests/hostile_fuzz.py` opens them in every way.
"""

from __future__ import annotations

import gc
import json
import logging
import operator
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn.functional import dropout, prelu

import pathlen
from pathlen.cli.main import main
from pathlen.errors import PathlenError, TraceError, UnsafeProgram
from pathlen.specs.spec import resolve
from pathlen.tracing import guard, ladder
from pathlen.tracing.pure import reason_against, reason_against_arguments
from tests.hostile import ROLES, Call, Name, calls_by_hand, calls_of_schemas, written
from tests.hostile_fuzz import check_and_go_on

aten = torch.ops.aten
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
is_linux = pytest.mark.skipif(sys.platform != "linux", reason="watches files by inotify")

BYTES = bytes(64)
S = Name("b_slope")
ENTRIES = {
    "measure": lambda model: pathlen.measure(model),
    "weights": lambda model: pathlen.measure(model, edges="weights"),
    "verify": lambda model: pathlen.verify(model, samples=1, spellings=0),
    "data": lambda model: pathlen.activity.from_data(model, [torch.randn(2, 4)] * 3),
}


def mapped_and_written(sentinel: Path, role: str) -> list[Call]:
    """The attack: a file mapped into memory, and a write to that."""
    return dict(calls_by_hand(role, str(sentinel)))["from_file, written to"]


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    path = tmp_path / "sentinel"
    path.write_bytes(BYTES)
    return path


@pytest.mark.parametrize("role", ROLES)
def test_a_file_of_the_user_is_not_written_to(sentinel, role):
    path = written(sentinel.with_name("hostile.pt2"), mapped_and_written(sentinel, role), role)
    with pytest.raises(UnsafeProgram, match=r"from_file.*takes a text, 'filename'"):
        resolve(str(path))
    assert sentinel.read_bytes() == BYTES


@pytest.mark.parametrize("command", [["measure"], ["export", "--format", "csv"], ["verify"]])
def test_no_command_runs_it(sentinel, command):
    path = written(sentinel.with_name("hostile.pt2"), mapped_and_written(sentinel, "slope"))
    result = CliRunner().invoke(main, [*command, str(path)])
    assert result.exit_code != 0
    assert "from_file" in result.output + str(result.exception)
    assert sentinel.read_bytes() == BYTES


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_program_that_was_loaded_by_torch_is_checked_where_it_enters(sentinel, entry):
    path = written(sentinel.with_name("hostile.pt2"), mapped_and_written(sentinel, "slope"))
    program = torch.export.load(path)
    with pytest.raises(UnsafeProgram, match="not run"):
        ENTRIES[entry](program)
    assert sentinel.read_bytes() == BYTES


@pytest.mark.parametrize("entry", ENTRIES)
def test_guards_on_the_inputs_of_a_program_are_not_run(sentinel, entry):
    program = torch.export.load(written(sentinel.with_name("guarded.pt2")))
    program._guards_code = [f"__import__('pathlib').Path({str(sentinel)!r}).unlink() or True"]
    ENTRIES[entry](program)
    assert sentinel.exists()


@pytest.mark.parametrize("entry", ENTRIES)
def test_names_that_torch_would_write_into_code_are_refused(tmp_path, entry):
    mark = tmp_path / "was_run"
    name = f'x")\ngetattr(__import__("os"), "mkdir")({str(mark)!r})\n#'

    def change(member: str, content: bytes) -> bytes:
        if not member.endswith(".json"):
            return content
        return content.replace(b'"slope"', json.dumps(name).encode())

    program = torch.export.load(written(tmp_path / "named.pt2", change=change))
    with pytest.raises(UnsafeProgram, match="is no name of a parameter"):
        ENTRIES[entry](program)
    assert not mark.exists()


def test_all_that_is_wrong_is_told_with_its_place(tmp_path):
    calls = [
        Call(
            "torch.ops.aten.set_.source_Tensor", (("self", Name("b_slope")), ("source", Name("x")))
        ),
        Call("torch.ops.aten.resize_.default", (("self", Name("h0")), ("size", [9]))),
    ]
    with pytest.raises(UnsafeProgram) as caught:
        resolve(str(written(tmp_path / "hostile.pt2", calls)))
    told = str(caught.value)
    assert "'h0'" in told
    assert "set_" in told
    assert "'h1'" in told
    assert "resize_" in told
    assert "Measure the model that it was exported from" in told


@pytest.mark.parametrize("entry", ["measure", "weights", "verify"])
def test_a_traced_graph_is_checked_for_files(sentinel, entry):
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    mapped = graph.call_function(aten.from_file.default, (str(sentinel), True, 4))
    slope = graph.call_function(aten.fill_.Scalar, (mapped, 0.75))
    graph.output(graph.call_function(aten.prelu.default, (x, slope)))
    traced = torch.fx.GraphModule(nn.Module(), graph)
    run = {
        "measure": pathlen.measure,
        "weights": lambda model, x: pathlen.measure(model, x, edges="weights"),
        "verify": pathlen.verify,
    }[entry]
    with pytest.raises(UnsafeProgram, match="not run"):
        run(traced, torch.randn(2, 4))
    assert sentinel.read_bytes() == BYTES


# What may run, by schema.


@pytest.mark.parametrize(
    "operator_",
    [
        aten.add.Tensor,
        aten.add_.Tensor,
        aten.__iand__.Tensor,
        aten.index_put_.default,
        aten.div.Tensor_mode,
        aten.bernoulli.default,
        aten._softmax.default,
        aten._native_batch_norm_legit.default,
        aten.threshold_backward.default,
        aten.as_strided.default,
        aten.scaled_dot_product_attention.default,
        aten._assert_scalar.default,
        torch.ops.prims.convert_element_type.default,
    ],
)
def test_computations_may_run(operator_):
    assert reason_against(operator_) is None


@pytest.mark.parametrize(
    ("operator_", "reason"),
    [
        (aten.from_file.default, "takes a text"),
        (aten.save.default, "no operator of the dispatcher"),
        (aten._print.default, "internal"),
        (aten.set_.source_Storage, "trusts"),
        (aten.record_stream.default, "Stream"),
        (aten.add.out, "writes to the tensor 'out'"),
        (aten._reshape_alias.default, "internal"),
        (aten._foreach_add_.Scalar, "internal"),
        (aten.fbgemm_linear_fp16_weight.default, "trusts"),
        (aten.max_pool2d_with_indices_backward.default, "trusts"),
        (aten.special_zeta.default, "trusts"),
        (torch.ops.quantized.linear.default, "library"),
        (torch.ops.prim.device.default, "library"),
    ],
)
def test_what_is_more_than_a_computation_may_not(operator_, reason):
    assert reason in str(reason_against(operator_))


def test_texts_numbers_and_generators_among_the_arguments():
    named = aten.div.Tensor_mode
    assert reason_against_arguments(named, (), {"rounding_mode": "floor"}) is None
    assert "text" in str(reason_against_arguments(named, (), {"rounding_mode": "/etc/passwd"}))
    drawn = aten.bernoulli.default
    assert reason_against_arguments(drawn, (), {"generator": None}) is None
    generator = {"generator": torch.Generator()}
    assert "Generator" in str(reason_against_arguments(drawn, (), generator))
    assert "64 bits" in str(reason_against_arguments(aten.full.default, ([2**64], 1), {}))


# Operators of other libraries.


def test_an_operator_of_a_library_runs_once_it_has_a_rule():
    with torch.library._scoped_library("hostile_test", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.define("told(Tensor x, str path) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 3)

            def forward(self, x):
                return torch.relu(torch.ops.hostile_test.twice(self.layer(x)))

        model, x = Model(), torch.randn(2, 3)
        program = torch.export.export(model, (x,), strict=False)
        assert pathlen.measure(model, x).average_path_length == 1  # the user's own code
        with pytest.raises(UnsafeProgram, match="register a rule"):
            pathlen.measure(program)
        pathlen.register_rule("hostile_test::twice", "elementwise")
        assert reason_against(torch.ops.hostile_test.twice.default) is None
        pathlen.register_rule("hostile_test::told", "elementwise")
        assert "text" in str(reason_against(torch.ops.hostile_test.told.default))


# What constants are computed from is not written to.


class Written(nn.Module):
    """Writes to a parameter through a call that returns its operand without saying so."""

    def __init__(self, through) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("slope", torch.full((3,), 0.25))
        self.through = through

    def forward(self, x):
        slope = self.through(self.slope)
        slope.add_(0.75)
        return prelu(self.layer(x), slope)


@pytest.mark.parametrize(
    "through",
    [
        lambda p: dropout(p, 0.5, training=False),
        lambda p: p.type_as(torch.zeros(1)),
        torch.atleast_1d,
        lambda p: torch.einsum("i->i", p),
        lambda p: p.view(3)[:],
    ],
)
@pytest.mark.parametrize("exported", [False, True])
def test_a_parameter_is_not_written_to_through_any_alias(through, exported):
    model, x = Written(through).eval(), torch.randn(2, 3)
    before = model.slope.detach().clone()
    if exported:
        with torch.no_grad():
            report = pathlen.measure(torch.export.export(model, (x,), strict=False))
    else:
        with torch.no_grad():
            report = pathlen.measure(model, x)
    assert torch.equal(model.slope, before)
    assert report.average_path_length == 0  # the slope is 1


def test_running_statistics_of_constants_stay_what_they_are(tmp_path):
    norm = (
        ("input", Name("p_layer_weight")),
        ("weight", None),
        ("bias", None),
        ("running_mean", Name("b_factor")),
        ("running_var", Name("b_slope")),
        *(("training", True), ("momentum", 0.5), ("eps", 1e-5), ("cudnn_enabled", False)),
    )
    row = (("self", Name("h0")), ("dim", 0), ("index", 0))
    calls = [
        Call("torch.ops.aten.batch_norm.default", norm, (4, 4)),
        Call("torch.ops.aten.select.int", row),
    ]
    program = resolve(str(written(tmp_path / "norm.pt2", calls))).model
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    pathlen.measure(program)
    assert all(torch.equal(before[name], t) for name, t in program.state_dict.items())


@pytest.mark.parametrize(
    ("calls", "match"),
    [
        ([Call("torch.ops.aten.relu.default", (("self", Name("none")),))], "KeyError.*none"),
        ([Call("torch.ops.aten.nosuch.default", (("self", Name("b_slope")),))], "nosuch"),
        (dict(calls_by_hand("slope", ""))[f"expand {2**62}, clone"], "overflow"),
        ([Call("torch.ops.aten.mm.default", (("self", S), ("mat2", S)))], "aten.mm.default"),
    ],
    ids=["no such tensor", "no such operator", "too large", "of other shapes"],
)
def test_what_is_damaged_is_told_once(tmp_path, calls, match):
    """By the error: torch wrote a traceback of a hundred lines to stderr before."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append
    loggers = [logging.getLogger(f"torch.{name}") for name in ("export", "_subclasses.fake_tensor")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with pytest.raises(PathlenError, match=match):
            pathlen.measure(resolve(str(written(tmp_path / "bad.pt2", calls))).model)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert [record.getMessage() for record in said if record.levelno >= logging.WARNING] == []


# Memory and time.


@pytest.mark.parametrize(
    "label",
    ["full 1000000000000", "60 doublings", "expand 1000000000, clone", "empty_strided 1000000000"],
)
def test_memory_is_bounded(tmp_path, monkeypatch, label):
    monkeypatch.setattr(ladder, "check_stated", check_and_go_on)
    calls = dict(calls_by_hand("slope", ""))[label]
    program = resolve(str(written(tmp_path / "large.pt2", calls))).model
    with pytest.raises(UnsafeProgram, match="2,147,483,648 bytes"):
        pathlen.measure(program)


def test_the_bound_grows_with_the_program():
    program = torch.export.export(nn.Linear(8, 8), (torch.randn(1, 8),))
    assert guard.Limits.of(program).most_bytes == 2 << 30
    assert guard.TIMES_ITS_OWN * (8 * 8 + 8) * 4 < guard.MOST_BYTES


def test_work_is_bounded():
    matrix = torch.ones(1, 1).expand(20_000, 20_000)
    with pytest.raises(UnsafeProgram, match="takes too long"), guard.Guard(1 << 40, 10**11):
        matrix @ matrix


def test_what_is_let_go_is_not_held():
    with guard.Guard(3 << 20, 10**9):
        for _ in range(10):
            torch.zeros(1 << 17).add(1)  # 1 MB each, counted as two at most
        with pytest.raises(UnsafeProgram, match="held"):
            [torch.zeros(1 << 17) for _ in range(10)]


def test_shapes_without_values_are_not_held():
    with guard.Guard(1 << 20, 10**6):
        for _ in range(10):
            shapes = torch.empty(1 << 30, device="meta")
            shapes = shapes.add(1).reshape(2, -1)
        with pytest.raises(UnsafeProgram, match="4,294,967,296 bytes"):
            torch.empty_like(shapes, device="cpu")


def tensors_that_are_there() -> list[torch.Tensor]:
    return [found for found in gc.get_objects() if type(found) is torch.Tensor]


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_a_refused_program_has_made_goes_with_its_error(tmp_path, monkeypatch, entry):
    """Without a search for garbage: 2 GiB of each stayed, so that a few of them took 10 GB."""
    monkeypatch.setattr(ladder, "check_stated", check_and_go_on)
    monkeypatch.setattr(guard, "MOST_BYTES", 1 << 20)
    calls = dict(calls_by_hand("slope", ""))["40 doublings"]
    program = resolve(str(written(tmp_path / "large.pt2", calls))).model
    gc.collect()
    gc.disable()
    kept = tensors_that_are_there()  # so that no number of theirs is given to another
    before = {id(tensor) for tensor in kept}
    try:
        with pytest.raises(UnsafeProgram, match=r"beside [\d,]{7,} bytes that are held") as caught:
            ENTRIES[entry](program)
        del caught
        left = [tensor for tensor in tensors_that_are_there() if id(tensor) not in before]
        sizes = [tensor.numel() for tensor in left if tensor.device.type == "cpu"]
    finally:
        gc.enable()
    assert max(sizes, default=0) < 1 << 12


def test_results_whose_size_is_a_value_are_bounded():
    with guard.Guard(1 << 20, 10**9):
        assert aten.bincount(torch.tensor([1, 1])).tolist() == [0, 2]
        assert aten.repeat_interleave(torch.tensor([2])).tolist() == [0, 0]
        assert len(torch.ones(9)[torch.ones(9) > 0]) == 9
        for call in (aten.bincount, aten.repeat_interleave):
            with pytest.raises(UnsafeProgram, match="bytes"):
                call(torch.tensor([10**12]))


class Endless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        count, y = torch.while_loop(
            lambda count, y: count >= 0,
            lambda count, y: ((count + 1) % 2, torch.relu(y)),
            (torch.tensor(0), self.layer(x)),
        )
        return y + count


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_loop_that_never_ends_is_left(monkeypatch):
    program = torch.export.export(Endless(), (torch.randn(2, 3),), strict=False)
    limits = guard.Limits(1 << 30, 10**9, 2000)
    monkeypatch.setattr(guard.Limits, "of", classmethod(lambda cls, program: limits))
    with pytest.raises(UnsafeProgram, match="more than 2,000 steps"):
        pathlen.measure(program)


def test_numbers_of_a_program_have_64_bits():
    from pathlen.tracing.checked import BOUNDED

    assert BOUNDED[operator.pow](3, 4) == 81
    assert BOUNDED[operator.mul](6, 7) == 42
    assert BOUNDED[operator.lshift](1, 5) == 32
    for function, args in [
        (operator.pow, (9, 10**9)),
        (operator.lshift, (1, 10**12)),
        (operator.mul, (2**60, 2**60)),
    ]:
        with pytest.raises(UnsafeProgram, match="64 bits"):
            BOUNDED[function](*args)


# Inputs that are given with a program.


def test_inputs_must_be_those_of_the_program(tmp_path):
    path = str(written(tmp_path / "plain.pt2"))
    runner = CliRunner()
    assert runner.invoke(main, ["measure", path, "--input", "2,4"]).exit_code == 0
    for given in ("3,4", "2,4:int64", "2,4,1"):
        result = runner.invoke(main, ["measure", path, "--input", given])
        assert result.exit_code != 0
        assert "was exported for an input 'x' of (2, 4)" in str(result.exception) + result.output
    with pytest.raises(TraceError, match="but is given"):
        pathlen.measure(resolve(path).model, torch.randn(5, 4))


# The fuzz.


@is_linux
def test_a_draw_of_hostile_programs_touches_nothing():
    command = "--every 53 --entries measure,weights,verify --seconds 300".split()  # noqa: SIM905
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile_fuzz", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["programs"] > 40
    assert found["touched"] == []
    assert found["raw"] == []
    assert found["ends"]["measure: UnsafeProgram"] > 20


def test_the_fuzz_has_every_kind():
    by_schema = [label for label, _ in calls_of_schemas("slope", "file")]
    by_hand = [label for label, _ in calls_by_hand("slope", "file")]
    assert len(by_schema) > 1000
    assert len(by_hand) > 100
    wanted = ["aten.from_file.default", "aten.add.out", "aten.relu_.default", "aten.save.default"]
    assert set(wanted) <= set(by_schema)


def test_an_operator_whose_name_is_a_word_of_python_is_named(sentinel):
    drawn = (("self", Name("b_slope")), ("from", 1), ("to", 3))
    calls = [Call("torch.ops.aten.random.from", drawn)]
    program = resolve(str(written(sentinel.with_name("drawn.pt2"), calls))).model
    with pytest.raises(TraceError, match=r"aten\.random\.from, which torch cannot write"):
        ENTRIES["data"](program)
