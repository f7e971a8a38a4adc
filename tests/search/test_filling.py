"""Rows for a model that does not serve, made beside those that do, while people come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from encoders.encoder import Unusable, UnusableReason
from encoders.space import Modality
from search import filling
from search.archive import Archive
from search.filling import Known
from search.serving import FixedModels
from tests.search.small_world import ColoursAndTones, World, face, turn

RED, BLUE = (200, 0, 0), (0, 0, 200)
NEW = ColoursAndTones(digest="6", order=(1, 2, 0))


class Models(FixedModels):
    """Models that a test exchanges, or before whose locks it does something."""

    def __init__(self, encoders: Mapping[str, Any], *kept: str) -> None:
        super().__init__(encoders)
        self.encoders, self.digests = encoders, frozenset(kept)
        self.before: list[Callable[[], object]] = []

    @contextmanager
    def writing(self) -> Iterator[Mapping[str, Any]]:
        yield self.encoders

    @contextmanager
    def filling(self) -> Iterator[None]:
        if self.before:
            self.before.pop()()
        yield

    def kept(self) -> frozenset[str]:
        return self.digests


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Ann and Bob enrolled, and a film of an unnamed person, in the space of digest 5."""
    world = World(tmp_path, shared=ColoursAndTones())
    world.archive.enrol("Ann", [world.file("ann", [face(RED)], [turn(1)])])
    world.archive.enrol("Bob", [world.file("bob", [face(BLUE)], [turn(6)])])
    world.archive.ingest_file(world.file("film", [face((0, 200, 0))], [turn(4)]), "default")
    return world


def with_models(world: World, models: Models) -> Archive:
    return Archive(world.extract, "s" * 64, world.encoders, world.store, world.records, models)


def rows(world: World, encoder: Any = NEW) -> dict[str, tuple[str, bytes]]:
    """Person and vector by key."""
    return {row.key: (row.person, row.embedding.vector.tobytes()) for row in world.store.rows(encoder.space)}


def whose(world: World, encoder: Any) -> dict[tuple[str, str], str]:
    """Person by medium and evidence."""
    return {(row.media, row.evidence): row.person for row in world.store.rows(encoder.space)}


def test_another_model_gets_its_rows_beside_those_that_serve_and_without_the_films(world: World) -> None:
    before, world.read = world.keys(), []
    assert world.archive.fill(NEW) == 6 and world.archive.fill(NEW) == 0
    assert world.keys() == before and world.read == []
    filled = rows(world)
    world.serve(NEW)
    world.archive.mend()
    assert rows(world) == filled and len({person for person, _ in filled.values()}) == 3


def test_a_filling_that_was_stopped_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH", 2)
    models = Models(world.encoders)
    models.before = [lambda: 1 / 0, lambda: None]
    with pytest.raises(ZeroDivisionError):
        with_models(world, models).fill(NEW)
    assert len(rows(world)) == 2
    seen: list[tuple[int, int]] = []
    assert world.archive.fill(NEW, lambda done, total: seen.append((done, total))) == 4
    assert seen == [(2, 4), (4, 4)] and len(rows(world)) == 6


def test_a_later_pass_asks_the_records_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    known, archive = Known(), with_models(world, Models(world.encoders, NEW.space.digest))
    assert archive.fill(NEW, known=known) == 6
    archive.enrol("Cid", [world.file("cid", [face((9, 9, 9))])])
    archive.enrol("Eve", [world.folder / "film"])
    archive.merge("Bob", "Cid")
    archive.forget("Ann")
    monkeypatch.setattr(type(world.store), "keys", lambda *_: 1 / 0)
    assert archive.fill(NEW, known=known) == 7  # Cid's, the two of Bob and of Eve renamed, Ann's that are gone already
    monkeypatch.undo()
    assert {key: person for key, (person, _) in rows(world).items()} == known.people
    assert archive.fill(NEW) == 0 and len(rows(world)) == 5
    assert whose(world, NEW) == whose(world, world.encoders["shared"])


def test_what_a_model_cannot_use_is_tried_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, known = ColoursAndTones(digest="6"), Known()
    world.archive.ingest_file(world.file("click", turns=[turn(1, 0.0, 0.15)]), "default")
    asked: list[int] = []

    def refuse(_modality: Modality, _sample: object) -> Unusable:
        asked.append(1)
        return Unusable(UnusableReason.TOO_SHORT, "too short")

    monkeypatch.setattr(encoder, "_one", refuse)
    assert world.archive.fill(encoder, known=known) == world.archive.fill(encoder, known=known) == 0
    assert len(asked) == len(known.unusable) == 7


def test_who_is_forgotten_while_rows_are_made_gets_none(world: World) -> None:
    models = Models(world.encoders, NEW.space.digest)
    archive = with_models(world, models)
    archive.ingest_file(world.file("again", [face(RED)], [turn(1)]), "default")  # so that her evidence stays
    models.before = [lambda: archive.forget("Ann")]
    assert archive.fill(NEW) == 6
    assert whose(world, NEW) == whose(world, world.encoders["shared"]) and len(rows(world)) == 6
    assert archive.fill(NEW) == 0


def test_who_is_forgotten_while_rows_are_renamed_does_not_come_back(world: World) -> None:
    world.archive.fill(NEW)
    world.archive.merge("Ann", "Bob")  # in the space that serves; the other one still names Ann
    models = Models(world.encoders, NEW.space.digest)
    archive = with_models(world, models)
    models.before = [lambda: archive.forget("Bob")]
    archive.fill(NEW)
    assert len(rows(world)) == 2 and {person for person, _ in rows(world).values()} == {""}


def test_forgetting_reaches_every_collection_of_the_shared_space(world: World) -> None:
    world.archive.fill(NEW)
    archive = with_models(world, Models(world.encoders, NEW.space.digest))
    answer = archive.forget("Ann")
    assert (answer.samples, answer.rows) == (2, 6)  # two samples: an identity space each, and two shared ones
    assert len(rows(world)) == len(rows(world, world.encoders["shared"])) == 4


def test_a_film_keeps_its_rows_unnamed_in_every_collection(world: World) -> None:
    world.archive.enrol("Eve", [world.folder / "film"])
    world.archive.fill(NEW)
    assert sum(bool(person) for person, _ in rows(world).values()) == 6
    with_models(world, Models(world.encoders, NEW.space.digest)).forget("Eve")
    assert len(rows(world)) == 6 and sum(bool(person) for person, _ in rows(world).values()) == 4


def test_what_is_kept_is_not_dropped_and_what_is_not_is(world: World) -> None:
    world.archive.fill(NEW)
    assert with_models(world, Models(world.encoders, NEW.space.digest)).drop_unused() == 0
    with_models(world, Models(world.encoders, NEW.space.digest)).mend()
    assert len(rows(world)) == 6
    assert world.archive.drop_unused() == 1 and rows(world) == {}


def test_a_writer_writes_rows_of_the_model_that_serves_when_they_are_written(world: World) -> None:
    models = Models(world.encoders)
    archive = with_models(world, models)
    world.archive.fill(NEW)
    models.encoders = world.encoders | {"shared": NEW}
    old = rows(world, world.encoders["shared"])
    archive.ingest_file(world.file("late", [face((50, 60, 70))]), "default")
    archive.enrol("Cid", [world.file("cid", [face((70, 60, 50))])])
    archive.merge("Bob", "Ann")
    assert rows(world, world.encoders["shared"]) == old and len(rows(world)) == 8
    assert archive.fill(NEW) == 0


def test_a_row_never_goes_into_the_collection_of_another_space(world: World) -> None:
    world.archive.fill(NEW)
    for encoder in (NEW, world.encoders["shared"]):
        assert {row.embedding.space for row in world.store.rows(encoder.space)} == {encoder.space}
