"""Recipes: those that are shipped, what is refused and how it is said, overrides."""

from __future__ import annotations

import copy

import pytest

from pathlen.errors import SettingsError
from pathlen.training import Recipe, build_model, build_task, load_recipe, make_recipe
from pathlen.training.learning_rate import stages
from pathlen.training.recipe_file import differences, dump_recipe, shipped_recipes
from tests.training_runs import TINY, changed, run, tiny

FULL = changed(
    TINY,
    schedule={"name": "step", "milestones": [0.2, 0.5]},
    train__early_stop={"patience": 3},
    linearize__prior__schedule={"name": "grow"},
    linearize__distillation={"weight": 0.3},
    finetune__schedule={"name": "cosine"},
)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes(name, tmp_path):
    recipe = load_recipe(name)
    text = dump_recipe(recipe)
    (tmp_path / "resolved.yaml").write_text(text)
    again = load_recipe(tmp_path / "resolved.yaml")
    assert again == recipe
    assert dump_recipe(again) == text
    assert not differences(recipe, again)
    assert stages(recipe)
    if "folder" not in recipe.task:  # what needs no data of the user's can be made
        assert build_model(recipe.model, build_task(recipe.task)) is not None


def test_there_are_shipped_recipes():
    assert "digits" in shipped_recipes()


def test_a_folder_hides_no_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load_recipe("digits").task["name"] == "digits"


def test_the_resolved_recipe_is_stored(tmp_path):
    run(changed(TINY, linearize__epochs=0, finetune__epochs=0, train__epochs=1), tmp_path)
    stored = load_recipe(tmp_path / "recipe.yaml")
    assert stored.train.epochs == 1
    text = (tmp_path / "recipe.yaml").read_text()
    for default in (
        "momentum: 0.9",
        "label_smoothing: 0.0",
        "threshold: 0.01",
        "precision: 32-true",
    ):
        assert default in text


# --- what is refused -------------------------------------------------------------------------


def all_keys(settings: dict, prefix: tuple[str, ...] = ()):
    for key, value in settings.items():
        if key in ("task", "model") and not prefix:
            continue  # their settings are those of tasks and models
        if key != "name":  # a misspelt name is another error
            yield (*prefix, key)
        if isinstance(value, dict):
            yield from all_keys(value, (*prefix, key))


RESOLVED = make_recipe(FULL).model_dump(mode="json")


@pytest.mark.parametrize("place", list(all_keys(RESOLVED)), ids=".".join)
def test_every_misspelt_key_is_refused_with_the_right_one(place):
    """Of every part of a recipe, and all of its keys."""
    settings = copy.deepcopy(RESOLVED)
    part = settings
    for key in place[:-1]:
        part = part[key]
    last = place[-1]
    wrong = last[:-1] + "_" + last[-1]
    part[wrong] = part[last]
    where = f"{'.'.join(place[:-1])}: " if place[:-1] else ""
    with pytest.raises(SettingsError) as caught:
        make_recipe(settings)
    assert f"  {where}there is no setting {wrong!r}; did you mean" in str(caught.value)
    assert repr(last) in str(caught.value).partition("did you mean")[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": "3"}, "batch_size: input should be a valid integer, not '3'"),
        ({"batch_size": True}, "batch_size: input should be a valid integer, not True"),
        ({"batch_size": 2.5}, "batch_size: input should be a valid integer"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, not 0"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, not -1"),
        ({"tensorboard": 1}, "tensorboard: input should be a valid boolean, not 1"),
        ({"train": None}, "train: needs settings of its own, as key: value, not None"),
        ({"task": "digits"}, "task: needs settings of its own, as key: value, not 'digits'"),
        ({"optimizer__name": "sdg"}, "optimizer.name: there is no 'sdg'; choose 'sgd', 'adamw'"),
        ({"optimizer__learning_rate": 0}, "optimizer.learning_rate: input should be greater"),
        ({"optimizer": {"momentum": 0.5}}, "optimizer: 'name' is missing"),
        ({"schedule": {"name": "step", "milestones": [2]}}, "schedule.milestones: "),
        ({"machine__precision": "fp8"}, "machine.precision: input should be '32-true', "),
        ({"linearize__prior": {}}, "linearize.prior: 'omega' is missing"),
        ({"linearize__prior__omega": float("nan")}, "linearize.prior.omega: input should be a fin"),
        ({"linearize__prior__target_napl": "half"}, "target_napl is 'half'; give a number, or a s"),
        (
            {"linearize__prior": {"omega": 1, "target_napl": 1, "target_units": 2}},
            "linearize.prior: target_napl and target_units are given; a run has one target",
        ),
        (
            {"linearize__prior": {"omega": 1, "p": 0.7, "method": "proximal"}},
            "linearize.prior: the proximal method takes p = 0.5 or 1, not 0.7",
        ),
        (
            {"linearize__prior": {"omega": 0, "schedule": {"name": "grow"}}},
            "linearize.prior: omega is 0, which does not grow",
        ),
        (
            {"linearize__prior": {"omega": 1, "pace": {}}},
            "linearize.prior: a pace needs a target",
        ),
        (
            {"linearize__prior": {"omega": 1, "target_units": 1, "pace": {"begin": 0.9}}},
            "linearize.prior.pace: begin is 0.9 and end is 0.8",
        ),
        ({"linearize__start": 3}, "linearize.start is epoch 3, but training ends after 2"),
        ({"linearize__start": 1, "linearize__epochs": 0}, "linearize.start is given, but"),
        ({"train": {}, "linearize": {}, "finetune": {}}, "no phase has an epoch"),
        (
            {"train__epochs": 0, "linearize__distillation": {}},
            "distillation needs a teacher: train first, or give weights",
        ),
        (
            {"linearize__epochs": 0, "finetune__distillation": {}},
            "finetune.distillation needs the linearize phase",
        ),
    ],
)
def test_wrong_values_are_told_with_their_place(changes, message):
    with pytest.raises(SettingsError) as caught:
        tiny(**changes)
    assert f"recipe:\n  {message}" in str(caught.value) or message in str(caught.value)


def test_all_problems_are_listed_at_once():
    with pytest.raises(SettingsError) as caught:
        make_recipe({"modl": {}, "batch_size": "a", "train": {"epochs": -1}})
    for part in ("'task' is missing", "'model' is missing", "batch_size", "train.epochs", "'modl'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", "is not valid YAML"),
        ("- 1\n", "holds no settings; a recipe begins with 'task:'"),
        ("", "holds no settings"),
        ("task: {name: digits}\nseed: 1\nseed: 2\n", "the key 'seed' is given twice"),
        ("task: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_recipe(tmp_path / "bad.yaml")


def test_recipes_that_are_not_there():
    with pytest.raises(SettingsError, match="there is no recipe 'digit'; did you mean 'digits'"):
        load_recipe("digit")
    with pytest.raises(SettingsError, match=r"recipe 'no/file\.yaml' cannot be read"):
        load_recipe("no/file.yaml")


# --- overrides -------------------------------------------------------------------------------


@pytest.fixture
def overridden(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(tiny()))

    def call(*overrides: str) -> Recipe:
        return load_recipe(path, overrides)

    return call


def test_overrides(overridden):
    recipe = overridden(
        "train.epochs=7",
        "linearize.prior.omega=1e-4",
        "linearize.prior.target_napl=50 %",
        "linearize.distillation.weight=0.25",
        "schedule.warmup=2",
        "task.shift=1",
        "clip_norm=.5",
        "weights=null",
    )
    assert recipe.train.epochs == 7
    assert recipe.linearize.prior.omega == 0.0001
    assert recipe.linearize.prior.goal() == ("napl", 0.5, True)
    assert recipe.linearize.distillation.weight == 0.25
    assert recipe.schedule.warmup == 2
    assert recipe.task == {"name": "digits", "classes": 2, "shift": 1}
    assert recipe.clip_norm == 0.5
    assert recipe.weights is None


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "+1e-4", ".1e-3", "0.0001"])
def test_small_numbers_are_numbers(overridden, number):
    assert overridden(f"optimizer.learning_rate={number}").optimizer.learning_rate == 0.0001


def test_another_name_drops_the_settings_of_the_old_one(overridden):
    recipe = overridden("optimizer.name=adamw", "model.name=resnet8", "schedule.name=step")
    assert recipe.optimizer.model_dump() == {
        "name": "adamw",
        "learning_rate": 0.001,
        "slope_learning_rate": None,
        "weight_decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
    }
    assert recipe.model == {"name": "resnet8"}
    assert overridden("model.name=mlp").model == {"name": "mlp", "width": 8, "depth": 2}


def test_the_order_of_name_and_settings_does_not_matter(overridden):
    one = overridden("optimizer.learning_rate=0.5", "optimizer.name=adamw")
    other = overridden("optimizer.name=adamw", "optimizer.learning_rate=0.5")
    assert one == other
    assert one.optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", r"'train\.epochs' is not an override; write key=value"),
        ("=3", "'=3' is not an override"),
        ("seed=[", "is not valid YAML"),
        ("seed.part=3", "'seed' is one value, without parts"),
        ("train.epoch=3", "train: there is no setting 'epoch'; did you mean 'epochs'"),
        ("lineariz.epochs=3", "there is no setting 'lineariz'; did you mean 'linearize'"),
    ],
)
def test_overrides_that_are_refused(overridden, override, message):
    with pytest.raises(SettingsError, match=message):
        overridden(override)


def test_differences():
    apart = differences(tiny(), tiny(seed=2, optimizer={"name": "adamw"}))
    assert "seed: 0 and 2" in apart
    assert "optimizer.name: 'sgd' and 'adamw'" in apart
    assert "optimizer.beta1: None and 0.9" in apart
    assert not [one for one in apart if not one.startswith(("seed", "optimizer"))]
