"""What an evaluation's pictures show, as plain numbers: curves of scores and places, and maps of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.space import Modality

MOST_POINTS = 400
"""A curve has no more points than a picture can show."""
LEAST_FOR_NEIGHBOURS = 5
"""Fewer embeddings have no neighbourhoods that t-SNE could keep."""
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False)
class Curve:
    """A line: (n,) float64 each, as many."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.x.shape != self.y.shape or not len(self.x):
            raise ValueError(f"a curve has points, as many x as y, got {self.x.shape} and {self.y.shape}")


@dataclass(frozen=True, eq=False)
class Histogram:
    """How scores are spread: two shares that add up to 1 each over common bins.

    Args:
        edges: (bins + 1,) float64, rising.
        same: (bins,) share of the pairs of one person.
        different: (bins,) share of the pairs of two people.
    """

    edges: NDArray[np.float64]
    same: NDArray[np.float64]
    different: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Embeddings laid out in a plane.

    Args:
        places: (n, 2) float64.
        people: of each.
        modalities: of each.
        method: ``PCA`` or ``t-SNE``.
    """

    places: NDArray[np.float64]
    people: tuple[str, ...]
    modalities: tuple[Modality, ...]
    method: str

    def __post_init__(self) -> None:
        if self.places.shape != (len(self.people), 2) or len(self.modalities) != len(self.people):
            raise ValueError(f"{len(self.people)} people, but places of {self.places.shape}")


def error_rates(scores: ArrayLike, same: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False acceptance and false rejection at every threshold, from accepting nothing to accepting everything.

    Pairs that score alike pass a threshold together.

    Args:
        scores: (n,) finite; higher is more alike.
        same: (n,) whether a pair is of one person; both kinds must occur.

    Returns:
        (thresholds + 1,) float64 each: the first falls from 1 nowhere, it rises from 0 to 1; the second falls
        from 1 to 0.

    Raises:
        ValueError: lengths differ, a score is not finite, or one kind of pairs is missing.
    """
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if values.ndim != 1 or values.shape != right.shape or not np.isfinite(values).all():
        raise ValueError(f"need as many finite scores as labels, got {values.shape} and {right.shape}")
    if right.all() or not right.any():
        raise ValueError("error rates need pairs of one person and pairs of two people")
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    accepted = np.cumsum(right[order])[ends]
    passed = ends + 1 - accepted
    false_acceptance = np.concatenate([[0.0], passed / np.count_nonzero(~right)])
    false_rejection = np.concatenate([[1.0], 1 - accepted / np.count_nonzero(right)])
    return false_acceptance, false_rejection


def roc(scores: ArrayLike, same: ArrayLike) -> Curve:
    """True acceptance over false acceptance, see :func:`error_rates`; the area under all its points is the AUC."""
    false_acceptance, false_rejection = error_rates(scores, same)
    return thinned(Curve(false_acceptance, 1 - false_rejection))


def det(scores: ArrayLike, same: ArrayLike) -> Curve:
    """False rejection over false acceptance (Martin et al. 1997), see :func:`error_rates`, without the ends 0 and 1.

    A list that is told apart without any error has one point, half a pair from both.
    """
    false_acceptance, false_rejection = error_rates(scores, same)
    inside = (false_acceptance > 0) & (false_rejection > 0)
    if not inside.any():
        right = np.asarray(same, dtype=bool)
        half = [0.5 / np.count_nonzero(~right)], [0.5 / np.count_nonzero(right)]
        return Curve(np.array(half[0]), np.array(half[1]))
    return thinned(Curve(false_acceptance[inside], false_rejection[inside]))


def score_histogram(scores: ArrayLike, same: ArrayLike, bins: int = 60) -> Histogram:
    """How the scores of both kinds of pairs are spread over common bins.

    Raises:
        ValueError: see :func:`error_rates`.
    """
    error_rates(scores, same)  # refuses what is no list of pairs
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1e-6, bins + 1)
    counts = [np.histogram(values[kind], edges)[0].astype(np.float64) for kind in (right, ~right)]
    return Histogram(edges, counts[0] / counts[0].sum(), counts[1] / counts[1].sum())


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """The same line with at most ``most`` points, spread evenly along its length; its ends stay."""
    if len(curve.x) <= most:
        return curve
    steps = np.hypot(np.diff(curve.x), np.diff(curve.y))
    walked = np.concatenate([[0.0], np.cumsum(steps)])
    kept = np.unique(np.searchsorted(walked, np.linspace(0, walked[-1], most)))
    kept = np.unique(np.concatenate([[0], kept[kept < len(curve.x)], [len(curve.x) - 1]]))
    return Curve(curve.x[kept], curve.y[kept])


def chosen_people(people: Mapping[Modality, Sequence[str]], count: int, seed: int = 0) -> tuple[str, ...]:
    """People for a map: some of those who have samples of both modalities, drawn by a seed, in order of name."""
    both = sorted(set(people[Modality.FACE]) & set(people[Modality.VOICE]))
    drawn = np.random.default_rng(seed).permutation(len(both))[:count]
    return tuple(both[index] for index in sorted(drawn))


def map_embeddings(
    vectors: Mapping[Modality, NDArray[np.floating]], people: Mapping[Modality, Sequence[str]], chosen: Sequence[str],
    *, each: int = 40, method: str = "PCA", seed: int = 0,
) -> EmbeddingMap:  # fmt: skip
    """Lay faces and voices of a few people, or only the one, out in one plane.

    Args:
        vectors: by modality, (n, dimension), of one space; of both modalities or of one.
        people: by modality, (n,) whom each shows.
        chosen: people to show.
        each: samples per person and modality at most, the first ones.
        method: ``PCA`` (the two directions of largest variance) or ``t-SNE`` (van der Maaten and Hinton 2008; keeps
            neighbours together, distances between groups mean nothing).
        seed: of t-SNE.

    Raises:
        ValueError: fewer than five embeddings, or another method.
    """
    rows, shown, kinds = [], [], []
    for modality in sorted(vectors, key=list(Modality).index):
        of_whom = np.asarray(people[modality], dtype=str)
        for person in chosen:
            mine = np.flatnonzero(of_whom == person)[:each]
            rows.append(np.asarray(vectors[modality], dtype=np.float64)[mine])
            shown += [person] * len(mine)
            kinds += [modality] * len(mine)
    together = np.concatenate(rows) if rows else np.zeros((0, 1))
    if len(together) < LEAST_FOR_NEIGHBOURS:
        raise ValueError(f"a map needs at least {LEAST_FOR_NEIGHBOURS} embeddings, got {len(together)}")
    if method == "PCA":
        places = _principal(together)
    elif method == "t-SNE":
        places = _neighbours(together, seed)
    else:
        raise ValueError(f"a map is made by PCA or t-SNE, not by {method!r}")
    return EmbeddingMap(places, tuple(shown), tuple(kinds), method)


def _principal(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The two directions of largest variance, each pointing where its largest part is positive."""
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    first = np.zeros((2, vectors.shape[1]))
    first[: min(2, len(directions))] = directions[:2]
    signs = np.sign(first[np.arange(2), np.abs(first).argmax(axis=1)])
    return np.asarray(centred @ (first * np.where(signs == 0, 1, signs)[:, None]).T)


def _neighbours(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE  # heavy, and wanted for pictures only
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    plane = TSNE(n_components=2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
    with threadpool_limits(1):  # on a busy machine several threads wait for each other; and sums keep their order
        return np.asarray(plane.fit_transform(vectors), dtype=np.float64)
