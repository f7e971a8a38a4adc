from __future__ import annotations

import re

import pytest
import torch

from tests.training.small_run import small_given
from training.recipe import Batch, UnknownRecipe, load_recipe, recipe_name, recipes


def batch(**changed: torch.Tensor | None) -> Batch:
    parts: dict[str, torch.Tensor | None] = {
        "faces": torch.zeros(4, 3, 16, 16),
        "face_people": torch.tensor([0, 0, 1, 1]),
        "voices": torch.zeros(3, 20, 40),
        "voice_lengths": torch.tensor([20, 18, 3]),
        "voice_people": torch.tensor([0, 1, 1]),
    }
    return Batch(**(parts | changed))  # type: ignore[arg-type]


def test_every_file_among_the_recipes_is_one() -> None:
    assert "bi_quintuple" in recipes()
    for name in recipes():
        recipe = load_recipe(name)
        assert recipe_name(recipe) == name
        assert isinstance(recipe.POPULATION, recipe.Settings) and recipe.stages(recipe.POPULATION, False)


def test_an_unknown_recipe_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownRecipe, match=r"'bi_quadruple'.*bi_quintuple"):
        load_recipe("bi_quadruple")


def test_a_name_that_leaves_the_folder_is_no_recipe() -> None:
    for name in ("../loop", "os.path", "", "__init__"):
        with pytest.raises(UnknownRecipe, match=re.escape(repr(name))):
            load_recipe(name)


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    moved = batch().to("meta")
    assert {part.device.type for part in vars(moved).values() if part is not None} == {"meta"}
    assert batch(voice_lengths=None).to("meta").voice_lengths is None
    weighed = batch(face_weights=torch.tensor([1.0, 0.5, 0.2, 0.1]), voice_weights=torch.tensor([0.3, 0.7, 0.9]))
    there = weighed.to("cpu")
    for name, part in vars(weighed).items():
        assert torch.equal(getattr(there, name), part), name


@pytest.mark.parametrize("part", ["faces", "face_people", "voices", "voice_lengths", "voice_people"])
def test_a_batch_whose_parts_do_not_fit_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=r"batch needs|do not fit"):
        batch(**{part: torch.zeros(7)})


def test_a_recipe_is_initialised_from_its_seed_alone() -> None:
    recipe = load_recipe("bi_quintuple")
    torch.manual_seed(1)
    (stage,) = recipe.stages(recipe.POPULATION, False)
    one = stage.build(small_given(5), 3, None).state_dict()
    torch.manual_seed(2)
    same, other = (stage.build(small_given(5), seed, None).state_dict() for seed in (3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
