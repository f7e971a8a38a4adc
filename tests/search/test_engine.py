from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from ingest.media import MediaError
from ingest.track import Span
from search.probes import ProbeUnusable
from tests.search.small_world import World, face, turn

RED, PINK, BLUE = (200, 10, 10), (200, 40, 40), (10, 10, 200)
SPAN = Span(0.0, 2.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_find_ranks_the_nearest_first_and_says_where(world: World) -> None:
    world.archive.ingest_file(world.file("red.mp4", [face(RED, span=SPAN)]), "default")
    world.archive.ingest_file(world.file("blue.mp4", [face(BLUE, span=SPAN)]), "default")
    first, second = world.engine.find(world.file("ask.jpg", [face(PINK)]), Modality.FACE).hits
    assert first.score > second.score and first.probability > 0.5 > second.probability
    assert (first.start, first.end, first.person, first.space) == (0.0, 2.0, None, "face_identity")


def test_find_says_the_name_of_an_enrolled_hit(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    (hit,) = world.engine.find(world.file("ask.jpg", [face(PINK)]), Modality.FACE).hits
    assert (hit.person, hit.start, hit.end) == ("Ann", None, None)


def test_asking_with_a_file_that_is_in_finds_itself_exactly(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(3)])
    world.archive.ingest_file(film, "default")
    for want in Modality:
        assert world.engine.find(film, want).hits[0].score == pytest.approx(1.0, abs=1e-6)


def test_no_hits_is_an_answer(world: World) -> None:
    assert world.engine.find(world.file("ask.jpg", [face(RED)]), Modality.FACE).hits == []


def test_the_bridge_leads_from_a_voice_to_faces_through_somebody_enrolled_with_both(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    world.archive.ingest_file(world.file("film.mp4", [face(PINK, span=SPAN)]), "default")
    answer = world.engine.find(world.file("ask.wav", [], [turn(5, 0, 3)]), Modality.FACE)
    assert {hit.person for hit in answer.hits} == {"Ann", None}
    assert {hit.space for hit in answer.hits} == {"bridge"} and "no shared-space encoder" in (answer.note or "")


def test_without_anybody_on_the_bridge_the_other_modality_has_no_hits_and_a_note(world: World) -> None:
    world.archive.ingest_file(world.file("film.mp4", [face(RED, span=SPAN)]), "default")
    answer = world.engine.find(world.file("ask.wav", [], [turn(5)]), Modality.FACE)
    assert answer.hits == [] and answer.note


def test_a_probe_that_shows_nothing_is_refused(world: World) -> None:
    with pytest.raises(ProbeUnusable, match="no usable face"):
        world.engine.find(world.file("empty.mp4"), Modality.FACE)


def test_a_probe_that_cannot_be_read_is_named(world: World) -> None:
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        world.engine.find(world.broken("bad.mp4"), Modality.FACE)


@pytest.mark.parametrize("top", [0, 1001])
def test_top_has_bounds(world: World, top: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        world.engine.find(world.file("ask.jpg", [face(RED)]), Modality.FACE, top)


def test_a_vector_of_a_space_that_nobody_serves_is_refused(world: World) -> None:
    stranger = Embedding.of(Space("face_identity", 3, "0" * 64), Modality.FACE, np.ones(3))
    with pytest.raises(SpaceMismatch):
        world.engine.find_vector(stranger, Modality.FACE)


def test_verify_tells_one_person_from_two(world: World) -> None:
    red, pink, blue = (world.file(f"{name}.jpg", [face(colour)]) for name, colour in
                       (("red", RED), ("pink", PINK), ("blue", BLUE)))  # fmt: skip
    assert world.engine.verify(red, pink).same
    assert not world.engine.verify(red, blue).same


def test_verify_over_the_bridge_needs_somebody_enrolled_with_both(world: World) -> None:
    photo, clip = world.file("a.jpg", [face(RED)]), world.file("a.wav", [], [turn(5)])
    with pytest.raises(ProbeUnusable, match="enrolled with both"):
        world.engine.verify(photo, clip)
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    assert world.engine.verify(photo, clip).same
    assert not world.engine.verify(world.file("b.jpg", [face(BLUE)]), clip).same


def test_match_names_the_nearest_candidate(world: World) -> None:
    blue, pink = world.file("blue.jpg", [face(BLUE)]), world.file("pink.jpg", [face(PINK)])
    answer = world.engine.match(world.file("red.jpg", [face(RED)]), [blue, pink])
    assert answer.answer == str(pink) and [one.path for one in answer.candidates] == [str(blue), str(pink)]


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "correlation"])
def test_every_similarity_matches_alike_here(world: World, kind: str) -> None:
    blue, pink = world.file("blue.jpg", [face(BLUE)]), world.file("pink.jpg", [face(PINK)])
    assert world.engine.match(world.file("red.jpg", [face(RED)]), [blue, pink], kind).answer == str(pink)


def test_two_strangers_to_everybody_enrolled_are_not_called_two_people(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])])
    with pytest.raises(ProbeUnusable, match="enrolled with both"):
        world.engine.verify(world.file("b.jpg", [face(BLUE)]), world.file("c.wav", [], [turn(1)]))


def test_somebody_who_is_being_forgotten_is_no_hit(world: World) -> None:
    photo = world.file("ann.jpg", [face(RED)])
    world.archive.enrol("Ann", [photo])
    world.records.people.begin_forgetting(world.records.people.find("Ann"))
    assert world.engine.find(photo, Modality.FACE).hits == []
