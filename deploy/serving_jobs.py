"""Who does a server's jobs: workers where there is a broker, else a thread of the server itself.

The thread reads files as it would read uploads, in a process that can be killed, but one of its own: a question never
waits for a film, and neither does who cancels it or stops the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.settings import environment_of_readers
from deploy.wiring import Installation
from deploy.working import OUTAGES, Refused, enrol_by_workers, evaluating, ways_of
from ingest.background import BackgroundQueue
from ingest.book import Book
from ingest.flow import ingest_work
from ingest.limits import MediaLimits
from ingest.media import MediaInfo
from ingest.pipeline import OnProgress
from ingest.queues import BrokerUnavailable
from ingest.runner import Runner
from ingest.sandbox import Sandbox, SandboxError, SandboxLimits
from ingest.shards import Plan
from ingest.tasks import Queue
from ingest.track import Extraction, Span
from ingest.worker import CeleryQueue
from search.answers import EnrolAnswer, ForgetAnswer, PeopleAnswer
from search.api.services import Work
from search.archive import Archive
from search.measurement import EVALUATE
from search.people import Person, UnknownPerson

# Between two looks whether a file that is being read is still wanted, in seconds.
CHECK_SECONDS = 0.25
QUEUES = (Queue.PROBE, Queue.ENCODE, Queue.EVALUATE)
# For which a request waits for a worker to enrol.
ENROL_SECONDS = 300.0
# What one file of an archive may cost: seconds by the clock, and bytes of memory beyond what the models take.
FILE_LIMITS = SandboxLimits(seconds=600.0, memory_bytes=6_000_000_000, seconds_per_second=20.0)
MAKE_EXTRACTOR = "deploy.reading:sandboxed_extractor"


@contextmanager
def work_of(opened: Installation, stopping: Callable[[], bool]) -> Iterator[Work]:
    """The jobs of an installation, done for as long as the block lasts.

    Args:
        opened: the installation, made for many who ask at once.
        stopping: whether the server is about to end: what is at hand is then let go, and taken up by its next start.
    """
    book, settings = Book(opened.database), opened.settings
    if settings.broker_url:
        yield Work(book, CeleryQueue(settings.broker_url, book), settings.media_roots)
        return
    reader = ConfinedReader(environment=environment_of_readers(settings))
    hands = BackgroundQueue(book, lambda ending: _runner(opened, book, reader, ending), stopping, QUEUES)
    hands.start()
    try:
        yield Work(book, hands, settings.media_roots)
    finally:
        hands.close()
        reader.close()


class ConfinedReader:
    """Reads whole files in a process that is killed as soon as its file is not wanted any more.

    One file at a time. The process starts, and loads its models, with the first file.

    Args:
        make_extractor: ``module:function`` of what makes the extractor in that process.
        limits: what one file may cost.
        environment: the variables of that process.
    """

    def __init__(
        self, make_extractor: str = MAKE_EXTRACTOR, limits: SandboxLimits = FILE_LIMITS,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._make_extractor, self._environment = make_extractor, environment
        self._limits = limits
        self._sandbox: Sandbox | None = None
        self._waiting = ThreadPoolExecutor(1, thread_name_prefix="reader")

    def extract(self, path: Path, on_progress: OnProgress | None = None) -> Extraction:
        """Read a file; what ``on_progress`` raises, called again and again, ends that at once.

        Raises:
            MediaError: the file cannot be read, exceeds a limit, or ended the process that read it.
            SandboxError: the process does not start.
        """
        if self._sandbox is None:
            limits, media = self._limits, MediaLimits()
            self._sandbox = Sandbox(self._make_extractor, limits, media=media, environment=self._environment)
        reading = self._waiting.submit(self._sandbox.extract, path)
        try:
            while True:
                try:
                    return reading.result(CHECK_SECONDS)
                except NotYet:
                    if reading.done():  # it was the reading itself that took too long
                        raise
                if on_progress is not None:
                    on_progress(0.0)
        except BaseException:
            if not reading.done():
                self._end()
            raise

    def close(self) -> None:
        """End the process. Doing it twice is no error."""
        self._end()
        self._waiting.shutdown()

    def _end(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


class EnrollingWorkers:
    """An archive whose enrolments workers do: see search.api.services.Keeper.

    Args:
        archive: does the rest.
        queue: of the workers.
    """

    def __init__(self, archive: Archive, queue: CeleryQueue) -> None:
        self._archive = archive
        self._queue = queue

    def enrol_known(self, person: str, paths: Sequence[Path]) -> EnrolAnswer:
        """See Archive.enrol_known. Raises BrokerUnavailable too, when no worker takes it in time."""
        try:
            return enrol_by_workers(self._queue, "", paths, person, ENROL_SECONDS)
        except Refused as error:
            if error.kind == "unknown_person":
                raise UnknownPerson(str(error)) from error
            raise
        except TimeoutError as error:
            raise BrokerUnavailable(f"no worker has done it within {ENROL_SECONDS:.0f} s: is one running?") from error

    def forget(self, name: str, version: int | None = None) -> ForgetAnswer:
        """See Archive.forget."""
        return self._archive.forget(name, version)

    def people(self) -> PeopleAnswer:
        """See Archive.people."""
        return self._archive.people()

    def merge(self, person: str, into: str, version: int | None = None) -> Person:
        """See Archive.merge."""
        return self._archive.merge(person, into, version)


def keeper_of(opened: Installation) -> Archive | EnrollingWorkers:
    """Who enrols and forgets: with a broker workers enrol, unless the server itself owns the index."""
    broker = opened.settings.broker_url
    if not broker or opened.settings.embedded:
        return opened.archive
    return EnrollingWorkers(opened.archive, CeleryQueue(broker, Book(opened.database)))


def _in_one_piece(info: MediaInfo) -> Plan:
    """One process reads all: pieces would gain nothing."""
    return Plan((Span(0.0, info.duration),) if info.has_pictures else (), info.has_sound)


def _runner(opened: Installation, book: Book, reader: ConfinedReader, ending: Callable[[], bool]) -> Runner:
    written = False

    def archive() -> Archive:
        nonlocal written
        written = True
        return opened.archive

    def rest() -> None:
        nonlocal written
        if written:
            written = False
            opened.archive.flush()  # often would be slow, and it is safe without

    ways = replace(ways_of(opened, archive), plan=_in_one_piece, extract=lambda: reader.extract)
    work = ingest_work(ways) | {EVALUATE: evaluating(lambda: opened, lists_apart=True)}
    return Runner(book, work, (*OUTAGES, SandboxError), on_idle=rest, stopping=ending)
