"""The ledger: which media were read, what was found in them, and what failed.

With the people's catalogue and the evidence it is the system of record; the index can be rebuilt from it.
State of a medium: ``writing`` (tracks recorded, rows not yet all in the index) → ``done``; or ``failed``.

It also keeps announcements: what somebody is about to write that no record rests on yet. Who is killed leaves
them behind, and so the next one knows what to look for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from ingest.database import StorableText, open_database, storable
from ingest.track import MediaId
from ingest.transactions import RecordsError, create_tables, now, on_postgresql, reading, repeatable, writing

__all__ = ["Finding", "Ledger", "MediaRecord", "Pairing", "RecordsError", "finding_columns", "now", "open_database"]

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
    sql.Column("path", StorableText, nullable=False),
    sql.Column("media", sql.String(64), nullable=True, index=True),
    sql.Column("archive", StorableText, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", StorableText, nullable=True),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("updated", sql.DateTime, nullable=False),
    sql.PrimaryKeyConstraint("path").ddl_if(dialect="sqlite"),
)
# A path has up to 4096 bytes, which is more than PostgreSQL takes into an index of keys, but not into one of hashes.
on_postgresql(_FILES, "ALTER TABLE files ADD CONSTRAINT files_path EXCLUDE USING hash (path WITH =)")


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
_PAIRINGS = sql.Table(
    "pairings",
    _METADATA,
    sql.Column("media", sql.String(64), primary_key=True),
    sql.Column("evidence", sql.String(64), primary_key=True),
    sql.Column("start_ms", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("end_ms", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("track", sql.Integer, nullable=True),
    sql.Column("probability", sql.Float, nullable=False),
    sql.Column("off_screen", sql.Float, nullable=False),
    sql.Column("overlapped", sql.Float, nullable=False),
)
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
class Pairing:
    """Which face speaks during one turn of a medium, as the records keep what was judged from mouths and sound.

    Args:
        media: content hash of the file.
        evidence: id of the stored turn.
        start_ms: start of the turn in milliseconds.
        end_ms: its end.
        track: number of the face track that most likely speaks; None: no face is visible.
        probability: 0 to 1, that it is the one that speaks.
        off_screen: 0 to 1, that the speaker is not visible.
        overlapped: share of the turn during which another speaker speaks too.
    """

    media: str
    evidence: str
    start_ms: int
    end_ms: int
    track: int | None
    probability: float
    off_screen: float
    overlapped: float


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


class Ledger:
    """Media, files and tracks. Every method is one transaction, repeated if the database goes away in its midst.

    Not so :meth:`all_findings` and :meth:`striking_out`, which give while they last.
    """

    def __init__(self, database: Engine) -> None:
        self._database = database
        create_tables(_METADATA, database)

    @repeatable
    def medium(self, media: str) -> MediaRecord | None:
        """The record of a medium, or None if it was never read."""
        with reading(self._database) as connection:
            row = connection.execute(sql.select(_MEDIA).where(_MEDIA.c.id == media)).mappings().first()
        if row is None:
            return None
        fields = {name: row[name] for name in ("id", "state", "kind", "seconds", "faces", "voices", "settings")}
        return MediaRecord(**fields, warnings=tuple(row["warnings"]))

    @repeatable
    def begin(self, record: MediaRecord, findings: Sequence[Finding], pairings: Sequence[Pairing] = ()) -> None:
        """Record what was found, before any row is written; replaces what an earlier reading found."""
        warnings = [storable(warning) for warning in record.warnings]
        values = vars(record) | {"state": "writing", "warnings": warnings, "updated": now()}
        with writing(self._database) as connection:
            # the medium first: of two who read the same one, the other waits here
            _put(connection, _MEDIA, _MEDIA.c.id == record.id, values)
            connection.execute(sql.delete(_TRACKS).where(_TRACKS.c.media == record.id))
            connection.execute(sql.delete(_PAIRINGS).where(_PAIRINGS.c.media == record.id))
            unique = {(f.modality, f.evidence, f.start_ms, f.end_ms): vars(f) for f in findings}
            if unique:
                connection.execute(sql.insert(_TRACKS), list(unique.values()))
            judged = {(p.evidence, p.start_ms, p.end_ms): vars(p) for p in pairings}
            if judged:
                connection.execute(sql.insert(_PAIRINGS), list(judged.values()))

    @repeatable
    def finish(self, media: str) -> None:
        """All rows of a medium are in the index."""
        with writing(self._database) as connection:
            connection.execute(sql.update(_MEDIA).where(_MEDIA.c.id == media).values(state="done", updated=now()))

    @repeatable
    def reopen(self, media: str) -> None:
        """Some of a medium's evidence is lost: its file is to be read again when it is met."""
        with writing(self._database) as connection:
            connection.execute(sql.update(_MEDIA).where(_MEDIA.c.id == media).values(state="writing", updated=now()))

    @repeatable
    def record_file(self, path: Path, media: MediaId | None, archive: str, *, reason: str | None = None) -> None:
        """Record the outcome of one file: done without a reason, failed with one; the same again changes nothing."""
        with writing(self._database) as connection:
            record_file(connection, path, media, archive, reason=reason)

    @repeatable
    def files_below(self, place: Path) -> dict[str, str | None]:
        """Media by path of the files that are recorded at a path, or below it."""
        folder = storable(f"{str(place).rstrip('/')}/")
        below = sql.func.substr(_FILES.c.path, 1, len(folder)) == folder
        with reading(self._database) as connection:
            rows = connection.execute(
                sql.select(_FILES.c.path, _FILES.c.media).where(below | (_FILES.c.path == str(place)))
            )
            return {row.path: row.media for row in rows}

    @repeatable
    def held_elsewhere(self, media: str, besides: Collection[str]) -> bool:
        """Whether a medium is that of a file which is not among some paths."""
        with reading(self._database) as connection:
            held = connection.scalars(sql.select(_FILES.c.path).where(_FILES.c.media == media))
            return any(path not in besides for path in held)

    @repeatable
    def remove_files(self, paths: Collection[str], media: str | None) -> None:
        """Forget files, and the medium that they alone held, if one is given."""
        with writing(self._database) as connection:
            for path in paths:
                connection.execute(sql.delete(_FILES).where(_FILES.c.path == path))
            if media is not None:
                for table in (_TRACKS, _PAIRINGS):
                    connection.execute(sql.delete(table).where(table.c.media == media))
                connection.execute(sql.delete(_MEDIA).where(_MEDIA.c.id == media))

    @repeatable
    def findings(self, media: str) -> list[Finding]:
        """Everything found in one medium."""
        with reading(self._database) as connection:
            rows = connection.execute(sql.select(_TRACKS).where(_TRACKS.c.media == media)).mappings().all()
        return [Finding(**row) for row in rows]

    @repeatable
    def pairings(self, media: str) -> list[Pairing]:
        """Which faces speak in one medium, in order of time; nothing of a medium that an earlier version read."""
        query = sql.select(_PAIRINGS).where(_PAIRINGS.c.media == media)
        query = query.order_by(_PAIRINGS.c.start_ms, _PAIRINGS.c.end_ms, _PAIRINGS.c.evidence)
        with reading(self._database) as connection:
            return [Pairing(**row) for row in connection.execute(query).mappings()]

    @repeatable
    def archived(self, archive: str) -> dict[str, list[Path]]:
        """The media of an archive that are in, in order of their hashes, each with the paths of its files there."""
        query = (
            sql.select(_FILES.c.media, _FILES.c.path)
            .join(_MEDIA, _MEDIA.c.id == _FILES.c.media)
            .where(_FILES.c.archive == storable(archive), _FILES.c.state == "done", _MEDIA.c.state == "done")
            .order_by(_FILES.c.media, _FILES.c.path)
        )
        found: dict[str, list[Path]] = {}
        with reading(self._database) as connection:
            for row in connection.execute(query):
                found.setdefault(row.media, []).append(Path(row.path))
        return found

    @repeatable
    def archives(self, media: str | None = None) -> set[str]:
        """Names of the archives that there are, or of those that a medium is in."""
        query = sql.select(_FILES.c.archive).distinct().where(_FILES.c.state == "done")
        with reading(self._database) as connection:
            return set(connection.scalars(query if media is None else query.where(_FILES.c.media == media)))

    def all_findings(self, batch: int = 5000) -> Iterator[Finding]:
        """Everything found in all media, in order of media, read in batches."""
        query = sql.select(_TRACKS).order_by(*_TRACKS.primary_key.columns)
        with reading(self._database) as connection:
            result = connection.execution_options(yield_per=batch).execute(query).mappings()
            for row in result:
                yield Finding(**row)

    @repeatable
    def uses_evidence(self, evidence: str) -> bool:
        """Whether any track of the archive rests on a piece of evidence."""
        query = sql.select(sql.literal(1)).where(_TRACKS.c.evidence == evidence).limit(1)
        with reading(self._database) as connection:
            return connection.execute(query).first() is not None

    @repeatable
    def announce(self, writer: str, subjects: Collection[str]) -> None:
        """Note what a writer is about to write, before it does.

        Args:
            writer: names one piece of work, 32 characters at most.
            subjects: ids of 64 characters at most, none of them announced by this writer before.
        """
        announced = [{"writer": writer, "subject": subject} for subject in sorted(set(subjects))]
        if announced:
            with writing(self._database) as connection:
                connection.execute(sql.insert(_ANNOUNCED), announced)

    @repeatable
    def announced(self) -> dict[str, set[str]]:
        """What is announced, by writer."""
        found: dict[str, set[str]] = {}
        with reading(self._database) as connection:
            for row in connection.execute(sql.select(_ANNOUNCED)):
                found.setdefault(row.writer, set()).add(row.subject)
        return found

    @contextmanager
    def striking_out(self, writer: str, subjects: Collection[str]) -> Iterator[StruckOut]:
        """Take back a writer's announcements when the block ends; until then nobody can announce anything.

        Gives those of the subjects that nobody else announces: of them one can say now, and for the time of the
        block, that no record rests on them, and remove them. If the block raises, the announcements stay.

        Raises:
            RecordsAway: the database went away: at the end of the block, or when it asked whether the promise holds.
        """
        mine = sql.and_(_ANNOUNCED.c.writer == writer, _ANNOUNCED.c.subject.in_(subjects))
        with writing(self._database) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql.text("LOCK TABLE announced IN SHARE ROW EXCLUSIVE MODE"))
            # SQLite has one writer at a time, who is one from the first statement that writes
            connection.execute(sql.delete(_ANNOUNCED).where(mine))
            others = sql.select(_ANNOUNCED.c.subject).where(_ANNOUNCED.c.subject.in_(subjects))
            yield StruckOut(frozenset(subjects) - frozenset(connection.scalars(others)), connection)

    @repeatable
    def counts(self) -> tuple[int, int]:
        """Number of media that are in, and of files whose last attempt failed."""
        with reading(self._database) as connection:
            done = connection.scalar(sql.select(sql.func.count()).select_from(_MEDIA).where(_MEDIA.c.state == "done"))
            failed = connection.scalar(
                sql.select(sql.func.count()).select_from(_FILES).where(_FILES.c.state == "failed")
            )
        return int(done or 0), int(failed or 0)


def record_file(
    connection: Connection, path: Path, media: MediaId | None, archive: str, *, reason: str | None = None
) -> None:
    """The same as :meth:`Ledger.record_file`, within a transaction of the caller's."""
    outcome = {
        "media": media,
        "archive": storable(archive),
        "state": "done" if reason is None else "failed",
        "reason": None if reason is None else storable(reason),
    }
    mine = _FILES.c.path == str(path)
    old = connection.execute(sql.select(_FILES).where(mine)).mappings().first()
    if old and all(old[name] == value for name, value in outcome.items()):
        return  # a second run changes nothing
    again = outcome | {"attempts": _FILES.c.attempts + 1, "updated": now()}
    _put(connection, _FILES, mine, again, again | {"path": str(path), "attempts": 1})


@dataclass(frozen=True)
class StruckOut:
    """What nobody else announces, while nobody can.

    Args:
        free: subjects that may be removed.
        connection: whose transaction keeps others from announcing.
    """

    free: frozenset[str]
    connection: Connection

    def confirm(self) -> None:
        """Raise RecordsAway if a lost connection has set the others free again."""
        self.connection.execute(sql.select(1))


def _put(
    connection: Connection,
    table: sql.Table,
    which: sql.ColumnElement[bool],
    values: Mapping[str, Any],
    new: Mapping[str, Any] | None = None,
) -> None:
    """Change a row or insert it (``new``, if that differs), also if another inserts it at the same moment."""
    change = sql.update(table).where(which).values(**values)
    if connection.execute(change).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(sql.insert(table).values(**(values if new is None else new)))
    except sql.exc.IntegrityError:
        connection.execute(change)
