"""Copying every space from one index to another: from a laptop's to a server's, or back.

Rows are copied as they are, vectors included, so nothing is encoded anew and the answers stay the same.
A copy that was stopped at any moment is finished by running it again: what is there already, and equal,
is left alone. The source is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from encoders.space import Modality, Space
from search.store import Row, Store, StoreError, keys_digest

BATCH_ROWS = 2_000
PROBES = 24  # rows whose neighbours are asked for in both indexes
NEIGHBOURS = 10
# Of an index that compares every row it is 1; an HNSW of 50,000 rows misses a hit in a hundred.
LEAST_AGREEMENT = 0.95

Progress = Callable[[Space, int, int], None]


class TransferRefused(StoreError):
    """The target holds rows that are not in the source: they would be mixed."""


@dataclass(frozen=True)
class SpaceTransfer:
    """What became of one space.

    Args:
        name: of the space.
        digest: of the space.
        rows: in the source.
        copied: rows that had to be written; the others were there, from an earlier attempt.
        removed: rows that only the target had.
        keys_sha256: digest of the target's keys, see search.store.keys_digest.
        agreement: share of the source's hits for a sample of probes that the target gives too, 0 to 1;
            1 where there is nothing to ask.
        problems: what differs after all; empty: the target has the same rows and gives the same answers.
    """

    name: str
    digest: str
    rows: int
    copied: int
    removed: int
    keys_sha256: str
    agreement: float
    problems: tuple[str, ...] = ()


def transfer(
    source: Store, target: Store, *, replace: bool = False, on_rows: Progress | None = None
) -> list[SpaceTransfer]:
    """Copy all spaces and compare the copy.

    Args:
        source: where rows are read; it is not changed.
        target: where they are written.
        replace: whether rows of these spaces that only the target has are erased there.
        on_rows: told after each batch how many rows of a space have been gone through, and of how many.

    Raises:
        TransferRefused: the target has other rows of a space, and is not to lose them; nothing was written.
        SpaceMismatch: the target holds something else in a space's place. StoreError.
    """
    surplus = {space: _only_in_target(source, target, space) for space in source.spaces()}
    for space, keys in surplus.items():
        if keys and not replace:
            raise TransferRefused(
                f"{len(keys)} rows of {space.name} ({space.digest[:12]}) in the target are not in this index: choose "
                "an empty one, or have them removed there with --replace"
            )
    done = []
    for space, keys in surplus.items():
        copied = _copy(source, target, space, on_rows)
        target.erase(space, sorted(keys))
        target.flush(space)
        done.append(_compared(source, target, space, copied, len(keys)))
    return done


def _only_in_target(source: Store, target: Store, space: Space) -> set[str]:
    return target.keys(space) - source.keys(space)


def _copy(source: Store, target: Store, space: Space, on_rows: Progress | None) -> int:
    """Write what the target lacks or has otherwise; the number of rows written."""
    target.create(space)
    present, total = target.keys(space), source.count(space)
    copied = seen = 0
    for batch in _batches(source.rows(space)):
        known = {row.key: row for row in target.get(space, [row.key for row in batch if row.key in present])}
        changed = [row for row in batch if row.key not in known or not _same(row, known[row.key])]
        if changed:
            target.upsert(space, changed)
        copied += len(changed)
        seen += len(batch)
        if on_rows:
            on_rows(space, seen, max(total, seen))
    return copied


def _compared(source: Store, target: Store, space: Space, copied: int, removed: int) -> SpaceTransfer:
    expected, found = source.keys(space), target.keys(space)
    count, agreement = target.count(space), _agreement(source, target, space, expected & found)
    problems = []
    if found != expected or count != len(expected):
        problems.append(
            f"{space.name}: {len(expected - found)} rows are missing and {len(found - expected)} too many in the "
            "target: something wrote into one of the two meanwhile; run this again when nothing does"
        )
    if agreement < LEAST_AGREEMENT:
        problems.append(
            f"{space.name}: only {agreement:.0%} of the hits of {PROBES} probes are the same: the target's index may "
            "not be complete yet; run this again in a minute"
        )
    return SpaceTransfer(
        space.name, space.digest, len(expected), copied, removed, keys_digest(found), agreement, tuple(problems)
    )


def _agreement(source: Store, target: Store, space: Space, keys: set[str]) -> float:
    """Share of the source's hits that the target gives too, for rows spread over the space as probes."""
    ordered = sorted(keys)
    sample = ordered[:: max(1, len(ordered) // PROBES)][:PROBES]
    probes = [row.embedding for row in sorted(source.get(space, sample), key=lambda row: row.key)]
    hits = shared = 0
    for want in Modality:
        answers = (store.search(probes, NEIGHBOURS, want=want) for store in (source, target))
        for mine, theirs in zip(*answers, strict=True):
            hits += len(mine)
            shared += len({hit.row.key for hit in mine} & {hit.row.key for hit in theirs})
    return shared / hits if hits else 1.0


def _same(row: Row, other: Row) -> bool:
    """Whether two rows of a key are equal in everything that an index keeps (quality to float32 precision)."""
    return (
        (row.media, row.track, row.span_ms, row.evidence, row.person)
        == (other.media, other.track, other.span_ms, other.evidence, other.person)
        and row.embedding.modality is other.embedding.modality
        and np.float32(row.quality) == np.float32(other.quality)
        and np.array_equal(row.embedding.vector, other.embedding.vector)
    )


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    source = iter(rows)
    while batch := list(islice(source, BATCH_ROWS)):
        yield batch
