"""From vectors to scores, and from scores to probabilities and "unknown".

A score is a similarity: higher means nearer, whatever its kind. A calibration is plain numbers, kept in
the encoder's folder with a statement of whom it was set and measured on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.space import Embedding, Modality, require_same_space
from search.gallery import Gallery

# Log-odds are kept finite: a calibration knows nothing about odds beyond 1 in 100,000.
LARGEST_LOG_ODDS = math.log(1e5)


class Similarity(StrEnum):
    """How two vectors are compared; always higher for nearer."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    CORRELATION = "correlation"


class Purpose(StrEnum):
    """What a score is asked for: each has a threshold of its own.

    ``verify`` compares one sample with another; ``identify`` compares a sample with the mean of a person's
    samples, and a stranger must pass below everybody who is enrolled. ``find`` compares a probe without the centre of
    its modality (:mod:`encoders.probe_centres`) with one sample of the other modality.
    """

    VERIFY = "verify"
    IDENTIFY = "identify"
    FIND = "find"


class NotCalibrated(ValueError):
    """An encoder's folder has no calibration for the comparison asked for."""


@dataclass(frozen=True)
class Calibration:
    """Turns a score into a probability, and draws the line below which the answer is "unknown".

    ``log odds = slope * (score - threshold)``: logistic calibration whose prior is the one at which the
    operating threshold is an even bet (Brümmer & du Preez, Computer Speech & Language 2006).

    Args:
        threshold: the operating threshold, in units of the score.
        slope: log-odds per unit of score, positive.
        provenance: whom it was set on and how it did on others.
        gallery: how the threshold rises with the people enrolled; None: it does not.
    """

    threshold: float
    slope: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gallery: Gallery | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and math.isfinite(self.slope) and self.slope > 0):
            raise ValueError(f"a calibration needs a finite threshold and a positive slope, got {self}")

    def among(self, people: int, alike: float | None = None) -> Calibration:
        """The same for a probe that is asked of many enrolled people: strangers have as many chances.

        Args:
            people: how many are enrolled.
            alike: how alike they are (:func:`search.gallery.likeness`), if that is known.
        """
        return self if self.gallery is None else replace(self, threshold=self.gallery.threshold(people, alike))

    def log_odds(self, score: float) -> float:
        """Natural log-odds that the two are one person, within ±log(100,000)."""
        return max(-LARGEST_LOG_ODDS, min(LARGEST_LOG_ODDS, self.slope * (score - self.threshold)))

    def probability(self, score: float) -> float:
        """Probability in [0, 1] that the two are one person: 0.5 exactly at the threshold."""
        return probability_of(self.log_odds(score))


def probability_of(log_odds: float) -> float:
    """The logistic function."""
    return 1.0 / (1.0 + math.exp(-log_odds))


def calibration_for(
    stored: Mapping[str, Any] | None,
    pair: tuple[Modality, Modality],
    purpose: Purpose,
    similarity: Similarity,
    *,
    space: str,
) -> Calibration:
    """Read one calibration out of an encoder's ``calibration.json``.

    Args:
        stored: its parsed content: ``{"voice-voice": {"verify": {"cosine": {"threshold", "slope"}}}, "provenance"}``,
            perhaps with a ``gallery`` beside the threshold; to find, by ``face-to-voice`` or ``voice-to-face``.
        pair: the two modalities compared; to find, the probe's first.
        purpose: what the score is asked for.
        similarity: the kind of score.
        space: the space's name, for the message.

    Raises:
        NotCalibrated: nothing fitting is stored.
    """
    name = "-to-".join(pair) if purpose is Purpose.FIND else "-".join(sorted(str(modality) for modality in pair))
    try:
        numbers = (stored or {})[name][str(purpose)][str(similarity)]
        gallery = Gallery.from_json(numbers["gallery"]) if "gallery" in numbers else None
        provenance = (stored or {}).get("provenance", {})
        return Calibration(float(numbers["threshold"]), float(numbers["slope"]), provenance, gallery)
    except (KeyError, TypeError) as error:
        raise NotCalibrated(f"{space} has no {similarity} calibration to {purpose} by {name} comparisons") from error


def fit_calibration(genuine: NDArray[np.floating], impostor: NDArray[np.floating], threshold: float) -> Calibration:
    """Fit the slope by logistic regression with both classes weighing the same; the threshold is given.

    Args:
        genuine: (n,) scores of pairs of one person, n ≥ 1.
        impostor: (m,) scores of pairs of two people, m ≥ 1.
        threshold: the operating threshold.
    """
    scores = np.concatenate([genuine, impostor]).astype(np.float64)
    labels = np.concatenate([np.ones(len(genuine)), np.zeros(len(impostor))])
    weights = np.where(labels == 1, 0.5 / len(genuine), 0.5 / len(impostor))
    # standardised, so that Newton's steps are well scaled; a little ridge keeps separable data finite
    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    design = np.stack([(scores - centre) / scale, np.ones_like(scores)], axis=1)  # (n + m, 2)
    ridge = np.diag([1e-5, 1e-8])
    coefficients = np.zeros(2)
    for _ in range(100):
        predicted = 1.0 / (1.0 + np.exp(-design @ coefficients))
        gradient = design.T @ (weights * (predicted - labels)) + ridge @ coefficients
        curvature = (design * (weights * predicted * (1 - predicted))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        coefficients -= step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(threshold, max(float(coefficients[0]) / scale, 1e-3))


def equal_error_threshold(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> float:
    """Where as large a share of genuine scores lies below as of impostor scores lies above.

    Args:
        genuine: (n,) scores, n ≥ 1.
        impostor: (m,) scores, m ≥ 1.

    Returns:
        The middle of the best stretch between two scores that occur.
    """
    edges = np.unique(np.concatenate([genuine, impostor]))
    candidates = (edges[1:] + edges[:-1]) / 2 if len(edges) > 1 else edges
    missed = np.searchsorted(np.sort(genuine), candidates) / len(genuine)
    taken = (len(impostor) - np.searchsorted(np.sort(impostor), candidates)) / len(impostor)
    worst = np.maximum(missed, taken)
    best = candidates[worst == worst.min()]
    return float((best[0] + best[-1]) / 2)


def similarity_matrix(
    probes: NDArray[np.floating], gallery: NDArray[np.floating], kind: Similarity = Similarity.COSINE
) -> NDArray[np.float64]:
    """Scores of every probe against every gallery vector.

    Args:
        probes: (n, dimension), unit length.
        gallery: (m, dimension), unit length.
        kind: cosine in [-1, 1]; euclidean as the negative distance in [-2, 0]; correlation (Pearson's,
            over components) in [-1, 1].

    Returns:
        (n, m) float64.
    """
    left, right = np.asarray(probes, np.float64), np.asarray(gallery, np.float64)
    if kind is Similarity.CORRELATION:
        left = _unit(left - left.mean(axis=1, keepdims=True))
        right = _unit(right - right.mean(axis=1, keepdims=True))
    product = left @ right.T
    if kind is Similarity.EUCLIDEAN:
        return -np.sqrt(np.maximum(0.0, 2.0 - 2.0 * product))
    return np.clip(product, -1.0, 1.0)


def similarity(a: Embedding, b: Embedding, kind: Similarity = Similarity.COSINE) -> float:
    """Score of two embeddings. Raises SpaceMismatch if they live in different spaces."""
    require_same_space(a.space, b.space)
    return float(similarity_matrix(a.vector[None], b.vector[None], kind)[0, 0])


def pooled(embeddings: Sequence[Embedding], weights: Sequence[float] | None = None) -> Embedding:
    """Many samples of one person as one point: their weighted mean, back to unit length.

    Args:
        embeddings: at least one, all of one space and modality.
        weights: non-negative, one each, not all 0; default equal.
    """
    require_same_space(embeddings[0].space, *(embedding.space for embedding in embeddings))
    mean = np.average(
        np.stack([embedding.vector for embedding in embeddings]).astype(np.float64), axis=0, weights=weights
    )
    return Embedding.of(embeddings[0].space, embeddings[0].modality, mean)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))
