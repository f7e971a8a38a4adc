"""Runs claimed tasks: holds their leases while they run, and writes down how they ended.

The same for a worker's child and for a process that does its own work. What goes wrong is of one of three kinds:
the file's own fault, which is counted; an outage of something that everybody needs, which is waited for; or the
task has gone to somebody else, and then nothing of it counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from ingest.book import Book
from ingest.ledger import RecordsError
from ingest.tasks import Claim, LeaseLost, Outcome, Queue

_LOG = logging.getLogger("visavox")

LEASE_SECONDS = 20.0
"""For which a task is nobody else's after its holder was last heard of."""
BEATS_PER_LEASE = 5
STALL_SECONDS = 1800.0
"""A task that shows no progress for so long hangs."""
_RECORDS_PATIENCE = 60.0


class Stopping(Exception):
    """Whoever does a task is to end: it is let go, for somebody else to take up at once."""


class Held:
    """A task in the hands of whoever does it: says whether it is still theirs."""

    def __init__(self, book: Book, claim: Claim, lease: float, stopping: Callable[[], bool] = lambda: False) -> None:
        self.claim = claim
        self._book = book
        self._lease = lease
        self._stopping = stopping
        self._lost = threading.Event()
        self.moved = time.monotonic()

    def check(self, _share: float = 0.0) -> None:
        """Call often while work goes on: says that it does. Raises LeaseLost when it is for nothing, Stopping."""
        self.moved = time.monotonic()
        if self._stopping():
            raise Stopping
        if self._lost.is_set():
            raise LeaseLost(f"task {self.claim.task} was cancelled, or is held by somebody else by now")

    def confirm(self) -> None:
        """Ask the book itself, before something is written. Raises LeaseLost, Stopping, RecordsError."""
        self.check()
        self._book.renew(self.claim, self._lease)

    def beat(self) -> None:
        """Renew the lease; a database that is away is no reason to stop."""
        try:
            self._book.renew(self.claim, self._lease)
        except LeaseLost:
            self._lost.set()
        except RecordsError:
            _LOG.warning("a lease could not be renewed: the records do not answer")


Work = Callable[[Held], Outcome]
"""Does a task of one kind. What it raises is the task's failure, which is tried again, or an outage."""


class Runner:
    """Claims and runs tasks.

    Args:
        book: which tasks there are.
        work: what to do, by kind of task.
        outages: errors that are no file's fault: the task waits until they are over.
        waits: whether it is tried again after one; if not, the error is raised, and whoever runs it says so.
        lease: seconds.
        on_idle: called when nothing waits, to end what can be put off until then.
        on_stall: called when a task shows no progress for ``STALL_SECONDS``; None: it may take as long as it likes.
        stopping: whether whoever runs tasks is to end: the one at hand is then let go at its next check.
    """

    def __init__(
        self,
        book: Book,
        work: Mapping[str, Work],
        outages: tuple[type[Exception], ...],
        lease: float = LEASE_SECONDS,
        *,
        waits: bool = True,
        on_idle: Callable[[], None] = lambda: None,
        on_stall: Callable[[], None] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        if lease <= 0:
            raise ValueError(f"a lease lasts some seconds, got {lease}")
        self._book = book
        self._work = work
        self._outages = outages
        self._lease = lease
        self._waits = waits
        self._on_idle = on_idle
        self._on_stall = on_stall
        self._stopping = stopping

    def run_one(self, queues: Sequence[Queue], holder: str, job: str | None = None) -> Claim | None:
        """Claim a task and do it; gives it as it was claimed, or None if none waits.

        Raises:
            RecordsError: the records do not answer. Unless it waits, what counts as an outage; KeyboardInterrupt.
        """
        claim = self._book.claim(queues, holder, self._lease, job)
        if claim is None:
            self._on_idle()
            return None
        held = Held(self._book, claim, self._lease, self._stopping)
        try:
            with self._beating(held):
                outcome = self._outcome(held)
            if outcome is not None:
                self._patiently(lambda: self._book.settle(claim, outcome))
        except LeaseLost:
            _LOG.info("task %s of kind %s was given up: it is somebody else's, or cancelled", claim.task, claim.kind)
        except Stopping:
            with suppress(LeaseLost):
                self._patiently(lambda: self._book.release(claim))
        except KeyboardInterrupt:
            self._book.release(claim)
            raise
        return claim

    def _outcome(self, held: Held) -> Outcome | None:
        """What became of the task; None if it waits again."""
        claim = held.claim
        try:
            return self._work[claim.kind](held)
        except (LeaseLost, Stopping):
            raise
        except Exception as error:  # the edge of the task: whatever it is is judged here
            if self._stopping():  # what fails while things are taken down is nobody's fault
                raise Stopping from error
            self._judge(claim, error)
        return None

    def _judge(self, claim: Claim, error: Exception) -> None:
        """A task ended with an error: it is tried again, then told; or an outage, which is waited for, or raised."""
        if isinstance(error, self._outages):
            if not self._waits:
                with suppress(LeaseLost, RecordsError):
                    self._book.release(claim)
                raise error
            told = str(error)
            _LOG.warning("a task waits, for something that everybody needs does not answer: %s", type(error).__name__)
            self._patiently(lambda: self._book.put_back(claim, told, counts=False))
        else:
            told = f"{type(error).__name__}: {error}"
            _LOG.warning("a task of kind %s failed: %s", claim.kind, type(error).__name__)
            self._patiently(lambda: self._book.put_back(claim, told, counts=True))

    @contextmanager
    def _beating(self, held: Held) -> Iterator[None]:
        """Renew a lease while a block runs."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._lease / BEATS_PER_LEASE):
                held.beat()
                if self._on_stall is not None and time.monotonic() - held.moved > STALL_SECONDS:
                    self._on_stall()

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _patiently(self, write: Callable[[], object]) -> None:
        """Write to the book, also if it is away for a moment: the work is done and should not be lost."""
        until = time.monotonic() + _RECORDS_PATIENCE
        while True:
            try:
                write()
            except RecordsError:
                if time.monotonic() > until:
                    raise
                time.sleep(1.0)
            else:
                return
