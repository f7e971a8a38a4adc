"""What the application is made of, handed in by whoever starts it, and how its blocking work is run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from ingest.book import Book
from ingest.jobpage import JobPages
from ingest.jobs import Job, JobBoard
from ingest.media import MediaError, probe
from ingest.tasks import NewJob
from search.answers import (
    EnrolAnswer,
    FindAnswer,
    ForgetAnswer,
    MatchAnswer,
    PeopleAnswer,
    VerifyAnswer,
    WhoAnswer,
)
from search.people import People, Person
from search.store import Filter

Result = TypeVar("Result")

# Reading records is quick; this many at a time do not wait for each other.
READERS = 4
READY_SECONDS = 10.0
# Stages of a request that Services.observe is told of.
QUEUE_STAGE, ANSWER_STAGE = "queue", "answer"


class Answers(Protocol):
    """Answers questions about files: :class:`search.engine.Engine`."""

    def find(self, path: Path, want: Modality, top: int, where: Filter, /) -> FindAnswer:
        """Enrolled samples and archive tracks of whom a file shows."""

    def find_vector(self, probe: Embedding, want: Modality, top: int, where: Filter, /) -> FindAnswer:
        """The same with a ready vector."""

    def who(self, path: Path, /) -> WhoAnswer:
        """Who speaks when."""

    def verify(self, a: Path, b: Path, kind: str, /) -> VerifyAnswer:
        """Whether two files show one person."""

    def match(self, probe: Path, candidates: Sequence[Path], kind: str, /) -> MatchAnswer:
        """Which candidate shows the person of the probe."""


class Keeper(Protocol):
    """Enrols and forgets: :class:`search.archive.Archive`."""

    def enrol_known(self, person: str, paths: Sequence[Path], /) -> EnrolAnswer:
        """Enrol files of the person with an id; raises UnknownPerson if nobody has it any more."""

    def forget(self, name: str, version: int | None = None, /) -> ForgetAnswer:
        """Remove a person everywhere; PreconditionFailed if their record is of another version."""

    def people(self) -> PeopleAnswer:
        """Everyone enrolled."""

    def merge(self, person: str, into: str, version: int | None = None, /) -> Person:
        """Give all samples of one person to another, and let the first go."""


class Serving(Protocol):
    """What a serving encoder says of itself: :class:`encoders.encoder.Encoder`."""

    @property
    def space(self) -> Space:
        """Where its vectors live."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it encodes."""


class Hands(Protocol):
    """Whoever does jobs: :class:`ingest.worker.CeleryQueue`, :class:`ingest.background.BackgroundQueue`."""

    def submit(self, job: NewJob, /) -> str:
        """Take a job and give its id; from then on it is not lost. Raises RecordsError, BrokerUnavailable."""

    def wake(self) -> None:
        """Something that is in the book already may be to be done."""


@dataclass(frozen=True, eq=False)
class Work:
    """Jobs that outlive a process.

    Args:
        book: which there are.
        hands: who does them.
        roots: folders that paths which arrive by HTTP must lie in.
    """

    book: Book
    hands: Hands
    roots: tuple[Path, ...] = ()

    @property
    def pages(self) -> JobPages:
        """How they stand."""
        return JobPages(self.book.database)


def media_seconds(path: Path) -> float:
    """Duration of a file in seconds, 0 for a photo. Raises MediaError."""
    return probe(path).duration


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of an installation that the application answers with.

    Args:
        engine: answers questions, ``at_once`` of them at a time.
        archive: enrols and forgets, one at a time.
        people: the names.
        encoders: the serving encoders.
        retired: encoders that served before and whose rows are kept: vectors of their spaces are still answered,
            but no more offered.
        board: where long questions run.
        work: jobs that read files into archives.
        evidence: the file of a piece of evidence; raises EvidenceMissing.
        ready: what is missing before questions can be answered, as sentences; empty when nothing is.
        background: answers the long questions; an engine of its own, so that short questions need not wait for
            long ones. None: the engine does.
        seconds: duration of a file.
        outdated: why nothing may be asked or written any more, such as that another model was chosen; None while
            all is well. Looked at before every question.
        at_once: questions that the engine answers at a time. 1: its networks are not made for threads, and long
            questions and the archive take turns with it.
        observe: told the seconds that a stage of a request took.
    """

    engine: Answers
    archive: Keeper
    people: People
    encoders: Sequence[Serving]
    board: JobBoard
    work: Work
    evidence: Callable[[str], Path]
    ready: Callable[[], Sequence[str]]
    retired: Callable[[], Sequence[Serving]] = tuple
    background: Answers | None = None
    seconds: Callable[[Path], float] = media_seconds
    outdated: Callable[[], str | None] = lambda: None
    at_once: int = 1
    observe: Callable[[str, float], None] = lambda stage, seconds: None

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError(f"at least one question is answered at a time, got {self.at_once}")


@dataclass(frozen=True)
class Limits:
    """What a request may weigh.

    Args:
        upload_bytes: most bytes of a request with files, all of them together.
        json_bytes: most bytes of any other request.
        at_once: most seconds of media that ``who`` answers at once; beyond it becomes a job.
        longest: most seconds of media that any question takes.
        folder: where uploads lie while they are read; None for the system's temporary folder.
        waiting: most requests that wait for their turn; more are refused.
    """

    upload_bytes: int = 512 * 2**20
    json_bytes: int = 2**20
    at_once: float = 60.0
    longest: float = 2 * 3600.0
    folder: Path | None = None
    waiting: int = 200

    def __post_init__(self) -> None:
        if min(self.upload_bytes, self.json_bytes, self.at_once, self.longest, self.waiting) <= 0:
            raise ValueError(f"limits must be positive, got {self}")


class NotReady(RuntimeError):
    """Something is missing before questions can be answered."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__("; ".join(missing))
        self.missing = missing


class Overloaded(RuntimeError):
    """More requests wait for their turn than may: ask again later."""


class MediaTooLong(ValueError):
    """An upload lasts longer than questions over HTTP may."""


@dataclass(eq=False)
class Desk:
    """Where routes bring their work: nothing blocking ever runs in the event loop."""

    services: Services
    limits: Limits
    _asking: CapacityLimiter = field(init=False)
    _writing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _looking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))
    _checking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _networks: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make room for as many questions at a time as the engine takes."""
        self._asking = CapacityLimiter(self.services.at_once)

    async def ask(self, work: Callable[[], Result]) -> Result:
        """Run work that uses the networks. Raises Overloaded, NotReady."""
        return await self._in_turn(work, self._asking)

    async def write(self, work: Callable[[], Result]) -> Result:
        """Run work that changes the archive: one such at a time. Raises Overloaded, NotReady."""
        return await self._in_turn(work, self._writing)

    async def _in_turn(self, work: Callable[[], Result], limiter: CapacityLimiter) -> Result:
        came = time.monotonic()
        waiting = limiter.statistics().tasks_waiting
        if waiting >= self.limits.waiting:
            raise Overloaded(f"{waiting} requests are waiting already: ask again later")

        def guarded() -> Result:
            with self._turn():
                self._check_current()
                began = time.monotonic()
                self.services.observe(QUEUE_STAGE, began - came)
                try:
                    return work()
                finally:
                    self.services.observe(ANSWER_STAGE, time.monotonic() - began)

        return await to_thread.run_sync(guarded, limiter=limiter)

    def _turn(self) -> AbstractContextManager[Any]:
        """What keeps work with the networks from work beside it, where they are not made for threads."""
        return self._networks if self.services.at_once == 1 else nullcontext()

    async def look(self, work: Callable[[], Result]) -> Result:
        """Run work that only reads or writes files and records."""
        return await to_thread.run_sync(work, limiter=self._looking)

    async def measure(self, paths: Sequence[Path], *, skip_unreadable: bool = False) -> float:
        """Seconds of the longest of some files; those that cannot be read are passed over if told so.

        Raises:
            MediaError: one cannot be read.
            MediaTooLong: one lasts longer than questions may.
        """
        longest = 0.0
        for path in paths:
            try:
                seconds = await self.look(lambda path=path: self.services.seconds(path))  # type: ignore[misc]
            except MediaError:
                if not skip_unreadable:
                    raise
                continue
            if seconds > self.limits.longest:
                raise MediaTooLong(
                    f"{path}: lasts {seconds:.0f} s, and at most {self.limits.longest:.0f} s are taken: ingest it"
                )
            longest = max(longest, seconds)
        return longest

    def later(self, work: Callable[[Answers], Mapping[str, Any]], afterwards: Callable[[], None]) -> Job:
        """Put work on the board. Raises BoardFull, and ``afterwards`` is then not called."""
        engine = self.services.background or self.services.engine

        def answer() -> dict[str, Any]:
            with nullcontext() if self.services.background else self._turn():
                self._check_current()
                return dict(work(engine))

        return self.services.board.get(self.services.board.submit(answer, afterwards=afterwards))

    def _check_current(self) -> None:
        """Raise NotReady if the parts of the installation are no longer those that serve."""
        if reason := self.services.outdated():
            raise NotReady([reason])

    async def missing(self) -> list[str]:
        """What is missing before questions can be answered; slowness counts as missing."""
        try:
            with anyio.fail_after(READY_SECONDS):
                found = await to_thread.run_sync(self.services.ready, limiter=self._checking, abandon_on_cancel=True)
        except TimeoutError:
            return [f"the installation did not say within {READY_SECONDS:.0f} s whether it is ready"]
        return list(found)

    def serving(self, digest: str) -> Serving:
        """The encoder whose space has a digest, also of one that served before. Raises SpaceMismatch."""
        for encoder in (*self.services.encoders, *self.services.retired()):
            if encoder.space.digest == digest:
                return encoder
        raise SpaceMismatch(f"no serving encoder has the space {digest[:12]}: GET /v1/spaces lists those that do")
