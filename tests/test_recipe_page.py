"""The page on training runs lists all settings, with the defaults that they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathlen.training import optimizer_settings, prior_settings, recipe
from pathlen.training.baselines import settings

TABLES = {
    "recipe": {"recipe": recipe.Recipe},
    "optimizer": {"`sgd`": optimizer_settings.SGD, "`adamw`": optimizer_settings.AdamW},
    "schedule": {
        "`constant`": optimizer_settings.Constant,
        "`cosine`": optimizer_settings.Cosine,
        "`step`": optimizer_settings.Step,
    },
    "phases": {
        "`weights`": recipe.Weights,
        "`train`, `linearize` and `finetune`": recipe.Phase,
        "`early_stop`": recipe.EarlyStop,
        "`linearize`": recipe.Linearize,
        "`linearize.prior`": prior_settings.Prior,
        "`linearize.baseline`": settings.BaselineSettings,
        "`distillation`": recipe.Distillation,
        "`machine`": recipe.Machine,
    },
    "baseline": {
        "`random`": settings.Random,
        "`magnitude`": settings.Magnitude,
        "`snl`": settings.SNL,
        "`layer_folding`": settings.LayerFolding,
        "`entropy`": settings.Entropy,
        "`greedy`": settings.Greedy,
    },
    "prior": {"`pace`": prior_settings.Pace},
    "prior schedule": {"`ramp`": prior_settings.RampOmega, "`grow`": prior_settings.GrowOmega},
}


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        (title if group in ("recipe", "phases") else f"{group} {title}", kind)
        for group, kinds in TABLES.items()
        for title, kind in kinds.items()
    ],
)
def test_the_page_lists_all_settings_with_their_defaults(title, kind):
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    table = page.partition(f"\n| {title} | default | |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")] for row in table.splitlines()[1:]]
    shown = {row[1].strip("`"): row[2].strip("`") for row in rows}
    inherited = {
        name
        for parent in (recipe.Phase, settings.BaselineSettings)
        if issubclass(kind, parent) and kind is not parent
        for name in parent.model_fields
    }
    fields = {
        name: field
        for name, field in kind.model_fields.items()
        if name not in inherited and name != "name"
    }
    assert sorted(shown) == sorted(fields)
    for name, field in fields.items():
        value = "required" if field.is_required() else field.default
        if isinstance(value, recipe.Prior):
            assert shown[name] == f"omega: {value.omega}"
        elif isinstance(value, recipe.Settings):
            assert shown[name] == getattr(value, "name", "")
        else:
            assert shown[name] == str(value).lower(), name
