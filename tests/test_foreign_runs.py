"""Folders of runs from elsewhere: no code of theirs is run, and no file of another run is taken."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from pathlen.errors import CheckpointError, SettingsError, StudyError
from pathlen.specs.spec import code_of
from pathlen.training import load_recipe, load_run, make_recipe
from pathlen.training.code_key import code_key
from pathlen.training.files import load_tree, save_tree
from pathlen.training.recipe_file import SHIPPED, dump_recipe
from pathlen.training.study import load_study, read_results
from pathlen.training.study.finished import Finished, read_finished, write_finished
from pathlen.training.study.keys import run_key
from pathlen.training.study.plan import plan_study
from tests.studies import settings
from tests.test_resume import RECIPES
from tests.training_runs import TINY, Recorder, changed, outcome, run

SHORT = changed(TINY, train__epochs=1, linearize__epochs=1, finetune__epochs=0)
FILES = ("summary.json", "metrics.jsonl", "model.safetensors", "dense.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished runs of two seeds."""
    folder = tmp_path_factory.mktemp("made")
    for seed in (0, 3):
        run(changed(SHORT, seed=seed), folder / str(seed))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the run of seed 0."""
    return Path(shutil.copytree(made / "0", tmp_path / "run"))


def refused(folder, message, **options):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_run(folder, **options)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


# --- size ------------------------------------------------------------------------------------


def forged(folder: Path, **changes: object) -> Path:
    """Write another recipe into the folder of a run, and its key into all files."""
    recipe = make_recipe(changed(SHORT, **changes))
    old, new = run_key(load_recipe(folder / "recipe.yaml")), run_key(recipe)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    for name in ("summary.json", "metrics.jsonl"):
        path = folder / name
        path.write_text(path.read_text().replace(old, new))
    for name in ("model.safetensors", "dense.safetensors"):
        save_tree(folder / name, load_tree(folder / name), new)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "mlp", "width": 10**6, "depth": 3}},
        {"model": {"name": "mlp", "width": 1, "depth": 10**9}},
        {"model": {"name": "resnet600002", "width": 1}},
        {"model": {"name": "vgg11", "width": 10**5}},
        {"task": {"name": "teacher", "train_size": 10**12}},
        {"task": {"name": "teacher", "width": 10**9}},
        {"task": {"name": "teacher", "features": 10**12}},
        {"task": {"name": "digits", "canvas": 10**7}},
    ],
    ids=lambda changes: " ".join(map(str, next(iter(changes.values())).values())),
)
def test_what_is_far_larger_than_its_weights_is_not_made(folder, changes):
    """Anybody can write a recipe; a model was made before it was held against the weights."""
    refused(forged(folder, **changes), "far too large for the")


# --- code ------------------------------------------------------------------------------------

NETWORK = """
from pathlib import Path
from torch import nn
Path("ran").touch()
def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


def test_code_of_a_folder_is_run_only_if_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    run(changed(SHORT, model={"name": "net.py:make"}), tmp_path / "run")  # a recipe of one's own
    os.remove("ran")
    for name in FILES[:2]:  # refused before anything else is read
        (tmp_path / "run" / name).write_text("damaged")
    told = refused("run", r"model\.name: 'net\.py:make'")
    assert str(Path("run") / "recipe.yaml") in told
    assert "load_run(folder, trust_code=True)" in told
    assert not Path("ran").exists()
    shutil.rmtree("run")
    run(changed(SHORT, model={"name": "net.py:make"}), tmp_path / "run")
    os.remove("ran")
    assert load_run("run", trust_code=True).model is not None
    assert Path("ran").exists()


@pytest.mark.parametrize(
    "model",
    [
        {"name": "evil.py:make"},
        {"name": "os:system", "command": "touch ran"},
        {"name": "subprocess:run", "args": ["touch", "ran"]},
        {"name": "ran.module:make"},
        {"name": "torchvision:", "x": 1},
        {"name": "timm.models:create_model", "model_name": "resnet18"},
        {"name": "timm:resnet18", "checkpoint_path": "evil.pth"},
        {"name": "timm:resnet18", "pretrained_cfg": {"file": "evil.pth"}},
        {"name": "torchvision:resnet18", "weights_backbone": "DEFAULT"},
        {"name": "evil.pt2:x"},
        {"name": "\x1b[31mevil.py:" + "m" * 10_000},
    ],
)
def test_whatever_may_run_code_is_refused(model, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("evil.py", "ran.py", "sitecustomize.py"):
        Path(name).write_text("open('ran', 'w')\ndef make(): open('ran', 'w')\n")
    recipe = yaml.safe_load(Path("recipe.yaml").read_text()) | {"model": model}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert refused(folder, "Nothing was run").replace("\n", "").isprintable()
    assert not Path("ran").exists()


def test_models_of_libraries_with_numbers_are_no_code():
    assert code_of("timm:resnet18", {"drop_rate": 0.1, "block_args": [1, None, True]}) is None
    assert code_of("torchvision:resnet18", {"num_classes": 5}) is None


# --- the identity of a run -------------------------------------------------------------------


def test_all_files_carry_the_key_of_the_recipe(made):
    key = run_key(make_recipe(SHORT))
    for name in ("checkpoint", "model", "dense"):
        with safe_open(made / "0" / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata()["run"] == key
    assert json.loads((made / "0" / "summary.json").read_text())["run"] == key
    assert key != run_key(make_recipe(changed(SHORT, seed=3)))
    found = load_run(made / "0")
    assert not {"run", "digest"} & found.summary.keys()
    assert found.summary["phases"]["linearize"] == found.history[-1]


@pytest.mark.parametrize("name", [*RECIPES, *(path.stem for path in SHIPPED.glob("*.yaml"))])
def test_the_key_survives_the_file_of_the_recipe(name, tmp_path):
    recipe = make_recipe(RECIPES[name]) if name in RECIPES else load_recipe(name)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert run_key(load_recipe(tmp_path / "recipe.yaml")) == run_key(recipe)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_run_is_refused(name, folder, made):
    shutil.copy(made / "3" / name, folder / name)
    weights = name.removesuffix(".safetensors") if name.endswith("s") else "model"
    refused(folder, rf"run/{name} is of another run", weights=weights)


@pytest.mark.parametrize(("there", "here"), [("dense", "model"), ("model", "dense")])
def test_other_weights_of_the_same_run_are_refused(there, here, folder):
    """Those of before linearization were taken, with the summary of the model that came of it."""
    shutil.copy(folder / f"{there}.safetensors", folder / f"{here}.safetensors")
    refused(folder, rf"written as '{there}', and not its '{here}'", weights=here)


def test_the_recipe_of_another_run_is_refused(folder, made):
    shutil.copy(made / "3" / "recipe.yaml", folder)
    refused(folder, r"summary\.json is of another run .*put back the one that belongs there")


def test_a_checkpoint_of_another_run_is_not_gone_on_with(folder, made, tmp_path):
    path = folder / "checkpoint.safetensors"
    shutil.copy(made / "3" / path.name, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is of another run"):
        run(SHORT, folder)
    assert path.read_bytes() == before
    path.unlink()  # what the message says: the run begins anew
    run(SHORT, folder)
    assert outcome(folder) == outcome(made / "0")


def without_identity(folder):
    """A folder as releases before that wrote it."""
    for name in ("checkpoint", "model", "dense"):
        path = folder / f"{name}.safetensors"
        save_tree(path, load_tree(path))
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in summary.items() if k not in ("run", "digest")}))


def test_folders_of_earlier_releases_are_read_where_nothing_contradicts(folder, made):
    without_identity(folder)
    with pytest.warns(UserWarning, match=r"model\.safetensors does not say which run it is of"):
        assert load_run(folder).history == load_run(made / "0").history
    with pytest.warns(
        UserWarning, match=r"checkpoint\.safetensors does not say which run it is of"
    ):
        run(SHORT, folder)
    assert outcome(folder) == outcome(made / "0")  # which signs them
    without_identity(folder)
    shutil.copy(made / "3" / "metrics.jsonl", folder)
    refused(folder, r"metrics\.jsonl is of another run than summary\.json, or was altered")


def test_weights_may_still_be_loaded_into_another_run(made, tmp_path):
    settings = changed(SHORT, train__epochs=0, weights=str(made / "3"))
    run(settings, tmp_path / "run")
    assert load_run(tmp_path / "run").model is not None


# --- damaged files ---------------------------------------------------------------------------

DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a list": lambda data: b"[1, 2]\n",
    "a text": lambda data: b'"x"\n',
    "deep": lambda data: b"[" * 100_000,
    "NaN": lambda data: data.replace(b"0.0", b"NaN", 1),
    "infinite": lambda data: data.replace(b"0.0", b"1e999", 1),
    "digits": lambda data: data.replace(b"0.0", b"9" * 5000, 1),
    "a number that is a text": lambda data: data.replace(b"0.0", b'"\\u001b[31m"', 1),
    "no UTF-8": lambda data: b"\xff" + data,
    "altered": lambda data: data.replace(b"1", b"2", 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
def test_damaged_records_are_told_by_their_file(name, damage, folder):
    path = folder / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    told = refused(folder, r"summary\.json|metrics\.jsonl")
    assert told.replace("\n", "").isprintable()
    run(SHORT, folder)  # writes them anew from the checkpoint
    load_run(folder)


def test_a_file_that_is_no_file(folder):
    (folder / "summary.json").unlink()
    os.mkfifo(folder / "summary.json")  # which would be waited for
    refused(folder, r"summary\.json is missing")


@pytest.mark.parametrize("name", ["model", "dense"])
def test_damaged_weights_are_told_by_their_file(name, folder):
    path = folder / f"{name}.safetensors"
    whole = load_tree(path)
    first = next(iter(whole))
    key = run_key(make_recipe(SHORT))
    for change, message in [
        ({first: torch.full_like(whole[first], torch.nan)}, "not finite"),
        ({first: torch.full_like(whole[first], torch.inf)}, "not finite"),
        ({first: whole[first].long()}, "holds torch.int64"),
        ({first: whole[first][:1]}, "has shape"),
        ({first: 1.0}, "holds no weights by name"),
        ({"x\x1b": whole[first]}, "is not in the model"),
    ]:
        save_tree(path, whole | change, key)
        told = refused(folder, message, weights=name)
        assert path.name in told
        assert told.replace("\n", "").isprintable()
    for data in (b"", b"\0" * 100, b"\xff" * 8 + b"x", b"\x80\x04K\x01."):
        path.write_bytes(data)
        assert path.name in refused(folder, "cannot be read", weights=name)
    shutil.copy(folder / "checkpoint.safetensors", path)
    refused(folder, "holds no weights by name", weights=name)
    save_file(whole, path)  # of another program: nothing contradicts it
    with pytest.warns(UserWarning, match=rf"{name}\.safetensors does not say which run it is of"):
        load_run(folder, weights=name)
    with pytest.raises(CheckpointError, match="there are no weights 'recipe'"):
        load_run(folder, weights="recipe")


CHECKPOINTS = {
    "a key less": lambda state: state.pop("optimizer"),
    "position": lambda state: state["position"].update(stage=99),
    "before the beginning": lambda state: state["position"].update(batch=-1),
    "a text": lambda state: state["position"].update(epoch="2"),
    "more in a position": lambda state: state["position"].update(more=1),
    "a row less": lambda state: state["history"].pop(),
    "a row that is none": lambda state: state["history"].append(3),
    "no numbers": lambda state: state["model"].update(
        {"first.0.bias": torch.full_like(state["model"]["first.0.bias"], torch.nan)}
    ),
    "optimizer": lambda state: state.update(optimizer={"x": 1}),
    "prior": lambda state: state.update(prior={"frozen": 3}),
    "tally": lambda state: state.update(tally=3),
    "model": lambda state: state.update(model=[1]),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_damaged_checkpoints_are_told_by_their_file(name, folder):
    path = folder / "checkpoint.safetensors"
    state = load_tree(path)
    CHECKPOINTS[name](state)
    save_tree(path, state, run_key(make_recipe(SHORT)))
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        run(SHORT, folder)


def test_a_recipe_of_a_folder_is_read_with_limits(folder):
    (folder / "recipe.yaml").write_text("a: " + "[" * 5000)
    for call in (lambda: load_run(folder), lambda: run(SHORT, folder)):
        with pytest.raises(SettingsError, match=r"run/recipe\.yaml is not valid YAML"):
            call()


# --- studies ---------------------------------------------------------------------------------


def test_a_line_of_another_run_is_refused(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(settings()))
    study, path = load_study("study.yaml"), tmp_path / "study.jsonl"
    found = load_run(made / "0")
    first, other = (run.key for run in plan_study(study).runs[:2])
    one = Finished(first, {}, 0, "", None, found.summary, found.history)
    write_finished(path, [one])
    assert len(read_results(tmp_path, study, path).records) == 1
    lines = path.read_text()
    path.write_text(lines.replace(first, other))
    with pytest.raises(StudyError, match=rf"study\.jsonl: the run {other} has seed 0 there"):
        read_results(tmp_path, study, path)
    path.write_text(lines + lines.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(StudyError, match=r"line 2: there are other results of the run"):
        read_finished(path)
    path.write_text(lines + lines)  # as after a merge of two branches
    assert len(read_finished(path)) == 1


@pytest.mark.parametrize("damage", [*DAMAGE, "epochs"])
def test_damaged_results_are_told_by_their_line(damage, tmp_path, made):
    path, found = tmp_path / "a.jsonl", load_run(made / "0")
    write_finished(path, [Finished("k", {}, 0, "", None, found.summary, found.history)])
    change = DAMAGE.get(damage, lambda data: data.replace(b"[1, 2]", b"[2, 3]", 1))
    if damage in ("empty", "altered"):
        return  # no line at all, and numbers that nothing tells from others
    path.write_bytes(change(path.read_bytes().rstrip(b"\n")))
    with pytest.raises(StudyError, match=r"a\.jsonl, line 1"):
        read_finished(path)


def test_recorder_is_told_nothing_of_locks(tmp_path):
    recorder = Recorder()
    run(SHORT, tmp_path, recorder)
    assert not any("lock" in text for text in recorder.said)
    assert ".lock" not in os.listdir(tmp_path)


def test_a_model_whose_code_has_changed_is_told(tmp_path, monkeypatch):
    """Weights of a ReLU network fit one of GELUs; comments are no change."""
    monkeypatch.chdir(tmp_path)
    code = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
"""
    path, name = tmp_path / "code_of_mine.py", "code_of_mine.py:make"
    given = changed(TINY, model={"name": name}, train__epochs=1, linearize__epochs=1)
    path.write_text(code)
    run(given, tmp_path / "run")
    path.write_text(f"# a comment\n{code}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_run(tmp_path / "run", trust_code=True)
    path.write_text(code.replace("ReLU", "GELU"))
    with pytest.warns(UserWarning, match=r"code_of_mine\.py:make has changed .*model\.safetensors"):
        load_run(tmp_path / "run", trust_code=True)
    (tmp_path / "run" / "summary.json").unlink()  # as where it was killed
    with pytest.warns(UserWarning, match=r"has changed since .*checkpoint\.safetensors"):
        run(given, tmp_path / "run")


@pytest.mark.parametrize("terms", [900, 1500, 50_000])
def test_code_of_any_depth_has_a_key(terms, tmp_path):
    """What is nested deeply is told by its letters; it ended in a RecursionError."""
    path, keys = tmp_path / "deep.py", []
    for last in ("1", "2"):
        path.write_text(f"x = {'1 + ' * terms}{last}\n")
        keys.append(code_key({"name": f"{path}:make"}))
    assert all(keys)
    assert keys[0] != keys[1]
