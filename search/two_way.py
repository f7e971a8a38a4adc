"""Both directions of cross-modal retrieval from one set of scores: voices among faces, and faces among voices.

What a voice scores with a face is what the face scores with the voice, so one matrix product serves both ways; it
is made a block at a time and never held whole. Scores are products in double precision, kept as whole numbers of
2⁻³¹: finer than vectors in single precision mean anything, so equal vectors tie whatever the order in which a
product was summed, and whole numbers sort many times as fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from search.ranking import expected_reciprocal_rank

_FINENESS = float(2**31 - 64)  # scores of −1 to 1 and a little beyond fit into 32 bits
_PRODUCT_ROWS, _PRODUCT_COLUMNS = 256, 500  # of one matrix product: 1 MB, which the processor keeps near
_MOST_HELD = 80_000_000  # scores of a chunk of rows, 320 MB
_MOST_THREADS = 4

Whole = NDArray[np.int32]
Line = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Side:
    """The samples of one modality that are asked with and searched.

    Args:
        vectors: (n, d) float64; dot products with the other side's lie within −1 and 1.
        person: (n,) whole numbers, whom each shows.
        recording: (n,) whole numbers, which video it comes from, as on the other side; −1: not known.
    """

    vectors: NDArray[np.float64]
    person: NDArray[np.integer]
    recording: NDArray[np.integer]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not len(self.vectors) == len(self.person) == len(self.recording):
            raise ValueError(f"vectors {self.vectors.shape} need as many people ({len(self.person)}) and recordings")

    def in_order(self, order: NDArray[np.intp]) -> Side:
        """The same samples in another order."""
        return Side(self.vectors[order], self.person[order], self.recording[order])


@dataclass(frozen=True, eq=False)
class Ranked:
    """What each probe of one direction got; NaN where it has no right answer.

    Args:
        average_precision: (probes,) 0 to 1; ties share their precision.
        other_videos: (probes,) the same with the right answers of the probe's own video taken out of its gallery.
        before: (probes,) items that score higher than the best right answer.
        tied: (probes,) items that score as much, itself included.
        wanted: (probes,) right answers among those.
        relevant: (probes,) right answers in the gallery; 0 where there is none.
        gallery: number of items searched.
    """

    average_precision: Line
    other_videos: Line
    before: NDArray[np.int64]
    tied: NDArray[np.int64]
    wanted: NDArray[np.int64]
    relevant: NDArray[np.int64]
    gallery: int

    @property
    def asked(self) -> NDArray[np.bool_]:
        """(probes,) which probes have a right answer."""
        return self.relevant > 0

    def recall(self, most: int) -> Line:
        """(most,) share of the probes with a right answer among the first 1, 2, … ``most``: the CMC curve.

        Ties are shuffled; :func:`search.metrics.recall_at` has the formula.
        """
        cases, times = self._cases
        curve = np.zeros(most)
        for (before, tied, wanted), count in zip(cases.tolist(), times.tolist(), strict=True):
            if before >= most:
                continue
            drawn = np.arange(min(tied, most - before))
            missed = np.cumprod(np.maximum(0, tied - wanted - drawn) / (tied - drawn))
            curve[before : before + len(drawn)] += count * (1.0 - missed)
            curve[before + len(drawn) :] += count
        return curve / max(1, int(times.sum()))

    def mean_reciprocal_rank(self) -> float:
        """Mean over the probes of the expected 1 / place of the first right answer when ties are shuffled."""
        cases, times = self._cases
        simple = cases[:, 1] == cases[:, 2]
        expected = 1.0 / (cases[:, 0] + 1.0)
        expected[~simple] = [expected_reciprocal_rank(*map(int, one)) for one in cases[~simple]]
        return float(np.average(expected, weights=times))

    @cached_property
    def _cases(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each (before, tied, wanted) once, and how many probes have it: where few items tie, there are few."""
        asked, most = self.asked, self.gallery + 1
        found = (self.before[asked] * most + self.tied[asked]) * most + self.wanted[asked]
        cases, times = np.unique(found, return_counts=True)
        return np.stack([cases // most**2, cases // most % most, cases % most], axis=1), times


def rank_both_ways(first: Side, second: Side) -> tuple[Ranked, Ranked]:
    """Rank all of one side for each sample of the other, and the other way about.

    Args:
        first: the one side.
        second: the other; right answers are those of one's own person.

    Returns:
        What the first side's samples got among the second's, and the second's among the first's.

    Raises:
        ValueError: the vectors' lengths differ, or a side is empty.
    """
    if not len(first.vectors) or not len(second.vectors) or first.vectors.shape[1] != second.vectors.shape[1]:
        raise ValueError(f"vectors {first.vectors.shape} and {second.vectors.shape} cannot be compared")
    orders = [np.argsort(side.person, kind="stable") for side in (first, second)]
    sides = first.in_order(orders[0]), second.in_order(orders[1])
    scaled = sides[0].vectors * _FINENESS
    groups = list(_shared_people([side.person for side in sides], scaled, sides[1].vectors))
    _count(scaled, sides[1].vectors, groups)
    ranked = [_ranked(sides, groups, way, np.argsort(orders[way], kind="stable")) for way in (0, 1)]
    return ranked[0], ranked[1]


@dataclass(frozen=True, eq=False)
class _Group:
    """A person on both sides; rows are in the order of people.

    Args:
        spans: the person's rows on either side.
        scores: (a, b) whole numbers, what they score with each other.
        asked: for either direction (rows, right answers + 1): their scores, rising, and what beats the best of them.
        at_least: of the same shape: how many items of the gallery score at least so much; filled in later.
    """

    spans: tuple[slice, slice]
    scores: Whole
    asked: tuple[Whole, Whole]
    at_least: tuple[Whole, Whole]


def _shared_people(people: Sequence[NDArray[np.integer]], scaled: Line, second: Line) -> Iterator[_Group]:
    for person in np.intersect1d(people[0], people[1]):
        spans = [slice(*(int(np.searchsorted(one, person, end)) for end in ("left", "right"))) for one in people]
        scores = np.rint(scaled[spans[0]] @ second[spans[1]].T).astype(np.int32)
        asked = [_rising(lines) for lines in (scores, scores.T)]
        counts = [np.zeros(lines.shape, dtype=np.int32) for lines in asked]
        yield _Group((spans[0], spans[1]), scores, (asked[0], asked[1]), (counts[0], counts[1]))


def _rising(scores: Whole) -> Whole:
    """Sorted lines, and behind each the least whole number that beats them all."""
    ranked = np.sort(scores, axis=1)  # places are looked up faster in this order
    return np.append(ranked, ranked[:, -1:] + 1, axis=1)


def _count(scaled: Line, second: Line, groups: list[_Group]) -> None:
    """Fill in ``at_least`` of every group: a chunk of the first side's rows at a time against all of the second's.

    Args:
        scaled: (n, d) vectors of the first side, so that products are scores in whole numbers before rounding.
        second: (m, d) vectors of the second.
        groups: the people whom both sides show.
    """
    width, chunks = len(second), -(-len(scaled) // max(1, _MOST_HELD // len(second)))
    height = -(-len(scaled) // chunks)
    held = np.empty((width, height), dtype=np.int32)  # the other way about: columns are what is sorted last
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    spare: SimpleQueue[tuple[Line, Whole]] = SimpleQueue()  # made once: fresh memory costs as much as sorting
    for _ in range(threads):
        spare.put((np.empty((_PRODUCT_ROWS, _PRODUCT_COLUMNS)), np.empty((_PRODUCT_ROWS, width), dtype=np.int32)))

    def rows(start: int, stop: int, first: int) -> None:
        product, lines = spare.get()
        last = min(first + _PRODUCT_ROWS, stop)
        columns = held[:, first - start : last - start]
        _score(scaled[first:last], second, product, lines[: last - first])
        _count_rows(lines[: last - first], columns, first, groups)
        spare.put((product, lines))

    # Each task writes to counts of its own; products, rounding and sorting run side by side. Threads that the library
    # of products would start besides would only wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(scaled), height):
            stop = min(start + height, len(scaled))
            list(pool.map(partial(rows, start, stop), range(start, stop, _PRODUCT_ROWS)))
            list(pool.map(partial(_count_columns, held[:, : stop - start]), groups))


def _score(scaled: Line, second: Line, product: Line, lines: Whole) -> None:
    """Fill ``lines`` (rows, m) with the scores of some rows; what is rounded is still near the processor."""
    for begin in range(0, len(second), _PRODUCT_COLUMNS):
        some = second[begin : begin + _PRODUCT_COLUMNS]
        part = product[: len(scaled), : len(some)]
        np.matmul(scaled, some.T, out=part)
        np.rint(part, out=lines[:, begin : begin + len(some)], casting="unsafe")


def _count_rows(lines: Whole, columns: Whole, start: int, groups: list[_Group]) -> None:
    """Complete rows of the first side: keep them for the columns' sake, then sort them and count over each."""
    stop = start + len(lines)
    met = [group for group in groups if group.spans[0].start < stop and group.spans[0].stop > start]
    parts = [(group, max(start, group.spans[0].start), min(stop, group.spans[0].stop)) for group in met]
    for group, begin, end in parts:
        # one score has one value, also where another product summed it in another order
        own = slice(begin - group.spans[0].start, end - group.spans[0].start)
        lines[begin - start : end - start, group.spans[1]] = group.scores[own]
    columns[:] = lines.T
    lines.sort(axis=1)
    width = lines.shape[1]
    for group, begin, end in parts:
        for row in range(begin, end):
            own_row = row - group.spans[0].start
            group.at_least[0][own_row] = width - lines[row - start].searchsorted(group.asked[0][own_row])


def _count_columns(columns: Whole, group: _Group) -> None:
    """A part of the first side's rows: sort and count over it for each of the second side's samples of a person."""
    ranked = columns[group.spans[1]]
    ranked.sort(axis=1)
    height = ranked.shape[1]
    for line, asked, at_least in zip(ranked, group.asked[1], group.at_least[1], strict=True):
        at_least += height - line.searchsorted(asked)


def _ranked(sides: Sequence[Side], groups: list[_Group], way: int, back: NDArray[np.intp]) -> Ranked:
    """From counts to figures, a person at a time; ``back`` puts the probes into the order they came in."""
    own, other = sides[way], sides[1 - way]
    probes = len(own.person)
    average, elsewhere = np.full(probes, np.nan), np.full(probes, np.nan)
    before, tied, wanted, relevant = np.zeros((4, probes), dtype=np.int64)
    for group in groups:
        rows, answers = group.spans[way], group.spans[1 - way]
        scores, reached = group.asked[way][:, -2::-1], group.at_least[way][:, -2::-1]
        best = group.at_least[way][:, -1]
        order = np.argsort(group.scores.T if way else group.scores, axis=1)[:, ::-1]
        upto = _last_tied(scores)
        video, videos = own.recording[rows, None], other.recording[answers][order]
        same = (video == videos) & (video >= 0)
        average[rows] = np.mean((upto + 1) / reached, axis=1)
        elsewhere[rows] = _without(same, upto, reached)
        before[rows] = best
        tied[rows] = reached[:, 0] - best
        wanted[rows], relevant[rows] = upto[:, 0] + 1, scores.shape[1]
    return Ranked(
        average[back], elsewhere[back], before[back], tied[back], wanted[back], relevant[back], len(other.person)
    )  # fmt: skip


def _last_tied(scores: Whole) -> NDArray[np.intp]:
    """Place of the last score of its row that equals each; scores fall along a row."""
    width = scores.shape[1]
    place = np.broadcast_to(np.arange(width), scores.shape)
    ends = np.where(np.append(scores[:, 1:] != scores[:, :-1], np.ones((len(scores), 1), dtype=bool), 1), place, width)
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


def _without(same: NDArray[np.bool_], upto: NDArray[np.intp], reached: NDArray[np.integer]) -> Line:
    """Average precision without the right answers of the probe's own video; NaN where no other is left."""
    out = np.take_along_axis(np.cumsum(same, axis=1), upto, axis=1)
    gained = np.where(same, 0.0, (upto + 1 - out) / np.maximum(reached - out, 1))
    left = np.sum(~same, axis=1)
    return np.where(left > 0, gained.sum(axis=1) / np.maximum(left, 1), np.nan)
