"""The book of work: which jobs there are, who does which task of them, and what became of it.

The records' database is the queue; a broker only wakes workers up. So a message that is lost, late or there
twice changes nothing: who wakes *claims* the best task that waits, for a lease that a heartbeat renews, and
every claim raises the task's fencing token. Whoever comes back after its lease has gone to somebody else finds
another token, and can settle nothing any more.

Times are seconds since 1970 by the database's clock, which is the same for all machines.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from ingest.database import StorableText
from ingest.jobs import UnknownJob
from ingest.ledger import Ledger, record_file
from ingest.tasks import Claim, ItemState, LeaseLost, Loss, NewJob, NewTask, Outcome, Queue, TaskState
from ingest.transactions import create_tables, reading, repeatable, writing

METADATA = sql.MetaData()

JOBS = sql.Table(
    "jobs",
    METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("archive", StorableText, nullable=False),
    sql.Column("priority", sql.Integer, nullable=False),
    sql.Column("created", sql.Float(53), nullable=False),
    sql.Column("started", sql.Float(53), nullable=True),
    sql.Column("finished", sql.Float(53), nullable=True, index=True),
    sql.Column("paused", sql.Boolean, nullable=False),
    sql.Column("cancelled", sql.Boolean, nullable=False),
    sql.Column("asked", sql.JSON, nullable=False),
    sql.Column("result", sql.JSON, nullable=True),
    sql.Column("failure", StorableText, nullable=True),
)
ITEMS = sql.Table(
    "items",
    METADATA,
    sql.Column("job", sql.String(32), primary_key=True),
    sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("path", StorableText, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", StorableText, nullable=True),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("seconds", sql.Float(53), nullable=False),
    sql.Column("report", sql.JSON, nullable=True),
    sql.Column("updated", sql.Float(53), nullable=False),
)
sql.Index("items_by_state", ITEMS.c.job, ITEMS.c.state, ITEMS.c.number)
TASKS = sql.Table(
    "tasks",
    METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("job", sql.String(32), nullable=False),
    sql.Column("item", sql.BigInteger, nullable=True),
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("queue", sql.String(16), nullable=False),
    sql.Column("rank", sql.Integer, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("needs", sql.Integer, nullable=False),
    sql.Column("needed_by", sql.String(32), nullable=True),
    sql.Column("arguments", sql.JSON, nullable=False),
    sql.Column("fence", sql.BigInteger, nullable=False),
    sql.Column("holder", sql.String(64), nullable=True, index=True),
    sql.Column("leased_until", sql.Float(53), nullable=True),
    sql.Column("not_before", sql.Float(53), nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("losses", sql.Integer, nullable=False),
    sql.Column("reason", StorableText, nullable=True),
)
sql.Index("tasks_to_claim", TASKS.c.job, TASKS.c.state, TASKS.c.queue, TASKS.c.rank, TASKS.c.item)
sql.Index("tasks_leased", TASKS.c.state, TASKS.c.leased_until)

MOST_ATTEMPTS = 5
"""Runs of a task that end in its own failure or its process' death, after which it is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a task is tried again; doubled each time."""
_ROWS_AT_ONCE = 500
_OPEN_ITEMS = (ItemState.WAITING, ItemState.RUNNING)
_OPEN_TASKS = (TaskState.WAITING, TaskState.RUNNING)
_UNDER_WAY = sql.and_(JOBS.c.finished.is_(None), sql.not_(JOBS.c.paused))
_FOR_ANYBODY = sql.not_(sql.func.coalesce(JOBS.c.asked["here"].as_boolean(), sql.false()))


def clock(connection: Connection) -> float:
    """Seconds since 1970 by the database's clock."""
    if connection.dialect.name == "postgresql":
        told = connection.scalar(sql.text("SELECT extract(epoch FROM clock_timestamp())"))
    else:
        told = connection.scalar(sql.text("SELECT (julianday('now') - 2440587.5) * 86400.0"))
    return float(told or 0.0)


class Book:
    """Jobs, items and tasks. Every method is one transaction, and raises RecordsError.

    Args:
        database: of the records.
        first_pause: seconds before a task is tried again; doubled each time.
    """

    def __init__(self, database: Engine, first_pause: float = FIRST_PAUSE) -> None:
        self.database = database
        self._first_pause = first_pause
        Ledger(database)  # a file that is given up is entered there
        create_tables(METADATA, database)

    # ---- jobs ---------------------------------------------------------------------------------

    @repeatable
    def open_job(self, job: NewJob) -> str:
        """Write a job down and give its id: from here on it is not lost."""
        identity = uuid.uuid4().hex
        with writing(self.database) as connection:
            now = clock(connection)
            connection.execute(
                sql.insert(JOBS).values(
                    id=identity, kind=job.kind, archive=job.archive, priority=job.priority, created=now,
                    started=None, finished=None, paused=False, cancelled=False, asked=dict(job.asked),
                )
            )  # fmt: skip
            _add_items(connection, identity, job.paths, job.item_task, now)
            _add_tasks(connection, identity, job.tasks)
            _finish_if_done(connection, identity, now)
        return identity

    def pause(self, job: str) -> None:
        """Begin nothing more of a job; what runs ends. Raises UnknownJob."""
        self._mark(job, paused=True)

    def resume(self, job: str) -> None:
        """Go on with a paused job. Raises UnknownJob."""
        self._mark(job, paused=False)

    @repeatable
    def cancel(self, job: str) -> None:
        """Do nothing more of a job; what runs is abandoned at its next heartbeat. Raises UnknownJob."""
        with writing(self.database) as connection:
            now = clock(connection)
            if _job(connection, job).finished is not None:
                return
            connection.execute(sql.update(JOBS).where(JOBS.c.id == job).values(cancelled=True, finished=now))
            _cancel_open(connection, job, now)

    @repeatable
    def cancel_abandoned(self, kind: str) -> int:
        """Cancel jobs that a process did itself and left behind, being killed; gives their number.

        Such a job says ``here`` in what was asked for. Whoever asks for the same again goes on where it was.
        """
        with writing(self.database) as connection:
            now = clock(connection)
            unfinished = sql.select(JOBS.c.id, JOBS.c.asked).where(JOBS.c.kind == kind, JOBS.c.finished.is_(None))
            alive = sql.select(TASKS.c.job).where(TASKS.c.state == TaskState.RUNNING, TASKS.c.leased_until >= now)
            rows = connection.execute(unfinished.where(JOBS.c.id.not_in(alive))).all()
            left = [row.id for row in rows if row.asked.get("here")]
            for job in left:
                connection.execute(sql.update(JOBS).where(JOBS.c.id == job).values(cancelled=True, finished=now))
                _cancel_open(connection, job, now)
            return len(left)

    @repeatable
    def retry(self, job: str, item_task: NewTask, *, here: bool = False) -> int:
        """Try the failed and the cancelled files of a job again; gives their number. Raises UnknownJob.

        Args:
            job: its id.
            item_task: what is to be done with each; its ``path`` is filled in.
            here: by the process that asks for it; else by whoever takes jobs up, also if it was done so before.
        """
        again = (ItemState.FAILED, ItemState.CANCELLED)
        with writing(self.database) as connection:
            now = clock(connection)
            asked = {**_job(connection, job).asked, "here": here}
            where = sql.and_(ITEMS.c.job == job, ITEMS.c.state.in_(again))
            failed = connection.execute(sql.select(ITEMS.c.number, ITEMS.c.path).where(where)).all()
            if not failed:
                return 0
            connection.execute(
                sql.update(ITEMS).where(where).values(
                    state=ItemState.WAITING, reason=None, attempts=0, report=None, updated=now
                )
            )  # fmt: skip
            connection.execute(
                sql.update(JOBS).where(JOBS.c.id == job).values(
                    finished=None, cancelled=False, paused=False, failure=None, asked=asked
                )
            )  # fmt: skip
            _add_tasks(connection, job, [_about(item_task, one.number, one.path) for one in failed])
            return len(failed)

    @repeatable
    def forget(self, job: str) -> None:
        """Remove a finished job from the book. Raises UnknownJob, ValueError if it is not finished."""
        with writing(self.database) as connection:
            if _job(connection, job).finished is None:
                raise ValueError(f"job {job} is not finished: cancel it first")
            for table in (TASKS, ITEMS):
                connection.execute(sql.delete(table).where(table.c.job == job))
            connection.execute(sql.delete(JOBS).where(JOBS.c.id == job))

    @repeatable
    def _mark(self, job: str, **values: object) -> None:
        with writing(self.database) as connection:
            _job(connection, job)
            connection.execute(sql.update(JOBS).where(JOBS.c.id == job).values(**values))

    # ---- tasks --------------------------------------------------------------------------------

    @repeatable
    def claim(self, queues: Sequence[Queue], holder: str, lease: float, job: str | None = None) -> Claim | None:
        """Take the best task that waits, or None.

        Args:
            queues: of these.
            holder: who takes it, 64 characters at most, unique for the time of its work.
            lease: seconds for which nobody else may have it, unless it is renewed.
            job: of this one only; None: of any but those that a process does itself.
        """
        with writing(self.database) as connection:
            now = clock(connection)
            opened = sql.select(JOBS.c.id, JOBS.c.archive).where(_UNDER_WAY)
            opened = opened.where(_FOR_ANYBODY if job is None else JOBS.c.id == job)
            for row in connection.execute(opened.order_by(JOBS.c.priority.desc(), JOBS.c.created, JOBS.c.id)).all():
                claimed = _claim_of(connection, row.id, queues, {"holder": holder, "leased_until": now + lease}, now)
                if claimed is None:
                    continue
                if claimed["item"] is not None:
                    _set_item(connection, row.id, claimed["item"], now, state=ItemState.RUNNING)
                first = sql.and_(JOBS.c.id == row.id, JOBS.c.started.is_(None))
                connection.execute(sql.update(JOBS).where(first).values(started=now))
                return Claim(
                    claimed["id"], claimed["fence"], row.id, claimed["item"], claimed["kind"], claimed["arguments"],
                    row.archive, claimed["attempts"],
                )  # fmt: skip
        return None

    @repeatable
    def renew(self, claim: Claim, lease: float) -> None:
        """Hold a task for longer. Raises LeaseLost."""
        with writing(self.database) as connection:
            _held(connection, claim, leased_until=clock(connection) + lease)

    @repeatable
    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Write down how a task ended, and all that follows from it, at once. Raises LeaseLost."""
        with writing(self.database) as connection:
            now = clock(connection)
            _alone_with(connection, claim.job)
            _held(connection, claim, state=outcome.state, holder=None, leased_until=None, reason=outcome.reason)
            _add_items(connection, claim.job, outcome.items, outcome.item_task, now)
            _add_tasks(connection, claim.job, outcome.next)
            if outcome.result is not None or (outcome.reason and claim.item is None):
                about = sql.update(JOBS).where(JOBS.c.id == claim.job)
                connection.execute(about.values(result=outcome.result, failure=outcome.reason))
            if claim.item is not None and outcome.item is not None:
                told = {"report": outcome.report, "seconds": outcome.seconds, "reason": outcome.reason}
                attempts = claim.attempts + (outcome.item is ItemState.FAILED)
                _end_item(connection, claim.job, claim.item, now, state=outcome.item, attempts=attempts, **told)
            _advance(connection, claim.task)
            _finish_if_done(connection, claim.job, now)

    @repeatable
    def put_back(self, claim: Claim, reason: str, *, counts: bool) -> bool:
        """Let a task wait again, a while; whether it was given up instead. Raises LeaseLost.

        Args:
            claim: of the task.
            reason: why it did not succeed, for people to read.
            counts: whether that was the task's own fault, which it may have ``MOST_ATTEMPTS`` times.
        """
        with writing(self.database) as connection:
            now = clock(connection)
            _alone_with(connection, claim.job)
            row = _held(connection, claim)
            return _failed_once(connection, row, reason, now, first_pause=self._first_pause, counts=counts)

    @repeatable
    def release(self, claim: Claim) -> None:
        """Let a task wait again at once, as if it had never been claimed. Raises LeaseLost."""
        with writing(self.database) as connection:
            _held(connection, claim, state=TaskState.WAITING, holder=None, leased_until=None)

    @repeatable
    def died(self, holder: str, reason: str, *, counts: bool = True) -> Loss | None:
        """Note that the process of a holder died on its task; None if it held none.

        Args:
            holder: as the task was claimed.
            reason: what is told of it, should it be given up.
            counts: whether the task may have been the cause.
        """
        with writing(self.database) as connection:
            now = clock(connection)
            # of several the one at hand: another one's lease ran out, and nobody has taken it since
            mine = sql.select(TASKS.c.id, TASKS.c.job).where(TASKS.c.holder == holder, TASKS.c.state.in_(_OPEN_TASKS))
            found = connection.execute(mine.order_by(TASKS.c.state == TaskState.WAITING, TASKS.c.id)).first()
            if found is None:
                return None
            _alone_with(connection, found.job)
            # written before it is read, so that nobody takes it meanwhile
            still = sql.and_(TASKS.c.id == found.id, TASKS.c.holder == holder, TASKS.c.state.in_(_OPEN_TASKS))
            row = _first(connection, sql.update(TASKS).where(still).values(holder=holder))
            if row is None:
                return None
            given_up = _failed_once(connection, row, reason, now, first_pause=self._first_pause, counts=counts)
            return Loss(row["job"], row["kind"], given_up)

    @repeatable
    def take_back(self) -> int:
        """Let tasks whose lease has run out wait again; gives their number."""
        with writing(self.database) as connection:
            now = clock(connection)
            over = sql.and_(TASKS.c.state == TaskState.RUNNING, TASKS.c.leased_until < now)
            # the holder stays written down until somebody else is: its death may only be noticed now
            freed = {"state": TaskState.WAITING, "leased_until": None, "losses": TASKS.c.losses + 1}
            return int(connection.execute(sql.update(TASKS).where(over).values(**freed)).rowcount)

    @repeatable
    def waiting(self, queues: Sequence[Queue]) -> int:
        """Number of tasks that could be claimed now by anybody."""
        with reading(self.database) as connection:
            ready = sql.and_(
                TASKS.c.state == TaskState.WAITING, TASKS.c.needs == 0, TASKS.c.queue.in_(queues),
                TASKS.c.not_before <= clock(connection),
                TASKS.c.job.in_(sql.select(JOBS.c.id).where(_UNDER_WAY, _FOR_ANYBODY)),
            )  # fmt: skip
            return int(connection.scalar(sql.select(sql.func.count()).select_from(TASKS).where(ready)) or 0)


def _job(connection: Connection, job: str) -> sql.Row[Any]:
    """A job, which nobody else changes until the transaction ends. Raises UnknownJob."""
    row = _alone_with(connection, job)
    if row is None:
        raise UnknownJob(f"no job {job!r} is known")
    return row


def _alone_with(connection: Connection, job: str) -> sql.Row[Any] | None:
    """Keep others from changing a job: two who end its last tasks at one moment would each see the other's open."""
    return connection.execute(sql.select(JOBS).where(JOBS.c.id == job).with_for_update()).first()


def _path(connection: Connection, job: str, item: int | None) -> str | None:
    found = sql.select(ITEMS.c.path).where(ITEMS.c.job == job, ITEMS.c.number == item)
    return None if item is None else connection.scalar(found)


def _first(connection: Connection, change: sql.Update) -> sql.RowMapping | None:
    """The task that a change changed, if any."""
    return connection.execute(change.returning(*TASKS.columns)).mappings().first()


def _held(connection: Connection, claim: Claim, **values: object) -> sql.RowMapping:
    """The row of a task that is held, after a change. Raises LeaseLost."""
    mine = sql.and_(TASKS.c.id == claim.task, TASKS.c.fence == claim.fence, TASKS.c.state == TaskState.RUNNING)
    row = _first(connection, sql.update(TASKS).where(mine).values(**(values or {"fence": claim.fence})))
    if row is None:
        raise LeaseLost(f"task {claim.task} is held by somebody else by now, or was cancelled")
    return row


def _claim_of(
    connection: Connection, job: str, queues: Sequence[Queue], holding: Mapping[str, Any], now: float
) -> sql.RowMapping | None:
    """Claim the best waiting task of one job."""
    ready = sql.and_(
        TASKS.c.job == job, TASKS.c.state == TaskState.WAITING, TASKS.c.queue.in_(queues), TASKS.c.needs == 0,
        TASKS.c.not_before <= now,
    )  # fmt: skip
    best = sql.select(TASKS.c.id).where(ready).order_by(TASKS.c.rank.desc(), TASKS.c.item, TASKS.c.id).limit(1)
    best = best.with_for_update(skip_locked=True)
    taken = sql.and_(TASKS.c.id == best.scalar_subquery(), TASKS.c.state == TaskState.WAITING)
    change = sql.update(TASKS).where(taken).values(state=TaskState.RUNNING, fence=TASKS.c.fence + 1, **holding)
    return _first(connection, change)


def _failed_once(
    connection: Connection, row: sql.RowMapping, reason: str, now: float, *, first_pause: float, counts: bool
) -> bool:
    """A run of a task ended badly: it waits again, or is given up."""
    attempts, losses = int(row["attempts"]) + counts, int(row["losses"]) + (not counts)
    given_up = attempts >= MOST_ATTEMPTS
    pause = min(LONGEST_PAUSE, first_pause * 2.0 ** min((attempts if counts else losses) - 1, 16))
    connection.execute(
        sql.update(TASKS).where(TASKS.c.id == row["id"]).values(
            state=TaskState.FAILED if given_up else TaskState.WAITING, holder=None, leased_until=None,
            attempts=attempts, losses=losses, reason=reason, not_before=now + pause,
        )
    )  # fmt: skip
    if given_up and row["item"] is None:
        connection.execute(sql.update(JOBS).where(JOBS.c.id == row["job"]).values(failure=reason))
    if row["item"] is not None and given_up:
        _record_failure(connection, row["job"], row["item"], reason)
        ended = {"state": ItemState.FAILED, "attempts": attempts, "reason": reason}
        _end_item(connection, row["job"], row["item"], now, **ended)
    elif row["item"] is not None:
        _set_item(connection, row["job"], row["item"], now, attempts=attempts)
    if given_up:
        _finish_if_done(connection, row["job"], now)
    return given_up


def _record_failure(connection: Connection, job: str, item: int, reason: str) -> None:
    """A file that was given up is a failed file of its archive: nobody else was left to write that down."""
    path, archive = _path(connection, job, item), connection.scalar(sql.select(JOBS.c.archive).where(JOBS.c.id == job))
    record_file(connection, Path(str(path)), None, str(archive), reason=reason)


def _set_item(connection: Connection, job: str, item: int, now: float, **values: object) -> None:
    where = sql.and_(ITEMS.c.job == job, ITEMS.c.number == item)
    connection.execute(sql.update(ITEMS).where(where).values(updated=now, **values))


def _end_item(connection: Connection, job: str, item: int, now: float, **values: object) -> None:
    """A file is through: whatever else was to be done about it is not done any more."""
    _set_item(connection, job, item, now, **values)
    rest = sql.and_(TASKS.c.job == job, TASKS.c.item == item, TASKS.c.state.in_(_OPEN_TASKS))
    connection.execute(sql.update(TASKS).where(rest).values(state=TaskState.CANCELLED, holder=None, leased_until=None))


def _advance(connection: Connection, task: str) -> None:
    """Count a settled task off those that wait for it."""
    waiting = sql.select(TASKS.c.needed_by).where(TASKS.c.id == task).scalar_subquery()
    connection.execute(sql.update(TASKS).where(TASKS.c.id == waiting).values(needs=TASKS.c.needs - 1))


def _cancel_open(connection: Connection, job: str, now: float) -> None:
    tasks = sql.and_(TASKS.c.job == job, TASKS.c.state.in_(_OPEN_TASKS))
    connection.execute(sql.update(TASKS).where(tasks).values(state=TaskState.CANCELLED, holder=None))
    items = sql.and_(ITEMS.c.job == job, ITEMS.c.state.in_(_OPEN_ITEMS))
    connection.execute(sql.update(ITEMS).where(items).values(state=ItemState.CANCELLED, updated=now))


def _finish_if_done(connection: Connection, job: str, now: float) -> None:
    """A job without open tasks is finished."""
    opened = sql.and_(TASKS.c.job == job, TASKS.c.state.in_(_OPEN_TASKS))
    some = sql.exists(sql.select(sql.literal(1)).where(opened))
    done = sql.and_(JOBS.c.id == job, JOBS.c.finished.is_(None), sql.not_(some))
    connection.execute(sql.update(JOBS).where(done).values(finished=now))


def _about(task: NewTask, number: int, path: str) -> NewTask:
    """A file's own task."""
    return replace(task, item=number, arguments={**task.arguments, "path": path})


def _add_items(connection: Connection, job: str, paths: Sequence[str], item_task: NewTask | None, now: float) -> None:
    """Write down files of a job, and what is to be done with each."""
    if not paths:
        return
    if item_task is None:
        raise ValueError("files of a job need a task: give item_task")
    first = int(connection.scalar(sql.select(sql.func.max(ITEMS.c.number)).where(ITEMS.c.job == job)) or 0) + 1
    for start in range(0, len(paths), _ROWS_AT_ONCE):
        batch = list(enumerate(paths[start : start + _ROWS_AT_ONCE], first + start))
        rows = [
            {"job": job, "number": number, "path": path, "state": ItemState.WAITING, "reason": None, "attempts": 0,
             "seconds": 0.0, "updated": now}
            for number, path in batch
        ]  # fmt: skip
        connection.execute(sql.insert(ITEMS), rows)
        _add_tasks(connection, job, [_about(item_task, number, path) for number, path in batch])


def _add_tasks(connection: Connection, job: str, tasks: Sequence[NewTask], needed_by: str | None = None) -> None:
    """Write down tasks, and those before them."""
    rows, before = [], []
    for task in tasks:
        identity = uuid.uuid4().hex
        rows.append(
            {"id": identity, "job": job, "item": task.item, "kind": task.kind, "queue": task.queue, "rank": task.rank,
             "state": TaskState.WAITING, "needs": len(task.after), "needed_by": needed_by,
             "arguments": dict(task.arguments), "fence": 0, "not_before": 0.0, "attempts": 0, "losses": 0}
        )  # fmt: skip
        before.append((identity, task.after))
    if rows:
        connection.execute(sql.insert(TASKS), rows)
    for identity, needed in before:
        _add_tasks(connection, job, needed, identity)
