"""The rows of every recipe's ``ABLATIONS``: each is another training than the method in full, and it takes steps."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.training.recipes.whole_run import small_training
from training.batches import Augmentation
from training.configuration import changed
from training.reading import preparation_for
from training.recipe import load_recipe, recipes
from training.runs import LOG_FILE

ROWS = [(name, row) for name in recipes() for row in load_recipe(name).ABLATIONS]


@pytest.mark.parametrize("name", recipes())
def test_every_ablation_is_a_training_that_is_not_the_method_in_full(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.ABLATIONS
    known: list[Any] = []
    for told in recipe.ABLATIONS.values():
        ours, papers = (changed(full, told) for full in (recipe.POPULATION, recipe.Settings()))
        assert (ours, papers) != (recipe.POPULATION, recipe.Settings())
        assert (ours, papers) not in known  # no row twice
        assert recipe.stages(ours.fitting(1250), False)[-1].name == recipe.stages(papers, True)[-1].name
        known.append((ours, papers))


@pytest.mark.long
@pytest.mark.timeout(900)  # a transformer's checkpoints have a gigabyte
@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}, {row}" for name, row in ROWS])
def test_every_ablation_takes_two_steps_in_each_of_its_stages(name: str, row: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    settings = two_steps(changed(recipe.POPULATION, recipe.ABLATIONS[row])).fitting(10)
    preparation = preparation_for(settings, "dlib_hog")
    (tmp_path / "runs").mkdir()
    trained = small_training(recipe, settings, tmp_path / "runs" / "run", preparation=preparation)  # type: ignore[arg-type]
    assert len(trained.earlier) + 1 == len(recipe.stages(settings, False))
    for folder in (*trained.earlier, trained.folder):
        (line,) = map(json.loads, (folder / LOG_FILE).read_text().splitlines())
        assert math.isfinite(line["losses"]["total"]) and math.isfinite(trained.validated.mean)


def two_steps(settings: Any) -> Any:
    """The same in one epoch of two batches with short voices, whatever stage."""
    short: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 2}
    voices = {"frames": 64}  # a picture's width, where sounds are pictures
    told: dict[str, Any] = dict(short)
    for one in fields(settings):
        group = getattr(settings, one.name)
        if is_dataclass(group) and hasattr(group, "epochs"):
            told[one.name] = short | {"augmentation": voices}
    told |= voices if hasattr(settings, "frames") else {}
    told |= {"augmentation": voices} if isinstance(vars(settings).get("augmentation"), Augmentation) else {}
    return changed(settings, told)
