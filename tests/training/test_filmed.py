from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.space import Modality
from ingest.track import Span, Speaking
from tests.search.small_world import World, face, turn
from training.filmed import Film, Looks, Reader

RED, BLUE, GREEN = (200, 10, 10), (10, 10, 200), (10, 200, 10)
SPAN = Span(0.0, 4.0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> World:
    """What tests only look at."""
    return ingested(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """What a test changes."""
    return ingested(tmp_path)


def ingested(folder: Path) -> World:
    """A film of two, one of whom speaks; Ann is enrolled with another file."""
    world = World(folder)
    faces, turns = [face(RED, 0, span=SPAN), face(BLUE, 1, span=SPAN)], [turn(2), turn(3, 2, 3, 1), turn(4, 3, 3.05, 2)]
    judged = [Speaking(0, 0.9, 0.1), Speaking(None, 0.0, 1.0), Speaking(1, 0.5, 0.5)]
    world.archive.ingest_file(world.file("a.mp4", faces, turns, judged), "mine")
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(GREEN, span=SPAN)], [turn(6, 0, 2)])])
    return world


def reader(world: World) -> Reader:
    spaces = {modality: world.encoders[f"{modality}_identity"].space for modality in Modality}
    return Reader(world.records, world.store, spaces)


def only_film(world: World) -> Film:
    (film,) = reader(world).films(world.records.ledger.archived("mine"))
    return film


def test_a_film_is_read_as_it_was_ingested(kept: World) -> None:
    film = only_film(kept)
    assert [(one.track, one.span, len(one.looks)) for one in film.faces] == [(0, (0, 4000), 1), (1, (0, 4000), 1)]
    assert [(one.speaker, one.span, one.seconds) for one in film.turns] == [(0, (0, 1000), 1.0), (1, (2000, 3000), 1.0)]
    assert [one.pairing.track if one.pairing else "?" for one in film.turns] == [0, None] and film.judged
    assert film.faces[0].looks.weights.tolist() == [0.9]


def test_points_are_those_of_the_index(kept: World) -> None:
    film, space = only_film(kept), kept.encoders["face_identity"].space
    rows = {row.evidence: row.embedding.vector for row in kept.store.rows(space)}
    for one in film.faces:
        assert np.array_equal(one.looks.vectors[0], rows[one.looks.evidence[0]])


def test_a_film_of_an_earlier_version_is_not_judged(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.archive.ingest_file(world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)]), "mine")
    assert not only_film(world).judged


def test_the_enrolled_are_read_with_their_samples(kept: World) -> None:
    (ann,) = reader(kept).enrolled()
    assert ann.person == kept.records.people.find("Ann").id
    assert ann.faces is not None and ann.voices is not None and (len(ann.faces), len(ann.voices)) == (1, 1)


def test_somebody_enrolled_out_of_a_film_is_known_in_it(world: World) -> None:
    world.archive.enrol("Bob", [world.folder / "a.mp4"])
    bob = world.records.people.find("Bob").id
    assert bob in {one.person for one in only_film(world).faces}
    assert bob in {one.person for one in only_film(world).turns}


def test_who_was_forgotten_is_not_read(world: World) -> None:
    world.archive.enrol("Bob", [world.folder / "a.mp4"])
    world.archive.forget("Ann")
    world.archive.forget("Bob")
    assert reader(world).enrolled() == []
    assert {one.person for one in (*only_film(world).faces, *only_film(world).turns)} == {""}


def test_who_is_being_forgotten_is_not_read_either(world: World) -> None:
    world.records.people.begin_forgetting(world.records.people.find("Ann"))
    assert reader(world).enrolled() == []


def looks(names: str, weights: list[float]) -> Looks:
    return Looks(np.eye(4, dtype=np.float32)[: len(names)], np.array(weights), tuple(names))


def test_joined_samples_are_there_once_by_their_largest_weight() -> None:
    joined = Looks.joined([looks("ab", [0.5, 0.2]), looks("bc", [0.9, 0.1])])
    assert joined.evidence == ("a", "b", "c") and joined.weights.tolist() == [0.5, 0.9, 0.1]


def test_the_centre_is_nearer_to_what_weighs_more() -> None:
    centre = looks("ab", [0.9, 0.3]).centre
    assert centre[0] == pytest.approx(3 * centre[1]) and np.linalg.norm(centre) == pytest.approx(1)


def test_samples_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        Looks(np.eye(2, dtype=np.float32), np.ones(2), ("a",))
