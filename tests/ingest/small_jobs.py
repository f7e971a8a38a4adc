"""Jobs whose tasks do what the name of their file says, for tests of the book, the runner and the queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ingest.book import Book
from ingest.flow import Recognise, ingest_job, ingest_work
from ingest.jobs import FileReport
from ingest.ledger import open_database
from ingest.runner import Work
from ingest.tasks import NewJob

MEDIA = "a" * 64


class Reader:
    """Reads files into nowhere; ``orders`` say what happens with some of them."""

    def __init__(self, **orders: Callable[[Callable[[], None]], None]) -> None:
        self.orders = orders
        self.read: list[str] = []

    def ingest_file(self, path: Path, archive: str, check: Callable[[], None]) -> FileReport:
        self.read.append(f"{archive}/{path.name}")
        if order := self.orders.get(path.name):
            order(check)
        if path.stem == "bad":
            return FileReport.failed(path, "is no medium")
        return FileReport(str(path), "done", MEDIA, 2, 1, 60.0, None, ())


def recognise(path: Path, _archive: str) -> FileReport | None:
    """Files named ``known``, with any extension, are in already."""
    return FileReport(str(path), "unchanged", MEDIA, 2, 1, 60.0, None) if path.stem == "known" else None


def work_of(reader: Reader, knows: Recognise = recognise) -> dict[str, Work]:
    return ingest_work(knows, lambda: reader, Path("/nowhere"))


def small_job(*names: str, archive: str = "films", priority: int = 0) -> NewJob:
    return ingest_job([Path("/media") / name for name in names], archive, priority=priority)


def book_in(folder: Path) -> Book:
    return Book(open_database(f"sqlite:///{folder / 'records.sqlite'}"))
