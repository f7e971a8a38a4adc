from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.background import BackgroundQueue
from ingest.book import Book
from ingest.flow import ingest_job
from ingest.jobpage import JobPage, JobPages
from ingest.ledger import RecordsError
from ingest.queues import ALL_QUEUES
from ingest.runner import Runner
from tests.ingest.small_jobs import Reader, book_in, small_job, work_of

PATIENCE = 60.0


class House:
    """A book, and threads that do what is in it."""

    def __init__(self, folder: Path) -> None:
        self.book = book_in(folder)
        self.begun: list[BackgroundQueue] = []

    def start(self, reader: Reader, stopping: Callable[[], bool] = lambda: False) -> BackgroundQueue:
        def make(ending: Callable[[], bool]) -> Runner:
            return Runner(self.book, work_of(reader), (ConnectionError,), stopping=ending)

        queue = BackgroundQueue(self.book, make, stopping)
        self.begun.append(queue)
        queue.start()
        return queue

    def finished(self, job: str) -> JobPage:
        deadline = time.monotonic() + PATIENCE
        while (page := JobPages(self.book.database).page(job)).finished is None:
            assert time.monotonic() < deadline, page
            time.sleep(0.01)
        return page


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    for queue in house.begun:
        queue.close()


def test_jobs_are_done_when_they_come_and_those_that_were_there_before(house: House) -> None:
    reader = Reader()
    before = house.book.open_job(small_job("a", "bad", "known"))
    queue = house.start(reader)
    counts = house.finished(before).counts
    assert (counts["done"], counts["failed"], counts["unchanged"]) == (1, 1, 1)
    assert house.finished(queue.submit(small_job("b"))).counts["done"] == 1


def test_what_a_command_does_itself_is_left_to_it(house: House) -> None:
    mine = house.book.open_job(ingest_job([Path("/media/mine")], "films", here=True))
    reader = Reader()
    house.finished(house.start(reader).submit(small_job("a")))
    assert reader.read == ["films/a"] and JobPages(house.book.database).page(mine).state == "queued"


def test_who_is_closed_lets_go_at_once_and_the_next_one_takes_it_up(house: House) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(check: Callable[[], None]) -> None:
        reading.set()
        while not go_on.wait(0.01):
            check()

    first = house.start(Reader(a=slow))
    job = first.submit(small_job("a", "b"))
    assert reading.wait(PATIENCE)
    first.close()
    assert house.book.waiting(ALL_QUEUES) == 2
    reader = Reader()
    house.start(reader)
    assert house.finished(job).counts["done"] == 2 and sorted(reader.read) == ["films/a", "films/b"]


def test_a_task_that_does_not_stop_is_given_back_without_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.background.STOP_SECONDS", 0.1)
    reading, go_on = threading.Event(), threading.Event()

    def deaf(_check: Callable[[], None]) -> None:
        reading.set()
        go_on.wait(PATIENCE)

    first = house.start(Reader(a=deaf))
    job = first.submit(small_job("a"))
    assert reading.wait(PATIENCE)
    first.close()
    reader = Reader()
    house.start(reader)
    assert house.finished(job).counts["done"] == 1 and reader.read == ["films/a"]
    go_on.set()


def test_a_process_that_is_about_to_end_begins_nothing_more(house: House) -> None:
    ending = threading.Event()

    def last(_check: Callable[[], None]) -> None:
        ending.set()

    queue = house.start(Reader(a=last), ending.is_set)
    queue.submit(small_job("a", "b"))
    assert ending.wait(PATIENCE)
    queue.close()
    assert house.book.waiting(ALL_QUEUES) >= 1


def test_records_that_are_away_for_a_moment_end_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.background.LOOK_SECONDS", 0.01)
    claim, failures = Book.claim, iter([RecordsError("away"), RecordsError("away"), OSError("odd")])

    def away(*given: object, **named: object) -> object:
        for failure in failures:
            raise failure
        return claim(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Book, "claim", away)
    assert house.finished(house.start(Reader()).submit(small_job("a"))).counts["done"] == 1


def test_closing_what_was_never_started_is_no_error(house: House) -> None:
    queue = BackgroundQueue(house.book, lambda stopping: Runner(house.book, {}, (), stopping=stopping))
    queue.close()
    queue.close()
