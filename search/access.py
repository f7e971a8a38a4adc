"""Who may ask over HTTP: keys with a role, kept as hashes, shown once.

A secret holds 256 random bits, so it is kept as a plain SHA-256: nobody finds it by trying, however quickly one
can try. A slow hash, made for passwords that people think of, would protect nothing here, and would let whoever
sends wrong keys keep the service busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.transactions import RecordsError, create_tables, now, reading, repeatable, writing

PREFIX = "vvx"
LONGEST_LABEL = 100
# How long a key that was looked up is believed: a key that was revoked works no longer than this, in seconds.
FRESH_SECONDS = 2.0
# The moment of the last use is written once in this many seconds, not with every request.
USED_SECONDS = 60.0

_SECRET = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_[0-9a-f]{{64}}")
_IDENTITY = re.compile(r"[0-9a-f]{12}")
_METADATA = sql.MetaData()
_KEYS = sql.Table(
    "api_keys",
    _METADATA,
    sql.Column("id", sql.String(12), primary_key=True),
    sql.Column("label", sql.String(LONGEST_LABEL), nullable=False),
    sql.Column("role", sql.String(16), nullable=False),
    sql.Column("digest", sql.String(64), nullable=False),
    sql.Column("created", sql.DateTime, nullable=False),
    sql.Column("last_used", sql.DateTime, nullable=True),
    sql.Column("revoked", sql.DateTime, nullable=True),
)


class Unauthenticated(PermissionError):
    """A request brings no key, or none that is known and not revoked."""


class Forbidden(PermissionError):
    """A request asks for what the role of its key does not allow."""


class UnknownKey(LookupError):
    """No key has that id."""


class Role(StrEnum):
    """What a key may do; each role may do what the ones before it may."""

    READER = "reader"
    EDITOR = "editor"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Whether who has this role may do what needs another."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Key:
    """A key as the records keep it, without its secret.

    Args:
        id: 12 hexadecimal digits; part of the secret, and harmless to show.
        label: what people know it by, 1 to 100 printable characters.
        role: what it may do.
        created: when, UTC.
        last_used: when it was last let in, to the minute, UTC; None if never.
        revoked: when it was revoked, UTC; None if it works.
    """

    id: str
    label: str
    role: Role
    created: datetime
    last_used: datetime | None = None
    revoked: datetime | None = None

    def __post_init__(self) -> None:
        check_label(self.label)


@dataclass(frozen=True)
class _Remembered:
    """A key, the hash of its secret, and when (monotonic seconds) the records said so."""

    key: Key
    digest: str
    since: float


def check_label(label: str) -> None:
    """Raise ValueError unless a text can be a key's label: 1 to 100 printable characters, not only blanks."""
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise ValueError(f"a key's label has 1 to {LONGEST_LABEL} printable characters, got {label!r}")


class Keys:
    """The keys of an installation. Safe for several threads and processes; every method is one transaction.

    Args:
        database: that of the records.
        clock: monotonic seconds.
    """

    def __init__(self, database: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._remembered: dict[str, _Remembered] = {}
        self._lock = threading.Lock()
        create_tables(_METADATA, database)

    def close(self) -> None:
        """Let go of the connections to the records; the next use makes new ones."""
        self._database.dispose()

    @repeatable
    def create(self, label: str, role: Role) -> tuple[str, str]:
        """Make a key.

        Returns:
            Its id, and its secret ``vvx_<id>_<256 bits as hexadecimal digits>``, which nothing can tell again.

        Raises:
            ValueError: the label is empty, too long or not printable.
        """
        check_label(label)
        identity = secrets.token_hex(6)
        secret = f"{PREFIX}_{identity}_{secrets.token_hex(32)}"
        values = {"id": identity, "label": label, "role": str(role), "digest": _digest(secret), "created": now()}
        with writing(self._database) as connection:
            connection.execute(sql.insert(_KEYS).values(**values))
        return identity, secret

    @repeatable
    def all(self) -> list[Key]:
        """Every key ever made, the oldest first."""
        with reading(self._database) as connection:
            rows = connection.execute(sql.select(_KEYS).order_by(_KEYS.c.created, _KEYS.c.id)).mappings().all()
        return [_key(row) for row in rows]

    @repeatable
    def exist(self) -> bool:
        """Whether a key was ever made: revoking the last one must not open the door."""
        with reading(self._database) as connection:
            return connection.execute(sql.select(_KEYS.c.id).limit(1)).first() is not None

    @repeatable
    def revoke(self, identity: str) -> Key:
        """Let a key work no longer; doing it twice changes nothing. Raises UnknownKey."""
        if not _IDENTITY.fullmatch(identity):  # nor would every database be asked for it
            raise UnknownKey(f"no key has the id {identity!r}: `visavox keys list` shows those there are")
        with writing(self._database) as connection:
            connection.execute(
                sql.update(_KEYS).where(_KEYS.c.id == identity, _KEYS.c.revoked.is_(None)).values(revoked=now())
            )
            row = connection.execute(sql.select(_KEYS).where(_KEYS.c.id == identity)).mappings().first()
        if row is None:
            raise UnknownKey(f"no key has the id {identity!r}: `visavox keys list` shows those there are")
        with self._lock:
            self._remembered.pop(identity, None)
        return _key(row)

    def check(self, secret: str) -> Key | None:
        """The key of a secret, or None if there is none or it is revoked.

        Asks the records at most once in ``FRESH_SECONDS`` for each key that works. Raises RecordsError.
        """
        found = _SECRET.fullmatch(secret)
        if found is None:
            return None
        return self.remembered(secret) or self._look_up(found[1], _digest(secret))

    def remembered(self, secret: str) -> Key | None:
        """The same from memory alone, without waiting: None too where the records would have to be asked."""
        found = _SECRET.fullmatch(secret)
        with self._lock:
            known = self._remembered.get(found[1]) if found else None
        if known is None or self._clock() - known.since > FRESH_SECONDS:
            return None
        return known.key if hmac.compare_digest(known.digest, _digest(secret)) else None

    @repeatable
    def _look_up(self, identity: str, digest: str) -> Key | None:
        asked = self._clock()  # before the question: what is revoked meanwhile is not believed for longer
        with reading(self._database) as connection:
            row = connection.execute(sql.select(_KEYS).where(_KEYS.c.id == identity)).mappings().first()
        # without a row another hash is compared all the same: the time tells nothing about which ids exist
        same = hmac.compare_digest(row["digest"] if row else _digest(""), digest)
        if row is None or not same or row["revoked"] is not None:
            with self._lock:
                if row is None or row["revoked"] is not None:
                    self._remembered.pop(identity, None)
            return None
        key = _key(row)
        with self._lock:
            self._remembered[identity] = _Remembered(key, digest, asked)
        self._note_use(key)
        return key

    def _note_use(self, key: Key) -> None:
        """Write down that a key was used, to the minute. Records that cannot be written must not shut it out."""
        moment = now()
        if key.last_used is None or (moment - key.last_used).total_seconds() > USED_SECONDS:
            with suppress(RecordsError), writing(self._database) as connection:
                connection.execute(sql.update(_KEYS).where(_KEYS.c.id == key.id).values(last_used=moment))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: sql.RowMapping) -> Key:
    return Key(row["id"], row["label"], Role(row["role"]), row["created"], row["last_used"], row["revoked"])
