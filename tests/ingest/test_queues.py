from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.book import Book
from ingest.queues import FINISH_FIRST, InProcessQueue
from ingest.runner import Runner
from tests.ingest.small_jobs import Reader, book_in, small_job, work_of


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return book_in(tmp_path)


def queue_of(book: Book, reader: Reader, said: list[str] | None = None) -> InProcessQueue:
    runner = Runner(book, work_of(reader), (ConnectionError,), waits=False)
    return InProcessQueue(book, runner, None if said is None else said.append)


def interrupt(times: int) -> Callable[[Callable[[], None]], None]:
    def strike(_check: Callable[[], None]) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    return strike


def test_who_follows_a_job_does_it_and_hears_how_it_stands(book: Book) -> None:
    reader = Reader()
    queue = queue_of(book, reader)
    pages = list(queue.follow(queue.submit(small_job("b", "a", "known"))))
    assert reader.read == ["films/b", "films/a"]
    assert pages[-1].state == "done" and pages[-1].counts["unchanged"] == 1


def test_only_the_job_that_is_followed_is_done(book: Book) -> None:
    reader = Reader()
    queue = queue_of(book, reader)
    queue.submit(small_job("other"))
    list(queue.follow(queue.submit(small_job("mine"))))
    assert reader.read == ["films/mine"]


def test_the_first_interrupt_lets_the_file_at_hand_finish(book: Book) -> None:
    said: list[str] = []
    reader = Reader(a=interrupt(1))
    queue = queue_of(book, reader, said)
    job = queue.submit(small_job("a", "b"))
    with pytest.raises(KeyboardInterrupt):
        list(queue.follow(job))
    assert said == [FINISH_FIRST] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list(queue.follow(job))[-1].counts["done"] == 2 and reader.read == ["films/a", "films/b"]


def test_the_second_interrupt_stops_at_once_and_the_file_waits_again(book: Book) -> None:
    reader = Reader(a=interrupt(2))
    queue = queue_of(book, reader)
    job = queue.submit(small_job("a"))
    with pytest.raises(KeyboardInterrupt):
        list(queue.follow(job))
    reader.orders = {}
    assert list(queue.follow(job))[-1].counts["done"] == 1 and reader.read == ["films/a"] * 2


def test_an_error_that_is_not_the_files_ends_the_work_and_gives_interrupts_back(book: Book) -> None:
    def away(_check: Callable[[], None]) -> None:
        raise ConnectionError

    queue = queue_of(book, Reader(a=away))
    with pytest.raises(ConnectionError):
        list(queue.follow(queue.submit(small_job("a"))))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
