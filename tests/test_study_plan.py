"""Settings of studies, the runs they ask for and their keys; what is wrong is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pathlen.errors import SettingsError
from pathlen.training.recipe_file import make_recipe
from pathlen.training.study import load_study, make_study
from pathlen.training.study.keys import run_key
from pathlen.training.study.plan import ALIASES, plan_study
from pathlen.training.study.settings import Study, shipped_studies
from tests.documentation import blocks_of
from tests.studies import SHORT, settings
from tests.training_runs import changed


def plan(**changes):
    return plan_study(make_study(settings(**changes)))


def test_a_grid_is_a_product_of_cases_values_and_seeds():
    cases = [
        {"label": "early", "set": {"train.epochs": 0}},
        {"label": "late", "set": {"train.epochs": 2}},
    ]
    found = plan(cases=cases, set={"finetune.epochs": 1})
    assert [(*one.labels.values(), one.seed) for one in found.members] == [
        (case, omega, seed) for case in ("early", "late") for omega in (0.1, 5.0) for seed in (0, 1)
    ]
    recipes = {run.key: run.recipe for run in found.runs}
    assert len(recipes) == 8
    for member in found.members:
        recipe = recipes[member.key]
        assert recipe.linearize.prior.omega == member.labels["omega"]
        assert recipe.train.epochs == {"early": 0, "late": 2}[member.labels["case"]]
        assert (recipe.seed, recipe.finetune.epochs) == (member.seed, 1)
        assert recipe.machine.threads == 1


def test_aliases():
    found = plan(recipe="digits", grid={"depth": [8, 14], "width": [4], "start": [1, 3]})
    models = {run.recipe.model["name"] for run in found.runs}
    assert models == {"resnet8", "resnet14"}
    assert {run.recipe.linearize.start for run in found.runs} == {1, 3}
    found = plan(grid={"classes": [2, 5], "shortcuts": ["none"]}, **RESNET)
    assert {run.recipe.task["classes"] for run in found.runs} == {2, 5}


RESNET = {"recipe": changed(SHORT, model={"name": "resnet8", "width": 4})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"omgea": [1.0]}}, "there is no setting 'omgea'; did you mean 'omega'?"),
        (
            {"grid": {"linearize.prior.omegas": [1.0]}},
            "linearize.prior: there is no setting 'omegas'; did you mean 'omega'?",
        ),
        ({"grid": {"model.widht": [3]}}, "model 'mlp': there is no setting 'widht'"),
        ({"grid": {"task.clases": [3]}}, "there is no setting 'clases'; did you mean 'classes'?"),
        ({"grid": {"model.name": ["mlq"]}}, "there is no model 'mlq'"),
        ({"grid": {"batch_size.x": [3]}}, "'batch_size' is one value, without parts"),
        ({"grid": {"omega": []}}, "grid.omega is an empty list, so there are no runs"),
        ({"seeds": []}, "seeds is an empty list, so there are no runs"),
        ({"seeds": [1, 1]}, "seeds holds a value twice"),
        ({"grid": {"seed": [1]}}, "seeds are given as 'seeds'"),
        ({"gird": {}}, "there is no setting 'gird'; did you mean 'grid'?"),
        ({"cases": [{"labl": "x"}]}, "there is no setting 'labl'; did you mean 'label'?"),
        ({"cases": [{"label": "x"}, {"label": "x"}]}, "two cases have the same label"),
        ({"series": "omgea"}, "there is no label 'omgea'; did you mean 'omega'?"),
        ({"name": "../up"}, "name: string should match pattern"),
        ({"workers": 0}, "workers: input should be greater than or equal to 1"),
        ({"recipe": "digts"}, "there is no recipe 'digts'; did you mean 'digits'?"),
        ({"set": {"machine.devices": 2}}, "a run of a study is one process"),
        (
            {"set": {"schedule": {"name": "cosine", "span": "run"}}, "share_training": True},
            "it cannot be shared; set share_training to false",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(changes, message):
    with pytest.raises(SettingsError) as caught:
        plan(**changes)
    assert message in str(caught.value)


def test_all_wrong_cases_are_told_each_once():
    with pytest.raises(SettingsError) as caught:
        plan(grid={"omega": [-1.0, -2.0, 0.5], "linearize.prior.p": [2.0, 3.0, 4.0]})
    text = str(caught.value)
    assert text.count("omega=-1.0") == 3
    assert text.endswith("and 4 more cases")


def test_a_key_tells_runs_apart_that_give_other_results():
    recipe = make_recipe(SHORT)
    same = [
        changed(SHORT, machine__threads=2),
        changed(SHORT, checkpoint_steps=3),
        changed(SHORT, tensorboard=True),
    ]
    others = [
        changed(SHORT, seed=1),
        changed(SHORT, machine__precision="64-true"),
        changed(SHORT, train__epochs=3),
        changed(SHORT, weights="x.safetensors"),
    ]
    assert {run_key(make_recipe(one)) for one in same} == {run_key(recipe)}
    keys = {run_key(make_recipe(one)) for one in others} | {run_key(recipe, "0" * 16)}
    assert len(keys) == 5
    assert run_key(recipe) not in keys
    # known to users by folders and stores: it must not change from one version to the next
    assert len(run_key(recipe)) == 16


def test_runs_share_a_dense_run_where_nothing_before_linearization_differs():
    grid = {"omega": [0.1, 5.0], "start": [0, 1, 2], "linearize.epochs": [1, 3]}
    found = plan(recipe=changed(SHORT, train__epochs=4), grid=grid, share_training=True)
    dense = [run for run in found.runs if run.needs is None and run.recipe.train_epochs]
    assert sorted((run.recipe.train.epochs, run.recipe.seed) for run in dense) == [
        *[(1, 0), (1, 1), (2, 0), (2, 1)]
    ]
    assert all(run.recipe.linearize.epochs == 0 for run in dense)
    early = [run for run in found.runs if run.needs is None and not run.recipe.train_epochs]
    assert len(early) == 8  # two strengths, two lengths, two seeds
    rest = [run for run in found.runs if run.needs is not None]
    assert len(rest) == 16
    seeds = {run.key: run.recipe.seed for run in dense}
    for run in rest:
        assert run.recipe.train.epochs == 0
        assert run.recipe.seed == seeds[run.needs]
    assert [run.key for run in found.runs[: len(dense)]] == [run.key for run in dense]


def test_shipped_studies_are_valid():
    assert "example" in shipped_studies()
    for name in shipped_studies():
        study = load_study(name)
        members = plan_study(study).members
        assert study.claim
        assert study.verdict or name == "example"
        for claim in study.verdict:
            for side in ("better", "than"):
                labels = getattr(claim, side, {})
                assert any(labels.items() <= member.labels.items() for member in members), name


def test_an_unknown_study_and_a_file_that_is_none(tmp_path):
    with pytest.raises(SettingsError, match="there is no study 'exampel'; did you mean 'example'"):
        load_study("exampel")
    (tmp_path / "a.yaml").write_text("[1, 2]")
    with pytest.raises(SettingsError, match="holds no settings; a study begins with 'name:'"):
        load_study(tmp_path / "a.yaml")


def test_a_recipe_file_is_looked_for_beside_the_study(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SHORT))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings(recipe="mine.yaml")))
    monkeypatch.chdir(tmp_path.parent)
    assert plan_study(load_study(tmp_path / "study.yaml")).runs == plan().runs


PAGE = (Path(__file__).parent.parent / "docs" / "study.md").read_text()


def test_the_page_lists_all_settings():
    table = PAGE.partition("\n| key | default | |\n")[2].partition("\n\n")[0]
    shown = [row.split("|")[1].strip(" `") for row in table.splitlines()[1:]]
    assert shown == list(Study.model_fields)
    assert all(f"`{name}`" in PAGE for name in ALIASES)
    assert all(f"`{key}`" in PAGE for key in ALIASES.values())


def test_the_study_of_the_page_is_valid():
    (block,) = (block for block in blocks_of(PAGE) if block.title == "early.yaml")
    found = plan_study(make_study(yaml.safe_load(block.code)))
    assert len(found.members) == 3 * 4 * 5
    starts = [run.recipe.train_epochs for run in found.runs]
    assert sorted(set(starts)) == [0, 5, 10]
