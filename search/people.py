"""People, their enrolled samples, and an audit of what was done to them.

With the ledger and the evidence this is the system of record. A person being forgotten is marked
first and vanishes from every answer at once; their rows and evidence go next, their record last, so
that a forgetting that was interrupted is finished by the next one. Merging is likewise: one transaction
gives the samples to their new owner and marks who had them, the rows of the index follow, the mark goes last.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.database import storable
from ingest.ledger import Finding
from ingest.transactions import RecordsError, erase_deleted, now, reading, repeatable, writing
from search import idempotency, people_tables
from search.answers import PeopleAnswer, PersonSummary
from search.idempotency import Claim, Replies
from search.people_tables import AUDIT as _AUDIT
from search.people_tables import PEOPLE as _PEOPLE
from search.people_tables import SAMPLES as _SAMPLES

_LOG = logging.getLogger("visavox")

UNKNOWN = "unknown"
# Counting samples of more people than this at a time, all are counted: a statement takes only so many values.
MOST_NAMED = 1000
_FINDING_FIELDS = ("media", "modality", "evidence", "start_ms", "end_ms", "track", "quality")


class UnknownPerson(LookupError):
    """Nobody of that name or id is enrolled."""


class NameTaken(ValueError):
    """Somebody else bears that name already."""


class NameRefused(ValueError):
    """Nobody can have that name."""


class SamePerson(ValueError):
    """Somebody was to be merged into themselves."""


class PreconditionFailed(ValueError):
    """Somebody was changed since the version that the caller knows."""


@dataclass(frozen=True)
class Person:
    """An enrolled person: a random id, the name people know them by, and the version of their record (from 1)."""

    id: str
    name: str
    created: datetime
    version: int = 1


@dataclass(frozen=True)
class PersonEntry(PersonSummary):
    """One enrolled person, and the version of their record."""

    version: int = 1


@dataclass(frozen=True)
class PeoplePage:
    """Some of the people, by name and id, and whether there are more after them."""

    people: list[PersonEntry]
    more: bool


def learned_identity(person: str) -> str:
    """What a model that learned from an enrolled person calls them: nothing with a name in it.

    Args:
        person: their id.
    """
    return f"enrolled_{person}"


def check_name(name: str) -> None:
    """Raise NameRefused unless a name can be a person's: 1 to 200 printable characters, and not ``unknown``."""
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise NameRefused("a person's name has 1 to 200 characters, all of them printable")
    if name.strip().casefold() == UNKNOWN:
        raise NameRefused(f"nobody can be called {name!r}: it is the answer for who is not known")


class People:
    """The catalogue of enrolled people.

    Every method that writes is one transaction; if the database goes away in its midst, it is repeated.

    Args:
        database: of the records; one that an earlier version wrote is brought up to date.

    Attributes:
        replies: answers of writes by the keys of their callers; what they tell of somebody goes with them.
    """

    def __init__(self, database: Engine) -> None:
        self._database = database
        people_tables.prepare(database)
        self.replies = Replies(database)

    @repeatable
    def find(self, name_or_id: str) -> Person:
        """The person of that name, or of that id. Raises UnknownPerson."""
        query = sql.select(_PEOPLE).where(
            sql.or_(_PEOPLE.c.name == name_or_id, _PEOPLE.c.id == name_or_id), sql.not_(_PEOPLE.c.leaving)
        )
        rows: Sequence[Mapping[Any, Any]] = ()
        if name_or_id.isprintable():  # nobody is called anything else, and not every database takes it
            with reading(self._database) as connection:
                rows = connection.execute(query).mappings().all()
        if not rows:
            raise UnknownPerson(f"nobody called {name_or_id!r} is enrolled: `visavox people` lists who is")
        # an id is nobody else's, while anybody may be given a name that looks like one
        return _person(next((row for row in rows if row["id"] == name_or_id), rows[0]))

    @repeatable
    def create(self, name: str, claim: Claim | None = None) -> Person:
        """Enter a person.

        Args:
            name: what they are known by.
            claim: of the request that asks for it; the person is entered only while the claim holds, and one that
                an earlier attempt of the request has entered is given instead.

        Raises:
            NameTaken: somebody else has the name.
            NameRefused: nobody can have it.
            RequestRunning: another attempt took the claim over.
        """
        check_name(name)
        if claim is not None and claim.person:
            return self.find(claim.person)
        person = Person(uuid.uuid4().hex, name, now())
        try:
            with writing(self._database) as connection:
                connection.execute(sql.insert(_PEOPLE).values(**vars(person), leaving=False))
                _note(connection, "create", person.id, "")
                if claim is not None:
                    idempotency.bind(connection, claim, person.id)
        except sql.exc.IntegrityError:  # whose details would take the name into logs
            raise NameTaken(f"somebody is enrolled as {name!r} already") from None
        return person

    def named(self, name: str) -> Person | None:
        """The person of that name, or None."""
        return next((person for person in self.everyone() if person.name == name), None)

    @repeatable
    def rename(self, name_or_id: str, name: str, version: int | None = None) -> Person:
        """Give a person another name.

        Args:
            name_or_id: whom.
            name: the new one.
            version: of the record to change; None for any.

        Raises:
            UnknownPerson: there is nobody like that.
            NameTaken: somebody else has the name.
            NameRefused: nobody can have it.
            PreconditionFailed: the record is of another version.
        """
        person = self.find(name_or_id)
        check_name(name)
        try:
            with writing(self._database) as connection:
                _hold(connection, person.id, version)
                connection.execute(sql.update(_PEOPLE).where(_PEOPLE.c.id == person.id).values(name=name))
                changed = _raise_version(connection, person.id)
                _note(connection, "rename", person.id, "")
        except sql.exc.IntegrityError:  # whose details would take the name into logs
            raise NameTaken(f"somebody is enrolled as {name!r} already") from None
        return Person(person.id, name, person.created, changed)

    @repeatable
    def everyone(self) -> list[Person]:
        """Everyone enrolled, by name."""
        query = sql.select(_PEOPLE).where(sql.not_(_PEOPLE.c.leaving)).order_by(_PEOPLE.c.name)
        with reading(self._database) as connection:
            return [_person(row) for row in connection.execute(query).mappings()]

    def summary(self) -> PeopleAnswer:
        """Everyone enrolled, with the number of their face and voice samples."""
        return PeopleAnswer([*self._summaries(self.everyone())])

    def describe(self, name_or_id: str) -> PersonEntry:
        """One person, with the number of their face and voice samples. Raises UnknownPerson."""
        return self._summaries([self.find(name_or_id)])[0]

    @repeatable
    def page(self, limit: int, after: tuple[str, str] | None = None) -> PeoplePage:
        """Some of those enrolled, by name and id.

        Args:
            limit: how many, 1 or more.
            after: name and id of the last one of the page before, who may be gone meanwhile; None for the first.
        """
        if limit < 1:
            raise ValueError(f"a page has 1 person or more, got {limit}")
        query = sql.select(_PEOPLE).where(sql.not_(_PEOPLE.c.leaving)).order_by(_PEOPLE.c.name, _PEOPLE.c.id)
        if after is not None:
            name, identity = (storable(one) for one in after)
            same_name = sql.and_(_PEOPLE.c.name == name, _PEOPLE.c.id > identity)
            query = query.where(sql.or_(_PEOPLE.c.name > name, same_name))
        with reading(self._database) as connection:
            rows = connection.execute(query.limit(limit + 1)).mappings().all()
        return PeoplePage(self._summaries([_person(row) for row in rows[:limit]]), len(rows) > limit)

    def _summaries(self, people: Sequence[Person]) -> list[PersonEntry]:
        counts = self._counts([person.id for person in people])
        return [
            PersonEntry(
                person.id, person.name, counts.get((person.id, "face"), 0), counts.get((person.id, "voice"), 0),
                f"{person.created.isoformat(timespec='seconds')}Z", person.version,
            )
            for person in people
        ]  # fmt: skip

    @repeatable
    def _counts(self, people: Collection[str]) -> dict[tuple[str, str], int]:
        """Number of samples by person and modality."""
        query = sql.select(_SAMPLES.c.person, _SAMPLES.c.modality, sql.func.count())
        if len(people) <= MOST_NAMED:
            query = query.where(_SAMPLES.c.person.in_(people))
        with reading(self._database) as connection:
            rows = connection.execute(query.group_by(_SAMPLES.c.person, _SAMPLES.c.modality)).all()
        return {(person, modality): number for person, modality, number in rows}

    @repeatable
    def names(self, among: Collection[str] | None = None) -> dict[str, str]:
        """Names by id; of those only whose ids are given, if they are."""
        if among is None or len(among) > MOST_NAMED:
            return {person.id: person.name for person in self.everyone()}
        if not among:
            return {}
        query = sql.select(_PEOPLE.c.id, _PEOPLE.c.name).where(_PEOPLE.c.id.in_(among), sql.not_(_PEOPLE.c.leaving))
        with reading(self._database) as connection:
            return {row.id: row.name for row in connection.execute(query)}

    def add(self, person: Person, samples: Sequence[Finding]) -> None:
        """Enrol samples; one that this person has already changes nothing.

        Raises:
            NameTaken: one of them is enrolled under somebody else's name.
            UnknownPerson: the person was forgotten or merged meanwhile.
        """
        try:
            self._add(person, samples)
        except sql.exc.IntegrityError:  # somebody else enrolled one of them a moment ago: look again
            self._add(person, samples)

    @repeatable
    def _add(self, person: Person, samples: Sequence[Finding]) -> None:
        with writing(self._database) as connection:
            _hold(connection, person.id)
            added = 0
            for sample in samples:
                owner = connection.scalar(sql.select(_SAMPLES.c.person).where(_is(sample)))
                if owner is None:
                    connection.execute(sql.insert(_SAMPLES).values(**vars(sample), person=person.id))
                    added += 1
                elif owner != person.id:
                    raise NameTaken("this very sample is enrolled under another name: forget that person first")
            if added:
                _raise_version(connection, person.id)
            _note(connection, "enrol", person.id, f"{len(samples)} samples")

    def merge(self, name_or_id: str, into: str, version: int | None = None) -> tuple[str, Person]:
        """Give all samples of one person to another, and let the first go.

        Rows of the index still say the first one's id: whoever calls this renames them, which is quick since
        they are those of the samples of the second, and then calls ``finish_merging``. Asking again does no harm.

        Args:
            name_or_id: whose samples; after the first time by id only, since the name is free.
            into: name or id of who gets them.
            version: of the first one's record; None for any.

        Returns:
            The id of the one, and the other.

        Raises:
            UnknownPerson: there is nobody like that.
            SamePerson: both are one.
            PreconditionFailed: the record is of another version.
        """
        target = self.find(into)
        if (name_or_id, target.id) in self.merging():
            return name_or_id, target
        person = self.find(name_or_id)
        if person.id == target.id:
            raise SamePerson("nobody can be merged into themselves: name two people")
        self._merge(person.id, target.id, version)
        return person.id, self.find(target.id)

    @repeatable
    def _merge(self, person: str, into: str, version: int | None) -> None:
        gone = {"leaving": True, "name": "", "merged_into": into}
        with writing(self._database) as connection:
            # in the order of their ids, so that two that are merged into each other do not wait for ever
            for identity in sorted((person, into)):
                _hold(connection, identity, version if identity == person else None)
            mine = _SAMPLES.c.person == person
            moved = connection.execute(sql.update(_SAMPLES).where(mine).values(person=into)).rowcount
            connection.execute(sql.update(_PEOPLE).where(_PEOPLE.c.id == person).values(**gone))
            if moved:
                _raise_version(connection, into)
            # who was merged into this one before, and is not finished, follows
            before = _PEOPLE.c.merged_into == person
            connection.execute(sql.update(_PEOPLE).where(before).values(merged_into=into))
            idempotency.hand_over(connection, person, into)
            _note(connection, "merge", person, f"{moved} samples into {into}")

    @repeatable
    def merging(self) -> list[tuple[str, str]]:
        """Ids of people who were merged, each with whom into, whose rows in the index may not all follow yet."""
        query = sql.select(_PEOPLE.c.id, _PEOPLE.c.merged_into).where(_PEOPLE.c.merged_into != "")
        with reading(self._database) as connection:
            return [(row.id, row.merged_into) for row in connection.execute(query)]

    @repeatable
    def finish_merging(self, person: str) -> None:
        """Remove the mark of somebody who was merged: their rows in the index have followed."""
        with writing(self._database) as connection:
            merged = sql.and_(_PEOPLE.c.id == person, _PEOPLE.c.merged_into != "")
            if connection.execute(sql.delete(_PEOPLE).where(merged)).rowcount:
                _note(connection, "merge", person, "done")

    @repeatable
    def samples(self, person: str | None = None) -> list[tuple[Finding, str]]:
        """Samples with the id of their person: of one person, or of everyone (leaving people left out)."""
        query = sql.select(_SAMPLES).join(_PEOPLE, _PEOPLE.c.id == _SAMPLES.c.person)
        if person is not None:
            query = query.where(_SAMPLES.c.person == person)
        else:
            query = query.where(sql.not_(_PEOPLE.c.leaving))
        with reading(self._database) as connection:
            rows = connection.execute(query.order_by(*_SAMPLES.primary_key.columns)).mappings().all()
        return [(Finding(**{name: row[name] for name in _FINDING_FIELDS}), row["person"]) for row in rows]

    @repeatable
    def owner(self, sample: Finding) -> str:
        """Id of the person a sample is enrolled as, or ""."""
        query = (
            sql.select(_SAMPLES.c.person)
            .join(_PEOPLE, _PEOPLE.c.id == _SAMPLES.c.person)
            .where(_is(sample), sql.not_(_PEOPLE.c.leaving))
        )
        with reading(self._database) as connection:
            return connection.scalar(query) or ""

    @repeatable
    def uses_evidence(self, evidence: str, *, besides: str) -> bool:
        """Whether a sample of anybody but ``besides`` rests on a piece of evidence."""
        query = sql.select(sql.literal(1)).where(_SAMPLES.c.evidence == evidence, _SAMPLES.c.person != besides)
        with reading(self._database) as connection:
            return connection.execute(query.limit(1)).first() is not None

    @repeatable
    def begin_forgetting(self, person: Person, version: int | None = None) -> None:
        """Mark a person as leaving: gone from every answer from here on, kept answers of writes included.

        Raises:
            UnknownPerson: they are gone already.
            PreconditionFailed: their record is of another version than the given.
        """
        with writing(self._database) as connection:
            _hold(connection, person.id, version)
            connection.execute(sql.update(_PEOPLE).where(_PEOPLE.c.id == person.id).values(leaving=True, name=""))
            idempotency.forget(connection, person.id)
            _note(connection, "forget", person.id, "begun")

    @repeatable
    def check_version(self, person: str, version: int | None) -> None:
        """Raise PreconditionFailed unless a person's record is of a version (None for any), or UnknownPerson."""
        with writing(self._database) as connection:
            _hold(connection, person, version)

    @repeatable
    def leaving(self) -> list[str]:
        """Ids of people whose forgetting was begun and not finished."""
        query = sql.select(_PEOPLE.c.id).where(_PEOPLE.c.leaving, _PEOPLE.c.merged_into == "")
        with reading(self._database) as connection:
            return list(connection.scalars(query))

    def finish_forgetting(self, person: str) -> None:
        """Remove the record of a person and of their samples, and of those who were merged into them."""
        self._remove(person)
        try:
            erase_deleted(self._database, _PEOPLE.name, idempotency.TABLE)
        except RecordsError as error:  # the person is gone all the same
            _LOG.warning("what is deleted may stay in free pages of the database a while: %s", error)

    @repeatable
    def _remove(self, person: str) -> None:
        with writing(self._database) as connection:
            connection.execute(sql.delete(_SAMPLES).where(_SAMPLES.c.person == person))
            mine = sql.or_(_PEOPLE.c.id == person, _PEOPLE.c.merged_into == person)
            connection.execute(sql.delete(_PEOPLE).where(mine))
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


def _person(row: Mapping[Any, Any]) -> Person:
    return Person(row["id"], row["name"], row["created"], row["version"])


def _hold(connection: sql.Connection, person: str, version: int | None = None) -> None:
    """Keep a person as they are until the transaction ends. Raises UnknownPerson, PreconditionFailed."""
    here = sql.and_(_PEOPLE.c.id == person, sql.not_(_PEOPLE.c.leaving))
    # a write of nothing, because SQLite lets nobody else write only from the first write on
    if not connection.execute(sql.update(_PEOPLE).where(here).values(version=_PEOPLE.c.version)).rowcount:
        raise UnknownPerson("this person was forgotten or merged a moment ago")
    found = connection.scalar(sql.select(_PEOPLE.c.version).where(here))
    if version is not None and found != version:
        raise PreconditionFailed(f"this is version {found} of the person, not {version}: read it again, then decide")


def _raise_version(connection: sql.Connection, person: str) -> int:
    mine = _PEOPLE.c.id == person
    connection.execute(sql.update(_PEOPLE).where(mine).values(version=_PEOPLE.c.version + 1))
    return int(connection.scalar(sql.select(_PEOPLE.c.version).where(mine)) or 0)


def _note(connection: sql.Connection, action: str, person: str, detail: str) -> None:
    """Write an audit entry: ids and counts only, never a name, path or vector."""
    connection.execute(sql.insert(_AUDIT).values(moment=now(), action=action, person=person, detail=detail))
