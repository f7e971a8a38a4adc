from __future__ import annotations

import pytest
from sqlalchemy.engine import Engine

from ingest.book import Book
from ingest.jobpage import FIRST_ERRORS, JobPages
from ingest.jobs import UnknownJob
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from ingest.tasks import ItemState
from tests.ingest.small_jobs import Reader, small_job, work_of


def test_a_page_counts_files_by_state_and_says_how_fast_it_goes(database: Engine) -> None:
    book = Book(database)
    runner, pages = Runner(book, work_of(Reader()), ()), JobPages(book.database)
    job = book.open_job(small_job("a", "known", "bad", "b"))
    assert pages.page(job).state == "queued" and pages.page(job).remaining is None
    for _ in range(5):  # a: looked at, read; known: looked at; bad: looked at, read
        runner.run_one(ALL_QUEUES, "one")
    page = pages.page(job)
    assert page.counts == {"waiting": 1, "running": 0, "done": 1, "unchanged": 1, "failed": 1, "cancelled": 0}
    assert page.state == "running" and page.files == 4 and page.seconds_of_media == 120.0
    assert page.rate > 0 and page.remaining is not None and page.real_time > 0
    assert [(one.number, one.reason) for one in page.first_errors] == [(3, "is no medium")]


def test_files_come_in_pages_and_by_state(database: Engine) -> None:
    book = Book(database)
    runner, pages = Runner(book, work_of(Reader()), ()), JobPages(book.database)
    job = book.open_job(small_job(*["bad"] * 8, "good"))
    while runner.run_one(ALL_QUEUES, "one"):
        pass
    first = pages.files(job, limit=5)
    assert [one.number for one in first + pages.files(job, after=first[-1].number)] == list(range(1, 10))
    assert [one.number for one in pages.files(job, states=[ItemState.DONE])] == [9]
    assert len(pages.page(job).first_errors) == FIRST_ERRORS
    assert [report.state for report in pages.reports(job)] == ["failed"] * 8 + ["done"]


def test_the_newest_job_comes_first(database: Engine) -> None:
    book = Book(database)
    jobs = [book.open_job(small_job("a")) for _ in range(3)]
    pages = JobPages(book.database)
    book.cancel(jobs[1])
    assert [page.job for page in pages.recent(2)] == [jobs[2], jobs[1]]
    assert [page.job for page in pages.recent(unfinished=True)] == [jobs[2], jobs[0]]


def test_an_unknown_job_has_no_page_and_no_files(database: Engine) -> None:
    pages = JobPages(Book(database).database)
    for asked in (pages.page, pages.files):
        with pytest.raises(UnknownJob):
            asked("f" * 32)


def test_a_page_says_what_a_job_waits_for(database: Engine) -> None:
    def away(_check: object) -> None:
        raise ConnectionError("the index is away")

    book = Book(database)
    runner, pages = Runner(book, work_of(Reader(a=away)), (ConnectionError,)), JobPages(book.database)
    job = book.open_job(small_job("a"))
    assert pages.page(job).obstacle is None
    for _ in range(2):
        runner.run_one(ALL_QUEUES, "one")
    assert pages.page(job).obstacle == "the index is away"


def test_a_job_is_found_by_the_beginning_of_its_id(database: Engine) -> None:
    book = Book(database)
    jobs, pages = [book.open_job(small_job("a")) for _ in range(17)], JobPages(book.database)
    assert [pages.named(job[:20]) for job in jobs] == jobs
    ambiguous = next(letter for letter in "0123456789abcdef" if sum(job.startswith(letter) for job in jobs) > 1)
    with pytest.raises(UnknownJob, match="several"):
        pages.named(ambiguous)
    for unknown in ("", "%", "_" * 32, jobs[0] + "0", jobs[0].upper() + "!"):
        with pytest.raises(UnknownJob, match="no job"):
            pages.named(unknown)
