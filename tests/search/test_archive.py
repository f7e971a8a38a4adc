from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encoders.encoder import Unusable, UnusableReason
from encoders.space import Space
from ingest.track import Span, Speaking
from search.milvus import MilvusStore
from search.people import UnknownPerson
from search.store import Filter, MemoryStore, Store
from tests.search.small_world import ColoursAndTones, World, face, turn

RED, BLUE = (200, 10, 10), (10, 10, 200)
SPAN = Span(0.0, 2.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(params=["memory", "embedded"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world with a shared-space encoder, a film and Ann, on the exact store and on a real embedded Milvus."""
    store: Store = MemoryStore() if request.param == "memory" else MilvusStore(str(tmp_path / "index.db"))
    world = World(tmp_path, store, ColoursAndTones())
    world.archive.ingest_file(world.file("a.mp4", [face(BLUE, span=SPAN)], [turn(2)]), "default")
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5)])])
    yield world
    store.close()


def test_a_film_becomes_rows_evidence_and_records(world: World) -> None:
    report = world.archive.ingest_file(
        world.file("a.mp4", [face(RED, span=SPAN)], [turn(2), turn(3, 2, 3, 1)]), "default"
    )
    assert (report.state, report.faces, report.voices) == ("done", 1, 2)
    status = world.archive.status()
    assert (status.spaces["face_identity"].rows, status.spaces["voice_identity"].rows, status.media) == (1, 2, 1)
    assert world.evidence_files() == 3


def test_the_records_keep_which_face_speaks_in_which_turn(world: World) -> None:
    faces, turns = [face(RED, 7, span=SPAN), face(BLUE, 4, span=SPAN)], [turn(2), turn(3, 2, 3, 1)]
    turns[1] = replace(turns[1], overlaps=(Span(2.25, 2.75),))
    judged = [Speaking(1, 0.75, 0.125), Speaking(None, 0.0, 1.0)]
    report = world.archive.ingest_file(world.file("a.mp4", faces, turns, judged), "default")
    kept = world.records.ledger.pairings(str(report.media))
    assert [(one.start_ms, one.track, one.probability, one.off_screen, one.overlapped) for one in kept] == [
        (0, 4, 0.75, 0.125, 0.0), (2000, None, 0.0, 1.0, 0.5),
    ]  # fmt: skip
    voices = [one for one in world.records.ledger.findings(str(report.media)) if one.modality == "voice"]
    assert {(one.evidence, one.start_ms) for one in kept} == {(one.evidence, one.start_ms) for one in voices}


def test_a_second_run_costs_a_hash_and_changes_nothing(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)])
    world.archive.ingest_file(film, "default")
    before, world.read = world.keys(), []
    report = world.archive.ingest_file(film, "default")
    assert (report.state, report.faces, report.voices) == ("unchanged", 1, 1)
    assert world.read == [] and world.keys() == before


def test_two_files_of_one_content_are_one_medium(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)])
    copy = world.folder / "b.mp4"
    copy.write_bytes(film.read_bytes())
    assert [world.archive.ingest_file(path, "default").state for path in (film, copy)] == ["done", "unchanged"]
    assert world.archive.status().media == 1


def test_a_broken_file_is_a_report_and_counted_as_failed(world: World) -> None:
    report = world.archive.ingest_file(world.broken("bad.mp4"), "default")
    assert (report.state, report.reason) == ("failed", "corrupt: nothing decodes")
    assert world.archive.status().failed == 1


def test_a_missing_file_is_a_report_too(world: World) -> None:
    assert "cannot be read" in (world.archive.ingest_file(world.folder / "gone.mp4", "default").reason or "")


def test_a_turn_too_short_to_encode_is_counted_but_has_no_row(world: World) -> None:
    report = world.archive.ingest_file(world.file("a.wav", [], [turn(1, 0.0, 0.05)]), "default")
    assert report.voices == 1 and world.archive.status().spaces["voice_identity"].rows == 0


def test_an_empty_index_is_filled_from_the_evidence(world: World) -> None:
    world.archive.ingest_file(world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)]), "default")
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5)])])
    before = world.keys()
    named = {row.key: row.person for space in world.encoders.values() for row in world.store.rows(space.space)}
    for encoder in world.encoders.values():
        world.store.drop(encoder.space)
    world.read = []
    assert world.archive.mend() == 3
    assert world.keys() == before and world.read == []
    assert named == {row.key: row.person for space in world.encoders.values() for row in world.store.rows(space.space)}


def test_mending_a_whole_index_changes_nothing(world: World) -> None:
    world.archive.ingest_file(world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)]), "default")
    assert world.archive.mend() == 0


def test_rows_that_no_record_knows_are_removed(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert other is not None
    other.archive.ingest_file(other.file("b.mp4", [face(BLUE, span=SPAN)]), "default")
    space = world.encoders["face_identity"].space
    world.store.upsert(space, list(other.store.rows(space)))
    assert world.archive.mend() == 1 and world.store.count(space) == 0


def test_enrolment_takes_the_largest_face_and_the_longest_speaker(world: World) -> None:
    clip = world.file(
        "ann.mp4",
        [face(BLUE, 0, 50, SPAN), face(RED, 1, 500, SPAN)],
        [turn(1, 0, 1, 0), turn(6, 1, 3, 1), turn(6, 4, 5, 1)],
    )
    answer = world.archive.enrol("Ann", [clip])
    assert answer.added == [str(clip)] and not answer.refused
    (ann,) = world.archive.people().people
    assert (ann.faces, ann.voices) == (1, 2)


def test_only_an_unusable_sample_is_refused_and_creates_nobody(world: World) -> None:
    answer = world.archive.enrol("Ann", [world.file("empty.mp4"), world.broken("bad.wav")])
    assert [refusal.path.rsplit("/", 1)[1] for refusal in answer.refused] == ["empty.mp4", "bad.wav"]
    assert world.archive.people().people == []


def test_short_speech_is_enrolled_with_a_warning(world: World) -> None:
    answer = world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5, 0, 1)])])
    assert answer.added and "1.0 s of speech" in answer.warnings[0]


def test_the_same_sample_cannot_be_enrolled_as_somebody_else(world: World) -> None:
    clip = world.file("ann.wav", [], [turn(5)])
    world.archive.enrol("Ann", [clip])
    assert "another name" in world.archive.enrol("Bob", [clip]).refused[0].reason


def test_forgetting_leaves_neither_rows_nor_evidence(world: World) -> None:
    before = world.keys()
    world.archive.enrol("Ann", [world.file("ann.mp4", [face(RED, span=SPAN)], [turn(5)])])
    gone = world.archive.forget("Ann")
    assert (gone.samples, gone.rows, gone.evidence) == (2, 2, 2)
    assert world.keys() == before and world.evidence_files() == 0
    with pytest.raises(UnknownPerson):
        world.archive.forget("Ann")


def test_forgetting_somebody_leaves_the_archives_own_film_in_place_unnamed(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(5)])
    world.archive.ingest_file(film, "default")
    before = world.keys()
    world.archive.enrol("Ann", [film])
    assert world.keys() == before
    world.archive.forget("Ann")
    assert world.keys() == before and world.evidence_files() == 2
    rows = [row for encoder in world.encoders.values() for row in world.store.rows(encoder.space)]
    assert {row.person for row in rows} == {""}


def test_ingesting_what_is_enrolled_keeps_its_name(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)])
    world.archive.enrol("Ann", [film])
    world.archive.ingest_file(film, "default")
    assert len(list(world.store.rows(world.encoders["face_identity"].space, Filter(enrolled=True)))) == 1


def test_a_forgetting_that_was_interrupted_is_finished_by_mending(world: World) -> None:
    before = world.keys()
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5)])])
    world.records.people.begin_forgetting(world.records.people.find("Ann"))
    world.archive.mend()
    assert world.keys() == before and world.evidence_files() == 0 and world.records.people.leaving() == []


class Interrupted(Exception):
    """Stands for a kill."""


class FailingStore(MemoryStore):
    """A store that dies at the first write when told to."""

    failing = False

    def upsert(self, *arguments: object) -> None:  # type: ignore[override]
        if self.failing:
            raise Interrupted
        super().upsert(*arguments)  # type: ignore[arg-type]


def test_an_ingest_killed_before_its_rows_ends_as_a_quiet_one(tmp_path: Path) -> None:
    world = World(tmp_path, FailingStore())
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)])
    world.store.failing = True  # type: ignore[attr-defined]
    with pytest.raises(Interrupted):
        world.archive.ingest_file(film, "default")
    world.store.failing = False  # type: ignore[attr-defined]
    world.archive.mend()
    assert world.archive.ingest_file(film, "default").state == "done"
    rows = world.archive.status().spaces
    assert (rows["face_identity"].rows, rows["voice_identity"].rows) == (1, 1)


def test_what_another_process_writes_while_this_one_mends_stays(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)])
    keys = world.store.keys

    def keys_then_a_writer(space: Space) -> set[str]:
        present = keys(space)
        world.store.keys = keys  # type: ignore[method-assign]
        world.archive.ingest_file(film, "default")
        return present

    world.store.keys = keys_then_a_writer  # type: ignore[method-assign]
    world.archive.mend()
    assert world.archive.status().spaces["face_identity"].rows == 1


def test_a_refused_sample_enters_nobody_and_leaves_no_evidence(world: World) -> None:
    clip = world.file("ann.wav", [], [turn(5)])
    world.archive.enrol("Ann", [clip])
    world.archive.enrol("Bob", [clip])
    world.archive.enrol("Cid", [world.file("short.wav", [], [turn(5, 0, 0.05)])])
    assert [person.name for person in world.archive.people().people] == ["Ann"]
    assert world.evidence_files() == 1


def test_lost_evidence_does_not_stop_mending_and_its_film_is_read_again(world: World) -> None:
    film = world.file("a.mp4", [face(RED, span=SPAN)], [turn(2)])
    world.archive.ingest_file(film, "default")
    for path in world.evidence.rglob("*.png"):
        path.unlink()
    world.store.drop(world.encoders["face_identity"].space)
    world.archive.mend()
    assert world.archive.ingest_file(film, "default").state == "done"
    assert world.archive.status().spaces["face_identity"].rows == 1


def test_somebody_forgotten_meanwhile_is_not_entered_again(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5)])])
    ann = world.records.people.find("Ann").id
    world.archive.forget("Ann")
    with pytest.raises(UnknownPerson):
        world.archive.enrol_known(ann, [world.file("more.wav", [], [turn(5)])])
    assert world.archive.people().people == []


@pytest.mark.parametrize("name", ["unknown", "Unknown ", "a\nb"])
def test_a_name_that_would_mislead_is_refused(world: World, name: str) -> None:
    with pytest.raises(ValueError, match=r"nobody can be called|printable"):
        world.archive.enrol(name, [world.file("ann.wav", [], [turn(5)])])


def test_a_pipe_with_a_films_name_is_a_report_and_does_not_hang(world: World) -> None:
    os.mkfifo(world.folder / "pipe.wav")
    assert "not a regular file" in (world.archive.ingest_file(world.folder / "pipe.wav", "default").reason or "")


def test_somebody_forgotten_between_their_record_and_their_rows_has_no_rows(world: World) -> None:
    before, upsert = world.keys(), world.store.upsert

    def forget_first(*arguments: Any) -> None:
        world.store.upsert = upsert  # type: ignore[method-assign]
        world.archive.forget("Ann")
        upsert(*arguments)

    world.store.upsert = forget_first  # type: ignore[method-assign]
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5)])])
    assert world.keys() == before


def test_the_next_forgetting_finishes_one_that_was_interrupted(world: World) -> None:
    world.archive.enrol("Ann", [world.file("ann.wav", [], [turn(5)])])
    world.records.people.begin_forgetting(world.records.people.find("Ann"))
    with pytest.raises(UnknownPerson):
        world.archive.forget("Ann")
    assert world.evidence_files() == 0 and world.archive.status().spaces["voice_identity"].rows == 0


# The shared space


ANOTHER = ColoursAndTones("6", order=(2, 1, 0))


def test_every_sample_has_a_row_of_its_modality_in_the_shared_space_too(shared: World) -> None:
    rows = list(shared.store.rows(shared.encoders["shared"].space))
    ann = shared.records.people.find("Ann").id
    assert sorted((str(row.embedding.modality), row.person) for row in rows) == [
        ("face", ""), ("face", ann), ("voice", ""), ("voice", ann),
    ]  # fmt: skip
    status = shared.archive.status()
    assert {name: space.rows for name, space in status.spaces.items()} == {
        "face_identity": 2, "voice_identity": 2, "shared": 4,
    }  # fmt: skip
    assert status.encoders == 3


def test_another_model_gets_its_rows_without_the_films_and_the_old_ones_leave_nothing(shared: World) -> None:
    old, before = shared.encoders["shared"].space, shared.keys()
    named = {row.evidence: row.person for row in shared.store.rows(old)}
    shared.serve(ANOTHER)
    shared.read = []
    seen: list[tuple[int, int]] = []
    assert shared.archive.mend(lambda done, total: seen.append((done, total))) == 4
    assert shared.read == [] and seen == [(4, 4)]
    assert shared.store.count(old) == 0 and shared.store.drop_others("shared", ANOTHER.space) == 0
    rows = list(shared.store.rows(ANOTHER.space))
    assert {row.evidence: row.person for row in rows} == named
    (red,) = (row for row in rows if row.person and row.embedding.modality == "face")
    assert red.embedding.vector.argmax() == 2  # as the new model has it
    after = shared.keys()
    assert after.pop("shared") != before.pop("shared") and after == before
    assert shared.archive.mend() == 0


def test_without_a_shared_encoder_mending_drops_its_rows_and_with_it_they_come_again(shared: World) -> None:
    encoder, before = shared.encoders["shared"], shared.keys()
    shared.serve(None)
    assert shared.archive.mend() == 0 and shared.store.count(encoder.space) == 0
    assert set(shared.archive.status().spaces) == {"face_identity", "voice_identity"}
    shared.serve(encoder)
    assert shared.archive.mend() == 4 and shared.keys() == before


def test_a_model_does_not_make_a_film_be_read_again(shared: World) -> None:
    shared.serve(ANOTHER)
    shared.read = []
    assert shared.archive.ingest_file(shared.folder / "a.mp4", "default").state == "unchanged" and shared.read == []


def test_forgetting_removes_the_rows_of_both_spaces(shared: World) -> None:
    gone = shared.archive.forget("Ann")
    assert (gone.samples, gone.rows, gone.evidence) == (2, 4, 2)
    rows = list(shared.store.rows(shared.encoders["shared"].space))
    assert len(rows) == 2 and {row.person for row in rows} == {""}


def test_whom_one_forgets_lives_on_in_no_index_that_served_before(shared: World) -> None:
    old = shared.encoders["shared"].space
    shared.serve(ANOTHER)  # and nobody mends
    shared.archive.forget("Ann")
    assert shared.store.count(old) == 0


def test_what_only_the_shared_encoder_can_use_is_not_lost(tmp_path: Path) -> None:
    world = World(tmp_path, shared=ColoursAndTones())
    world.encoders["voice_identity"].encode = lambda _modality, sounds: [
        Unusable(UnusableReason.TOO_SHORT, "too short") for _ in sounds
    ]
    world.archive.ingest_file(world.file("a.wav", [], [turn(2)]), "default")
    rows = world.archive.status().spaces
    assert (rows["voice_identity"].rows, rows["shared"].rows, world.archive.mend()) == (0, 1, 0)
