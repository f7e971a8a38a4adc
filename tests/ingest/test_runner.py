from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.book import Book
from ingest.jobpage import JobPages
from ingest.ledger import RecordsError
from ingest.queues import ALL_QUEUES
from ingest.runner import Held, Runner
from ingest.tasks import LeaseLost
from tests.ingest.small_jobs import Reader, book_in, small_job, work_of


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return book_in(tmp_path)


def states(book: Book, job: str) -> list[str]:
    return [one.state for one in JobPages(book.database).files(job)]


def run_all(book: Book, reader: Reader, **how: float) -> None:
    runner = Runner(book, work_of(reader), (ConnectionError,), **how)
    while runner.run_one(ALL_QUEUES, "one"):
        pass


def test_a_file_is_looked_at_then_read_and_a_known_one_is_not_read(book: Book) -> None:
    reader = Reader()
    job = book.open_job(small_job("a", "known", "bad"))
    run_all(book, reader)
    assert states(book, job) == ["done", "unchanged", "failed"] and reader.read == ["films/a", "films/bad"]


def test_an_error_of_a_file_is_tried_again_later_and_does_not_stop_the_others(book: Book) -> None:
    def fail(_check: Callable[[], None]) -> None:
        raise ZeroDivisionError

    reader = Reader(a=fail)
    job = book.open_job(small_job("a", "b"))
    run_all(book, reader)
    assert states(book, job) == ["running", "done"] and JobPages(book.database).files(job)[0].attempts == 1


def test_an_outage_counts_for_nothing(book: Book) -> None:
    def outage(_check: Callable[[], None]) -> None:
        raise ConnectionError("away")

    job = book.open_job(small_job("a"))
    run_all(book, Reader(a=outage))
    assert states(book, job) == ["running"] and JobPages(book.database).files(job)[0].attempts == 0


def test_one_who_does_not_wait_raises_an_outage_and_the_task_is_free(book: Book) -> None:
    def outage(_check: Callable[[], None]) -> None:
        raise ConnectionError("away")

    book.open_job(small_job("a"))
    runner = Runner(book, work_of(Reader(a=outage)), (ConnectionError,), waits=False)
    runner.run_one(ALL_QUEUES, "one")
    with pytest.raises(ConnectionError):
        runner.run_one(ALL_QUEUES, "one")
    assert book.waiting(ALL_QUEUES) == 1


def test_a_lease_is_renewed_while_its_task_runs(book: Book) -> None:
    taken: list[int] = []

    def slow(check: Callable[[], None]) -> None:
        for _ in range(10):
            time.sleep(0.1)
            taken.append(book.take_back())
            check()

    job = book.open_job(small_job("a"))
    run_all(book, Reader(a=slow), lease=0.5)
    assert states(book, job) == ["done"] and sum(taken) == 0


def test_who_lost_a_task_learns_it_before_it_writes_and_its_outcome_does_not_count(book: Book) -> None:
    reached: list[str] = []

    def lose(check: Callable[[], None]) -> None:
        book.cancel(job)
        check()
        reached.append("written")

    job = book.open_job(small_job("a"))
    run_all(book, Reader(a=lose))
    assert states(book, job) == ["cancelled"] and not reached


def test_a_heartbeat_stops_work_that_only_shows_progress(book: Book) -> None:
    job = book.open_job(small_job("a"))
    abandoned = threading.Event()

    def work(held: Held) -> None:
        book.cancel(job)
        try:
            while True:
                held.check()
                time.sleep(0.01)
        except LeaseLost:
            abandoned.set()
            raise

    Runner(book, {"inspect": work}, (), lease=0.5).run_one(ALL_QUEUES, "one")  # type: ignore[dict-item]
    assert abandoned.is_set()


def test_a_task_without_progress_is_noticed(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.runner.STALL_SECONDS", 0.2)
    noticed = threading.Event()
    book.open_job(small_job("a"))
    reader = Reader(**{"inspect a": lambda _check: noticed.wait(20)})
    Runner(book, work_of(reader), (), lease=0.5, on_stall=noticed.set).run_one(ALL_QUEUES, "one")
    assert noticed.is_set()


def test_an_outcome_survives_records_that_are_away_for_a_moment(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, failures = book.settle, iter([RecordsError("away"), RecordsError("away")])

    def away(*given: object) -> None:
        for failure in failures:
            raise failure
        settle(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(book, "settle", away)
    job = book.open_job(small_job("known"))
    Runner(book, work_of(Reader()), ()).run_one(ALL_QUEUES, "one")
    assert states(book, job) == ["unchanged"]


def test_what_can_be_put_off_is_done_when_nothing_waits(book: Book) -> None:
    rested: list[int] = []
    book.open_job(small_job("known"))
    runner = Runner(book, work_of(Reader()), (), on_idle=lambda: rested.append(1))
    runner.run_one(ALL_QUEUES, "one")
    assert not rested
    assert runner.run_one(ALL_QUEUES, "one") is None and rested == [1]


def test_who_is_to_stop_lets_go_of_the_task_at_its_next_check(book: Book) -> None:
    stopping, written = threading.Event(), list[str]()

    def reading(check: Callable[[], None]) -> None:
        stopping.set()
        check()
        written.append("a")

    job = book.open_job(small_job("a"))
    work = work_of(Reader(a=reading))
    runner = Runner(book, work, (), stopping=stopping.is_set)
    runner.run_one(ALL_QUEUES, "one")
    runner.run_one(ALL_QUEUES, "one")
    assert not written and book.waiting(ALL_QUEUES) == 1
    assert JobPages(book.database).files(job)[0].attempts == 0


def test_what_fails_while_things_are_taken_down_is_no_failure(book: Book) -> None:
    stopping = threading.Event()

    def taken_away(_check: Callable[[], None]) -> None:
        stopping.set()
        raise ZeroDivisionError

    job = book.open_job(small_job("a"))
    runner = Runner(book, work_of(Reader(a=taken_away)), (), stopping=stopping.is_set)
    runner.run_one(ALL_QUEUES, "one")
    runner.run_one(ALL_QUEUES, "one")
    assert book.waiting(ALL_QUEUES) == 1 and JobPages(book.database).files(job)[0].attempts == 0
