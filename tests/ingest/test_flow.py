"""The steps of a file through a job, with real films and the detectors of coloured faces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from encoders.encoder import Encoder, packaged_encoders
from ingest.book import Book
from ingest.faces import FaceSettings
from ingest.flow import Recognition, Ways, first_step, ingest_job, ingest_work, walking_job
from ingest.jobpage import FileStanding, JobPages
from ingest.jobs import FileReport
from ingest.media import MediaError, write_film
from ingest.parts import Parts
from ingest.pipeline import ExtractionSettings, Extractor
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from ingest.shards import plan
from ingest.tasks import Claim, Queue
from ingest.track import Extraction, media_id
from ingest.walk import OUTSIDE
from tests.ingest.coloured_faces import ColourDetector, Colours, LoudnessDetector, scene, speech, told
from tests.ingest.small_jobs import Reader, book_in, work_of

SETTINGS = ExtractionSettings(faces=FaceSettings(cell=1.0))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds, two people, speech."""
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(path, (scene(number) for number in range(200)), 25, speech())
    return path


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    space = replace(Encoder.load(packaged_encoders()["face_identity"]).space, dimension=3)
    return Extractor(ColourDetector(), LoudnessDetector(), Colours(space), None, SETTINGS, 2.0)  # type: ignore[arg-type]


class Archive:
    """Remembers what was entered."""

    settings = "some settings"

    def __init__(self, extractor: Extractor) -> None:
        self.entered: list[Extraction] = []
        self._extractor = extractor

    def recognise(self, path: Path, archive: str) -> Recognition:
        media = media_id(path)
        return Recognition(media, self.known(path, media, archive))

    def known(self, path: Path, media: str, _archive: str) -> FileReport | None:
        found = [one for one in self.entered if one.media == media]
        return self._report(path, "unchanged", found[0]) if found else None

    def refuse(self, path: Path, _media: str | None, _archive: str, error: MediaError) -> FileReport:
        return FileReport.failed(path, error.reason)

    def ingest_file(
        self, path: Path, archive: str, check: Callable[[], None], extract: Callable[[Path], Extraction]
    ) -> FileReport:
        return self.enter(path, archive, extract(path), check)

    def enter(self, path: Path, _archive: str, extraction: Extraction, check: Callable[[], None]) -> FileReport:
        check()
        self.entered.append(extraction)
        return self._report(path, "done", extraction)

    @staticmethod
    def _report(path: Path, state: str, one: Extraction) -> FileReport:
        return FileReport(str(path), state, one.media, len(one.faces), len(one.turns), one.duration, None)  # type: ignore[arg-type]


class House:
    """A book, an archive, and what does the work."""

    def __init__(self, folder: Path, extractor: Extractor) -> None:
        self.book: Book = book_in(folder)
        self.archive = Archive(extractor)
        self.parts = folder / "parts"
        cut = partial(plan, settings=SETTINGS.faces, shard_seconds=2.0)
        self.work = ingest_work(
            Ways(
                self.archive,
                cut,
                lambda: extractor.extract,
                lambda: extractor,
                lambda: self.archive,
                Parts(self.parts),
                folder / "home",
            )
        )
        self.runner = Runner(self.book, self.work, ())

    def do(self, *, pieces: int = 0) -> list[Claim]:
        """Do what waits, or until so many pieces are done."""
        done: list[Claim] = []
        while (claim := self.runner.run_one(ALL_QUEUES, f"one {len(done)}")) is not None:
            done.append(claim)
            if pieces and sum(one.kind in ("look", "listen") for one in done) == pieces:
                break
        return done

    def file(self, job: str) -> FileStanding:
        return JobPages(self.book.database).files(job)[0]

    def pieces(self) -> list[Path]:
        return sorted(path for path in self.parts.rglob("*") if path.is_file())


@pytest.fixture
def house(tmp_path: Path, extractor: Extractor) -> House:
    return House(tmp_path, extractor)


def test_a_long_film_is_read_in_pieces_to_the_same_answer_and_they_go(
    house: House, extractor: Extractor, film: Path
) -> None:
    job = house.book.open_job(ingest_job([film], "films"))
    kinds = [claim.kind for claim in house.do()]
    assert sorted(kinds) == ["inspect", "join", "listen", *["look"] * 4] and kinds[-1] == "join"
    assert house.file(job).state == "done" and house.pieces() == []
    assert told(house.archive.entered[0]) == told(extractor.extract(film))


def test_a_short_film_is_read_as_a_whole(house: House, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_film(path, (scene(number) for number in range(40)), 25, None)
    job = house.book.open_job(ingest_job([path], "films"))
    assert [claim.kind for claim in house.do()] == ["inspect", "read"] and house.file(job).state == "done"


def test_a_known_film_is_only_inspected_wherever_it_lies(house: House, film: Path, tmp_path: Path) -> None:
    house.book.open_job(ingest_job([film], "films"))
    house.do()
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(film.read_bytes())
    job = house.book.open_job(ingest_job([moved], "films"))
    assert [claim.kind for claim in house.do()] == ["inspect"] and house.file(job).state == "unchanged"


def test_pieces_that_are_there_are_not_done_again(house: House, film: Path, tmp_path: Path) -> None:
    first = house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=5)
    house.book.cancel(first)
    before = {path: path.stat().st_mtime_ns for path in house.pieces()}
    assert len(before) == 5
    job = house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=5)
    assert {path: path.stat().st_mtime_ns for path in house.pieces()} == before
    house.do()
    assert house.file(job).state == "done"


def test_a_piece_that_is_damaged_is_done_again(house: House, extractor: Extractor, film: Path) -> None:
    job = house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=5)
    house.pieces()[2].write_bytes(b"damaged")
    assert [claim.kind for claim in house.do()].count("join") == 2
    assert house.file(job).state == "done" and told(house.archive.entered[0]) == told(extractor.extract(film))


def test_a_film_that_changes_meanwhile_is_refused(house: House, film: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.mp4"
    path.write_bytes(film.read_bytes())
    job = house.book.open_job(ingest_job([path], "films"))
    house.do(pieces=5)
    os.utime(path, (1, 1))
    house.do()
    assert house.file(job).state == "failed" and "changed while it was read" in (house.file(job).reason or "")
    assert house.archive.entered == []


def test_a_film_that_goes_is_refused_and_the_rest_of_its_pieces_are_not_done(
    house: House, film: Path, tmp_path: Path
) -> None:
    path = tmp_path / "gone.mp4"
    path.write_bytes(film.read_bytes())
    job = house.book.open_job(ingest_job([path], "films"))
    house.runner.run_one(ALL_QUEUES, "one")
    path.unlink()
    assert len(house.do()) == 1 and house.file(job).state == "failed"
    assert JobPages(house.book.database).page(job).state == "done"


def test_a_cancelled_film_stops_within_a_picture(house: House, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = house.book.open_job(ingest_job([film], "films"))
    house.runner.run_one(ALL_QUEUES, "one")
    runner = Runner(house.book, house.work, (), lease=0.1)
    seen: list[int] = []
    detect = ColourDetector.detect

    def cancelling(self: ColourDetector, *given: object, **named: object) -> object:
        seen.append(1)
        if len(seen) == 2:
            house.book.cancel(job)
        import time

        time.sleep(0.1)
        return detect(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ColourDetector, "detect", cancelling)
    runner.run_one([Queue.ENCODE], "one")
    runner.run_one([Queue.ENCODE], "two")
    assert 2 <= len(seen) <= 6 and house.file(job).state == "cancelled"


def test_a_walk_finds_the_files_of_its_job(house: House, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "a.txt").touch()
    write_film(folder / "a.mp4", (scene(number) for number in range(10)), 25, None)
    job = house.book.open_job(walking_job([folder, tmp_path / "none"], "films"))
    house.do()
    page = JobPages(house.book.database).page(job)
    assert page.counts["done"] == 1 and page.result is not None and page.result["ignored"] == 1
    assert page.result["failed"] == [{"path": str(tmp_path / "none"), "reason": "there is no such file or folder"}]


def test_pieces_of_a_film_that_ends_in_the_report_go(house: House, film: Path) -> None:
    job = house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=3)
    assert len(house.pieces()) == 3
    film.write_bytes(film.read_bytes() + b"more")
    house.do()
    assert house.file(job).state == "failed" and house.pieces() == []


def test_pieces_that_a_cancelled_job_left_go_with_the_next_film(house: House, film: Path, tmp_path: Path) -> None:
    cancelled = house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=2)
    house.book.cancel(cancelled)
    (left,) = house.parts.glob("*")
    other = tmp_path / "other.mp4"
    write_film(other, (scene(number) for number in range(80)), 25, None)
    house.book.open_job(ingest_job([other], "films"))
    house.do()
    assert len(house.pieces()) == 2
    for path in (left, *left.iterdir()):
        os.utime(path, (time.time() - 4 * 24 * 3600, time.time() - 4 * 24 * 3600))
    third = tmp_path / "third.mp4"
    write_film(third, (scene(number) for number in range(90)), 25, None)
    house.book.open_job(ingest_job([third], "films"))
    house.do()
    assert house.pieces() == [] and not left.exists()


def test_pieces_without_news_are_removed(house: House, film: Path) -> None:
    house.book.open_job(ingest_job([film], "films"))
    house.do(pieces=5)
    parts = Parts(house.parts)
    assert parts.remove_stale() == 0 and len(house.pieces()) == 5
    assert parts.remove_stale(age=-1.0) == 1 and house.pieces() == []


@pytest.fixture
def book(tmp_path: Path) -> Book:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.wav").write_bytes(b"x")
    return book_in(tmp_path)


def files_of(book: Book, job: str) -> list[FileStanding]:
    return JobPages(book.database).files(job)


def test_a_walk_becomes_the_files_of_a_job_and_tells_what_it_left_out(book: Book, tmp_path: Path) -> None:
    root, reader = tmp_path / "root", Reader()
    for name in ("a.wav", "b.mp4", "c.txt"):
        (root / name).write_bytes(b"x")
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    job = book.open_job(walking_job([root, root / "gone"], "films", within=[root]))
    runner = Runner(book, work_of(reader), ())
    while runner.run_one(ALL_QUEUES, "one"):
        pass
    page = JobPages(book.database).page(job)
    assert reader.read == ["films/a.wav", "films/b.mp4"] and page.counts["done"] == page.files == 2
    failed = {"path": str(root / "out.wav"), "reason": OUTSIDE}
    missing = {"path": str(root / "gone"), "reason": "there is no such file or folder"}
    assert page.result == {"ignored": 1, "failed": [missing, failed]}


@pytest.mark.parametrize("tasks_before", [1, 2])
def test_a_link_that_changes_after_the_walk_is_not_read_either(book: Book, tmp_path: Path, tasks_before: int) -> None:
    film, reader = tmp_path / "root" / "a.wav", Reader()
    film.write_bytes(b"x")
    job = book.open_job(walking_job([film], "films", within=[tmp_path / "root"]))
    runner = Runner(book, work_of(reader), ())
    for _ in range(tasks_before):
        runner.run_one(ALL_QUEUES, "one")
    film.unlink()
    film.symlink_to(tmp_path / "secret.wav")
    runner.run_one(ALL_QUEUES, "one")
    (file,) = files_of(book, job)
    assert (file.state, file.reason) == ("failed", OUTSIDE) and reader.read == []
    assert book.retry(job, first_step(JobPages(book.database).page(job).asked)) == 1
    runner.run_one(ALL_QUEUES, "one")
    assert files_of(book, job)[0].reason == OUTSIDE and reader.read == []


def test_files_that_somebody_named_on_the_command_line_may_lie_anywhere(book: Book, tmp_path: Path) -> None:
    book.open_job(walking_job([tmp_path / "secret.wav"], "films"))
    reader = Reader()
    runner = Runner(book, work_of(reader), ())
    while runner.run_one(ALL_QUEUES, "one"):
        pass
    assert reader.read == ["films/secret.wav"]


def test_a_link_that_changes_between_the_pieces_of_a_film_ends_it(house: House, film: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.mp4"
    path.write_bytes(film.read_bytes())
    job = house.book.open_job(walking_job([path], "films", within=[tmp_path / "root"]))
    house.do(pieces=2)
    path.unlink()
    path.symlink_to(film)
    house.do()
    assert (house.file(job).state, house.file(job).reason) == ("failed", OUTSIDE) and house.archive.entered == []
