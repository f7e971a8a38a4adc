"""Jobs whose tasks do what the name of their file says, for tests of the book, the runner and the queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest.book import Book
from ingest.flow import INSPECT, READ, Recognition, Ways, ingest_job, ingest_work, outside
from ingest.jobs import FileReport
from ingest.ledger import open_database
from ingest.runner import Held, Work
from ingest.tasks import ItemState, NewJob, NewTask, Outcome, Queue
from ingest.track import MediaId

MEDIA = "a" * 64


class Reader:
    """Reads files into nowhere; ``orders`` say what happens with some of them."""

    def __init__(self, **orders: Callable[[Callable[[], None]], None]) -> None:
        self.orders = orders
        self.read: list[str] = []

    settings = "some"

    def recognise(self, path: Path, _archive: str) -> Recognition:
        """Files named ``known``, with any extension, are in already."""
        self.orders.get(f"inspect {path.name}", lambda _check: None)(lambda: None)
        if path.stem == "known":
            return Recognition(MediaId(MEDIA), FileReport(str(path), "unchanged", MEDIA, 2, 1, 60.0, None))
        return Recognition(MediaId(MEDIA), None)

    def ingest_file(self, path: Path, archive: str, check: Callable[[], None], extract: object) -> FileReport:
        self.read.append(f"{archive}/{path.name}")
        if order := self.orders.get(path.name):
            order(check)
        if path.stem == "bad":
            return FileReport.failed(path, "is no medium")
        return FileReport(str(path), "done", MEDIA, 2, 1, 60.0, None, ())


def work_of(reader: Reader) -> dict[str, Work]:
    """The steps of files that are on no disk: inspected by name, and read as a whole."""

    def inspect(held: Held) -> Outcome:
        if (refused := outside(held.claim.arguments)) is not None:
            return refused
        path = Path(held.claim.arguments["path"])
        seen = reader.recognise(path, held.claim.archive)
        if seen.report is not None:
            return Outcome(item=ItemState.UNCHANGED, report=seen.report.to_json(), seconds=60.0)
        return Outcome(next=[NewTask(READ, Queue.ENCODE, held.claim.arguments, held.claim.item, 1)])

    nowhere: Any = None
    ways = Ways(nowhere, nowhere, lambda: nowhere, nowhere, lambda: reader, nowhere, Path("/nowhere"))  # type: ignore[arg-type, return-value]
    return ingest_work(ways) | {INSPECT: inspect}


def small_job(*names: str, archive: str = "films", priority: int = 0) -> NewJob:
    return ingest_job([Path("/media") / name for name in names], archive, priority=priority)


def book_in(folder: Path) -> Book:
    return Book(open_database(f"sqlite:///{folder / 'records.sqlite'}"))
