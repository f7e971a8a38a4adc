"""What became of a file, and background work of one process.

A :class:`JobBoard` keeps track of questions that one process answers in the background; work that must outlive
a process is in the book (:mod:`ingest.book`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

FileState = Literal["done", "unchanged", "failed"]
JobState = Literal["queued", "running", "done", "failed"]
JsonObject = dict[str, Any]


class UnknownJob(LookupError):
    """No job of that id is known: never given out, or so long ago that it was forgotten."""


class BoardFull(RuntimeError):
    """As much work is waiting already as the board takes: ask again later."""


class JobCancelled(RuntimeError):
    """The job was dropped because its process is stopping."""


@dataclass(frozen=True)
class FileReport:
    """What became of one file.

    Args:
        path: the file as it was named.
        state: ``done`` now, ``unchanged`` (in the archive already, cost a hash only) or ``failed``.
        media: content hash; None if the file could not be read.
        faces: face tracks in it.
        voices: speech turns in it.
        seconds_of_media: its duration in seconds, 0 for a photo.
        reason: why it failed, for people to read; None unless failed.
        warnings: what was odd but did not stop the work.
    """

    path: str
    state: FileState
    media: str | None
    faces: int
    voices: int
    seconds_of_media: float
    reason: str | None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in ("done", "unchanged", "failed"):
            raise ValueError(f"{self.path}: a file is done, unchanged or failed, not {self.state!r}")
        if (self.state == "failed") != (self.reason is not None):
            raise ValueError(f"{self.path}: a failed file has a reason and no other has, got {self!r}")

    @classmethod
    def failed(cls, path: Path | str, reason: str) -> FileReport:
        """A report of a file of which nothing could be used."""
        return cls(str(path), "failed", None, 0, 0, 0.0, reason)

    def to_json(self) -> JsonObject:
        """This report as plain JSON values, field for field."""
        document = {field.name: getattr(self, field.name) for field in fields(self)}
        return document | {"warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FileReport:
        """Read back what ``to_json`` gave; unknown fields are ignored.

        Raises:
            ValueError: a field is missing or has a value that no report has.
        """
        known = [field.name for field in fields(cls)]
        missing = [name for name in known if name not in document]
        if missing:
            raise ValueError(f"a file report lacks {', '.join(missing)}: {dict(document)!r}")
        values = {name: document[name] for name in known}
        return cls(**values | {"warnings": tuple(values["warnings"])})


@dataclass(frozen=True)
class Job:
    """One piece of background work as it stands.

    Args:
        id: names it.
        state: queued, running, done or failed.
        result: what the work gave, JSON values; None unless done.
        failure: what it raised; None unless failed.
    """

    id: str
    state: JobState
    result: JsonObject | None = None
    failure: BaseException | None = None


class JobBoard:
    """Background work of one process: one thread, a bounded queue, a bounded memory of what is finished.

    Args:
        most_waiting: unfinished jobs taken at a time, the running one included.
        most_finished: finished jobs remembered; the oldest are forgotten first.
    """

    def __init__(self, *, most_waiting: int = 16, most_finished: int = 100) -> None:
        if most_waiting < 1 or most_finished < 1:
            raise ValueError("a board takes and remembers at least one job")
        self._most_waiting = most_waiting
        self._most_finished = most_finished
        # one thread: what runs here holds the networks, and two at once would only take turns
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        self._lock = threading.Lock()
        self._futures: dict[str, Future[JsonObject]] = {}

    def submit(self, work: Callable[[], JsonObject], *, afterwards: Callable[[], None] | None = None) -> str:
        """Queue work and give its job id.

        Args:
            work: gives the job's result, JSON values; what it raises is the job's failure.
            afterwards: called once when the work has ended, however it did, also if it never ran.

        Raises:
            BoardFull: too many jobs are waiting; ``afterwards`` is then not called.
        """
        identity = uuid.uuid4().hex
        with self._lock:
            unfinished = [future for future in self._futures.values() if not future.done()]
            if len(unfinished) >= self._most_waiting:
                raise BoardFull(f"{len(unfinished)} jobs are waiting already: try again later")
            future = self._pool.submit(work)
            self._futures[identity] = future
            self._forget_oldest()
        if afterwards is not None:
            future.add_done_callback(lambda _future: afterwards())
        return identity

    def get(self, identity: str) -> Job:
        """A job as it stands. Raises UnknownJob."""
        with self._lock:
            future = self._futures.get(identity)
        if future is None:
            raise UnknownJob(f"no job {identity!r} is known")
        if future.cancelled():
            return Job(identity, "failed", failure=JobCancelled("the service stopped before the job ran"))
        if not future.done():
            return Job(identity, "running" if future.running() else "queued")
        failure = future.exception()
        if failure is not None:
            return Job(identity, "failed", failure=failure)
        return Job(identity, "done", result=future.result())

    def close(self) -> None:
        """Drop what waits, and wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _forget_oldest(self) -> None:
        finished = [identity for identity, future in self._futures.items() if future.done()]
        for identity in finished[: max(0, len(finished) - self._most_finished)]:
            del self._futures[identity]
