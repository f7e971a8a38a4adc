from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.evaluation import NothingToMeasure, Samples, collect, evaluate_people
from search.probes import Prober
from search.store import MemoryStore
from tests.search.small_world import World, face

RED, PINK, BLUE, NAVY = (200, 10, 10), (200, 40, 40), (10, 10, 200), (40, 40, 200)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def photos(world: World, **people: list[tuple[int, int, int]]) -> Samples:
    """Samples of people who have these photos."""
    files = {
        name: [world.file(f"{name}{number}.jpg", [face(colour)]) for number, colour in enumerate(colours)]
        for name, colours in people.items()
    }
    return collect(Prober(world.extract, world.encoders, MemoryStore(), world.records.people), files)


def report(world: World, samples: Samples) -> dict[str, Any]:
    return evaluate_people(samples, MemoryStore(), world.encoders)


def test_people_who_look_like_themselves_are_found_first(world: World) -> None:
    told = report(world, photos(world, ann=[RED, PINK], bob=[BLUE, NAVY]))["retrieval"]["face_to_face"]
    assert told["map"] == told["map_exact"] == 1.0 and (told["probes"], told["gallery"]) == (4, 3)


def test_a_probe_never_finds_itself(world: World) -> None:
    # each photo's nearest neighbour is the other person's: the right one is always last of three
    told = report(world, photos(world, ann=[RED, BLUE], bob=[PINK, NAVY]))["retrieval"]["face_to_face"]
    assert told["map"] == pytest.approx(0.5, abs=0.17) and told["recall_at_1"] == 0.0


def test_chance_is_that_of_the_gallery(world: World) -> None:
    told = report(world, photos(world, ann=[RED, PINK], bob=[BLUE, NAVY]))["retrieval"]["face_to_face"]
    assert told["chance"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)  # one right of three, at any rank alike


def test_unreadable_files_and_copies_are_listed_and_stop_nothing(world: World) -> None:
    samples = photos(world, ann=[RED, PINK], bob=[BLUE, NAVY])
    copy = world.folder / "copy.jpg"
    copy.write_bytes((world.folder / "ann0.jpg").read_bytes())
    prober = Prober(world.extract, world.encoders, MemoryStore(), world.records.people)
    more = collect(prober, {"ann": [world.folder / "ann0.jpg", copy, world.broken("bad.jpg")]})
    assert len(samples.samples) == 4 and len(more.samples) == 1
    assert "copy.jpg" in more.duplicates[0] and not more.unusable[0].readable


def test_one_person_cannot_be_measured(world: World) -> None:
    with pytest.raises(NothingToMeasure, match="two people"):
        report(world, photos(world, ann=[RED, PINK]))


def test_what_was_scored_can_be_exported(world: World, tmp_path: Path) -> None:
    samples = photos(world, ann=[RED], bob=[BLUE])
    samples.export(tmp_path / "scored.npz")
    with np.load(tmp_path / "scored.npz") as scored:
        assert list(scored["person"]) == ["ann", "bob"] and scored["vector"].shape == (2, 3)
