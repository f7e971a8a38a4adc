"""Where jobs are done: in this process, or (:class:`ingest.worker.CeleryQueue`) by workers."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from ingest.book import Book
from ingest.jobpage import JobPage, JobPages
from ingest.runner import Runner
from ingest.tasks import NewJob, Queue

FINISH_FIRST = "stopping after this file; press Ctrl-C again to stop at once (what was begun is finished next time)"
PAGE_SECONDS = 0.5
"""Between two looks at how a job stands: counting the files of a large one takes a while."""
_IDLE_SECONDS = 0.1
ALL_QUEUES = tuple(Queue)


class BrokerUnavailable(Exception):
    """Redis does not answer; the message names its URL without the password."""


class JobQueue(Protocol):
    """Takes jobs, and sees that they are done."""

    def submit(self, job: NewJob) -> str:
        """Take a job and give its id; from then on it is not lost. Raises RecordsError."""

    def follow(self, job: str) -> Iterator[JobPage]:
        """How a job stands, now and then, and at last when it is finished. Raises UnknownJob, RecordsError."""


class InProcessQueue:
    """Jobs without workers: whoever follows a job does it.

    Args:
        book: which tasks there are.
        runner: does them.
        notice: told, once, that the first Ctrl-C lets the task at hand finish.
    """

    def __init__(self, book: Book, runner: Runner, notice: Callable[[str], None] | None = None) -> None:
        self._book = book
        self._pages = JobPages(book.database)
        self._runner = runner
        self._notice = notice
        self._holder = holder()

    def submit(self, job: NewJob) -> str:
        """See JobQueue.submit; it is begun when it is followed."""
        return self._book.open_job(job)

    def follow(self, job: str) -> Iterator[JobPage]:
        """Do the tasks of a job one after another.

        The first Ctrl-C lets the task at hand finish, then raises KeyboardInterrupt; the second raises it at once.
        """
        shown = 0.0
        while True:
            with _interrupts_held(self._notice) as interrupted:
                done = self._runner.run_one(ALL_QUEUES, self._holder, job)
            if interrupted.is_set():
                raise KeyboardInterrupt
            if done is None or time.monotonic() - shown >= PAGE_SECONDS:
                page = self._pages.page(job)
                shown = time.monotonic()
                yield page
                if page.finished is not None:
                    return
            if done is None:  # a task that waits to be tried again, or that another process has
                self._book.take_back()
                time.sleep(_IDLE_SECONDS)


def holder() -> str:
    """A name for whoever holds a task now: no two are alike."""
    return f"{socket.gethostname()[:20]}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


@contextmanager
def _interrupts_held(notice: Callable[[str], None] | None) -> Iterator[threading.Event]:
    """Hold the first Ctrl-C back for the time of a ``with`` block; the event tells that there was one."""
    interrupted = threading.Event()
    # only the main thread may set handlers, and a handler somebody else chose is theirs to keep
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield interrupted
        return

    def hold(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if notice is not None:
            notice(FINISH_FIRST)

    signal.signal(signal.SIGINT, hold)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
