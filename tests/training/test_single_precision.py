"""Under autocast the networks compute in bfloat16, and every loss in single precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch

from tests.training.recipes.test_single_stream import given_for, pictures
from training.configuration import changed
from training.networks import NetworkGiven
from training.pretraining import IdentitySettings, IdentityTask
from training.recipe import Batch, Given, Task, load_recipe, recipes, seeded
from training.recipes import single_stream

PEOPLE, WIDTHS = 6, (24, 20)
SMALL = {"people_per_batch": PEOPLE, "samples_per_person": 2, "people_per_mining": None, "cluster_counts": [2, 3, 4]}


def exactly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same outside of any autocast."""

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return method(*arguments, **named)

    return call


def agree(build: Callable[[], Task], batch: Batch) -> None:
    """Losses under autocast are those without, if what is in front of them is."""
    torch.manual_seed(0)  # for starts of clusters, and dropout
    plain = build().losses(batch)
    task = build()
    task.features = exactly(task.features)  # type: ignore[method-assign]
    task.head.forward = exactly(task.head.forward)  # type: ignore[method-assign]
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = task.losses(batch)
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", recipes())
def test_the_losses_of_a_head_are_of_single_precision(name: str) -> None:
    recipe = load_recipe(name)
    known = {key: value for key, value in SMALL.items() if key in vars(recipe.POPULATION)}
    if name == "single_stream":
        known["samples_per_person"] = 1
    settings = changed(recipe.POPULATION, known)
    networks = [NetworkGiven(None, None, width) for width in WIDTHS]
    random = torch.Generator().manual_seed(4)
    people = torch.arange(PEOPLE).repeat_interleave(2)
    faces, voices = (torch.randn(len(people), width, generator=random) for width in WIDTHS)
    batch, given = Batch(faces, people, voices, None, people), Given(PEOPLE, ("f", "m") * (PEOPLE // 2), *networks)
    agree(lambda: recipe.stages(settings, frozen=True)[-1].build(given, 0, None), batch)


def test_so_are_those_of_the_stage_that_tells_people_apart() -> None:
    random = torch.Generator().manual_seed(5)
    people = torch.arange(PEOPLE)
    batch = Batch(
        torch.randn(PEOPLE, 24, generator=random), people, torch.randn(PEOPLE, 24, generator=random), None, people
    )
    network = NetworkGiven(None, None, 24)
    given = Given(PEOPLE, ("",) * PEOPLE, network, network)
    agree(lambda: seeded(IdentityTask, 0, IdentitySettings(), given), batch)


def test_so_are_those_of_the_network_that_sees_and_hears() -> None:
    settings = single_stream.POPULATION

    def build() -> Task:
        task = single_stream.build_stream(settings.stream, given_for(settings), 0)
        task.face.features = exactly(task.face.features)  # type: ignore[assignment, arg-type]
        return task

    agree(build, pictures())
