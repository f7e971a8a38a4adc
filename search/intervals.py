"""How sure a figure is: intervals from resampling *people*, NumPy only.

Samples of one person resemble each other, so resampling samples, pairs or trials gives intervals that are
too narrow. Here a draw takes as many people as there are, with replacement, and everything that hangs on a
person comes as often as the person does (cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8), with Efron's percentile limits. The same seed gives the same draws,
so two models measured on the same people are compared on the same draws: that is what *paired* means.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.metrics import auc, equal_error_rate

DRAWS = 1000
LEVEL = 0.95
_BLOCK_WEIGHTS = 2_000_000  # weights of pairs held at a time, 16 MB


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with a given confidence."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A figure of one model minus that of another on the same people, and its interval."""

    difference: float
    interval: Interval


@dataclass(frozen=True, eq=False)
class Pairs:
    """Trials of verification: two samples each, and whom they show.

    Args:
        first: (pairs,) who the first sample of each pair is.
        second: (pairs,) who the second is; a pair of one person is genuine.

    Raises:
        ValueError: lengths differ, or there is not at least one genuine and one impostor pair.
    """

    first: NDArray[Any]
    second: NDArray[Any]

    def __post_init__(self) -> None:
        first, second = np.asarray(self.first), np.asarray(self.second)
        if first.ndim != 1 or first.shape != second.shape:
            raise ValueError(f"pairs need two lines of people, got {first.shape} and {second.shape}")
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", second)
        if self.genuine.all() or not self.genuine.any():
            raise ValueError("verification needs at least one pair of one person and one of two")

    @property
    def genuine(self) -> NDArray[np.bool_]:
        """(pairs,) whether both samples are of one person."""
        return np.asarray(self.first == self.second)


@dataclass(frozen=True, eq=False)
class VerificationDraws:
    """Area under the curve and equal error rate of every draw; NaN where a draw has no pairs of a kind.

    Args:
        auc: (draws,) float64.
        eer: (draws,) float64.
    """

    auc: NDArray[np.float64]
    eer: NDArray[np.float64]


def resampled_people(people: int, *, draws: int = DRAWS, seed: int = 0) -> NDArray[np.int64]:
    """(draws, people) how often each person was drawn; every row sums to ``people``."""
    chosen = np.random.default_rng(seed).integers(people, size=(draws, people))
    weights = np.zeros((draws, people), dtype=np.int64)
    np.add.at(weights, (np.arange(draws)[:, None], chosen), 1)
    return weights


def bootstrap_interval(
    values: ArrayLike,
    people: Sequence[Hashable] | NDArray[Any],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Interval of a mean when the people whose values they are are resampled.

    For a mean average precision: of probes, by the probe's person, with the gallery as it is.

    Args:
        values: (n,) one figure per probe or trial; NaN are left out.
        people: (n,) whose it is.
        draws: resamples.
        seed: of the random draws.
        level: coverage, 0 to 1.

    Raises:
        ValueError: shapes differ or nothing is left.
    """
    figures, owners = np.asarray(values, np.float64), np.asarray(people)
    if figures.ndim != 1 or figures.shape != owners.shape:
        raise ValueError(f"one person per value, got {figures.shape} and {owners.shape}")
    counted = ~np.isnan(figures)
    if not counted.any():
        raise ValueError("an interval needs at least one value")
    _, person = np.unique(owners[counted], return_inverse=True)
    sums, sizes = np.bincount(person, figures[counted]), np.bincount(person)
    weights = resampled_people(len(sizes), draws=draws, seed=seed)
    return percentiles((weights @ sums) / (weights @ sizes), level)


def paired_difference(
    values: ArrayLike,
    others: ArrayLike,
    people: Sequence[Hashable] | NDArray[Any],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Mean of one model's values minus another's on the same probes, as :func:`bootstrap_interval`.

    Probes that have no value (NaN) from either are left out.
    """
    gained = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    interval = bootstrap_interval(gained, people, draws=draws, seed=seed, level=level)
    return Difference(float(np.nanmean(gained)), interval)


def verification_draws(scores: ArrayLike, pairs: Pairs, *, draws: int = DRAWS, seed: int = 0) -> VerificationDraws:
    """AUC and EER of every draw of people: with person i drawn w_i times, a genuine pair of i counts w_i times.

    An impostor pair of i and j counts w_i · w_j times: as often as copies of the two meet. The scores are
    sorted once for all draws.

    Args:
        scores: (pairs,) finite, higher means more alike.
        pairs: whom they are of.
        draws: resamples.
        seed: of the random draws.

    Raises:
        ValueError: a score is missing or not finite.
    """
    line = np.asarray(scores)
    if line.shape != pairs.first.shape or not np.isfinite(line).all():
        raise ValueError(f"{len(pairs.first)} pairs need as many finite scores, got shape {line.shape}")
    _, person = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    order = np.argsort(line, kind="stable")
    first, second = person[: len(line)][order], person[len(line) :][order]
    ends = np.append(np.flatnonzero(np.diff(line[order])), len(line) - 1)  # last of each group of ties
    weights = resampled_people(int(person.max()) + 1, draws=draws, seed=seed).astype(np.float64)
    figures = [_weighted(*counts) for counts in _drawn_pairs(weights, first, second, ends)]
    return VerificationDraws(np.concatenate([one[0] for one in figures]), np.concatenate([one[1] for one in figures]))


def paired_verification_difference(
    scores: ArrayLike, others: ArrayLike, pairs: Pairs, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> tuple[Difference, Difference]:
    """AUC and EER of one model minus those of another on the same pairs and the same draws of people."""
    mine = verification_draws(scores, pairs, draws=draws, seed=seed)
    theirs = verification_draws(others, pairs, draws=draws, seed=seed)
    genuine, first, second = pairs.genuine, np.asarray(scores), np.asarray(others)
    gains = [
        figure(first[genuine], first[~genuine]) - figure(second[genuine], second[~genuine])
        for figure in (auc, equal_error_rate)
    ]
    return (
        Difference(gains[0], percentiles(mine.auc - theirs.auc, level)),
        Difference(gains[1], percentiles(mine.eer - theirs.eer, level)),
    )


def percentiles(figures: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle ``level`` of a figure's draws; NaN are left out. Raises ValueError if nothing is left."""
    counted = figures[~np.isnan(figures)]
    if not len(counted):
        raise ValueError("no draw of people gave a figure: there are too few of them")
    low, high = np.quantile(counted, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _drawn_pairs(
    weights: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp], ends: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Of some draws at a time: genuine and impostor pairs up to each group of ties, (draws, groups) each."""
    genuine = first == second
    step = max(1, _BLOCK_WEIGHTS // len(first))
    for start in range(0, len(weights), step):
        one, other = weights[start : start + step, first], weights[start : start + step, second]
        upto_genuine = np.cumsum(np.where(genuine, one, 0.0), axis=1)[:, ends]
        yield upto_genuine, np.cumsum(np.where(genuine, 0.0, one * other), axis=1)[:, ends]


def _weighted(
    genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC and EER, (draws,) each, from counts up to each score, (draws, scores); NaN where a kind is absent.

    The same definitions as :func:`search.metrics.auc` and :func:`search.metrics.equal_error_rate`.
    """
    of_genuine, of_impostor = genuine[:, -1:], impostor[:, -1:]
    absent = (of_genuine == 0) | (of_impostor == 0)
    # Share of pairs below each threshold; the last threshold lies above every score.
    rejected = _led_by_zero(genuine / np.where(absent, 1.0, of_genuine))
    below = _led_by_zero(impostor / np.where(absent, 1.0, of_impostor))
    area = np.sum(np.diff(rejected, axis=1) * (below[:, 1:] + below[:, :-1]) / 2, axis=1)
    gap = 1.0 - below - rejected  # accepted impostors minus rejected genuine pairs: falls from 1 to -1
    after = np.sum(gap > 0, axis=1)  # the first threshold at which rejections are no fewer
    row = np.arange(len(gap))
    after = np.clip(after, 1, gap.shape[1] - 1)
    share = gap[row, after - 1] / np.where(absent[:, 0], 1.0, gap[row, after - 1] - gap[row, after])
    rate = rejected[row, after - 1] + share * (rejected[row, after] - rejected[row, after - 1])
    return np.where(absent[:, 0], np.nan, area), np.where(absent[:, 0], np.nan, rate)


def _led_by_zero(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.zeros((len(counts), 1)), counts], axis=1)
