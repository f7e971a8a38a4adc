"""Words of the work: jobs, the files and tasks they consist of, how they stand and how they end.

A *job* is what somebody asked for; its *items* are the files it is about; *tasks* are the pieces of work. A
task that needs others waits until they are settled. What a task of a kind does is known to :mod:`ingest.flow`
and to whoever hands in the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ItemState(StrEnum):
    """How a file of a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskState(StrEnum):
    """How a piece of work stands; those settled as cancelled or failed are kept until their job is forgotten."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Queue(StrEnum):
    """Tasks by the hardware they need and what they are for."""

    PROBE = "probe"
    ENCODE = "encode"
    EVALUATE = "evaluate"
    INTERACTIVE = "interactive"


class LeaseLost(RuntimeError):
    """Somebody else has the task by now, or it was cancelled: what was done of it counts for nothing."""


@dataclass(frozen=True)
class NewTask:
    """A piece of work to be written down.

    Args:
        kind: what is to be done.
        queue: who does it.
        arguments: JSON values.
        item: number of the job's file that it is about, if of one.
        rank: of the tasks of a job the highest rank comes first, so that what was begun is ended.
        after: tasks that must be settled before it.
    """

    kind: str
    queue: Queue
    arguments: Mapping[str, Any]
    item: int | None = None
    rank: int = 0
    after: Sequence[NewTask] = ()


@dataclass(frozen=True)
class Claim:
    """A task that somebody holds.

    Args:
        task: its id.
        fence: the token under which it is held; every later holder has a higher one.
        job, item, kind, arguments: of the task.
        archive: name of the job's archive.
        attempts: failed runs before this one.
    """

    task: str
    fence: int
    job: str
    item: int | None
    kind: str
    arguments: Mapping[str, Any]
    archive: str
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Args:
        state: of the task.
        item: how its file stands now; None: no different.
        report: of the file, JSON values; with ``item`` only.
        reason: what went wrong, for people to read.
        seconds: of media that the file holds.
        result: of the whole job, JSON values.
        next: tasks that follow from it.
        items: paths of files that the job is about too, as a walk found them.
        item_task: what is to be done with each of them; its ``path`` is filled in.
    """

    state: TaskState = TaskState.DONE
    item: ItemState | None = None
    report: Mapping[str, Any] | None = None
    reason: str | None = None
    seconds: float = 0.0
    result: Mapping[str, Any] | None = None
    next: Sequence[NewTask] = ()
    items: Sequence[str] = ()
    item_task: NewTask | None = None


@dataclass(frozen=True)
class Loss:
    """A task whose child process died on it: its job, its kind, and whether it has been given up."""

    job: str
    kind: str
    given_up: bool


@dataclass(frozen=True)
class NewJob:
    """What somebody asks for.

    Args:
        kind: ``ingest``, ``enrol``, ``evaluate`` …
        archive: name of the archive that its files belong to.
        priority: jobs of higher priority come first.
        asked: JSON values that say what was asked for, for people to read.
        paths: files that it is about.
        item_task: what is to be done with each of them; its ``path`` is filled in.
        tasks: what else is to be done.
    """

    kind: str
    archive: str = "default"
    priority: int = 0
    asked: Mapping[str, Any] = field(default_factory=dict)
    paths: Sequence[str] = ()
    item_task: NewTask | None = None
    tasks: Sequence[NewTask] = ()
