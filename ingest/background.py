"""Jobs done by a process that has other things to do, too, in a thread of its own: a server without workers.

It takes up what the book says is unfinished, whoever asked for it and whenever, one task at a time; but not the jobs
that some other process does itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ingest.book import Book
from ingest.ledger import RecordsError
from ingest.queues import ALL_QUEUES, holder
from ingest.runner import Runner
from ingest.tasks import NewJob, Queue

_LOG = logging.getLogger("visavox")

LOOK_SECONDS = 2.0
"""Between two looks whether something waits that nobody told of, or a lease has run out."""
STOP_SECONDS = 3.0
"""For which the end of the task at hand is waited for."""


class BackgroundQueue:
    """Jobs that a thread of this process does.

    Args:
        book: which tasks there are.
        make_runner: makes what does them, told whether it is to stop. Called in the thread, at the first task, so that
            nothing is loaded for nothing.
        stopping: whether the process is about to end, and tasks at hand are to be let go at their next check.
        queues: of these.
    """

    def __init__(
        self,
        book: Book,
        make_runner: Callable[[Callable[[], bool]], Runner],
        stopping: Callable[[], bool] = lambda: False,
        queues: Sequence[Queue] = ALL_QUEUES,
    ) -> None:
        self._book = book
        self._queues = queues
        self._make_runner = make_runner
        self._process_stopping = stopping
        self._closing = threading.Event()
        self._rung = threading.Event()
        self._holder = holder()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to work on what is unfinished. Call once."""
        self._thread.start()

    def submit(self, job: NewJob) -> str:
        """See JobQueue.submit."""
        identity = self._book.open_job(job)
        self.wake()
        return identity

    def wake(self) -> None:
        """Something may be to be done."""
        self._rung.set()

    def stop_soon(self) -> None:
        """Begin nothing more, and let go of the task at hand at its next check, or when it fails."""
        self._closing.set()
        self._rung.set()

    def close(self) -> None:
        """Let go of the task at hand, so that whoever comes next takes it up at once. Doing it twice is no error.

        A task that does not look whether it is to stop is given back without it: what it does from then on counts for
        nothing.
        """
        self.stop_soon()
        if self._thread.ident is None:
            return
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            try:
                self._book.died(self._holder, "the process that did it ended", counts=False)
            except RecordsError:
                _LOG.warning("a task could not be given back: it waits for its lease to run out")

    def _stopping(self) -> bool:
        return self._closing.is_set() or self._process_stopping()

    def _work(self) -> None:
        runner: Runner | None = None
        trouble = ""
        while not self._stopping():
            self._rung.clear()
            try:
                if runner is None and self._book.waiting(self._queues):
                    runner = self._make_runner(self._stopping)
                if runner is not None and runner.run_one(self._queues, self._holder) is not None:
                    trouble = ""
                    continue
                self._book.take_back()
                trouble = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, jobs go on when it is over
                if type(error).__name__ != trouble:  # told once, not every two seconds of a night
                    _LOG.warning("jobs wait: %s", type(error).__name__)
                trouble = type(error).__name__
            self._rung.wait(LOOK_SECONDS)
