"""People, their enrolled samples, and an audit of what was done to them.

With the ledger and the evidence this is the system of record. A person being forgotten is marked
first and vanishes from every answer at once; their rows and evidence go next, their record last, so
that a forgetting that was interrupted is finished by the next one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.ledger import Finding, finding_columns, now
from search.answers import PeopleAnswer, PersonSummary

UNKNOWN = "unknown"
_METADATA = sql.MetaData()

_PEOPLE = sql.Table(
    "people",
    _METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("leaving", sql.Boolean, nullable=False),
    sql.Column("created", sql.DateTime, nullable=False),
)
# a name is free again as soon as its bearer is being forgotten
sql.Index(
    "people_name",
    _PEOPLE.c.name,
    unique=True,
    sqlite_where=sql.not_(_PEOPLE.c.leaving),
    postgresql_where=sql.not_(_PEOPLE.c.leaving),
)
_SAMPLES = sql.Table(
    "samples",
    _METADATA,
    *finding_columns(),
    sql.Column("person", sql.String(32), nullable=False, index=True),
)
_AUDIT = sql.Table(
    "audit",
    _METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("moment", sql.DateTime, nullable=False),
    sql.Column("action", sql.String(32), nullable=False),
    sql.Column("person", sql.String(32), nullable=False),
    sql.Column("detail", sql.Text, nullable=False),
)
_FINDING_FIELDS = ("media", "modality", "evidence", "start_ms", "end_ms", "track", "quality")


class UnknownPerson(LookupError):
    """Nobody of that name or id is enrolled."""


class NameTaken(ValueError):
    """Somebody else bears that name already."""


@dataclass(frozen=True)
class Person:
    """An enrolled person: a random id, and the name people know them by."""

    id: str
    name: str
    created: datetime


def check_name(name: str) -> None:
    """Raise ValueError unless a name can be a person's: 1 to 200 printable characters, and not ``unknown``."""
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ValueError("a person's name has 1 to 200 characters, all of them printable")
    if name.strip().casefold() == UNKNOWN:
        raise ValueError(f"nobody can be called {name!r}: it is the answer for who is not known")


class People:
    """The catalogue of enrolled people. Every method is one transaction."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        _METADATA.create_all(database)

    def find(self, name_or_id: str) -> Person:
        """The person of that name, or of that id. Raises UnknownPerson."""
        query = sql.select(_PEOPLE).where(
            sql.or_(_PEOPLE.c.name == name_or_id, _PEOPLE.c.id == name_or_id), sql.not_(_PEOPLE.c.leaving)
        )
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows:
            raise UnknownPerson(f"nobody called {name_or_id!r} is enrolled: `visavox people` lists who is")
        # an id is nobody else's, while anybody may be given a name that looks like one
        row = next((row for row in rows if row["id"] == name_or_id), rows[0])
        return Person(row["id"], row["name"], row["created"])

    def create(self, name: str) -> Person:
        """Enter a person. Raises NameTaken, or ValueError for an empty name."""
        check_name(name)
        person = Person(uuid.uuid4().hex, name, now())
        try:
            with self._database.begin() as connection:
                connection.execute(sql.insert(_PEOPLE).values(**vars(person), leaving=False))
                _note(connection, "create", person.id, "")
        except sql.exc.IntegrityError as error:
            raise NameTaken(f"somebody is enrolled as {name!r} already") from error
        return person

    def named(self, name: str) -> Person | None:
        """The person of that name, or None."""
        return next((person for person in self.everyone() if person.name == name), None)

    def rename(self, name_or_id: str, name: str) -> Person:
        """Give a person another name. Raises UnknownPerson, NameTaken, ValueError."""
        person = self.find(name_or_id)
        check_name(name)
        try:
            with self._database.begin() as connection:
                connection.execute(sql.update(_PEOPLE).where(_PEOPLE.c.id == person.id).values(name=name))
                _note(connection, "rename", person.id, "")
        except sql.exc.IntegrityError as error:
            raise NameTaken(f"somebody is enrolled as {name!r} already") from error
        return Person(person.id, name, person.created)

    def everyone(self) -> list[Person]:
        """Everyone enrolled, by name."""
        query = sql.select(_PEOPLE).where(sql.not_(_PEOPLE.c.leaving)).order_by(_PEOPLE.c.name)
        with self._database.connect() as connection:
            return [Person(row.id, row.name, row.created) for row in connection.execute(query)]

    def summary(self) -> PeopleAnswer:
        """Everyone enrolled, with the number of their face and voice samples."""
        counts: dict[tuple[str, str], int] = {}
        for sample, person in self.samples():
            counts[person, sample.modality] = counts.get((person, sample.modality), 0) + 1
        return PeopleAnswer(
            [
                PersonSummary(
                    person.id, person.name, counts.get((person.id, "face"), 0), counts.get((person.id, "voice"), 0),
                    f"{person.created.isoformat(timespec='seconds')}Z",
                )
                for person in self.everyone()
            ]
        )  # fmt: skip

    def names(self) -> dict[str, str]:
        """Names by id."""
        return {person.id: person.name for person in self.everyone()}

    def add(self, person: Person, samples: Sequence[Finding]) -> None:
        """Enrol samples; one that this person has already changes nothing.

        Raises:
            NameTaken: one of them is enrolled under somebody else's name.
        """
        with self._database.begin() as connection:
            for sample in samples:
                owner = connection.scalar(sql.select(_SAMPLES.c.person).where(_is(sample)))
                if owner is None:
                    connection.execute(sql.insert(_SAMPLES).values(**vars(sample), person=person.id))
                elif owner != person.id:
                    raise NameTaken("this very sample is enrolled under another name: forget that person first")
            _note(connection, "enrol", person.id, f"{len(samples)} samples")

    def samples(self, person: str | None = None) -> list[tuple[Finding, str]]:
        """Samples with the id of their person: of one person, or of everyone (leaving people left out)."""
        query = sql.select(_SAMPLES).join(_PEOPLE, _PEOPLE.c.id == _SAMPLES.c.person)
        if person is not None:
            query = query.where(_SAMPLES.c.person == person)
        else:
            query = query.where(sql.not_(_PEOPLE.c.leaving))
        with self._database.connect() as connection:
            rows = connection.execute(query.order_by(*_SAMPLES.primary_key.columns)).mappings().all()
        return [(Finding(**{name: row[name] for name in _FINDING_FIELDS}), row["person"]) for row in rows]

    def owner(self, sample: Finding) -> str:
        """Id of the person a sample is enrolled as, or ""."""
        query = (
            sql.select(_SAMPLES.c.person)
            .join(_PEOPLE, _PEOPLE.c.id == _SAMPLES.c.person)
            .where(_is(sample), sql.not_(_PEOPLE.c.leaving))
        )
        with self._database.connect() as connection:
            return connection.scalar(query) or ""

    def uses_evidence(self, evidence: str, *, besides: str) -> bool:
        """Whether a sample of anybody but ``besides`` rests on a piece of evidence."""
        query = sql.select(sql.literal(1)).where(_SAMPLES.c.evidence == evidence, _SAMPLES.c.person != besides)
        with self._database.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def begin_forgetting(self, person: Person) -> None:
        """Mark a person as leaving: gone from every answer from here on."""
        with self._database.begin() as connection:
            connection.execute(sql.update(_PEOPLE).where(_PEOPLE.c.id == person.id).values(leaving=True, name=""))
            _note(connection, "forget", person.id, "begun")

    def leaving(self) -> list[str]:
        """Ids of people whose forgetting was begun and not finished."""
        with self._database.connect() as connection:
            return list(connection.scalars(sql.select(_PEOPLE.c.id).where(_PEOPLE.c.leaving)))

    def finish_forgetting(self, person: str) -> None:
        """Remove the record of a person and of their samples."""
        with self._database.begin() as connection:
            connection.execute(sql.delete(_SAMPLES).where(_SAMPLES.c.person == person))
            connection.execute(sql.delete(_PEOPLE).where(_PEOPLE.c.id == person))
            _note(connection, "forget", person, "done")


def _is(sample: Finding) -> sql.ColumnElement[bool]:
    """The condition that a row of the table is this sample."""
    return sql.and_(
        _SAMPLES.c.media == sample.media,
        _SAMPLES.c.modality == sample.modality,
        _SAMPLES.c.evidence == sample.evidence,
        _SAMPLES.c.start_ms == sample.start_ms,
        _SAMPLES.c.end_ms == sample.end_ms,
    )


def _note(connection: sql.Connection, action: str, person: str, detail: str) -> None:
    """Write an audit entry: ids and counts only, never a name, path or vector."""
    connection.execute(sql.insert(_AUDIT).values(moment=now(), action=action, person=person, detail=detail))
