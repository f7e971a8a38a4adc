from __future__ import annotations

from pathlib import Path

import pytest

from ingest.track import Span
from tests.search.small_world import World, blend, face, turn

RED, PINK, BLUE = (200, 10, 10), (200, 40, 40), (10, 10, 200)
SPAN = Span(0.0, 4.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_speech_is_an_answer(world: World) -> None:
    assert world.engine.who(world.file("mute.mp4", [face(RED, span=SPAN)])).turns == []


def test_without_enrolled_people_every_turn_is_unknown(world: World) -> None:
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2)])).turns
    assert heard.people == [] and heard.answer == "unknown"


def test_a_known_voice_is_named_with_its_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2, 1.0, 3.5)])).turns
    assert (heard.start, heard.end, heard.answer) == (1.0, 3.5, "Ann")
    assert heard.people[0].evidence.voice is not None and heard.people[0].evidence.face is None


def test_a_strange_voice_is_unknown_though_somebody_comes_first(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(6)])).turns
    assert heard.answer == "unknown" and heard.people[0].name == "Ann" and heard.people[0].probability < 0.5


def test_speakers_of_one_file_are_told_apart(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    world.archive.enrol("Bob", [world.file("bob.wav", [], [turn(6, 0, 2)])])
    turns = world.engine.who(world.file("a.wav", [], [turn(2, 0, 1, 0), turn(6, 1, 2, 1), turn(2, 2, 3, 0)])).turns
    assert [heard.answer for heard in turns] == ["Ann", "Bob", "Ann"]


def test_an_enrolled_face_on_screen_joins_as_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(2, 0, 2)])])
    (seen,) = world.engine.who(world.file("a.mp4", [face(PINK, span=SPAN)], [turn(2, 0, 2)])).turns
    (unseen,) = world.engine.who(world.file("b.mp4", [face(BLUE, span=SPAN)], [turn(2, 0, 2)])).turns
    assert seen.people[0].evidence.face is not None and unseen.people[0].evidence.face is None
    assert seen.people[0].probability > unseen.people[0].probability


def test_a_face_off_screen_during_the_turn_is_no_evidence(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    later = Span(6.0, 9.0)
    (heard,) = world.engine.who(world.file("a.mp4", [face(RED, span=later)], [turn(2, 0, 2)])).turns
    assert heard.people == [] and heard.answer == "unknown"


def test_somebody_enrolled_by_face_alone_is_named_only_when_alone_on_screen(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.jpg", [face(RED)])])
    alone = world.file("a.mp4", [face(RED, span=SPAN)], [turn(2, 0, 2)])
    (heard,) = world.engine.who(alone).turns
    assert heard.answer == "Ann" and heard.people[0].evidence.voice is None
    crowd = world.file("b.mp4", [face(RED, 0, span=SPAN), face(BLUE, 1, span=SPAN)], [turn(2, 0, 2)])
    assert world.engine.who(crowd).turns[0].answer == "unknown"


def test_a_forgotten_person_is_named_no_more(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    world.archive.forget("Ann")
    assert world.engine.who(world.file("a.wav", [], [turn(2)])).turns[0].people == []


def test_a_listener_on_screen_with_another_voice_is_not_taken_for_the_speaker(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(0, 0, 2)])])
    for number in range(30):  # more people than are looked at closely, all nearer to the voice than Ann
        world.archive.enrol(f"Person {number}", [world.file(f"{number}.wav", [], [blend(6, 5, 0.3, 0, 2 + number)])])
    # a voice like nobody's: only her face speaks for Ann
    (heard,) = world.engine.who(world.file("a.mp4", [face(RED, span=SPAN)], [turn(5, 0, 2)])).turns
    ann = [person for person in heard.people if person.name == "Ann"]
    assert heard.answer != "Ann" and not [person for person in ann if person.evidence.voice is None]


def test_somebody_forgotten_while_the_answer_is_made_is_left_out(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(2, 0, 2)])])
    names = world.records.people.names

    def forgotten_after_the_first_look() -> dict[str, str]:
        told = names()
        world.records.people.names = dict  # type: ignore[method-assign]
        return told

    world.records.people.names = forgotten_after_the_first_look  # type: ignore[method-assign]
    assert world.engine.who(world.file("a.wav", [], [turn(2)])).turns[0].people == []


def test_a_crowd_of_unnamed_voices_does_not_hide_a_known_one(world: World) -> None:
    # the crowd is nearer to the question than Ann is, and larger than what is looked at
    world.archive.enrol("Ann", [world.file("ann.wav", [], [blend(2, 3, 0.2, 0, 2)])])
    crowd = [turn(2, 3.0 * number, 3.0 * number + 1 + number / 1000, number) for number in range(170)]
    world.archive.ingest_file(world.file("crowd.wav", [], crowd), "default")
    (heard,) = world.engine.who(world.file("a.wav", [], [turn(2, 0, 1.5)])).turns
    assert heard.answer == "Ann"
