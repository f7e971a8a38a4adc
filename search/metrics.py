"""How well scores tell the right from the wrong: pure functions of arrays, NumPy only.

Higher scores mean more alike. Ties are never resolved by the order of the input: each function says
how it counts them, and a scorer that says the same of everything gets what chance gets.
No function changes its inputs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RECALL_AT = (1, 5, 10)
_BLOCK_SCORES = 4_000_000  # scores held at a time, 16 MB of float32


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
    matrix, right = _pair(scores, relevant, dimensions=2)
    present = matrix != -np.inf
    values = [
        average_precision(row[kept], wanted[kept])
        for row, wanted, kept in zip(matrix, right, present, strict=True)
        if (wanted & kept).any()
    ]
    if not values:
        raise ValueError("no probe has a relevant item")
    return float(np.mean(values))


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
    # P(the first right one stands at place j of the group) = P(none before) · P(right | none before)
    none_before, expected = 1.0, 0.0
    for place in range(tied - wanted + 1):
        here = none_before * wanted / (tied - place)
        expected += here / (before + place + 1)
        none_before -= here
    return expected


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


def retrieval(
    probe_vectors: ArrayLike,
    probe_ids: Sequence[Hashable] | NDArray[Any],
    gallery_vectors: ArrayLike,
    gallery_ids: Sequence[Hashable] | NDArray[Any],
    *,
    same_sample: NDArray[np.bool_] | None = None,
    block: int | None = None,
) -> Retrieval:
    """Rank a gallery for every probe by cosine, and judge the rankings; a block of probes at a time.

    Ties count as in the functions of the same names.

    Args:
        probe_vectors: (probes, d) unit vectors.
        probe_ids: (probes,) who each probe is.
        gallery_vectors: (gallery, d) unit vectors.
        gallery_ids: (gallery,) who each item is; right answers are those of the probe's own id.
        same_sample: (probes, gallery) True where an item *is* the probe and so leaves its gallery;
            ``np.eye(n, dtype=bool)`` when the probes are the gallery.
        block: probes at a time; by default as many as give about 4 million scores.

    Raises:
        ValueError: shapes do not fit together.
    """
    probes, gallery = np.asarray(probe_vectors, np.float32), np.asarray(gallery_vectors, np.float32)
    asked, held = np.asarray(probe_ids), np.asarray(gallery_ids)
    if probes.shape != (len(asked), gallery.shape[1]) or len(gallery) != len(held):
        raise ValueError(f"vectors {probes.shape}, {gallery.shape} do not fit ids {asked.shape}, {held.shape}")
    if same_sample is not None and same_sample.shape != (len(probes), len(gallery)):
        raise ValueError(f"same_sample must be {(len(probes), len(gallery))}, got {same_sample.shape}")
    figures = np.full((len(probes), 2 + len(RECALL_AT)), np.nan)
    counts = np.zeros((len(probes), 2), dtype=np.int64)
    step = block or max(1, _BLOCK_SCORES // max(1, len(gallery)))
    for start in range(0, len(probes), step):
        lines = probes[start : start + step] @ gallery.T
        for offset, line in enumerate(lines):
            row = start + offset
            kept = slice(None) if same_sample is None else ~same_sample[row]
            scores, right = line[kept], (held == asked[row])[kept]
            counts[row] = right.sum(), len(right)
            if right.any():
                recalls = [recall_at(scores, right, k) for k in RECALL_AT]
                figures[row] = [average_precision(scores, right), reciprocal_rank(scores, right), *recalls]
    recall = {k: figures[:, 2 + column] for column, k in enumerate(RECALL_AT)}
    return Retrieval(figures[:, 0], figures[:, 1], recall, counts[:, 0], counts[:, 1])


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
    right, others = _scores(genuine), np.asarray(impostors)
    if others.ndim != 2 or len(others) != len(right) or not np.isfinite(others).all():
        raise ValueError(f"impostors must be finite ({len(right)}, N - 1) scores, got shape {others.shape}")
    beaten = (others > right[:, None]).any(axis=1)
    tied = 1 + (others == right[:, None]).sum(axis=1)
    return float(np.mean(np.where(beaten, 0.0, 1.0 / tied)))


def bootstrap_interval(
    values: ArrayLike,
    people: Sequence[Hashable] | NDArray[Any],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a mean when *people* are resampled with replacement, not their samples.

    Samples of one person resemble each other, so resampling samples gives intervals that are too
    narrow (cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8; Efron's percentile method).

    Args:
        values: (n,) one figure per probe; NaN are left out.
        people: (n,) whose probe each is.
        draws: resamples.
        seed: of the random draws.
        level: coverage, 0 to 1.

    Returns:
        (low, high).

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
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        chosen = generator.integers(len(sizes), size=len(sizes))
        means[draw] = sums[chosen].sum() / sizes[chosen].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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


def _pair(scores: ArrayLike, relevant: ArrayLike, dimensions: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    first, second = np.asarray(scores), np.asarray(relevant, dtype=bool)
    if first.ndim != dimensions or first.shape != second.shape:
        raise ValueError(f"scores {first.shape} and relevance {second.shape} must have one shape of {dimensions}-d")
    if np.isnan(first).any() or (first == np.inf).any():
        raise ValueError("a score is not finite")
    return first, second


def _ranking(scores: ArrayLike, relevant: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores from best to worst and the relevance beside them."""
    line, right = _pair(scores, relevant, dimensions=1)
    order = np.argsort(line, kind="stable")[::-1]
    return line[order], right[order]


def _tie_ends(ranking: NDArray[Any]) -> NDArray[np.intp]:
    """Index of the last item of every group of equal scores."""
    return np.append(np.flatnonzero(ranking[1:] != ranking[:-1]), len(ranking) - 1)
