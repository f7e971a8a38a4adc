from __future__ import annotations

from pathlib import Path

import pytest

from ingest.ledger import RecordsError
from ingest.track import Span
from search.answers import SweepAnswer
from search.sweeping import NothingThere
from tests.search.small_world import World, face, turn

RED, BLUE = (200, 10, 10), (10, 10, 200)
SPAN = Span(0.0, 2.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world with two films in its archive."""
    world = World(tmp_path)
    for name, colour, band in (("a.mp4", RED, 2), ("b.mp4", BLUE, 3)):
        world.archive.ingest_file(world.file(name, [face(colour, span=SPAN)], [turn(band)]), "default")
    return world


def test_what_is_known_of_a_file_that_is_gone_goes(world: World) -> None:
    (world.folder / "a.mp4").unlink()
    assert world.archive.sweep([world.folder]) == SweepAnswer(files=1, media=1, rows=2, evidence=2)
    status = world.archive.status()
    assert (status.media, status.spaces["face_identity"].rows, world.evidence_files()) == (1, 1, 2)
    assert world.archive.sweep([world.folder]) == SweepAnswer(0, 0, 0, 0)
    assert world.archive.mend() == 0


def test_a_file_that_was_moved_keeps_its_medium(world: World) -> None:
    (world.folder / "a.mp4").rename(world.folder / "moved.mp4")
    assert world.archive.ingest_file(world.folder / "moved.mp4", "default").state == "unchanged"
    before = world.keys()
    assert world.archive.sweep([world.folder]) == SweepAnswer(files=1, media=0, rows=0, evidence=0)
    assert world.keys() == before and world.archive.status().media == 2


def test_a_sample_of_somebody_enrolled_stays(world: World) -> None:
    world.archive.enrol("Ann", [world.folder / "a.mp4"])
    (world.folder / "a.mp4").unlink()
    assert world.archive.sweep([world.folder]) == SweepAnswer(files=1, media=1, rows=0, evidence=0)
    assert world.archive.status().people == 1 and world.archive.mend() == 0


def test_a_failed_file_that_is_gone_is_forgotten(world: World) -> None:
    broken = world.broken("broken.mp4")
    world.archive.ingest_file(broken, "default")
    broken.unlink()
    assert world.archive.sweep([world.folder]).files == 1 and world.archive.status().failed == 0


def test_other_folders_are_not_swept(world: World, tmp_path: Path) -> None:
    (world.folder / "a.mp4").unlink()
    (world.folder / "a.mp").mkdir()
    assert world.archive.sweep([world.folder / "a.mp", tmp_path / "elsewhere"]) == SweepAnswer(0, 0, 0, 0)


def test_a_folder_of_which_nothing_is_there_is_taken_for_a_missing_disk(world: World) -> None:
    for name in ("a.mp4", "b.mp4"):
        (world.folder / name).unlink()
    with pytest.raises(NothingThere, match="Is the disk missing"):
        world.archive.sweep([world.folder])
    assert world.archive.status().media == 2
    assert world.archive.sweep([world.folder / "a.mp4", world.folder / "b.mp4"]).media == 2


def test_a_sweep_that_was_interrupted_is_finished_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "a.mp4").unlink()

    def away(*_given: object) -> None:
        raise RecordsError("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.records.ledger, "remove_files", away)
        with pytest.raises(RecordsError):
            world.archive.sweep([world.folder])
    assert world.archive.mend() == 2  # rows that the records still have
    assert world.archive.sweep([world.folder]) == SweepAnswer(files=1, media=1, rows=2, evidence=2)
