"""A full disk, folders that may not be written, files that change or go away: told, and nothing half-written."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.ledger import RecordsError
from ingest.track import Extraction, Span
from tests.search.small_world import World, face, turn

SPAN = Span(0.0, 2.0)


def without_privileges(act: Callable[[], object]) -> None:
    """Act as somebody whom permissions bind, as they do not bind root; what it raises is raised here."""
    raised: list[BaseException] = []

    def act_bound() -> None:
        header, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if os.geteuid() == 0:
            assert ctypes.CDLL(None).capset(header, rights) == 0  # of this thread alone
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - passed on
            raised.append(error)

    thread = threading.Thread(target=act_bound)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, but: int) -> Path:
    """Leave so many bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    balloon = disk / "balloon"
    with balloon.open("wb") as stream:
        stream.write(b"\1" * max(0, free - but))
    return balloon


def on_disk(world: World) -> set[str]:
    return {path.name for path in world.evidence.rglob("*") if path.is_file()}


def make_film(world: World) -> Path:
    colours = [face((10 * number, 200, 90), number, span=SPAN) for number in range(8)]
    return world.file("film.mp4", colours, [turn(band, band, band + 1) for band in range(8)])


def test_a_disk_that_fills_up_at_any_point_stops_with_advice_and_leaves_nothing_half_done(
    tiny_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "roomy").mkdir()
    roomy = World(tmp_path / "roomy")
    roomy.archive.ingest_file(make_film(roomy), "default")
    world, told = World(tiny_disk), set()
    film = make_film(world)
    for left in range(0, 600_000, 60_000):
        balloon = fill(tiny_disk, left)
        try:
            told.add(world.archive.ingest_file(film, "default").state)
        except (OSError, RecordsError) as error:
            told.add(f"{type(error).__name__}: {'make room there' in str(error)}")
        balloon.unlink()
        world.archive.mend()
        assert on_disk(world) in (set(), on_disk(roomy))
    assert told - {"done"} == {"OSError: True", "RecordsError: True", "unchanged"}
    assert world.keys() == roomy.keys()


def test_a_file_that_may_not_be_read_fails_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    film = make_film(world)
    film.chmod(0)
    without_privileges(lambda: world.archive.ingest_file(film, "default"))
    film.chmod(0o600)
    assert world.archive.status().failed == 1
    assert world.archive.ingest_file(film, "default").state == "done" and world.archive.status().failed == 0


def test_evidence_that_may_not_be_written_stops_with_advice(tmp_path: Path) -> None:
    world = World(tmp_path)
    film = make_film(world)
    world.evidence.mkdir()
    world.evidence.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied: check that disk, and that this user may write there"):
        without_privileges(lambda: world.archive.ingest_file(film, "default"))
    assert world.records.ledger.announced() == {} and world.archive.mend() == 0
    world.evidence.chmod(0o700)
    assert world.archive.ingest_file(film, "default").state == "done"


def test_records_that_may_not_be_written_say_so(tmp_path: Path) -> None:
    World(tmp_path)
    for path in tmp_path.glob("records.sqlite*"):
        path.chmod(0o400)
    tmp_path.chmod(0o500)
    with pytest.raises(RecordsError, match="check the folder, and that this user may write there"):
        without_privileges(lambda: World(tmp_path).records.people.create("Ann"))
    tmp_path.chmod(0o700)


def test_a_film_that_is_still_being_written_is_a_failure_until_it_is_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    film = make_film(world)
    whole, extract = film.read_bytes(), world.extract

    def extract_while_it_grows(path: Path) -> Extraction:
        found = extract(path)
        path.write_bytes(whole + b"more")
        return found

    world.extract = extract_while_it_grows  # type: ignore[method-assign]
    world.serve(None)
    report = world.archive.ingest_file(film, "default")
    assert report.reason is not None and report.reason.startswith("changed while it was read")
    assert [refusal.reason for refusal in world.archive.enrol("Ann", [film]).refused] == ["corrupt: nothing decodes"]
    assert on_disk(world) == set() and world.archive.status().media == 0
    film.write_bytes(whole)
    world.extract = extract  # type: ignore[method-assign]
    world.serve(None)
    assert world.archive.ingest_file(film, "default").state == "done"


def test_a_file_that_is_deleted_while_it_waits_fails_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    film, other = make_film(world), world.file("other.wav", [], [turn(3)])
    film.unlink()
    reports = [world.archive.ingest_file(path, "default") for path in (film, other)]
    assert [report.state for report in reports] == ["failed", "done"]
    assert "there is no such file" in (reports[0].reason or "")
