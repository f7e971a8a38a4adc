"""How jobs stand, for people: counts by state, rate, what remains, which files failed and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from ingest.book import ITEMS, JOBS, TASKS, clock
from ingest.jobs import FileReport, UnknownJob
from ingest.tasks import ItemState, TaskState
from ingest.transactions import reading, repeatable

JobStanding = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
FIRST_ERRORS = 5
MOST_FILES = 1000
RECENT_SECONDS = 300.0
"""The rate is that of the last minutes: an archive's films come after its photos."""
_ENDED = (ItemState.DONE, ItemState.UNCHANGED, ItemState.FAILED)


@dataclass(frozen=True)
class FileStanding:
    """One file of a job.

    Args:
        number: its place in the job, from 1.
        path: as it was named.
        state: waiting, running, done, unchanged, failed or cancelled.
        reason: why it failed; None unless it did.
        attempts: runs that failed.
        report: what was found, once it is done; JSON values.
    """

    number: int
    path: str
    state: str
    reason: str | None = None
    attempts: int = 0
    report: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """One job as it stands; all counts are of one moment.

    Args:
        job: its id.
        kind: ``ingest``, ``enrol``, ``evaluate`` …
        state: queued, running, paused, done, failed or cancelled; failed: the job itself, not some of its files.
        archive: name of the archive that its files belong to.
        priority: higher comes first.
        created, started, finished: seconds since 1970; None: not yet.
        files: number of its files found so far.
        counts: files by state, every state named.
        faces, voices: face tracks and speech turns of its files.
        seconds_of_media: that its files hold.
        rate: files ended per second, of late; 0 while nothing has.
        real_time: seconds of media per second, of late.
        remaining: seconds to its end at that rate; None where that cannot be said.
        obstacle: what its tasks wait for, such as an index that does not answer; None: nothing.
        first_errors: the first files that failed, with reasons.
        asked: what was asked for.
        result: what it gave; None where its files are the result, or until it is done.
        error: why it failed as a whole.
    """

    job: str
    kind: str
    state: JobStanding
    archive: str
    priority: int
    created: float
    started: float | None = None
    finished: float | None = None
    files: int
    counts: dict[str, int]
    seconds_of_media: float
    rate: float
    real_time: float
    remaining: float | None = None
    obstacle: str | None = None
    first_errors: list[FileStanding] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: str | None = None


class JobPages:
    """Reads how jobs stand. Raises RecordsError."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    @repeatable
    def page(self, job: str) -> JobPage:
        """One job. Raises UnknownJob."""
        with reading(self._database) as connection:
            return _page(connection, job)

    @repeatable
    def recent(self, limit: int = 20, *, unfinished: bool = False) -> list[JobPage]:
        """The jobs asked for last, the newest first.

        Args:
            limit: how many at most.
            unfinished: only those that are not finished.
        """
        newest = sql.select(JOBS.c.id).order_by(JOBS.c.created.desc(), JOBS.c.id).limit(limit)
        if unfinished:
            newest = newest.where(JOBS.c.finished.is_(None))
        pages = []
        with reading(self._database) as connection:
            for job in connection.scalars(newest).all():
                with suppress(UnknownJob):  # forgotten a moment ago
                    pages.append(_page(connection, job))
        return pages

    @repeatable
    def named(self, beginning: str) -> str:
        """The id of the one job whose id begins so. Raises UnknownJob if there is none, or several."""
        found: Sequence[str] = []
        if re.fullmatch("[0-9a-f]{1,32}", beginning):
            alike = sql.select(JOBS.c.id).where(JOBS.c.id.startswith(beginning)).limit(2)
            with reading(self._database) as connection:
                found = connection.scalars(alike).all()
        if len(found) > 1:
            raise UnknownJob(f"several jobs begin with {beginning!r}: give more of the id")
        if not found:
            raise UnknownJob(f"no job {beginning!r} is known")
        return found[0]

    @repeatable
    def files(
        self, job: str, *, states: Sequence[ItemState] = (), after: int = 0, limit: int = 100
    ) -> list[FileStanding]:
        """A page of a job's files in order of number. Raises UnknownJob.

        Args:
            job: its id.
            states: only files that stand so; all by default.
            after: begins behind this number.
            limit: 1 to ``MOST_FILES``.
        """
        wanted = sql.select(ITEMS).where(ITEMS.c.job == job, ITEMS.c.number > after)
        if states:
            wanted = wanted.where(ITEMS.c.state.in_(states))
        with reading(self._database) as connection:
            if connection.execute(sql.select(JOBS.c.id).where(JOBS.c.id == job)).first() is None:
                raise UnknownJob(f"no job {job!r} is known")
            return _standings(connection, wanted.order_by(ITEMS.c.number).limit(min(limit, MOST_FILES)))

    def reports(self, job: str) -> Iterator[FileReport]:
        """What became of every file of a job that has ended so far. Raises UnknownJob."""
        after = 0
        while files := self.files(job, after=after, limit=MOST_FILES):
            after = files[-1].number
            for file in files:
                if file.report is not None:
                    yield FileReport.from_json(file.report)
                elif file.state == ItemState.FAILED:
                    yield FileReport.failed(file.path, file.reason or "failed")


def _standings(connection: Connection, wanted: sql.Select[Any]) -> list[FileStanding]:
    names = ("number", "path", "state", "reason", "attempts", "report")
    return [FileStanding(**{name: row[name] for name in names}) for row in connection.execute(wanted).mappings()]


def _page(connection: Connection, job: str) -> JobPage:
    # One statement, one moment: what is counted and whether the job is finished cannot disagree.
    counted = (
        sql.select(*JOBS.columns, ITEMS.c.state.label("item_state"), sql.func.count(ITEMS.c.number).label("files"),
                   sql.func.coalesce(sql.func.sum(ITEMS.c.seconds), 0.0).label("seconds"))
        .select_from(JOBS.outerjoin(ITEMS, ITEMS.c.job == JOBS.c.id))
        .where(JOBS.c.id == job)
        .group_by(JOBS.c.id, ITEMS.c.state)
    )  # fmt: skip
    rows = connection.execute(counted).mappings().all()
    if not rows:
        raise UnknownJob(f"no job {job!r} is known")
    counts = {str(state): 0 for state in ItemState}
    counts |= {row["item_state"]: int(row["files"]) for row in rows if row["item_state"]}
    row, files = rows[0], sum(counts.values())
    rate, real_time = _rates(connection, row)
    left = counts[ItemState.WAITING] + counts[ItemState.RUNNING]
    failed = sql.select(ITEMS).where(ITEMS.c.job == job, ITEMS.c.state == ItemState.FAILED)
    told = min(FIRST_ERRORS, counts[ItemState.FAILED])  # no more than were counted a moment ago
    return JobPage(
        job=job, kind=row["kind"], state=_standing(row, counts), archive=row["archive"], priority=row["priority"],
        created=row["created"], started=row["started"], finished=row["finished"], files=files, counts=counts,
        seconds_of_media=round(sum(float(one["seconds"]) for one in rows), 3), rate=round(rate, 4),
        real_time=round(real_time, 3), remaining=round(left / rate, 1) if rate and not row["finished"] else None,
        obstacle=None if row["finished"] else _obstacle(connection, job),
        first_errors=_standings(connection, failed.order_by(ITEMS.c.number).limit(told)),
        asked=row["asked"], result=row["result"], error=row["failure"],
    )  # fmt: skip


def _obstacle(connection: Connection, job: str) -> str | None:
    """Why a task waits that was begun before, and not for its own fault."""
    waits = sql.and_(TASKS.c.job == job, TASKS.c.state == TaskState.WAITING, TASKS.c.losses > 0)
    told = sql.select(TASKS.c.reason).where(waits, TASKS.c.reason.is_not(None)).limit(1)
    return connection.scalar(told)


def _standing(row: sql.RowMapping, counts: dict[str, int]) -> JobStanding:
    if row["cancelled"]:
        return "cancelled"
    if row["finished"] is not None:
        return "failed" if row["failure"] else "done"
    if row["paused"]:
        return "paused"
    begun = row["started"] is not None or counts[ItemState.RUNNING]
    return "running" if begun else "queued"


def _rates(connection: Connection, row: sql.RowMapping) -> tuple[float, float]:
    """Files and seconds of media per second: of the last minutes, of a finished job over its whole time."""
    if row["started"] is None:
        return 0.0, 0.0
    end = row["finished"] or clock(connection)
    since = row["started"] if row["finished"] else max(row["started"], end - RECENT_SECONDS)
    ended = sql.and_(ITEMS.c.job == row["id"], ITEMS.c.state.in_(_ENDED), ITEMS.c.updated >= since)
    told = sql.select(sql.func.count(), sql.func.coalesce(sql.func.sum(ITEMS.c.seconds), 0.0)).where(ended)
    files, seconds = connection.execute(told).one()
    elapsed = max(end - since, 1e-3)
    return files / elapsed, float(seconds) / elapsed
