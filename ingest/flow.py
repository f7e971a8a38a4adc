"""The way of a file through a job: found by a walk, looked at, read.

Each step is a task of its own kind, so that each can wait, be tried again, and be done by whoever has the hardware
for it. What is done *with* a file is handed in: nothing here knows an index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ingest.jobs import FileReport
from ingest.runner import Held, Work
from ingest.tasks import ItemState, NewJob, NewTask, Outcome, Queue, TaskState
from ingest.walk import OUTSIDE, lies_within, walk_media

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
    return NewJob(INGEST, archive, priority, named, tasks=[NewTask(WALK, Queue.PROBE, named, rank=2)])


def first_step(asked: Mapping[str, Any]) -> NewTask:
    """What is to be done first with every file of a job that reads files, by what was asked for."""
    within = asked.get("within")
    return LOOK_AT_FILE if within is None else replace(LOOK_AT_FILE, arguments={"within": within})


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
    asked = held.claim.arguments
    walk = walk_media([Path(place) for place in asked["paths"]], home, asked.get("within"))
    problems = [{"path": path, "reason": reason} for path, reason in walk.problems().items()]
    paths = [str(path) for path in walk.media]
    told = {"ignored": walk.ignored, "failed": problems}
    return Outcome(result=told, items=paths, item_task=first_step(asked))


def _look(held: Held, recognise: Recognise) -> Outcome:
    if (refused := _outside(held.claim.arguments)) is not None:
        return refused
    report = recognise(Path(held.claim.arguments["path"]), held.claim.archive)
    if report is not None:
        return _ended(report)
    return Outcome(next=[NewTask(READ, Queue.ENCODE, held.claim.arguments, held.claim.item, rank=1)])


def _read(held: Held, intake: Intake) -> Outcome:
    if (refused := _outside(held.claim.arguments)) is not None:
        return refused
    return _ended(intake.ingest_file(Path(held.claim.arguments["path"]), held.claim.archive, held.confirm))


def _outside(asked: Mapping[str, Any]) -> Outcome | None:
    """How a file ends whose links lead out of where files may be taken from; None of any other."""
    if asked.get("within") is None or lies_within(asked["path"], asked["within"]):
        return None
    return _ended(FileReport.failed(asked["path"], OUTSIDE))


def _ended(report: FileReport) -> Outcome:
    state = TaskState.FAILED if report.state == "failed" else TaskState.DONE
    return Outcome(
        state, ItemState(report.state), report.to_json(), report.reason, seconds=report.seconds_of_media
    )  # fmt: skip
