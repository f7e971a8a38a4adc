"""The way of a file through a job: found by a walk, inspected, read; a long film in pieces by several workers.

Each step is a task of its own kind, so that each can wait, be tried again, and be done by whoever has the hardware
for it. What is done *with* a file is handed in: nothing here knows an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ingest.jobs import FileReport
from ingest.media import MediaError, MediaInfo, probe
from ingest.parts import Parts
from ingest.pipeline import OnProgress
from ingest.runner import Held, Work
from ingest.shards import Heard, PartError, Plan, Seen
from ingest.tasks import ItemState, NewJob, NewTask, Outcome, Queue, TaskState
from ingest.track import Extraction, MediaId, Span
from ingest.walk import OUTSIDE, lies_within, walk_media

INGEST = "ingest"
"""The kind of jobs that read files into an archive."""
WALK, INSPECT, READ, LISTEN, LOOK, JOIN = "walk", "inspect", "read", "listen", "look", "join"
"""Kinds of tasks: find files; see whether a file is known, and how it is to be read; read it as a whole; or in
pieces: its sound, the pictures of one shard, and then make one answer of all."""

INSPECT_FILE = NewTask(INSPECT, Queue.PROBE, {})
"""The first step of every file; its path is filled in."""
# Of a job's tasks those of a file that is nearly through come first.
_READ_RANK, _PIECE_RANK, _JOIN_RANK = 1, 2, 3


@dataclass(frozen=True)
class Recognition:
    """What can be said of a file by its hash.

    Args:
        media: content hash; None of a file that cannot be read.
        report: of a file whose content is in an archive already, or that cannot be read; None: it is to be read.
    """

    media: MediaId | None
    report: FileReport | None


class Desk(Protocol):
    """Knows which contents are in: :class:`search.intake.Recogniser`."""

    @property
    def settings(self) -> str:
        """Digest of how files are read now."""

    def recognise(self, path: Path, archive: str, /) -> Recognition:
        """Whether a file is in; it costs a hash."""

    def known(self, path: Path, media: MediaId, archive: str, /) -> FileReport | None:
        """The report of a file whose content, of that hash, is in."""

    def refuse(self, path: Path, media: MediaId | None, archive: str, error: MediaError, /) -> FileReport:
        """Record that a file cannot be used, and report it."""


Extract = Callable[[Path, OnProgress], Extraction]
"""Reads a file as a whole."""


class Reader(Protocol):
    """Reads films in pieces: :class:`ingest.pipeline.Extractor`."""

    def look(self, path: Path, span: Span | None = None, on_progress: OnProgress | None = None, /) -> Seen:
        """Find the faces of one shard of a film."""

    def listen(self, path: Path, /) -> Heard:
        """Find the speech of a film."""

    def join(self, path: Path, media: MediaId, info: MediaInfo, heard: Heard | None, seen: Any, /) -> Extraction:  # noqa: ANN401
        """Make one answer of the pieces."""


class Intake(Protocol):
    """Where files are read into: :class:`search.archive.Archive`."""

    def ingest_file(
        self, path: Path, archive: str, check: Callable[[], None], extract: Callable[[Path], Extraction], /
    ) -> FileReport:
        """Read a file; what ``check`` raises abandons it before anything more is written."""

    def enter(self, path: Path, archive: str, extraction: Extraction, check: Callable[[], None], /) -> FileReport:
        """Write down what was found in a file."""


@dataclass(frozen=True, eq=False)
class Ways:
    """What the tasks of ingest are done with.

    Args:
        desk: which contents are in.
        plan: into which pieces a film is cut.
        extract: reads a file as a whole; asked for once per task, so that who only inspects loads no networks.
        reader: reads films in pieces; likewise.
        intake: where it is written; likewise.
        parts: where pieces wait for each other.
        home: folder of the installation, in which no media are looked for.
    """

    desk: Desk
    plan: Callable[[MediaInfo], Plan]
    extract: Callable[[], Extract]
    reader: Callable[[], Reader]
    intake: Callable[[], Intake]
    parts: Parts
    home: Path


def ingest_job(paths: Sequence[Path], archive: str, *, priority: int = 0, here: bool = False) -> NewJob:
    """The job of reading files that are known by name; ``here``: by the process that asks for it."""
    return NewJob(INGEST, archive, priority, {"here": here}, [str(path) for path in paths], INSPECT_FILE)


def walking_job(
    places: Sequence[Path], archive: str, *, priority: int = 0, within: Sequence[Path] | None = None
) -> NewJob:
    """The job of reading everything below some folders.

    Args:
        places: files and folders.
        archive: name of the archive.
        priority: higher comes first.
        within: folders that no file may lie outside of, links followed: looked at by the walk and again before a file
            is hashed and before it is read, since a link may have changed meanwhile; None: anywhere.
    """
    named: dict[str, Any] = {"paths": [str(place) for place in places]}
    named |= {} if within is None else {"within": [str(folder) for folder in within]}
    return NewJob(INGEST, archive, priority, named, tasks=[NewTask(WALK, Queue.PROBE, named, rank=_JOIN_RANK)])


def first_step(asked: Mapping[str, Any]) -> NewTask:
    """What is to be done first with every file of a job that reads files, by what was asked for."""
    within = asked.get("within")
    return INSPECT_FILE if within is None else replace(INSPECT_FILE, arguments={"within": within})


def ingest_work(ways: Ways) -> dict[str, Work]:
    """What to do, by kind of task."""
    steps: dict[str, Callable[[Ways, Held], Outcome]] = {
        WALK: _walk, INSPECT: _inspect, READ: _read, LISTEN: _listen, LOOK: _look, JOIN: _join,
    }  # fmt: skip

    def bound(step: Callable[[Ways, Held], Outcome]) -> Work:
        return lambda held: outside(held.claim.arguments) or step(ways, held)

    return {kind: bound(step) for kind, step in steps.items()}


def _walk(ways: Ways, held: Held) -> Outcome:
    asked = held.claim.arguments
    walk = walk_media([Path(place) for place in asked["paths"]], ways.home, asked.get("within"))
    problems = [{"path": path, "reason": reason} for path, reason in walk.problems().items()]
    paths = [str(path) for path in walk.media]
    told = {"ignored": walk.ignored, "failed": problems}
    return Outcome(result=told, items=paths, item_task=first_step(asked))


def _inspect(ways: Ways, held: Held) -> Outcome:
    """Known, of no use, short or long: what to do next."""
    path, archive = _path(held), held.claim.archive
    seen = ways.desk.recognise(path, archive)
    if seen.report is not None or seen.media is None:
        return _ended(seen.report or FileReport.failed(path, "cannot be read"))
    try:
        plan = ways.plan(probe(path))
    except MediaError:  # it is told once, by who reads it
        plan = None
    if plan is None or not plan.is_cut:
        return Outcome(next=[NewTask(READ, Queue.ENCODE, held.claim.arguments, held.claim.item, _READ_RANK)])
    return Outcome(next=[_in_pieces(held, seen.media, plan)])


def _in_pieces(held: Held, media: MediaId, plan: Plan) -> NewTask:
    """The join of a film, after all its pieces."""
    named = {**held.claim.arguments, "media": media, "state": _state(_path(held))}
    item = held.claim.item
    pieces = [
        NewTask(LOOK, Queue.ENCODE, named | {"piece": number, "span": [span.start, span.end]}, item, _PIECE_RANK)
        for number, span in enumerate(plan.pictures)
    ]
    if plan.sound:
        pieces.append(NewTask(LISTEN, Queue.ENCODE, named, item, _PIECE_RANK))
    return NewTask(JOIN, Queue.ENCODE, named, item, _JOIN_RANK, after=pieces)


def _read(ways: Ways, held: Held) -> Outcome:
    read = ways.extract()

    def extract(path: Path) -> Extraction:
        return read(path, held.check)

    return _ended(ways.intake().ingest_file(_path(held), held.claim.archive, held.confirm, extract))


def _listen(ways: Ways, held: Held) -> Outcome:
    return _piece(ways, held, ways.parts.sound(_media(held), ways.desk.settings), ways.reader().listen)


def _look(ways: Ways, held: Held) -> Outcome:
    told = held.claim.arguments
    place = ways.parts.pictures(_media(held), ways.desk.settings, int(told["piece"]))
    return _piece(ways, held, place, lambda path: ways.reader().look(path, Span(*told["span"]), held.check))


def _piece(ways: Ways, held: Held, place: Any, work: Callable[[Path], Seen | Heard]) -> Outcome:  # noqa: ANN401
    """Do one piece of a film, unless it is there; a film that changes under the work is of no use."""
    path = _path(held)
    try:
        if not place.exists():
            _refuse_changed(held)
            part = work(path)
            _refuse_changed(held)
            held.confirm()
            place.write(part)
    except MediaError as error:
        return _refused(ways, held, error)
    return Outcome()


def _join(ways: Ways, held: Held) -> Outcome:
    """Make one answer of the pieces and enter it; pieces that are lost are done again."""
    path, media, archive = _path(held), _media(held), held.claim.archive
    known = ways.desk.known(path, media, archive)
    if known is not None:
        return _ended(known)
    parts, settings = ways.parts, ways.desk.settings
    try:
        info = probe(path)
        plan = ways.plan(info)
        heard = parts.sound(media, settings).read() if plan.sound else None
        seen = (parts.pictures(media, settings, number).read() for number in range(len(plan.pictures)))
        extraction = ways.reader().join(path, media, info, heard, seen)
        _refuse_changed(held)
    except PartError:
        parts.remove(media, settings)
        return Outcome(next=[_in_pieces(held, media, plan)])
    except MediaError as error:
        return _refused(ways, held, error)
    report = ways.intake().enter(path, archive, extraction, held.confirm)
    parts.remove(media, settings)
    parts.remove_stale()
    return _ended(report)


def _refused(ways: Ways, held: Held, error: MediaError) -> Outcome:
    """A film that cannot be read: what other pieces found of its people goes too."""
    ways.parts.remove(_media(held), ways.desk.settings)
    return _ended(ways.desk.refuse(_path(held), _media(held), held.claim.archive, error))


def _path(held: Held) -> Path:
    return Path(held.claim.arguments["path"])


def _media(held: Held) -> MediaId:
    return MediaId(held.claim.arguments["media"])


def _state(path: Path) -> list[int]:
    """Size and time of change of a file, by which it is seen that it is not what it was; of none that is gone."""
    try:
        told = path.stat()
    except OSError:
        return []
    return [told.st_size, told.st_mtime_ns]


def _refuse_changed(held: Held) -> None:
    if _state(_path(held)) != held.claim.arguments["state"]:
        raise MediaError(_path(held), "changed while it was read: try it again when it is written to its end")


def outside(asked: Mapping[str, Any]) -> Outcome | None:
    """How a file ends whose links lead out of where files may be taken from; None of any other."""
    if asked.get("within") is None or "path" not in asked or lies_within(asked["path"], asked["within"]):
        return None
    return _ended(FileReport.failed(asked["path"], OUTSIDE))


def _ended(report: FileReport) -> Outcome:
    state = TaskState.FAILED if report.state == "failed" else TaskState.DONE
    return Outcome(state, ItemState(report.state), report.to_json(), report.reason, seconds=report.seconds_of_media)
