"""Files of a run: whole or not there, whatever fails; altered ones are refused."""

from __future__ import annotations

import errno
import io
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pathlen import whole_files
from pathlen.errors import CheckpointError, LinearizationError, PathlenError, SettingsError
from pathlen.training import load_run, train
from pathlen.training.files import load_tree, save_tree, write_text
from pathlen.training.make_model import load_weights
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study.keys import run_key
from tests.training_runs import TINY, Recorder, changed, outcome, run, tiny

TREE = {
    "number": 3,
    "share": 0.1 + 0.2,
    "none": None,
    "flags": [True, False],
    "weights": {"a.b": torch.tensor([[1.5, -0.0], [math.inf, math.nan]]), "c": torch.arange(3)},
    "rows": [{"text": "über", "mask": torch.tensor([True, False])}, {}],
    "small": torch.tensor(2.5, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}


def same(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            same(value, other[key])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert (one, type(one)) == (other, type(other))


def no_space(monkeypatch, after: int = 0) -> None:
    """Let the disk be full after some files were written."""
    count = 0

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(descriptor, mode):
        nonlocal count
        count += 1
        return Full(descriptor, mode) if count > after else io.open(descriptor, mode)  # noqa: UP020

    monkeypatch.setattr(whole_files, "open", opened, raising=False)


# --- trees -----------------------------------------------------------------------------------


def test_trees_come_back(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, TREE)
    same(TREE, load_tree(path))
    assert [one.name for one in tmp_path.iterdir()] == ["tree.safetensors"]


def test_tied_tensors_are_written_once(tmp_path):
    table = torch.randn(100, 100)
    save_tree(tmp_path / "tied", {"a": table, "b": {"c": table}, "d": table.t()})
    assert (tmp_path / "tied").stat().st_size < 2.1 * table.numel() * 4
    found = load_tree(tmp_path / "tied")
    torch.testing.assert_close(found["b"]["c"], table, rtol=0, atol=0)
    torch.testing.assert_close(found["d"], table.t(), rtol=0, atol=0)


def test_what_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"a\.b is a set; only tensors and plain values"):
        save_tree(tmp_path / "x", {"a": {"b": {1}}})
    with pytest.raises(TypeError, match="keys of 'a' must be texts"):
        save_tree(tmp_path / "x", {"a": {1: 2}})
    with pytest.raises(TypeError, match=r"two tensors would be saved as 'a\.b'"):
        save_tree(tmp_path / "x", {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)})
    assert not list(tmp_path.iterdir())


def test_truncated_trees_are_refused(tmp_path):
    path = tmp_path / "tree"
    save_tree(path, TREE)
    whole = path.read_bytes()
    for length in [0, 4, 8, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_tree(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tree(tmp_path / "absent")


def test_no_flipped_bit_goes_unseen(tmp_path):
    path = tmp_path / "tree"
    save_tree(path, {"step": 17, "weight": torch.tensor([1.0, 2.0, 3.0])})
    whole, refused = path.read_bytes(), 0
    expected = load_tree(path)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = load_tree(path)
        except CheckpointError:
            refused += 1
        else:  # only what means nothing may change: padding, the name of the framework
            same(expected, found)
    assert refused > 0.9 * len(whole)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tree"
    save_tree(path, {"step": 1})
    with monkeypatch.context() as patch:
        no_space(patch)
        with pytest.raises(CheckpointError, match=r"No space left .*; the one from before is kept"):
            save_tree(path, {"step": 2, "many": torch.zeros(1000)})
        with pytest.raises(CheckpointError, match="there is none from before"):
            write_text(tmp_path / "other", "text")
    assert load_tree(path) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["tree"]


# --- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4, 5, 7, 16])
def test_a_full_disk_stops_a_run_that_then_goes_on(after, tmp_path, monkeypatch):
    run(TINY, tmp_path / "whole")
    folder = tmp_path / "full"
    with monkeypatch.context() as patch:
        no_space(patch, after)
        with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
            run(TINY, folder)
    assert not list(folder.glob("*.unfinished"))
    saved = folder / "checkpoint.safetensors"
    assert saved.exists() == (after > 1)
    if saved.exists():
        assert load_tree(saved)["position"]["epoch"] >= 1
    run(TINY, folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


def test_a_finished_run_is_not_done_again(tmp_path):
    first = run(TINY, tmp_path)
    before = outcome(tmp_path)
    recorder = Recorder()
    again = run(TINY, tmp_path, recorder)
    assert "this run ended before, after 5 epochs" in recorder.said
    assert not recorder.steps
    assert again.summary == first.summary
    assert again.history == first.history
    assert outcome(tmp_path) == before


def test_rows_that_a_crash_left_out_are_written(tmp_path):
    run(TINY, tmp_path)
    whole = outcome(tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(rows[:-1]))
    run(TINY, tmp_path)
    assert outcome(tmp_path) == whole


def test_another_recipe_is_refused_with_what_differs(tmp_path):
    run(TINY, tmp_path)
    with pytest.raises(
        SettingsError, match=r"another recipe .*\n  model\.width: 8 and 9\n  seed: "
    ):
        train(tiny(model__width=9, seed=3), tmp_path)
    with pytest.raises(SettingsError, match=r"machine\.precision: '32-true' and '64-true'"):
        train(tiny(machine__precision="64-true"), tmp_path)
    train(tiny(machine__workers=1, checkpoint_steps=5), tmp_path)  # these do not change a run


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="holds other files than a run's"):
        run(TINY, tmp_path)
    with pytest.raises(SettingsError, match="is a file; a run needs a folder"):
        run(TINY, tmp_path / "letter.txt")
    assert [one.name for one in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(CheckpointError, match="cannot be made"):
        run(TINY, tmp_path / "letter.txt" / "below")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "cannot be read"),
        (lambda path: _change(path, format=99), "has format 99, and this pathlen reads 2"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "was not written by pathlen"),
        (
            lambda path: _change(path, model={"first.weight": torch.zeros(2, 2)}),
            r"another model than MLP \(7 differences\):\n  first\.0\.bias is not in the file",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(spoil, message, tmp_path):
    run(TINY, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    spoil(path)
    spoilt = path.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        run(TINY, tmp_path)
    assert path.read_bytes() == spoilt  # nothing is lost that may be saved by other means


def _change(path, **values):
    save_tree(path, load_tree(path) | values, run_key(make_recipe(TINY)))


def test_weights_of_another_model(tmp_path):
    run(changed(TINY, linearize__epochs=0, finetune__epochs=0), tmp_path / "dense")
    with pytest.raises(CheckpointError, match=r"first\.0\.weight has shape \(8, 64\), not "):
        run(changed(TINY, weights=str(tmp_path / "dense"), model__width=4), tmp_path / "other")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(changed(TINY, weights=str(tmp_path / "no.safetensors")), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_only_slopes_of_ours_may_be_missing():
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU(2))
    weights = {key: value for key, value in model.state_dict().items() if key != "1.weight"}
    with pytest.raises(CheckpointError, match=r"1\.weight is not in the file"):
        load_weights(model, weights, Path("file"))


# --- what cannot be trained --------------------------------------------------------------------


def test_no_activation(tmp_path):
    (tmp_path / "line.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    settings = changed(TINY, model={"name": f"{tmp_path}/line.py:make"})
    with pytest.raises(LinearizationError, match="there is nothing to linearize"):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run(changed(settings, linearize__epochs=0), tmp_path / "run")  # training goes


def test_missing_data(tmp_path):
    settings = changed(TINY, task={"name": "cifar10", "folder": str(tmp_path / "none")})
    with pytest.raises(PathlenError, match="data_batch_1") as caught:
        run(settings, tmp_path / "run")
    assert str(tmp_path / "none") in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"target_units": 17}, "a target of 17 units is more than the model has: 16"),
        ({"target_napl": "101 %"}, "is more than the model has: 2"),
    ],
)
def test_targets_above_the_model_are_refused_before_training(target, message, tmp_path):
    settings = changed(TINY, linearize__prior={"omega": 0.1, **target})
    with pytest.raises(PathlenError, match=message):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_items(tmp_path):
    with pytest.raises(SettingsError, match="270 items to train on, fewer than batch_size 300"):
        train(tiny(batch_size=300), tmp_path / "run")


def test_there_is_no_run_to_load(tmp_path):
    with pytest.raises(CheckpointError, match=r"recipe\.yaml, summary\.json, model\.safetensors"):
        load_run(tmp_path)
