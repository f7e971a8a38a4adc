"""What the application is made of, handed in by whoever starts it, and how its blocking work is run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from encoders.space import Embedding, Modality, Space, SpaceMismatch
from ingest.jobs import Job, JobBoard
from ingest.media import MediaError, probe
from search.answers import (
    EnrolAnswer,
    FindAnswer,
    ForgetAnswer,
    MatchAnswer,
    PeopleAnswer,
    VerifyAnswer,
    WhoAnswer,
)
from search.people import Person

Result = TypeVar("Result")

# Reading records is quick; this many at a time do not wait for each other.
READERS = 4
READY_SECONDS = 10.0


class Answers(Protocol):
    """Answers questions about files: :class:`search.engine.Engine`."""

    def find(self, path: Path, want: Modality, top: int, /) -> FindAnswer:
        """Enrolled samples and archive tracks of whom a file shows."""

    def find_vector(self, probe: Embedding, want: Modality, top: int, /) -> FindAnswer:
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

    def forget(self, name: str, /) -> ForgetAnswer:
        """Remove a person everywhere."""

    def people(self) -> PeopleAnswer:
        """Everyone enrolled."""


class Register(Protocol):
    """The names of people: :class:`search.people.People`."""

    def find(self, name_or_id: str, /) -> Person:
        """Somebody by name or id."""

    def create(self, name: str, /) -> Person:
        """Enter somebody."""

    def rename(self, name_or_id: str, name: str, /) -> Person:
        """Give somebody another name."""


class Serving(Protocol):
    """What a serving encoder says of itself: :class:`encoders.encoder.Encoder`."""

    @property
    def space(self) -> Space:
        """Where its vectors live."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it encodes."""


def media_seconds(path: Path) -> float:
    """Duration of a file in seconds, 0 for a photo. Raises MediaError."""
    return probe(path).duration


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of an installation that the application answers with.

    Args:
        engine: answers questions; one at a time, for its networks are not made for threads.
        archive: enrols and forgets; taken turns with the engine, whose networks it shares.
        people: the names.
        encoders: the serving encoders.
        board: where long questions run.
        evidence: the file of a piece of evidence; raises EvidenceMissing.
        ready: what is missing before questions can be answered, as sentences; empty when nothing is.
        background: answers the long questions; an engine with networks of its own, so that short questions
            need not wait for long ones. None: the engine does, and they take turns.
        seconds: duration of a file.
        outdated: why nothing may be asked or written any more, such as that another model was chosen; None while
            all is well. Looked at before every question.
    """

    engine: Answers
    archive: Keeper
    people: Register
    encoders: Sequence[Serving]
    board: JobBoard
    evidence: Callable[[str], Path]
    ready: Callable[[], Sequence[str]]
    background: Answers | None = None
    seconds: Callable[[Path], float] = media_seconds
    outdated: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Limits:
    """What a request may weigh.

    Args:
        upload_bytes: most bytes of a request with files, all of them together.
        json_bytes: most bytes of any other request.
        at_once: most seconds of media that ``who`` answers at once; beyond it becomes a job.
        longest: most seconds of media that any question takes.
        folder: where uploads lie while they are read; None for the system's temporary folder.
    """

    upload_bytes: int = 512 * 2**20
    json_bytes: int = 2**20
    at_once: float = 60.0
    longest: float = 2 * 3600.0
    folder: Path | None = None

    def __post_init__(self) -> None:
        if min(self.upload_bytes, self.json_bytes, self.at_once, self.longest) <= 0:
            raise ValueError(f"limits must be positive, got {self}")


class NotReady(RuntimeError):
    """Something is missing before questions can be answered."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__("; ".join(missing))
        self.missing = missing


class MediaTooLong(ValueError):
    """An upload lasts longer than questions over HTTP may."""


@dataclass(eq=False)
class Desk:
    """Where routes bring their work: nothing blocking ever runs in the event loop."""

    services: Services
    limits: Limits
    _asking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _looking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(READERS))
    _checking: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    _networks: threading.Lock = field(default_factory=threading.Lock)

    async def ask(self, work: Callable[[], Result]) -> Result:
        """Run work that uses the networks: one at a time."""

        def guarded() -> Result:
            with self._networks:
                self._check_current()
                return work()

        return await to_thread.run_sync(guarded, limiter=self._asking)

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
        turn: AbstractContextManager[Any] = nullcontext() if self.services.background else self._networks

        def answer() -> dict[str, Any]:
            with turn:
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
        """The encoder whose space has a digest. Raises SpaceMismatch."""
        for encoder in self.services.encoders:
            if encoder.space.digest == digest:
                return encoder
        raise SpaceMismatch(f"no serving encoder has the space {digest[:12]}: GET /v1/spaces lists those that do")
