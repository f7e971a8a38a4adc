"""The way of a file through a job: found by a walk, looked at, read.

Each step is a task of its own kind, so that each can wait, be tried again, and be done by whoever has the hardware
for it. What is done *with* a file is handed in: nothing here knows an index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ingest.jobs import FileReport
from ingest.runner import Held, Work
from ingest.tasks import ItemState, NewJob, NewTask, Outcome, Queue, TaskState
from ingest.walk import walk_media

INGEST = "ingest"
"""The kind of jobs that read files into an archive."""
WALK, LOOK, READ = "walk", "look", "read"
"""Kinds of tasks: find files, see whether a file is known already, read it."""

LOOK_AT_FILE = NewTask(LOOK, Queue.PROBE, {})
"""The first step of every file; its path is filled in."""


Recognise = Callable[[Path, str], FileReport | None]
"""The report of a file whose content is in an archive already, or that cannot be read; None: it is to be read."""


class Intake(Protocol):
    """Where files are read into: :class:`search.archive.Archive`."""

    def ingest_file(self, path: Path, archive: str, check: Callable[[], None], /) -> FileReport:
        """Read a file; what ``check`` raises abandons it before anything more is written."""


def ingest_job(paths: Sequence[Path], archive: str, *, priority: int = 0, here: bool = False) -> NewJob:
    """The job of reading files that are known by name; ``here``: by the process that asks for it."""
    return NewJob(INGEST, archive, priority, {"here": here}, [str(path) for path in paths], LOOK_AT_FILE)


def walking_job(places: Sequence[Path], archive: str, *, priority: int = 0) -> NewJob:
    """The job of reading everything below some folders."""
    named = {"paths": [str(place) for place in places]}
    return NewJob(INGEST, archive, priority, named, tasks=[NewTask(WALK, Queue.PROBE, named, rank=2)])


def ingest_work(recognise: Recognise, intake: Callable[[], Intake], home: Path) -> dict[str, Work]:
    """What to do, by kind of task.

    Args:
        recognise: whether a file is in already.
        intake: where files are read into; asked for once per task.
        home: folder of the installation, in which no media are looked for.
    """
    return {
        WALK: lambda held: _walk(held, home),
        LOOK: lambda held: _look(held, recognise),
        READ: lambda held: _read(held, intake()),
    }


def _walk(held: Held, home: Path) -> Outcome:
    walk = walk_media([Path(place) for place in held.claim.arguments["paths"]], home)
    problems = [{"path": path, "reason": reason} for path, reason in walk.problems().items()]
    paths = [str(path) for path in walk.media]
    told = {"ignored": walk.ignored, "failed": problems}
    return Outcome(result=told, items=paths, item_task=LOOK_AT_FILE)


def _look(held: Held, recognise: Recognise) -> Outcome:
    path = str(held.claim.arguments["path"])
    report = recognise(Path(path), held.claim.archive)
    if report is not None:
        return _ended(report)
    return Outcome(next=[NewTask(READ, Queue.ENCODE, {"path": path}, held.claim.item, rank=1)])


def _read(held: Held, intake: Intake) -> Outcome:
    return _ended(intake.ingest_file(Path(held.claim.arguments["path"]), held.claim.archive, held.confirm))


def _ended(report: FileReport) -> Outcome:
    state = TaskState.FAILED if report.state == "failed" else TaskState.DONE
    return Outcome(
        state, ItemState(report.state), report.to_json(), report.reason, seconds=report.seconds_of_media
    )  # fmt: skip
