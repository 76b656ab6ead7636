"""From a SPEC to a model: every form, and a clear error for everything that is none."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from pathlen.errors import SpecError
from pathlen.specs import libraries as spec_libraries
from pathlen.specs.spec import InputShape, resolve
from tests.vision import import_torchvision


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    """Write a file of the user's; what it imports is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.chdir(tmp_path)

    def write(code: str, name: str = "models.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(code))
        return path

    return write


MODEL_WITH_ARGUMENTS = """
    import torch

    def make():
        return torch.nn.Linear(5, 2), torch.ones(3, 5)

    def make_two():
        return torch.nn.Bilinear(5, 4, 2), (torch.ones(3, 5), torch.ones(3, 4))

    class Net(torch.nn.Linear):
        def __init__(self):
            super().__init__(5, 2)

    net = Net().train()
    number = 5

    def forgets():
        return "a model"

    def fails():
        raise KeyError("weights")

    def needs(width):
        return torch.nn.Linear(width, 1)
"""


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("1,3,224,224", (1, 3, 224, 224), "float32"),
        ("7", (7,), "float32"),
        (" 1, 16 : int64 ", (1, 16), "int64"),
        ("2,3:bfloat16", (2, 3), "bfloat16"),
    ],
)
def test_shapes(text, shape, dtype):
    parsed = InputShape.parse(text)
    assert (parsed.shape, parsed.dtype) == (shape, dtype)
    tensor = parsed.make("cpu")
    assert tensor.shape == shape
    assert tensor.dtype is getattr(torch, dtype)
    assert parsed.make("meta").device.type == "meta"


@pytest.mark.parametrize("text", ["99999999999,4", f"{10**17},{10**17}", "9" * 5000, "2:quint8"])
@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_inputs_that_no_memory_holds(text):
    with pytest.raises(SpecError, match=r"cannot be made|is not a shape"):
        InputShape.parse(text).make("cpu")


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1x3", "-1,3", "1,3:", "1.5", ":int64"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(SpecError, match="is not a shape"):
        InputShape.parse(text)


def test_empty_inputs_and_unknown_dtypes_are_refused():
    with pytest.raises(SpecError, match="must be at least 1"):
        InputShape.parse("1,0,4")
    with pytest.raises(SpecError, match="no dtype 'nn'"):
        InputShape.parse("1:nn").make("cpu")


def test_integer_inputs_are_zeros_and_floats_repeat():
    assert not InputShape((2, 3), "int64").make("cpu").any()
    assert torch.equal(InputShape((2, 3)).make("cpu"), InputShape((2, 3)).make("cpu"))


def test_a_file(user_file):
    resolved = resolve(f"{user_file(MODEL_WITH_ARGUMENTS)}:make")
    assert isinstance(resolved.model, nn.Linear)
    assert not resolved.model.training
    assert [arg.shape for arg in resolved.args] == [(3, 5)]


def test_two_arguments_from_a_file_and_from_options(user_file):
    path = user_file(MODEL_WITH_ARGUMENTS)
    assert [arg.shape for arg in resolve(f"{path}:make_two").args] == [(3, 5), (3, 4)]
    inputs = [InputShape((1, 5)), InputShape((1, 4))]
    assert [arg.shape for arg in resolve(f"{path}:make_two", inputs).args] == [(1, 5), (1, 4)]


@pytest.mark.parametrize("name", ["Net", "net"])
def test_a_class_and_a_module_are_taken_too(user_file, name):
    resolved = resolve(f"{user_file(MODEL_WITH_ARGUMENTS)}:{name}", [InputShape((1, 5))])
    assert isinstance(resolved.model, nn.Linear)


def test_a_file_can_import_its_neighbours_and_use_dataclasses(user_file):
    user_file("WIDTH = 3", "neighbour_of_models.py")
    path = user_file(
        """
        from __future__ import annotations
        import dataclasses, torch
        from neighbour_of_models import WIDTH

        @dataclasses.dataclass
        class Config:
            width: int = WIDTH

        def make():
            return torch.nn.Linear(Config().width, 1), torch.ones(1, 3)
        """
    )
    assert resolve(f"{path}:make").model.in_features == 3


def test_a_module_in_the_current_folder(user_file):
    user_file("", "some_package/__init__.py")
    user_file(MODEL_WITH_ARGUMENTS, "some_package/networks.py")
    assert isinstance(resolve("some_package.networks:make").model, nn.Linear)


def test_the_current_folder_does_not_hide_installed_modules(user_file):
    user_file("raise RuntimeError('hidden')", "timeit.py")
    with pytest.raises(SpecError, match="'timeit' has no 'nothing'"):
        resolve("timeit:nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forgets", "gave an object of type str; it must return a torch.nn.Module"),
        ("fails", r"raised KeyError: 'weights' \(.*models.py, line 21\)"),
        ("needs", "without arguments raised TypeError: .*'width'"),
        ("number", "is of type int and cannot be called"),
        ("mke", "has no 'mke'; it has make"),
        ("Net", "no example input is known"),
    ],
)
def test_callables_that_do_not_answer_with_a_model(user_file, name, message):
    with pytest.raises(SpecError, match=message):
        resolve(f"{user_file(MODEL_WITH_ARGUMENTS)}:{name}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def make(:", "raised SyntaxError"),
        ("import a_package_nobody_has", "raised ModuleNotFoundError: .*models.py, line 1"),
        ("1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_files_and_modules_that_fail(user_file, code, message):
    path = user_file(code)
    with pytest.raises(SpecError, match=message):
        resolve(f"{path}:make")
    assert "pathlen_spec_models" not in sys.modules
    user_file(code, "failing_module.py")
    with pytest.raises(SpecError, match=message.replace("models.py", "failing_module.py")):
        resolve("failing_module:make")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18", "cannot tell what 'resnet18' is; a SPEC is torchvision:NAME"),
        ("torchvision:", "cannot tell what"),
        (":make", "cannot tell what"),
        ("no_such_package.part:make", "there is no module 'no_such_package'"),
        ("pathlen.no_such_part:make", "there is no module 'pathlen.no_such_part'"),
        ("no/such/file.py:make", "there is no file 'no/such/file.py'"),
        ("no/such/file.pt2", "there is no file 'no/such/file.pt2'"),
    ],
)
def test_what_is_no_spec_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        resolve(text)


def test_exported_programs_bring_their_inputs(tmp_path):
    program = torch.export.export(nn.Linear(4, 2), (torch.ones(3, 4),), strict=False)
    torch.export.save(program, tmp_path / "linear.pt2")
    resolved = resolve(str(tmp_path / "linear.pt2"))
    assert [arg.shape for arg in resolved.args] == [(3, 4)]
    assert resolved.kwargs == {}


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_that_is_not_installed_is_told(monkeypatch, library):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    monkeypatch.setattr(spec_libraries.importlib, "import_module", missing)
    with pytest.raises(SpecError, match=rf"{library} is not installed; .*pathlen\[models\]"):
        resolve(f"{library}:resnet18")


def test_a_library_of_another_build_is_told(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(spec_libraries.importlib, "import_module", broken)
    with pytest.raises(SpecError, match=r"cannot be imported \(RuntimeError: .*nms.*build"):
        resolve("torchvision:resnet18")


class TestLibraries:
    @pytest.fixture(autouse=True)
    def libraries(self):
        import_torchvision()

    @pytest.mark.parametrize(
        ("text", "shape"),
        [
            ("torchvision:resnet18", (1, 3, 224, 224)),
            ("torchvision:inception_v3", (1, 3, 299, 299)),
            ("torchvision:googlenet", (1, 3, 224, 224)),
            ("torchvision:r3d_18", (1, 3, 16, 112, 112)),
            ("torchvision:fcn_resnet50", (1, 3, 224, 224)),
            ("timm:resnet18", (1, 3, 224, 224)),
            ("timm:resnet18.a1_in1k", (1, 3, 224, 224)),
        ],
    )
    def test_models_come_with_their_input(self, text, shape):
        resolved = resolve(text, device="meta")
        assert [arg.shape for arg in resolved.args] == [shape]
        assert next(resolved.model.parameters()).device.type == "meta"

    def test_the_input_can_be_another(self):
        resolved = resolve("torchvision:resnet18", [InputShape((2, 3, 64, 64))], device="meta")
        assert [arg.shape for arg in resolved.args] == [(2, 3, 64, 64)]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("torchvision:resnet19", "did you mean .*resnet18"),
            ("timm:resnet-18", "did you mean .*resnet18"),
            ("timm:zzzzzz", "timm has no model 'zzzzzz' among its"),
            ("timm:hf-hub:someone/model", "downloads nothing"),
            ("torchvision:fasterrcnn_resnet50_fpn", "no example input is known"),
        ],
    )
    def test_models_that_are_not_there(self, text, message):
        with pytest.raises(SpecError, match=message):
            resolve(text, device="meta")
