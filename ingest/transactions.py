"""Transactions in the records' database, and living through it that the database goes away.

A transaction of which the database says nothing was done may be done again. So a function that is one transaction
and touches nothing else is marked ``repeatable``, and is repeated as long as patience lasts when the database goes
away in the midst of it. Where a connection is lost while the transaction is being committed, PostgreSQL is asked
whether it was, so that nothing is done twice: each connection counts its transactions in a row of its own, in the
same transaction. (Its numbers of transactions would not do: after a crash it gives those anew that it lost.)
"""

from __future__ import annotations

import functools
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from ingest.outage import Outage

# A transaction that the database broke off so often is not the victim of others.
MOST_ATTEMPTS = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
OUTAGE_OPTION = "visavox_outage"
_METADATA = sql.MetaData()
_COMMITS = sql.Table(
    "commits",
    _METADATA,
    sql.Column("link", sql.String(32), primary_key=True),
    sql.Column("number", sql.BigInteger, nullable=False),
    sql.Column("moment", sql.DateTime, nullable=False),
)
_COUNT = sql.text(
    "INSERT INTO commits (link, number, moment) SELECT :link, :number, :moment"
    " WHERE pg_current_xact_id_if_assigned() IS NOT NULL"  # else nothing was written
    " ON CONFLICT (link) DO UPDATE SET number = excluded.number, moment = excluded.moment"
).bindparams(sql.bindparam("moment", type_=sql.DateTime), sql.bindparam("number", type_=sql.BigInteger))
# A write, which waits until the transaction has ended that is asked about; to be rolled back.
_ASK = sql.text(
    "INSERT INTO commits (link, number, moment) VALUES (:link, -1, :moment)"
    " ON CONFLICT (link) DO UPDATE SET number = commits.number RETURNING number"
)
_COUNTS_KEPT = timedelta(days=1)

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class RecordsError(Exception):
    """The database of the records cannot be opened, read or written; the message says what to look at."""


class RecordsAway(RecordsError):
    """The database cannot be reached, went away or broke a transaction off, of which nothing was done.

    Attributes:
        outage: counts how long it has been away; None if it is not to be waited for any more.
        broken_off: whether the database is there, and chose this transaction to end a deadlock.
    """

    outage: Outage[RecordsAway] | None = None
    broken_off = False


class OutcomeUnknown(RecordsError):
    """The database went away while a transaction was being committed, and cannot say whether it was."""


def now() -> datetime:
    """The present moment in UTC, without zone, as the records keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


def repeatable(work: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Do a function again when the database went away in the midst of its transaction, of which nothing was done.

    For functions that are transactions of :func:`writing` and :func:`reading` and nothing else: if they are several,
    those before the last must bear being done twice.
    """

    @functools.wraps(work)
    def patient(*given: Given.args, **named: Given.kwargs) -> Answer:
        pause = _FIRST_PAUSE
        for _ in range(MOST_ATTEMPTS - 1):
            asked = time.monotonic()
            try:
                return work(*given, **named)
            except RecordsAway as error:
                wait = pause * random.uniform(0.5, 1)  # noqa: S311 - so that two do not meet again and again
                if error.broken_off:
                    time.sleep(wait)
                elif error.outage is None:
                    raise
                else:
                    error.outage.wait(error, asked, wait)
                pause = min(2 * pause, _LONGEST_PAUSE)
        return work(*given, **named)

    return patient


@contextmanager
def reading(database: Engine) -> Iterator[Connection]:
    """A connection to read by, waited for while the database is away and patience lasts. Raises RecordsError."""
    connection = connected(database)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def writing(database: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end of the block unless it raises; its begin waits as that of ``reading``.

    Raises:
        RecordsAway: the database went away; nothing was done. A function marked ``repeatable`` is repeated.
        OutcomeUnknown: it went away while the transaction was being committed, and does not come back in time.
        RecordsError: anything else is wrong with it.
    """
    connection = connected(database)
    try:
        transaction = connection.begin()
        try:
            yield connection
            counted = _count(connection) if connection.dialect.name == "postgresql" else None
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except RecordsAway as lost:
            if lost.broken_off or (counted and not _was_committed(database, *counted, lost)):
                raise
        except BaseException:
            connection.invalidate()  # whatever it has begun ends with it
            raise
    finally:
        connection.close()


def _count(connection: Connection) -> tuple[str, int] | None:
    """Count the transaction of a connection; its link and number, or None if it writes nothing."""
    link = connection.info.setdefault("link", uuid.uuid4().hex)
    number = connection.info["number"] = connection.info.get("number", 0) + 1
    written = connection.execute(_COUNT, {"link": link, "number": number, "moment": now()}).rowcount
    return (link, number) if written else None


def _was_committed(database: Engine, link: str, number: int, lost: RecordsAway) -> bool:
    """Whether a transaction was committed whose connection was lost meanwhile. Raises OutcomeUnknown."""
    try:
        return _last_committed(database, link) == number
    except RecordsError as error:
        raise OutcomeUnknown(f"{lost}; whether what was being written is there cannot be told: {error}") from error


@repeatable
def _last_committed(database: Engine, link: str) -> int:
    with reading(database) as connection:
        return int(connection.scalar(_ASK, {"link": link, "moment": now()}) or 0)


def connected(database: Engine) -> Connection:
    """A connection that is alive."""
    outage: Outage[RecordsAway] = database.get_execution_options()[OUTAGE_OPTION]
    pause = _FIRST_PAUSE
    while True:
        asked = time.monotonic()
        try:
            with outage.attempt():
                return database.connect()
        except RecordsAway as error:
            outage.wait(error, asked, pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


@repeatable
def create_tables(tables: sql.MetaData, database: Engine) -> None:
    """Create the tables that are missing, also while other processes do. Raises RecordsError."""
    if database.dialect.name == "postgresql":
        with writing(database) as connection:
            connection.execute(sql.text("SELECT pg_advisory_xact_lock(hashtext('visavox tables'))"))
            tables.create_all(connection)
    else:
        for _ in tables.tables:
            with suppress(RecordsError):  # one is there already, since a moment ago, or cannot be made
                tables.create_all(database)
                return
        tables.create_all(database)


def on_postgresql(table: sql.Table, statement: str) -> None:
    """Run a statement after a table was created, on PostgreSQL only."""

    @event.listens_for(table, "after_create")
    def _run(_table: sql.Table, connection: Connection, **_rest: object) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sql.text(statement))


def unsampled(column: sql.Column[Any]) -> None:
    """Let PostgreSQL keep no statistics of a column: among them are values, which outlive the rows."""
    on_postgresql(column.table, f"ALTER TABLE {column.table.name} ALTER COLUMN {column.name} SET STATISTICS 0")


def erase_deleted(database: Engine, *tables: str) -> None:
    """Let nothing of deleted rows stay in the files of tables. Raises RecordsError.

    SQLite overwrites rows when they are deleted. PostgreSQL writes these tables anew, so they should be small, and
    only its log of writes knows the old rows, until it is reused.
    """
    if database.dialect.name != "postgresql":
        return
    with reading(database) as connection:
        lone = connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in tables:
            lone.execute(sql.text(f"VACUUM (FULL) {table}"))


@repeatable
def prepare_counts(database: Engine) -> None:
    """Make what transactions are counted in, and forget old counts. Raises RecordsError."""
    create_tables(_METADATA, database)
    with writing(database) as connection:
        connection.execute(sql.delete(_COMMITS).where(_COMMITS.c.moment < now() - _COUNTS_KEPT))
