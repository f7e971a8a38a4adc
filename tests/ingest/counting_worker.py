"""A worker that does what a file's own text says: ``count``, ``raise``, ``die``, ``hang`` or ``sleep SECONDS``.

Run as ``python -m tests.ingest.counting_worker BROKER_URL DATABASE_URL LEASE CHILDREN [QUEUES]``. Every run of a file
adds a line to ``<file>.runs``, every child one with its number to the file that ``COUNTING_WORKER_LOADS`` names.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ingest.book import Book
from ingest.jobs import FileReport
from ingest.ledger import open_database
from ingest.runner import Runner
from ingest.tasks import Queue
from ingest.worker import Limits, Making, child_number, make_app, run_worker
from tests.ingest.small_jobs import Reader, work_of


class Counting(Reader):
    """Reads files by their orders."""

    def ingest_file(self, path: Path, archive: str, check: Callable[[], None], extract: object) -> FileReport:
        with path.with_suffix(".runs").open("a") as runs:
            runs.write(f"{os.getpid()} {archive}\n")
        order, *seconds = path.read_text().split()
        if order == "raise":
            raise ZeroDivisionError("no division")
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "sleep":
            until = time.monotonic() + float(seconds[0])
            while time.monotonic() < until:
                time.sleep(0.05)
                check()
        return FileReport(str(path), "done", "0" * 64, 1, 2, 3.0, None, ("a warning",))


def book_at(database_url: str) -> Book:
    return Book(open_database(database_url), first_pause=0.05)


def runner_at(database_url: str, lease: float) -> Runner:
    with Path(os.environ["COUNTING_WORKER_LOADS"]).open("a") as loads:
        loads.write(f"{os.getpid()} {child_number()}\n")
    return Runner(book_at(database_url), work_of(Counting()), (ConnectionError,), lease)


def making(database_url: str, lease: float, queues: tuple[Queue, ...] = tuple(Queue)) -> Making:
    # the functions by their importable names: a spawned child knows no __main__ of ours
    from tests.ingest import counting_worker as named

    return Making(
        partial(named.book_at, database_url), partial(named.runner_at, database_url, lease), queues,
        Limits(lease, watch=min(0.5, lease)),
    )  # fmt: skip


if __name__ == "__main__":
    broker, database, lease_seconds, children, *wanted = sys.argv[1:]
    taken = tuple(Queue(one) for one in wanted) or tuple(Queue)
    sys.exit(run_worker(make_app(broker, making(database, float(lease_seconds), taken)), int(children)))
