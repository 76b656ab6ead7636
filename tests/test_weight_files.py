"""Networks that somebody else has trained: their files, their names, and what they compute."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from pathlen.errors import CheckpointError, SettingsError
from pathlen.training import CifarResNet, make_linearizable, make_recipe, slopes_of
from pathlen.training.files import load_tree
from pathlen.training.make_model import load_given_weights
from pathlen.training.recipe import Weights
from pathlen.training.weight_files import read_weight_file
from tests.training_runs import TINY, changed, run

RENAME = {r"^layer": "stage", r"^conv1\.": "conv.", r"^bn1\.": "bn.", r"^linear": "fc"}


class Block(nn.Module):
    """As in the networks that people train after He et al.: option A pads planes // 4 channels."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.planes = planes if stride != 1 or inputs != planes else 0
        self.shortcut = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.planes:
            quarter = self.planes // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter), "constant", 0)
        return functional.relu(out + x)


class TheirResNet(nn.Module):
    """The CIFAR ResNet of He et al. in the layout that is found most often."""

    def __init__(self, blocks: int = 1, channels: int = 3, width: int = 16, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes, inputs = [(width, 1), (2 * width, 2), (4 * width, 2)], width
        for number, (planes, stride) in enumerate(sizes, 1):
            layer = [Block(inputs, planes, stride)]
            layer += [Block(planes, planes, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            inputs = planes
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.avg_pool2d(x, x.shape[3])
        return self.linear(x.view(x.shape[0], -1))


def trained(**sizes: int) -> TheirResNet:
    """One of theirs with weights and statistics as after training: none of them a default."""
    torch.manual_seed(0)
    theirs = TheirResNet(**sizes)
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if "bn" in name and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return theirs.eval()


def loaded(given: Weights | str) -> nn.Module:
    model = CifarResNet(8, width=4, shortcut="identity")
    load_given_weights(model, given)
    return model.eval()


THEIRS = trained(width=4)
IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
WANTED = THEIRS(IMAGES).detach()


@pytest.mark.parametrize(("blocks", "width"), [(1, 4), (3, 16), (2, 6)])
def test_option_a_computes_what_theirs_does(blocks: int, width: int, tmp_path: Path) -> None:
    theirs = trained(blocks=blocks, width=width)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = CifarResNet(6 * blocks + 2, width=width, shortcut="identity").double()
    given = Weights(file=str(tmp_path / "theirs.safetensors"), rename=RENAME)
    load_given_weights(ours, given)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for training in (False, True):
        found, wanted = ours.train(training)(images), theirs.double().train(training)(images)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in THEIRS.state_dict().items()}


STATE = THEIRS.state_dict()
CONTENTS: dict[str, Any] = {
    "alone": STATE,
    "beside an epoch": {"state_dict": STATE, "epoch": 3, "best_prec1": torch.tensor(91.2)},
    "beside an optimizer": {
        "net": STATE,
        "optimizer": torch.optim.SGD(THEIRS.parameters()).state_dict(),
    },
    "DataParallel": {"state_dict": prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "both": prefixed("_orig_mod.module."),
    "compiled parts": {key.replace("conv1.", "conv1._orig_mod."): v for key, v in STATE.items()},
    "without counters": {k: v for k, v in STATE.items() if not k.endswith("tracked")},
}


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_files_of_torch(name: str, old_format: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.th"
    torch.save(CONTENTS[name], path, _use_new_zipfile_serialization=not old_format)
    model = loaded(Weights(file=str(path), pickled=True, rename=RENAME))
    torch.testing.assert_close(model(IMAGES), WANTED)
    with pytest.raises(
        CheckpointError, match=r"is a pickle, .*\n  weights: \{file: .*pickled: true"
    ):
        loaded(Weights(file=str(path), rename=RENAME))


@pytest.mark.parametrize("name", [n for n, c in CONTENTS.items() if "conv1.weight" in str([*c])])
def test_safetensors_of_others(name: str, tmp_path: Path) -> None:
    save_file(CONTENTS[name], tmp_path / "weights.bin")
    model = loaded(Weights(file=str(tmp_path / "weights.bin"), rename=RENAME))
    torch.testing.assert_close(model(IMAGES), WANTED)


def message(attempt: Callable[[], Any], kind: type[Exception] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        attempt()
    return str(caught.value)


@pytest.mark.parametrize("length", [128, 384, 0x4B50])
def test_a_header_may_have_any_length(length: int, tmp_path: Path) -> None:
    """It begins the file; one of 128 bytes was taken for the first byte of a pickle."""
    weights = {"a": torch.arange(3.0)}
    for filling in range(max(length - 200, 0), length):
        save_file(weights, tmp_path / "w.safetensors", {"note": "n" * filling})
        data = (tmp_path / "w.safetensors").read_bytes()
        if int.from_bytes(data[:8], "little") == length:
            break
    assert data[0] == 128 or data[:2] == b"PK"
    found = read_weight_file(Weights(file=str(tmp_path / "w.safetensors")))
    assert torch.equal(found["a"], weights["a"])


def test_a_pickle_is_converted_as_the_message_says(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    told = message(lambda: loaded(str(tmp_path / "weights.pth")))
    lines = told.partition("convert:\n")[2].splitlines()
    program = "\n".join(line.removeprefix("  ") for line in lines)
    subprocess.run([sys.executable, "-c", program], check=True)
    model = loaded(Weights(file=str(tmp_path / "weights.safetensors"), rename=RENAME))
    torch.testing.assert_close(model(IMAGES), WANTED)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": STATE, "args": Trap(tmp_path / "ran")}, path)
    for pickled in (False, True):
        given = Weights(file=str(path), pickled=pickled)
        told = message(lambda given=given: loaded(given))
        assert "cannot be read with torch.load(weights_only=True)" in told or not pickled
    path.write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    message(lambda: loaded(Weights(file=str(path), pickled=True)))
    assert not (tmp_path / "ran").exists()


def test_files_that_are_damaged_or_hold_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(STATE, path)
    whole = path.read_bytes()
    given = Weights(file=str(path), pickled=True)
    for length in (0, 2, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "cannot be read" in message(lambda: loaded(given))
    assert "cannot be read" in message(lambda: loaded(str(tmp_path / "absent")))
    for content, told in (
        ({"epoch": 3, "lr": 0.1}, "holds a dict of epoch, lr, and no weights by name"),
        (torch.zeros(3), "holds a Tensor, and no weights by name"),
    ):
        torch.save(content, path)
        assert told in message(lambda: loaded(given))


def test_of_several_sets_of_weights_one_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.pt")
    other = {key: torch.zeros_like(value) for key, value in STATE.items()}
    torch.save({"model": other, "model_ema": STATE, "epoch": 1}, path)
    given = {"file": path, "pickled": True, "rename": RENAME}
    told = message(lambda: loaded(Weights(**given)))
    assert "holds several sets of weights; set weights.part to one of model, model_ema" in told
    assert "no weights called 'net'" in message(lambda: loaded(Weights(**given, part="net")))
    torch.testing.assert_close(loaded(Weights(**given, part="model_ema"))(IMAGES), WANTED)


# --- names ----------------------------------------------------------------------------------


def suggested(told: str) -> dict[str, str]:
    """What a message says to write into the recipe."""
    return yaml.safe_load(told[told.index("{file: ...") :])["rename"]


def test_the_names_that_a_message_suggests_do_it(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.safetensors")
    save_file(STATE, path)
    told = message(lambda: loaded(path))
    assert "conv1.weight is not in the model" in told or "bn.bias is not in the file" in told
    model = loaded(Weights(file=path, rename=suggested(told)))
    torch.testing.assert_close(model(IMAGES), WANTED)


@pytest.mark.parametrize(("before", "rename"), [("net.", {r"^net\.": ""}), ("", {"^": "0."})])
def test_a_part_of_another_model_is_suggested(
    before: str, rename: dict[str, str], tmp_path: Path
) -> None:
    ours = CifarResNet(8, width=4, shortcut="identity")
    save_file({before + k: v for k, v in ours.state_dict().items()}, tmp_path / "weights")
    model = CifarResNet(8, width=4, shortcut="identity") if before else nn.Sequential(ours)
    given = Weights(file=str(tmp_path / "weights"))
    assert suggested(message(lambda: load_given_weights(model, given))) == rename
    load_given_weights(model, given.model_copy(update={"rename": rename}))


def test_nothing_is_suggested_for_another_network(tmp_path: Path) -> None:
    save_file(trained(width=6).state_dict(), tmp_path / "weights")
    assert "rename" not in message(lambda: loaded(str(tmp_path / "weights")))


@pytest.mark.parametrize(
    ("rename", "told"),
    [
        ({"^block": "stage"}, r"'\^block' fits no name in .*, such as "),
        ({r"bn\d": "bn"}, r"layer\d\.0\.bn1\.\w+ and layer\d\.0\.bn2\.\w+ .* both become"),
    ],
)
def test_names_that_cannot_be(rename: dict[str, str], told: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights")
    found = message(lambda: loaded(Weights(file=str(tmp_path / "weights"), rename=rename)))
    assert re.search(told, found)


def test_the_names_on_the_page_are_those_of_this_layout(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    text = page.partition('title="trained.yaml"\n')[2].partition("```")[0]
    recipe = make_recipe(yaml.safe_load(text))
    assert isinstance(recipe.weights, Weights)
    torch.save(STATE, tmp_path / "weights.th")
    given = recipe.weights.model_copy(update={"file": str(tmp_path / "weights.th")})
    torch.testing.assert_close(loaded(given)(IMAGES), WANTED)


# --- recipes --------------------------------------------------------------------------------


def test_weights_in_a_recipe() -> None:
    short = make_recipe(changed(TINY, weights="a/b.safetensors"))
    assert short.weights == short.weights_file == "a/b.safetensors"
    long = make_recipe(changed(TINY, weights={"file": "a/b.th", "pickled": True}))
    assert long.weights_file == "a/b.th"
    moved = long.with_weights_file("c")
    assert moved.weights == Weights(file="c", pickled=True)
    for given, told in (
        ({"path": "x"}, r"weights: 'file' is missing\n  weights: .*'path'"),
        (3, r"weights: needs settings of its own"),
        ({"file": "x", "rename": {"(": ""}}, r"weights\.rename: '\(' to ''"),
        ({"file": "x", "rename": {"a": r"\1"}}, r"weights\.rename: 'a' to .* invalid group"),
    ):
        found = message(
            lambda given=given: make_recipe(changed(TINY, weights=given)), SettingsError
        )
        assert re.search(told, found), found


def test_a_run_begins_with_them(tmp_path: Path) -> None:
    theirs = trained(channels=1, width=4, classes=2)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 7}, tmp_path / "theirs.th")
    settings = changed(
        TINY,
        model={"name": "resnet8", "width": 4, "shortcut": "identity"},
        weights={"file": str(tmp_path / "theirs.th"), "pickled": True, "rename": RENAME},
        train__epochs=0,
        finetune__epochs=0,
        linearize={"epochs": 2, "prior": {"omega": 0.1, "target_napl": "50 %", "pace": {}}},
    )
    result = run(settings, tmp_path / "run")
    assert result.summary["target"]["reached"]
    dense = load_tree(tmp_path / "run" / "dense.safetensors")
    model = CifarResNet(8, width=4, shortcut="identity", in_channels=1, num_classes=2)
    make_linearizable(model, torch.zeros(1, 1, 8, 8))
    model.load_state_dict(dense)
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(model.eval()(images), theirs(images))
    assert all((own.parameter == 0).all() for own in slopes_of(model))
    run(settings, tmp_path / "run")  # what the folder says of them is what the recipe says
