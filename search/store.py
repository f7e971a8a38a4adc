"""The index as the rest of search sees it: rows in, hits out; and an exact store in memory.

Errors::

    StoreError                 anything the index could not do
    ├── StoreUnavailable       no answer from the index: down, unreachable, timed out
    ├── StoreFull              the index takes no more rows: its disk, memory or quota is used up
    └── StoreHeld              an embedded index is open in another process (names its owner)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from encoders.space import Embedding, Modality, Space, SpaceMismatch, require_same_space


class StoreError(Exception):
    """The index could not do what was asked."""


class StoreUnavailable(StoreError):
    """The index does not answer: down, unreachable or too slow."""


class StoreFull(StoreError):
    """The index takes no more rows until somebody makes room; it may still answer questions."""


class StoreHeld(StoreError):
    """The embedded index has one owner at a time, and it is another process."""


@dataclass(frozen=True, eq=False)
class Row:
    """One sample in the index.

    Args:
        key: 64 hex digits naming the work (:func:`row_key`).
        embedding: where it lies.
        media: content hash of the file it was found in.
        track: number of the face track or of the speaker within the medium.
        span_ms: (start, end) in milliseconds; (-1, -1) for a photo.
        evidence: id of the stored crop or turn.
        person: id of the enrolled person, or "" when unnamed.
        quality: 0 to 1.
    """

    key: str
    embedding: Embedding
    media: str
    track: int
    span_ms: tuple[int, int]
    evidence: str
    person: str = ""
    quality: float = 1.0

    @property
    def entry(self) -> Entry:
        """The same without its vector."""
        return Entry(
            self.key, self.embedding.space, self.embedding.modality, self.media, self.track, self.span_ms,
            self.evidence, self.person, self.quality,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entry:
    """A row without its vector, as hits show it: most of a row's bytes are its vector, and no answer needs it.

    Args:
        key: see :class:`Row`, as for all that follow.
        space: of the row's vector.
        modality: what the vector was made from.
        media: content hash of the file.
        track: number within the medium.
        span_ms: (start, end) in milliseconds.
        evidence: id of the stored crop or turn.
        person: id of the enrolled person, or "".
        quality: 0 to 1.
    """

    key: str
    space: Space
    modality: Modality
    media: str
    track: int
    span_ms: tuple[int, int]
    evidence: str
    person: str
    quality: float


@dataclass(frozen=True, eq=False)
class Hit:
    """A row found, with its cosine similarity to the probe in [-1, 1]."""

    row: Entry
    score: float


@dataclass(frozen=True)
class Filter:
    """Which rows may be hits; empty fields do not restrict.

    Args:
        persons: only rows of these person ids.
        enrolled: True for rows of any person, False for unnamed rows, None for both.
        exclude_media: leave out rows found in these media.
    """

    persons: tuple[str, ...] = ()
    enrolled: bool | None = None
    exclude_media: tuple[str, ...] = ()

    def admits(self, row: Row) -> bool:
        """Whether a row passes."""
        return (
            (not self.persons or row.person in self.persons)
            and (self.enrolled is None or bool(row.person) == self.enrolled)
            and row.media not in self.exclude_media
        )


EVERYTHING = Filter()
# The name of the space in which faces and voices meet: each trained model makes one of its own, and one serves.
SHARED = "shared"
# What a Milvus server returns to one probe at most; beyond it an average precision would be cut off.
MOST_HITS = 16_384


def row_key(media: str, modality: Modality, span_ms: tuple[int, int], evidence: str, space: Space) -> str:
    """Name the work: 64 hex digits that depend on what a row is, never on when or where it was made."""
    parts = (media, str(modality), str(span_ms[0]), str(span_ms[1]), evidence, space.digest)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def require_one_shape(expected: Space, others: Sequence[Space]) -> None:
    """Raise SpaceMismatch unless every other space has the digest and the dimension of the expected one."""
    require_same_space(expected, *others)
    for other in others:
        if other.dimension != expected.dimension:
            raise SpaceMismatch(
                f"space {expected.name} ({expected.digest[:12]}) has {expected.dimension} dimensions, "
                f"got vectors of {other.dimension}: one of the two encoders is damaged"
            )


class Store(Protocol):
    """An index of rows, one collection per space. Every call may raise StoreError."""

    def create(self, space: Space) -> None:
        """Make the space's collection if it does not exist."""

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        """Write rows; a row whose key exists is replaced.

        SpaceMismatch if a row is of another space, or the space's collection of another dimension; that every
        other call raises too.
        """

    def delete(self, space: Space, keys: Sequence[str]) -> None:
        """Remove rows from every answer; unknown keys are ignored. May leave bytes in the files: see erase."""

    def erase(self, space: Space, keys: Sequence[str]) -> None:
        """Remove rows so that their vectors are gone from the store's files too."""

    def flush(self, space: Space) -> None:
        """Make everything written so far durable and quick to search."""

    def search(
        self, probes: Sequence[Embedding], top: int, *, want: Modality | None, where: Filter = EVERYTHING
    ) -> list[list[Hit]]:
        """The ``top`` nearest rows in the probes' space, per probe, best first.

        Of modality ``want``; None: whatever there is, which is quicker in a space that holds but one. Equal scores
        are ordered by key. An unknown space gives no hits. SpaceMismatch if probes differ in space.
        """

    def get(self, space: Space, keys: Sequence[str]) -> list[Row]:
        """Rows by key, in no particular order; unknown keys are left out."""

    def rows(self, space: Space, where: Filter = EVERYTHING) -> Iterator[Row]:
        """All rows that pass a filter."""

    def keys(self, space: Space) -> set[str]:
        """All keys, as a reader sees them now (Strong consistency)."""

    def count(self, space: Space) -> int:
        """Number of rows, as a reader sees them now (Strong consistency)."""

    def drop(self, space: Space) -> None:
        """Remove the space's collection and everything in it."""

    def spaces(self) -> list[Space]:
        """Every space that has a collection, also an empty one, ordered by name and digest."""

    def drop_others(self, name: str, but: Space | None = None, *, keep: Collection[str] = ()) -> int:
        """Drop the collections of all spaces of a name but one: what models that serve no more have left.

        Args:
            name: of the spaces, such as ``shared``.
            but: the space to keep; None for none.
            keep: digests of further spaces to keep.

        Returns:
            The number of spaces dropped.
        """

    def close(self) -> None:
        """Let go of the index; the object is of no use afterwards."""


class MemoryStore:
    """An exact store in memory: for tests, for training, and as ground truth for approximate search."""

    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, Row]] = {}
        self._known: dict[str, Space] = {}

    def create(self, space: Space) -> None:
        """See Store.create."""
        require_one_shape(self._known.setdefault(space.digest, space), [space])
        self._spaces.setdefault(space.digest, {})

    def upsert(self, space: Space, rows: Sequence[Row]) -> None:
        """See Store.upsert."""
        require_one_shape(space, [row.embedding.space for row in rows])
        self.create(space)
        self._spaces[space.digest].update({row.key: row for row in rows})

    def delete(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.delete."""
        held = self._held(space)
        for key in keys:
            held.pop(key, None)

    def erase(self, space: Space, keys: Sequence[str]) -> None:
        """See Store.erase."""
        self.delete(space, keys)

    def flush(self, space: Space) -> None:
        """See Store.flush: memory is always flushed."""

    def search(
        self, probes: Sequence[Embedding], top: int, *, want: Modality | None, where: Filter = EVERYTHING
    ) -> list[list[Hit]]:
        """See Store.search: every row is compared."""
        if not probes:
            return []
        space = probes[0].space
        require_one_shape(space, [probe.space for probe in probes])
        rows = sorted(
            (row for row in self.rows(space, where) if want is None or row.embedding.modality is want),
            key=lambda row: row.key,
        )
        if not rows:
            return [[] for _ in probes]
        gallery = np.stack([row.embedding.vector for row in rows])  # (rows, dimension)
        scores = np.stack([probe.vector for probe in probes]) @ gallery.T  # (probes, rows)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        entries = [row.entry for row in rows]
        return [
            [Hit(entries[column], float(line[column])) for column in columns]
            for line, columns in zip(scores, order, strict=True)
        ]

    def get(self, space: Space, keys: Sequence[str]) -> list[Row]:
        """See Store.get."""
        held = self._held(space)
        return [held[key] for key in dict.fromkeys(keys) if key in held]

    def rows(self, space: Space, where: Filter = EVERYTHING) -> Iterator[Row]:
        """See Store.rows."""
        return (row for row in list(self._held(space).values()) if where.admits(row))

    def keys(self, space: Space) -> set[str]:
        """See Store.keys."""
        return set(self._held(space))

    def count(self, space: Space) -> int:
        """See Store.count."""
        return len(self._held(space))

    def drop(self, space: Space) -> None:
        """See Store.drop."""
        self._spaces.pop(space.digest, None)
        self._known.pop(space.digest, None)

    def spaces(self) -> list[Space]:
        """See Store.spaces."""
        return sorted(self._known.values(), key=lambda space: (space.name, space.digest))

    def drop_others(self, name: str, but: Space | None = None, *, keep: Collection[str] = ()) -> int:
        """See Store.drop_others."""
        kept = {*keep, but.digest if but else ""}
        unused = [digest for digest, space in self._known.items() if space.name == name and digest not in kept]
        for digest in unused:
            del self._spaces[digest], self._known[digest]
        return len(unused)

    def close(self) -> None:
        """See Store.close."""
        self._spaces.clear()
        self._known.clear()

    def _held(self, space: Space) -> dict[str, Row]:
        """The rows of a space by their keys."""
        require_one_shape(self._known.get(space.digest, space), [space])
        return self._spaces.get(space.digest, {})


def keys_digest(keys: Iterable[str]) -> str:
    """SHA-256 of the sorted keys joined by newlines: two indexes with the same rows have the same digest."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def named(row: Row, person: str) -> Row:
    """The same row as a sample of a person ("" for nobody)."""
    return replace(row, person=person)
