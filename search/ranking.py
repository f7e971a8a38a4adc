"""Rankings judged by the block: the figures of :mod:`search.metrics` for thousands of probes at once.

Pure functions of arrays, NumPy only. A block of probes is sorted once; nothing is done probe by probe, and
memory stays bounded whatever the number of probes. No function changes its inputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALL_AT = (1, 5, 10)
_BLOCK_SCORES = 4_000_000  # scores held at a time, 16 MB of float32


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What each probe got; probes without a right answer in their gallery are NaN everywhere.

    Args:
        average_precision: (probes,) float64, 0 to 1.
        reciprocal_rank: (probes,) float64, 0 to 1.
        recall: k to (probes,) float64, 0 to 1.
        relevant: (probes,) number of right answers in each probe's gallery.
        gallery: (probes,) size of each probe's gallery.
    """

    average_precision: NDArray[np.float64]
    reciprocal_rank: NDArray[np.float64]
    recall: dict[int, NDArray[np.float64]]
    relevant: NDArray[np.int64]
    gallery: NDArray[np.int64]

    @property
    def map(self) -> float:
        """Mean average precision over the probes that have a right answer."""
        return float(np.nanmean(self.average_precision))

    @classmethod
    def joined(cls, parts: Sequence[Retrieval]) -> Retrieval:
        """The probes of several blocks, in order."""
        return cls(
            np.concatenate([part.average_precision for part in parts]),
            np.concatenate([part.reciprocal_rank for part in parts]),
            {k: np.concatenate([part.recall[k] for part in parts]) for k in RECALL_AT},
            np.concatenate([part.relevant for part in parts]),
            np.concatenate([part.gallery for part in parts]),
        )


def judge(scores: ArrayLike, relevant: ArrayLike) -> Retrieval:
    """Judge the rankings of many probes at once, as the functions of one probe in :mod:`search.metrics` do.

    Each row of scores is sorted once, without its labels: the average precision of a probe is the mean,
    over its right answers, of (right answers that score at least as much) / (items that do), and both
    numbers are places in sorted lines.

    Args:
        scores: (probes, gallery) scores; −inf takes an item out of a probe's gallery.
        relevant: (probes, gallery) whether each item is a right answer.

    Raises:
        ValueError: shapes differ, the gallery is empty, or a score is NaN or +inf.
    """
    matrix, right = scores_and_relevance(scores, relevant, dimensions=2)
    probes, width = matrix.shape
    if not width:
        raise ValueError("a gallery needs at least one item")
    ranked = np.sort(matrix, axis=1)  # ascending: what is out of the gallery first, NaN last
    if not (ranked[:, -1] < np.inf).all():
        raise ValueError("a score is not finite")
    found = _RightAnswers.within(matrix, right)
    outside = _count_below(ranked, np.arange(probes), np.full(probes, -np.inf), or_equal=True)
    at_least = width - _count_below(ranked, found.row, found.score)
    asked = found.count > 0
    precision = np.bincount(found.row, found.at_least / at_least, minlength=probes)
    average = np.where(asked, precision / np.maximum(found.count, 1), np.nan)
    recall = {k: np.where(asked, _recalls(ranked, found, width - outside, k), np.nan) for k in RECALL_AT}
    return Retrieval(average, _reciprocal_ranks(ranked, found), recall, found.count, width - outside)


def judge_blocks(
    blocks: Iterable[NDArray[Any]],
    probe_ids: Sequence[Hashable] | NDArray[Any],
    gallery_ids: Sequence[Hashable] | NDArray[Any],
) -> Retrieval:
    """Judge rankings whose scores come a block of probes at a time, so that memory stays bounded.

    Args:
        blocks: (b, gallery) scores each, in the order of the probes; −inf as in :func:`judge`.
        probe_ids: (probes,) who each probe is.
        gallery_ids: (gallery,) who each item is; right answers are those of the probe's own id.

    Raises:
        ValueError: the blocks do not fit the ids, or there are no probes.
    """
    asked, held = np.asarray(probe_ids), np.asarray(gallery_ids)
    _, code = np.unique(np.concatenate([asked, held]), return_inverse=True)
    probe_code, gallery_code = code[: len(asked)].astype(np.int32), code[len(asked) :].astype(np.int32)
    parts, start = [], 0
    for scores in blocks:
        mine = probe_code[start : start + len(scores)]
        parts.append(judge(scores, mine[:, None] == gallery_code[None, :]))
        start += len(scores)
    if start != len(asked) or not parts:
        raise ValueError(f"scores of {start} probes came for {len(asked)} probes; at least one is needed")
    return Retrieval.joined(parts)


def similarity_blocks(
    probe_vectors: NDArray[np.floating], gallery_vectors: NDArray[np.floating], *, block: int | None = None
) -> Iterator[NDArray[np.floating]]:
    """Dot products of every probe with every item of the gallery, a block of probes at a time.

    They are summed in double precision and given in the vectors' own: a matrix product adds up the same
    numbers in another order in another column, and equal vectors must tie.

    Args:
        probe_vectors: (probes, d) float32 or float64.
        gallery_vectors: (gallery, d) likewise.
        block: probes at a time; by default as many as give about 4 million scores.
    """
    across = np.asarray(gallery_vectors, np.float64).T
    step = block or max(1, _BLOCK_SCORES // max(1, across.shape[1]))
    for start in range(0, len(probe_vectors), step):
        lines = np.asarray(probe_vectors[start : start + step], np.float64) @ across
        yield lines.astype(np.result_type(probe_vectors, gallery_vectors), copy=False)


def retrieval(
    probe_vectors: ArrayLike,
    probe_ids: Sequence[Hashable] | NDArray[Any],
    gallery_vectors: ArrayLike,
    gallery_ids: Sequence[Hashable] | NDArray[Any],
    *,
    same_sample: NDArray[np.bool_] | None = None,
    block: int | None = None,
) -> Retrieval:
    """Rank a gallery for every probe by dot product, and judge the rankings; a block of probes at a time.

    Ties count as in the functions of the same names of :mod:`search.metrics`. About 100 MB are held for 20,000
    probes in a gallery of 20,000.

    Args:
        probe_vectors: (probes, d) float32 or float64; unit vectors, if cosines are meant.
        probe_ids: (probes,) who each probe is.
        gallery_vectors: (gallery, d) likewise.
        gallery_ids: (gallery,) who each item is; right answers are those of the probe's own id.
        same_sample: (probes, gallery) True where an item *is* the probe and so leaves its gallery;
            ``np.eye(n, dtype=bool)`` when the probes are the gallery.
        block: probes at a time; by default as many as give about 4 million scores.

    Raises:
        ValueError: shapes do not fit together.
    """
    probes, gallery = np.asarray(probe_vectors), np.asarray(gallery_vectors)
    if probes.shape != (len(probe_ids), gallery.shape[1]) or len(gallery) != len(gallery_ids):
        held = (len(probe_ids), len(gallery_ids))
        raise ValueError(f"vectors {probes.shape}, {gallery.shape} do not fit {held[0]} and {held[1]} ids")
    if same_sample is not None and same_sample.shape != (len(probes), len(gallery)):
        raise ValueError(f"same_sample must be {(len(probes), len(gallery))}, got {same_sample.shape}")
    blocks = similarity_blocks(probes, gallery, block=block)
    return judge_blocks(blocks if same_sample is None else _without(blocks, same_sample), probe_ids, gallery_ids)


def expected_reciprocal_rank(before: int, tied: int, wanted: int) -> float:
    """Mean 1 / rank of the first of ``wanted`` right ones in a shuffled group of ``tied`` with ``before`` above it.

    P(it stands at place j of the group) = P(none before) · P(right | none before).
    """
    place = np.arange(tied - wanted + 1)
    none_before = np.append(1.0, np.cumprod((tied - wanted - place[:-1]) / (tied - place[:-1])))
    return float(np.sum(none_before * wanted / (tied - place) / (before + place + 1)))


def scores_and_relevance(
    scores: ArrayLike, relevant: ArrayLike, dimensions: int
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Scores as floating numbers and relevance as booleans, of one shape. Raises ValueError if shapes differ."""
    first, second = np.asarray(scores), np.asarray(relevant, dtype=bool)
    if first.dtype.kind != "f":
        first = first.astype(np.float64)
    if first.ndim != dimensions or first.shape != second.shape:
        raise ValueError(f"scores {first.shape} and relevance {second.shape} must have one shape of {dimensions}-d")
    return first, second


@dataclass(frozen=True, eq=False)
class _RightAnswers:
    """The right answers of a block of probes, by probe and then from the best score to the worst.

    Args:
        row: (answers,) whose it is.
        score: (answers,) falling within a row.
        at_least: (answers,) right answers of the row that score at least as much.
        count: (rows,) right answers of each row.
    """

    row: NDArray[np.intp]
    score: NDArray[Any]
    at_least: NDArray[np.intp]
    count: NDArray[np.int64]

    @classmethod
    def within(cls, matrix: NDArray[Any], right: NDArray[np.bool_]) -> _RightAnswers:
        """Find and sort them; (rows, gallery) both."""
        place = np.flatnonzero(right)  # many times quicker than asking for rows and columns
        row, score = place // matrix.shape[1], matrix.reshape(-1)[place]
        kept = score != -np.inf
        row, score = row[kept], score[kept]
        order = np.lexsort((-score, row))
        row, score = row[order], score[order]
        count = np.bincount(row, minlength=len(matrix)).astype(np.int64)
        begins = np.cumsum(count) - count
        changes = (row[1:] != row[:-1]) | (score[1:] != score[:-1])
        ends = np.append(np.flatnonzero(changes), len(row) - 1) if len(row) else np.zeros(0, dtype=np.intp)
        last_tied = np.repeat(ends, np.diff(ends, prepend=-1))
        return cls(row, score, last_tied - begins[row] + 1, count)


def _count_below(
    ranked: NDArray[Any], row: NDArray[np.intp], value: NDArray[Any], *, or_equal: bool = False
) -> NDArray[np.intp]:
    """How many scores of its row each value exceeds (or reaches): one bisection for all of them together."""
    width = ranked.shape[1]
    low, high = np.zeros(len(row), dtype=np.intp), np.full(len(row), width, dtype=np.intp)
    for _ in range(width.bit_length()):
        middle = (low + high) // 2
        here = ranked[row, np.minimum(middle, width - 1)]
        rises = (here <= value if or_equal else here < value) & (low < high)
        low, high = np.where(rises, middle + 1, low), np.where(rises, high, middle)
    return low


def _recalls(ranked: NDArray[Any], found: _RightAnswers, gallery: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """:func:`search.metrics.recall_at` of every row."""
    probes, width = ranked.shape
    rows = np.arange(probes)
    at_k = ranked[rows, np.full(probes, max(0, width - k))]  # the score that holds place k
    before = width - _count_below(ranked, rows, at_k, or_equal=True)
    tied = width - before - _count_below(ranked, rows, at_k)
    sooner = np.bincount(found.row[found.score > at_k[found.row]], minlength=probes)
    wanted = np.bincount(found.row[found.score == at_k[found.row]], minlength=probes)
    missed = np.ones(probes)
    for drawn in range(k):
        wrong = np.maximum(0, tied - wanted - drawn) / np.maximum(tied - drawn, 1)
        missed = np.where(drawn < k - before, missed * wrong, missed)
    recall = np.where(sooner > 0, 1.0, 1.0 - missed)
    return np.where(gallery <= k, np.minimum(found.count, 1), recall)


def _reciprocal_ranks(ranked: NDArray[Any], found: _RightAnswers) -> NDArray[np.float64]:
    """:func:`search.metrics.reciprocal_rank` of every row; NaN for rows without a right answer."""
    rank = np.full(len(ranked), np.nan)
    rows = np.flatnonzero(found.count)
    first = (np.cumsum(found.count) - found.count)[rows]
    best, wanted = found.score[first], found.at_least[first]
    before = ranked.shape[1] - _count_below(ranked, rows, best, or_equal=True)
    tied = ranked.shape[1] - before - _count_below(ranked, rows, best)
    # One by one only where items tie, and each such case once: a scorer of two values has few.
    cases, case = np.unique(np.stack([before, tied, wanted], axis=1), axis=0, return_inverse=True)
    simple = cases[:, 1] == cases[:, 2]
    expected = 1.0 / (cases[:, 0] + 1.0)
    expected[~simple] = [expected_reciprocal_rank(*map(int, one)) for one in cases[~simple]]
    rank[rows] = expected[case.reshape(-1)]
    return rank


def _without(blocks: Iterable[NDArray[Any]], same_sample: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
    """Blocks of scores with −inf where an item is the probe itself."""
    start = 0
    for scores in blocks:
        yield np.where(same_sample[start : start + len(scores)], scores.dtype.type(-np.inf), scores)
        start += len(scores)
