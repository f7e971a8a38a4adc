"""The ledger: which media were read, what was found in them, and what failed.

With the people's catalogue and the evidence it is the system of record; the index can be rebuilt from it.
State of a medium: ``writing`` (tracks recorded, rows not yet all in the index) → ``done``; or ``failed``.

It also keeps announcements: what somebody is about to write that no record rests on yet. Who is killed leaves
them behind, and so the next one knows what to look for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from ingest.track import MediaId

Database = Engine
"""Where records are kept; from :func:`open_database`."""

_METADATA = sql.MetaData()

_MEDIA = sql.Table(
    "media",
    _METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("kind", sql.String(16), nullable=False),
    sql.Column("seconds", sql.Float, nullable=False),
    sql.Column("faces", sql.Integer, nullable=False),
    sql.Column("voices", sql.Integer, nullable=False),
    sql.Column("settings", sql.String(64), nullable=False),
    sql.Column("warnings", sql.JSON, nullable=False),
    sql.Column("updated", sql.DateTime, nullable=False),
)
_FILES = sql.Table(
    "files",
    _METADATA,
    sql.Column("path", sql.Text, primary_key=True),
    sql.Column("media", sql.String(64), nullable=True, index=True),
    sql.Column("archive", sql.String(200), nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=True),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("updated", sql.DateTime, nullable=False),
)


def finding_columns() -> tuple[sql.Column[Any], ...]:
    """New columns of a table whose rows are findings; the people's samples are findings too."""
    return (
        sql.Column("media", sql.String(64), primary_key=True),
        sql.Column("modality", sql.String(8), primary_key=True),
        sql.Column("evidence", sql.String(64), primary_key=True, index=True),
        sql.Column("start_ms", sql.BigInteger, primary_key=True, autoincrement=False),
        sql.Column("end_ms", sql.BigInteger, primary_key=True, autoincrement=False),
        sql.Column("track", sql.Integer, nullable=False),
        sql.Column("quality", sql.Float, nullable=False),
    )


_TRACKS = sql.Table("tracks", _METADATA, *finding_columns())
_ANNOUNCED = sql.Table(
    "announced",
    _METADATA,
    sql.Column("writer", sql.String(32), primary_key=True),
    sql.Column("subject", sql.String(64), primary_key=True, index=True),
)


@dataclass(frozen=True)
class Finding:
    """One sample found in a medium, as the records keep it: a face crop or a speech turn.

    Args:
        media: content hash of the file.
        modality: ``face`` or ``voice``.
        evidence: id of the stored crop or turn.
        start_ms: start of its track or turn in milliseconds, -1 for a photo.
        end_ms: its end, -1 for a photo.
        track: number of the face track or speaker within the medium.
        quality: 0 to 1.
    """

    media: str
    modality: str
    evidence: str
    start_ms: int
    end_ms: int
    track: int
    quality: float


@dataclass(frozen=True)
class MediaRecord:
    """What the ledger knows of one medium; seconds of media, numbers of face tracks and speech turns."""

    id: str
    state: str
    kind: str
    seconds: float
    faces: int
    voices: int
    settings: str
    warnings: tuple[str, ...]


# What the databases say of the disk, and what to do about it.
_ADVICE = (
    (("full", "No space left"), "; make room there and do the same again, which goes on where this stopped"),
    (("readonly", "unable to open"), "; check the folder, and that this user may write there"),
)


class RecordsError(Exception):
    """The database of the records cannot be opened, read or written; the message says what to look at."""


def open_database(url: str) -> Engine:
    """Open the records' database.

    SQLite gets write-ahead logging, a patient lock and ``secure_delete``, which overwrites deleted
    rows: forgetting a person must leave nothing in free pages.

    Args:
        url: an SQLAlchemy URL.

    Raises:
        RecordsError: the URL is none, or its driver is not installed. Later, from any use of the database:
            it cannot be reached, opened, read or written.
    """
    try:
        # hidden parameters: names of people and files must not get into tracebacks and logs
        engine = sql.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    except (sql.exc.ArgumentError, ImportError) as error:
        raise RecordsError(f"VISAVOX_DATABASE_URL cannot be used: {error}") from error

    @event.listens_for(engine.dialect, "handle_error")
    def _translate(context: ExceptionContext) -> RecordsError | None:
        # a broken rule of the schema is the caller's business, and a lost connection found in time the pool's;
        # everything else is the database's state
        met = context.sqlalchemy_exception
        if met is None or isinstance(met, sql.exc.IntegrityError) or context.is_pre_ping:
            return None
        return RecordsError(_explanation(engine.url.render_as_string(), context.original_exception))

    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver's own type
            cursor = connection.cursor()
            try:
                for pragma in ("busy_timeout=15000", "journal_mode=WAL", "secure_delete=ON", "synchronous=FULL"):
                    cursor.execute(f"PRAGMA {pragma}")
            except sqlite3.Error as error:
                raise RecordsError(_explanation(str(engine.url.database), error)) from error
            finally:
                cursor.close()

    try:
        engine.connect().close()  # now, where it can be told apart from the work that follows
    except sql.exc.SQLAlchemyError as error:
        raise RecordsError(f"the records in {engine.url.render_as_string()} cannot be opened: {error}") from error
    return engine


def _explanation(place: str, cause: BaseException) -> str:
    advice = next((advice for signs, advice in _ADVICE if any(sign in str(cause) for sign in signs)), "")
    return f"the records in {place} cannot be used: {cause}{advice}"


def now() -> datetime:
    """The present moment in UTC, without zone, as the records keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Ledger:
    """Media, files and tracks. Every method is one transaction."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        _METADATA.create_all(database)

    def medium(self, media: str) -> MediaRecord | None:
        """The record of a medium, or None if it was never read."""
        with self._database.connect() as connection:
            row = connection.execute(sql.select(_MEDIA).where(_MEDIA.c.id == media)).mappings().first()
        if row is None:
            return None
        fields = {name: row[name] for name in ("id", "state", "kind", "seconds", "faces", "voices", "settings")}
        return MediaRecord(**fields, warnings=tuple(row["warnings"]))

    def begin(self, record: MediaRecord, findings: Sequence[Finding]) -> None:
        """Record what was found, before any row is written; replaces what an earlier reading found."""
        values = vars(record) | {"state": "writing", "warnings": list(record.warnings), "updated": now()}
        with self._database.begin() as connection:
            connection.execute(sql.delete(_TRACKS).where(_TRACKS.c.media == record.id))
            connection.execute(sql.delete(_MEDIA).where(_MEDIA.c.id == record.id))
            connection.execute(sql.insert(_MEDIA).values(**values))
            unique = {(f.modality, f.evidence, f.start_ms, f.end_ms): vars(f) for f in findings}
            if unique:
                connection.execute(sql.insert(_TRACKS), list(unique.values()))

    def finish(self, media: str) -> None:
        """All rows of a medium are in the index."""
        with self._database.begin() as connection:
            connection.execute(sql.update(_MEDIA).where(_MEDIA.c.id == media).values(state="done", updated=now()))

    def reopen(self, media: str) -> None:
        """Some of a medium's evidence is lost: its file is to be read again when it is met."""
        with self._database.begin() as connection:
            connection.execute(sql.update(_MEDIA).where(_MEDIA.c.id == media).values(state="writing", updated=now()))

    def record_file(self, path: Path, media: MediaId | None, archive: str, *, reason: str | None = None) -> None:
        """Record the outcome of one file: done without a reason, failed with one."""
        with self._database.begin() as connection:
            record_file(connection, path, media, archive, reason=reason)

    def findings(self, media: str) -> list[Finding]:
        """Everything found in one medium."""
        with self._database.connect() as connection:
            rows = connection.execute(sql.select(_TRACKS).where(_TRACKS.c.media == media)).mappings().all()
        return [Finding(**row) for row in rows]

    def all_findings(self, batch: int = 5000) -> Iterator[Finding]:
        """Everything found in all media, in order of media, read in batches."""
        query = sql.select(_TRACKS).order_by(*_TRACKS.primary_key.columns)
        with self._database.connect() as connection:
            result = connection.execution_options(yield_per=batch).execute(query).mappings()
            for row in result:
                yield Finding(**row)

    def uses_evidence(self, evidence: str) -> bool:
        """Whether any track of the archive rests on a piece of evidence."""
        with self._database.connect() as connection:
            return (
                connection.execute(sql.select(sql.literal(1)).where(_TRACKS.c.evidence == evidence).limit(1)).first()
                is not None
            )

    def announce(self, writer: str, subjects: Collection[str]) -> None:
        """Note what a writer is about to write, before it does.

        Args:
            writer: names one piece of work, 32 characters at most.
            subjects: ids of 64 characters at most, none of them announced by this writer before.
        """
        announced = [{"writer": writer, "subject": subject} for subject in sorted(set(subjects))]
        if announced:
            with self._database.begin() as connection:
                connection.execute(sql.insert(_ANNOUNCED), announced)

    def announced(self) -> dict[str, set[str]]:
        """What is announced, by writer."""
        found: dict[str, set[str]] = {}
        with self._database.connect() as connection:
            for row in connection.execute(sql.select(_ANNOUNCED)):
                found.setdefault(row.writer, set()).add(row.subject)
        return found

    @contextmanager
    def striking_out(self, writer: str, subjects: Collection[str]) -> Iterator[set[str]]:
        """Take back a writer's announcements when the block ends; until then nobody can announce anything.

        Gives those of the subjects that nobody else announces: of them one can say now, and for the time of the
        block, that no record rests on them, and remove them. If the block raises, the announcements stay.
        """
        mine = sql.and_(_ANNOUNCED.c.writer == writer, _ANNOUNCED.c.subject.in_(subjects))
        with self._database.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql.text("LOCK TABLE announced IN SHARE ROW EXCLUSIVE MODE"))
            # SQLite has one writer at a time, who is one from the first statement that writes
            connection.execute(sql.delete(_ANNOUNCED).where(mine))
            others = sql.select(_ANNOUNCED.c.subject).where(_ANNOUNCED.c.subject.in_(subjects))
            yield set(subjects) - set(connection.scalars(others))

    def counts(self) -> tuple[int, int]:
        """Number of media that are in, and of files whose last attempt failed."""
        with self._database.connect() as connection:
            done = connection.scalar(sql.select(sql.func.count()).select_from(_MEDIA).where(_MEDIA.c.state == "done"))
            failed = connection.scalar(
                sql.select(sql.func.count()).select_from(_FILES).where(_FILES.c.state == "failed")
            )
        return int(done or 0), int(failed or 0)


def record_file(
    connection: Connection, path: Path, media: MediaId | None, archive: str, *, reason: str | None = None
) -> None:
    """The same as :meth:`Ledger.record_file`, within a transaction of the caller's."""

    old = connection.execute(sql.select(_FILES).where(_FILES.c.path == str(path))).mappings().first()
    values = {
        "media": media,
        "archive": archive,
        "state": "done" if reason is None else "failed",
        "reason": reason,
        "attempts": (old["attempts"] if old else 0) + 1,
    }
    if old and all(old[name] == values[name] for name in ("media", "archive", "state", "reason")):
        return  # a second run changes nothing
    connection.execute(sql.delete(_FILES).where(_FILES.c.path == str(path)))
    connection.execute(sql.insert(_FILES).values(path=str(path), updated=now(), **values))
