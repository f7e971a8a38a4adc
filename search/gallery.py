"""How far a threshold must rise with the people enrolled: with their number, and with how alike they are.

A stranger who is asked of N enrolled people has N chances to be near somebody. Where a share p of all comparisons
of two different people scores above t, he is named by a threshold t with probability 1 - (1 - p)^N; held the other
way round, that gives the threshold for every N. Small p lie beyond the scores that a calibration has seen, so the
tail is fitted: the excesses over a high quantile follow a generalised Pareto distribution (Pickands, Annals of
Statistics 1975), here on Fisher's z = artanh(cosine), which no cosine bounds from above.

The shape that the moments give is halved, because few people hide how far the tail reaches. Tried on x-vectors of
632 real people, with tails fitted on 47 to 316 of them and galleries of 10 to 300 of the others, where 1 % of
strangers was asked for: the whole shape names 1.5 to 12 % of them, none of it (an exponential tail) 0.3 % and, among
300, nobody; half of it 0.4 to 1.4 %. (Tails fitted on 25 people name 3 to 4 %.)

People who are more alike than those of the calibration (a family, one studio's voices, people we invent) bring
strangers who are more like them, too. So the tail begins higher by as much as the enrolled are nearer to each other,
in z, than the people of the calibration were. It never begins lower: few enrolled people may differ by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.intervals import bootstrap_interval

# The share of the highest scores that a tail is fitted to, and what is kept of the shape that they show.
TAIL_SHARE = 0.2
SHAPE_KEPT = 0.5
# Excesses fewer than this say nothing about a tail.
FEWEST_EXCESSES = 10
# The largest cosine that Fisher's z is taken of: equal vectors, or rounding beyond 1, would be infinite.
_LARGEST_COSINE = 1.0 - 1e-7


class NoTail(ValueError):
    """Too few different scores to fit a tail to."""


@dataclass(frozen=True)
class Tail:
    """The upper tail of the cosines of a stranger to an enrolled person.

    Args:
        share: of all comparisons that lie in the tail, 0 to 1.
        start: where it begins, as Fisher's z of the cosine.
        scale: of the excesses over it, in z, positive.
        shape: of the generalised Pareto distribution: 0 is exponential, below 0 it ends somewhere.

    Raises:
        ValueError: a number is out of its range.
    """

    share: float
    start: float
    scale: float
    shape: float

    def __post_init__(self) -> None:
        finite = all(math.isfinite(number) for number in (self.start, self.scale, self.shape))
        if not (finite and 0 < self.share < 1 and self.scale > 0 and abs(self.shape) < 1):
            raise ValueError(f"a tail needs a share within 0 to 1, a positive scale and a shape within ±1, got {self}")

    @classmethod
    def fit(cls, scores: NDArray[np.floating]) -> Tail:
        """The tail of the cosines of different people, by the moments of the excesses.

        Args:
            scores: (n,) cosines in [-1, 1], each of a sample to the mean of another person.

        Raises:
            NoTail: too few of them, or all alike.
        """
        heights = np.arctanh(np.clip(np.asarray(scores, np.float64), -_LARGEST_COSINE, _LARGEST_COSINE))
        start = float(np.quantile(heights, 1 - TAIL_SHARE)) if len(heights) else 0.0
        excesses = heights[heights > start] - start
        if len(excesses) < FEWEST_EXCESSES or float(excesses.std()) < 1e-9:
            raise NoTail(f"a tail needs {FEWEST_EXCESSES} different scores above the rest, got {len(excesses)}")
        mean, variance = float(excesses.mean()), float(excesses.var())
        shape = SHAPE_KEPT * max(-1.0, min(0.0, (1 - mean * mean / variance) / 2))
        return cls(TAIL_SHARE, start, mean * (1 - shape), shape)

    def score(self, probability: float) -> float:
        """The cosine that a share ``probability`` (above 0) of comparisons exceeds; its start at the lowest."""
        rarer = max(1.0, self.share / probability)
        reach = math.log(rarer) if abs(self.shape) < 1e-9 else (rarer**self.shape - 1) / self.shape
        return math.tanh(self.start + self.scale * reach)


@dataclass(frozen=True)
class Gallery:
    """What an operating threshold holds however many people are enrolled.

    Args:
        level: probability that a stranger is named, above 0 and below 1.
        tail: of strangers' scores.
        likeness: of the people it was fitted on (:func:`likeness`); None: that of a gallery does not matter.

    Raises:
        ValueError: a number is out of its range.
    """

    level: float
    tail: Tail
    likeness: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"a share of strangers lies above 0 and below 1, got {self.level}")
        if self.likeness is not None and not math.isfinite(self.likeness):
            raise ValueError(f"how alike people are is a finite number, got {self.likeness}")

    def threshold(self, people: int, alike: float | None = None) -> float:
        """The cosine at which a stranger among the enrolled is named with probability ``level``.

        Args:
            people: how many are enrolled.
            alike: their :func:`likeness`; None where that is not known. It counts the more the more people show it.
        """
        raised = 0.0
        if alike is not None and self.likeness is not None:
            raised = max(0.0, alike - self.likeness) * (1 - 1 / max(1, people))
        return replace(self.tail, start=self.tail.start + raised).score(1 - (1 - self.level) ** (1 / max(1, people)))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, as ``calibration.json`` keeps them."""
        tail = {name: round(number, 5) for name, number in asdict(self.tail).items()}
        likeness = {} if self.likeness is None else {"likeness": round(self.likeness, 5)}
        return {"level": self.level, "tail": tail} | likeness

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Gallery:
        """What :meth:`to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        numbers = [float(stored["tail"][name]) for name in ("share", "start", "scale", "shape")]
        likeness = stored.get("likeness")
        return cls(float(stored["level"]), Tail(*numbers), None if likeness is None else float(likeness))


def likeness(people: NDArray[np.floating]) -> float | None:
    """How alike people are: the mean of Fisher's z over all pairs of them; None for fewer than two.

    Args:
        people: (n, dimension) a point each, such as the mean of their samples, of any length but 0.
    """
    points = _unit(np.asarray(people, np.float64))
    if len(points) < 2:
        return None
    cosines = (points @ points.T)[np.triu_indices(len(points), k=1)]
    return float(np.arctanh(np.clip(cosines, -_LARGEST_COSINE, _LARGEST_COSINE)).mean())


@dataclass(frozen=True, eq=False)
class Asked:
    """Samples asked of everybody's mean: whose each is, and how near they came.

    Args:
        people: (n,) whose sample it is.
        own: (n,) cosine to the mean of the person's other samples; NaN where there are none.
        others: (n, m) cosines to the means of all other people.
    """

    people: NDArray[Any]
    own: NDArray[np.float64]
    others: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: NDArray[np.floating], people: NDArray[Any]) -> Asked:
        """Ask every sample of everybody, its own person without it.

        Args:
            vectors: (n, dimension) of any length but 0.
            people: (n,) whose, of two people at least.
        """
        unit = _unit(np.asarray(vectors, np.float64))
        names, person = np.unique(people, return_inverse=True)
        sums = np.zeros((len(names), unit.shape[1]))
        np.add.at(sums, person, unit)
        scores = np.clip(unit @ _unit(sums).T, -1.0, 1.0)  # (n, people)
        rest = sums[person] - unit
        alone = np.bincount(person)[person] < 2
        own = np.where(alone, np.nan, np.sum(unit * _unit(np.where(alone[:, None], unit, rest)), axis=1))
        another = person[:, None] != np.arange(len(names))
        return cls(np.asarray(people), own, scores[another].reshape(len(unit), len(names) - 1))


def measured(asked: Asked, gallery: Gallery, people: int) -> dict[str, Any]:
    """How the threshold for a gallery does, in expectation over all galleries of that size, as fractions.

    A known person is missed when their own mean does not reach the threshold or somebody else's is nearer; a
    stranger is named when anybody's reaches it.

    Args:
        asked: people who had no part in fitting the tail.
        gallery: the level to hold, and the tail.
        people: size of the gallery. Beyond the people who are there, known people are counted as missed by the
            threshold only, which is the least it can be, and strangers not at all.

    Returns:
        ``people``, ``threshold``, ``missed`` and ``strangers_named`` with their 95 % identity-bootstrap
        intervals ``missed_ci95`` and ``strangers_named_ci95``.
    """
    threshold, most = gallery.threshold(people), asked.others.shape[1]
    known = ~np.isnan(asked.own)
    own, beside = asked.own[known], asked.others[known]
    nearer = np.sum(beside > own[:, None], axis=1)
    first = _none_drawn(nearer, most, people - 1) if people <= most else np.ones(len(own))
    told: dict[str, Any] = {"people": people, "threshold": round(threshold, 4)}
    told |= _told("missed", 1 - (own >= threshold) * first, asked.people[known])
    if people > most:
        return told | {"strangers_named": None, "strangers_named_ci95": None}
    reached = np.sum(asked.others >= threshold, axis=1)
    return told | _told("strangers_named", 1 - _none_drawn(reached, most, people), asked.people)


def by_size(asked: Asked, tail: Tail, levels: Sequence[float], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """:func:`measured` at every level and for every size, and for the largest that the people measured on allow."""
    counts = sorted({*sizes, asked.others.shape[1]})
    return [{"level": level} | measured(asked, Gallery(level, tail), people) for level in levels for people in counts]


def _told(name: str, values: NDArray[np.float64], people: NDArray[Any]) -> dict[str, Any]:
    interval = bootstrap_interval(values, people)
    return {name: round(float(values.mean()), 5), f"{name}_ci95": [round(interval.low, 5), round(interval.high, 5)]}


def _none_drawn(marked: NDArray[np.integer], total: int, drawn: int) -> NDArray[np.float64]:
    """(n,) probability that of ``total`` things, ``drawn`` of them drawn, none is one of the (n,) ``marked``."""
    chance = np.ones(len(marked))
    for taken in range(drawn):
        chance *= np.clip((total - taken - marked) / (total - taken), 0.0, 1.0)
    return chance


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
