"""Answers of writes, kept by the key that a caller chose, so that a write that is sent again is done once.

A claim is taken before the work and names its holder: another attempt with the key, in this process or in
another, is refused while the claim holds, and gets the kept answer once there is one. A claim must be renewed
while its work lasts, so that a process that is killed keeps nobody out for long. Neither keys nor requests are
kept, only digests of them; what is kept of a person goes with the person.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.transactions import create_tables, now, reading, repeatable, unsampled, writing

KEPT = timedelta(hours=24)
LEASE = timedelta(seconds=30)
_METADATA = sql.MetaData()

# holder: who is at work, "" once the answer is there; neither: the person of the request was forgotten
TABLE = "replies"
_REPLIES = sql.Table(
    TABLE,
    _METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("request", sql.String(64), nullable=False),
    sql.Column("holder", sql.String(32), nullable=False),
    sql.Column("lease", sql.DateTime, nullable=False),
    sql.Column("expires", sql.DateTime, nullable=False, index=True),
    sql.Column("person", sql.String(32), nullable=False, index=True),
    sql.Column("status", sql.Integer, nullable=False),
    sql.Column("headers", sql.JSON, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
)
for _told in (_REPLIES.c.headers, _REPLIES.c.body):
    unsampled(_told)


class IdempotencyMismatch(ValueError):
    """The key was used for another request already."""


class RequestRunning(RuntimeError):
    """The request of that key is still being worked on."""


class ReplyForgotten(LookupError):
    """The request of that key was about a person who was forgotten since."""


@dataclass(frozen=True)
class Reply:
    """What a write answered.

    Args:
        status: HTTP status, 200 to 299.
        headers: those that belong to the answer, such as Location.
        body: JSON.
    """

    status: int
    headers: Mapping[str, str]
    body: str

    def __post_init__(self) -> None:
        if not 200 <= self.status < 300:
            raise ValueError(f"only answers of writes that were done are kept, not one of status {self.status}")


@dataclass(frozen=True)
class Claim:
    """The right to do the work of a key.

    Args:
        id: digest of the caller and the key.
        holder: this attempt and no other.
        person: id of the person that an attempt before this one had entered when it was cut off, or "".
    """

    id: str
    holder: str
    person: str = ""


class Replies:
    """Claims and kept answers, in the database of the records. Every write is one transaction."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        create_tables(_METADATA, database)

    @repeatable
    def claim(self, caller: str, key: str, request: bytes) -> Claim | Reply:
        """Take the work of a key, or get the answer that was kept.

        Args:
            caller: who asks, as an authorization header for one; two callers may choose the same key.
            key: as the caller chose it.
            request: everything that makes two requests the same.

        Raises:
            IdempotencyMismatch: the key was used for another request.
            RequestRunning: the request is being worked on.
            ReplyForgotten: it was done, and its person was forgotten since.
        """
        identity = hashlib.sha256(f"{caller}\n{key}".encode()).hexdigest()
        # under the key, which is not kept: from a plain digest of a request its few words could be guessed
        digest = hmac.new(key.encode(), request, "sha256").hexdigest()
        while True:
            with writing(self._database) as connection:
                connection.execute(sql.delete(_REPLIES).where(_REPLIES.c.expires < now()))
            claim = self._enter(identity, digest) or self._take_over(identity, digest)
            if claim:
                return claim
            with reading(self._database) as connection:
                row = connection.execute(sql.select(_REPLIES).where(_REPLIES.c.id == identity)).mappings().first()
            if row is not None:
                return _kept(row, digest)
            # it was released a moment ago

    @repeatable
    def _enter(self, identity: str, digest: str) -> Claim | None:
        claim, moment = Claim(identity, uuid.uuid4().hex), now()
        values = {"id": identity, "request": digest, "holder": claim.holder, "person": "", "status": 0}
        values |= {"lease": moment + LEASE, "expires": moment + KEPT, "headers": {}, "body": ""}
        try:
            with writing(self._database) as connection:
                connection.execute(sql.insert(_REPLIES).values(**values))
        except sql.exc.IntegrityError:
            return None
        return claim

    @repeatable
    def _take_over(self, identity: str, digest: str) -> Claim | None:
        """The claim of a holder that has not renewed it."""
        holder, moment = uuid.uuid4().hex, now()
        lapsed = sql.and_(
            _REPLIES.c.id == identity, _REPLIES.c.request == digest, _REPLIES.c.holder != "", _REPLIES.c.lease < moment
        )
        with writing(self._database) as connection:
            taken = connection.execute(sql.update(_REPLIES).where(lapsed).values(holder=holder, lease=moment + LEASE))
            if not taken.rowcount:
                return None
            person = connection.scalar(sql.select(_REPLIES.c.person).where(_REPLIES.c.id == identity))
        return Claim(identity, holder, person or "")

    @repeatable
    def renew(self, claim: Claim) -> None:
        """Go on holding a claim; one that somebody else took over meanwhile stays theirs."""
        with writing(self._database) as connection:
            connection.execute(sql.update(_REPLIES).where(_held(claim)).values(lease=now() + LEASE))

    @repeatable
    def keep(self, claim: Claim, reply: Reply) -> None:
        """The work is done: keep its answer, unless somebody took over or the person was forgotten meanwhile."""
        with writing(self._database) as connection:
            connection.execute(
                sql.update(_REPLIES)
                .where(_held(claim))
                .values(holder="", status=reply.status, headers=dict(reply.headers), body=reply.body)
            )

    @repeatable
    def release(self, claim: Claim) -> None:
        """The work was not done: the key may be used again, for this request, and for another if nothing was begun."""
        begun = _REPLIES.c.person != ""
        with writing(self._database) as connection:
            connection.execute(sql.delete(_REPLIES).where(_held(claim), sql.not_(begun)))
            connection.execute(sql.update(_REPLIES).where(_held(claim), begun).values(lease=now() - LEASE))

    @repeatable
    def bind(self, claim: Claim, person: str) -> None:
        """Say whom the work is about. Raises RequestRunning if somebody took over."""
        with writing(self._database) as connection:
            bind(connection, claim, person)


def bind(connection: sql.Connection, claim: Claim, person: str) -> None:
    """The same inside another transaction, which is rolled back if somebody took over. Raises RequestRunning."""
    if not connection.execute(sql.update(_REPLIES).where(_held(claim)).values(person=person)).rowcount:
        raise RequestRunning("another attempt with this Idempotency-Key took over: ask again for its answer")


def forget(connection: sql.Connection, person: str) -> None:
    """Remove every answer about a person; that there was one stays until the key expires."""
    nothing = {"request": "", "holder": "", "status": 0, "headers": {}, "body": ""}
    connection.execute(sql.update(_REPLIES).where(_REPLIES.c.person == person).values(**nothing))


def hand_over(connection: sql.Connection, person: str, into: str) -> None:
    """Answers about one person are about another from here on, and go with them."""
    connection.execute(sql.update(_REPLIES).where(_REPLIES.c.person == person).values(person=into))


def _held(claim: Claim) -> sql.ColumnElement[bool]:
    return sql.and_(_REPLIES.c.id == claim.id, _REPLIES.c.holder == claim.holder)


def _kept(row: Mapping[Any, Any], digest: str) -> Reply:
    if not row["holder"] and not row["status"]:
        raise ReplyForgotten("this was done before, and the person it was about was forgotten since")
    if row["request"] != digest:
        raise IdempotencyMismatch("this Idempotency-Key was used for another request: choose a new one")
    if row["holder"]:
        raise RequestRunning("the request with this Idempotency-Key is being worked on: ask again later")
    return Reply(row["status"], row["headers"], row["body"])
