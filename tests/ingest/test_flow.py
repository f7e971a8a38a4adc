from __future__ import annotations

from pathlib import Path

import pytest

from ingest.book import Book
from ingest.flow import first_step, walking_job
from ingest.jobpage import FileStanding, JobPages
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from ingest.walk import OUTSIDE
from tests.ingest.small_jobs import Reader, book_in, work_of


@pytest.fixture
def book(tmp_path: Path) -> Book:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.wav").write_bytes(b"x")
    return book_in(tmp_path)


def files(book: Book, job: str) -> list[FileStanding]:
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
    (file,) = files(book, job)
    assert (file.state, file.reason) == ("failed", OUTSIDE) and reader.read == []
    assert book.retry(job, first_step(JobPages(book.database).page(job).asked)) == 1
    runner.run_one(ALL_QUEUES, "one")
    assert files(book, job)[0].reason == OUTSIDE and reader.read == []


def test_files_that_somebody_named_on_the_command_line_may_lie_anywhere(book: Book, tmp_path: Path) -> None:
    book.open_job(walking_job([tmp_path / "secret.wav"], "films"))
    reader = Reader()
    runner = Runner(book, work_of(reader), ())
    while runner.run_one(ALL_QUEUES, "one"):
        pass
    assert reader.read == ["films/secret.wav"]
