"""The order of writes, stopped after each of them: the next run ends in exactly what an undisturbed one ends in."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from encoders.space import Space
from ingest.track import Span, media_id
from search.archive import Archive
from search.people import UnknownPerson
from search.store import MemoryStore, Row
from tests.real_postgres import RealPostgres
from tests.search.held import assert_nothing_is_left_over, held
from tests.search.small_world import ColoursAndTones, World, face, turn

RED, BLUE = (200, 10, 10), (10, 10, 200)
SPAN = Span(0.0, 2.0)


class Killed(BaseException):
    """As a kill: and no code of ours gets to write anything after it."""


@dataclass
class Fate:
    """Counts writes to disk, records and index; from number ``last`` on there are none any more."""

    last: int | None = None
    written: int = 0

    def write(self) -> None:
        """Something is about to be written."""
        if self.last is not None and self.written >= self.last:
            raise Killed
        self.written += 1


FATE = Fate()


class MortalStore(MemoryStore):
    """An index that outlives its writers."""

    def upsert(self, space: Space, rows: Any) -> None:
        if rows:
            FATE.write()
        super().upsert(space, rows)

    def delete(self, space: Space, keys: Any) -> None:
        if keys:
            FATE.write()
        super().delete(space, keys)

    def everything(self) -> dict[str, Row]:
        return {key: row for held in self._spaces.values() for key, row in held.items()}


@pytest.fixture(autouse=True)
def mortal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every commit, every file that is put on disk, renamed or removed is a write that can be the last."""

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            FATE.write()
            return real(*arguments, **options)

        return call

    FATE.last, FATE.written = None, 0
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))

    def committing(_connection: sql.Connection) -> None:
        FATE.write()

    sql.event.listen(sql.Engine, "commit", committing)
    yield
    sql.event.remove(sql.Engine, "commit", committing)


@dataclass(frozen=True)
class Story:
    """What is there before, and what is done; done again, it may find that there is nothing to do."""

    before: Callable[[World], None]
    act: Callable[[World], None]


def nothing(_world: World) -> None: ...


def ingest(world: World) -> None:
    world.archive.ingest_file(world.folder / "a.mp4", "default")


def ingest_anew(world: World) -> None:
    """Under other settings, by which other things are found."""
    film = world.folder / "a.mp4"
    world.found[media_id(film)] = ([face(BLUE, span=SPAN)], [turn(2), turn(4, 3, 4)])
    Archive(world.extract, "t" * 64, world.encoders, world.store, world.records).ingest_file(film, "default")


def enrol(world: World) -> None:
    world.archive.enrol("Ann", [world.folder / "ann.mp4"])


def enrol_what_is_ingested(world: World) -> None:
    world.archive.enrol("Ann", [world.folder / "a.mp4"])


def enrol_in_vain(world: World) -> None:
    assert world.archive.enrol("Bob", [world.folder / "ann.mp4", world.folder / "mute.wav"]).refused


def ingest_and_enrol(world: World) -> None:
    ingest(world)
    enrol(world)
    enrol_what_is_ingested(world)


def forget(world: World) -> None:
    with contextlib.suppress(UnknownPerson):
        world.archive.forget("Ann")


STORIES = {
    "ingest": Story(nothing, ingest),
    "ingest anew": Story(ingest_and_enrol, ingest_anew),
    "enrol": Story(ingest, enrol),
    "enrol what is ingested": Story(ingest, enrol_what_is_ingested),
    "enrol in vain": Story(enrol, enrol_in_vain),
    "forget": Story(ingest_and_enrol, forget),
}


def make_world(folder: Path, database_url: str = "") -> World:
    folder.mkdir()
    world = World(folder, MortalStore(), ColoursAndTones(), database_url=database_url)
    world.file("a.mp4", [face(RED, span=SPAN)], [turn(2), turn(3, 2, 3, 1)])
    world.file("ann.mp4", [face(BLUE, span=SPAN)], [turn(5), turn(6, 0, 0.05)])
    world.file("mute.wav", [], [turn(5, 0, 0.05)])
    return world


def twin(world: World, folder: Path, server: RealPostgres | None = None) -> World:
    """A copy that knows nothing of the other but what lies on disk, in the index and on the server of the records."""
    shutil.copytree(world.folder, folder)
    url = server.copy(world.database_url) if server else ""
    return World(folder, copy.deepcopy(world.store), ColoursAndTones(), dict(world.found), url)


def everything(world: World) -> dict[str, Any]:
    """Records, files beside them, and rows by key with whose they are."""
    names = world.records.people.names()
    rows = world.store.everything()  # type: ignore[attr-defined]
    named = {key: (row.evidence, names.get(row.person, row.person)) for key, row in rows.items()}
    return held(world.folder, world.database if world.database_url else None) | {"rows": named}


@pytest.mark.parametrize("name", STORIES)
def test_killed_at_any_write_and_run_again_it_ends_as_undisturbed(name: str, tmp_path: Path) -> None:
    assert_ends_as_undisturbed(STORIES[name], make_world(tmp_path / "start"), 1)


@pytest.mark.parametrize(
    ("name", "every"),
    [("ingest anew", 4), ("forget", 3), *(pytest.param(name, 1, marks=pytest.mark.long) for name in STORIES)],
)
def test_killed_at_any_write_it_ends_as_undisturbed_on_postgresql(
    name: str, every: int, tmp_path: Path, postgres: RealPostgres, postgres_url: str
) -> None:
    assert_ends_as_undisturbed(STORIES[name], make_world(tmp_path / "start", postgres_url), every, postgres)


def assert_ends_as_undisturbed(story: Story, start: World, every: int, server: RealPostgres | None = None) -> None:
    """Kill a story after every so many writes, each time in a world of its own."""
    story.before(start)
    start.database.dispose()
    quiet = twin(start, start.folder.with_name("quiet"), server)
    FATE.written = 0
    story.act(quiet)
    writes, expected = FATE.written, everything(quiet)
    quiet.database.dispose()
    assert writes >= 6
    for write in range(0, writes, every):
        world = twin(start, start.folder.with_name(str(write)), server)
        FATE.last, FATE.written = write, 0
        with pytest.raises(Killed):
            story.act(world)
        FATE.last = None
        world.archive.mend()
        assert_nothing_is_left_over(everything(world))
        story.act(world)
        assert everything(world) == expected, f"after write {write}"
        world.database.dispose()


def test_an_error_on_the_way_leaves_nothing_without_another_run(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    before = everything(world)
    world.encoders["voice_identity"].encode = lambda *_: (_ for _ in ()).throw(OSError("the device is gone"))
    with pytest.raises(OSError, match="gone"):
        ingest(world)
    with pytest.raises(OSError, match="gone"):
        enrol(world)
    assert everything(world) == before


def test_what_somebody_else_is_writing_just_now_is_not_taken_for_a_leftover(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    other = World(world.folder, world.store, ColoursAndTones(), world.found)
    encode = world.encoders["voice_identity"].encode

    def meanwhile(*arguments: Any) -> Any:
        assert other.archive.mend() == 0
        other.archive.enrol("Bob", [world.folder / "mute.wav"])
        return encode(*arguments)

    world.encoders["voice_identity"].encode = meanwhile
    ingest(world)
    assert_nothing_is_left_over(held(world.folder))
    assert len(held(world.folder)["on disk"]) == 3
