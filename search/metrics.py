"""How well scores tell the right from the wrong: pure functions of arrays, NumPy only.

Higher scores mean more alike. Ties are never resolved by the order of the input: each function says
how it counts them, and a scorer that says the same of everything gets what chance gets.
No function changes its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.ranking import expected_reciprocal_rank, judge, scores_and_relevance

# Chance is asked of the same numbers for a model, for each oracle and for each breakdown.
_CASES = 16_384


def average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Area under the precision-recall steps: sum over thresholds of (R_k − R_(k−1)) · P_k.

    Items of one score share one threshold, hence one precision: the definition, without
    interpolation, of scikit-learn's ``average_precision_score`` (Manning, Raghavan, Schütze,
    Introduction to Information Retrieval, 2008, section 8.4).

    Args:
        scores: (n,) finite scores.
        relevant: (n,) whether each item is a right answer; at least one is.

    Returns:
        0 to 1; with constant scores the share of right answers.

    Raises:
        ValueError: shapes differ, a score is not finite, or nothing is relevant.
    """
    ranking, right = _ranking(scores, relevant)
    total = int(right.sum())
    if total == 0:
        raise ValueError("average precision needs at least one relevant item")
    ends = _tie_ends(ranking)
    found = np.cumsum(right)[ends]
    gained = np.diff(found, prepend=0) / total
    return float(np.sum(gained * found / (ends + 1)))


def mean_average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Mean over probes of :func:`average_precision`.

    Args:
        scores: (probes, gallery) scores; −inf takes an item out of a probe's gallery.
        relevant: (probes, gallery) whether each item is a right answer; probes without any are left out.

    Raises:
        ValueError: shapes differ or no probe has a right answer.
    """
    judged = judge(scores, relevant)
    if not judged.relevant.any():
        raise ValueError("no probe has a relevant item")
    return judged.map


def recall_at(scores: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Probability that a right answer is among the first ``k`` when ties are shuffled.

    With ``b`` items before the tied group that holds place k, ``t`` in that group and ``r`` of them
    right: 1 if a right answer stands before the group, else 1 − C(t − r, k − b) / C(t, k − b).
    """
    if k < 1:
        raise ValueError(f"k is at least 1, got {k}")
    ranking, right = _ranking(scores, relevant)
    if k >= len(ranking):
        return float(right.any())
    ends = _tie_ends(ranking)
    group = int(np.searchsorted(ends, k - 1))
    before = int(ends[group - 1]) + 1 if group else 0
    if right[:before].any():
        return 1.0
    tied = int(ends[group]) + 1 - before
    return 1.0 - _all_wrong(tied, int(right[before : before + tied].sum()), k - before)


def reciprocal_rank(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Expected 1 / rank of the first right answer when ties are shuffled; 0 if there is none."""
    ranking, right = _ranking(scores, relevant)
    if not right.any():
        return 0.0
    ends = _tie_ends(ranking)
    group = int(np.searchsorted(ends, int(np.argmax(right))))
    before = int(ends[group - 1]) + 1 if group else 0
    tied = int(ends[group]) + 1 - before
    wanted = int(right[before : before + tied].sum())
    return expected_reciprocal_rank(before, tied, wanted)


@lru_cache(maxsize=_CASES)
def chance_recall(relevant: int, total: int, k: int) -> float:
    """Probability that one of ``relevant`` right answers of ``total`` is among the first k of a random order."""
    return 1.0 if k >= total else 1.0 - _all_wrong(total, relevant, k)


@lru_cache(maxsize=_CASES)
def chance_reciprocal_rank(relevant: int, total: int) -> float:
    """Expected 1 / rank of the first of ``relevant`` right answers of ``total`` in a random order."""
    return expected_reciprocal_rank(0, total, relevant)


@lru_cache(maxsize=_CASES)
def chance_average_precision(relevant: int, total: int) -> float:
    """Expected average precision of a random order of ``total`` items, ``relevant`` of them right.

    (1 / n) · [(R − 1)(n − H_n) / (n − 1) + H_n] with H_n the n-th harmonic number: at rank k the item
    is right with probability R/n, and then (R − 1)(k − 1)/(n − 1) of those before it are (Bestgen,
    Exact expected average precision of the random baseline, 2015).

    Raises:
        ValueError: unless 1 ≤ relevant ≤ total.
    """
    if not 1 <= relevant <= total:
        raise ValueError(f"chance needs 1 <= relevant <= total, got {relevant} of {total}")
    if total == 1:
        return 1.0
    harmonic = float(np.sum(1.0 / np.arange(1, total + 1)))
    return ((relevant - 1) * (total - harmonic) / (total - 1) + harmonic) / total


def auc(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Area under the ROC curve: P(genuine > impostor) + ½ P(genuine = impostor) (Mann and Whitney, 1947).

    Args:
        genuine: (n,) scores of pairs of one person, n ≥ 1.
        impostor: (m,) scores of pairs of two people, m ≥ 1.

    Raises:
        ValueError: one of them is empty or not finite.
    """
    right, wrong = _scores(genuine), np.sort(_scores(impostor))
    below = np.searchsorted(wrong, right, side="left").astype(np.float64)
    upto = np.searchsorted(wrong, right, side="right")
    return float(np.sum(below + upto) / (2 * len(right) * len(wrong)))


def equal_error_rate(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """The error at which false accepts and false rejects are equally frequent, 0 to 1.

    Pairs at or above a threshold are accepted. As it falls over all scores, (false accept rate, false
    reject rate) walks from (0, 1) to (1, 0); between two of its points the walk is a straight line,
    and where that crosses equality is the answer. Arguments as for :func:`auc`.
    """
    right, wrong = np.sort(_scores(genuine)), np.sort(_scores(impostor))
    thresholds = np.unique(np.concatenate([right, wrong]))[::-1]
    accepted = np.append(0.0, 1.0 - np.searchsorted(wrong, thresholds) / len(wrong))
    rejected = np.append(1.0, np.searchsorted(right, thresholds) / len(right))
    gap = accepted - rejected  # from -1 to 1, never falling
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(accepted[after - 1] + share * (accepted[after] - accepted[after - 1]))


def matching_credits(genuine: ArrayLike, impostors: ArrayLike) -> NDArray[np.float64]:
    """What each 1:N trial earns for N = 2, 3, …: 1 / (number tied for best) if the right one is best, else 0.

    Args:
        genuine: (trials,) score of the right candidate.
        impostors: (trials, N − 1) scores of the others in the order of the list; NaN from the place on where
            a trial has no more candidates.

    Returns:
        (trials, N − 1) float64: column i is the trial with its first i + 2 candidates, NaN where it has fewer.

    Raises:
        ValueError: shapes do not fit, nothing to average, or not finite.
    """
    right, others = _scores(genuine), np.asarray(impostors, dtype=np.float64)
    if others.ndim != 2 or len(others) != len(right) or not others.shape[1]:
        raise ValueError(f"impostors must be ({len(right)}, N - 1) scores, got shape {others.shape}")
    absent = np.isnan(others)
    if np.isinf(others).any() or (absent[:, :-1] & ~absent[:, 1:]).any():
        raise ValueError("impostors must be finite scores, NaN only behind a trial's last candidate")
    beaten = np.logical_or.accumulate(others > right[:, None], axis=1)
    tied = 1 + np.cumsum(others == right[:, None], axis=1)
    return np.where(absent, np.nan, np.where(beaten, 0.0, 1.0 / tied))


def matching_accuracy(genuine: ArrayLike, impostors: ArrayLike) -> float:
    """Share of 1:N trials in which the right candidate scores highest; a tie of j counts 1/j.

    Args:
        genuine: (trials,) score of the right candidate.
        impostors: (trials, N − 1) scores of the others.

    Returns:
        0 to 1; with constant scores 1/N.

    Raises:
        ValueError: shapes do not fit, nothing to average, or not finite.
    """
    if np.isnan(np.asarray(impostors, dtype=np.float64)).any():
        raise ValueError("impostors must be finite scores")
    return float(np.mean(matching_credits(genuine, impostors)[:, -1]))


@dataclass(frozen=True)
class OpenSet:
    """Rates of 1:N search in which the answer may be "unknown" (ISO/IEC 19795-1), all 0 to 1.

    Args:
        identified: of probes of known people, those whose own candidate is first and at or above the threshold.
        misidentified: of the same, those given another person's name.
        false_positive: of probes of unknown people, those given any name.
    """

    identified: float
    misidentified: float
    false_positive: float


def open_set(known: ArrayLike, own: ArrayLike, unknown: ArrayLike, threshold: float) -> OpenSet:
    """Identification at a threshold; a score equal to it is accepted, a tie of j best counts 1/j each.

    Args:
        known: (n, N) scores of known people's probes against every enrolled person.
        own: (n,) column of each probe's own person.
        unknown: (m, N) scores of probes of people who are not enrolled.
        threshold: the least score that is given a name.

    Raises:
        ValueError: shapes do not fit or there is nothing to count.
    """
    scores, strangers = np.asarray(known), np.asarray(unknown)
    column = np.asarray(own, dtype=np.intp)
    if scores.ndim != 2 or strangers.ndim != 2 or len(column) != len(scores) or not len(scores) or not len(strangers):
        raise ValueError(f"scores {scores.shape} and {strangers.shape} do not fit {column.shape} columns")
    best = scores.max(axis=1)
    named = best >= threshold
    mine = np.take_along_axis(scores, column[:, None], axis=1)[:, 0] == best
    right = np.where(named & mine, 1.0 / (scores == best[:, None]).sum(axis=1), 0.0)
    return OpenSet(
        identified=float(right.mean()),
        misidentified=float((named - right).mean()),
        false_positive=float((strangers.max(axis=1) >= threshold).mean()),
    )


def _all_wrong(tied: int, right: int, drawn: int) -> float:
    """C(tied − right, drawn) / C(tied, drawn): that none of ``drawn`` of ``tied`` items is right."""
    return float(np.prod([max(0, tied - right - i) / (tied - i) for i in range(drawn)]))


def _scores(values: ArrayLike) -> NDArray[Any]:
    scores = np.asarray(values)
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores must be a non-empty line of finite numbers, got shape {scores.shape}")
    return scores


def _ranking(scores: ArrayLike, relevant: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores from best to worst and the relevance beside them."""
    line, right = scores_and_relevance(scores, relevant, dimensions=1)
    if np.isnan(line).any() or (line == np.inf).any():
        raise ValueError("a score is not finite")
    order = np.argsort(line, kind="stable")[::-1]
    return line[order], right[order]


def _tie_ends(ranking: NDArray[Any]) -> NDArray[np.intp]:
    """Index of the last item of every group of equal scores."""
    return np.append(np.flatnonzero(ranking[1:] != ranking[:-1]), len(ranking) - 1)
