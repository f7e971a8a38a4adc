"""Who does the work: this process, or workers; and what a worker does with a task."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

from deploy.settings import Settings, load_settings
from deploy.wiring import OUTAGE_SECONDS, WORKER_PATIENCE_SECONDS, Installation, Outage
from encoders.encoder import EncoderError
from ingest.book import Book
from ingest.flow import ingest_work
from ingest.ledger import Ledger, RecordsError, open_database
from ingest.queues import ALL_QUEUES, InProcessQueue, JobQueue
from ingest.runner import Held, Runner, Work
from ingest.tasks import Outcome, Queue
from ingest.worker import CeleryQueue, Parts
from search.archive import Archive
from search.intake import Recogniser
from search.store import StoreError

OUTAGES = (StoreError, RecordsError, EncoderError, OSError)
"""What is no file's fault: the index, the records, a model or the disk that cannot be used now."""
HANGS = 70
"""Exit code of a child whose task showed no progress."""


def queue_of(opened: Installation, notice: Callable[[str], None] | None = None) -> JobQueue:
    """Where jobs are done: by workers if there is a broker, else by whoever follows them in this process.

    Args:
        opened: the installation.
        notice: told what a person should know meanwhile, such as that no worker is listening.
    """
    book = Book(opened.database)
    if opened.settings.broker_url:
        return CeleryQueue(opened.settings.broker_url, book, notice)
    recognise = Recogniser(opened.records.ledger, opened.reading).recognise
    work = ingest_work(recognise, lambda: opened.archive, opened.settings.home)
    return InProcessQueue(book, Runner(book, work, OUTAGES, waits=False), notice)


def worker_parts(queues: tuple[Queue, ...] = ALL_QUEUES) -> Parts:
    """What a worker of the installation that the environment describes is made of."""
    return Parts(make_book, partial(make_runner, queues), queues)


def make_book() -> Book:
    """The book of work. Raises RecordsError."""
    settings = load_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    return Book(open_database(settings.database_url))


def make_runner(queues: tuple[Queue, ...]) -> Runner:
    """What a worker's child does with tasks. Raises RecordsError."""
    del queues
    hands = _Hands(load_settings())
    book = Book(hands.opened.database)
    work = {kind: hands.at_work(what) for kind, what in hands.work().items()}
    return Runner(book, work, OUTAGES, on_idle=hands.rest, on_stall=lambda: os._exit(HANGS))


class _Hands:
    """One child's installation: models loaded once, and anew when another one was chosen.

    An embedded index is let go after each task, so that others may have it.
    """

    def __init__(self, settings: Settings) -> None:
        self._waiting = Outage(OUTAGE_SECONDS, logging.getLogger("visavox").warning)
        self.opened = self._open(settings)
        self._mended: object = None  # the encoders with which the index was
        self._written = False

    def _open(self, settings: Settings) -> Installation:
        return Installation(settings, patience=WORKER_PATIENCE_SECONDS, outage=self._waiting)

    def work(self) -> dict[str, Work]:
        """What to do, by kind of task."""
        recogniser = Recogniser(Ledger(self.opened.database), self.opened.reading)
        return ingest_work(recogniser.recognise, self._archive, self.opened.settings.home)

    def at_work(self, work: Work) -> Work:
        """Let go of an embedded index after the work."""

        def done(held: Held) -> Outcome:
            try:
                return work(held)
            finally:
                if self.opened.settings.embedded:
                    self.rest()
                    self.opened.release()

        return done

    def rest(self) -> None:
        """Make what was written quick to search: often would be slow, and it is safe without."""
        if self._written:
            self._written = False
            self.opened.archive.flush()

    def _archive(self) -> Archive:
        if self.opened.outdated:
            settings = self.opened.settings
            self.opened.close()
            self.opened = self._open(settings)
        archive = self.opened.archive
        if self._mended is not self.opened.encoders:
            archive.mend()
            self._mended = self.opened.encoders
        self._written = True
        return archive
