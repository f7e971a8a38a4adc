"""Retrieval through a served index at its real size: what approximate search costs on a protocol's gallery.

An index gives the first thousand, not a whole ranking, so the figure is mean average precision at 1,000, normalised
by min(R, 1,000), beside the same figure of exact search on the same probes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Embedding, Modality, Space
from search.archive import NO_SPAN
from search.evaluation import PROBES_AT_ONCE
from search.store import SHARED, Row, Store, row_key
from search.trial_lists import DIRECTIONS
from search.two_way import Side

DEPTH = 1000
PROBES = 500
_ROWS_AT_ONCE = 5_000
_ROUNDING = 1e-6  # an index computes in single precision


def through_index(
    sides: dict[Modality, Side],
    store: Store,
    *,
    space_digest: str = "",
    depth: int = DEPTH,
    probes: int = PROBES,
    seed: int = 0,
    asking: dict[Modality, Side] | None = None,
) -> dict[str, Any]:
    """Fill an index with both sides and ask it with a sample of each.

    Args:
        sides: by modality, unit vectors.
        store: an empty index.
        space_digest: of the vectors' space, if it is known.
        depth: how many hits are asked for.
        probes: how many of each side ask, drawn by the seed; all, if there are no more.
        seed: of that draw.
        asking: the same samples as they ask (:meth:`search.sample_vectors.SampleVectors.asking`); None: as they are.

    Returns:
        By direction ``map_at_<depth>`` and ``map_at_<depth>_exact``, ``index_recall`` (share of what is exactly among
        the first that the index finds), ``index_probes`` and ``index_depth``.

    Raises:
        StoreError: the index failed.
    """
    dimension = sides[Modality.VOICE].vectors.shape[1]
    space = Space(SHARED, dimension, space_digest or hashlib.sha256(b"vectors of a file").hexdigest())
    gallery = {modality: _Gallery(space, modality, side) for modality, side in sides.items()}
    store.create(space)
    for held in gallery.values():
        held.fill(store)
    store.flush(space)
    told = {}
    for number, (probe, way) in enumerate(DIRECTIONS.items()):
        total = len(sides[probe].person)
        random = np.random.default_rng([seed, number])
        chosen = np.sort(random.choice(total, size=min(probes, total), replace=False))
        probes_side = _Gallery(space, probe, (asking or sides)[probe])
        told[way] = _direction(probes_side, gallery[probe.other], store, chosen, depth)
    return told


class _Gallery:
    """The samples of one modality as rows of an index."""

    def __init__(self, space: Space, modality: Modality, side: Side) -> None:
        self.space, self.modality, self.side = space, modality, side
        names = [hashlib.sha256(f"{modality} {row}".encode()).hexdigest() for row in range(len(side.person))]
        self.keys = [row_key(name, modality, NO_SPAN, name, space) for name in names]
        self.place = {key: row for row, key in enumerate(self.keys)}
        self._names = names

    def embedding(self, row: int) -> Embedding:
        """The point of a sample."""
        return Embedding(self.space, self.modality, self.side.vectors[row].astype(np.float32))

    def fill(self, store: Store) -> None:
        """Write all of it."""
        for start in range(0, len(self.keys), _ROWS_AT_ONCE):
            rows = range(start, min(start + _ROWS_AT_ONCE, len(self.keys)))
            names = self._names
            store.upsert(
                self.space,
                [Row(self.keys[i], self.embedding(i), names[i], 0, NO_SPAN, names[i]) for i in rows],
            )


def _direction(asking: _Gallery, held: _Gallery, store: Store, chosen: NDArray[np.intp], depth: int) -> dict[str, Any]:
    depth = min(depth, len(held.keys))
    exact_precision, precision, recall = [], [], []
    for start in range(0, len(chosen), PROBES_AT_ONCE):
        block = chosen[start : start + PROBES_AT_ONCE]
        scores = asking.side.vectors[block] @ held.side.vectors.T
        found = store.search([asking.embedding(int(row)) for row in block], depth, want=held.modality)
        for row, line, hits in zip(block, scores, found, strict=True):
            right = held.side.person == asking.side.person[row]
            if not right.any():
                continue
            places = np.array([held.place[hit.row.key] for hit in hits], dtype=np.intp)
            told = np.array([hit.score for hit in hits])
            # equal vectors tie, whatever an index made of them
            told = np.where(np.abs(told - line[places]) <= _ROUNDING, line[places], told)
            exact_precision.append(average_precision_at(line, right, depth, int(right.sum())))
            precision.append(average_precision_at(told, right[places], depth, int(right.sum())))
            least = np.partition(line, len(line) - depth)[len(line) - depth]
            recall.append(float(np.sum(line[places] >= least - _ROUNDING)) / depth)
    return {
        f"map_at_{DEPTH}": float(np.mean(precision)), f"map_at_{DEPTH}_exact": float(np.mean(exact_precision)),
        "index_recall": float(np.minimum(1.0, np.mean(recall))), "index_probes": len(precision), "index_depth": depth,
    }  # fmt: skip


def average_precision_at(scores: NDArray[np.floating], right: NDArray[np.bool_], depth: int, relevant: int) -> float:
    """Average precision over the first ``depth``, normalised by min(relevant, depth).

    Ties share their precision; of ties that cross the depth, the share that fits is counted.

    Args:
        scores: (n,) higher is better.
        right: (n,) whether each is a right answer.
        depth: places that count.
        relevant: right answers in the whole gallery, at least 1.
    """
    order = np.argsort(-scores, kind="stable")
    levels = -scores[order]
    ends = np.flatnonzero(np.append(levels[1:] != levels[:-1], True)) + 1 if len(levels) else np.zeros(0, np.intp)
    hits = np.cumsum(right[order])[ends - 1] if len(levels) else np.zeros(0)
    starts = np.append(0, ends)[:-1]
    gained = np.diff(hits, prepend=0)
    share = np.clip((depth - starts) / np.maximum(ends - starts, 1), 0.0, 1.0)
    within = gained * share
    reached = hits - gained + within
    return float(np.sum(within * reached / np.maximum(np.minimum(ends, depth), 1)) / min(relevant, depth))
